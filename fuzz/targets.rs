//! What is fuzzed: one function for each thing that reads bytes from outside. Used by `fuzz/bins` with coverage, and by
//! `tests/it/fuzz_smoke.rs` without.
//!
//! Invariant: a target panics only if the program broke a promise; a refusal of nonsense is its right answer.
#![allow(dead_code)] // each binary uses one of them
#![allow(clippy::unwrap_used)] // a target says what it expects by unwrapping

use nightshift::catalog::host_api;
use nightshift::config::{Config, SourceConfig};
use nightshift::limits;
use nightshift::model::{EffectClass, EventStatus, Labels, Outcome, RunId, RunInput, Schedule, Step, Time};
use nightshift::policy::{RuleSet, matches_all, parse_matchers};
use nightshift::script::{self, ScriptBrake, ScriptTurn, ShapeScript};
use nightshift::sources::{self, DecodedBody};
use nightshift::store::ledger::{PublicKey, verify_export};
use serde_json::{Map, Value, json};
use std::sync::{LazyLock, mpsc};

/// Turns after which a runbook has been looked at enough.
const TURNS: usize = 6;
/// As in `seeds/ledger_export/whole`: all of its entries are signed.
const LEDGER_KEY: &str = include_str!("seeds/ledger.pub");
const LEDGER: &[u8] = include_bytes!("seeds/ledger_export/whole");

/// 03:00 in the night of the tests; no target reads a clock.
fn now() -> Time {
    "2026-11-23T03:00:00Z".parse().unwrap()
}

fn source(kind: &str) -> SourceConfig {
    serde_json::from_value(json!({ "kind": kind })).unwrap()
}

/// Alertmanager's webhook, and Prometheus that takes us for one.
pub fn alertmanager_body(data: &[u8]) {
    let source = source("alertmanager");
    let webhook = sources::alertmanager::decode(data, "fuzz", &source, now());
    let direct = sources::alertmanager::decode_direct(data, "fuzz", &source, now());
    for decoded in [webhook, direct].into_iter().flatten() {
        check_decoded(&decoded);
    }
}

/// Each vendor's decoder; the first byte picks it, and one picks what a shape may return.
pub fn shape_events(data: &[u8]) {
    static SHAPES: LazyLock<Vec<(&str, ShapeScript)>> = LazyLock::new(|| {
        [
            ("grafana", include_str!("../integrations/grafana/decode.rhai")),
            ("datadog", include_str!("../integrations/datadog/decode.rhai")),
            ("newrelic", include_str!("../integrations/newrelic/decode.rhai")),
            ("cloudevents", include_str!("../integrations/cloudevents/decode.rhai")),
        ]
        .map(|(kind, text)| (kind, ShapeScript::compile(kind, text, "decode").unwrap()))
        .into()
    });
    let Some((pick, body)) = data.split_first() else { return };
    let decoded = match SHAPES.get(usize::from(*pick) % (SHAPES.len() + 1)) {
        Some((kind, shape)) => {
            on_deep_stack(|_| sources::shape::decode(shape, body, Map::new(), "fuzz", &source(kind), now()))
        }
        None => {
            let Ok(output) = serde_json::from_slice::<Value>(body) else { return };
            sources::shape::events(output, "fuzz", &source("grafana"), now())
        }
    };
    if let Ok(decoded) = decoded {
        check_decoded(&decoded);
    }
}

/// A line of matchers: what it prints as is read back as the same.
pub fn matchers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse_matchers(text) {
        Ok(matchers) => {
            let labels: Labels =
                [("alertname", "GpuXid"), ("severity", "critical"), ("ünï", text)].into_iter().collect();
            let matched = matches_all(&matchers, &labels);
            let printed: Vec<String> = matchers.iter().map(ToString::to_string).collect();
            // The print may escape more than the text did, and so be over the bound.
            if let Ok(again) = parse_matchers(&format!("{{{}}}", printed.join(","))) {
                assert_eq!(again, matchers, "{printed:?}");
                assert_eq!(matches_all(&again, &labels), matched, "{printed:?}");
            } else {
                let length: usize = printed.iter().map(|one| one.len() + 1).sum();
                assert!(length + 1 > limits::MATCHER_BYTES, "{printed:?} is not read back");
            }
        }
        Err(error) => {
            assert!(error.at <= text.chars().count(), "{error}");
            assert!(!error.to_string().is_empty());
        }
    }
}

/// A runbook's text: compiled, and replayed for a few turns under all limits.
pub fn runbook(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    on_deep_stack(|brake| {
        let diagnostics = match script::compile("fuzz", text, host_api()) {
            Ok(runbook) => return replay(&runbook, brake),
            Err(diagnostics) => diagnostics,
        };
        assert!(diagnostics.len() <= limits::DIAGNOSTICS + 1 && !diagnostics.is_empty());
        script::render("fuzz.rhai", text, &diagnostics, false);
    });
}

fn replay(runbook: &script::Runbook, brake: &ScriptBrake) {
    let given = [("node", "gpu-3"), ("gpu", "0"), ("workload", "inference/mistral-7b")];
    let wanted = given.into_iter().filter(|(name, _)| runbook.header.params.iter().any(|param| param.name == *name));
    let given: Map<String, Value> = wanted.map(|(name, value)| (name.to_owned(), value.into())).collect();
    let Ok(bound) = RuleSet::bind(&runbook.header, &given, None) else { return };
    let input = RunInput { event: json!({ "labels": { "alertname": "GpuXid" } }), ..bound };
    let mut journal = Vec::new();
    for no in 0..TURNS {
        let turn = script::advance_with(runbook, &input, &journal, brake);
        // A turn depends on its arguments alone, unless time ended it.
        let again = script::advance_with(runbook, &input, &journal, brake);
        assert!(turn == again || brake.pulled(), "{turn:?} and then {again:?}");
        let ScriptTurn::Call(call) = turn else { return };
        journal.push(Step {
            run: RunId(1),
            no: u32::try_from(no).unwrap(),
            call,
            effect: EffectClass::Read,
            undoes: None,
            begun_at: now(),
            deadline: now(),
            attempt: 1,
            carry: Value::Null,
            outcome: Some(Outcome::Ok(json!({ "changed": true, "evicted": [], "name": "gpu-3" }))),
            ended_at: Some(now()),
            incarnation: String::new(),
        });
    }
}

/// A crontab line and a zone, on two lines.
pub fn cron(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (cron, zone) = text.split_once('\n').unwrap_or((text, "UTC"));
    let schedule = Schedule { cron: cron.to_owned(), zone: zone.to_owned() };
    let Ok(ticks) = sources::cron::parse(&schedule) else { return };
    let mut last = now();
    for _ in 0..3 {
        let Some(next) = ticks.next_after(last) else { return };
        assert!(next > last, "{schedule:?}: {next} after {last}");
        let missed =
            ticks.latest_missed(last, next).unwrap_or_else(|| panic!("{schedule:?} has no tick in ({last}, {next}]"));
        assert_eq!(missed, next, "{schedule:?}: a tick between {last} and {next}");
        last = next;
    }
}

/// An export: what verifies under the key holds what was signed, or has whole entries behind it that nobody vouches for.
pub fn ledger_export(data: &[u8]) {
    static KEY: LazyLock<PublicKey> = LazyLock::new(|| LEDGER_KEY.trim().parse().unwrap());
    static TRUTH: LazyLock<(u64, String)> = LazyLock::new(|| {
        let sight = verify_export(LEDGER, &KEY).unwrap();
        assert_eq!(sight.entries, sight.signed, "the seed is signed whole");
        (sight.entries, sight.root.to_string())
    });
    let (entries, root) = &*TRUTH;
    if let Ok(sight) = verify_export(data, &KEY) {
        assert!(sight.signed > 0 && sight.signed <= *entries && sight.signed <= sight.entries);
        if sight.entries == sight.signed && sight.signed == *entries {
            assert_eq!(sight.root.to_string(), *root, "a forgery verifies");
        }
    }
}

/// A configuration: what is read prints as something that reads back the same.
pub fn config_yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(config) = Config::parse("fuzz.yaml", text) else { return };
    config.check();
    let printed = config.effective().unwrap();
    let again = Config::parse("effective.yaml", &printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(again, config, "{printed}");
}

/// Bytes of the kernel log: what is reported is whole, bounded, and of one complaint each.
pub fn kernel_lines(data: &[u8]) {
    let sights = nightshift::node::read_bytes(data);
    let mut complaints = std::collections::HashSet::new();
    for sight in &sights {
        let finding = &sight.finding;
        assert!(sight.times > 0 && !finding.complaint.is_empty() && !finding.summary.is_empty());
        assert!(finding.detail.len() <= limits::FINDING_DETAIL, "{} bytes", finding.detail.len());
        let code = finding.labels.get("xid").or(finding.labels.get("sxid"));
        assert!(code.is_none_or(|code| code.parse::<u32>().is_ok_and(|code| code > 0)), "{finding:?}");
        let is_wish = finding.labels.contains_key("recovery");
        assert!(is_wish || complaints.insert(finding.complaint.clone()), "twice: {}", finding.complaint);
        let json = serde_json::to_string(finding).unwrap();
        assert_eq!(&serde_json::from_str::<nightshift::model::Finding>(&json).unwrap(), finding);
        let mut join = nightshift::node::FaultCorrelator::default();
        assert_eq!(join.hear(sight.clone(), now()).len(), usize::from(finding.status == EventStatus::Firing));
    }
}

fn check_decoded(decoded: &DecodedBody) {
    assert!(decoded.events.len() <= limits::ALERTS_PER_BODY);
    assert!(decoded.gaps.len() <= limits::GAPS_PER_BODY + 1, "{} gaps", decoded.gaps.len());
    for event in &decoded.events {
        assert!(event.labels.len() <= limits::LABELS_PER_ALERT);
        assert!(event.labels.iter().all(|(name, value)| {
            name.len() <= limits::LABEL_NAME_BYTES && value.len() <= limits::LABEL_VALUE_BYTES && !value.is_empty()
        }));
        assert!(!event.fingerprint.is_empty() && event.fingerprint.len() <= limits::FINGERPRINT_BYTES);
        let json = serde_json::to_string(event).unwrap();
        assert_eq!(
            &serde_json::from_str::<nightshift::model::Event>(&json).unwrap(),
            event,
            "the store keeps it whole"
        );
    }
}

/// Runs a script where it cannot overflow, and brakes it when its time is over, as the engine does.
fn on_deep_stack<T: Send>(work: impl FnOnce(&ScriptBrake) -> T + Send) -> T {
    let brake = ScriptBrake::default();
    let (done, ended) = mpsc::sync_channel::<()>(1);
    std::thread::scope(|scope| {
        let work = || {
            let _done = done;
            work(&brake)
        };
        let worker =
            std::thread::Builder::new().stack_size(limits::SCRIPT_STACK_BYTES).spawn_scoped(scope, work).unwrap();
        if ended.recv_timeout(limits::SCRIPT_CPU) == Err(mpsc::RecvTimeoutError::Timeout) {
            brake.pull();
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
