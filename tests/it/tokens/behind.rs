//! Who is behind a token: however many somebody makes, they are one person, and what they made goes with them.
//!
//! Invariant: each way of being two persons is tried at the doors that count persons.

use super::{MINUTE, asked_and_approved, make, wanted, with_an_admin};
use crate::harness::secret;
use crate::roles::{chat, token};
use axum::http::StatusCode;
use nightshift::config::{PersonConfig, Role};
use nightshift::model::{RoleGrant, Span};
use nightshift::server::PrincipalSet;
use nightshift::store::NewToken;
use serde_json::json;

#[tokio::test]
async fn whatever_tokens_somebody_makes_they_stay_one_person() {
    let chat = with_an_admin().await;
    let root = secret("root");
    let (one, _) = make(&chat, &root, wanted("bot1", "operator", "1d")).await;
    let (two, _) = make(&chat, &root, wanted("bot2", "operator", "1d")).await;
    let (maker, _) = make(&chat, &root, wanted("maker", "admin", "1d")).await;
    let (chained, _) = make(&chat, &maker, wanted("bot3", "operator", "1d")).await;
    for (asker, approver) in
        [(&one, &two), (&root, &chained), (&chained, &root), (&chained, &one), (&maker, &chained), (&one, &maker)]
    {
        let (status, said) = asked_and_approved(&chat, asker, approver).await;
        assert!(status == 403 && said.contains("cannot approve it too"), "{status} {said}");
    }
    chat.night.settle().await;
    assert!(chat.night.effects().is_empty(), "{:?}", chat.night.effects());
    // What this machine's own token makes is its own.
    let (own, _) = make(&chat, &secret("local"), wanted("ci", "operator", "1d")).await;
    let (status, said) = asked_and_approved(&chat, &own, &one).await;
    assert_eq!(status, 200, "{said}");
}

#[tokio::test]
async fn a_token_in_a_persons_name_is_made_by_that_person_or_on_the_engines_machine() {
    let chat = with_an_admin().await;
    for name in ["bob", "laptop"] {
        let (status, said) = chat.posts(&secret("root"), "/api/v1/tokens", wanted(name, "viewer", "1d")).await;
        // The configuration has these two already.
        assert_eq!(status, StatusCode::CONFLICT, "{said}");
    }
    let (status, said) = chat.posts(&secret("root"), "/api/v1/tokens", wanted("vic", "viewer", "1d")).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
    assert!(said["error"].as_str().unwrap().contains("acts in its owner's name"), "{said}");
    make(&chat, &secret("local"), wanted("vic", "viewer", "1d")).await;
}

#[tokio::test]
async fn what_a_token_made_is_revoked_with_it() {
    let chat = with_an_admin().await;
    let (stolen, id) = make(&chat, &secret("root"), wanted("stolen", "admin", "30d")).await;
    let (child, _) = make(&chat, &stolen, wanted("child", "admin", "29d")).await;
    let (grandchild, _) = make(&chat, &child, wanted("grandchild", "viewer", "1d")).await;
    let (other, _) = make(&chat, &secret("root"), wanted("other", "viewer", "1d")).await;
    let revoke = format!("/api/v1/tokens/{id}/revoke");
    let (status, said) = chat.posts(&secret("root"), &revoke, json!({ "why": "it leaked" })).await;
    assert_eq!((status, said["made_by_it"].as_array().map(Vec::len)), (StatusCode::OK, Some(2)), "{said}");
    for (text, open) in [(&stolen, false), (&child, false), (&grandchild, false), (&other, true)] {
        let (status, said) = chat.posts(text, "/api/v1/simulate", json!({})).await;
        assert_eq!(status != StatusCode::UNAUTHORIZED, open, "{said}");
    }
    let entries = chat.night.entries().await;
    assert_eq!(super::kinds(&entries, "token_revoked"), 3, "each has its line");
}

#[tokio::test]
async fn a_persons_token_opens_nothing_once_they_are_gone() {
    let chat = with_an_admin().await;
    let people = chat.app.roster.now().people().to_vec();
    let given = ["root", "local"].map(|name| token(name, Role::Admin, None));
    let with = |people: Vec<PersonConfig>| {
        chat.app
            .roster
            .replace(PrincipalSet::new(people, nightshift::server::ConfiguredTokens::new(given.to_vec()).unwrap()));
    };
    let mut more = people.clone();
    more.push(PersonConfig::new("eve", Role::Operator));
    with(more.clone());
    let (text, _) = make(&chat, &secret("local"), wanted("eve", "operator", "30d")).await;
    let ask = async || chat.posts(&text, "/api/v1/freezes", json!({ "scope": "rule:r", "why": "x" })).await;
    assert_ne!(ask().await.0, StatusCode::UNAUTHORIZED);
    more.last_mut().unwrap().role = Role::Viewer;
    with(more);
    assert_eq!(ask().await.0, StatusCode::FORBIDDEN, "as little as they may");
    with(people);
    let (status, said) = ask().await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{said}");
    assert!(said["error"].as_str().unwrap().contains("belongs to eve, who is no longer in `people`"), "{said}");
}

#[tokio::test]
async fn a_token_in_force_is_listed_and_revoked_however_many_have_ended_since() {
    let chat = chat(vec![token("root", Role::Admin, None), token("local", Role::Admin, None)]).await;
    let (text, id) = make(&chat, &secret("root"), wanted("old", "viewer", "300d")).await;
    let store = &chat.night.parts.store;
    for no in 0..nightshift::limits::TOKENS {
        let new = NewToken {
            name: "ci".to_owned(),
            grant: RoleGrant::everywhere(Role::Viewer),
            sources: Vec::new(),
            hash: format!("{no:064x}"),
            by: "root".to_owned(),
            root: Some("root".to_owned()),
            person: None,
            made_with: None,
            expires_at: chat.night.now() + Span::minutes(1).0,
        };
        let made = store.token_make(new, chat.night.now()).await.unwrap();
        store.token_revoke(made.id, "root", "", chat.night.now()).await.unwrap();
    }
    chat.night.pass(2 * MINUTE).await;
    let listed = store.tokens(chat.night.now()).await.unwrap();
    assert_eq!(listed[0].id.to_string(), id, "before all that have ended");
    let (status, said) = chat.posts(&secret("root"), &format!("/api/v1/tokens/{id}/revoke"), json!({})).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    assert_eq!(chat.posts(&text, "/api/v1/simulate", json!({})).await.0, StatusCode::UNAUTHORIZED);
}
