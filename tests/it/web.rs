//! The pages from outside: who sees what, what a form is bound to, and what never gets through.
//!
//! Invariant: what was done is counted by the fleet; a page is read as a browser gets it.

mod browser;
mod chromium;
mod desk;
mod forged;
mod judge;
mod live;
mod made;
mod phone;
mod provider;
mod real_providers;
mod sign_in;
mod subjects;
mod tabs;

use browser::{Browser, FROM};
use desk::{Desk, MINUTE, given, token, tokens};
use nightshift::config::Role;
use nightshift::model::{Mode, RunState};
use nightshift::server::{ConfiguredTokens, PrincipalSet};
use std::time::Duration;

#[tokio::test]
async fn who_has_not_signed_in_sees_nothing_at_all() {
    let desk = Desk::set(|_, _| {}).await;
    desk.asking().await;
    let mut browser = Browser::new();
    for path in ["/", "/incidents/i1", "/runs/r1", "/why/gpu-2", "/incidents/i99"] {
        let page = browser.open(&desk.at(path)).await;
        assert_eq!(page.way[1].as_str(), desk.at(&format!("/login?to={path}")).as_str());
        let words = page.words();
        assert!(words.contains("Sign in") && !words.contains("gpu-2") && !words.contains("GpuXid"), "{words}");
    }
    let page = browser.open(&desk.at("/login")).await;
    let sign_in = page.form("/login");
    for (action, fields) in [("/web/approvals/a1", "answer"), ("/web/freezes", "scope"), ("/logout", "x")] {
        let mut form = sign_in.clone().with(fields, "approve").with("csrf", "");
        form.action = desk.at(action);
        let page = browser.send(&form).await;
        assert_eq!(page.status, 401, "{action}");
        assert!(!page.words().contains("gpu-2"));
    }
    for wrong in ["", "x", &token("am"), &token("eve")] {
        let page = browser.send(&sign_in.clone().with("token", wrong)).await;
        assert_eq!(page.status, 401, "{wrong}: a source reads nothing, and nobody else is known");
        assert!(page.words().contains("has no rights here"), "{}", page.words());
        assert!(!page.text.contains("am-0123"), "a token is never said again");
    }
    assert_eq!(browser.session(), None);
    assert!(desk.night.effects().is_empty());
}

#[tokio::test]
async fn a_person_signs_in_reads_the_plan_and_approves_it_once() {
    let desk = Desk::set(|_, _| {}).await;
    let run = desk.asking().await;
    let (mut browser, home) = desk.signed_in("ada").await;
    let words = home.words();
    let asks = words.find("Waiting for an answer").unwrap();
    assert!(asks < words.find("Open incidents").unwrap() && words.contains("cordon gpu-2"), "{words}");
    assert!(words.contains("ada · approver") && words.contains("of 4 nodes out of service"), "{words}");
    let page = browser.open(&desk.at(&format!("/runs/{run}"))).await;
    let form = page.form("/web/approvals/a1");
    let approval = desk.night.parts.store.approvals(Default::default()).await.unwrap();
    let hash = approval.first().map_or_else(|| form.get("plan_hash").to_owned(), |approval| approval.plan_hash.clone());
    assert_eq!(form.get("plan_hash"), hash);
    for part in ["cordon gpu-2", "scope node", "Expires", hash.as_str(), "Reason (recorded in the ledger)"] {
        assert!(page.words().contains(part), "{part}: {}", page.words());
    }
    let after = browser.send(&form.clone().with("answer", "approve").with("why", "I know this <b>node</b>")).await;
    assert_eq!((after.status, after.url.path()), (200, format!("/runs/{run}").as_str()));
    assert!(after.words().contains("a1 approved by ada"), "{}", after.words());
    assert_eq!(desk.night.until_rest(run, MINUTE).await.state, RunState::Done);
    // The same form again, from the history of the browser.
    let again = browser.send(&form.with("answer", "deny")).await;
    assert_eq!(again.status, 409);
    assert!(again.words().contains("a1 is approved already (by ada)"), "{}", again.words());
    desk.night.settle().await;
    assert_eq!(desk.night.effects().get("patch nodes gpu-2"), Some(&1));
    let incident = browser.open(&desk.at("/incidents/i1")).await.words();
    assert!(incident.contains("cordoned gpu-2") && incident.contains("I know this <b>node</b>"), "{incident}");
    assert!(browser.open(&desk.at(&format!("/why/{run}"))).await.words().contains("approved"));
}

#[tokio::test]
async fn a_form_from_elsewhere_or_of_another_session_changes_nothing() {
    let desk = Desk::set(|_, _| {}).await;
    let run = desk.asking().await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let (mut bob, _) = desk.signed_in("bob").await;
    let form = desk.question(&mut ada, run).await.with("answer", "approve");
    let ours = desk.url.origin().ascii_serialization();
    for headers in [
        vec![],
        vec![(FROM, "null")],
        vec![(FROM, "https://evil.example")],
        vec![(FROM, "http://127.0.0.1:1")],
        vec![(FROM, ours.as_str()), ("sec-fetch-site", "cross-site")],
        vec![(FROM, ours.as_str()), (FROM, "https://evil.example")],
    ] {
        let page = ada.send_from(&form, &headers).await;
        assert_eq!(page.status, 403, "{headers:?}");
        assert!(page.words().contains("not sent from one of our pages"), "{}", page.words());
        let sign_in = browser::Form { action: desk.at("/login"), fields: vec![("token".into(), token("ada"))] };
        let mut fresh = Browser::new();
        assert_eq!(fresh.send_from(&sign_in, &headers).await.status, 403, "{headers:?}");
        assert_eq!(fresh.session(), None, "nobody is signed in as another user from elsewhere");
    }
    for wrong in [form.clone().without("csrf"), form.clone().with("csrf", ""), form.clone().with("csrf", "x")] {
        assert_eq!(ada.send(&wrong).await.status, 403);
    }
    let stolen = bob.send(&form).await;
    assert_eq!(stolen.status, 403, "the token of ada's form in bob's session");
    assert!(stolen.words().contains("belongs to another session"));
    let got = ada.open(&desk.at("/web/approvals/a1?answer=approve")).await;
    assert_eq!(got.status, 405, "nothing changes by GET");
    assert!(desk.waits(run).await);
}

#[tokio::test]
async fn a_changed_plan_a_closed_question_and_a_strange_form_are_refused_in_place() {
    let desk = Desk::set(|_, _| {}).await;
    let run = desk.asking().await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let form = desk.question(&mut ada, run).await;
    for hash in ["", "0", &"0".repeat(64)] {
        let page = ada.send(&form.clone().with("answer", "approve").with("plan_hash", hash)).await;
        assert_eq!(page.status, 409, "{}", page.words());
        assert!(page.words().contains("is not the question that was shown"), "{}", page.words());
        assert_eq!(page.form("/web/approvals/a1").get("plan_hash"), form.get("plan_hash"), "the current plan");
    }
    let mut foreign = form.clone().with("answer", "approve");
    foreign.action = desk.at("/web/approvals/a99");
    assert_eq!(ada.send(&foreign).await.status, 404);
    assert_eq!(ada.send(&form.clone().with("answer", "perhaps")).await.status, 400);
    let long = "x".repeat(3_000);
    assert_eq!(ada.send(&form.clone().with("answer", "approve").with("why", &long)).await.status, 400);
    let endless = "x".repeat(100_000);
    assert_eq!(ada.send(&form.clone().with("answer", "approve").with("why", &endless)).await.status, 413);
    assert!(desk.waits(run).await);
    let denied = ada.send(&form.clone().with("answer", "deny").with("why", "not tonight")).await;
    assert!(denied.words().contains("a1 denied by ada"), "{}", denied.words());
    assert!(matches!(desk.night.until_rest(run, MINUTE).await.state, RunState::Denied { .. }));
    let late = ada.send(&form.with("answer", "approve")).await;
    assert_eq!(late.status, 409);
    assert!(
        late.words().contains("a1 is denied already (by ada)")
            && late.words().contains("was denied by ada: not tonight"),
        "{}",
        late.words()
    );
    assert!(desk.night.effects().is_empty());
}

#[tokio::test]
async fn two_clicks_in_the_same_moment_are_one_answer_and_one_is_told_who_was_first() {
    let desk = Desk::set(|_, _| {}).await;
    let run = desk.asking().await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let (mut bob, _) = desk.signed_in("bob").await;
    let yes = desk.question(&mut ada, run).await.with("answer", "approve");
    let no = desk.question(&mut bob, run).await.with("answer", "approve");
    let (first, second) = tokio::join!(ada.send(&yes), bob.send(&no));
    let late: Vec<_> = [first, second].into_iter().filter(|page| page.status == 409).collect();
    assert_eq!(late.len(), 1);
    assert!(late[0].words().contains("a1 is approved already (by "), "{}", late[0].words());
    desk.night.until_rest(run, MINUTE).await;
    assert_eq!(desk.night.effects().get("patch nodes gpu-2"), Some(&1));
}

#[tokio::test]
async fn who_has_no_right_is_told_so_and_the_try_is_in_the_ledger() {
    let desk = Desk::set(|_, _| {}).await;
    let run = desk.asking().await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let (mut vic, _) = desk.signed_in("vic").await;
    let page = vic.open(&desk.at(&format!("/runs/{run}"))).await;
    assert!(!page.text.contains("/web/approvals/") && page.words().contains("has role viewer"), "{}", page.words());
    let token = page.form("/logout").get("csrf").to_owned();
    let form = desk.question(&mut ada, run).await.with("answer", "approve").with("csrf", &token);
    let refused = vic.send(&form).await;
    assert_eq!(refused.status, 403);
    assert!(refused.words().contains("`vic` has role viewer"), "{}", refused.words());
    assert!(desk.waits(run).await);
    let remarks = desk.remarks().await;
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(
        remarks[0].starts_with("denied for vic: POST /api/v1/approvals/a1, by token vic: `vic` has role viewer"),
        "{remarks:?}"
    );
    assert!(
        vic.open(&desk.at(&format!("/runs/{run}"))).await.words().contains("denied for vic: POST /api/v1/approvals/a1")
    );
}

#[tokio::test]
async fn who_asked_for_a_run_cannot_approve_it_on_the_page_either() {
    let desk = Desk::set(|_, _| {}).await;
    let loaded = desk.night.parts.catalog.current();
    let runbook = &loaded.runbooks["cordon"];
    let params = serde_json::json!({ "node": "gpu-2" }).as_object().unwrap().clone();
    let input = nightshift::policy::RuleSet::bind(&runbook.header, &params, None).unwrap();
    let new = nightshift::store::NewRun {
        pin: runbook.pin.clone(),
        subject: nightshift::policy::subject_of(&runbook.header, &input.params, None),
        input,
        mode: Mode::Approve,
        rule: None,
        terms: None,
        requested_by: "ada".into(),
        once: None,
        now: desk.night.now(),
    };
    let run = desk.night.parts.store.start(new).await.unwrap().unwrap();
    desk.night.until_rest(run, MINUTE).await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let form = desk.question(&mut ada, run).await.with("answer", "approve");
    let refused = ada.send(&form).await;
    assert!(refused.words().contains("cannot approve it too"), "{}", refused.words());
    assert!(desk.waits(run).await);
    let (mut bob, _) = desk.signed_in("bob").await;
    let form = desk.question(&mut bob, run).await.with("answer", "approve");
    assert_eq!(bob.send(&form).await.status, 200);
    desk.night.until_rest(run, MINUTE).await;
    assert_eq!(desk.night.effects().get("patch nodes gpu-2"), Some(&1));
}

#[tokio::test]
async fn a_session_is_new_at_each_sign_in_and_ends_when_its_person_says_so_or_walks_away() {
    let desk = Desk::set(|_, _| {}).await;
    let mut browser = Browser::new();
    let key = ("127.0.0.1".to_owned(), "nightshift".to_owned(), "/".to_owned());
    browser.jar.insert(key.clone(), "chosen-by-somebody-else".to_owned());
    let sign_in = browser.open(&desk.at("/login")).await.form("/login").with("token", &token("ada"));
    browser.send(&sign_in).await;
    let first = browser.session().unwrap();
    assert!(first != "chosen-by-somebody-else" && first.len() == 43, "{first}");
    // Signing in again gives a new name, and the old one opens nothing.
    browser.send(&sign_in).await;
    let mut old = Browser::new();
    old.jar.insert(key.clone(), first);
    assert_eq!(old.open(&desk.at("/")).await.url.path(), "/login");
    let home = browser.open(&desk.at("/")).await;
    let mut copy = Browser::new();
    copy.jar = browser.jar.clone();
    assert_eq!(browser.send(&home.form("/logout")).await.url.path(), "/login");
    assert_eq!(browser.session(), None);
    assert_eq!(copy.open(&desk.at("/")).await.url.path(), "/login", "at once, for whoever kept the cookie");
    let (mut idle, _) = desk.signed_in("ada").await;
    desk.night.pass(Duration::from_secs(2 * 3_600 - 1)).await;
    assert_eq!(idle.open(&desk.at("/")).await.url.path(), "/");
    desk.night.pass(Duration::from_secs(2 * 3_600)).await;
    assert_eq!(idle.open(&desk.at("/")).await.url.path(), "/login");
    // Two cookies of that name: one was put there by another port of this host, and locks no user out.
    let (mut twice, _) = desk.signed_in("ada").await;
    twice.jar.insert((key.0.clone(), key.1.clone(), "/runs".to_owned()), "x".to_owned());
    assert_eq!(twice.open(&desk.at("/runs/r1")).await.url.path(), "/runs/r1");
    // Another one's session beside one's own: it is open who this is, and a sign-in ends both.
    let (bob, _) = desk.signed_in("bob").await;
    twice.jar.insert((key.0, key.1, "/runs".to_owned()), bob.session().unwrap());
    let page = twice.open(&desk.at("/runs/r1")).await;
    assert_eq!(page.url.path(), "/login");
    twice.jar.retain(|(_, _, path), _| path != "/runs");
    let mut bob = bob;
    assert_eq!(bob.open(&desk.at("/")).await.url.path(), "/", "who only looked has ended nothing");
}

#[tokio::test]
async fn a_role_that_is_taken_away_is_gone_at_the_next_click() {
    let desk = Desk::set(|_, _| {}).await;
    let run = desk.asking().await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let form = desk.question(&mut ada, run).await.with("answer", "approve");
    let known = |given| PrincipalSet::new(Vec::new(), ConfiguredTokens::new(given).unwrap());
    let viewer = tokens().into_iter().map(|old| if old.name == "ada" { given("ada", Role::Viewer) } else { old });
    desk.app.roster.replace(known(viewer.collect()));
    let refused = ada.send(&form).await;
    assert_eq!(refused.status, 403);
    assert!(refused.words().contains("`ada` has role viewer"), "{}", refused.words());
    desk.app.roster.replace(known(vec![given("bob", Role::Approver)]));
    assert_eq!(ada.send(&form).await.status, 401);
    assert_eq!(ada.open(&desk.at("/")).await.url.path(), "/login");
    assert!(desk.waits(run).await);
}

#[tokio::test]
async fn labels_are_shown_as_text_whatever_they_say() {
    let desk = Desk::set(|_, _| {}).await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let hostile = [
        ("alertname", "GpuXid"),
        ("node", "<script>alert(1)</script>"),
        ("a", "\"><img src=x onerror=alert(1)>"),
        ("b", "javascript:alert(1)"),
        ("c", "<!channel>"),
        ("d", "https://wiki.example/xid"),
        ("e", "https://google.com@evil.example/"),
        ("f", "a\u{202e}b"),
        ("g", "'}</style><style>*{display:none}"),
    ];
    desk.night.hear("firing", &hostile).await;
    for path in ["/", "/incidents/i1", "/runs/r1", "/why/i1", "/why/%3Cscript%3Ealert(1)%3C%2Fscript%3E"] {
        let page = ada.open(&desk.at(path)).await;
        for never in ["<script>alert", "<img", "href=\"javascript", "<style>", "\u{202e}", "href=\"https://google.com@"]
        {
            assert!(!page.text.contains(never), "{path} has {never}:\n{}", page.text);
        }
        assert!(!page.text.contains(" onerror=alert(1)>"), "{path}");
    }
    let page = ada.open(&desk.at("/incidents/i1")).await;
    for as_text in ["<script>alert(1)</script>", "javascript:alert(1)", "<!channel>", "a\\u{202e}b", "(wiki.example)"] {
        assert!(page.words().contains(as_text), "{as_text}: {}", page.words());
    }
    assert!(page.text.contains("<a href=\"https://wiki.example/xid\" rel=\"noopener noreferrer nofollow\">"));
}

#[tokio::test]
async fn every_page_carries_its_protection_and_nothing_of_others() {
    let desk = Desk::set(|_, _| {}).await;
    let run = desk.asking().await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let run = format!("/runs/{run}");
    for path in ["/", "/login", "/incidents/i1", run.as_str(), "/runs/r99", "/why/i1", "/web/style.css", "/web/live.js"]
    {
        let page = ada.open(&desk.at(path)).await;
        let policy = page.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(part) && !policy.contains("unsafe"), "{path}: {policy}");
        }
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("referrer-policy"), "same-origin");
        assert_eq!(page.header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(page.header("strict-transport-security"), "", "in the clear there is no TLS to require");
        assert!(!page.text.contains("http://www") && !page.text.contains("style=") && !page.text.contains("<script>"));
    }
    assert_eq!(ada.open(&desk.at("/runs/r99")).await.status, 404);
    let cookie =
        Browser::new().send(&ada.open(&desk.at("/login")).await.form("/login").with("token", &token("ada"))).await;
    assert_eq!(cookie.status, 200);
}

#[tokio::test]
async fn what_is_no_page_carries_the_same_headers_and_by_tls_every_answer_requires_tls() {
    let desk = Desk::set(|config, _| config.server.public_url = Some("https://ns.example".into())).await;
    let mut browser = Browser::new();
    for path in ["/login", "/healthz", "/api/v1/status", "/metrics", "/no/such/thing", "/in/alertmanager/x"] {
        let page = browser.open(&desk.at(path)).await;
        assert_eq!(page.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(page.header("cross-origin-opener-policy"), "same-origin", "{path}");
        assert_eq!(page.header("strict-transport-security"), "max-age=31536000", "{path}");
    }
}

#[tokio::test]
async fn a_person_acknowledges_freezes_and_releases_with_a_reason() {
    let desk = Desk::set(|config, _| config.guards.release_persons = Some(1)).await;
    desk.asking().await;
    let (mut ada, home) = desk.signed_in("ada").await;
    let page = ada.open(&desk.at("/incidents/i1")).await;
    let page = ada.send(&page.form("/web/incidents/i1/ack")).await;
    assert!(page.words().contains("Acknowledged by ada"), "{}", page.words());
    let freeze = home.form("/web/freezes");
    assert_eq!(ada.send(&freeze.clone().with("why", "")).await.status, 400);
    assert_eq!(ada.send(&freeze.clone().with("scope", "rule:none").with("why", "x")).await.status, 404);
    let page = ada.send(&freeze.with("why", "the room is on fire")).await;
    assert!(page.words().contains("Frozen: all by ada: the room is on fire"), "{}", page.words());
    let refused = ada.send(&page.form("/web/unfreeze").with("why", "it is out")).await;
    assert_eq!(refused.status, 403, "an approver does not release");
    assert!(desk.night.parts.store.freezes().await.unwrap().len() == 1);
    assert!(desk.remarks().await.iter().any(|line| line.starts_with("denied for ada: POST /api/v1/unfreeze")));
}

#[tokio::test]
async fn above_the_buttons_stand_the_guard_that_would_hold_it_and_the_freeze_and_the_hash_is_folded_away() {
    let desk = Desk::set(|_, _| {}).await;
    desk.night.by_hand("gpu-4", true).await;
    let run = desk.asking().await;
    let (mut ada, home) = desk.signed_in("ada").await;
    ada.send(&home.form("/web/freezes").with("why", "the room is on fire")).await;
    let held = "would be held now: gpu-4 is already out of service, and only 1 of 4 nodes may be out at a time";
    let frozen = "Frozen by ada since";
    for path in ["/incidents/i1".to_owned(), format!("/runs/{run}")] {
        let page = ada.open(&desk.at(&path)).await;
        let words = page.words();
        for part in [held, frozen, "the room is on fire – approving will not start it.", "counts as denied"] {
            assert!(words.contains(part), "{path} does not say `{part}`: {words}");
        }
        assert!(!words.contains("which is a no") && !words.contains("Look and decide"), "{words}");
    }
    let page = ada.open(&desk.at(&format!("/runs/{run}"))).await;
    let (frozen, approve) = (page.text.find("Frozen by ada").unwrap(), page.text.find("value=\"approve\"").unwrap());
    assert!(frozen < approve, "above the buttons");
    let hash = page.form("/web/approvals/a1").get("plan_hash").to_owned();
    let (details, shown) = (page.text.find("<details>").unwrap(), page.text.find(&format!("<code>{hash}")).unwrap());
    let end = page.text[details..].find("</details>").unwrap() + details;
    assert!(details < shown && shown < end, "the hash stands behind the details");
}
