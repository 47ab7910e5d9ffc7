//! What stands on every page: the freeze, the way to the others, how old it is, and whether the engine answers.
//!
//! Invariant: read as a browser gets it; what a script does is seen in a real one.

use super::browser::Browser;
use super::chromium::Chromium;
use super::desk::{Desk, MINUTE, XID, token};
use crate::harness::{client, eventually};
use serde_json::json;

#[tokio::test]
async fn a_freeze_stands_at_the_top_of_every_page_with_the_exact_way_back() {
    let desk = Desk::set(|_, _| {}).await;
    let run = desk.asking().await;
    let (mut ada, home) = desk.signed_in("ada").await;
    assert!(!home.words().contains("Frozen"), "{}", home.words());
    desk.posts("freezes", &json!({ "scope": "rule:r", "why": "a bad driver", "for": "2h" })).await;
    for path in ["/", "/incidents", "/incidents/i1", &format!("/runs/{run}"), "/why/gpu-2", "/guards", "/runs/r99"] {
        let page = ada.open(&desk.at(path)).await;
        let words = page.words();
        let at = words.find("Frozen: rule:r by local until 2026-11-23 05:00 UTC: a bad driver");
        assert!(at.is_some_and(|at| words.find("Home").is_some_and(|nav| at < nav)), "{path}: {words}");
        assert!(words.contains("nightshift unfreeze --scope rule:r --why '…'"), "{path}: {words}");
        for to in ["href=\"/\"", "href=\"/incidents\"", "href=\"/guards\""] {
            assert!(page.text.contains(to), "{path}: {to}");
        }
    }
    desk.night.pass(MINUTE * 121).await;
    desk.night.settle().await;
    let home = ada.open(&desk.at("/")).await.words();
    assert!(!home.contains("Frozen: rule:r by"), "{home}");
}

#[tokio::test]
async fn a_browser_gets_a_page_where_there_is_none_and_a_program_gets_json() {
    let desk = Desk::set(|_, _| {}).await;
    for (accept, kind) in
        [("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"), ("*/*", "application/problem+json")]
    {
        let answer = client().get(desk.at("/nowhere<b>")).header("accept", accept).send().await.unwrap();
        assert_eq!(answer.status(), 404);
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(kind), "{accept}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        let text = answer.text().await.unwrap();
        assert!(text.contains("/nowhere") && !text.contains("<b>"), "{text}");
        if kind == "text/html" {
            assert!(policy.contains("script-src 'self'") && text.contains("Page not found"), "{policy} {text}");
            assert!(!text.contains("gpu-"), "it says nothing that only those who have signed in may see");
        }
    }
}

#[tokio::test]
async fn resolved_incidents_have_a_page_that_is_found_from_every_other_one() {
    let desk = Desk::set(|_, _| {}).await;
    desk.asking().await;
    desk.night.hear("resolved", XID).await;
    desk.night.settle().await;
    let (mut ada, home) = desk.signed_in("ada").await;
    assert!(!home.text.contains("/incidents/i1"), "what is over is not on the home page");
    let all = ada.open(&desk.at("/incidents")).await;
    assert!(all.text.contains("href=\"/incidents/i1\"") && all.words().contains("resolved"), "{}", all.words());
    assert!(all.words().contains("2026-11-23 03:00:00 UTC"), "with date and zone: {}", all.words());
    let open = ada.open(&desk.at("/incidents?state=open")).await;
    assert!(!open.text.contains("/incidents/i1") && open.words().contains("No incidents."), "{}", open.words());
    assert_eq!(ada.open(&desk.at("/incidents?state=dine")).await.status, 400);
    assert_eq!(Browser::new().open(&desk.at("/incidents")).await.url.path(), "/login");
}

#[tokio::test]
async fn the_page_of_the_guards_has_the_numbers_that_hold() {
    let desk = Desk::set(|_, _| {}).await;
    let run = desk.asking().await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let form = desk.question(&mut ada, run).await.with("answer", "approve");
    ada.send(&form).await;
    desk.night.until_rest(run, MINUTE).await;
    assert_eq!(desk.night.effects().get("patch nodes gpu-2"), Some(&1));
    let words = ada.open(&desk.at("/guards")).await.words();
    for row in [
        "nodes out of service 1 1 gpu-2",
        "taken out by our runs within an hour 1 4 gpu-2",
        "taken out by our runs within a day 1 4 gpu-2",
        "nodes with one symptom 1",
    ] {
        assert!(words.contains(row), "{row}: {words}");
    }
}

#[tokio::test]
async fn the_why_page_has_date_and_time_on_each_block_and_the_newest_first() {
    let desk = Desk::set(|_, _| {}).await;
    desk.asking().await;
    desk.night.pass(MINUTE * 10).await;
    desk.night.hear("resolved", XID).await;
    desk.night.settle().await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let page = ada.open(&desk.at("/why/gpu-2")).await;
    let times: Vec<&str> =
        page.text.split("<time datetime=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let cards = page.text.matches("class=\"card\"").count();
    let of_cards: Vec<&str> = times.into_iter().filter(|at| at.starts_with("2026-11-23T03:")).collect();
    // One more is the age of the page itself, in the header.
    assert_eq!(of_cards.len(), cards + 1, "{}", page.text);
    assert!(of_cards[1..].is_sorted_by(|one, next| one >= next), "{of_cards:?}");
    assert!(page.words().contains("2026-11-23 03:10:00 UTC"), "{}", page.words());
}

#[tokio::test]
async fn a_page_says_that_it_is_live_and_that_the_engine_no_longer_answers_and_keeps_what_was_unfolded() {
    let desk = Desk::set(|_, _| {}).await;
    desk.asking().await;
    let mut browser = Chromium::phone(390, 844).await;
    browser.hurry().await;
    browser.open(&desk.at("/")).await;
    browser.tabs_to("e.name === 'token'").await;
    browser.types(&token("ada")).await;
    let before = browser.loads();
    browser.key("Enter").await;
    browser.loaded(before + 1).await;
    // What is unfolded stops no refresh, and stays unfolded.
    browser.says("document.getElementById('brake').open = true; document.getElementById('main').dataset.old = 1").await;
    eventually("that a new middle is there, with the same unfolded", async || {
        let put = "document.getElementById('main').dataset.old === undefined && document.getElementById('brake').open";
        (browser.says(put).await == true).then_some(())
    })
    .await;
    let live = browser.says("document.getElementById('live').textContent").await;
    assert!(live.as_str().is_some_and(|text| text.starts_with("live · ") && text.ends_with(" s ago")), "{live}");
    assert_eq!(browser.says("document.getElementById('lost')").await, serde_json::Value::Null);
    assert_eq!(browser.errors, Vec::<String>::new());
    // A freeze shows without a reload, also while a form is being filled in.
    browser.says("document.getElementById('why-freeze').value = 'half a sent'").await;
    desk.posts("freezes", &json!({ "scope": "all", "why": "drill" })).await;
    eventually("that the freeze is shown", async || {
        let shown = "document.getElementById('banner').innerText.includes('Frozen: all')";
        (browser.says(shown).await == true).then_some(())
    })
    .await;
    assert_eq!(browser.says("document.getElementById('why-freeze').value").await, "half a sent");
    desk.fall_silent();
    eventually("that the bar is shown", async || {
        let bar = browser.says("document.getElementById('lost')?.textContent").await;
        bar.as_str().is_some_and(|text| text.starts_with("No answer from the engine since ")).then_some(())
    })
    .await;
    assert!(browser.text().await.contains("gpu-2"), "what was there stays, with the bar above it");
    assert_eq!(browser.beyond().await, 0);
}
