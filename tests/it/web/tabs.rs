//! What a person meets at a sign-in: several tabs, an error that is explained, another user at the same screen.
//!
//! Invariant: the page that a user wanted to go to is never lost, and no error is without its cause.

use super::browser::Browser;
use super::forged::{believing, person, sign_in};
use nightshift::config::Role;
use nightshift::limits;
use serde_json::{Value, json};
use url::Url;

/// The state that an address carries.
fn state_of(url: &Url) -> String {
    url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned()
}

fn ann() -> Vec<nightshift::config::PersonConfig> {
    vec![person("ann", Role::Operator, "00u1")]
}

#[tokio::test]
async fn two_tabs_of_one_browser_both_end_where_they_wanted_to_go() {
    let (desk, forged) = believing(|config| config.people = ann()).await;
    for first_ends_first in [true, false] {
        let mut browser = Browser::new();
        let one = browser.leave(&desk.at("/login/provider?to=/runs/r1")).await;
        let two = browser.leave(&desk.at("/login/provider?to=/incidents/i1")).await;
        let (one, two) = (browser.leave(&one).await, browser.leave(&two).await);
        let (earlier, later) = if first_ends_first { (one, two) } else { (two, one) };
        let paths = if first_ends_first { ["/runs/r1", "/incidents/i1"] } else { ["/incidents/i1", "/runs/r1"] };
        assert_eq!(browser.open(&earlier).await.url.path(), paths[0]);
        assert_eq!(browser.open(&later).await.url.path(), paths[1]);
        let asked = forged.asked("token");
        // Back, after all that.
        let again = browser.open(&earlier).await;
        assert_eq!((again.url.path(), forged.asked("token")), (paths[0], asked));
        assert!(!browser.jar.keys().any(|(_, name, _)| name.contains("sign-in")), "{:?}", browser.jar.keys());
    }
}

#[tokio::test]
async fn tabs_of_one_browser_are_bounded_and_the_newest_ones_work() {
    let (desk, _forged) = believing(|config| config.people = ann()).await;
    let mut browser = Browser::new();
    let mut last = Vec::new();
    for _ in 0..3 * limits::OIDC_TABS {
        let leaving = browser.leave(&desk.at("/login/provider?to=/runs/r1")).await;
        last.push(browser.leave(&leaving).await);
        desk.night.pass(std::time::Duration::from_secs(1)).await;
    }
    let begun = browser.jar.keys().filter(|(_, name, _)| name.contains("sign-in")).count();
    assert_eq!(begun, limits::OIDC_TABS);
    assert_eq!(browser.open(last.last().unwrap()).await.url.path(), "/runs/r1");
    // One that made room, in a browser that is not signed in: the page that was wanted is in the link.
    let mut fresh = Browser::new();
    let page = fresh.open(&last[0]).await;
    assert_eq!((page.status, fresh.session()), (400, None));
    assert!(page.text.contains("/login/provider?to=/runs/r1\""), "{}", page.text);
}

#[tokio::test]
async fn an_error_of_the_provider_is_quoted_with_what_to_look_at() {
    let (desk, forged) = believing(|config| config.people = ann()).await;
    let back = async |pairs: &[(&str, &str)]| {
        let mut browser = Browser::new();
        let leaving = browser.leave(&desk.at("/login/provider?to=/runs/r1")).await;
        let mut back: Url = desk.at("/login/callback");
        back.query_pairs_mut().append_pair("state", &state_of(&leaving)).extend_pairs(pairs);
        browser.open(&back).await
    };
    let page =
        back(&[("error", "invalid_scope"), ("error_description", "Invalid scopes: openid email\u{7}\n groups")]).await;
    let words = page.words();
    for part in [
        "did not sign you in: invalid_scope (Invalid scopes: openid email",
        "`server.oidc.scopes` asks for `openid email`: does the provider allow all of them",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(page.text.contains("/login/provider?to=/runs/r1\""), "the page that was wanted: {}", page.text);
    let long = "x".repeat(5_000);
    let page = back(&[("error", "server_error"), ("error_description", &format!("<b>{long}"))]).await;
    assert!(page.text.len() < 4_000 && !page.text.contains("<b>x"), "{}", page.text);
    let page = back(&[("error", "unauthorized_client")]).await;
    assert!(page.words().contains("is the authorization code flow (standard flow) on"), "{}", page.words());
    // A secret that is not the provider's any more.
    forged.said().refuses = Some(("unauthorized_client", "Invalid client or Invalid client credentials"));
    let page = sign_in(&desk).await.1;
    assert_eq!(page.status, 502);
    for part in ["unauthorized_client (Invalid client or Invalid client credentials)", "`server.oidc.client_secret`"] {
        assert!(page.words().contains(part), "{part}: {}", page.words());
    }
    assert!(page.text.contains("/login/provider?to=/runs/r1\""));
    forged.said().refuses = None;
    // It fails between the two questions.
    let mut browser = Browser::new();
    let leaving = browser.leave(&desk.at("/login/provider?to=/runs/r1")).await;
    let returning = browser.leave(&leaving).await;
    forged.said().down = true;
    let page = browser.open(&returning).await;
    assert_eq!(page.status, 502, "{}", page.words());
    assert!(page.words().contains("sign in with a token (below)"), "{}", page.words());
}

#[tokio::test]
async fn a_refusal_says_what_stands_in_the_way() {
    let people = vec![
        person("ann", Role::Operator, "ann@example.com"),
        person("uma", Role::Operator, "uma@example.com"),
        person("gus", Role::Viewer, "gus"),
    ];
    let (desk, forged) = believing(|config| config.people = people).await;
    let refused = async |claims: Value| {
        forged.said().claims = claims;
        let (browser, page) = sign_in(&desk).await;
        assert_eq!((page.status, browser.session()), (403, None), "{}", page.words());
        page.words()
    };
    for (claims, parts) in [
        (
            json!({ "email": "ann@example.com", "email_verified": false }),
            vec![
                "(mail ann@example.com, not verified)",
                "so the entry `ann` does not count",
                "the claim `groups` is absent",
                "`oidc: 00u1`",
            ],
        ),
        (json!({ "groups": ["/sre", "SRE"] }), vec!["2 groups came, none of them under `server.oidc.roles`"]),
        (json!({ "groups": [] }), vec!["the claim `groups` is empty"]),
        (json!({ "preferred_username": "gus" }), vec!["the entry `gus` names your user name `gus`"]),
        (
            json!({ "sub": "uma@example.com" }),
            vec!["your subject has an `@`", "Ask an administrator to have your mail verified"],
        ),
    ] {
        let words = refused(claims.clone()).await;
        for part in parts {
            assert!(words.contains(part), "{claims}: {part}: {words}");
        }
        assert!(words.contains("Sign in as another user"), "{words}");
    }
    // The one that means something is the last of many.
    let mut groups: Vec<String> = (0..1_500).map(|no| format!("g{no}")).collect();
    groups.push("sre".to_owned());
    forged.said().claims = json!({ "groups": groups });
    let page = sign_in(&desk).await.1;
    assert!(page.words().contains("oidc:00u1 · responder"), "{}", page.words());
}

#[tokio::test]
async fn after_a_sign_out_the_next_one_at_the_screen_can_be_another_user() {
    let (desk, forged) = believing(|config| config.people = ann()).await;
    let (mut browser, _) = sign_in(&desk).await;
    let home = browser.open(&desk.at("/")).await;
    let page = browser.send(&home.form("/logout")).await;
    assert_eq!((page.url.path(), browser.session()), ("/login", None));
    assert!(page.words().contains("Your session at the identity provider continues"), "{}", page.words());
    assert!(page.text.contains("/login/provider?to=/&amp;other=1"), "{}", page.text);
    let ended = browser.leave(&desk.at("/login/provider/end")).await;
    assert_eq!(ended, forged.url.join("/end?client_id=ns").unwrap());
    let leaving = browser.leave(&desk.at("/login/provider?to=/&other=1")).await;
    assert!(leaving.query_pairs().any(|(name, value)| name == "prompt" && value == "login"), "{leaving}");
    let plain = browser.leave(&desk.at("/login/provider?to=/")).await;
    assert!(!plain.query_pairs().any(|(name, _)| name == "prompt"), "{plain}");
}

#[tokio::test]
async fn a_form_that_was_sent_too_late_leads_back_to_its_page() {
    let (desk, _forged) = believing(|config| config.people = ann()).await;
    desk.asking().await;
    let (mut browser, page) = sign_in(&desk).await;
    let form = page.form("/web/approvals/a1").with("answer", "approve").with("why", "seen");
    desk.night.pass(limits::WEB_IDLE).await;
    let origin = desk.url.origin().ascii_serialization();
    for (referrer, to) in [
        (desk.at("/runs/r1").to_string(), "/runs/r1"),
        ("https://evil.example//evil".to_owned(), "/"),
        ("nonsense".to_owned(), "/"),
    ] {
        let headers = [("origin", origin.as_str()), ("sec-fetch-site", "same-origin"), ("referer", referrer.as_str())];
        let page = browser.send_from(&form, &headers).await;
        assert_eq!(page.status, 401, "{}", page.words());
        assert!(page.text.contains(&format!("/login/provider?to={to}\"")), "{referrer}: {}", page.text);
    }
    assert!(desk.night.effects().is_empty(), "nothing was done");
}
