//! Scripts that mean harm: each is stopped, with a reason.
//!
//! Invariant: no script text ends the process, waits, or makes a call that it should not.

use super::catalog::*;
use crate::limits;
use crate::model::{Outcome, ReasonCode};
use crate::script::{ScriptBrake, ScriptTurn, advance, advance_with, compile};
use serde_json::Value;

#[test]
fn the_stop_cannot_be_swallowed() {
    for body in [
        "try { note(\"a\"); } catch { note(\"b\"); }",
        "try { [1, 2, 3].map(|x| note(\"a\")); } catch { note(\"b\"); }",
        "[1, 2, 3].filter(|x| { try { note(\"a\"); } catch { note(\"c\"); } true });",
        "try { [3, 1, 2].sort(|a, b| { note(\"a\"); 0 }); } catch { loop { } }",
        "[1, 2].for_each(|| { try { note(\"a\"); } catch { note(\"b\"); } });",
        "try { [1, 2].reduce(|s, x| { try { note(\"a\"); } catch { note(\"b\"); } 1 }, 0); } catch { note(\"c\"); }",
        "fn f(n) { try { [1].map(|x| f2(n)); } catch (e) { note(\"b\"); } f2(n); }\nfn f2(n) { note(\"a\"); }\nf(1);",
        "try { try { [1].map(|x| [2].map(|y| note(\"a\"))); } catch { throw 1; } } catch { } note(\"d\");",
        "let f = || note(\"a\"); try { [f].map(|g| g.call()); } catch { } note(\"b\");",
        "try { verify(|| { [1].map(|x| note(\"a\")); true }); } catch { } note(\"b\");",
        "[1].some(|x| { note(\"a\"); true }); note(\"b\");",
    ] {
        let turn = first(body);
        assert!(matches!(&turn, ScriptTurn::Call(call) if call.text("text") == "a"), "{body}: {turn:?}");
        let (last, journal) = play_fine(body);
        assert!(!matches!(last, ScriptTurn::Failed(_)), "{body}: {last:?}");
        // The order on replay is the order of the first run, and nothing was asked out of a catch block.
        let once = calls(&journal);
        assert!(!once.contains(&"note(text: c)".to_owned()), "{body}: {once:?}");
    }
}

#[test]
fn a_script_that_never_ends_is_broken_with_a_reason() {
    for body in [
        "loop { }",
        "while true { 1 + 1; }",
        "try { loop { } } catch { loop { } }",
        "loop { try { [1].map(|x| { loop { } }); } catch { } }",
        "let a = []; a.pad(100, 1); let b = a; let c = a; loop { a.some(|x| b.some(|y| c.some(|z| x + y + z < 0))); }",
        "let f = |n, g| { loop { } }; try { [1].map(|x| f.call(1, f)); } catch (e) { loop { } }",
        "for i in 0..9000000000 { }",
        "for i in range(0, 9000000000) { }",
    ] {
        match first(body) {
            ScriptTurn::Broken(reason) => {
                assert_eq!(reason.code, ReasonCode::ScriptBroken, "{body}");
                assert!(reason.text.contains("operations"), "{body}: {}", reason.text);
            }
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn recursion_and_allocation_are_stopped_at_their_limits() {
    for body in [
        "fn f(n) { f(n + 1) }\nf(0);",
        "fn f(n) { ((((((((((f(n + 1) + 1) + 1) + 1) + 1) + 1) + 1) + 1) + 1) + 1) + 1) }\nf(0);",
        "fn f(n) { [n].map(|x| ((((f(x + 1)))))) }\nf(0);",
        "let s = \"x\"; loop { s += s; }",
        "let s = \"x\"; loop { s = `${s}${s}`; }",
        "let s = \"\"; s.pad(1000000000, 'x');",
        "let a = [1]; loop { a += a; }",
        "let a = []; loop { a.push(a); }",
        "let a = []; a.pad(1000000000, 1);",
        "let m = #{}; let i = 0; loop { m[`k${i}`] = i; i += 1; }",
        "let m = #{}; loop { m = #{a: m, b: m}; }",
        "let a = []; loop { a.push(\"0123456789\"); }",
    ] {
        match first(body) {
            ScriptTurn::Broken(reason) => assert_eq!(reason.code, ReasonCode::ScriptBroken, "{body}"),
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn a_script_of_slow_operations_is_ended_by_the_brake() {
    let book = runbook("let a = []; a.pad(9999, 1); loop { try { [1].map(|x| { let b = a + []; }); } catch { } }");
    let brake = ScriptBrake::default();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| deep(|| advance_with(&book, &input(), &[], &brake)));
        brake.pull();
        match run.join().unwrap() {
            ScriptTurn::Braked(reason) => {
                assert_eq!(reason.code, ReasonCode::ScriptBroken);
                assert!(reason.text.contains("used more than 1s of CPU time"), "{}", reason.text);
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_brake_that_watches_by_itself_ends_a_script_and_leaves_a_quick_one_alone() {
    let slow = runbook("let a = []; a.pad(9999, 1); loop { try { [1].map(|x| { let b = a + []; }); } catch { } }");
    let turn = deep(|| advance_with(&slow, &input(), &[], &ScriptBrake::once(|| true)));
    assert!(matches!(turn, ScriptTurn::Braked(_)), "{turn:?}");
    let endless = deep(|| advance_with(&runbook("loop { }"), &input(), &[], &ScriptBrake::once(|| false)));
    let ScriptTurn::Broken(reason) = endless else { panic!("{endless:?}") };
    assert!(reason.text.contains("operations without end"), "fuel ends it, whatever the clock shows: {reason}");
    let quick = deep(|| advance_with(&runbook("note(\"x\");"), &input(), &[], &ScriptBrake::once(|| true)));
    assert!(matches!(quick, ScriptTurn::Call(_)), "what has its next call does not need more time: {quick:?}");
}

#[test]
fn a_limit_that_is_caught_inside_a_closure_still_ends_in_bounds() {
    let turn = first("loop { try { [1].map(|x| { let s = \"x\"; loop { s += s; } }); } catch { } }");
    assert!(matches!(turn, ScriptTurn::Broken(_)), "{turn:?}");
}

#[test]
fn time_chance_files_and_code_from_texts_are_not_there() {
    for body in [
        "timestamp();",
        "rand();",
        "exit();",
        "eval(\"note(1)\");",
        "import \"x\" as x;",
        "Fn(\"note\").call(\"x\");",
        "let f = Fn(\"no\" + \"te\");",
        "open_file(\"/etc/passwd\");",
        "fn note(x) { }\nnote(1);",
        "fn stop(x) { }",
        "fn verify(x) { true }",
    ] {
        let wrong = compile("test", &format!("//! T\n{body}"), &api()).err();
        assert!(wrong.is_some_and(|wrong| wrong[0].level == crate::script::DiagnosticLevel::Error), "{body}");
    }
}

#[test]
fn a_call_by_a_computed_name_is_broken_off_at_run_time() {
    // The name of a function given as a text: old Rhai takes it for the function.
    let turn = first("let name = \"no\" + \"te\"; [\"x\"].map(name);");
    assert!(!matches!(turn, ScriptTurn::Call(_)), "{turn:?}");
}

#[test]
fn a_native_sleep_of_the_language_is_ours_and_never_waits() {
    let turn = first("sleep(3600);");
    assert!(matches!(&turn, ScriptTurn::Call(call) if call.text("duration") == "1h"), "{turn:?}");
    let turn = first("let long = 3600.5; sleep(long);");
    assert!(matches!(turn, ScriptTurn::Failed(_)), "{turn:?}");
}

#[test]
fn hostile_texts_compile_to_a_diagnostic_and_nothing_worse() {
    let deep_parens = "(".repeat(100_000);
    let deep_blocks = "{".repeat(100_000);
    let deep_arrays = format!("let a = {}{};", "[".repeat(50_000), "]".repeat(50_000));
    let long_sum = format!("let a = 1{};", " + 1".repeat(60_000));
    let many_ifs = format!("if true {{ }} {}", "else if true { } ".repeat(10_000));
    let closures = "|| ".repeat(50_000);
    let unary = format!("let a = {}1;", "-".repeat(100_000));
    let nots = format!("let a = {}true;", "!".repeat(100_000));
    let templates = "`${".repeat(50_000);
    let dots = format!("let a = #{{}}; a{};", ".a".repeat(100_000));
    let indexes = format!("let a = []; a{};", "[0]".repeat(60_000));
    let nul = "\0\u{202e}\u{feff}let".to_owned();
    let functions: String = (0..5_000).map(|n| format!("fn f{n}() {{ }}\n")).collect();
    let texts = [
        deep_parens,
        deep_blocks,
        deep_arrays,
        long_sum,
        many_ifs,
        closures,
        unary,
        nots,
        templates,
        dots,
        indexes,
        nul,
        functions,
    ];
    for text in texts {
        let start: String = text.chars().take(20).collect();
        let wrong = compile("test", &text, &api()).err();
        let wrong = wrong.unwrap_or_else(|| panic!("compiled: {start}"));
        let shown = crate::script::render("test", &text, &wrong, false);
        assert!(shown.contains("error"), "{start}");
    }
    let wrong = compile("test", &" ".repeat(limits::SCRIPT_BYTES + 1), &api()).err().unwrap();
    assert_eq!(wrong[0].code, "too-long");
}

#[test]
fn many_variables_are_bounded() {
    let body: String = (0..2_000).map(|n| format!("let v{n} = 1;\n")).collect();
    match first(&body) {
        ScriptTurn::Broken(reason) => assert_eq!(reason.code, ReasonCode::ScriptBroken),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_script_prints_goes_nowhere_and_a_closure_as_last_value_is_done() {
    let (last, _) = play_fine("print(\"x\"); debug([1]); || 1");
    assert_eq!(last, ScriptTurn::Done(Value::Null));
}

#[test]
fn a_large_answer_of_the_world_can_be_read() {
    let book = runbook("let pods = k8s::pods_on(node); let n = 0; for p in pods { n += p.gpus; } note(`${n}`);");
    let pods: Vec<Value> = (0..limits::PODS_PER_NODE)
        .map(|n| serde_json::json!({"name": format!("inference/vllm-{n}"), "uid": "0f0e", "gpus": 1, "owner": "rs", "phase": "Running"}))
        .collect();
    let pods = Value::from(pods);
    let (last, journal) = play(&book, |no, _| Outcome::Ok(if no == 0 { pods.clone() } else { Value::Null }));
    assert!(matches!(last, ScriptTurn::Done(_)), "{last:?}");
    assert_eq!(calls(&journal)[1], format!("note(text: {})", limits::PODS_PER_NODE));
    let again = deep(|| advance(&book, &input(), &journal));
    assert_eq!(again, last);
}
