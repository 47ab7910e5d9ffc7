//! Two persons are two humans, by whatever names they come.
//!
//! Invariant: what is frozen stays so until another user agrees, and the refusal says as whom they asked before.

use super::{make, wanted, with_an_admin};
use crate::harness::secret;
use crate::roles::token;
use crate::slack_in::Chat;
use axum::http::StatusCode;
use nightshift::config::Role;
use nightshift::model::RunState;
use nightshift::server::ConfiguredTokens;
use serde_json::{Value, json};
use std::time::Duration;

async fn freeze(chat: &Chat, by: &str) {
    let (status, said) = chat.posts(by, "/api/v1/freezes", json!({ "scope": "all", "why": "a storm" })).await;
    assert_eq!(status, StatusCode::CREATED, "{said}");
}

async fn release(chat: &Chat, by: &str) -> (u16, Value) {
    let (status, said) = chat.posts(by, "/api/v1/unfreeze", json!({ "scope": "all", "why": "over" })).await;
    (status.as_u16(), said)
}

async fn frozen(chat: &Chat) -> bool {
    !chat.night.parts.store.freezes().await.unwrap().is_empty()
}

#[tokio::test]
async fn a_token_made_here_is_no_second_person_of_its_maker_nor_are_two_of_them() {
    let chat = with_an_admin().await;
    let (first, _) = make(&chat, &secret("root"), wanted("ci", "operator", "1d")).await;
    let (second, _) = make(&chat, &secret("root"), wanted("cd", "operator", "1d")).await;
    for (one, other, as_whom) in [
        (secret("root"), first.clone(), "root"),
        (first.clone(), secret("root"), "ci"),
        (first.clone(), second.clone(), "ci"),
    ] {
        freeze(&chat, &secret("bob")).await;
        let (status, said) = release(&chat, &one).await;
        assert_eq!((status, &said["asked"]), (200, &json!("all")), "{said}");
        let (status, said) = release(&chat, &other).await;
        assert_eq!(status, 403, "{said}");
        assert!(said["error"].as_str().unwrap().ends_with(&format!(", as {as_whom}")), "{said}");
        assert!(frozen(&chat).await);
        let (status, said) = release(&chat, &secret("bob")).await;
        assert_eq!((status, &said["unfrozen"]), (200, &json!("all")), "another user: {said}");
    }
}

#[tokio::test]
async fn two_names_of_one_human_do_not_pass_each_other_in_the_same_moment() {
    let chat = with_an_admin().await;
    let (first, _) = make(&chat, &secret("root"), wanted("ci", "operator", "1d")).await;
    let (second, _) = make(&chat, &secret("root"), wanted("cd", "operator", "1d")).await;
    freeze(&chat, &secret("bob")).await;
    let (root, ci, cd) = (secret("root"), first, second);
    let answers = tokio::join!(release(&chat, &root), release(&chat, &ci), release(&chat, &cd));
    let asked = [&answers.0, &answers.1, &answers.2].iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(asked, 1, "the others are refused: {answers:?}");
    assert!(frozen(&chat).await);
}

#[tokio::test]
async fn what_one_token_of_a_maker_asked_for_another_one_cannot_approve() {
    let chat = with_an_admin().await;
    let (first, _) = make(&chat, &secret("root"), wanted("ci", "operator", "1d")).await;
    let (second, _) = make(&chat, &secret("root"), wanted("cd", "operator", "1d")).await;
    let run = json!({ "runbook": "cordon", "params": { "node": "gpu-2" } });
    assert_eq!(chat.posts(&first, "/api/v1/runs", run).await.0, StatusCode::CREATED);
    let run = chat.night.runs().await.pop().unwrap();
    let rest = chat.night.until_rest(run.id, Duration::from_secs(60)).await;
    assert!(matches!(rest.state, RunState::Asking { .. }), "{:?}", rest.state);
    let (status, said) = chat.posts(&second, "/api/v1/approvals/a1", json!({ "approve": true })).await;
    assert!(status == StatusCode::FORBIDDEN && said.to_string().contains("cannot approve it too"), "{status} {said}");
    let (status, said) = chat.posts(&secret("bob"), "/api/v1/approvals/a1", json!({ "approve": true })).await;
    assert_eq!(status, StatusCode::OK, "{said}");
}

/// An engine that knows ada alone, and this machine's own token.
async fn site_of_one() -> Chat {
    let tokens = vec![token("ada", Role::Admin, None), token("local", Role::Admin, None)];
    Chat::begin_with(ConfiguredTokens::new(tokens).unwrap(), |config| {
        config.people.truncate(1);
        config.people[0].role = Role::Admin;
    })
    .await
}

#[tokio::test]
async fn where_one_human_can_release_one_is_enough_whatever_tokens_they_made() {
    let chat = site_of_one().await;
    freeze(&chat, &secret("ada")).await;
    let (phone, _) = make(&chat, &secret("ada"), wanted("ci", "operator", "1d")).await;
    let (status, said) = release(&chat, &phone).await;
    assert_eq!((status, &said["unfrozen"]), (200, &json!("all")), "{said}");
}

#[tokio::test]
async fn a_token_that_the_machine_made_for_somebody_is_a_second_person_until_it_is_revoked() {
    let chat = site_of_one().await;
    let (kim, id) = make(&chat, &secret("local"), wanted("kim", "operator", "1d")).await;
    freeze(&chat, &secret("ada")).await;
    assert_eq!(release(&chat, &secret("ada")).await.1["asked"], "all", "now there are two");
    let (status, said) = release(&chat, &secret("ada")).await;
    assert_eq!(status, 409, "{said}");
    let (status, said) = release(&chat, &kim).await;
    assert_eq!((status, &said["unfrozen"]), (200, &json!("all")), "{said}");
    freeze(&chat, &secret("ada")).await;
    let (status, _) = chat.posts(&secret("local"), &format!("/api/v1/tokens/{id}/revoke"), json!({})).await;
    assert_eq!(status, StatusCode::OK);
    let (status, said) = release(&chat, &secret("ada")).await;
    assert_eq!((status, &said["unfrozen"]), (200, &json!("all")), "and now there is one: {said}");
}

#[tokio::test]
async fn broken_glasses_and_the_machines_own_token_are_one_human_together() {
    let chat = site_of_one().await;
    let (kim, _) = make(&chat, &secret("local"), wanted("kim", "operator", "1d")).await;
    let glass = async |by: &str| {
        let wish = json!({ "reason": "no login", "by": by });
        let (_, said) = chat.posts(&secret("local"), "/api/v1/break-glass", wish).await;
        said["token"].as_str().unwrap().to_owned()
    };
    let (ann, ben) = (glass("ann").await, glass("ben").await);
    freeze(&chat, &secret("ada")).await;
    let refused = async || {
        for other in [&ann, &ben, &secret("local")] {
            let (status, said) = release(&chat, other).await;
            assert!(status == 403 && said.to_string().contains("does not count as one"), "{status} {said}");
        }
    };
    // Neither the first of two persons nor the second one.
    refused().await;
    assert_eq!(release(&chat, &secret("ada")).await.1["asked"], "all");
    refused().await;
    assert!(frozen(&chat).await);
    assert_eq!(release(&chat, &kim).await.1["unfrozen"], "all");
}

#[tokio::test]
async fn the_machines_own_token_never_cures_a_self_approval_unless_people_say_whose_it_is() {
    let chat = with_an_admin().await;
    let wish = json!({ "reason": "no login", "by": "ann" });
    let (_, said) = chat.posts(&secret("local"), "/api/v1/break-glass", wish).await;
    let glass = said["token"].as_str().unwrap().to_owned();
    for (asker, approver) in [
        (secret("bob"), secret("local")),
        (secret("bob"), glass.clone()),
        (secret("local"), secret("bob")),
        (secret("local"), glass.clone()),
        (glass, secret("bob")),
    ] {
        let (status, said) = super::asked_and_approved(&chat, &asker, &approver).await;
        assert!(status == 403 && said.contains("cannot approve it too"), "{status} {said}");
    }
    chat.night.settle().await;
    assert!(chat.night.effects().is_empty(), "{:?}", chat.night.effects());
    // It is ada's: then it is a person like any other, and still not two.
    let mut people = chat.app.roster.now().people().to_vec();
    people[0].tokens.push("local".into());
    let given = ["ada", "bob", "root", "local"].map(|name| token(name, Role::Admin, None));
    chat.app
        .roster
        .replace(nightshift::server::PrincipalSet::new(people, ConfiguredTokens::new(given.to_vec()).unwrap()));
    let (status, said) = super::asked_and_approved(&chat, &secret("ada"), &secret("local")).await;
    assert!(status == 403 && said.contains("cannot approve it too"), "{status} {said}");
    let (status, said) = super::asked_and_approved(&chat, &secret("bob"), &secret("local")).await;
    assert_eq!(status, 200, "{said}");
}
