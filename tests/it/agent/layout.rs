//! `mig::rebalance` by the direct route, from the engine over the real link to an agent with GPUs made of software.
//!
//! Invariant: what the library wrote to its timeline is what happened.

use super::commands::ended;
use super::*;
use crate::gpus::Gpus;

const RUNBOOK: &str = "//! Make room.\n//!\n//! params:\n//!   node: Node\n//!   profile: String\n//!   count: Int\n//! scope: node\n\n\
                       let demand = #{};\ndemand[profile] = count;\nmig::rebalance(node, #{ demand: demand, within: \"5m\" });\n";

struct Stand {
    gpus: Gpus,
    engine: Engine,
    _agents: [Agent; 2],
    _place: Place,
}

/// Two nodes without a cluster, so that one may be out of service.
async fn stand(timeline: &str) -> Stand {
    let gpus = Gpus::new(timeline);
    let place = Place::new("", "rules: []\n", &[("room", RUNBOOK)]);
    let none = place.folder("gpu-1").join("none");
    let config = format!("nvml: {{ library: {} }}\nkubelet_checkpoint: {}\n", gpus.library().display(), none.display());
    place.write_config("gpu-1", &config);
    let engine = place.site.start(&[]).await.unwrap();
    let agents = [place.agent(&engine, "gpu-1").await, place.agent(&engine, "gpu-2").await];
    connected(&engine, "gpu-1").await;
    connected(&engine, "gpu-2").await;
    Stand { gpus, engine, _agents: agents, _place: place }
}

impl Stand {
    async fn room(&self, profile: &str, count: u32) -> Value {
        let params = json!({ "node": "gpu-1", "profile": profile, "count": count });
        let (status, run) =
            self.engine.post("/api/v1/runs", &json!({ "runbook": "room", "params": params })).await.unwrap();
        assert_eq!(status, 201, "{run}");
        ended(&self.engine, run["run"]["id"].as_str().unwrap()).await
    }

    /// Instances that were made (or were there) and not destroyed, from the timeline: GPU, profile, start.
    fn lies(&self) -> Vec<String> {
        let mut there: Vec<(String, String, String)> = Vec::new();
        for line in self.gpus.timeline().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["gpu", gpu, "gi", id, rest @ ..] = words.as_slice() {
                let (gpu, id) = ((*gpu).to_owned(), (*id).to_owned());
                match rest {
                    ["profile", profile, "start", start] => there.push((gpu, id, format!("{profile}@{start}"))),
                    _ => there.retain(|(of, known, _)| (of, known) != (&gpu, &id)),
                }
            }
        }
        let mut list: Vec<String> = there.into_iter().map(|(gpu, _, place)| format!("{gpu}:{place}")).collect();
        list.sort();
        list
    }
}

#[tokio::test]
async fn a_demand_becomes_instances_on_the_gpus_that_are_well() {
    let stand = stand("machine h100 gpus 2\ngpu 0 mig on\ngpu 1 mig on\ngpu 0 rows pending").await;
    let run = stand.room("3g.40gb", 2).await;
    let outcome = &run["steps"][0]["outcome"]["ok"];
    assert_eq!((&outcome["changed"], &outcome["route"]), (&json!(true), &json!("direct")), "{run}");
    // NVIDIA's number of 3g.40gb is 9.
    assert_eq!(stand.lies(), ["1:9@0", "1:9@4"], "{}", stand.gpus.timeline());
    // There is no room for more, and the GPU that is ill is named.
    let run = stand.room("7g.80gb", 2).await;
    assert!(run["run"]["state"].to_string().contains("rows of its memory wait for a reset"), "{run}");
    assert_eq!(stand.lies(), ["1:9@0", "1:9@4"]);
    assert_eq!(stand.engine.stop(), Some(0));
}

#[tokio::test]
async fn the_first_failure_on_the_node_puts_the_old_layouts_back_and_the_run_says_so() {
    let stand = stand("machine h100 gpus 2\ngpu 0 mig on\ngpu 1 mig on").await;
    stand.gpus.say("gpu 1 error nvmlDeviceCreateGpuInstanceWithPlacement 23");
    let run = stand.room("7g.80gb", 2).await;
    let text = run["run"]["state"].to_string();
    assert!(text.contains("no instance of this size fits there") && text.contains("the old layout is back"), "{run}");
    assert_eq!(stand.lies(), [""; 0], "{}", stand.gpus.timeline());
    stand.gpus.say("gpu 1 error nvmlDeviceCreateGpuInstanceWithPlacement none");
    let run = stand.room("7g.80gb", 2).await;
    assert_eq!(run["run"]["state"]["is"], "done", "{run}");
    assert_eq!(stand.lies(), ["0:0@0", "1:0@0"]);
}
