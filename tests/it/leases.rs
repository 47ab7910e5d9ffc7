//! Two engines of one installation on one cluster: the one that holds the Lease acts, the other one watches and says so.

use crate::harness::{Engine, Site, alertmanager_body, eventually};
use nightshift::clock::{Clock, RealClock};
use nightshift::engine::{LeaseKeeper, LeaseStatus};
use nightshift::world::sim::{ApiFault, RequestFault, SimFleet, SimOptions};
use nightshift::world::{KubeClient, KubeConfig, install_tls};
use std::sync::Arc;
use std::time::Duration;

async fn kube(fleet: &SimFleet) -> KubeClient {
    install_tls();
    KubeClient::connect(&KubeConfig { url: fleet.url(), ..KubeConfig::default() }, "nightshift/test").await.unwrap()
}

fn machine() -> Arc<dyn Clock> {
    Arc::new(RealClock)
}

fn fleet() -> SimFleet {
    SimFleet::start(SimOptions { clock: Arc::new(RealClock), ..SimOptions::default() }).unwrap()
}

#[tokio::test]
async fn a_lease_is_taken_over_only_once_it_was_not_renewed_for_its_time() {
    let fleet = fleet();
    let kube = kube(&fleet).await;
    let now = RealClock.now();
    let at = Duration::from_secs;
    let mut first = LeaseKeeper::new("ops", "prod", "one_a", &machine());
    let mut copy = LeaseKeeper::new("ops", "prod", "two_b", &machine());
    let mut other = LeaseKeeper::new("ops", "staging", "two_b", &machine());
    assert_eq!(first.look(&kube, at(0), now).await, &LeaseStatus::Ours);
    assert_eq!(other.look(&kube, at(0), now).await, &LeaseStatus::Ours, "another installation has a Lease of its own");
    for second in [0, 5, 29] {
        assert_eq!(copy.look(&kube, at(second), now).await, &LeaseStatus::Theirs("one_a".to_owned()), "{second}");
    }
    assert_eq!(first.look(&kube, at(29), now).await, &LeaseStatus::Ours);
    // It was renewed, so its time begins anew from where the copy sees that.
    for second in [30, 59] {
        assert_eq!(copy.look(&kube, at(second), now).await, &LeaseStatus::Theirs("one_a".to_owned()), "{second}");
    }
    assert_eq!(copy.look(&kube, at(60), now).await, &LeaseStatus::Ours);
    assert_eq!(first.look(&kube, at(61), now).await, &LeaseStatus::Theirs("two_b".to_owned()));
}

#[tokio::test]
async fn an_engine_that_cannot_renew_stops_before_another_one_may_take_over() {
    let fleet = fleet();
    let kube = kube(&fleet).await;
    let now = RealClock.now();
    let at = Duration::from_secs;
    let mut first = LeaseKeeper::new("ops", "prod", "one_a", &machine());
    assert_eq!(first.look(&kube, at(0), now).await, &LeaseStatus::Ours);
    let away = ApiFault::next(100, "GET", "/leases", RequestFault::Status { code: 503, retry_after: None });
    fleet.fault(away).unwrap();
    assert_eq!(first.look(&kube, at(19), now).await, &LeaseStatus::Ours);
    assert!(matches!(first.look(&kube, at(20), now).await, LeaseStatus::Unknown(_)));
    fleet.calm();
    assert_eq!(first.look(&kube, at(21), now).await, &LeaseStatus::Ours);
}

/// A hung API server answers nothing, and the engine must not take that for time that has not passed.
#[tokio::test]
async fn an_engine_whose_lease_gets_no_answer_stops_as_early_as_one_that_gets_an_error() {
    let fleet = fleet();
    let kube = kube(&fleet).await;
    let now = RealClock.now();
    let at = Duration::from_secs;
    let within = Duration::from_millis(200);
    let mut first = LeaseKeeper::new("ops", "prod", "one_a", &machine());
    assert_eq!(first.look(&kube, at(0), now).await, &LeaseStatus::Ours);
    let mut first = first.answered_within(within);
    fleet.fault(ApiFault::next(100, "GET", "/leases", RequestFault::Delay { millis: 60_000 })).unwrap();
    assert_eq!(first.look(&kube, at(10), now).await, &LeaseStatus::Ours);
    // It begins before the end of the time, and ends after it.
    let acting = first.look(&kube, at(20) - within / 2, now).await;
    assert!(matches!(acting, LeaseStatus::Unknown(why) if why.contains("none within 200ms")), "{acting:?}");
    fleet.calm();
    let mut first = first.answered_within(at(5));
    assert_eq!(first.look(&kube, at(22), now).await, &LeaseStatus::Ours);
}

const CORDON: &str = "//! Cordons.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: never\n\n\
                      k8s::cordon(node, \"a test\");\n";
const RULES: &str = "rules:\n  - name: cordon\n    when: ['alertname=\"Cordon\"']\n    run: cordon\n    mode: auto\n";

fn site(fleet: &SimFleet) -> Site {
    let extra = format!(
        "install: night\nmode_ceiling: auto\nsources:\n  am: {{ kind: alertmanager }}\nclusters:\n  sim:\n    url: {}\n\
         guards: {{ nodes_at_once: 4, share_at_once: 1.0, share_per_hour: 1.0, share_per_day: 1.0, serving_floor: 0 }}\n",
        fleet.url()
    );
    Site::new(&extra, RULES, &[("cordon", CORDON)])
}

async fn alert(engine: &Engine, node: &str) {
    let labels = [("alertname", "Cordon"), ("node", node), ("severity", "critical")];
    let body = alertmanager_body("firing", "2026-11-23T03:00:00Z", &[&labels]);
    let (status, said) = engine.post("/in/alertmanager/am", &body).await.unwrap();
    assert_eq!(status, 200, "{said}");
}

fn cordons(fleet: &SimFleet) -> Vec<String> {
    let ours = fleet.effects().into_iter().filter(|effect| effect.changed && effect.resource == "nodes");
    ours.filter(|effect| effect.verb == "patch").map(|effect| effect.name).collect()
}

async fn clusters(engine: &Engine) -> String {
    engine.get("/readyz").await.unwrap()["clusters"].to_string()
}

#[tokio::test]
async fn a_copy_beside_the_original_on_one_cluster_only_watches_until_the_original_ends() {
    let fleet = fleet();
    let (original, copy) = (site(&fleet), site(&fleet));
    let first = original.start(&[]).await.unwrap();
    alert(&first, "gpu-1").await;
    eventually("the original acts", async || (cordons(&fleet) == ["gpu-1"]).then_some(())).await;
    let second = copy.start(&[]).await.unwrap();
    eventually("the copy says that it only watches", async || {
        (clusters(&second).await.contains("only watched") && clusters(&first).await.contains("ok")).then_some(())
    })
    .await;
    alert(&second, "gpu-2").await;
    let held = eventually("its run is held", async || {
        let runs = second.get("/api/v1/runs").await?;
        let state = runs["runs"].as_array()?.first()?["state"].clone();
        (state["is"] == "held").then_some(state.to_string())
    })
    .await;
    assert!(held.contains("acts on cluster sim; this one only watches"), "{held}");
    let heard = second.get("/api/v1/entries?kind=heard").await.unwrap().to_string();
    assert!(heard.contains("NightshiftSecondEngine"), "{heard}");
    assert!(copy.log().contains("two engines of this installation"), "{}", copy.log());
    assert_eq!(cordons(&fleet), ["gpu-1"], "counted at the target");
    // In order: it gives the Lease back, and the copy need not wait for its end.
    assert_eq!(first.stop(), Some(0));
    eventually("the copy acts", async || (cordons(&fleet) == ["gpu-1", "gpu-2"]).then_some(())).await;
    assert!(clusters(&second).await.contains("ok"));
}
