//! `node::reboot`, the last resort: people are asked in every mode, and another boot is what shows that it happened.
//!
//! The program that reboots is a stand-in: it counts its calls, gives the "machine" another boot id, and the test takes the
//! agent's process away and starts it again, as a boot would.
//!
//! Invariant: the stand-in's own count is what is believed.

use super::commands::ended;
use super::*;

const RUNBOOK: &str =
    "//! Reboot a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\nnode::reboot(node);\n";
const RULES: &str = "rules:\n  - name: reboot\n    when: ['alertname=\"GpuXid\"']\n    run: reboot\n    mode: auto\n";

struct Stand {
    place: Place,
    engine: Engine,
    agent: Option<Agent>,
    _other: Agent,
}

/// Two nodes, so that one may be out of service. `script` is what the stand-in does beside counting.
async fn stand(script: &str) -> Stand {
    let place = Place::new("", RULES, &[("reboot", RUNBOOK)]);
    let folder = place.folder("gpu-1");
    let f = folder.display();
    executable(
        &folder.join("reboot"),
        &format!("#!/bin/sh\necho \"$@\" >>{f}/count\n{}\n", script.replace("HERE", &f.to_string())),
    );
    std::fs::write(folder.join("boot"), "boot-1\n").unwrap();
    place.write_config("gpu-1", &format!("reboot: [{f}/reboot, now]\nboot_id: {f}/boot\n"));
    let engine = place.site.start(&[]).await.unwrap();
    let agent = place.agent(&engine, "gpu-1").await;
    let other = place.agent(&engine, "gpu-2").await;
    connected(&engine, "gpu-1").await;
    connected(&engine, "gpu-2").await;
    Stand { place, engine, agent: Some(agent), _other: other }
}

impl Stand {
    /// The node's complaint, and the run that the rule starts for it.
    async fn complain(&mut self) -> String {
        self.agent.as_mut().unwrap().hears(["xid-79".to_owned()]);
        eventually("a run", async || {
            let answer = self.engine.get("/api/v1/runs").await?;
            answer["runs"].as_array()?.first()?["id"].as_str().map(str::to_owned)
        })
        .await
    }

    /// The one question that people are asked.
    async fn question(&self) -> Value {
        eventually("the question", async || {
            let answer = self.engine.get("/api/v1/approvals?open=true").await?;
            answer["approvals"].as_array()?.first().cloned()
        })
        .await
    }

    async fn decide(&self, yes: bool) {
        let id = self.question().await["id"].as_str().unwrap().to_owned();
        let body = json!({ "approve": yes, "why": "a test" });
        let (status, answer) = self.engine.post(&format!("/api/v1/approvals/{id}"), &body).await.unwrap();
        assert_eq!(status, 200, "{answer}");
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.place.folder("gpu-1").join("count")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn asked_to_go_down(&self) {
        eventually("the machine was asked to go down", async || (!self.calls().is_empty()).then_some(())).await;
    }

    /// As the machine does it: everything ends, and comes back under another boot id.
    fn boots(&mut self, boot: &str) {
        self.agent.take().unwrap().kill();
        std::fs::write(self.place.folder("gpu-1").join("boot"), boot).unwrap();
        self.agent = Some(self.place.start("gpu-1"));
    }
}

#[tokio::test]
async fn people_are_asked_also_in_mode_auto_and_another_boot_is_what_ends_it() {
    let mut stand = stand("").await;
    let run = stand.complain().await;
    let asked = stand.question().await;
    assert!(asked.to_string().contains("node::reboot"), "{asked}");
    assert_eq!(stand.calls(), [""; 0], "nothing is done before the answer");
    stand.decide(true).await;
    stand.asked_to_go_down().await;
    // It has been asked, and it is still the old boot that speaks: that is no end.
    let waits = eventually("the run waits for it", async || {
        let run = stand.engine.get(&format!("/api/v1/runs/{run}")).await?;
        run["run"]["state"]["why"].as_str().filter(|why| why.contains("is shutting down")).map(str::to_owned)
    })
    .await;
    assert!(waits.contains("gpu-1"), "{waits}");
    stand.boots("boot-2");
    let ended = ended(&stand.engine, &run).await;
    let outcome = &ended["steps"][0]["outcome"]["ok"];
    assert_eq!(*outcome, json!({ "changed": true, "was": "boot-1", "boot": "boot-2" }), "{ended}");
    assert_eq!(stand.calls(), ["now"]);
}

#[tokio::test]
async fn a_no_leaves_the_machine_as_it_is() {
    let mut stand = stand("").await;
    let run = stand.complain().await;
    stand.decide(false).await;
    let ended = ended(&stand.engine, &run).await;
    assert_eq!(ended["run"]["state"]["is"], "denied", "{ended}");
    assert_eq!(stand.calls(), [""; 0]);
}

/// The engine dies after it has begun the step and before it has heard anything; meanwhile the machine boots.
#[tokio::test]
async fn a_reboot_between_begun_and_ended_is_settled_by_the_witness_and_not_done_again() {
    let mut stand = stand("read line <HERE/gate").await;
    let gate = stand.place.folder("gpu-1").join("gate");
    assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let run = stand.complain().await;
    stand.decide(true).await;
    stand.asked_to_go_down().await;
    let Stand { place, engine, agent, _other } = stand;
    engine.kill();
    // The command is begun at the agent too, its program hangs, and the machine goes down in its middle.
    let mut stand = Stand { engine: place.site.start(&[]).await.unwrap(), place, agent, _other };
    stand.boots("boot-2");
    let ended = ended(&stand.engine, &run).await;
    let outcome = &ended["steps"][0]["outcome"]["ok"];
    assert_eq!((&outcome["was"], &outcome["boot"]), (&json!("boot-1"), &json!("boot-2")), "{ended}");
    assert_eq!(ended["steps"].as_array().unwrap().len(), 1);
    assert_eq!(stand.calls(), ["now"], "one reboot, whoever died");
    // The stand-in of the first boot still waits at its gate.
    std::fs::write(gate, "go\n").unwrap();
}

#[tokio::test]
async fn a_program_that_refuses_is_told_in_its_own_words() {
    let mut stand = stand("echo 'another operation is in progress' >&2; exit 3").await;
    let run = stand.complain().await;
    stand.decide(true).await;
    let ended = ended(&stand.engine, &run).await;
    let text = ended["run"]["state"].to_string();
    assert!(text.contains("ended with code 3: another operation is in progress"), "{ended}");
    assert_eq!(stand.calls(), ["now"]);
}
