//! The world: Kubernetes, HTTP, Docker: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use crate::model::Span;
use std::time::Duration;

// ── the world ──
/// Deadline of one HTTP request.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of one response's body that are read.
pub const HTTP_BODY_BYTES: usize = 1024 * 1024;
/// A secret for headers of runbooks is this long at least: an answer that repeats a shorter one could not be cleaned.
pub const HTTP_SECRET_BYTES_MIN: usize = 8;
/// Hosts of one secret.
pub const HTTP_SECRET_HOSTS: usize = 20;
/// Deadline of one request to an API server.
pub const KUBE_TIMEOUT: Duration = Duration::from_secs(15);
/// Pods of one node that are read.
pub const PODS_PER_NODE: usize = 512;
/// Nodes of one cluster, and the agents that tables in memory remember.
pub const NODES: u32 = 20_000;
/// Changes that the simulated fleet remembers for stale reads: more than a watch cache lags in practice.
pub const SIM_HISTORY: usize = 256;
/// Changes that the simulated fleet sends to a watch that resumes; an older one receives 410.
pub const SIM_CHANGES: usize = 20_000;
/// How often the simulated fleet looks for changes to send, and reports that there are none.
pub const SIM_WATCH_LOOK: Duration = Duration::from_millis(20);
/// Time after which a silent watch of the simulated fleet sends a bookmark.
pub const SIM_BOOKMARK: Duration = Duration::from_secs(5);
/// Requests that the simulated fleet remembers for tests to count.
pub const SIM_REQUESTS: usize = 10_000;
/// As the real API server's limit on a request body.
pub const SIM_BODY_BYTES: usize = 3 * 1024 * 1024;
/// Pods (or Events) of one cluster that a list may have.
pub const PODS: usize = 300_000;
/// A watch's record of the nodes counts as current for this time after its last event; then the cluster is listed.
pub const FLEET_FRESH: Duration = Duration::from_secs(10);
/// One request of a watch; the server closes it then and we resume from the last version.
pub const WATCH_STRETCH: Duration = Duration::from_secs(290);
/// Bookmarks come about each minute; a watch that is silent for longer is dead.
pub const WATCH_SILENCE: Duration = Duration::from_secs(130);
/// A read that guards made is handed on to the step that follows for so long; a commit lies between them.
pub const NOTED_FOR: Duration = Duration::from_millis(500);
/// A watch that held for so long was well, so its next break is its first.
pub const WATCH_SETTLED: Duration = Duration::from_secs(30);
/// For so long after it was away, an API server's refusals are checked again: longer than a watch waits at most.
pub const API_SETTLES: Duration = Duration::from_secs(75);
/// Wait before a broken watch is opened again.
pub const WATCH_AGAIN: Duration = Duration::from_millis(500);
/// Wait before a cluster is listed again for the first time.
pub const RELIST_FIRST: Duration = Duration::from_secs(1);
/// Longest wait before a watch is opened again.
pub const WATCH_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// etcd takes objects of 1.5 MiB; as JSON on one line that is less than this.
pub const WATCH_LINE_BYTES: usize = 4 * 1024 * 1024;
/// Objects in one page of a list, as kubectl requests; a page of node objects stays far below the bound on a body.
pub const KUBE_PAGE: usize = 500;
/// Bytes of one response of an API server.
pub const KUBE_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Deadline for a TCP and TLS connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests to one API server that a single step has in flight, so that a drain does not crowd out the others.
pub const KUBE_AT_ONCE: usize = 8;
/// Evictions in one pass of a drain: a pass must end well before the step's deadline.
pub const EVICTIONS_PER_PASS: usize = 32;
/// After a drain has forced pods out, how long they may take to end before the step gives up.
pub const FORCED_GRACE: Span = Span::minutes(15);
/// A larger number of replicas is a slip of the keyboard.
pub const REPLICAS: u32 = 10_000;
/// Nodes whose pods are counted to find one with free GPUs.
pub const SPARE_CANDIDATES: usize = 16;
/// Waiting for pods to go or a rollout to end: quick at first, since most are, then gentle to the API server.
pub const POLL_FIRST: Duration = Duration::from_millis(200);
/// Longest wait between two polls.
pub const POLL_MAX: Duration = Duration::from_secs(10);
/// No step waits longer, whatever its argument: a forgotten run must surface within a week.
pub const STEP_WAIT_MAX: Span = Span::seconds(7 * 86_400);
/// The words kept of a reason in an annotation, and of a target's message in ours.
pub const REASON_CHARS: usize = 256;

// ── Docker ──
/// Containers of one machine that are looked at.
pub const CONTAINERS: usize = 512;
/// One question to the engine of this machine.
pub const DOCKER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a container may take to end by itself before it is killed; a restart fits into one attempt of a step.
pub const CONTAINER_GRACE: Duration = Duration::from_secs(60);
/// Time that a restart takes beside the grace: the kill, the unmount, the start.
pub const CONTAINER_RESTART_SLACK: Duration = Duration::from_secs(20);

// ── the Lease of an engine ──
/// How often it is renewed, and how long it lasts without: as controllers of Kubernetes do, some slower.
pub const LEASE_LOOK_EVERY: Duration = Duration::from_secs(5);
/// Validity of the Lease without a renewal.
pub const LEASE_LASTS: Duration = Duration::from_secs(30);
/// One look waits no longer for its answers, so that a cluster that hangs delays neither its own verdict nor other Leases.
pub const LEASE_ANSWER: Duration = Duration::from_secs(5);
/// An engine that could not renew for so long acts no more, well before another one may take over.
pub const LEASE_HELD: Duration = Duration::from_secs(20);
/// For the first look at the start, before anything is begun, and for giving it back at the end.
pub const LEASE_FIRST_LOOK: Duration = Duration::from_secs(2);
