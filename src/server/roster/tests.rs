//! The roster: whose a token is, and what a change of it is called.
//!
//! Invariant: no test reads a file; the story of a changed file is in `tests/it/roles.rs`.

use super::*;
use crate::server::GivenToken;

fn token(name: &str, role: Role) -> GivenToken {
    let text = name.repeat(32);
    GivenToken { name: name.to_owned(), role, sources: Vec::new(), clusters: None, text }
}

fn person(name: &str, role: Role, tokens: &[&str]) -> PersonConfig {
    let tokens = tokens.iter().map(|name| (*name).to_owned()).collect();
    PersonConfig { tokens, ..PersonConfig::new(name, role) }
}

fn roster(people: Vec<PersonConfig>, tokens: Vec<GivenToken>) -> PrincipalSet {
    PrincipalSet::new(people, ConfiguredTokens::new(tokens).unwrap())
}

#[test]
fn a_token_is_the_persons_who_is_named_with_it_and_gives_no_more_than_they_have() {
    let people = vec![person("ada", Role::Approver, &["laptop"])];
    let roster =
        roster(people, vec![token("laptop", Role::Admin), token("ada", Role::Viewer), token("ci", Role::Operator)]);
    let by = |name: &str| roster.caller(&name.repeat(32)).unwrap();
    assert_eq!((by("laptop").name.as_str(), by("ada").name.as_str(), by("ci").name.as_str()), ("ada", "ada", "ci"));
    assert!(
        by("laptop").may(Right::Approve) && !by("laptop").may(Right::Operate),
        "as an approver, whatever the token says"
    );
    assert!(!by("ada").may(Right::Approve), "a token may also give less");
    assert!(roster.same("laptop", "ada") && !roster.same("ci", "ada"));
}

#[test]
fn an_address_counts_only_where_the_provider_has_verified_it() {
    let people = vec![PersonConfig { oidc: Some("Ada@example.com".into()), ..PersonConfig::new("ada", Role::Viewer) }];
    let roster = roster(people, Vec::new());
    assert!(roster.by_mail("ada@EXAMPLE.com").is_some());
    assert!(roster.by_subject("Ada@example.com").is_none(), "a subject that looks like a mail");
    assert!(roster.by_subject("").is_none() && roster.by_mail("").is_none());
}

#[test]
fn of_several_groups_the_widest_role_holds_in_their_clusters_and_a_blocked_one_blocks() {
    let oidc = "{ issuer: 'https://l.example', client_id: ns, group_clusters: { eu: [eu-1], us: [us-1] }, \
                roles: { sre: viewer, eu: operator, us: operator, left: none, leads: operator } }";
    let config = crate::config::Config::parse("x", &format!("server:\n  oidc: {oidc}\n")).unwrap();
    let roster = roster(Vec::new(), Vec::new()).with_groups(&config.server);
    let of = |groups: &[&str]| {
        let groups: Vec<String> = groups.iter().map(|name| (*name).to_owned()).collect();
        roster.by_groups(&groups).map(|grant| grant_words(&grant))
    };
    let words = |text: &str| Some(text.to_owned());
    assert_eq!(of(&["sre"]), words("viewer"));
    assert_eq!(of(&["sre", "eu"]), words("operator in eu-1"));
    assert_eq!(of(&["us", "eu"]), words("operator in eu-1, us-1"));
    assert_eq!(of(&["us", "leads"]), words("operator"));
    assert_eq!(of(&["leads", "left"]), words("none"));
    assert_eq!((of(&[]), of(&["other"])), (None, None));
}

#[test]
fn two_tokens_of_one_person_are_not_two_persons() {
    let tokens = || vec![token("laptop", Role::Operator), token("phone", Role::Operator)];
    let check = |people: Vec<PersonConfig>, expect: &[&str]| {
        let names = roster(people, tokens()).holders(Right::Operate);
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), expect);
    };
    check(Vec::new(), &["laptop", "phone"]);
    let ada = || person("ada", Role::Operator, &["laptop", "phone"]);
    check(vec![ada()], &["ada"]);
    let bob = PersonConfig { slack: Some("U0BOB".into()), ..PersonConfig::new("bob", Role::Operator) };
    check(vec![ada(), bob.clone()], &["ada", "bob"]);
    check(vec![ada(), PersonConfig { role: Role::Viewer, ..bob }], &["ada"]);
}

#[test]
fn a_change_is_told_in_words_and_without_a_secret() {
    let before = roster(vec![person("ada", Role::Approver, &[]), person("bob", Role::Viewer, &[])], vec![]);
    let scoped = PersonConfig { clusters: Some(vec!["eu-1".into()]), ..person("ada", Role::Viewer, &["laptop"]) };
    let after = roster(vec![scoped], vec![token("laptop", Role::Viewer)]);
    assert_eq!(
        before.changes(&after),
        ["bob is gone", "ada: approver → viewer in eu-1 token laptop", "token laptop: viewer"]
    );
    assert!(before.changes(&before.clone()).is_empty());
    let turned = GivenToken { text: "another".repeat(8), ..token("laptop", Role::Viewer) };
    let rotated = roster(after.people.clone(), vec![turned]);
    assert_eq!(after.changes(&rotated), ["a token has another secret"]);
    let posts = |sources: &[&str]| {
        let sources = sources.iter().map(|name| (*name).to_owned()).collect();
        roster(vec![], vec![GivenToken { sources, ..token("am", Role::Source) }])
    };
    let narrower = posts(&["prod", "lab"]).changes(&posts(&["lab"]));
    assert_eq!(narrower, ["token am: source for prod, lab → source for lab"]);
}
