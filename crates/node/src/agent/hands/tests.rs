//! Commands at the agent, with a stand-in for NVIDIA's tool that counts its calls in a file.

use super::*;
use crate::agent::LinkError;
use crate::config::AgentConfig;
use crate::model::{AgentStatus, FindingAck, FindingBatch, RunId};
use serde_json::Map;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::sync::mpsc;

/// What the engine would hear.
struct Ear(mpsc::Sender<CommandReport>);

#[async_trait::async_trait]
impl EngineLink for Ear {
    async fn report(&self, _: &FindingBatch) -> Result<FindingAck, LinkError> {
        Err(LinkError::Away("not here".to_owned()))
    }
    async fn poll(&self, _: &AgentStatus) -> Result<Vec<AgentCommand>, LinkError> {
        Err(LinkError::Away("not here".to_owned()))
    }
    async fn answer(&self, answered: &CommandReport) -> Result<bool, LinkError> {
        self.0.send(answered.clone()).await.map_err(|_| LinkError::Away("the test is over".to_owned()))?;
        Ok(true)
    }
}

struct Bench {
    dir: tempfile::TempDir,
    hands: Arc<CommandExecutor>,
    heard: mpsc::Receiver<CommandReport>,
}

impl Bench {
    fn new(script: &str) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let smi = dir.path().join("nvidia-smi");
        let count = dir.path().join("count");
        std::fs::write(&smi, format!("#!/bin/sh\necho \"$@\" >>{}\n{script}\n", count.display())).unwrap();
        std::fs::set_permissions(&smi, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (hands, heard) = hands(dir.path(), "boot-a");
        Bench { dir, hands, heard }
    }

    /// As after `kill -9` and a start, maybe of the whole machine.
    fn restart(&mut self, boot: &str) {
        (self.hands, self.heard) = hands(self.dir.path(), boot);
    }

    async fn ask(&mut self, command: AgentCommand) -> Outcome {
        let key = command.key();
        self.hands.take(command);
        loop {
            let answered = tokio::time::timeout(Duration::from_secs(60), self.heard.recv()).await.unwrap().unwrap();
            assert_eq!(answered.key, key);
            if let CommandStatus::Ended { outcome } = answered.answer {
                return outcome;
            }
        }
    }

    /// What the tool was called with, a line a call.
    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("count")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn kill_file(&self) -> std::path::PathBuf {
        self.dir.path().join("stop")
    }
}

fn hands(dir: &std::path::Path, boot: &str) -> (Arc<CommandExecutor>, mpsc::Receiver<CommandReport>) {
    let settings = AgentConfig {
        data_dir: dir.to_owned(),
        nvidia_smi: dir.join("nvidia-smi"),
        kill_file: dir.join("stop"),
        ..AgentConfig::default()
    };
    let machine =
        Machine { name: "gpu-1".to_owned(), boot: boot.to_owned(), settings: Arc::new(settings), ..Machine::default() };
    let (out, heard) = mpsc::channel(limits::AGENT_COMMANDS);
    let book = CommandJournal::open(&dir.join("commands")).unwrap();
    (Arc::new(CommandExecutor::new(machine, book, Arc::new(Ear(out)))), heard)
}

fn reset(step: u32) -> AgentCommand {
    AgentCommand {
        run: RunId(7),
        step,
        epoch: 4,
        verb: "gpu::reset".to_owned(),
        args: Map::from_iter([("gpu".to_owned(), json!("GPU-1")), ("carry".to_owned(), json!({ "boot": "boot-a" }))]),
        deadline: Time::MAX,
        incarnation: String::new(),
    }
}

fn refused(outcome: Outcome, words: &str) -> FailureKind {
    let Outcome::Failed(failure) = outcome else { panic!("wanted a refusal, got {outcome:?}") };
    assert!(failure.message.contains(words), "`{words}` is not in: {failure}");
    failure.kind
}

#[tokio::test]
async fn a_command_is_done_once_however_often_it_comes_and_whoever_was_restarted() {
    let mut bench = Bench::new("exit 0");
    let first = bench.ask(reset(3)).await;
    assert!(matches!(&first, Outcome::Ok(value) if value["changed"] == json!(true)), "{first:?}");
    assert_eq!(bench.ask(reset(3)).await, first);
    bench.restart("boot-b");
    assert_eq!(bench.ask(AgentCommand { epoch: 5, ..reset(3) }).await, first);
    assert_eq!(bench.calls(), ["--gpu-reset -i GPU-1"]);
}

#[tokio::test]
async fn an_older_epoch_is_refused_also_after_a_restart() {
    let mut bench = Bench::new("exit 0");
    bench.ask(AgentCommand { epoch: 9, ..reset(3) }).await;
    bench.restart("boot-a");
    let kind = refused(bench.ask(AgentCommand { epoch: 8, ..reset(4) }).await, "epoch 8 is older than 9");
    assert_eq!((kind, bench.calls().len()), (FailureKind::Conflict, 1));
}

#[tokio::test]
async fn a_node_is_reset_once_in_ten_minutes_and_the_refusal_stands() {
    let mut bench = Bench::new("exit 0");
    bench.ask(reset(3)).await;
    assert_eq!(refused(bench.ask(reset(4)).await, "at most once in 10m"), FailureKind::Refused);
    bench.restart("boot-a");
    // A copy that comes late is answered as the first one was.
    refused(bench.ask(reset(4)).await, "at most once in 10m");
    assert_eq!(bench.calls().len(), 1);
}

#[tokio::test]
async fn the_kill_file_stops_what_is_new_and_what_was_begun_waits_for_it_to_go() {
    let mut bench = Bench::new("exit 0");
    std::fs::write(bench.kill_file(), "").unwrap();
    assert_eq!(refused(bench.ask(reset(3)).await, "runs no commands until the file is removed"), FailureKind::Refused);
    bench.hands.book().begin(&reset(4), Time::UNIX_EPOCH).unwrap();
    bench.hands.take(reset(4));
    let answered = bench.heard.recv().await.unwrap();
    assert!(matches!(&answered.answer, CommandStatus::Working { why, .. } if why.contains("stop")), "{answered:?}");
    assert_eq!(bench.calls().len(), 0);
    std::fs::remove_file(bench.kill_file()).unwrap();
    assert!(matches!(bench.ask(reset(4)).await, Outcome::Ok(_)));
    assert_eq!(bench.calls().len(), 1);
}

#[tokio::test]
async fn a_command_that_came_too_late_or_is_not_known_is_not_begun() {
    let mut bench = Bench::new("exit 0");
    let kind = refused(bench.ask(AgentCommand { deadline: Time::UNIX_EPOCH, ..reset(3) }).await, "after its deadline");
    assert_eq!(kind, FailureKind::Timeout);
    let kind = refused(bench.ask(AgentCommand { verb: "rm::rf".to_owned(), ..reset(4) }).await, "has no verb `rm::rf`");
    assert_eq!((kind, bench.calls().len()), (FailureKind::Invalid, 0));
}

#[tokio::test]
async fn a_tool_that_refuses_is_heard_in_its_own_words() {
    let mut bench = Bench::new("echo 'GPU 00000000:65:00.0 is in use by another client'; exit 255");
    let kind = refused(bench.ask(reset(3)).await, "in use by another client");
    assert_eq!(kind, FailureKind::Refused);
}

#[tokio::test]
async fn a_reset_that_outlived_its_agent_is_settled_by_its_exit_code() {
    // It waits for a pipe, so that the agent can die in its middle.
    let mut bench = Bench::new("read line <\"$(dirname \"$0\")/gate\"; exit 0");
    let gate = bench.dir.path().join("gate");
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let hands = Arc::clone(&bench.hands);
    let work = tokio::spawn(async move { hands.work(&reset(3)).await });
    while bench.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await; // polls
    }
    work.abort();
    bench.restart("boot-a");
    let open = tokio::task::spawn_blocking(move || std::fs::write(gate, "go\n").unwrap());
    let outcome = bench.ask(reset(3)).await;
    open.await.unwrap();
    assert!(matches!(&outcome, Outcome::Ok(value) if value["changed"] == json!(true)), "{outcome:?}");
    assert_eq!(bench.calls().len(), 1, "it was begun once");
}

#[tokio::test]
async fn a_reset_whose_machine_went_down_is_settled_by_the_boot_and_otherwise_done_again() {
    for (boot, calls) in [("boot-b", 1), ("boot-a", 2)] {
        // The first call kills the shell that would have noted its end.
        let mut bench = Bench::new("[ $(wc -l <\"$(dirname \"$0\")/count\") = 1 ] && kill -9 $PPID; exit 0");
        let hands = Arc::clone(&bench.hands);
        let first = hands.decide(&reset(3), Time::UNIX_EPOCH);
        assert!(matches!(first, CommandDecision::Do(_)));
        if let CommandDecision::Do(verb) = first {
            let lost = verb.perform(&hands.machine, &reset(3), &|_| {}).await;
            assert!(matches!(lost, CommandStatus::Ended { outcome: Outcome::Failed(_) }), "{lost:?}");
        }
        bench.restart(boot);
        let outcome = bench.ask(reset(3)).await;
        assert!(matches!(&outcome, Outcome::Ok(value) if value["changed"] == json!(true)), "{outcome:?}");
        assert_eq!(bench.calls().len(), calls, "{boot}");
    }
}

#[tokio::test]
async fn a_known_key_with_another_verb_or_other_arguments_is_refused_and_nothing_is_done() {
    let mut bench = Bench::new("exit 0");
    bench.ask(reset(3)).await;
    bench.restart("boot-a");
    let other = Map::from_iter([("gpu".to_owned(), json!("GPU-2")), ("carry".to_owned(), json!({ "boot": "boot-a" }))]);
    let refusal = bench.ask(AgentCommand { args: other, ..reset(3) }).await;
    assert_eq!(
        refused(refusal, "command r7/3 is in the journal of the agent of gpu-1 as `gpu::reset`"),
        FailureKind::Conflict
    );
    let refusal = bench.ask(AgentCommand { verb: "node::reboot".to_owned(), ..reset(3) }).await;
    assert_eq!(refused(refusal, "so it is not run as `node::reboot`"), FailureKind::Conflict);
    assert_eq!(bench.calls(), ["--gpu-reset -i GPU-1"]);
}

#[tokio::test]
async fn the_same_step_of_another_incarnation_of_the_store_is_another_command() {
    let mut bench = Bench::new("exit 0");
    let before = AgentCommand { incarnation: "a1".to_owned(), ..reset(3) };
    let first = bench.ask(before.clone()).await;
    let (said, every) = (bench.ask(AgentCommand { incarnation: "b2".to_owned(), ..reset(3) }).await, "at most once in");
    // Not the first one's outcome: it was really considered, and met this node's own limit.
    assert_eq!(refused(said, every), FailureKind::Refused);
    assert_eq!(bench.ask(before).await, first);
}
