//! A real Docker engine, started by the test on a socket and folders of its own, and a real container in it.
//!
//! Invariant: how often the container was started is counted by what runs in it, never believed from an answer; the engine
//! ends with its test, also when that panics.

mod compose;
mod floor;

use crate::harness::{eventually, free_port, tool};
use crate::night::Night;
use nightshift::actions::{PerformResult, find};
use nightshift::engine::Runner;
use nightshift::model::{
    ActionCall, EffectClass, FailureKind, Labels, Mode, Outcome, ReasonCode, RunId, RunState, Span, Step,
};
use nightshift::world::sim::SimSample;
use nightshift::world::{DockerClient, DockerConfig, World, WorldError};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// The daemon, and all that it started.
struct Engine {
    daemon: Child,
    dir: tempfile::TempDir,
}

impl Engine {
    /// None: this is a chroot, whose root is no mount point: no container can be made of it, whatever a daemon does.
    fn start() -> Option<Engine> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        if !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/")) {
            assert!(std::env::var_os("CI").is_none(), "CI runs where containers can run");
            eprintln!("NOT RUN: `/` is no mount point (a chroot), so no container can be started here");
            return None;
        }
        assert!(rustix::process::geteuid().is_root(), "a Docker engine needs root");
        let dir = tempfile::tempdir().unwrap();
        let bin = tool("dockerd").parent().unwrap().to_owned();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let daemon = Command::new(bin.join("dockerd"))
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--userland-proxy=false"])
            .args(["--storage-driver=vfs", "--shutdown-timeout=2", "--host", &format!("unix://{}", at("docker.sock"))])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let engine = Engine { daemon, dir };
        let give_up = Instant::now() + Duration::from_secs(60);
        while !engine.try_docker(&["version"]).0 {
            assert!(Instant::now() < give_up, "dockerd is not up; its log:\n{}", engine.log());
            std::thread::sleep(Duration::from_millis(50)); // polls
        }
        Some(engine)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn client(&self) -> DockerClient {
        DockerClient::new(&DockerConfig { socket: self.socket() })
    }

    /// Docker's own command line, as a person would use it.
    fn try_docker(&self, args: &[&str]) -> (bool, String) {
        let host = format!("unix://{}", self.socket().display());
        let output = Command::new(tool("docker")).args(["--host", &host]).args(args).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    }

    fn docker(&self, args: &[&str]) -> String {
        let (good, said) = self.try_docker(args);
        assert!(good, "docker {args:?}: {said}\n{}", self.log());
        said.trim().to_owned()
    }

    /// An image with one static program in it, imported from a tar.
    fn import(&self) {
        let program = self.dir.path().join("serve");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/docker/model-server.rs");
        let built = Command::new("rustc")
            .args(["--edition=2024", "-C", "target-feature=+crt-static", "-o"])
            .arg(&program)
            .arg(source)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let tar = self.dir.path().join("image.tar");
        let folder = self.dir.path().display().to_string();
        let packed = Command::new("tar").args(["-C", &folder, "-cf"]).arg(&tar).arg("serve").status().unwrap();
        assert!(packed.success());
        self.docker(&["import", &tar.display().to_string(), "model-server:1"]);
    }

    /// A container of that image on a port of this machine.
    fn run(&self, name: &str, labels: &[&str]) -> u16 {
        self.run_image("model-server:1", name, labels)
    }

    fn run_image(&self, image: &str, name: &str, labels: &[&str]) -> u16 {
        let port = free_port();
        let mut args = vec!["run", "--detach", "--network=host", "--name", name];
        for label in labels {
            args.extend(["--label", label]);
        }
        let text = port.to_string();
        args.extend([image, "/serve", &text]);
        self.docker(&args);
        port
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let dir = self.dir.path().display().to_string();
        let of = |file: &str| {
            let text = std::fs::read_to_string(self.dir.path().join(file)).ok()?;
            text.trim().parse().ok().and_then(Pid::from_raw)
        };
        let containerd = of("exec/containerd/containerd.pid");
        // It ends the containers and its containerd in two seconds; who does not listen is killed, by its own number.
        let daemon = i32::try_from(self.daemon.id()).ok().and_then(Pid::from_raw);
        if let Some(daemon) = daemon {
            let _ = kill_process(daemon, Signal::TERM);
        }
        let give_up = Instant::now() + Duration::from_secs(20);
        while self.daemon.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(20)); // polls
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        if let Some(containerd) = containerd.filter(|pid| test_kill_process(*pid).is_ok()) {
            let command =
                std::fs::read_to_string(format!("/proc/{}/cmdline", containerd.as_raw_nonzero())).unwrap_or_default();
            if command.contains(&dir) {
                let _ = kill_process(containerd, Signal::KILL);
            }
        }
        // It leaves a network namespace mounted in its folder.
        let _ = Command::new("umount").arg(self.dir.path().join("exec/netns/default")).stderr(Stdio::null()).status();
    }
}

/// What the container's own program says under this name.
fn says(port: u16, name: &str) -> Option<u64> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

async fn starts(port: u16) -> u64 {
    eventually("the container answers", async || says(port, "starts")).await
}

fn restart(name: &str) -> ActionCall {
    ActionCall::new("docker::restart", [("container", json!(name)), ("grace", json!("1s"))])
}

/// As the engine begins a step: the witness is read first.
async fn begin(world: &World, call: ActionCall) -> Step {
    let action = find(&call.action).unwrap();
    let carry = action.witness(world, &call).await.unwrap_or_default();
    let now = world.clock.now();
    Step {
        run: RunId(7),
        no: 0,
        effect: action.spec().effect,
        call,
        undoes: None,
        begun_at: now,
        deadline: now + action.spec().deadline.0,
        attempt: 1,
        carry,
        outcome: None,
        ended_at: None,
        incarnation: String::new(),
    }
}

async fn perform(world: &World, step: &Step) -> PerformResult {
    find(&step.call.action).unwrap().perform(world, step).await
}

fn done(performed: PerformResult) -> Value {
    match performed {
        PerformResult::Done(Outcome::Ok(value)) => value,
        other => panic!("{other:?}"),
    }
}

fn refused(performed: PerformResult) -> (FailureKind, String) {
    match performed {
        PerformResult::Done(Outcome::Failed(failure)) => (failure.kind, failure.message),
        other => panic!("{other:?}"),
    }
}

/// Between us and the engine: while it is told so, answers to restarts are lost on their way back.
async fn lossy(engine: &Engine) -> (DockerClient, Arc<AtomicBool>) {
    let path = engine.dir.path().join("lossy.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (lose, target) = (Arc::new(AtomicBool::new(true)), engine.socket());
    let losing = Arc::clone(&lose);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (losing, target) = (Arc::clone(&losing), target.clone());
            tokio::spawn(async move {
                let mut server = UnixStream::connect(target).await.unwrap();
                let mut asked = vec![0; 64 * 1024];
                let count = client.read(&mut asked).await.unwrap_or(0);
                server.write_all(&asked[..count]).await.unwrap();
                let is_restart = String::from_utf8_lossy(&asked[..count]).contains("/restart");
                if is_restart && losing.load(Ordering::Relaxed) {
                    // The engine has answered, so it is done; the client sees a connection that breaks.
                    let _ = server.read(&mut asked).await;
                    return;
                }
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (DockerClient::new(&DockerConfig { socket: path }), lose)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_with_our_label_is_found_and_restarted_once_whatever_is_lost() {
    let Some(engine) = Engine::start() else { return };
    engine.import();
    let port = engine.run("vllm", &["nightshift.dev/model=mistral"]);
    let other = engine.run("database", &[]);
    let kept = engine.run("canary", &["nightshift.dev/model=mistral", "nightshift.dev/opt-out=true"]);
    let mut night = Night::fall("rules: []", &[]).await;
    night.parts.world.docker = Some(engine.client());
    let world = &mut night.parts.world;
    assert_eq!((starts(port).await, starts(other).await, starts(kept).await), (1, 1, 1));

    // Found by label, and only those.
    let listing = begin(world, ActionCall::new("docker::containers", [])).await;
    let listed = done(perform(world, &listing).await);
    let names: Vec<&str> = listed.as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["canary", "vllm"]);
    assert_eq!((&listed[1]["model"], &listed[1]["state"]), (&json!("mistral"), &json!("running")));

    // Restarted; the same step again, after its answer was kept nowhere, does not do it again.
    let step = begin(world, restart("vllm")).await;
    assert_eq!(step.effect, EffectClass::Witnessed);
    let first = done(perform(world, &step).await);
    assert_eq!(first["changed"], true);
    assert_ne!(first["before"], first["started_at"]);
    let again = done(perform(world, &Step { attempt: 2, ..step.clone() }).await);
    assert_eq!(again["started_at"], first["started_at"]);
    assert_eq!(starts(port).await, 2);

    // The reply is lost: a retry, much later, that finds it done.
    let (through, lose) = lossy(&engine).await;
    world.docker = Some(through);
    let step = begin(world, restart("vllm")).await;
    let lost = perform(world, &step).await;
    let PerformResult::Retry { after: Some(after), .. } = lost else { panic!("{lost:?}") };
    assert!(after >= Duration::from_secs(10), "an earlier request gets the time to end: {after:?}");
    lose.store(false, Ordering::Relaxed);
    assert_eq!(done(perform(world, &Step { attempt: 2, ..step }).await)["changed"], true);
    assert_eq!(starts(port).await, 3);

    // A crash before the request was sent: the successor waits out what might be under way, then does it.
    let step = Step { attempt: 2, ..begin(world, restart("vllm")).await };
    let wait = perform(world, &step).await;
    assert!(matches!(&wait, PerformResult::Again { why, .. } if why.contains("may be under way")), "{wait:?}");
    night.clock.advance(Duration::from_secs(60));
    assert_eq!(done(perform(&night.parts.world, &step).await)["changed"], true);
    assert_eq!(starts(port).await, 4);

    // Without a witness it takes one first.
    let world = &night.parts.world;
    let bare = Step { carry: Value::Null, ..begin(world, restart("vllm")).await };
    let PerformResult::Again { carry, .. } = perform(world, &bare).await else { panic!() };
    assert!(carry["before"].is_string(), "{carry}");

    // What is not ours, what is protected, what is not there, what is no name.
    for (name, kind, words) in [
        ("database", FailureKind::Refused, "does not have the label nightshift.dev/model"),
        ("canary", FailureKind::Refused, "nightshift.dev/opt-out=true"),
        ("no-such", FailureKind::NotFound, "container no-such is not there"),
        ("../images", FailureKind::Invalid, "is not a container name"),
    ] {
        let (found, message) = refused(perform(world, &begin(world, restart(name)).await).await);
        assert!(found == kind && message.contains(words), "{name}: {message}");
        let foretold = find("docker::restart").unwrap().predict(world, &restart(name)).await;
        assert!(matches!(foretold, Outcome::Failed(failure) if failure.kind == kind), "{name}");
    }
    let long = ActionCall::new("docker::restart", [("container", json!("vllm")), ("grace", json!("10m"))]);
    assert_eq!(refused(perform(world, &begin(world, long).await).await).0, FailureKind::Invalid);
    assert_eq!((starts(port).await, starts(other).await, starts(kept).await), (4, 1, 1));

    // Replaced under the same name between witness and act: the new one is left alone.
    let step = begin(world, restart("vllm")).await;
    engine.docker(&["rm", "--force", "vllm"]);
    let port = engine.run("vllm", &["nightshift.dev/model=mistral"]);
    assert_eq!(starts(port).await, 1);
    done(perform(world, &step).await);
    assert_eq!(starts(port).await, 1);
}

const RULES: &str = r#"
rules:
  - name: container-no-progress
    when: ['alertname="InferenceNoProgress"', 'docker_container!=""']
    run: container-no-progress
    with: { container: { label: docker_container } }
    mode: auto
    group_by: [container]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_container_is_restarted_by_its_rule_within_the_guards_and_makes_progress_again() {
    let Some(engine) = Engine::start() else { return };
    engine.import();
    let port = engine.run("vllm", &["nightshift.dev/model=mistral"]);
    let kept = engine.run("canary", &["nightshift.dev/model=canary", "nightshift.dev/opt-out=true"]);
    let mut night = Night::fall_on_shipped(RULES).await;
    night.parts.world.docker = Some(engine.client());
    night.runner = Runner::new(night.parts.clone());
    let sample = |night: &Night, query: &str, value: f64| {
        night.fleet.set_prometheus(query, vec![SimSample { labels: Labels::default(), value }]);
    };
    for model in ["mistral", "canary"] {
        sample(&night, &format!("sum(vllm:num_requests_waiting{{model_name=\"{model}\"}})"), 12.0);
        let tokens = format!("sum(rate(vllm:iteration_tokens_total_sum{{model_name=\"{model}\"}}[2m]))");
        sample(&night, &tokens, 0.0);
    }
    assert_eq!((starts(port).await, says(port, "tokens")), (1, Some(0)));

    let labels = |container, model| {
        [
            ("alertname", "InferenceNoProgress"),
            ("severity", "critical"),
            ("docker_container", container),
            ("model_name", model),
        ]
    };
    night.hear("firing", &labels("vllm", "mistral")).await;
    night.hear("firing", &labels("canary", "canary")).await;
    let runs = night.runs().await;
    assert_eq!(runs.len(), 2, "{runs:?}");
    let of = |name: &str| runs.iter().find(|run| run.subject.container.as_deref() == Some(name)).unwrap().id;
    night.until_rest(of("vllm"), Span::minutes(1).0).await;
    assert_eq!(starts(port).await, 2, "{:?}", night.steps(of("vllm")).await);
    let mending = night.steps(of("vllm")).await;
    assert!(mending.iter().any(|step| step.call.action == "docker::restart"), "{mending:?}");

    // Tokens flow again, as the container's own counter says, and then as Prometheus does.
    assert!(eventually("tokens", async || says(port, "tokens").filter(|tokens| *tokens > 0)).await > 0);
    sample(&night, "sum(rate(vllm:iteration_tokens_total_sum{model_name=\"mistral\"}[2m]))", 900.0);
    let ended = night.until_rest(of("vllm"), Span::minutes(30).0).await;
    assert!(matches!(ended.state, RunState::Done), "{:?}", ended.state);
    assert_eq!(ended.mode, Mode::Auto);

    // The opt-out label is a guard's matter: the step never begins.
    let denied = night.until_rest(of("canary"), Span::minutes(30).0).await;
    let words = serde_json::to_string(&denied.state).unwrap();
    assert!(words.contains(ReasonCode::Protected.name()) || words.contains("opt-out"), "{words}");
    assert_eq!((starts(port).await, starts(kept).await), (2, 1));
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_said_and_nothing_is_assumed() {
    let docker = DockerClient::new(&DockerConfig { socket: "/no/such/docker.sock".into() });
    let asked = docker.containers().await;
    assert!(matches!(&asked, Err(WorldError::Unreached(why)) if why.contains("/no/such/docker.sock")), "{asked:?}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let asked = DockerClient::new(&DockerConfig { socket: path }).container("vllm").await;
    assert!(matches!(&asked, Err(WorldError::Unreached(_))), "{asked:?}");
}
