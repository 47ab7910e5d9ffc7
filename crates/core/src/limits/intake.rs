//! Intake: requests, bodies, alerts, conditions of clusters: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use crate::model::Span;
use std::time::Duration;

// ── ingest ── figures from the security checklist of alert receivers; Alertmanager's own bodies stay far below
/// Bytes of a compressed body as received.
pub const BODY_COMPRESSED_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of a body after decompression.
pub const BODY_BYTES: usize = 8 * 1024 * 1024;
/// Alerts in one body; a larger body is refused.
pub const ALERTS_PER_BODY: usize = 5_000;
/// Labels (or annotations) of one alert.
pub const LABELS_PER_ALERT: usize = 64;
/// Bytes of one label's name.
pub const LABEL_NAME_BYTES: usize = 256;
/// Bytes of one label's value.
pub const LABEL_VALUE_BYTES: usize = 4 * 1024;
/// Nesting of a JSON body.
pub const JSON_DEPTH: usize = 16;
/// A client that cannot send its headers in this time is a slow loris.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time in which a body must be complete.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to one listener.
pub const CONNECTIONS: usize = 1_024;
/// Batches waiting for the writer; beyond it the answer is 503, which Alertmanager retries.
pub const INTAKE_QUEUE: usize = 1_024;
/// Bytes of bodies being decoded or waiting; beyond it the answer is 503. One source has a quarter of it.
pub const INTAKE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of bodies whose sender is known only once they are read (a signature is over them, a token stands in a form); they
/// take no room of events. One endpoint has a quarter of it.
pub const UNPROVED_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of forms of visitors who have signed in.
pub const FORM_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of the sign-in form: a token, the page to return to, and the fields that a browser adds.
pub const SIGN_IN_BYTES: usize = 4 * 1024;
/// Slack and PagerDuty send a few KiB at once; a stranger must not keep them waiting.
pub const UNPROVED_BODY_TIMEOUT: Duration = Duration::from_secs(3);
/// A body may begin so late, and then must come at this speed: slower than any network of today, faster than an attack
/// that holds much memory with little traffic.
pub const BODY_BEGINS: Duration = Duration::from_secs(3);
/// Lowest accepted speed of a body, in bytes a second.
pub const BODY_BYTES_PER_SECOND: u64 = 16 * 1024;
/// Room that a body gets before its first byte is there.
pub const BODY_FIRST_BYTES: usize = 16 * 1024;
/// Gaps that one body may leave in the ledger; the rest become one line with their number.
pub const GAPS_PER_BODY: usize = 20;
/// An identity that a source gives itself (a dedup key); a longer one is hashed.
pub const FINGERPRINT_BYTES: usize = 128;
/// Headers that one request may have, and the bytes of all of them.
pub const HEADERS: usize = 64;
/// Bytes of all headers of one request.
pub const HEADER_BYTES: usize = 16 * 1024;
/// Bodies larger than this are decoded off the threads that serve requests.
pub const DECODE_INLINE_BYTES: usize = 256 * 1024;
/// Prometheus repeats its alerts each minute; within this time a word-for-word repeat need not reach the disk. Far
/// below any sensible `stale_after`, so that an episode never goes stale because of it.
pub const REPEAT_WINDOW: Span = Span::minutes(4);
/// Repeats that are remembered; beyond it they simply reach the disk.
pub const REPEATS: usize = 65_536;
/// Plans made for users at once (`simulate`): each reads clusters and Prometheus.
pub const SIMULATIONS: usize = 8;
/// A shorter token can be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;
/// How long requests under way may take to end once the server stops.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// The writer must answer within this time, or we are not ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence of an alert in Alertmanager's API counts only when neither we nor it are fresh: after its restart it has no
/// alerts until Prometheus has sent them again.
pub const RECONCILE_GRACE: Span = Span::minutes(5);

// ── incidents ──
/// An incident whose alerts have all ended is kept open so long: an alert that fires again within it is the same incident.
pub const RESOLVE_AFTER: Span = Span::minutes(5);
/// Upper bound of `resolve_after`: with a longer one, users would wait for the end of an incident that is long over.
pub const RESOLVE_AFTER_MAX: Span = Span::minutes(60);
/// Alerts of one name that fire within this time on more subjects than `GROUP_SUBJECTS` are one incident.
pub const GROUP_WAIT: Span = Span::seconds(10);
/// Longest grouping time that the configuration may set.
pub const GROUP_WAIT_MAX: Span = Span::minutes(5);
/// Subjects above which alerts of one name become one incident.
pub const GROUP_SUBJECTS: usize = 3;
/// New incidents that one source (an agent is one) opens within a minute, and as many critical ones besides; the alerts beyond it
/// are kept and counted in one incident, so that a flood hides no incident of another sender.
pub const INCIDENTS_PER_SOURCE: usize = 500;
/// Senders whose new incidents are counted at a time.
pub const SENDERS_COUNTED: usize = 4_096;
/// The first message of an incident waits so long for others of its storm, so that a storm in single requests is one
/// message: far below the two seconds in which users are to be notified.
pub const GROUP_SETTLE: Duration = Duration::from_millis(500);
/// A recovery is shown to users at most so often, so that an alert that flaps each second is not an edit each second.
pub const RECOVERY_SHOWN_EVERY: Span = Span::seconds(60);
/// Characters of one alert's name and place, as it is listed among those that joined.
pub const ALERT_PLACE_CHARS: usize = 120;

/// Conditions of one cluster that are open at once; more than that is one problem, and it is already reported.
pub const COMPLAINTS: usize = 20_000;
/// New warnings of Kubernetes (and killed pods) taken in a minute, so that a storm of Events cannot fill the store.
pub const WARNINGS_PER_MINUTE: usize = 200;
/// A warning that was not repeated for so long is over.
pub const WARNING_QUIET: Duration = Duration::from_secs(15 * 60);
/// Kubernetes waits at most 5 minutes between two starts of a container that crashes.
pub const POD_CALM: Duration = Duration::from_secs(6 * 60);
/// Kubelets renew their Lease each 10 s, and Kubernetes calls a node Unknown after 50 s.
pub const LEASE_STALE: Duration = Duration::from_secs(60);
/// Time between two lists of the nodes' Leases.
pub const LEASES_EVERY: Duration = Duration::from_secs(20);
/// Two lists of Leases further apart than this give no evidence about the time between: the API server or the engine
/// was away.
pub const LEASES_GAP: Duration = Duration::from_secs(45);
/// Alerts of a cluster in one request to the store, and how often there is one.
pub const COMPLAINTS_BATCH: usize = 500;
/// Time between two such requests.
pub const COMPLAINTS_EVERY: Duration = Duration::from_millis(250);
/// How often the condition on each node is compared with the nodes that runs hold.
pub const BESIDE_EVERY: Duration = Duration::from_secs(2);
/// Conditions and Events written in one pass; the rest waits for the next one.
pub const BESIDE_BATCH: usize = 64;
/// Events about waiting steps in a minute: a thousand held runs must not fill the API server with lines that
/// `nightshift runs` also lists.
pub const HELD_EVENTS_PER_MINUTE: u32 = 100;
/// Kubernetes keeps Events for an hour, so older entries are not written any more.
pub const BESIDE_BACK: Span = Span::minutes(55);
/// An Event's note, by the API's own limit.
pub const EVENT_NOTE_BYTES: usize = 1_024;
