//! `cache::warm`: by the agent, by a Job, and how one of the two is chosen.
//!
//! Invariant: one step makes one Job at most, counted at the fleet, and nothing that is another's is touched.

use super::kube_cases::{cache_job, call};
use super::*;
use nightshift::world::CacheJob;
use serde_json::json;

fn warm(more: &[(&'static str, Value)]) -> ActionCall {
    let mut args = vec![("models", json!(["/models/llama", "/models/mistral"])), ("node", json!("gpu-1"))];
    args.extend(more.iter().cloned());
    call("cache::warm", &args)
}

fn by(way: &'static str) -> ActionCall {
    warm(&[("via", json!(way))])
}

/// The one Job that was made, and its pod.
fn made(stage: &Stage) -> (Value, Value) {
    let made: Vec<_> = stage.fleet.changes().into_iter().filter(|change| change.resource == "jobs").collect();
    let [one] = made.as_slice() else { panic!("one Job: {made:?}") };
    let job = stage.fleet.job(&one.namespace, &one.name).unwrap();
    let pods = stage.fleet.pods_on("gpu-1");
    let (namespace, name) = pods.iter().find(|(_, name)| name.starts_with(&one.name)).unwrap();
    (job, stage.fleet.pod(namespace, name).unwrap())
}

#[tokio::test]
async fn where_an_agent_serves_the_node_no_job_is_made() {
    let stage = Stage::new().await;
    stage.agent("gpu-1", |_| Outcome::Ok(json!({ "changed": true, "resident": 1.0 })));
    for call in [warm(&[]), by("agent")] {
        assert_eq!(ok(stage.run(call).await), json!({ "changed": true, "resident": 1.0 }));
    }
    assert_eq!(stage.changes(), [""; 0]);
}

#[tokio::test]
async fn without_an_agent_a_job_on_that_very_node_reads_the_models_and_says_what_came_of_it() {
    let stage = Stage::new().await;
    let mut step = stage.begin(warm(&[])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    let value = ok(outcome);
    assert_eq!((&value["via"], &value["resident"], &value["changed"]), (&json!("job"), &json!(1.0), &json!(true)));
    assert_eq!(value["models"][1]["path"], "/models/mistral", "{value}");
    assert!(
        waits.iter().any(|why| why.contains("no Nightshift agent is connected on gpu-1")),
        "it is waited for first: {waits:?}"
    );
    assert!(waits.iter().any(|why| why.contains("is Running")), "progress is seen: {waits:?}");
    let (job, pod) = made(&stage);
    assert_eq!(value["job"], format!("inference/{}", job["metadata"]["name"].as_str().unwrap()));
    assert!(job["metadata"]["name"].as_str().unwrap().starts_with("nightshift-warm-r7-0-"), "{job}");
    assert_eq!(pod["spec"]["nodeName"], "gpu-1");
    // Kept for an hour, so that people can look; then Kubernetes takes it away, and not we.
    let (namespace, name) = ("inference", job["metadata"]["name"].as_str().unwrap());
    stage.clock.advance(minutes(61));
    stage.kube().nodes().await.unwrap();
    assert_eq!(stage.fleet.job(namespace, name), None);
    assert_eq!(stage.changes(), ["create jobs"]);
}

#[tokio::test]
async fn how_far_a_job_is_stands_in_the_journal_and_in_the_sums_until_it_is_over() {
    let stage = Stage::new().await;
    let mut step = stage.begin(by("job")).await;
    let mut seen = None;
    for _ in 0..100 {
        let performed = action("cache::warm").perform(&stage.world, &step).await;
        let PerformResult::Again { carry, why, after } = performed else { panic!("{performed:?}") };
        step.carry = carry;
        if step.carry["progress"].is_object() {
            seen = Some(why);
            break;
        }
        stage.clock.advance(after);
    }
    assert!(seen.unwrap().ends_with("is Running: reading: 25 % of 1.0 GiB"));
    assert_eq!(step.carry["progress"]["done_bytes"], 1 << 28);
    let at_work = stage.world.agents.at_work();
    let [(node, verb, progress)] = at_work.as_slice() else { panic!("{at_work:?}") };
    assert_eq!((node.as_str(), verb.as_str(), &progress["bytes"]), ("gpu-1", "cache::warm", &json!(1 << 30)));

    // A kubelet that does not say it, or a right that is missing, costs the figures alone.
    stage.fleet.fault(SimFault::Deny { verb: "get".to_owned(), resource: "pods/log".to_owned() }).unwrap();
    let PerformResult::Again { why, carry, .. } = action("cache::warm").perform(&stage.world, &step).await else {
        panic!()
    };
    assert!(why.ends_with("is Running") && carry["progress"].is_null(), "{why} {carry}");
    step.carry = carry;
    ok(stage.finish(&mut step).await.0);
    assert!(stage.world.agents.at_work().is_empty());
}

/// What the action says when its run was cancelled, until it is settled.
async fn stopped(stage: &Stage, step: &Step) -> (Outcome, usize) {
    for looks in 1..100 {
        match action("cache::warm").stop(&stage.world, step).await {
            Some(PerformResult::Done(outcome)) => return (outcome, looks),
            Some(PerformResult::Again { after, .. }) => stage.clock.advance(after),
            other => panic!("{other:?}"),
        }
    }
    panic!("never settled");
}

#[tokio::test]
async fn a_cancelled_run_deletes_its_job_however_often_it_is_asked() {
    let stage = Stage::new().await;
    stage.fleet.fault(SimFault::Jobs { exit: None, message: String::new() }).unwrap();
    let mut step = stage.begin(by("job")).await;
    for _ in 0..3 {
        let PerformResult::Again { carry, after, .. } = action("cache::warm").perform(&stage.world, &step).await else {
            panic!()
        };
        step.carry = carry;
        stage.clock.advance(after);
    }
    let (job, pod) = made(&stage);
    // The answer to the first attempt is lost on the way.
    stage.trouble(1, "DELETE", "/jobs/", RequestFault::LoseReply);
    let (outcome, looks) = stopped(&stage, &step).await;
    assert!(looks > 1, "the first answer was lost");
    refused(outcome, FailureKind::Refused, "the run was cancelled");
    assert_eq!(stage.fleet.job("inference", job["metadata"]["name"].as_str().unwrap()), None);
    assert_eq!(stage.changes(), ["create jobs", "delete jobs"]);
    stage.clock.advance(minutes(1));
    stage.kube().nodes().await.unwrap();
    let name = pod["metadata"]["name"].as_str().unwrap();
    assert_eq!(stage.fleet.pod("inference", name), None, "the reading ends with its Job");
    let (again, _) = stopped(&stage, &step).await;
    refused(again, FailureKind::Refused, "is not there");
    assert_eq!(stage.changes(), ["create jobs", "delete jobs"], "once");
}

#[tokio::test]
async fn a_job_whose_making_a_crash_cut_off_is_waited_for_and_one_that_has_ended_or_is_anothers_stays() {
    // Chosen, and perhaps made: the request of the dead process may still arrive until the step's deadline.
    let stage = Stage::new().await;
    let mut step = stage.begin(by("job")).await;
    step.carry = json!({ "route": "job" });
    let before = stage.clock.now();
    refused(stopped(&stage, &step).await.0, FailureKind::Refused, "is not there");
    assert!(stage.clock.now() >= step.deadline && before < step.deadline);
    // It ended well before anybody could stop it: that is what is written down.
    let mut step = stage.begin(by("job")).await;
    let value = ok(stage.finish(&mut step).await.0);
    step.outcome = None;
    assert_eq!(ok(stopped(&stage, &step).await.0), value);
    let (job, _) = made(&stage);
    // Another step's of the same name, as after a store that was made anew.
    let other = Step { begun_at: step.begun_at + minutes(1), ..step.clone() };
    let name = job["metadata"]["name"].as_str().unwrap();
    refused(stopped(&stage, &other).await.0, FailureKind::Refused, "is not there");
    assert!(stage.fleet.job("inference", name).is_some());
    assert_eq!(stage.changes(), ["create jobs"]);
}

#[tokio::test]
async fn an_agent_hears_of_the_cancelled_run_also_from_an_engine_that_was_started_anew() {
    let stage = Stage::new().await;
    let mut step = stage.begin(by("agent")).await;
    // Nobody is connected yet: it is asked again, and gives up when the warm itself would have.
    let waits = action("cache::warm").stop(&stage.world, &step).await;
    assert!(matches!(&waits, Some(PerformResult::Again { .. })), "{waits:?}");
    stage.world.agents.heard("gpu-1", AgentStatus::default());
    refused(stopped(&stage, &step).await.0, FailureKind::Refused, "the agent of gpu-1 stops reading");
    let working = CommandStatus::Working { why: "reading".to_owned(), progress: Value::Null };
    assert!(!stage.world.agents.answered("gpu-1", &step.command_key(), working.clone()), "nobody waits for it");
    step.no += 1;
    assert!(stage.world.agents.answered("gpu-1", &step.command_key(), working.clone()));

    // Hashing stops as well; a look at headers is over before anybody could stop it.
    let verify = |hash: bool| {
        let args = [("node", json!("gpu-1")), ("path", json!("/models/llama")), ("hash", json!(hash))];
        call("cache::verify", &args)
    };
    let hashing = Step { no: 5, ..stage.begin(verify(true)).await };
    let stopped = action("cache::verify").stop(&stage.world, &hashing).await;
    assert!(matches!(&stopped, Some(PerformResult::Done(Outcome::Failed(_)))), "{stopped:?}");
    assert!(!stage.world.agents.answered("gpu-1", &hashing.command_key(), working));
    assert_eq!(action("cache::verify").stop(&stage.world, &stage.begin(verify(false)).await).await, None);
}

#[tokio::test]
async fn the_way_is_chosen_before_anything_is_made_and_kept_over_a_crash() {
    let stage = Stage::new().await;
    let mut step = stage.begin(by("job")).await;
    let PerformResult::Again { carry, .. } = action("cache::warm").perform(&stage.world, &step).await else { panic!() };
    assert_eq!((&carry["route"], stage.changes().len()), (&json!("job"), 0));
    step.carry = carry;
    // The Job is made, and the process ends before it can say so; then the node's agent comes.
    let made_and_lost = action("cache::warm").perform(&stage.world, &step).await;
    assert!(matches!(made_and_lost, PerformResult::Again { .. }), "{made_and_lost:?}");
    stage.agent("gpu-1", |command| panic!("{command:?}"));
    let mut again = Step { attempt: 2, call: warm(&[]), ..step };
    assert_eq!(ok(stage.finish(&mut again).await.0)["via"], "job");
    assert_eq!(stage.changes(), ["create jobs"]);
}

#[tokio::test]
async fn a_job_that_fails_is_told_in_its_own_words_and_one_that_hangs_is_ended_by_kubernetes() {
    let said =
        json!({ "failed": { "kind": "invalid", "message": "model-2.safetensors has 7 bytes: 1 byte is missing" } });
    for (exit, message, kind, words) in [
        (Some(1), said.to_string(), FailureKind::Invalid, "1 byte is missing (Job inference/nightshift-warm-"),
        (Some(137), "Killed".to_owned(), FailureKind::Unavailable, "exit 137 Error Killed"),
        (None, String::new(), FailureKind::Timeout, "DeadlineExceeded"),
    ] {
        let stage = Stage::new().await;
        stage.fleet.fault(SimFault::Jobs { exit, message }).unwrap();
        refused(stage.run(warm(&[("via", json!("job")), ("within", json!("10m"))])).await, kind, words);
        assert_eq!(stage.changes(), ["create jobs"]);
    }
}

#[tokio::test]
async fn a_job_that_is_not_ours_is_left_alone_and_one_that_was_deleted_is_not_made_again() {
    let stage = Stage::new().await;
    let mut step = stage.begin(by("job")).await;
    ok(stage.finish(&mut step).await.0);
    let (job, _) = made(&stage);
    let name = job["metadata"]["name"].as_str().unwrap();
    let delete = async |stage: &Stage| {
        let client = crate::harness::client();
        let url = format!("{}/apis/batch/v1/namespaces/inference/jobs/{name}", stage.fleet.url());
        assert!(client.delete(url).send().await.unwrap().status().is_success());
    };
    delete(&stage).await;
    let carry = json!({ "route": "job", "made": true });
    let mut gone = Step { outcome: None, carry, attempt: 2, ..step.clone() };
    refused(stage.finish(&mut gone).await.0, FailureKind::NotFound, "is gone");

    let theirs = json!({ "metadata": { "name": name, "annotations": { "nightshift.dev/step": "another" } } });
    stage.kube().create_job("inference", name, &theirs).await.unwrap();
    let mut foreign = Step { outcome: None, carry: json!({ "route": "job" }), attempt: 3, ..step };
    refused(stage.finish(&mut foreign).await.0, FailureKind::Conflict, "belongs to another");
    assert!(stage.fleet.job("inference", name).is_some(), "it is left alone");
}

#[tokio::test]
async fn a_node_that_takes_no_pod_is_waited_for_and_then_told() {
    let stage = Stage::new().await;
    stage.fleet.fault(SimFault::NodeNotReady { node: "gpu-1".to_owned() }).unwrap();
    let mut step = stage.begin(warm(&[("via", json!("job")), ("within", json!("5m"))])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    assert!(waits.iter().any(|why| why.contains("is Pending: Unschedulable")), "{waits:?}");
    refused(outcome, FailureKind::Timeout, "DeadlineExceeded");
}

#[tokio::test]
async fn where_no_job_may_be_made_the_agent_alone_counts_and_a_job_that_is_asked_for_says_what_to_write() {
    let mut stage = Stage::new().await;
    let config = KubeConfig { url: stage.fleet.url(), ..KubeConfig::default() };
    stage.reach(&config).await;
    refused(stage.run(by("job")).await, FailureKind::Refused, "add `cache_job` to the cluster");
    refused(stage.run(warm(&[])).await, FailureKind::Unavailable, "no Nightshift agent is connected on gpu-1");
    refused(stage.run(by("pigeon")).await, FailureKind::Invalid, "`agent`, `job`");
    assert_eq!(stage.changes(), [""; 0]);
}

#[tokio::test]
async fn folders_that_the_job_would_not_see_are_refused_before_anything_is_made() {
    let mut stage = Stage::new().await;
    let settings = CacheJob { mount: Some("/weights".into()), ..cache_job("inference") };
    let config = KubeConfig { url: stage.fleet.url(), cache_job: Some(settings), ..KubeConfig::default() };
    stage.reach(&config).await;
    refused(stage.run(by("job")).await, FailureKind::Refused, "is outside /weights");
    assert_eq!(stage.changes(), [""; 0]);
}

/// What the container is told to do, done by the program itself, with the last words that the kubelet would keep.
#[tokio::test]
async fn the_command_of_the_job_is_one_that_the_program_takes_and_its_last_words_are_understood() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folders = ["one", "two"].map(|name| dir.path().join(name));
    for folder in &folders {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("weights.bin"), vec![7; 300_000]).unwrap();
    }
    let mut stage = Stage::new().await;
    let settings = CacheJob { host_path: Some(dir.path().to_owned()), ..cache_job("inference") };
    let config = KubeConfig { url: stage.fleet.url(), cache_job: Some(settings), ..KubeConfig::default() };
    stage.reach(&config).await;
    let asked = |within: &str| {
        let models = json!(folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>());
        let args = [("models", models), ("node", json!("gpu-1")), ("via", json!("job")), ("within", json!(within))];
        call("cache::warm", &args)
    };
    ok(stage.run(asked("2h")).await);
    let (job, _) = made(&stage);
    let last = dir.path().join("last-words");
    let args = job["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap().iter();
    let args = args.map(|arg| arg.as_str().unwrap().replace("/dev/termination-log", &last.display().to_string()));
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_nightshift"))
        .args(args)
        .current_dir(dir.path())
        .env_remove("NIGHTSHIFT_CONFIG")
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    let message = std::fs::read_to_string(last).unwrap();
    assert!(message.len() <= limits::TERMINATION_BYTES, "{message}");

    stage.fleet.fault(SimFault::Jobs { exit: Some(0), message: message.clone() }).unwrap();
    let value = ok(stage.run(asked("1h")).await);
    assert_eq!(value["models"].as_array().unwrap().len(), 2, "{value} of {message}");
    assert_eq!((&value["resident"], &value["via"]), (&json!(1.0), &json!("job")));
}
