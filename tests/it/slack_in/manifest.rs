//! The manifests ask for what the program uses, no more and no less.
//!
//! Invariant: a right nobody needs, and a call without its right, both fail here.

use regex::Regex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// The right that a method needs; none where the token itself is enough.
const METHODS: &[(&str, &[&str])] = &[
    ("apps.connections.open", &[]), // an app token with connections:write, which no manifest gives
    ("auth.test", &[]),
    ("chat.postMessage", &["chat:write"]),
    ("chat.update", &["chat:write"]),
    ("conversations.history", &["channels:history", "groups:history"]),
    ("conversations.replies", &["channels:history", "groups:history"]),
    ("views.open", &[]),
    ("views.publish", &[]),
];

fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn manifest(name: &str) -> Value {
    let text = std::fs::read_to_string(root("integrations/slack").join(name)).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

fn texts(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_right_is_used_and_every_method_has_its_right() {
    let called = Regex::new(r#""((?:apps|auth|chat|conversations|users|views)\.[a-zA-Z.]+)""#).unwrap();
    let mut methods = BTreeSet::new();
    for file in std::fs::read_dir(root("src/notifiers/slack")).unwrap().map(|file| file.unwrap().path()) {
        let text = std::fs::read_to_string(&file).unwrap();
        methods.extend(called.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    let mouth = std::fs::read_to_string(root("src/notifiers/slack.rs")).unwrap();
    methods.extend(called.captures_iter(&mouth).map(|found| found[1].to_owned()));
    let known: BTreeSet<String> = METHODS.iter().map(|(method, _)| (*method).to_owned()).collect();
    assert_eq!(methods, known, "this table says what each method needs");
    let mut needed: BTreeSet<String> =
        METHODS.iter().flat_map(|(_, rights)| *rights).map(|right| (*right).to_owned()).collect();
    needed.insert("commands".to_owned()); // for the slash command itself
    for name in ["manifest.yaml", "manifest-socket-mode.yaml"] {
        assert_eq!(texts(&manifest(name)["oauth_config"]["scopes"]["bot"]), needed, "{name}");
    }
}

#[test]
fn both_manifests_are_the_same_app_but_for_how_slack_reaches_it() {
    let (mut http, mut socket) = (manifest("manifest.yaml"), manifest("manifest-socket-mode.yaml"));
    let routes: Vec<String> = [
        "/features/slash_commands/0/url",
        "/settings/event_subscriptions/request_url",
        "/settings/interactivity/request_url",
    ]
    .iter()
    .map(|place| http.pointer(place).and_then(Value::as_str).unwrap().replace("https://nightshift.example.com", ""))
    .collect();
    assert_eq!(routes, ["/slack/command", "/slack/events", "/slack/interact"]);
    let doors = std::fs::read_to_string(root("src/server/slack/http.rs")).unwrap();
    for route in &routes {
        assert!(doors.contains(&format!(".route(\"{route}\"")), "{route} leads nowhere");
    }
    for manifest in [&mut http, &mut socket] {
        manifest["features"]["slash_commands"][0].as_object_mut().unwrap().remove("url");
        for part in ["event_subscriptions", "interactivity"] {
            manifest["settings"][part].as_object_mut().unwrap().remove("request_url");
        }
    }
    assert_eq!(http["settings"]["socket_mode_enabled"].take(), false);
    assert_eq!(socket["settings"]["socket_mode_enabled"].take(), true);
    assert_eq!(http, socket);
    let chars = |place: &str| http.pointer(place).unwrap().as_str().unwrap().chars().count();
    assert!(chars("/display_information/name") <= 35 && chars("/display_information/description") <= 140);
    assert!(chars("/features/bot_user/display_name") <= 80);
    assert_eq!(http["settings"]["event_subscriptions"]["bot_events"], serde_json::json!(["app_home_opened"]));
    assert_eq!(http["features"]["app_home"]["home_tab_enabled"], true);
}

/// Every command of the brief is one that can be typed, and `help` lists it.
#[tokio::test]
async fn every_command_is_known_and_listed() {
    let chat = super::rig::Chat::begin().await;
    let help = chat.types("U0VIC", "help").await;
    for word in [
        "status",
        "incidents",
        "show",
        "why",
        "run",
        "plan",
        "approve",
        "deny",
        "ack",
        "assign",
        "silence",
        "freeze",
        "unfreeze",
        "help",
        "guards",
    ] {
        assert!(help.lines().any(|line| line.split_whitespace().next() == Some(word)), "{word}: {help}");
        let said = chat.commands("U0ADA", &format!("{word} i1 x")).await.to_string();
        assert!(!said.contains("is not a command"), "{word}: {said}");
    }
    assert!(chat.types("U0OLI", "plan cordon node=gpu-3").await.contains("cordon"));
}
