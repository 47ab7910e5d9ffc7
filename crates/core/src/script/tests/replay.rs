//! Stop and replay: the journal answers, the first open question is the turn.
//!
//! Invariant: a turn depends on runbook, input and journal alone.

use super::catalog::*;
use crate::limits;
use crate::model::{ActionCall, FailureKind, Outcome, ReasonCode, Step};
use crate::script::{ScriptTurn, advance, compile};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn a_runbook_asks_one_call_after_the_other_and_is_done() {
    let (last, journal) =
        play_fine("k8s::cordon(node, `why ${node}`);\nk8s::drain(node, #{ within: \"90m\" });\n1 + 1");
    assert_eq!(calls(&journal), ["k8s::cordon(node: n1, reason: why n1)", "k8s::drain(node: n1, within: 1h 30m)"]);
    assert_eq!(last, ScriptTurn::Done(json!(2)));
}

#[test]
fn an_outcome_is_what_the_call_returns_and_the_event_is_in_view() {
    let book = runbook(
        "let pods = k8s::pods_on(node);\nfor pod in pods.items { note(`${pod.name} ${pod.gpus + 1}`); }\nnote(event.labels.alertname);",
    );
    let (last, journal) = play(&book, |_, call| match call.action.as_str() {
        "k8s::pods_on" => Outcome::Ok(json!({"items": [{"name": "a", "gpus": 1}, {"name": "b", "gpus": 2}]})),
        _ => Outcome::Ok(Value::Null),
    });
    assert_eq!(calls(&journal)[1..], ["note(text: a 2)", "note(text: b 3)", "note(text: GpuFell)"]);
    assert!(matches!(last, ScriptTurn::Done(_)), "{last:?}");
}

#[test]
fn equal_calls_have_equal_arguments_however_they_are_written() {
    let pairs = [
        ("sleep(\"90m\")", "sleep(\"1h30m\")"),
        ("sleep(90)", "sleep(\"1m 30s\")"),
        ("gpu::reset(node, 3)", "gpu::reset(node, \"3\")"),
        ("k8s::cordon(node)", "k8s::cordon(node, ())"),
        ("k8s::drain(node)", "k8s::drain(node, #{ within: () })"),
        ("k8s::drain(node)", "k8s::drain(node, #{})"),
        ("note(\"x\")", "\"x\".note()"),
        ("http::post(\"u\", #{timeout: \"1s\"})", "http::post(\"u\", #{timeout: \"1s\"}, #{})"),
    ];
    for (one, other) in pairs {
        let (one, other) = (first(one), first(other));
        assert!(matches!(one, ScriptTurn::Call(_)), "{one:?}");
        assert_eq!(one, other);
    }
}

#[test]
fn wrong_arguments_fail_with_the_place_and_what_to_write() {
    let table = [
        (
            "let x = 5; k8s::cordon(x);",
            "test.rhai:7:17: k8s::cordon: `node` must be the name of a node, not a whole number [invalid]",
        ),
        ("let x = \"\"; k8s::cordon(x);", "k8s::cordon: `node`: an empty text names no Node [invalid]"),
        ("let x = #{withn: 1}; k8s::drain(node, x);", "there is no option `withn`; did you mean `within`?"),
        ("let x = \"5 parsecs\"; sleep(x);", "`5 parsecs` is not a length of time"),
        ("let x = 0.0 / 0.0; http::post(\"u\", x);", "`body`: NaN is not a JSON number"),
        ("let f = || 1; http::post(\"u\", f);", "a function cannot be handed over"),
        (
            "let o = 1; k8s::drain(node, o);",
            "it takes at most 1 argument, not 2; write `k8s::drain(node, #{within, only})`",
        ),
    ];
    for (body, words) in table {
        match first(body) {
            ScriptTurn::Failed(text) => assert!(text.contains(words), "{body}\n{text}\n{words}"),
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn a_failure_is_thrown_caught_and_replayed() {
    let book = runbook(
        "try { k8s::drain(node); } catch (e) {\n  if e.kind != \"timeout\" { throw e; }\n  tell(\"ops\", `${e.action} ${e.kind} ${e.message}`);\n}",
    );
    let late = |_, call: &ActionCall| match call.action.as_str() {
        "k8s::drain" => failed(FailureKind::Timeout, "3 pods left"),
        _ => Outcome::Ok(Value::Null),
    };
    let (last, journal) = play(&book, late);
    assert_eq!(calls(&journal)[1], "tell(channel: ops, text: k8s::drain timeout 3 pods left)");
    assert!(matches!(last, ScriptTurn::Done(_)), "{last:?}");
    let (last, journal) = play(&book, |_, _| failed(FailureKind::Forbidden, "no right"));
    assert_eq!(journal.len(), 1);
    // Thrown again where the catch stands; kind, action and words stay.
    assert_eq!(last, ScriptTurn::Failed("test.rhai:8:28: k8s::drain: no right [forbidden]".to_owned()));
}

#[test]
fn an_uncaught_failure_names_its_place_and_the_calls_on_the_way() {
    let book = runbook("fn empty(n) {\n    k8s::drain(n);\n}\nempty(node);");
    let (last, _) = play(&book, |_, _| failed(FailureKind::Timeout, "3 pods left"));
    let words = "test.rhai:8:10: k8s::drain: 3 pods left [timeout], in `empty` called at test.rhai:10:1";
    assert_eq!(last, ScriptTurn::Failed(words.to_owned()));
}

#[test]
fn stop_ends_the_runbook_and_cannot_be_caught() {
    for body in [
        "note(\"a\"); stop(\"needs hands\"); note(\"b\");",
        "note(\"a\"); try { stop(\"needs hands\"); } catch { note(\"b\"); }",
        "note(\"a\"); try { [1, 2].map(|x| stop(\"needs hands\")); } catch { note(\"b\"); } note(\"c\");",
        "fn f() { stop(\"needs hands\"); }\nnote(\"a\"); try { f(); } catch {} stop(\"other\");",
    ] {
        let (last, journal) = play_fine(body);
        assert_eq!(last, ScriptTurn::Stopped("needs hands".to_owned()), "{body}");
        assert_eq!(calls(&journal), ["note(text: a)"], "{body}");
    }
}

#[test]
fn another_call_than_the_journal_holds_is_a_divergence() {
    let book = runbook("k8s::cordon(node);\nk8s::drain(node);");
    let (_, journal) = play(&book, |_, _| Outcome::Ok(Value::Null));
    let check = |body: &str, journal: &[Step], words: &str| {
        let book = runbook(body);
        match deep(|| advance(&book, &input(), journal)) {
            ScriptTurn::Broken(reason) => {
                assert_eq!(reason.code, ReasonCode::Diverged);
                assert!(reason.text.contains(words), "{}\n{words}", reason.text);
            }
            other => panic!("{body}: {other:?}"),
        }
    };
    let names = "step 1 of the journal is k8s::drain(node: n1), but the script now calls k8s::uncordon(node: n1) at test.rhai:7:6";
    check("k8s::cordon(node);\nk8s::uncordon(node);", &journal, &names.replace("7:6", "8:6"));
    check("k8s::cordon(node);\nk8s::drain(\"n2\");", &journal, "now calls k8s::drain(node: n2)");
    check("k8s::cordon(node);\nk8s::drain(node, #{within: \"1m\"});", &journal, "within: 1m");
    // The other way: the script ends, stops or fails while the journal still holds steps.
    check(
        "k8s::cordon(node);",
        &journal,
        "came to its end after 1 calls, but the journal holds 2: step 1 is k8s::drain(node: n1)",
    );
    check("stop(\"x\");", &journal, "stopped itself after 0 calls");
    check("k8s::cordon(node); throw 1;", &journal, "failed after 1 calls");
    check("try { k8s::uncordon(node); } catch {} loop { 1; if false { break; } }", &journal, "step 0 of the journal");
}

#[test]
fn two_advances_are_equal_two_hundred_times() {
    let book = runbook(
        "let seen = #{}; for i in 0..5 { let v = prom::value(`q${i}`); seen[`k${i}`] = v; }\nlet f = |x| x.v * 2.5;\nnote(seen.to_json() + f.call(seen.k1).to_string());\nk8s::cordon(node);",
    );
    let world = |no, _: &ActionCall| Outcome::Ok(json!({"v": f64::from(no) + 0.1, "w": [no, "x"]}));
    let (_, journal) = play(&book, world);
    assert_eq!(journal.len(), 7);
    for at in 0..=journal.len() {
        let turns = deep(|| (0..200).map(|_| advance(&book, &input(), &journal[..at])).collect::<Vec<_>>());
        assert!(turns.windows(2).all(|pair| pair[0] == pair[1]), "{at}");
    }
}

#[test]
fn the_same_text_has_the_same_pin_and_another_text_another() {
    let (one, again, other) = (runbook("note(\"a\");"), runbook("note(\"a\");"), runbook("note(\"b\");"));
    assert_eq!(one.pin, again.pin);
    assert_ne!(one.pin.hash, other.pin.hash);
    assert_eq!(one.pin.hash.len(), 64);
    let names: Vec<&str> = one.actions().iter().map(|spec| spec.name).collect();
    assert_eq!(names, ["note"]);
}

#[test]
fn a_run_of_more_steps_than_allowed_is_broken() {
    let book = runbook("let i = 0; while i < 100000 { i += 1; note(`${i}`); }");
    let note =
        |no: u32| step(no, ActionCall::new("note", [("text", json!((no + 1).to_string()))]), Outcome::Ok(Value::Null));
    let mut journal: Vec<Step> = (0..limits::STEPS_PER_RUN as u32).map(note).collect();
    match deep(|| advance(&book, &input(), &journal)) {
        ScriptTurn::Broken(reason) => assert_eq!(reason.code, ReasonCode::StepLimit),
        other => panic!("{other:?}"),
    }
    journal.pop();
    assert!(matches!(deep(|| advance(&book, &input(), &journal)), ScriptTurn::Call(_)));
}

#[test]
fn a_parameter_that_the_run_lacks_is_a_reason_and_a_default_fills_in() {
    let book = whole(
        "//! T\n//! params:\n//!   node: Node\n//!   text: String = \"hello -- you\" -- what to say\nnote(`${node} ${text}`);",
    );
    let turn = deep(|| advance(&book, &input(), &[]));
    assert_eq!(turn, ScriptTurn::Call(ActionCall::new("note", [("text", json!("n1 hello -- you"))])));
    match deep(|| advance(&book, &crate::model::RunInput::default(), &[])) {
        ScriptTurn::Broken(reason) => assert_eq!(reason.code, ReasonCode::ParameterMissing),
        other => panic!("{other:?}"),
    }
}

/// A script of known calls: the text, and the calls in order.
fn script() -> impl Strategy<Value = (String, Vec<String>)> {
    let name = "[a-z]{1,8}";
    let leaf = prop_oneof![
        name.prop_map(|n| (format!("k8s::cordon(\"{n}\");"), vec![format!("k8s::cordon(node: {n})")])),
        name.prop_map(|n| (format!("note(`${{node}} {n}`);"), vec![format!("note(text: n1 {n})")])),
        (name, 1..90u64).prop_map(|(n, m)| {
            (
                format!("k8s::drain(\"{n}\", #{{ within: \"{m}s\" }});"),
                vec![format!("k8s::drain(node: {n}, within: {})", crate::model::Span::seconds(m))],
            )
        }),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let many = prop::collection::vec(inner, 1..4).prop_map(|parts| {
            parts.into_iter().fold((String::new(), Vec::new()), |(text, mut calls), (more, then)| {
                calls.extend(then);
                (format!("{text}\n{more}"), calls)
            })
        });
        (many, 0..5usize).prop_map(|((text, calls), kind)| match kind {
            0 => (format!("for i in 0..2 {{ {text} }}"), [calls.clone(), calls].concat()),
            1 => (format!("if node == \"n1\" {{ {text} }}"), calls),
            2 => (format!("try {{ {text} }} catch {{ stop(\"never\"); }}"), calls),
            3 => (
                format!("try {{ [7, 8].map(|x| {{ {text} }}); }} catch {{ note(\"never\"); }}"),
                [calls.clone(), calls].concat(),
            ),
            _ => (format!("let f = || {{ {text} }}; f.call();"), calls),
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_prefix_of_a_journal_asks_the_same_next_call_and_the_whole_asks_none((text, expected) in script()) {
        // Closures see `node` only by capture; the generator writes it in texts, which capture it.
        let book = runbook(&text);
        let (last, journal) = play(&book, |_, _| Outcome::Ok(Value::Null));
        prop_assert!(matches!(last, ScriptTurn::Done(_)), "{:?}\n{}", last, text);
        prop_assert_eq!(calls(&journal), expected);
        let turns = deep(|| (0..=journal.len()).map(|at| advance(&book, &input(), &journal[..at])).collect::<Vec<_>>());
        for (at, turn) in turns.into_iter().enumerate() {
            match journal.get(at) {
                Some(step) => prop_assert_eq!(turn, ScriptTurn::Call(step.call.clone())),
                None => prop_assert!(matches!(turn, ScriptTurn::Done(_))),
            }
        }
    }
}

#[test]
fn a_runbook_with_an_error_does_not_compile() {
    let wrong = compile("test", "k8s::cordn(\"n\");", &api()).err().unwrap();
    assert_eq!(wrong[0].code, "unknown-action");
}
