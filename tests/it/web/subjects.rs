//! One account of the provider is one person, whatever mail it has; and a person is put out at once.
//!
//! Invariant: what two persons must agree on is never done by one account, by whatever name it comes.

use super::browser::Browser;
use super::desk::{Desk, token, tokens};
use super::forged::{believing, person, sign_in};
use nightshift::config::{Config, PersonConfig, Role};
use nightshift::server::{ConfiguredTokens, PrincipalSet};
use serde_json::{Value, json};

fn ann() -> Vec<PersonConfig> {
    vec![person("ann", Role::Operator, "ann@example.com")]
}

async fn two_must_agree(people: Vec<PersonConfig>) -> (Desk, super::forged::Forged) {
    believing(|config: &mut Config| {
        config.people = people;
        config.guards.release_persons = Some(2);
    })
    .await
}

/// From now on these are known, with this machine's own token and the groups of the provider.
fn known(desk: &Desk, people: Vec<PersonConfig>) {
    let roster = PrincipalSet::new(people, ConfiguredTokens::new(tokens()).unwrap());
    desk.app.roster.replace(roster.with_groups(&desk.night.parts.config.server));
}

fn claims(subject: &str, mail: &str, verified: bool) -> Value {
    json!({ "sub": subject, "email": mail, "email_verified": verified, "groups": ["leads"] })
}

async fn act(desk: &Desk, browser: &mut Browser, action: &str) -> String {
    let form = browser.open(&desk.at("/")).await.form(action).with("why", "I say so");
    browser.send(&form).await.words()
}

async fn frozen(desk: &Desk) -> bool {
    !desk.night.parts.store.freezes().await.unwrap().is_empty()
}

async fn entries(desk: &Desk, kind: &str) -> usize {
    desk.night.entries().await.iter().filter(|entry| entry.kind.name() == kind).count()
}

#[tokio::test]
async fn who_changes_her_mail_at_the_provider_does_not_release_what_she_asked_to_release() {
    let (desk, forged) = two_must_agree(ann()).await;
    let signs_in = async |claims: Value| {
        forged.said().claims = claims;
        let (browser, page) = sign_in(&desk).await;
        (browser, page.words())
    };
    let (mut before, words) = signs_in(claims("00u1", "ann@example.com", true)).await;
    assert!(words.contains("ann · operator"), "{words}");
    act(&desk, &mut before, "/web/freezes").await;
    let words = act(&desk, &mut before, "/web/unfreeze").await;
    assert!(words.contains("Release requested by ann; a second person must confirm."), "{words}");
    // Her own account page, in a minute: the new mail is not verified. In a group she is as well.
    let (mut after, words) = signs_in(claims("00u1", "ann.new@example.com", false)).await;
    let released = act(&desk, &mut after, "/web/unfreeze").await;
    assert!(frozen(&desk).await, "one account has released alone: {released}");
    assert!(words.contains("ann · operator"), "the subject that was ann is ann: {words}");
    assert_eq!((entries(&desk, "subject_linked").await, entries(&desk, "subject_mail_changed").await), (1, 1));
    // Nor where her entry is gone, so that she comes by the group alone.
    known(&desk, Vec::new());
    let (mut grouped, words) = signs_in(claims("00u1", "ann.new@example.com", false)).await;
    assert!(words.contains("oidc:00u1 · operator"), "{words}");
    let refused = act(&desk, &mut grouped, "/web/unfreeze").await;
    assert!(frozen(&desk).await && refused.contains("already requested the release of `all`, as ann"), "{refused}");
    let (mut other, _) = signs_in(claims("00u2", "bob@example.com", true)).await;
    act(&desk, &mut other, "/web/unfreeze").await;
    assert!(!frozen(&desk).await, "another account is another person");
}

#[tokio::test]
async fn who_asked_by_a_group_does_not_agree_by_an_entry_that_she_has_since() {
    let (desk, forged) = two_must_agree(Vec::new()).await;
    forged.said().claims = claims("00u1", "ann@example.com", true);
    let (mut grouped, page) = sign_in(&desk).await;
    assert!(page.words().contains("ann@example.com · operator"), "{}", page.words());
    act(&desk, &mut grouped, "/web/freezes").await;
    act(&desk, &mut grouped, "/web/unfreeze").await;
    let story = desk.night.entries().await;
    let frozen_by = story.iter().find(|entry| entry.kind.name() == "frozen").unwrap();
    assert_eq!(frozen_by.actor.0, "person:ann@example.com (oidc:00u1)", "a person can be called, a subject cannot");
    known(&desk, ann());
    // At the next click, in the same session.
    let words = act(&desk, &mut grouped, "/web/unfreeze").await;
    assert!(frozen(&desk).await && words.contains("ann · operator"), "{words}");
}

#[tokio::test]
async fn a_mail_that_was_given_to_another_account_makes_it_nobody_else() {
    let (desk, forged) = two_must_agree(ann()).await;
    let signs_in = async |claims: Value| {
        forged.said().claims = claims;
        sign_in(&desk).await
    };
    signs_in(claims("00u1", "ann@example.com", true)).await;
    let eve = || claims("00u2", "ann@example.com", true);
    for _ in 0..3 {
        let (browser, page) = signs_in(eve()).await;
        assert_eq!((page.status, browser.session()), (403, None), "{}", page.words());
        let words = page.words();
        for part in ["another account has signed in as `ann` before", "`oidc: 00u2`", "nightshift sessions unlink ann"]
        {
            assert!(words.contains(part), "{part}: {words}");
        }
    }
    assert_eq!(entries(&desk, "subject_refused").await, 1, "once, however often it is tried");
    // An admin says that it is a new account of hers.
    known(&desk, ann());
    desk.posts("sessions/unlink", &json!({ "name": "ann", "why": "she has a new account" })).await;
    let (mut new, page) = signs_in(eve()).await;
    assert!(page.words().contains("ann · operator"), "{}", page.words());
    act(&desk, &mut new, "/web/freezes").await;
    act(&desk, &mut new, "/web/unfreeze").await;
    // The old one is not let in as ann any more, and is still the same human where persons are counted.
    let (mut old, page) = signs_in(claims("00u1", "ann.old@example.com", true)).await;
    assert!(page.words().contains("ann.old@example.com · operator"), "{}", page.words());
    act(&desk, &mut old, "/web/unfreeze").await;
    assert!(frozen(&desk).await);
    assert_eq!(entries(&desk, "subjects_unlinked").await, 1);
}

#[tokio::test]
async fn an_entry_that_says_another_mail_or_a_subject_is_an_admins_word() {
    let (desk, forged) = two_must_agree(ann()).await;
    let signs_in = async |claims: Value| {
        forged.said().claims = claims;
        sign_in(&desk).await.1
    };
    let page = signs_in(claims("00u1", "ann@example.com", true)).await;
    assert!(page.words().contains("ann · operator"), "{}", page.words());
    known(&desk, vec![person("ann", Role::Operator, "00u2")]);
    let page = signs_in(claims("00u2", "x@example.com", false)).await;
    assert!(page.words().contains("ann · operator"), "{}", page.words());
    let page = signs_in(claims("00u1", "ann@example.com", true)).await;
    assert!(page.words().contains("ann@example.com · operator"), "by the group, not as ann: {}", page.words());
    known(&desk, vec![person("ann", Role::Operator, "ann.b@example.com")]);
    let page = signs_in(claims("00u3", "ann.b@example.com", true)).await;
    assert!(page.words().contains("ann · operator"), "{}", page.words());
}

#[tokio::test]
async fn a_person_or_a_group_is_put_out_at_once_and_sessions_are_listed_and_ended() {
    let (desk, forged) = believing(|config| config.people = vec![person("ann", Role::Admin, "00u1")]).await;
    let oidc = desk.night.parts.config.server.clone();
    let signs_in = async |claims: Value| {
        forged.said().claims = claims;
        sign_in(&desk).await
    };
    let bob = || json!({ "sub": "00u2", "email": "bob@example.com", "email_verified": true, "groups": ["sre"] });
    known(&desk, vec![person("ann", Role::Admin, "00u1")]);
    let (mut ann, _) = signs_in(json!({ "sub": "00u1" })).await;
    let (mut first, page) = signs_in(bob()).await;
    let (mut second, _) = signs_in(bob()).await;
    assert!(page.words().contains("bob@example.com · responder"), "{}", page.words());
    let api = async |path: &str| -> Value {
        let request = crate::harness::client().get(desk.at(&format!("/api/v1/{path}"))).bearer_auth(token("local"));
        request.send().await.unwrap().json().await.unwrap()
    };
    let listed = api("sessions").await;
    let names: Vec<&str> =
        listed["sessions"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ann", "bob@example.com (oidc:00u2)", "bob@example.com (oidc:00u2)"], "{listed}");
    assert!(listed.to_string().contains("OpenID Connect, subject 00u2"), "{listed}");
    let ended = desk.posts("sessions/end", &json!({ "name": "bob@example.com", "why": "he left" })).await;
    assert_eq!(ended["ended"], 2);
    for browser in [&mut first, &mut second] {
        assert_eq!(browser.open(&desk.at("/")).await.url.path(), "/login");
    }
    assert_eq!(ann.open(&desk.at("/")).await.url.path(), "/", "another one stays in");
    assert_eq!(entries(&desk, "sessions_ended").await, 1);
    // So that he does not come back: his group, or an entry of his own.
    let (mut again, _) = signs_in(bob()).await;
    let mut server = oidc.clone();
    server.oidc.as_mut().unwrap().roles.insert("sre".to_owned(), Role::Blocked);
    let roster = PrincipalSet::new(vec![person("ann", Role::Admin, "00u1")], ConfiguredTokens::default());
    desk.app.roster.replace(roster.with_groups(&server));
    assert_eq!(again.open(&desk.at("/")).await.url.path(), "/login", "at the next click");
    let (browser, page) = signs_in(bob()).await;
    assert_eq!((page.status, browser.session()), (403, None));
    assert!(page.words().contains("access is blocked for bob@example.com"), "{}", page.words());
    known(&desk, vec![person("bob", Role::Blocked, "00u2")]);
    let (browser, page) = signs_in(bob()).await;
    assert_eq!((page.status, browser.session()), (403, None), "an entry beats the group");
    assert!(page.words().contains("access is blocked for bob"), "{}", page.words());
    // And one that is out of the file is out.
    known(&desk, Vec::new());
    let (mut last, _) = signs_in(bob()).await;
    server.oidc.as_mut().unwrap().roles.clear();
    desk.app.roster.replace(PrincipalSet::new(Vec::new(), ConfiguredTokens::default()).with_groups(&server));
    assert_eq!(last.open(&desk.at("/")).await.url.path(), "/login");
}

/// A UUID, or 60 letters of base64, tells no one whom to call at night.
#[tokio::test]
async fn others_see_the_mail_of_who_froze_and_not_a_subject_alone() {
    let (desk, forged) = two_must_agree(Vec::new()).await;
    let signs_in = async |subject: &str, mail: &str, verified: bool| {
        forged.said().claims = claims(subject, mail, verified);
        sign_in(&desk).await.0
    };
    let mut bob = signs_in("2f14d60f-98b4-4c1e", "bob@example.com", true).await;
    act(&desk, &mut bob, "/web/freezes").await;
    let mut eve = signs_in("00u2", "eve@example.com", true).await;
    let words = eve.open(&desk.at("/")).await.words();
    let shown = "bob@example.com (oidc:2f14d60f-98b4-4c1e)";
    assert!(words.contains(&format!("Frozen: all by {shown}")), "{words}");
    assert_eq!(desk.night.parts.store.freezes().await.unwrap()[0].by, shown);
    let entries = desk.night.entries().await;
    let frozen = entries.iter().find(|entry| entry.kind.name() == "frozen").unwrap();
    assert_eq!(frozen.actor.0, format!("person:{shown}"));
    // A mail that the provider has not verified is anybody's claim.
    let mut mallory = signs_in("00u3", "ceo@example.com", false).await;
    act(&desk, &mut mallory, "/web/unfreeze").await;
    let words = eve.open(&desk.at("/")).await.words();
    assert!(words.contains("Release requested by oidc:00u3") && !words.contains("ceo@example.com"), "{words}");
}

#[tokio::test]
async fn a_release_that_waits_for_a_second_person_is_on_every_page() {
    let (desk, forged) = two_must_agree(Vec::new()).await;
    let signs_in = async |subject: &str, mail: &str| {
        forged.said().claims = claims(subject, mail, true);
        sign_in(&desk).await.0
    };
    let mut ann = signs_in("00u1", "ann@example.com").await;
    let mut bob = signs_in("00u2", "bob@example.com").await;
    let waits = "Release requested by ann@example.com (oidc:00u1); a second person must confirm.";
    act(&desk, &mut ann, "/web/freezes").await;
    for page in ["/", "/guards"] {
        let words = bob.open(&desk.at(page)).await.words();
        assert!(words.contains("Frozen: all") && !words.contains("Release requested"), "{page}: {words}");
    }
    act(&desk, &mut ann, "/web/unfreeze").await;
    for page in ["/", "/guards"] {
        for browser in [&mut ann, &mut bob] {
            let words = browser.open(&desk.at(page)).await.words();
            assert!(words.contains("Frozen: all") && words.contains(waits), "{page}: {words}");
        }
    }
    act(&desk, &mut bob, "/web/unfreeze").await;
    let words = ann.open(&desk.at("/")).await.words();
    assert!(!words.contains("Frozen: all") && !words.contains("Release requested"), "{words}");
}

/// Whoever may make groups somewhere could make one of that name there.
#[tokio::test]
async fn a_subgroup_of_the_same_name_is_not_the_group_and_many_groups_hide_none() {
    let (desk, forged) = believing(|_| ()).await;
    let mut server = desk.night.parts.config.server.clone();
    let oidc = server.oidc.as_mut().unwrap();
    oidc.roles = [("/sre".to_owned(), Role::Approver)].into();
    desk.app.roster.replace(PrincipalSet::new(Vec::new(), ConfiguredTokens::default()).with_groups(&server));
    let signs_in = async |groups: Vec<String>| {
        forged.said().claims =
            json!({ "sub": "00u1", "email": "eve@example.com", "email_verified": true, "groups": groups });
        sign_in(&desk).await
    };
    for wrong in ["/contractors/sre", "sre", "/sre/gpu", "/SRE", "/sre/"] {
        let (browser, page) = signs_in(vec![wrong.to_owned()]).await;
        assert_eq!((page.status, browser.session()), (403, None), "{wrong}: {}", page.words());
    }
    let many = (0..1_500).map(|number| format!("/team-{number}")).chain(["/sre".to_owned()]).collect();
    let (_, page) = signs_in(many).await;
    assert!(page.words().contains("eve@example.com · approver"), "{}", page.words());
}
