//! Every diagnostic: its code, its place, and how it reads.
//!
//! Invariant: each code that `check` can give has a line in one of these tables.

use super::catalog::*;
use crate::script::{DiagnosticLevel, check, reference, render};

fn found(body: &str) -> Vec<(DiagnosticLevel, &'static str, usize, usize, usize)> {
    let text =
        format!("//! T\n//! params:\n//!   node: Node\n//!   gpu: Gpu\n//! scope: node\nprint(node + gpu);\n{body}");
    check("test", &text, &api()).iter().map(|one| (one.level, one.code, one.line, one.column, one.length)).collect()
}

#[test]
fn each_mistake_has_its_code_and_its_place() {
    use DiagnosticLevel::{Error, Warning};
    let table = [
        ("k8s::cordn(node);", Error, "unknown-action", 7, 1, 10),
        ("kates::cordon(node);", Error, "unknown-action", 7, 1, 13),
        ("let x = k8s::rebuild_all();", Error, "unknown-action", 7, 9, 16),
        ("cordon(node);", Error, "unknown-function", 7, 1, 6),
        ("frobnicate();", Error, "unknown-function", 7, 1, 10),
        ("node.frobnicate();", Warning, "unknown-function", 7, 6, 10),
        ("k8s::pods_on();", Error, "wrong-arity", 7, 1, 12),
        ("k8s::pods_on(node, 1);", Error, "wrong-arity", 7, 1, 12),
        ("stop();", Error, "wrong-arity", 7, 1, 4),
        ("verify();", Error, "wrong-arity", 7, 1, 6),
        ("fn f(a) { a }\nf();", Error, "wrong-arity", 8, 1, 1),
        ("abs(1, 2);", Error, "wrong-arity", 7, 1, 3),
        ("k8s::pods_on(5);", Error, "wrong-type", 7, 14, 1),
        ("k8s::pods_on(gpu);", Error, "wrong-type", 7, 14, 3),
        ("k8s::pods_on(\"\");", Error, "wrong-type", 7, 14, 2),
        ("k8s::pods_on([]);", Error, "wrong-type", 7, 14, 1),
        ("k8s::pods_on(#{});", Error, "wrong-type", 7, 14, 1),
        ("verify(|| true, #{hold: true});", Error, "wrong-type", 7, 25, 4),
        ("sleep(\"soon\");", Error, "bad-duration", 7, 7, 6),
        ("approve(\"?\", #{within: \"5\"});", Error, "bad-duration", 7, 24, 3),
        ("approve(\"?\", #{wihtin: \"5m\"});", Error, "unknown-option", 7, 16, 6),
        ("verify(|| true, #{holds: \"5m\"});", Error, "unknown-option", 7, 19, 5),
        ("let x = nodes;", Error, "undefined-variable", 7, 9, 5),
        ("fn f() { node }\nf();", Error, "undefined-variable", 7, 10, 4),
        ("k8s::rebuild();\nverify(|| true);", Error, "reach-exceeded", 7, 1, 12),
        ("k8s::cordon(node);", Warning, "missing-verify", 7, 1, 11),
        ("stop(\"x\");\nnote(\"y\");", Warning, "unreachable", 8, 1, 4),
        ("if node == \"a\" { throw 1; note(\"y\"); }", Warning, "unreachable", 7, 27, 4),
        ("return;\nlet x = 1;", Warning, "unreachable", 8, 1, 3),
        ("fn f() { return 1; note(\"y\"); }\nf();", Warning, "unreachable", 7, 20, 4),
        ("fn f() { event.x }\nf();", Error, "undefined-variable", 7, 10, 5),
        ("let f = Fn(\"note\");", Error, "computed-call", 7, 9, 2),
        ("import \"x\" as x;", Error, "import", 7, 1, 6),
        ("eval(\"1\");", Error, "eval", 7, 1, 4),
        ("loop { note(\"x\"); }", Warning, "endless-loop", 7, 1, 4),
        ("while true { note(\"x\"); }", Warning, "endless-loop", 7, 1, 5),
        ("fn note(x) { x }", Error, "hidden-action", 7, 4, 4),
        ("let x = ;", Error, "syntax", 7, 9, 1),
        ("let x = 1\nnote(\"y\");", Error, "syntax", 8, 1, 4),
        ("/// doc\nlet x = 1;", Error, "syntax", 7, 1, 1),
    ];
    for (body, level, code, line, column, length) in table {
        assert_eq!(found(body), [(level, code, line, column, length)], "{body}");
    }
    let deep = format!("let x = {}1{};", "(".repeat(80), ")".repeat(80));
    assert_eq!(found(&deep)[0].1, "too-deep");
}

#[test]
fn good_code_has_no_diagnostic() {
    for body in [
        "k8s::cordon(node, `x ${gpu}`);\nverify(|| prom::value(\"up\") == 1, #{ hold: \"10m\", within: \"30m\" });",
        "let opts = #{ within: \"5m\" };\napprove(\"?\", opts);",
        "let who = \"n2\"; k8s::pods_on(who); http::post(\"u\", #{a: 1}); http::post(\"u\", #{a: 1}, #{timeout: \"5s\"});",
        "loop { if prom::value(\"up\") == 1 { break; } }",
        "loop { stop(\"x\"); }",
        "fn f(a) { note(a); return a; }\nlet g = |x| f(x);\ng.call(\"x\");\n[1, 2].map(|x| x + 1).filter(|x| x > 1).len();",
        "gpu::reset(node, 0); verify(|| true);",
        "sleep(30); sleep(\"1h 30m\");",
        "let m = #{a: 1}; m.keys(); m.get(\"b\") ?? 2; \"abc\".to_upper().sub_string(1, 1); type_of(m);",
        "let f = |x| { let y = || prom::value(node + x); y.call() }; f.call(\"a\");",
        "fn f(node) { note(node); let event = 1; event }\nf(\"a\");",
        "event.labels.alertname; \"x\".note();",
    ] {
        assert_eq!(found(body), [], "{body}");
    }
}

fn shown(text: &str) -> String {
    render("xid79", text, &check("xid79", text, &api()), false)
}

#[test]
fn a_misspelt_action_reads_like_this() {
    insta::assert_snapshot!(shown("//! T\n//! params:\n//!   node: Node\n//! scope: node\nk8s::cordn(node);\n"), @r###"
    error[unknown-action]: there is no action `k8s::cordn`
     --> xid79.rhai:5:1
      |
    5 | k8s::cordn(node);
      | ^^^^^^^^^^
      |
      = help: did you mean `k8s::cordon`?
    "###);
}

#[test]
fn a_call_that_reaches_too_far_reads_like_this() {
    insta::assert_snapshot!(shown("//! T\n//! scope: pod\nk8s::drain(\"n1\", #{ within: \"soon\" });\n"), @r###"
    error[reach-exceeded]: `k8s::drain` affects a node, but the header declares `scope: pod`
     --> xid79.rhai:3:1
      |
    3 | k8s::drain("n1", #{ within: "soon" });
      | ^^^^^^^^^^
      |
      = help: write `//! scope: node` in the header, if that is intended

    error[bad-duration]: `within`: `soon` is not a length of time: write a number and a unit, as in `30s`, `10m`, `1h 30m` or `2d`
     --> xid79.rhai:3:29
      |
    3 | k8s::drain("n1", #{ within: "soon" });
      |                             ^^^^^^
      |
      = help: `within` is as its name says

    warning[missing-verify]: the result of `k8s::drain` is not verified
     --> xid79.rhai:3:1
      |
    3 | k8s::drain("n1", #{ within: "soon" });
      | ^^^^^^^^^^
      |
      = help: end with `verify(|| …, #{hold: "10m"});`
    "###);
}

#[test]
fn a_header_mistake_and_a_missing_variable_read_like_this() {
    insta::assert_snapshot!(shown("//! T\n//! raech: node\nfn f() { nod }\n"), @r###"
    error[unknown-key]: the header has no key `raech`
     --> xid79.rhai:2:5
      |
    2 | //! raech: node
      |     ^^^^^
      |
      = help: the keys are params, scope, undo, approvers

    error[undefined-variable]: there is no variable `nod`
     --> xid79.rhai:3:10
      |
    3 | fn f() { nod }
      |          ^^^
      |
      = help: declare it in the header (`//! params:`) or with `let nod = …;`
    "###);
}

#[test]
fn control_characters_and_wide_letters_do_not_disturb_the_picture() {
    let text = "//! T\n\u{1b}[31mlet ü = \"日本\"; k8s::cordn(ü);\r\n";
    let plain = shown(text);
    assert!(!plain.contains('\u{1b}') && !plain.contains('\r'), "{plain:?}");
    let coloured = render("x", "note(1);", &check("x", "//! T\nnote(1);", &api()), true);
    assert!(coloured.contains('\u{1b}'));
    // A place outside the text renders all the same.
    let mut one = check("x", "noet(1);", &api());
    one[0].line = 99;
    assert!(render("x", "noet(1);", &one, false).contains("noet"));
}

#[test]
fn diagnostics_are_bounded_and_errors_come_first() {
    let body: String = (0..500).map(|n| format!("loop {{ nope{n}(); }}\n")).collect();
    let all = check("test", &format!("//! T\n{body}"), &api());
    assert_eq!(all.len(), crate::limits::DIAGNOSTICS);
    assert_eq!(all[0].level, DiagnosticLevel::Error);
    assert!(all.is_sorted_by_key(|one| one.level));
}

#[test]
fn the_reference_lists_every_action_with_what_it_declares() {
    let page = reference(&api());
    for spec in api().specs {
        assert!(page.contains(&format!("## `{}(", spec.name)), "{}", spec.name);
    }
    assert!(page.contains("## `k8s::drain(node, #{within, only})`"));
    assert!(page.contains("| `within` | Duration | optional | as its name says |"));
    assert!(page.contains("- Effect: converge. Scope: node, takes serving capacity away. Deadline: 30s."));
    assert!(page.contains("- Undone by: `k8s::uncordon`"));
    assert!(page.contains("- Needs: `patch nodes`"));
    assert!(page.contains("## `verify(condition, #{hold, within, every})`"));
}
