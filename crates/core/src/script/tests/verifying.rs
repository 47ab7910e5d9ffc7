//! `verify`: once, held, given up, replayed and planned.
//!
//! Invariant: time passes only through the journal.

use super::catalog::*;
use crate::model::{ActionCall, FailureKind, Outcome, Reason, ReasonCode, Span, Step, Time};
use crate::script::{ScriptTurn, advance, advance_plan};
use serde_json::{Value, json};

/// A world whose clock moves with `sleep`; `value` says what Prometheus answers at a second.
fn clock(mut value: impl FnMut(u64) -> Outcome + Send) -> impl FnMut(u32, &ActionCall) -> Outcome + Send {
    let mut second = 0;
    move |_, call| match call.action.as_str() {
        "sleep" => {
            second += call.text("duration").parse::<Span>().unwrap().0.as_secs();
            Outcome::Ok(Value::Null)
        }
        "now" => Outcome::Ok(json!(Time::from_second(1_800_000_000 + second as i64).unwrap().to_string())),
        "prom::value" => value(second),
        _ => Outcome::Ok(Value::Null),
    }
}

fn count(journal: &[Step], action: &str) -> usize {
    journal.iter().filter(|step| step.call.action == action).count()
}

#[test]
fn a_condition_that_is_true_at_once_needs_no_clock() {
    let book = runbook("if verify(|| prom::value(\"up\") == 1) { note(`up ${node}`); }");
    let (last, journal) = play(&book, clock(|_| Outcome::Ok(json!(1))));
    assert_eq!(calls(&journal), ["prom::value(query: up)", "note(text: up n1)"]);
    assert!(matches!(last, ScriptTurn::Done(_)));
}

#[test]
fn it_waits_until_the_condition_comes_true() {
    let book = runbook("verify(|| prom::value(\"up\") == 1); note(node);");
    let (last, journal) = play(&book, clock(|second| Outcome::Ok(json!(i32::from(second >= 40)))));
    assert!(matches!(last, ScriptTurn::Done(_)), "{last:?}");
    assert_eq!(count(&journal, "sleep"), 3);
    assert_eq!(calls(&journal)[2], "sleep(duration: 15s)");
}

#[test]
fn with_hold_it_must_stay_true_and_a_relapse_starts_again() {
    let book = runbook("verify(|| prom::value(\"errors\") < 0.5, #{ hold: \"10m\" }); note(node);");
    // Well, then ill at minute five, then well for good.
    let ill = |second: u64| Outcome::Ok(json!(if (300..360).contains(&second) { 1.0 } else { 0.0 }));
    let (last, journal) = play(&book, clock(ill));
    assert!(matches!(last, ScriptTurn::Done(_)), "{last:?}");
    let slept: u64 = journal
        .iter()
        .filter_map(|step| step.call.text("duration").parse::<Span>().ok())
        .map(|span| span.0.as_secs())
        .sum();
    assert_eq!(slept, 360 + 600);
    assert!(journal.len() < 60, "{}", journal.len());
}

#[test]
fn when_time_is_up_it_throws_unverified_which_can_be_caught() {
    let body = "verify(|| prom::value(\"up\") == 1, #{ within: \"1m\", every: \"20s\" });";
    let (last, journal) = play(&runbook(body), clock(|_| Outcome::Ok(json!(0))));
    assert_eq!(count(&journal, "sleep"), 3);
    let words = "test.rhai:7:1: verify: the condition did not come true within 1m: it was false [unverified]";
    assert_eq!(last, ScriptTurn::Failed(words.to_owned()));
    let caught = format!("try {{ {body} }} catch (e) {{ stop(e.kind); }}");
    let (last, _) = play(&runbook(&caught), clock(|_| Outcome::Ok(json!(0))));
    assert_eq!(last, ScriptTurn::Stopped("unverified".to_owned()));
    let held = "verify(|| true, #{ hold: \"2m\", within: \"1m\" });";
    let (last, _) = play(&runbook(held), clock(|_| Outcome::Ok(json!(0))));
    assert!(
        matches!(&last, ScriptTurn::Failed(text) if text.contains("did not hold for 2m within 1m: so far for 1m")),
        "{last:?}"
    );
}

#[test]
fn a_read_that_fails_is_not_true_and_is_named_when_time_is_up() {
    let book = runbook("verify(|| prom::value(\"up\") == 1, #{ within: \"1m\" });");
    let flaky =
        |second| if second < 20 { failed(FailureKind::Unavailable, "no answer") } else { Outcome::Ok(json!(1)) };
    let (last, _) = play(&book, clock(flaky));
    assert!(matches!(last, ScriptTurn::Done(_)), "{last:?}");
    let (last, _) = play(&book, clock(|_| failed(FailureKind::Unavailable, "no answer")));
    assert!(
        matches!(&last, ScriptTurn::Failed(text) if text.contains("prom::value: no answer [unavailable]")),
        "{last:?}"
    );
}

#[test]
fn a_mistake_in_the_condition_fails_at_once() {
    for (body, words) in [
        ("verify(|| 5);", "must be true or false, not a whole number"),
        ("verify(|| prom::value(\"up\").nothing == 1);", "nothing"),
        ("let o = #{held: \"1m\"}; verify(|| true, o);", "there is no option `held`; did you mean `hold`?"),
        ("let o = #{hold: \"soon\"}; verify(|| true, o);", "`soon` is not a length of time"),
    ] {
        let (last, _) = play(&runbook(body), clock(|_| Outcome::Ok(json!({}))));
        assert!(matches!(&last, ScriptTurn::Failed(text) if text.contains(words)), "{body}: {last:?}");
    }
}

#[test]
fn every_prefix_replays_to_the_same_call() {
    let book =
        runbook("verify(|| { let v = prom::value(\"a\"); [v, 1].some(|x| x == 2) }, #{ hold: \"1m\" }); note(node);");
    let (last, journal) = play(&book, clock(|second| Outcome::Ok(json!(if second > 50 { 2 } else { 0 }))));
    assert!(matches!(last, ScriptTurn::Done(_)), "{last:?}");
    for at in 0..journal.len() {
        assert_eq!(deep(|| advance(&book, &input(), &journal[..at])), ScriptTurn::Call(journal[at].call.clone()));
    }
}

#[test]
fn in_a_plan_it_looks_once_and_goes_on() {
    let book = runbook("k8s::cordon(node);\nverify(|| prom::value(\"up\") == 1, #{ hold: \"10m\" });\nnote(node);");
    let mut journal: Vec<Step> = Vec::new();
    let end = loop {
        match deep(|| advance_plan(&book, &input(), &journal)) {
            ScriptTurn::Call(call) => journal.push(step(journal.len() as u32, call, Outcome::Ok(json!(0)))),
            end => break end,
        }
    };
    assert_eq!(calls(&journal), ["k8s::cordon(node: n1)", "prom::value(query: up)", "note(text: n1)"]);
    assert!(matches!(end, ScriptTurn::Done(_)), "{end:?}");
    // A read that fails while planning is shown in the plan and does not end it.
    journal[1].outcome = Some(failed(FailureKind::Unavailable, "no answer"));
    assert_eq!(deep(|| advance_plan(&book, &input(), &journal)), end);
}

#[test]
fn a_clock_that_answers_nonsense_is_for_a_human() {
    let book = runbook("verify(|| prom::value(\"up\") == 1);");
    let (last, _) = play(&book, |_, _| Outcome::Ok(json!("noon")));
    match last {
        ScriptTurn::Broken(Reason { code, text }) => {
            assert_eq!(code, ReasonCode::ScriptBroken);
            assert!(text.contains("noon"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}
