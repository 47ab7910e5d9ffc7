//! Headers: what is understood, and what is refused with its place.
//!
//! Invariant: a wrong header never passes as a right one.

use super::catalog::*;
use crate::model::{ImpactScope, ParamType, RunbookParam, UndoPolicy};
use crate::script::{Diagnostic, check};
use serde_json::json;

#[test]
fn a_header_says_what_the_runbook_is() {
    let book = whole(
        "\n//! GPU fell off the bus (XID 79): empty the node,\n//! reset, prove it.\n//!\n//! Some prose: for people. See: nothing.\n//!\n//! params:\n//!   node: Node\n//!   gpu: Gpu = 0 -- which one\n//!   wait: Duration = 1h30m\n//!   tag: String matching /[a-z\\/]{1,8}/ = \"a/b\" -- a tag, with = and -- in it\n//!   n: Int = 3\n//!   x: Float = 2\n//!   on: Bool = true\n//!   any: Any = {\"a\": [1]}\n//! scope: node\n//! undo: on-failure\n//! approvers: alice, bob\n\nnote(`${node}${gpu}${wait}${tag}${n}${x}${on}${any}`);\n",
    );
    let header = &book.header;
    assert_eq!(header.title, "GPU fell off the bus (XID 79): empty the node, reset, prove it.");
    assert_eq!((header.reach, header.undo), (ImpactScope::Node, UndoPolicy::OnFailure));
    assert_eq!(header.approvers, ["alice", "bob"]);
    let param = |name: &str| header.params.iter().find(|param| param.name == name).unwrap().clone();
    assert_eq!(header.params.len(), 8);
    let gpu = RunbookParam {
        name: "gpu".into(),
        ty: ParamType::Gpu,
        default: Some(json!("0")),
        pattern: None,
        doc: "which one".into(),
    };
    assert_eq!(param("gpu"), gpu);
    assert_eq!(param("wait").default, Some(json!("1h 30m")));
    let tag = param("tag");
    assert_eq!(tag.pattern.as_deref(), Some("[a-z/]{1,8}"));
    assert_eq!((tag.default, tag.doc.as_str()), (Some(json!("a/b")), "a tag, with = and -- in it"));
    assert_eq!(param("n").default, Some(json!(3)));
    assert_eq!(param("x").default, Some(json!(2.0)));
    assert_eq!(param("on").default, Some(json!(true)));
    assert_eq!(param("any").default, Some(json!({"a": [1]})));
}

fn wrong(lines: &str) -> Vec<Diagnostic> {
    let text = format!("//! T\n{lines}\n");
    check("test", &text, &api()).into_iter().filter(|one| one.code != "unused-param").collect()
}

#[test]
fn what_is_not_understood_is_refused_with_its_place_and_a_suggestion() {
    let table = [
        ("//! socpe: node", "unknown-key", (2, 5), "did you mean `scope:`?"),
        ("//!\n//! owner: me", "unknown-key", (3, 5), "the keys are params, scope, undo, approvers"),
        ("//! scope: nod", "bad-header", (2, 12), "did you mean `node`?"),
        ("//! undo: always", "bad-header", (2, 11), "write one of never, on-failure"),
        ("//! undo:", "bad-header", (2, 10), "write one of never, on-failure"),
        ("//! approvers: a,,b", "bad-header", (2, 16), "write names with commas between: `approvers: alice, bob`"),
        ("//! scope: node\n//! scope: pod", "duplicate-key", (3, 5), "keep one of them"),
        ("//! params: node", "bad-header", (2, 13), "write one a line below: `//!   node: Node`"),
        ("//! params:\n//!   node: node", "bad-param", (3, 7), "did you mean `Node`?"),
        ("//! params:\n//!   node: Nodes", "bad-param", (3, 7), "did you mean `Node`?"),
        ("//! params:\n//!   node", "bad-param", (3, 7), "write `name: Type`"),
        ("//! params:\n//!   if: Node", "bad-param", (3, 7), "use letters, digits and `_`"),
        ("//! params:\n//!   event: Any", "bad-param", (3, 7), "`event` is reserved"),
        ("//! params:\n//!   a b: Node", "bad-param", (3, 7), "use letters"),
        ("//! params:\n//!   n: Node\n//!   n: Node", "duplicate-param", (4, 7), "keep one of them"),
        ("//! params:\n//!   n: Int = x", "bad-param", (3, 7), "fix the default"),
        ("//! params:\n//!   d: Duration = soon", "bad-param", (3, 7), "fix the default"),
        ("//! params:\n//!   s: String matching /[/", "bad-param", (3, 7), "a slash inside is"),
        ("//! params:\n//!   s: String matching [a]", "bad-param", (3, 7), "write ` matching /[a-z]+/`"),
        ("//! params:\n//!   s: String matching /a/ = b", "bad-param", (3, 7), "fix the default"),
        ("//! params:\n//!   s: Int matching /a/", "bad-param", (3, 7), "leave the pattern out"),
        ("//! params:\n//!   s: Int =", "bad-param", (3, 7), "write it after `=`"),
        ("//! params:\n//!   s: Int huh", "bad-param", (3, 7), "write `name: Type`"),
        ("//! params:\n//! node Node", "bad-header", (3, 5), "indent parameters by two spaces"),
    ];
    for (lines, code, place, help) in table {
        let found = wrong(lines);
        assert_eq!(found.len(), 1, "{lines}: {found:?}");
        assert_eq!((found[0].code, (found[0].line, found[0].column)), (code, place), "{lines}");
        assert!(found[0].help.as_deref().unwrap_or_default().contains(help), "{lines}: {:?}", found[0].help);
    }
}

#[test]
fn the_name_of_the_scope_before_is_accepted_with_a_note() {
    let found = check("test", "//! T\n//! reach: node\n", &api());
    assert_eq!(
        (found.len(), found[0].code, found[0].level),
        (1, "deprecated-key", crate::script::DiagnosticLevel::Note),
        "{found:?}"
    );
    assert_eq!(whole("//! T\n//! reach: node\n").header.reach, whole("//! T\n//! scope: node\n").header.reach);
    assert_eq!(wrong("//! scope: node\n//! reach: node").last().unwrap().code, "deprecated-key", "both are one key");
}

#[test]
fn a_file_without_a_header_is_told_so_gently() {
    let found = check("test", "note(\"x\");", &api());
    assert_eq!((found.len(), found[0].code), (1, "missing-title"));
    assert!(crate::script::compile("test", "note(\"x\");", &api()).is_ok());
}
