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
    for path in ["/", "/incidents/i1", &format!("/runs/{run}"), &format!("/why/{run}")] {
        phone.open(&desk.at(path)).await;
        assert_eq!(phone.beyond().await, 0, "{path} is wider than the phone");
    }
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
