//! Sessions that rest on a token made here, and on a broken glass: they may what the token may, and end with it.
//!
//! Invariant: no session outlives its token by one click, and what a broken glass does on a page is in the ledger.

use super::desk::{Desk, MINUTE};
use serde_json::json;
use std::time::Duration;

/// A token made here, its text and its number.
async fn make(desk: &Desk, name: &str, role: &str, expires: &str) -> (String, String) {
    let made = desk.posts("tokens", &json!({ "name": name, "role": role, "expires": expires })).await;
    (made["token"].as_str().unwrap().to_owned(), made["made"]["id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_token_made_here_signs_in_may_what_it_may_and_its_session_ends_with_the_revocation() {
    let desk = Desk::set(|_, _| {}).await;
    let run = desk.asking().await;
    let (text, id) = make(&desk, "kim", "responder", "30d").await;
    let (mut kim, home) = desk.signed_in_by(&text).await;
    assert!(home.words().contains("kim · responder"), "{}", home.words());
    let incident = kim.open(&desk.at("/incidents/i1")).await;
    let after = kim.send(&incident.form("/ack")).await;
    assert!(after.words().contains("Acknowledged by kim"), "{}", after.words());
    let page = kim.open(&desk.at(&format!("/runs/{run}"))).await;
    assert!(!page.text.contains("/web/approvals/") && page.words().contains("has role responder"), "{}", page.words());
    let csrf = home.form("/logout").get("csrf").to_owned();
    let (mut ada, _) = desk.signed_in("ada").await;
    let form = desk.question(&mut ada, run).await.with("answer", "approve").with("csrf", &csrf);
    assert_eq!(kim.send(&form).await.status, 403);
    assert!(desk.waits(run).await);
    let freeze = home.form("/web/freezes").with("why", "late");
    desk.posts(&format!("tokens/{id}/revoke"), &json!({ "why": "it leaked" })).await;
    assert_eq!(kim.send(&freeze).await.status, 401, "in the very next click");
    assert_eq!(kim.open(&desk.at("/")).await.url.path(), "/login");
    assert!(desk.night.parts.store.freezes().await.unwrap().is_empty());
    let again = kim.open(&desk.at("/login")).await.form("/login").with("token", &text);
    let again = kim.send(&again).await;
    assert_eq!(again.status, 401, "nor does it sign in");
    assert!(!again.text.contains(&text));
}

#[tokio::test]
async fn a_session_ends_in_the_second_in_which_its_token_does() {
    let desk = Desk::set(|_, _| {}).await;
    let (text, _) = make(&desk, "kim", "viewer", "30m").await;
    let (mut kim, _) = desk.signed_in_by(&text).await;
    desk.night.pass(30 * MINUTE - Duration::from_secs(1)).await;
    assert_eq!(kim.open(&desk.at("/")).await.url.path(), "/");
    desk.night.pass(Duration::from_secs(1)).await;
    assert_eq!(kim.open(&desk.at("/")).await.url.path(), "/login");
}

#[tokio::test]
async fn a_token_for_a_source_opens_no_page() {
    let desk = Desk::set(|_, _| {}).await;
    let made =
        desk.posts("tokens", &json!({ "name": "am2", "role": "source", "expires": "1d", "sources": ["test"] })).await;
    let mut browser = super::browser::Browser::new();
    let sign_in = browser.open(&desk.at("/login")).await.form("/login").with("token", made["token"].as_str().unwrap());
    assert_eq!(browser.send(&sign_in).await.status, 401);
    assert_eq!(browser.session(), None);
}

#[tokio::test]
async fn what_a_broken_glass_does_on_the_pages_is_in_the_ledger_and_its_session_ends_when_it_is_closed() {
    let desk = Desk::set(|_, _| {}).await;
    let run = desk.asking().await;
    let glass = desk.posts("break-glass", &json!({ "reason": "the login is down", "by": "ann" })).await;
    let (text, id) = (glass["token"].as_str().unwrap(), glass["made"]["id"].as_str().unwrap());
    let (mut ann, home) = desk.signed_in_by(text).await;
    assert!(home.words().contains("break-glass (ann) · admin"), "{}", home.words());
    let used = async || -> Vec<String> {
        let entries = desk.night.entries().await;
        let used = entries.iter().filter(|entry| entry.kind.name() == "break_glass_used");
        used.filter_map(|entry| nightshift::engine::story::line(entry).map(|line| line.text)).collect()
    };
    assert!(used().await.contains(&"break-glass (ann): GET /api/v1/status".to_owned()), "{:?}", used().await);
    let form = desk.question(&mut ann, run).await.with("answer", "approve").with("why", "nobody else is there");
    let after = ann.send(&form).await;
    assert!(after.words().contains("a1 approved by break-glass (ann)"), "{}", after.words());
    assert!(used().await.contains(&"break-glass (ann): POST /api/v1/approvals/a1".to_owned()), "{:?}", used().await);
    desk.night.until_rest(run, MINUTE).await;
    // It is told in the incident that everybody hears of.
    let open = nightshift::store::Filter { limit: 10, ..Default::default() };
    let incidents = desk.night.parts.store.incidents(open).await.unwrap();
    let told = incidents.iter().find(|incident| incident.title.contains("break-glass used by ann")).unwrap();
    let words = ann.open(&desk.at(&format!("/incidents/{}", told.id))).await.words();
    assert!(words.contains("break-glass (ann): POST /api/v1/approvals/a1"), "{words}");
    desk.posts(&format!("tokens/{id}/revoke"), &json!({ "why": "over" })).await;
    let freeze = home.form("/web/freezes").with("why", "late");
    assert_eq!(ann.send(&freeze).await.status, 401, "in the very next click");
    assert_eq!(ann.open(&desk.at("/")).await.url.path(), "/login");
    assert!(desk.night.parts.store.freezes().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_hour_of_a_broken_glass_ends_its_session_too() {
    let desk = Desk::set(|_, _| {}).await;
    let glass = desk.posts("break-glass", &json!({ "reason": "the login is down" })).await;
    let (mut browser, _) = desk.signed_in_by(glass["token"].as_str().unwrap()).await;
    desk.night.pass(60 * MINUTE - Duration::from_secs(1)).await;
    assert_eq!(browser.open(&desk.at("/")).await.url.path(), "/");
    desk.night.pass(Duration::from_secs(1)).await;
    assert_eq!(browser.open(&desk.at("/")).await.url.path(), "/login");
}
