//! Watches against the simulated fleet: nothing is missed whatever breaks, and guards ask no more than they must.
//!
//! Invariant: what was asked of the API server is counted by the API server.

use crate::harness::eventually;
use nightshift::clock::RealClock;
use nightshift::model::Subject;
use nightshift::world::sim::{ApiFault, RequestFault, SimFault, SimFleet, SimOptions};
use nightshift::world::{
    AgentMailbox, HttpClient, KubeClient, KubeConfig, Node, ProbedEngines, WatchEvent, World, install_tls,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub async fn world(fleets: &[(&str, &SimFleet)]) -> World {
    install_tls();
    let mut clusters = BTreeMap::new();
    for (name, fleet) in fleets {
        let config = KubeConfig { url: fleet.url(), ..KubeConfig::default() };
        clusters.insert((*name).to_owned(), KubeClient::connect(&config, "nightshift/test").await.unwrap());
    }
    World {
        clusters,
        default_cluster: fleets[0].0.to_owned(),
        prometheus: None,
        docker: None,
        agents: AgentMailbox::default(),
        engines: ProbedEngines::default(),
        kill: Arc::default(),
        http: HttpClient::new("nightshift/test", &[]).unwrap(),
        clock: Arc::new(RealClock),
        identity: "nightshift/test".to_owned(),
    }
}

fn lists_of_nodes(fleet: &SimFleet) -> usize {
    fleet.requests().iter().filter(|asked| asked.path.starts_with("/api/v1/nodes?limit")).count()
}

/// What a consumer of a watch would know.
#[derive(Default)]
struct Mirror {
    nodes: BTreeMap<String, Node>,
    seen: Vec<String>,
    listing: bool,
    lists: usize,
    breaks: usize,
}

impl Mirror {
    fn hear(&mut self, told: WatchEvent<nightshift::world::NodeSeen>) {
        match told {
            WatchEvent::Restart => {
                self.seen.clear();
                self.listing = true;
            }
            WatchEvent::Is(seen) => {
                self.seen.push(seen.node.name.clone());
                self.nodes.insert(seen.node.name.clone(), seen.node);
            }
            WatchEvent::Gone(seen) => drop(self.nodes.remove(&seen.node.name)),
            WatchEvent::Whole => {
                self.nodes.retain(|name, _| self.seen.contains(name));
                self.listing = false;
                self.lists += 1;
            }
            WatchEvent::Alive => {}
            WatchEvent::Broken(_) => self.breaks += 1,
        }
    }
}

#[tokio::test]
async fn a_watch_tells_every_change_through_cuts_silence_refusals_and_a_forgotten_history() {
    let fleet = SimFleet::start(SimOptions { nodes: 3, ..SimOptions::default() }).unwrap();
    let world = world(&[("a", &fleet)]).await;
    let kube = world.kube(None).unwrap().clone();
    let mirror = Arc::new(Mutex::new(Mirror::default()));
    let hears = mirror.clone();
    let watching = kube.clone();
    let watch = tokio::spawn(async move {
        let mut tell = |told| hears.lock().unwrap().hear(told);
        match watching.watch_nodes(&RealClock, &mut tell).await {}
    });
    let cordoned = async |name: &str, want: bool| {
        eventually(&format!("{name} cordoned: {want}"), async || {
            let mirror = mirror.lock().unwrap();
            mirror.nodes.get(name).filter(|node| node.unschedulable == want).map(drop)
        })
        .await;
    };
    eventually("the list", async || (mirror.lock().unwrap().nodes.len() == 4).then_some(())).await;
    let patch = |want: bool| json!({ "spec": { "unschedulable": want } });
    kube.patch_node("gpu-1", patch(true), None).await.unwrap();
    cordoned("gpu-1", true).await;
    // Cut, and what happens meanwhile is told on resuming, without another list.
    fleet.fault(SimFault::WatchesCut).unwrap();
    kube.patch_node("gpu-2", patch(true), None).await.unwrap();
    cordoned("gpu-2", true).await;
    assert_eq!(mirror.lock().unwrap().lists, 1);
    // The API server refuses for a while.
    fleet.fault(ApiFault::next(2, "GET", "watch=true", RequestFault::Status { code: 503, retry_after: None })).unwrap();
    fleet.fault(SimFault::WatchesCut).unwrap();
    kube.patch_node("gpu-1", patch(false), None).await.unwrap();
    cordoned("gpu-1", false).await;
    assert!(mirror.lock().unwrap().breaks >= 1);
    // Its history is compacted: everything is listed again, and a node that went meanwhile is gone.
    fleet.fault(ApiFault::next(1, "GET", "watch=true", RequestFault::Status { code: 410, retry_after: None })).unwrap();
    fleet.fault(SimFault::WatchesCut).unwrap();
    crate::harness::client().delete(format!("{}/api/v1/nodes/gpu-3", fleet.url())).send().await.unwrap();
    eventually("gpu-3 gone", async || (!mirror.lock().unwrap().nodes.contains_key("gpu-3")).then_some(())).await;
    eventually("a second list", async || (mirror.lock().unwrap().lists == 2).then_some(())).await;
    watch.abort();
}

#[tokio::test]
async fn a_history_that_is_always_too_old_does_not_make_a_storm_of_lists() {
    let fleet = SimFleet::start(SimOptions { nodes: 1, ..SimOptions::default() }).unwrap();
    let world = world(&[("a", &fleet)]).await;
    let kube = world.kube(None).unwrap().clone();
    let gone = RequestFault::Status { code: 410, retry_after: None };
    let always = ApiFault { method: None, path: "watch=true".into(), times: None, probability: 1.0, trouble: gone };
    fleet.fault(SimFault::Api(always)).unwrap();
    let watch = tokio::spawn(async move { match kube.watch_nodes(&RealClock, &mut |_| ()).await {} });
    let began = std::time::Instant::now();
    eventually("three lists", async || (lists_of_nodes(&fleet) >= 3).then_some(())).await;
    // At least 0.5 s before the second and 1 s before the third.
    assert!(began.elapsed() >= std::time::Duration::from_millis(1_400), "{:?}", began.elapsed());
    watch.abort();
}

#[tokio::test]
async fn those_who_wait_share_the_list_that_begins_after_they_came() {
    let fleet = SimFleet::start(SimOptions { nodes: 3, ..SimOptions::default() }).unwrap();
    let world = world(&[("a", &fleet)]).await;
    let slow = RequestFault::Delay { millis: 200 };
    let slow = ApiFault { method: None, path: "/nodes[?]limit".into(), times: None, probability: 1.0, trouble: slow };
    fleet.fault(SimFault::Api(slow)).unwrap();
    let asks = (0..64).map(|_| async { world.facts(&Subject::node("gpu-1")).await });
    let facts = futures::future::join_all(asks).await;
    assert!(facts.iter().all(|facts| facts.nodes_total == Some(3) && facts.read_at.is_some()));
    assert_eq!(lists_of_nodes(&fleet), 2, "one for the first, one for all who came while it ran");
}

#[tokio::test]
async fn with_a_watch_guards_list_nothing_and_know_what_we_and_others_did() {
    let fleet = SimFleet::start(SimOptions { nodes: 3, ..SimOptions::default() }).unwrap();
    let world = world(&[("a", &fleet)]).await;
    let kube = world.kube(None).unwrap().clone();
    let watching = kube.clone();
    let watch = tokio::spawn(async move { match watching.watch_nodes(&RealClock, &mut |_| ()).await {} });
    let about = Subject::node("gpu-1");
    eventually("the watch", async || {
        let before = lists_of_nodes(&fleet);
        let facts = world.facts(&about).await;
        (facts.nodes_total == Some(3) && before > 0 && lists_of_nodes(&fleet) == before).then_some(())
    })
    .await;
    let lists = lists_of_nodes(&fleet);
    // Our own change is known at once, whatever the watch says.
    kube.patch_node("gpu-2", json!({ "spec": { "unschedulable": true } }), None).await.unwrap();
    assert_eq!(world.facts(&about).await.nodes_out, ["gpu-2"]);
    // Somebody else's comes by the watch.
    let url = format!("{}/api/v1/nodes/gpu-3", fleet.url());
    let body = json!({ "spec": { "unschedulable": true } }).to_string();
    let request = crate::harness::client().patch(url).header("content-type", "application/merge-patch+json");
    request.body(body).send().await.unwrap();
    eventually("their cordon", async || (world.facts(&about).await.nodes_out == ["gpu-2", "gpu-3"]).then_some(()))
        .await;
    assert_eq!(lists_of_nodes(&fleet), lists, "no list was needed");
    // Without a watch nothing is believed: the cluster is listed.
    watch.abort();
    fleet.fault(SimFault::Deny { verb: "watch".into(), resource: "nodes".into() }).unwrap();
    let kube = world.kube(None).unwrap().clone();
    let refused = Arc::new(Mutex::new(String::new()));
    let words = refused.clone();
    let watch = tokio::spawn(async move {
        let mut tell = |told| {
            if let WatchEvent::Broken(error) = told {
                *words.lock().unwrap() = error.to_string();
            }
        };
        match kube.watch_nodes(&RealClock, &mut tell).await {}
    });
    eventually("the refusal", async || (!refused.lock().unwrap().is_empty()).then_some(())).await;
    let line = r#"{apiGroups: [""], resources: ["nodes"], verbs: ["watch"]}"#;
    assert!(refused.lock().unwrap().contains(line), "{}", refused.lock().unwrap());
    let lists = lists_of_nodes(&fleet);
    assert_eq!(world.facts(&about).await.nodes_total, Some(3));
    assert_eq!(lists_of_nodes(&fleet), lists + 1);
    watch.abort();
}
