//! What comes of signing in with a provider that lies, fails, or is asked by strangers.
//!
//! Invariant: whoever is not let in has no session, and the provider says how often it was asked.

use super::browser::{Browser, Page};
use super::desk::Desk;
use super::forged::{believing, person, sign_in};
use crate::harness::eventually;
use nightshift::config::Role;
use nightshift::limits;
use nightshift::server::{ConfiguredTokens, PrincipalSet};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinSet;
use url::Url;

#[tokio::test]
async fn nobody_is_let_in_by_default_and_is_told_what_to_tell() {
    let (desk, forged) = believing(|_| {}).await;
    forged.said().claims = json!({ "email": "ada@example.com", "email_verified": true, "groups": ["everybody"] });
    let (browser, page) = sign_in(&desk).await;
    assert_eq!((page.status, browser.session()), (403, None));
    let words = page.words();
    for part in [
        "your subject at the provider is `00u1` (mail ada@example.com)",
        "`oidc: 00u1`",
        forged.url.as_str().trim_end_matches('/'),
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
}

#[tokio::test]
async fn somebody_is_who_the_configuration_says_by_subject_by_verified_mail_or_by_group() {
    let people = vec![
        person("ada", Role::Approver, "Ada@example.com"),
        person("bob", Role::Viewer, "00u2"),
        person("dan", Role::Admin, "dan@example.com"),
    ];
    let (desk, forged) = believing(|config| config.people = people).await;
    desk.asking().await;
    let told = |claims: Value, info: Value| {
        let mut said = forged.said();
        (said.claims, said.info) = (claims, info);
    };
    let nothing = || json!({});
    for (claims, info, who) in [
        (json!({ "email": "ADA@example.com", "email_verified": true }), nothing(), "ada · approver"),
        // The token says nothing; the provider does when it is asked.
        (nothing(), json!({ "sub": "00u1", "email": "ada@example.com", "email_verified": true }), "ada · approver"),
        (json!({ "sub": "00u2", "groups": ["leads"] }), nothing(), "bob · viewer"),
        (json!({ "sub": "00u3", "groups": ["everybody", "sre"] }), nothing(), "oidc:00u3 · responder"),
        (
            json!({ "sub": "00u4", "email": "eve@example.com", "email_verified": true, "groups": ["sre"] }),
            nothing(),
            "eve@example.com · responder",
        ),
        (json!({ "sub": "00u5", "email": "ada@example.com", "groups": ["sre"] }), nothing(), "oidc:00u5 · responder"),
        (json!({ "sub": "eve@example.com", "groups": ["sre"] }), nothing(), "oidc:eve@example.com · responder"),
        (json!({ "sub": "00u6" }), json!({ "sub": "00u6", "groups": ["sre", "leads"] }), "oidc:00u6 · operator"),
        (json!({ "sub": "00u7", "preferred_username": "gus", "groups": ["sre"] }), nothing(), "user gus · responder"),
    ] {
        told(claims.clone(), info.clone());
        let (_, page) = sign_in(&desk).await;
        assert_eq!((page.status, page.url.path()), (200, "/runs/r1"), "{}", page.words());
        assert!(page.words().contains(who), "{claims} {info}: {}", page.words());
    }
    for (claims, info) in [
        (json!({ "email": "ada@example.com" }), nothing()),
        (json!({ "email": "ada@example.com", "email_verified": false }), nothing()),
        (json!({ "email": "ada@example.com", "email_verified": "true" }), nothing()),
        // A subject that looks like somebody's address.
        (json!({ "sub": "dan@example.com" }), nothing()),
        // What is said of another user, or half of it here and half of it there.
        (nothing(), json!({ "sub": "00u2", "email": "ada@example.com", "email_verified": true })),
        (
            json!({ "email": "ada@example.com", "email_verified": false }),
            json!({ "sub": "00u9", "email_verified": true }),
        ),
        (json!({ "groups": [7, null, "nobody"] }), nothing()),
        (json!({ "groups": { "sre": true } }), nothing()),
    ] {
        // A subject that has not signed in before: `00u1` is ada by now.
        let mut claims = claims;
        claims.as_object_mut().unwrap().entry("sub").or_insert_with(|| json!("00u9"));
        told(claims.clone(), info.clone());
        let (browser, page) = sign_in(&desk).await;
        assert_eq!((page.status, browser.session()), (403, None), "{claims} {info}: {}", page.words());
    }
}

#[tokio::test]
async fn a_token_that_is_wrong_in_one_thing_opens_nothing() {
    let (desk, forged) = believing(|config| config.people = vec![person("ada", Role::Approver, "00u1")]).await;
    assert_eq!(
        sign_in(&desk).await.1.url.path(),
        "/runs/r1",
        "all right, so each of these is refused for its lie alone"
    );
    let now = desk.night.now().as_second();
    for (claims, header, why) in [
        (json!({ "iss": "https://evil.example" }), json!({}), "from another issuer"),
        (json!({ "aud": "other" }), json!({}), "for another application"),
        (json!({ "nonce": "n" }), json!({}), "for another sign-in"),
        (json!({ "exp": now - 3_600 }), json!({}), "expired 3600 s ago by our clock"),
        (json!({ "iat": now + 63 }), json!({}), "issued 63 s after our clock: is the time right here?"),
        (json!({}), json!({ "alg": "none" }), "algorithm is not allowed"),
        (json!({}), json!({ "alg": "HS256" }), "algorithm is not allowed"),
        (json!({}), json!({ "kid": "k1" }), "signed by a key that is not among those that the provider showed"),
    ] {
        {
            let mut said = forged.said();
            said.by_secret = header["alg"] == "HS256";
            (said.claims, said.header) = (claims, header);
        }
        let (browser, page) = sign_in(&desk).await;
        assert_eq!((page.status, browser.session()), (403, None), "{why}");
        assert!(page.words().contains(why), "{why}: {}", page.words());
    }
    {
        let mut said = forged.said();
        (said.claims, said.header, said.by_secret) = (json!({}), json!({ "kid": "k0" }), false);
        said.signs = 1;
    }
    let (browser, page) = sign_in(&desk).await;
    assert_eq!((page.status, browser.session()), (403, None));
    assert!(page.words().contains("signature is wrong"), "{}", page.words());
}

#[tokio::test]
async fn a_code_is_taken_once_and_only_in_the_browser_where_the_sign_in_began() {
    let (desk, forged) = believing(|config| config.people = vec![person("ada", Role::Approver, "00u1")]).await;
    let (mut browser, page) = sign_in(&desk).await;
    let back = page.way.iter().find(|url| url.path() == "/login/callback").unwrap().clone();
    assert_eq!(forged.asked("token"), 1);
    let again = browser.open(&back).await;
    assert_eq!((again.url.path(), forged.asked("token")), ("/runs/r1", 1), "who is in goes on to the page");
    browser.jar.clear();
    let again = browser.open(&back).await;
    assert_eq!(again.status, 400, "the ticket is gone from the browser");
    assert!(again.words().contains("was not started in this browser, has been used"), "{}", again.words());
    // A victim who is led to the attacker's answer does not become the attacker.
    let mut victim = Browser::new();
    assert_eq!((victim.open(&back).await.status, victim.session()), (400, None));
    // Not even a copy of the ticket opens twice.
    let mut first = Browser::new();
    let leaving = first.leave(&desk.at("/login/provider")).await;
    let returning = first.leave(&leaving).await;
    let mut second = Browser::new();
    second.jar = first.jar.clone();
    assert_eq!(first.leave(&returning).await.path(), "/");
    let late = second.open(&returning).await;
    assert_eq!((late.status, second.session()), (400, None));
    assert_eq!(forged.asked("token"), 2, "a code that was used is not even sent");
    // Ten minutes later, the code and the ticket are worth nothing.
    let mut slow = Browser::new();
    let leaving = slow.leave(&desk.at("/login/provider")).await;
    let returning = slow.leave(&leaving).await;
    desk.night.pass(Duration::from_secs(600)).await;
    assert_eq!((slow.open(&returning).await.status, slow.session()), (400, None));
    // A state of somebody's own, and an answer of another provider.
    let mut odd = Browser::new();
    let mut returning = {
        let leaving = odd.leave(&desk.at("/login/provider")).await;
        odd.leave(&leaving).await
    };
    let honest = returning.clone();
    returning.query_pairs_mut().clear().append_pair("code", "code-9").append_pair("state", "x");
    assert_eq!(odd.clone().open(&returning).await.status, 400);
    let mut foreign = honest.clone();
    foreign.query_pairs_mut().append_pair("iss", "https://evil.example");
    let page = odd.open(&foreign).await;
    assert_eq!(page.status, 400);
    assert!(page.words().contains("from another provider"), "{}", page.words());
    assert_eq!(forged.asked("token"), 2);
}

/// The form of the first page that stands under this address, filled in with a reason and sent.
async fn act(desk: &Desk, browser: &mut Browser, action: &str) -> Page {
    let form = browser.open(&desk.at("/")).await.form(action).with("why", "I say so");
    browser.send(&form).await
}

#[tokio::test]
async fn a_new_address_makes_nobody_a_second_person() {
    let (desk, forged) = believing(|config| config.guards.release_persons = Some(2)).await;
    let as_somebody = async |claims: Value| {
        forged.said().claims = claims;
        sign_in(&desk).await.0
    };
    let called = |mail: &str| json!({ "email": mail, "email_verified": true, "groups": ["leads"] });
    let mut before = as_somebody(called("eve@example.com")).await;
    act(&desk, &mut before, "/web/freezes").await;
    act(&desk, &mut before, "/web/unfreeze").await;
    let mut after = as_somebody(called("eve.married@example.com")).await;
    act(&desk, &mut after, "/web/unfreeze").await;
    assert_eq!(desk.night.parts.store.freezes().await.unwrap().len(), 1, "one person, however they are called");
    let mut another = called("eve@example.com");
    another["sub"] = json!("00u2");
    let mut another = as_somebody(another).await;
    act(&desk, &mut another, "/web/unfreeze").await;
    assert!(
        desk.night.parts.store.freezes().await.unwrap().is_empty(),
        "and this is another one, with her old address"
    );
}

#[tokio::test]
async fn strangers_who_come_back_with_nonsense_keep_nobody_out_and_cost_the_provider_little() {
    let (desk, forged) = believing(|config| config.people = vec![person("ada", Role::Approver, "00u1")]).await;
    let begun = async || {
        let mut browser = Browser::new();
        let leaving = browser.leave(&desk.at("/login/provider?to=/runs/r1")).await;
        (browser, leaving)
    };
    let back = |leaving: &Url, name: &str, value: &str| {
        let state = leaving.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let mut back = desk.at("/login/callback");
        back.query_pairs_mut().append_pair(name, value).append_pair("state", &state);
        back
    };
    // A refusal that was made up is no end of a sign-in.
    let (mut ada, leaving) = begun().await;
    let honest = ada.leave(&leaving).await;
    assert_eq!(ada.clone().open(&back(&leaving, "error", "x")).await.status, 403);
    assert_eq!(ada.open(&honest).await.url.path(), "/runs/r1");
    assert_eq!(forged.asked("token"), 1);
    // A code that was made up is sent once.
    let (stranger, leaving) = begun().await;
    for round in 0..20 {
        let status = stranger.clone().open(&back(&leaving, "code", &format!("x{round}"))).await.status;
        assert_eq!(status, if round == 0 { 403 } else { 400 });
    }
    assert_eq!(forged.asked("token"), 2);
    // So many at once that every place is taken, by a provider that thinks about it.
    forged.silent.send_replace(true);
    let mut strangers = JoinSet::new();
    for _ in 0..limits::OIDC_EXCHANGES {
        let (mut stranger, leaving) = begun().await;
        let made_up = back(&leaving, "code", "x");
        strangers.spawn(async move { stranger.open(&made_up).await.status });
    }
    let all_asked = || (forged.asked("token") == 2 + limits::OIDC_EXCHANGES).then_some(());
    eventually("every place is taken", async || all_asked()).await;
    let (mut ada, leaving) = begun().await;
    let honest = ada.leave(&leaving).await;
    let heard = desk.heard();
    let waiting = tokio::spawn(async move { ada.open(&honest).await });
    eventually("ada is at the door", async || (desk.heard() > heard).then_some(())).await;
    forged.silent.send_replace(false);
    assert_eq!(waiting.await.unwrap().url.path(), "/runs/r1");
    assert!(strangers.join_all().await.iter().all(|status| *status == 403));
}

#[tokio::test]
async fn a_provider_that_says_no_is_quoted_in_one_harmless_word() {
    let (desk, _forged) = believing(|_| {}).await;
    let mut browser = Browser::new();
    let leaving = browser.leave(&desk.at("/login/provider?to=//evil.example")).await;
    let state = leaving.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let mut back = desk.at("/login/callback");
    back.query_pairs_mut().append_pair("error", "access_denied<script>alert(1)").append_pair("state", &state);
    let page = browser.open(&back).await;
    assert_eq!(page.status, 403);
    assert!(page.words().contains("did not sign you in: access_deniedscriptalert1"), "{}", page.words());
    assert!(!page.text.contains("<script>alert") && !page.text.contains("evil.example"));
}

#[tokio::test]
async fn new_keys_are_asked_for_when_a_token_names_one_but_not_for_every_forged_token() {
    let (desk, forged) = believing(|config| config.people = vec![person("ada", Role::Approver, "00u1")]).await;
    sign_in(&desk).await;
    forged.said().header = json!({ "kid": "made-up" });
    for _ in 0..20 {
        assert_eq!(sign_in(&desk).await.1.status, 403);
    }
    assert_eq!((forged.asked("keys"), forged.asked("description")), (1, 1), "within the first minute");
    // The provider changes its key.
    {
        let mut said = forged.said();
        (said.header, said.signs, said.published) = (json!({}), 1, vec![0, 1]);
    }
    assert_eq!(sign_in(&desk).await.1.status, 403);
    desk.night.pass(Duration::from_secs(60)).await;
    assert_eq!(sign_in(&desk).await.1.url.path(), "/runs/r1");
    assert_eq!(forged.asked("keys"), 2);
    // What is published no longer counts no longer, an hour later.
    {
        let mut said = forged.said();
        (said.signs, said.published) = (0, vec![1]);
    }
    desk.night.pass(Duration::from_secs(3_600)).await;
    assert_eq!(sign_in(&desk).await.1.status, 403);
}

#[tokio::test]
async fn a_provider_that_is_down_too_talkative_or_somebody_else_is_refused_in_words() {
    let (desk, forged) = believing(|_| {}).await;
    let refused = async |why: &str| {
        let (browser, page) = sign_in(&desk).await;
        assert_eq!((page.status, browser.session()), (502, None));
        assert!(page.words().contains(why), "{why}: {}", page.words());
        desk.night.pass(Duration::from_secs(5)).await;
    };
    forged.said().down = true;
    for _ in 0..5 {
        assert_eq!(sign_in(&desk).await.1.status, 502);
    }
    assert_eq!(forged.asked("description"), 1, "not asked again at once");
    desk.night.pass(Duration::from_secs(5)).await;
    forged.said().down = false;
    forged.said().huge = true;
    refused("more than 1 MiB, which is not read").await;
    forged.said().huge = false;
    forged.said().issuer = "https://evil.example".into();
    refused("the provider's issuer is https://evil.example").await;
}

/// What it says of itself is remembered for an hour; that it has gone since is found before a browser is sent there.
#[tokio::test]
async fn a_provider_that_has_gone_since_the_last_sign_in_is_named_on_our_own_page_with_the_other_ways_in() {
    let (desk, forged) = believing(|config| config.people = vec![person("ada", Role::Approver, "00u1")]).await;
    for _ in 0..20 {
        assert_eq!(sign_in(&desk).await.1.url.path(), "/runs/r1");
    }
    assert_eq!(forged.asked("description"), 1, "no sign-in waits for a look at a provider that has just answered");
    forged.said().down = true;
    desk.night.pass(limits::OIDC_HERE).await;
    let begun = std::time::Instant::now();
    for _ in 0..10 {
        let (browser, page) = sign_in(&desk).await;
        assert_eq!((page.status, page.url.path(), browser.session()), (502, "/login/provider", None), "it is our page");
        for words in [
            "you cannot sign in with your organization now",
            "with 503",
            "sign in with a token",
            "nightshift break-glass",
        ] {
            assert!(page.words().contains(words), "{words}: {}", page.words());
        }
        assert!(page.text.contains("<details open>"), "the form is there without a click: {}", page.text);
    }
    assert_eq!(forged.asked("description"), 2, "one looked for all of them");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // And back again, without a restart.
    forged.said().down = false;
    desk.night.pass(limits::OIDC_RETRY).await;
    assert_eq!(sign_in(&desk).await.1.url.path(), "/runs/r1");
}

#[tokio::test]
async fn a_provider_that_fails_slowly_or_talks_nonsense_is_left_alone_for_a_moment_after_it_did() {
    let (desk, forged) = believing(|config| config.people = vec![person("ada", Role::Approver, "00u1")]).await;
    let tried = async |status: u16| {
        for _ in 0..5 {
            assert_eq!(sign_in(&desk).await.1.status, status);
        }
    };
    (forged.said().takes, forged.said().down) = (limits::OIDC_TIMEOUT, true);
    tried(502).await;
    assert_eq!(forged.asked("description"), 1, "as long as it takes to fail, it is left alone after that");
    desk.night.pass(limits::OIDC_RETRY).await;
    (forged.said().takes, forged.said().down) = (Duration::ZERO, false);
    let issuer = std::mem::replace(&mut forged.said().issuer, "https://evil.example".into());
    tried(502).await;
    assert_eq!(forged.asked("description"), 2);
    desk.night.pass(limits::OIDC_RETRY).await;
    (forged.said().issuer, forged.said().odd) = (issuer, true);
    tried(502).await;
    assert_eq!((forged.asked("description"), forged.asked("keys")), (3, 1));
    desk.night.pass(limits::OIDC_RETRY).await;
    forged.said().odd = false;
    assert_eq!(sign_in(&desk).await.1.url.path(), "/runs/r1");
}

#[tokio::test]
async fn a_silent_provider_keeps_a_few_waiting_and_the_others_are_told_at_once() {
    let (desk, forged) = believing(|config| config.people = vec![person("ada", Role::Approver, "00u1")]).await;
    forged.silent.send_replace(true);
    let mut all = JoinSet::new();
    let more = 24;
    for _ in 0..limits::OIDC_WAITING + more {
        let begin = desk.at("/login/provider?to=/runs/r1");
        all.spawn(async move { Browser::new().open(&begin).await });
    }
    for _ in 0..more {
        let page = all.join_next().await.unwrap().unwrap();
        assert_eq!(page.status, 502, "{}", page.words());
        assert!(page.words().contains("does not answer, and others wait for it already"), "{}", page.words());
    }
    forged.silent.send_replace(false);
    for page in all.join_all().await {
        assert_eq!(page.url.path(), "/runs/r1", "{}", page.words());
    }
    assert_eq!(forged.asked("description"), 1, "one asked for all");
}

#[tokio::test]
async fn somebody_who_is_taken_off_the_list_is_out_at_the_next_click() {
    let (desk, _forged) = believing(|config| config.people = vec![person("ada", Role::Approver, "00u1")]).await;
    let known = |people| PrincipalSet::new(people, ConfiguredTokens::default());
    let run = desk.asking().await;
    let (mut ada, page) = sign_in(&desk).await;
    let form = page.form("/web/approvals/a1").with("answer", "approve");
    desk.app.roster.replace(known(vec![person("ada", Role::Viewer, "00u1")]));
    let refused = ada.send(&form).await;
    assert!(refused.status == 403 && refused.words().contains("`ada` has role viewer"), "{}", refused.words());
    desk.app.roster.replace(known(Vec::new()));
    assert_eq!(ada.send(&form).await.status, 401);
    assert_eq!(ada.open(&desk.at("/")).await.url.path(), "/login");
    assert!(desk.waits(run).await);
}
