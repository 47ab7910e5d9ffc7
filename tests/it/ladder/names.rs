//! Whatever a rule is called, its record can be read and it can be moved.
//!
//! Invariant: the name is one segment of the path, as the command line and a chat send it.

use crate::harness::Site;
use crate::roles::chat;
use crate::tokens::{beside, nightshift};

const NAME: &str = "gpu/xid 79: 100%?#1";

fn rules(name: &str) -> String {
    format!("rules:\n  - name: '{name}'\n    when: ['alertname=\"GpuXid\"']\n    run: remedy\n    mode: approve\n")
}

#[tokio::test]
async fn a_rule_with_a_slash_in_its_name_has_a_record_and_can_be_moved() {
    let site = Site::new("", &rules(NAME), &[("remedy", super::CORDON)]);
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    let (site, engine) = beside(move || {
        let (code, out, err) = nightshift(&site, &["scorecard", NAME]);
        assert!(code == 0 && out.contains(NAME) && out.contains("runs remedy, is in approve"), "{code} {out} {err}");
        let (code, out, err) = nightshift(&site, &["demote", NAME, "--why", "too early"]);
        assert!(code == 0 && out.starts_with(&format!("rule {NAME} is in suggest")), "{code} {out} {err}");
        let (code, _, err) = nightshift(&site, &["promote", NAME, "--yes", "--why", "ready"]);
        assert!(code == 1 && err.contains("has not shown enough for approve"), "{code} {err}");
        assert!(err.contains(&format!("`nightshift scorecard {NAME}` shows")), "{err}");
        let (code, _, err) = nightshift(&site, &["scorecard", "gpu"]);
        assert!(code == 5 && err.contains("there is no rule `gpu`"), "half a name is no rule: {code} {err}");
        (site, engine)
    })
    .await;
    drop((engine, site));
}

#[tokio::test]
async fn in_a_chat_too_a_slash_is_part_of_the_name() {
    let chat = chat(Vec::new()).await;
    std::fs::write(chat.night.path().join("rules/test.yaml"), rules("gpu/xid").replace("run: remedy", "run: cordon"))
        .unwrap();
    nightshift::engine::reload(&chat.night.parts).await;
    let said = chat.types("U0ADA", "scorecard gpu/xid").await;
    assert!(said.starts_with("rule gpu/xid is in approve"), "{said}");
    let said = chat.types("U0ADA", "why rule:gpu/xid").await;
    assert!(said.contains("gpu/xid") && said.contains("approve"), "{said}");
}
