//! Events and Leases: the cluster's own reports.
//!
//! Invariant: fields that both shapes of an event share are read from either.

use super::{ObjectMeta, time};
use crate::world::kube::{EventSeen, LeaseSeen};
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(in crate::world::kube) struct EventWire {
    metadata: ObjectMeta,
    involved_object: InvolvedObject,
    reason: String,
    message: String,
    count: Option<u32>,
    series: Option<EventSeries>,
    last_timestamp: Option<String>,
    event_time: Option<String>,
    #[serde(rename = "reportingComponent")]
    reporter: String,
    source: EventReporter,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct InvolvedObject {
    kind: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct EventSeries {
    count: u32,
    last_observed_time: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct EventReporter {
    component: String,
}

impl From<EventWire> for EventSeen {
    fn from(wire: EventWire) -> EventSeen {
        let series = wire.series.unwrap_or_default();
        let times = [&series.last_observed_time, &wire.last_timestamp, &wire.event_time];
        EventSeen {
            name: wire.metadata.name,
            namespace: wire.metadata.namespace,
            kind: wire.involved_object.kind,
            object_namespace: wire.involved_object.namespace,
            object: wire.involved_object.name,
            at: times.into_iter().find_map(|text| time(text.as_deref())),
            count: wire.count.unwrap_or(1).max(series.count),
            reporter: if wire.reporter.is_empty() { wire.source.component } else { wire.reporter },
            reason: wire.reason,
            message: wire.message,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::world::kube) struct LeaseWire {
    metadata: ObjectMeta,
    spec: LeaseSpec,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct LeaseSpec {
    renew_time: Option<String>,
}

impl From<LeaseWire> for LeaseSeen {
    fn from(wire: LeaseWire) -> LeaseSeen {
        LeaseSeen { name: wire.metadata.name, renewed: wire.spec.renew_time.unwrap_or_default() }
    }
}
