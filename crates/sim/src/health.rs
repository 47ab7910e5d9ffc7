//! The faults of the fleet, and the requests that the API will mistreat.
//!
//! Invariant: with one seed, the same requests in the same order meet the same faults.

use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Something that goes wrong. As JSON: `{"fault": "xid", "node": "gpu-2", "gpu": 3, "code": 79}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum SimFault {
    /// The driver logs an XID; the GPU leaves `allocatable` unless it is an application's error.
    Xid { node: String, gpu: u32, code: u32 },
    /// An uncorrectable memory error is counted.
    Ecc { node: String, gpu: u32 },
    /// The GPU runs at 96 °C.
    Hot { node: String, gpu: u32 },
    /// The kubelet is silent: pods lose readiness, and terminating pods stay.
    NodeNotReady { node: String },
    /// Running pods of a deployment take requests and make no tokens; new pods are well.
    Stalled { namespace: String, deployment: String },
    /// The weights on the node's volume are of an older revision than the ones served elsewhere.
    WeightsStale { node: String, model: String },
    /// The node has a mig-manager, which behaves like this.
    MigManager { node: String, behaviour: super::mig::MigBehaviour },
    /// The pods of Jobs end with this code and these last words; without a code they never end.
    Jobs { exit: Option<i64>, message: String },
    /// A right is missing: requests get 403, and access reviews deny it.
    Deny { verb: String, resource: String },
    /// The API server has compacted its history: a watch that resumes receives 410 and lists again.
    Forgotten,
    /// All watches under way end, as when the API server restarts.
    WatchesCut,
    /// The API mistreats requests.
    Api(ApiFault),
}

/// Which requests meet which trouble.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiFault {
    /// Any method if absent.
    #[serde(default)]
    pub method: Option<String>,
    /// A regular expression on path and query, found anywhere in it.
    #[serde(default)]
    pub path: String,
    /// So many requests meet it; for ever if absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// Of the requests that match, this share meets it, by the fleet's seed.
    #[serde(default = "always")]
    pub probability: f64,
    pub trouble: RequestFault,
}

fn always() -> f64 {
    1.0
}

impl ApiFault {
    /// The next `times` requests with this method whose path and query match.
    pub fn next(times: u32, method: &str, path: &str, trouble: RequestFault) -> SimFault {
        let (method, path) = (Some(method.to_owned()), path.to_owned());
        SimFault::Api(ApiFault { method, path, times: Some(times), probability: 1.0, trouble })
    }
}

/// The fault that the simulated API applies to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestFault {
    /// Not done; this status is answered, with Retry-After in seconds if given.
    Status { code: u16, retry_after: Option<u64> },
    /// Not done; the connection is closed.
    Cut,
    /// Done; the connection is closed without an answer.
    LoseReply,
    /// Done and answered, so many milliseconds later.
    Delay { millis: u64 },
    /// A read is answered from so many changes ago.
    Stale { versions: usize },
    /// Done; the answer is 200 and not JSON.
    Garbage,
    /// A watch is taken and then sends nothing, ever; any other request is served.
    Stall,
}

/// XIDs that an application causes; the device plugin keeps the GPU.
const APPLICATION_XIDS: [u32; 6] = [13, 31, 43, 45, 68, 109];

/// The faults of one GPU.
#[derive(Debug, Clone, Default)]
pub(super) struct GpuFaults {
    /// How often each code was logged.
    pub xids: BTreeMap<u32, u32>,
    pub last_xid: u32,
    pub ecc: u32,
    pub hot: bool,
}

impl GpuFaults {
    /// The device plugin has taken the GPU away.
    pub fn is_out(&self) -> bool {
        self.ecc > 0 || self.xids.keys().any(|code| !APPLICATION_XIDS.contains(code))
    }
}

pub(super) struct FleetHealth {
    pub gpus: BTreeMap<(String, u32), GpuFaults>,
    pub not_ready: BTreeSet<String>,
    /// UIDs of pods that make no tokens, and since when.
    pub stalled: BTreeMap<String, crate::model::Time>,
    /// node, model
    pub stale_weights: BTreeSet<(String, String)>,
    /// verb, resource
    pub denied: BTreeSet<(String, String)>,
    /// Nodes that wait for `Timer::Heals`.
    pub healing: BTreeSet<String>,
    /// Nodes with a mig-manager: the configuration that it saw last, and how it will behave.
    pub mig: BTreeMap<String, (String, super::mig::MigBehaviour)>,
    /// How pods of Jobs end, if not well.
    pub jobs: Option<super::jobs::JobEnding>,
    api: Vec<(ApiFault, Regex)>,
    random: u64,
}

impl FleetHealth {
    /// A healthy fleet; `seed` decides which requests meet a fault.
    pub fn new(seed: u64) -> FleetHealth {
        FleetHealth {
            gpus: BTreeMap::new(),
            not_ready: BTreeSet::new(),
            stalled: BTreeMap::new(),
            stale_weights: BTreeSet::new(),
            denied: BTreeSet::new(),
            healing: BTreeSet::new(),
            mig: BTreeMap::new(),
            jobs: None,
            api: Vec::new(),
            random: seed,
        }
    }

    /// Whether the GPU is out of service.
    pub fn is_out(&self, node: &str, gpu: u32) -> bool {
        self.gpu(node, gpu).is_some_and(GpuFaults::is_out)
    }

    /// The GPU's fault; none where it is healthy.
    pub fn gpu(&self, node: &str, gpu: u32) -> Option<&GpuFaults> {
        self.gpus.get(&(node.to_owned(), gpu))
    }

    /// Whether the node is not ready, or one of its GPUs has a fault.
    pub fn is_ill(&self, node: &str) -> bool {
        self.not_ready.contains(node) || self.gpus_out(node) > 0 || self.gpus.keys().any(|(n, _)| n == node)
    }

    /// The number of the node's GPUs that are out of service.
    pub fn gpus_out(&self, node: &str) -> u32 {
        let out = self.gpus.range((node.to_owned(), 0)..=(node.to_owned(), u32::MAX)).filter(|(_, i)| i.is_out());
        u32::try_from(out.count()).unwrap_or(u32::MAX)
    }

    /// Adds a fault of the API.
    ///
    /// # Errors
    ///
    /// Fails when the fault's path is no regular expression.
    pub fn add_api(&mut self, fault: ApiFault) -> Result<(), String> {
        let regex = Regex::new(&fault.path).map_err(|e| format!("the fault's path is no regular expression: {e}"))?;
        self.api.push((fault, regex));
        Ok(())
    }

    /// Removes every fault of the API.
    pub fn clear_api(&mut self) {
        self.api.clear();
    }

    /// The trouble that this request meets: the first fault that matches, has some left and is drawn.
    pub fn meet(&mut self, method: &str, path: &str) -> Option<RequestFault> {
        let FleetHealth { api, random, .. } = self;
        for (fault, regex) in api {
            let is_method = fault.method.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(method));
            if !is_method || fault.times == Some(0) || !regex.is_match(path) || draw(random) >= fault.probability {
                continue;
            }
            fault.times = fault.times.map(|n| n - 1);
            return Some(fault.trouble.clone());
        }
        None
    }
}

/// SplitMix64, as a share of one: enough for faults, and the same everywhere.
fn draw(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_from_json() {
        let check = |text: &str, expect: SimFault| assert_eq!(serde_json::from_str::<SimFault>(text).unwrap(), expect);
        check(
            r#"{"fault":"xid","node":"gpu-2","gpu":3,"code":79}"#,
            SimFault::Xid { node: "gpu-2".into(), gpu: 3, code: 79 },
        );
        check(
            r#"{"fault":"api","method":"PATCH","path":"/nodes/","times":2,"trouble":{"status":{"code":503,"retry_after":1}}}"#,
            ApiFault::next(2, "PATCH", "/nodes/", RequestFault::Status { code: 503, retry_after: Some(1) }),
        );
        assert!(serde_json::from_str::<SimFault>(r#"{"fault":"xid","node":"gpu-2"}"#).is_err());
    }

    #[test]
    fn faults_are_used_up_and_drawn_by_the_seed() {
        let mut health = FleetHealth::new(1);
        let SimFault::Api(twice) = ApiFault::next(2, "GET", "^/api", RequestFault::Cut) else { unreachable!() };
        health.add_api(twice.clone()).unwrap();
        let met: Vec<bool> = (0..4).map(|_| health.meet("GET", "/api/v1/nodes").is_some()).collect();
        assert_eq!(met, [true, true, false, false]);
        assert_eq!(health.meet("POST", "/api"), None);

        let drawn = |seed| {
            let mut health = FleetHealth::new(seed);
            health.add_api(ApiFault { times: None, probability: 0.5, ..twice.clone() }).unwrap();
            (0..64).map(|_| health.meet("GET", "/api").is_some()).collect::<Vec<_>>()
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        let share = drawn(7).iter().filter(|met| **met).count();
        assert!((16..48).contains(&share), "{share}");
    }
}
