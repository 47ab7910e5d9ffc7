//! Watches of a real API server: away for five minutes, forgetful, and with a clock of its own.
//!
//! Invariant: the client is the engine's own; minutes pass on a clock that the test moves, and requests are counted in the
//! API server's audit log or at the proxy before it.

use crate::harness::eventually;
use crate::plane::{ControlPlane, NodeSpec, Options, shared};
use crate::proxy::Proxy;
use nightshift::clock::{Clock, RealClock, SimClock};
use nightshift::model::{Severity, Time};
use nightshift::sources::kubernetes::ConditionTracker;
use nightshift::world::sim::RequestFault;
use nightshift::world::{EventSeen, KubeClient, KubeConfig, NodeSeen, PodSeen, WatchEvent};
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A client that may watch, known to the audit log as `nightshift/{name}`.
async fn client(plane: &ControlPlane, name: &str, through: Option<&Proxy>) -> KubeClient {
    let admin = plane.admin().await;
    admin.namespace(name).await;
    let token = admin.token(name, "engine", 3_600).await;
    let resources = [("", "nodes"), ("", "pods"), ("", "events"), ("coordination.k8s.io", "leases")];
    let rights: Vec<_> = resources
        .iter()
        .flat_map(|(group, resource)| ["get", "list", "watch"].map(|verb| (*group, *resource, verb)))
        .collect();
    admin.grant(name, "engine", &rights).await;
    let reach = plane.reach(&token);
    let reach = match through {
        Some(proxy) => KubeConfig { url: proxy.url(), ..reach },
        None => reach,
    };
    let kube = KubeClient::connect(&reach, &format!("nightshift/{name}")).await.unwrap();
    eventually("the rights are known", async || kube.nodes().await.ok()).await;
    kube
}

type Kept<T> = Arc<Mutex<Vec<(Time, WatchEvent<T>)>>>;

/// What a watch told, in order, with the time by the test's clock.
struct Heard<T> {
    told: Kept<T>,
    watch: JoinHandle<()>,
}

impl<T> Drop for Heard<T> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl<T: Clone> Heard<T> {
    fn all(&self) -> Vec<(Time, WatchEvent<T>)> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, wanted: impl Fn(&WatchEvent<T>) -> bool) -> usize {
        self.all().iter().filter(|(_, told)| wanted(told)).count()
    }

    fn times(&self, wanted: impl Fn(&WatchEvent<T>) -> bool) -> Vec<Time> {
        self.all().into_iter().filter(|(_, told)| wanted(told)).map(|(at, _)| at).collect()
    }
}

macro_rules! hear {
    ($kube:expr, $clock:expr, $watch:ident: $seen:ty) => {{
        let (kube, clock, told) = ($kube.clone(), $clock.clone(), Arc::new(Mutex::new(Vec::new())));
        let kept = told.clone();
        let watch = tokio::spawn(async move {
            let mut tell = |said: WatchEvent<$seen>| {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push((clock.now(), said));
            };
            match kube.$watch(&*clock, &mut tell).await {}
        });
        Heard { told, watch }
    }};
}

/// Lets time pass second by second, so that whoever waits can act in between.
async fn pass(clock: &SimClock, seconds: u32) {
    for _ in 0..seconds {
        clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(10)).await; // polls: a refused connection takes less
    }
}

fn is(name: &str) -> impl Fn(&WatchEvent<NodeSeen>) -> bool + '_ {
    move |told| matches!(told, WatchEvent::Is(seen) if seen.node.name == name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_minutes_without_an_api_server_cost_few_requests_and_nothing_that_changed_is_missed() {
    let plane = ControlPlane::start(Options::default()).await;
    plane.kubelet().add(["five-1", "five-2"].map(|name| NodeSpec::gpu(name, 8))).await;
    let kube = client(&plane, "five", None).await;
    let clock = Arc::new(SimClock::new(Time::now()));
    let heard = hear!(kube, clock, watch_nodes: NodeSeen);
    eventually("the watch", async || (heard.count(|told| *told == WatchEvent::Alive) > 0).then_some(())).await;
    assert_eq!(kube.trouble(), None);

    plane.stop_api();
    let broken = |told: &WatchEvent<NodeSeen>| matches!(told, WatchEvent::Broken(_));
    eventually("the break", async || (heard.count(broken) > 0).then_some(())).await;
    let (since, why) = kube.trouble().unwrap();
    assert!(!why.is_empty());
    pass(&clock, 300).await;
    let tries = heard.count(broken);
    // Half a second, doubled until a minute: ten tries in five minutes, not six hundred.
    assert!((4..=14).contains(&tries), "{tries} tries");
    assert_eq!(kube.trouble().unwrap().0, since, "it says since when");

    plane.start_api().await;
    let admin = plane.admin().await;
    admin.patch("/api/v1/nodes/five-1", &json!({ "metadata": { "labels": { "changed": "meanwhile" } } })).await;
    plane.kubelet().remove(&["five-2".to_owned()]).await;
    let changed =
        |told: &WatchEvent<NodeSeen>| matches!(told, WatchEvent::Is(seen) if seen.node.labels.contains_key("changed"));
    let gone = |told: &WatchEvent<NodeSeen>| matches!(told, WatchEvent::Gone(seen) if seen.node.name == "five-2");
    eventually("what changed meanwhile", async || {
        pass(&clock, 1).await;
        let listed_without = || {
            let all = heard.all();
            let from = all.iter().rposition(|(_, told)| *told == WatchEvent::Restart).unwrap_or(0);
            from > 0
                && all[from..].iter().any(|(_, told)| *told == WatchEvent::Whole)
                && !all[from..].iter().any(|(_, t)| is("five-2")(t))
        };
        (heard.count(changed) > 0 && (heard.count(gone) > 0 || listed_without())).then_some(())
    })
    .await;
    eventually("the trouble's end", async || {
        pass(&clock, 1).await;
        kube.trouble().is_none().then_some(())
    })
    .await;
    let lists = plane.audit().select(|asked| {
        asked.agent == "nightshift/five"
            && asked.verb == "list"
            && asked.resource == "nodes"
            && asked.path.contains("limit=")
    });
    assert!(lists.len() <= 4, "it went on where it was, or listed once: {lists:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_forgets_every_version_is_listed_ever_more_rarely_and_never_by_all_watches_at_once() {
    let plane = shared().await;
    plane.kubelet().add([NodeSpec::gpu("forget-1", 8)]).await;
    let proxy = Proxy::start(&plane.url(), &plane.ca_file()).await;
    let clock = Arc::new(SimClock::new(Time::now()));
    let forgets = RequestFault::Status { code: 410, retry_after: None };
    proxy.trouble(u32::MAX, "GET", "watch=true", forgets);
    let mut watches = Vec::new();
    for number in 0..3 {
        let kube = client(plane, &format!("forget-{number}"), Some(&proxy)).await;
        watches.push(hear!(kube, clock, watch_nodes: NodeSeen));
    }
    pass(&clock, 300).await;
    let lists = |told: &WatchEvent<NodeSeen>| *told == WatchEvent::Whole;
    let times: Vec<Vec<Time>> = watches.iter().map(|watch| watch.times(lists)).collect();
    for (watch, times) in watches.iter().zip(&times) {
        assert!((4..=14).contains(&times.len()), "{} lists in five minutes", times.len());
        // Each list was whole, so nobody took a node for gone in between.
        assert_eq!(watch.count(is("forget-1")), times.len());
    }
    let late = |times: &Vec<Time>| times.iter().skip(3).copied().collect::<Vec<_>>();
    assert!(late(&times[0]) != late(&times[1]) || late(&times[1]) != late(&times[2]), "jitter parts them: {times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_cut_all_the_time_hears_everything_without_one_more_list() {
    let plane = shared().await;
    let proxy = Proxy::start(&plane.url(), &plane.ca_file()).await;
    let kube = client(plane, "cut", Some(&proxy)).await;
    let clock = Arc::new(SimClock::new(Time::now()));
    let heard = hear!(kube, clock, watch_pods: PodSeen);
    eventually("the list", async || (heard.count(|told| *told == WatchEvent::Alive) > 0).then_some(())).await;
    let lists = heard.count(|told| *told == WatchEvent::Whole);
    let admin = plane.admin().await;
    let pod = |number: u32| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": format!("cut-{number}"), "namespace": "cut" },
            "spec": { "containers": [{ "name": "x", "image": "x" }] },
        })
    };
    for number in 0..6 {
        proxy.cut_watches();
        proxy.trouble(1, "GET", "watch=true", RequestFault::Cut);
        admin.create("/api/v1/namespaces/cut/pods", &pod(number)).await;
        let made = |told: &WatchEvent<PodSeen>| matches!(told, WatchEvent::Is(seen) if seen.pod.name == format!("cut-{number}"));
        eventually("the pod that was made while the watch was cut", async || {
            pass(&clock, 1).await;
            (heard.count(made) > 0).then_some(())
        })
        .await;
    }
    assert_eq!(heard.count(|told| *told == WatchEvent::Whole), lists, "it was resumed by version each time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warning_is_heard_whatever_our_own_clock_says() {
    let plane = shared().await;
    plane.kubelet().add([NodeSpec::gpu("skewed-1", 8)]).await;
    let kube = client(plane, "skewed", None).await;
    let admin = plane.admin().await;
    for (number, ahead) in [3_600_i64, -3_600].into_iter().enumerate() {
        let ours = Time::from_microsecond(Time::now().as_microsecond() + ahead * 1_000_000).unwrap();
        let clock = Arc::new(SimClock::new(ours));
        let heard = hear!(kube, clock, watch_warnings: EventSeen);
        eventually("the list", async || (heard.count(|told| *told == WatchEvent::Whole) > 0).then_some(())).await;
        let name = format!("skewed.{number}");
        let now = RealClock.now().to_string();
        admin
            .create(
                "/api/v1/namespaces/default/events",
                &json!({
                    "apiVersion": "v1", "kind": "Event", "metadata": { "name": name, "namespace": "default" },
                    "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": "skewed-1" },
                    "reason": "KernelOops", "message": "a test", "type": "Warning", "count": 1,
                    "firstTimestamp": now, "lastTimestamp": now,
                    "source": { "component": "kernel-monitor" },
                }),
            )
            .await;
        let seen = eventually("the warning", async || {
            heard
                .all()
                .into_iter()
                .map(|(_, told)| told)
                .find(|told| matches!(told, WatchEvent::Is(seen) if seen.name == name))
        })
        .await;
        let theirs = kube.now().unwrap();
        let apart = theirs.as_microsecond() - Time::now().as_microsecond();
        assert!(apart.abs() < 10_000_000, "the API server's own time, as it said: {theirs}");
        let source = serde_json::from_value(json!({ "kind": "kubernetes" })).unwrap();
        let mut board = ConditionTracker::new("cluster", &source, "");
        board.hear_warning(&seen, clock.now(), theirs);
        let (events, _) = board.take(10, clock.now());
        assert_eq!(events.len(), 1, "{ahead} s ahead");
        assert_eq!(events[0].severity, Severity::Warning);
    }
}
