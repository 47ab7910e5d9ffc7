//! Forms: what a button or a command leaves open is asked for, and the answer counts once, for the one who was asked.
//!
//! Invariant: what Slack is given to keep opens nothing; what is wrong is said in place.

use super::rig::{Chat, MINUTE};
use nightshift::config::Role;
use nightshift::model::RunState;
use serde_json::{Value, json};

const OPEN: &str = "views.open";

/// The form that was opened last, once there are so many.
async fn form(chat: &Chat, count: usize) -> Value {
    chat.slack.called(OPEN, count).await[count - 1]["view"].clone()
}

/// What Slack sends when the form is sent with these answers.
fn sent(user: &str, view: &Value, answers: &[(&str, &str)]) -> Value {
    let blocks = view["blocks"].as_array().unwrap().iter().filter(|block| block["type"] == "input");
    let values: serde_json::Map<String, Value> = blocks
        .map(|block| {
            let id = block["block_id"].as_str().unwrap();
            let answer = answers.iter().find(|(field, _)| *field == id).map(|(_, answer)| *answer);
            let element = match block["element"]["type"].as_str().unwrap() {
                "static_select" => json!({ "selected_option": answer.map(|answer| json!({ "value": answer })) }),
                _ => json!({ "value": answer }),
            };
            (id.to_owned(), json!({ "value": element }))
        })
        .collect();
    json!({
        "type": "view_submission", "user": { "id": user }, "team": { "id": "T0" }, "api_app_id": "A0",
        "trigger_id": "another",
        "view": { "private_metadata": view["private_metadata"], "state": { "values": values } },
    })
}

/// The words that took the place of a form.
fn words(answer: &Value) -> String {
    assert_eq!(answer["response_action"], "update", "{answer}");
    answer["view"]["blocks"][0]["text"]["text"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn no_is_asked_for_its_reason_and_counts_once_for_who_was_asked() {
    let chat = Chat::begin().await;
    let (run, value) = chat.asking().await;
    chat.presses("U0VIC", "deny", &value).await;
    assert!(chat.slack.answers(1).await[0].contains("`vic` has role viewer"), "who may not is not asked for reasons");
    chat.presses("U0ADA", "deny", &value).await;
    let opened = chat.slack.called(OPEN, 1).await.remove(0);
    assert!(opened["trigger_id"].as_str().unwrap().starts_with("trigger-"), "{opened}");
    let view = &opened["view"];
    let kept = view["private_metadata"].as_str().unwrap();
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    assert!(kept.len() == 22 && kept.chars().all(letter), "{kept}: only a random id leaves us");
    assert_eq!(chat.night.run(run).await.state.name(), "asking");
    let form = sent("U0ADA", view, &[("why", "the <!channel> fan is being changed")]);
    for (user, what) in [("U0BOB", "another user's"), ("U0EVE", "a stranger's")] {
        let mut stolen = form.clone();
        stolen["user"]["id"] = json!(user);
        assert!(words(&chat.interacts(&stolen).await).contains("has expired"), "{what}");
    }
    let mut forged = form.clone();
    forged["view"]["private_metadata"] = json!("a1");
    assert!(words(&chat.interacts(&forged).await).contains("has expired"));
    assert_eq!(chat.interacts(&form).await, json!({ "response_action": "clear" }));
    assert_eq!(chat.slack.answers(2).await[1], "a1 is denied by ada");
    assert!(words(&chat.interacts(&form).await).contains("already sent"), "it counts once");
    let state = chat.night.until_rest(run, MINUTE).await.state;
    assert!(matches!(state, RunState::Denied { .. }), "{state:?}");
    let entries = chat.night.entries().await;
    let decided = entries.iter().find(|entry| entry.kind.name() == "approval_decided").unwrap();
    let decided = json!(decided);
    assert!(decided.to_string().contains("the <!channel> fan is being changed"), "the ledger has it as it was said");
    assert!(chat.night.effects().is_empty());
}

#[tokio::test]
async fn a_form_over_the_socket_is_answered_in_its_acknowledgement() {
    let mut chat = Chat::begin().await;
    chat.connect();
    let mut line = chat.line().await;
    let (run, value) = chat.asking().await;
    line.deliver("e1", "interactive", chat.press("U0ADA", "deny", &value)).await;
    let view = form(&chat, 1).await;
    let ack = line.deliver("e2", "interactive", sent("U0ADA", &view, &[])).await;
    assert_eq!(ack["payload"], json!({ "response_action": "clear" }), "a reason may be left out");
    let again = line.deliver("e2", "interactive", sent("U0ADA", &view, &[])).await;
    assert_eq!(again, json!({ "envelope_id": "e2" }), "delivered again");
    let again = line.deliver("e3", "interactive", sent("U0ADA", &view, &[])).await;
    assert!(words(&again["payload"]).contains("already sent"));
    assert_eq!(chat.slack.answers(1).await, ["a1 is denied by ada"]);
    assert!(matches!(chat.night.until_rest(run, MINUTE).await.state, RunState::Denied { .. }));
}

#[tokio::test]
async fn what_is_wrong_with_a_silence_is_said_at_its_field_and_the_form_stays() {
    let chat = Chat::begin().await;
    chat.asking().await;
    assert_eq!(chat.commands("U0ADA", "silence").await, Value::Null, "a form opens, and nothing is said");
    let view = form(&chat, 1).await;
    assert_eq!(view["blocks"][0]["element"]["options"][0]["value"], "i1", "{view}");
    for (answers, field, words) in [
        (vec![("incident", "i1"), ("lasts", "soon"), ("why", "x")], "lasts", "30m or 2h"),
        (vec![("incident", "i1"), ("lasts", "2h")], "why", "a reason is missing"),
        (vec![("incident", "i1"), ("lasts", "900h"), ("why", "x")], "lasts", "a silence lasts from"),
    ] {
        let answer = chat.interacts(&sent("U0ADA", &view, &answers)).await;
        assert_eq!(answer["response_action"], "errors", "{answer}");
        assert!(answer["errors"][field].as_str().is_some_and(|text| text.contains(words)), "{answer}");
    }
    let good = sent("U0ADA", &view, &[("incident", "i1"), ("lasts", "2h"), ("why", "new fan")]);
    let said = words(&chat.interacts(&good).await);
    assert!(said.contains("has no Alertmanager API"), "{said}: what a form cannot mend takes its place");
    // The button of the message knows which incident it is.
    chat.presses("U0ADA", "silence", "i1").await;
    let view = form(&chat, 2).await;
    assert!(view["blocks"][0]["text"]["text"].as_str().unwrap().starts_with("i1: "), "{view}");
}

#[tokio::test]
async fn a_run_is_asked_for_its_parameters_and_a_wrong_one_is_said_at_its_field() {
    let chat = Chat::begin().await;
    chat.commands("U0OLI", "run").await;
    let pick = form(&chat, 1).await;
    let answer = chat.interacts(&sent("U0OLI", &pick, &[("runbook", "cordon")])).await;
    assert_eq!(answer["response_action"], "update", "{answer}");
    let view = answer["view"].clone();
    assert_eq!(view["blocks"][1]["block_id"], "node", "{view}");
    let answer = chat.interacts(&sent("U0OLI", &view, &[])).await;
    assert!(answer["errors"]["node"].as_str().is_some_and(|text| text.contains("node")), "{answer}");
    let answer = chat.interacts(&sent("U0OLI", &view, &[("node", "gpu-3")])).await;
    assert_eq!(answer["response_action"], "clear", "{answer}");
    assert!(chat.slack.answers(1).await[0].contains("r1 started"));
    assert_eq!(chat.night.run(nightshift::model::RunId(1)).await.input.params["node"], "gpu-3");
    // Everything given: nothing is asked. Something left out: the rest is filled in.
    assert!(chat.types("U0OLI", "run cordon node=gpu-2").await.contains("r2 started"));
    assert_eq!(chat.commands("U0OLI", "run cordon").await, Value::Null);
    assert!(chat.types("U0ADA", "run cordon").await.contains("`ada` has role approver"));
    assert!(chat.types("U0OLI", "run cordn").await.contains("did you mean `cordon`?"));
    assert_eq!(chat.slack.calls(OPEN).len(), 2);
}

#[tokio::test]
async fn a_form_that_is_too_old_or_whose_question_is_over_says_so_in_place() {
    let chat = Chat::begin().await;
    let (run, value) = chat.asking().await;
    chat.commands("U0ADA", "silence i1").await;
    let old = form(&chat, 1).await;
    chat.presses("U0ADA", "deny", &value).await;
    let view = form(&chat, 2).await;
    chat.presses("U0BOB", "approve", &value).await;
    chat.slack.answers(1).await;
    let said = words(&chat.interacts(&sent("U0ADA", &view, &[])).await);
    assert!(said.contains("approved already (by bob)"), "{said}");
    assert_eq!(chat.night.until_rest(run, MINUTE).await.state, RunState::Done);
    // The buttons of a run that is over: nobody is asked for reasons any more.
    for (no, action) in ["approve", "deny"].into_iter().enumerate() {
        chat.presses("U0ADA", action, &value).await;
        assert!(chat.slack.answers(2 + no).await[1 + no].contains("approved already (by bob)"));
    }
    assert_eq!(chat.slack.calls(OPEN).len(), 2);
    assert_eq!(chat.night.effects()["patch nodes gpu-2"], 1);
    chat.night.pass(31 * MINUTE).await;
    let old = sent("U0ADA", &old, &[("lasts", "2h"), ("why", "new fan")]);
    assert!(words(&chat.interacts(&old).await).contains("older than half an hour"));
}

#[tokio::test]
async fn whose_role_was_taken_away_in_between_is_refused_in_place_and_the_ledger_has_it() {
    let mut chat = Chat::begin().await;
    let (run, value) = chat.asking().await;
    chat.presses("U0ADA", "deny", &value).await;
    let view = form(&chat, 1).await;
    chat.configure(|config| config.people[0].role = Role::Viewer);
    let said = words(&chat.interacts(&sent("U0ADA", &view, &[("why", "no")])).await);
    assert!(said.contains("`ada` has role viewer"), "{said}");
    chat.presses("U0ADA", "approve", &value).await;
    assert!(chat.slack.answers(1).await[0].contains("`ada` has role viewer"));
    chat.configure(|config| drop(config.people.remove(0)));
    chat.presses("U0ADA", "approve", &value).await;
    assert!(chat.slack.answers(2).await[1].contains("no entry of `people`"));
    chat.night.settle().await;
    assert!(matches!(chat.night.run(run).await.state, RunState::Asking { .. }));
    assert!(chat.night.effects().is_empty());
    let refusals = chat.refusals().await;
    for words in ["approvals/a1, by Slack: `ada` has role viewer", "no entry of `people` has the Slack user ID U0ADA"] {
        assert!(refusals.iter().any(|refusal| refusal.contains(words)), "{words}: {refusals:?}");
    }
    // Who may not say no is not asked why, and the ledger has it all the same.
    let before = refusals.len();
    chat.presses("U0VIC", "deny", &value).await;
    chat.slack.answers(3).await;
    assert_eq!(chat.refusals().await.len(), before + 1);
    // Nobody fills the ledger with refusals.
    for _ in 0..200 {
        chat.types("U0EVE", "status").await;
    }
    assert_eq!(chat.refusals().await.len(), before + 2);
}

#[tokio::test]
async fn a_press_that_comes_with_the_largest_message_of_the_strangest_letters_is_heard() {
    let chat = Chat::begin().await;
    let (_, value) = chat.asking().await;
    let mut press = chat.press("U0ADA", "approve", &value);
    press["message"] = json!({ "text": "グ".repeat(1_000), "blocks": [{ "text": "グ".repeat(13_000) }] });
    chat.interacts(&press).await;
    assert_eq!(chat.slack.answers(1).await, ["a1 is approved by ada"]);
}

#[tokio::test]
async fn when_slack_opens_no_form_the_person_is_told_and_may_press_again() {
    let chat = Chat::begin().await;
    let (_, value) = chat.asking().await;
    chat.slack.then(OPEN, 200, None, json!({ "ok": false, "error": "expired_trigger_id" }));
    chat.presses("U0ADA", "deny", &value).await;
    assert!(chat.slack.answers(1).await[0].contains("press the button again"));
    chat.presses("U0ADA", "deny", &value).await;
    chat.slack.called(OPEN, 2).await;
    for (action, carried) in [("launch", "x"), ("silence", "i9"), ("freeze", "i9")] {
        chat.presses("U0ADA", action, carried).await;
    }
    let answers = chat.slack.answers(3).await;
    assert!(answers.iter().any(|answer| answer.contains("of another version")), "{answers:?}");
}

#[tokio::test]
async fn the_freeze_button_of_an_incident_asks_what_and_why_and_freezes_that() {
    let chat = Chat::begin().await;
    let (run, value) = chat.asking().await;
    chat.presses("U0VIC", "freeze", "i1").await;
    assert!(chat.slack.answers(1).await[0].contains("`vic` has role viewer"), "who may not is not asked");
    assert!(chat.refusals().await.iter().any(|refusal| refusal.contains("freezes")), "{:?}", chat.refusals().await);
    chat.presses("U0ADA", "freeze", "i1").await;
    let view = form(&chat, 1).await;
    let words = view["blocks"][0]["text"]["text"].as_str().unwrap();
    assert!(words.starts_with("i1: "), "{words}");
    let select = view["blocks"].as_array().unwrap().iter().find(|block| block["block_id"] == "scope").unwrap();
    let scopes: Vec<&str> =
        select["element"]["options"].as_array().unwrap().iter().map(|one| one["value"].as_str().unwrap()).collect();
    assert_eq!(scopes, ["rule:r", "cluster:sim", "all"], "from the narrowest on");
    assert_eq!(select["element"]["initial_option"]["value"], "rule:r");
    let answer = chat.interacts(&sent("U0ADA", &view, &[("scope", "rule:r")])).await;
    assert_eq!(answer["errors"]["why"], "a reason is missing", "{answer}");
    let answer = chat.interacts(&sent("U0ADA", &view, &[("why", "it drains the wrong ones")])).await;
    assert_eq!(answer["errors"]["scope"], "choose a scope to freeze", "{answer}");
    let good = sent("U0ADA", &view, &[("scope", "rule:r"), ("why", "it drains the wrong ones")]);
    assert_eq!(chat.interacts(&good).await, json!({ "response_action": "clear" }));
    assert!(chat.slack.answers(2).await[1].starts_with("frozen: rule:r."));
    let freezes = chat.night.parts.store.freezes().await.unwrap();
    let frozen: Vec<(&str, &str)> = freezes.iter().map(|freeze| (freeze.scope.as_str(), freeze.by.as_str())).collect();
    assert_eq!(frozen, [("rule:r", "ada")]);
    // Frozen is frozen: a yes to its question begins nothing.
    chat.presses("U0BOB", "approve", &value).await;
    chat.slack.answers(3).await;
    chat.night.until_rest(run, MINUTE).await;
    assert!(chat.night.effects().is_empty());
}
