//! Hours in which a vendor does not take what we say: whole stories from the alert to what people see there afterwards, with
//! the real store, the real courier and the real notifiers, on a clock that a test moves.
//!
//! Invariant: what was said is counted at the vendor, by the minute of the simulated night.

mod pagerduty;
mod reads;
mod shift;
mod slack;
mod storm;
mod vendor;
mod words;

use crate::harness::alertmanager_body;
use crate::night::{NIGHT, Night, seal};
use nightshift::config::{ChannelConfig, SecretSource};
use nightshift::engine::NotificationDispatcher;
use nightshift::model::{Incident, Time};
use nightshift::store::{ControlChange, Filter, Store};
use nightshift::world::HttpClient;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use vendor::{Does, Vendor};

const RULES: &str = "rules: [{ name: r, when: ['alertname=~\"Gpu.*\"'], tell: [oncall] }]";

/// An engine with one channel, at a vendor that can be away.
struct Scene {
    night: Night,
    courier: NotificationDispatcher,
    vendor: Vendor,
}

impl Scene {
    async fn begin(does: Does, channel: impl FnOnce(SecretSource, &str) -> ChannelConfig) -> Scene {
        Scene::of(Night::fall(RULES, &[]).await, does, channel).await
    }

    /// The same with another night.
    async fn of(night: Night, does: Does, channel: impl FnOnce(SecretSource, &str) -> ChannelConfig) -> Scene {
        let vendor = Vendor::start(night.clock.clone(), does).await;
        let file = night.path().join("secret");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef").unwrap();
        let channels = BTreeMap::from([("oncall".to_owned(), channel(SecretSource::File(file), &vendor.url()))]);
        let http = HttpClient::new("nightshift/test", &[]).unwrap();
        let built = nightshift::notifiers::build(&channels, &HashMap::new(), &http, "test", &seal()).unwrap();
        let (parts, url) = (&night.parts, Some("https://ns.example"));
        let courier = NotificationDispatcher::with(
            parts.store.clone(),
            parts.store.clone(),
            Arc::new(built),
            parts.clock.clone(),
            parts.nudge.clone(),
            "test",
            url,
        )
        .counting(parts.world.clone(), parts.config.guards.clone());
        Scene { night, courier, vendor }
    }

    fn now(&self) -> Time {
        self.night.now()
    }

    fn store(&self) -> &Arc<dyn Store> {
        &self.night.parts.store
    }

    /// Alerts of these nodes begin or end.
    async fn hear(&self, status: &str, alert: &str, nodes: impl IntoIterator<Item = usize>) {
        let nodes: Vec<String> = nodes.into_iter().map(|no| format!("gpu-{no}")).collect();
        let labels: Vec<[(&str, &str); 2]> =
            nodes.iter().map(|node| [("alertname", alert), ("node", node.as_str())]).collect();
        let alerts: Vec<&[(&str, &str)]> = labels.iter().map(|labels| labels.as_slice()).collect();
        let body = alertmanager_body(status, NIGHT, &alerts).to_string();
        let source = &self.night.parts.config.sources["test"];
        let decoded = nightshift::sources::alertmanager::decode(body.as_bytes(), "test", source, self.now()).unwrap();
        self.night.hear_events(decoded.events).await;
    }

    async fn acknowledge(&self, no: usize) {
        let incident = self.incident(no).await.id;
        self.store().control(ControlChange::Acknowledge { incident, by: "ada".to_owned() }, self.now()).await.unwrap();
    }

    /// The incident of this node.
    async fn incident(&self, no: usize) -> Incident {
        let (all, node) = (self.incidents().await, format!("gpu-{no}"));
        all.into_iter().find(|incident| incident.subject.part("node") == Some(&node)).unwrap()
    }

    async fn incidents(&self) -> Vec<Incident> {
        let filter = Filter { after: Some(-1), limit: 1_000, ..Filter::default() };
        self.store().incidents(filter).await.unwrap()
    }

    /// The courier says what is due. A vendor that hangs is waited for on the simulated clock.
    async fn tell(&self) {
        let mut pass = std::pin::pin!(self.courier.pass());
        loop {
            tokio::select! {
                passed = &mut pass => {
                    passed.unwrap();
                    return;
                }
                () = self.vendor.hangs() => self.night.pass(Duration::from_secs(61)).await,
            }
        }
    }

    /// Time passes, and at each second the courier says what is due.
    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.night.pass(Duration::from_secs(1)).await;
            self.tell().await;
        }
    }

    async fn nothing_is_due(&self) -> bool {
        self.store().counts().await.unwrap().notices_due == 0
    }

    fn key(incident: &Incident) -> String {
        incident.dedup_key("test")
    }
}

/// The most that happened within a minute, of moments in order.
fn most_in_a_minute(moments: &[Time]) -> usize {
    let within = |from: Time| moments.iter().filter(|at| **at >= from && **at < from + Duration::from_secs(60)).count();
    moments.iter().map(|from| within(*from)).max().unwrap_or(0)
}
