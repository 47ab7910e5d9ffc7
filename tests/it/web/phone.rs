//! A night on a phone, in a real Chromium: sign in, see what is ill, say yes with the keyboard alone.
//!
//! Invariant: no page is wider than the phone, and nothing is stopped by our own policy or called an error.

use super::chromium::Chromium;
use super::desk::{Desk, MINUTE, token};
use nightshift::model::RunState;

#[tokio::test]
async fn on_a_phone_somebody_signs_in_reads_the_incident_and_approves_with_the_keyboard_alone() {
    let desk = Desk::set(|_, _| {}).await;
    let run = desk.asking().await;
    let mut phone = Chromium::phone(390, 844).await;
    phone.open(&desk.at("/")).await;
    assert!(phone.text().await.contains("Sign in"), "{}", phone.text().await);
    phone.tabs_to("e.name === 'token'").await;
    phone.types(&token("ada")).await;
    let before = phone.loads();
    phone.key("Enter").await;
    phone.loaded(before + 1).await;
    let home = phone.text().await;
    assert!(home.contains("Waiting for an answer") && home.contains("gpu-2"), "{home}");
    // Names as long as they may be, without a place to break them.
    let long = "n".repeat(120);
    desk.night.hear("firing", &[("alertname", &"A".repeat(120)), ("node", &long), ("severity", "critical")]).await;
    let pages = [
        "/",
        "/incidents",
        "/incidents?state=resolved&node=gpu-2",
        "/incidents/i1",
        "/incidents/i2",
        "/guards",
        "/why/gpu-2",
        "/login",
        "/nowhere",
    ];
    let more = [format!("/runs/{run}"), format!("/why/{run}"), format!("/why/{long}")];
    for path in pages.iter().copied().chain(more.iter().map(String::as_str)) {
        phone.open(&desk.at(path)).await;
        assert_eq!(phone.beyond().await, 0, "{path} is wider than the phone");
    }
    // What the browser says of a page that is not there.
    phone.errors.retain(|error| !error.contains("404"));
    phone.open(&desk.at("/incidents/i1")).await;
    assert!(phone.text().await.contains("GpuXid"), "{}", phone.text().await);
    phone.open(&desk.at(&format!("/runs/{run}"))).await;
    phone.tabs_to("e.name === 'answer' && e.value === 'approve'").await;
    let before = phone.loads();
    phone.key("Enter").await;
    phone.loaded(before + 1).await;
    let after = phone.text().await;
    assert!(after.contains("a1 approved by ada"), "{after}");
    assert_eq!(desk.night.until_rest(run, MINUTE).await.state, RunState::Done);
    assert_eq!(desk.night.effects().get("patch nodes gpu-2"), Some(&1));
    assert_eq!(phone.errors, Vec::<String>::new());
}
