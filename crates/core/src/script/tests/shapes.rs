//! Shapes: a vendor's JSON in, ours out; nothing else.
//!
//! Invariant: a shape can call no action.

use crate::script::{ShapeError, ShapeScript};
use serde_json::json;

#[test]
fn a_shape_maps_json_to_json() {
    let text = "fn label(body, name) { body.tags?[name] ?? \"none\" }\nfn decode(body) {\n  body.items.map(|item| #{ name: item.n.to_upper(), at: rfc3339_from_millis(item.ms), severity: item.sev ?? \"warning\", tags: join(item.tags, \",\"), text: text(item.n2) })\n}\n";
    let shape = ShapeScript::compile("acme", text, "decode").unwrap();
    let body = json!({"items": [{"n": "abc", "ms": 1_800_000_000_000_i64, "tags": ["a", 1, null], "n2": {"x": 1}}]});
    let expect = json!([{"name": "ABC", "at": "2027-01-15T08:00:00Z", "severity": "warning", "tags": "a,1,", "text": "{\"x\":1}"}]);
    assert_eq!(shape.call(&body), Ok(expect.clone()));
    // From two threads at once: it is shared, not copied.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(shape.call(&body), Ok(expect.clone())));
        }
    });
}

#[test]
fn numbers_and_times_go_both_ways() {
    let text = "fn encode(n) { [parse_int(n.text) + 1, rfc3339_from_seconds(n.s), millis_from_rfc3339(n.at), parse_json(n.json).a, to_json(#{b: [1]})] }";
    let shape = ShapeScript::compile("acme", text, "encode").unwrap();
    let given = json!({"text": "41", "s": 1_800_000_000, "at": "2027-01-15T08:00:00.5Z", "json": "{\"a\": 7}"});
    let expect = json!([42, "2027-01-15T08:00:00Z", 1_800_000_000_500_i64, 7, "{\"b\":[1]}"]);
    assert_eq!(shape.call(&given), Ok(expect));
}

#[test]
fn a_shape_that_does_not_compile_says_where() {
    let table = [
        ("fn decode(body) {\n  let x = ;\n}", 2, "unexpected"),
        ("fn decode(a, b) { a }", 1, "write `fn decode(body)"),
        ("let x = 1;\nfn decode(body) { body }", 1, "only functions"),
        ("fn decode(body) { k8s::cordon(\"n1\") }", 1, "k8s"),
        ("fn decode(body) { eval(\"1\") }", 1, "eval"),
        ("fn decode(body) { nothing }", 1, "nothing"),
    ];
    for (text, at, words) in table {
        match ShapeScript::compile("acme", text, "decode").err() {
            Some(ShapeError::Compile { line, message, .. }) => {
                assert_eq!(line, at, "{text}: {message}");
                assert!(message.to_lowercase().contains(words), "{text}: {message}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    assert!(ShapeScript::compile("acme", &" ".repeat(300_000), "decode").is_err());
}

#[test]
fn a_shape_that_goes_wrong_is_an_error_with_a_place() {
    let table = [
        ("fn decode(b) { throw \"no tags\"; }", "line 1:16: thrown: no tags"),
        ("fn decode(b) { loop { } }", "operations without end"),
        ("fn decode(b) { let s = \"x\"; loop { s += s; } }", "too large"),
        ("fn decode(b) { decode(b) }", "Stack overflow"),
        ("fn decode(b) { 0.0 / 0.0 }", "no JSON"),
        ("fn decode(b) { || 1 }", "no JSON"),
        ("fn decode(b) { tell(\"a\", \"b\") }", "there is no function tell"),
        ("fn decode(b) { rfc3339_from_millis(9223372036854775807) }", "is no moment"),
        ("fn decode(b) { b.x.y.z }", "line 1"),
    ];
    for (text, words) in table {
        let shape = ShapeScript::compile("acme", text, "decode").unwrap();
        let error = super::catalog::deep(|| shape.call(&json!({}))).unwrap_err().to_string();
        assert!(error.starts_with("acme: ") && error.contains(words), "{text}: {error}");
    }
}

#[test]
fn a_body_with_many_alerts_fits() {
    let shape =
        ShapeScript::compile("acme", "fn decode(b) { b.alerts.map(|a| #{labels: a.labels, on: true}) }", "decode")
            .unwrap();
    let labels: serde_json::Map<_, _> =
        (0..20).map(|n| (format!("label{n}"), json!("a value of some length"))).collect();
    let body = json!({"alerts": vec![json!({"labels": labels}); 1_000]});
    assert_eq!(shape.call(&body).unwrap().as_array().unwrap().len(), 1_000);
}
