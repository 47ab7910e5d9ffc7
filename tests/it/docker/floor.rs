//! The serving floor on one machine: which containers of a model serve is what a real Docker engine says of their health.

use super::{Engine, eventually, starts};
use crate::night::Night;
use nightshift::model::{Mode, ReasonCode, RunState};
use serde_json::json;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const RESTART: &str = r#"//! Restart a container.
//!
//! params:
//!   container: String
//! scope: pod

docker::restart(container);
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_healthy_container_of_a_model_stays() {
    let Some(engine) = Engine::start() else { return };
    engine.import();
    let tar = engine.dir.path().join("image.tar").display().to_string();
    let check = r#"HEALTHCHECK --interval=200ms --retries=1 CMD ["/serve", "well"]"#;
    engine.docker(&["import", "--change", check, &tar, "model-server:checked"]);
    let port = engine.run_image("model-server:checked", "vllm-1", &["nightshift.dev/model=mistral"]);
    let docker = engine.client();
    let healthy = async |name: &str| {
        eventually("a healthy container", async || {
            docker.container(name).await.ok().filter(|container| container.health == "healthy").map(drop)
        })
        .await;
    };
    healthy("vllm-1").await;
    let mut night = Night::fall("rules: []", &[("restart", RESTART)]).await;
    night.parts.world.docker = Some(engine.client());
    night.configure(|_| {});

    let run = night.start("restart", Mode::Auto, json!({ "container": "vllm-1" })).await;
    night.settle().await;
    let RunState::Held { reason } = night.run(run).await.state else { panic!("{:?}", night.run(run).await.state) };
    assert_eq!(reason.code, ReasonCode::ServingFloor);
    let words = "model mistral has 1 ready replica; restarting it leaves 0; the floor is 1 (guards.serving_floor)";
    assert_eq!(reason.text, words);
    assert_eq!(starts(port).await, 1);

    // Another one serves: now this one may start anew.
    engine.run_image("model-server:checked", "vllm-2", &["nightshift.dev/model=mistral"]);
    healthy("vllm-2").await;
    assert_eq!(night.until_rest(run, MINUTE).await.state, RunState::Done);
    assert_eq!(starts(port).await, 2);
}
