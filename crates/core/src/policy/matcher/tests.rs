//! Tests of matchers against Alertmanager's own table, and properties over any text.
//!
//! Invariant: every text that Alertmanager's UTF-8 parser takes is taken here with the same meaning.

use super::*;
use proptest::prelude::*;

fn check(text: &str, expect: &[(&str, MatchOperator, &str)]) {
    let found = parse_matchers(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let found: Vec<_> = found.iter().map(|m| (m.name.as_str(), m.op, m.value.as_str())).collect();
    assert_eq!(found, expect, "{text}");
}

fn wrong(text: &str, at: usize, what: &str) {
    match parse_matchers(text) {
        Ok(found) => panic!("{text:?} was taken as {found:?}"),
        Err(error) => {
            assert!(error.what.contains(what), "{text:?}: {error}");
            assert_eq!(error.at, at, "{text:?}: {error}");
            assert!(!error.hint.is_empty());
        }
    }
}

#[test]
fn alertmanagers_own_examples_mean_the_same_here() {
    check("", &[]);
    check(" {} ", &[]);
    check("{foo=bar}", &[("foo", MatchOperator::Equal, "bar")]);
    check("{foo=bar,}", &[("foo", MatchOperator::Equal, "bar")]);
    check("foo=bar,", &[("foo", MatchOperator::Equal, "bar")]);
    check("foo!=bar", &[("foo", MatchOperator::NotEqual, "bar")]);
    check("{foo=~[a-z]+}", &[("foo", MatchOperator::Like, "[a-z]+")]);
    check("foo!~[a-z]+", &[("foo", MatchOperator::Unlike, "[a-z]+")]);
    check("{foo=🙂bar}", &[("foo", MatchOperator::Equal, "🙂bar")]);
    check(r#"{"foo"="bar"}"#, &[("foo", MatchOperator::Equal, "bar")]);
    check(r#"{"foo"="\xf0\x9f\x99\x82"}"#, &[("foo", MatchOperator::Equal, "🙂")]);
    check(r#"{"foo"="\U0001f642"}"#, &[("foo", MatchOperator::Equal, "🙂")]);
    check(r#"foo="bar\n\t\"\\\101""#, &[("foo", MatchOperator::Equal, "bar\n\t\"\\A")]);
    check(
        "foo = bar , bar != \"baz qux\"",
        &[("foo", MatchOperator::Equal, "bar"), ("bar", MatchOperator::NotEqual, "baz qux")],
    );
    check("a:b$=1\u{202f}", &[("a:b$", MatchOperator::Equal, "1")]);
    check(r#"foo="""#, &[("foo", MatchOperator::Equal, "")]);
    check(r#""weird name, {x}"="y""#, &[("weird name, {x}", MatchOperator::Equal, "y")]);
}

#[test]
fn a_wrong_text_is_refused_with_its_place() {
    wrong(",", 0, "unexpected `,`");
    wrong("{,}", 1, "unexpected `,`");
    wrong("a=b,,c=d", 4, "unexpected `,`");
    wrong("{", 1, "ends");
    wrong("}", 0, "unexpected `}`");
    wrong("foo=bar}", 7, "unexpected `}`");
    wrong("{foo=bar", 8, "ends");
    wrong("{foo=bar} x", 10, "unexpected `x`");
    wrong("{foo=:\"bar\"}", 6, "unexpected `bar`");
    wrong("{foo=\"bar\\w\"}", 9, "unknown escape");
    wrong("{foo=bar\\n}", 8, "backslash");
    wrong("{\"foo\"=\"\\xf0\\x9f\"}", 7, "not UTF-8");
    wrong("foo", 3, "unexpected end");
    wrong("foo=", 4, "unexpected end");
    wrong("foo!bar", 3, "`!` alone");
    wrong("foo~bar", 3, "`~` alone");
    wrong("🙂🙂='x'", 3, "unexpected '");
    wrong("foo=\"x", 4, "not closed");
    wrong("foo=\"x\ny\"", 6, "line break");
    wrong("foo=\"\\400\"", 5, "escape of 256");
    wrong("\"\"=x", 0, "empty label name");
    wrong("foo=~\"(\"", 5, "regular expression");
    wrong("foo=~\"(\\\\w{500}){500}\"", 5, "compiled");
    wrong(&format!("foo={}", "x".repeat(5000)), 0, "bytes of matchers");
}

#[test]
fn an_expression_is_anchored_and_cannot_break_out_of_its_anchors() {
    let labels: Labels = [("severity", "critical"), ("host", "gpu-3")].into_iter().collect();
    let holds = |text: &str| matches_all(&parse_matchers(text).unwrap(), &labels);
    assert!(holds("severity=~\"critical|error\""));
    assert!(!holds("severity=~\"crit\""));
    assert!(!holds("severity=~\"ritical\""));
    assert!(holds("severity=~\"crit.*\",host!~\"cpu-.*\""));
    assert!(parse_matchers("host=~\"x)|(?:.*\"").is_err());
}

#[test]
fn a_missing_label_is_the_empty_string() {
    let labels: Labels = [("a", "1")].into_iter().collect();
    let holds = |text: &str| matches_all(&parse_matchers(text).unwrap(), &labels);
    assert!(holds("b=\"\"") && holds("b!=x") && holds("b=~\".*\"") && holds("b!~\".+\""));
    assert!(!holds("b!=\"\"") && !holds("b=~\".+\"") && !holds("a=\"\""));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
        let _ = parse_matchers(&text);
    }

    #[test]
    fn no_text_of_our_own_signs_makes_the_parser_panic(text in "[{}!=~,\\\\\"'`ax0-9 \n🙂]{0,24}") {
        if let Err(error) = parse_matchers(&text) {
            prop_assert!(error.at <= text.chars().count());
        }
    }

    #[test]
    fn what_is_printed_parses_back(name in "(?s).{1,12}", value in "(?s).{0,20}", equal in any::<bool>()) {
        let op = if equal { MatchOperator::Equal } else { MatchOperator::NotEqual };
        let matcher = Matcher { name, op, value, regex: None };
        let printed = matcher.to_string();
        prop_assert_eq!(parse_matchers(&printed).unwrap(), vec![matcher], "{}", printed);
    }

    #[test]
    fn an_expression_that_is_printed_parses_back(value in "[a-z.*+|\\\\d\"]{0,12}") {
        if let Ok(regex) = parse::anchored(&value) {
            let matcher = Matcher { name: "x".to_owned(), op: MatchOperator::Like, value, regex: Some(regex) };
            prop_assert_eq!(parse_matchers(&matcher.to_string()).unwrap(), vec![matcher]);
        }
    }
}
