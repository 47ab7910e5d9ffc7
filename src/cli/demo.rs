//! `nightshift demo`: a simulated fleet, a real Prometheus and Alertmanager, this engine as a child process, and faults.
//!
//! Invariant: each line comes from a fact (the fleet's own count, the inboxes, the ledger), never from a script.

mod children;
mod people;
mod stories;

use super::stop::{CliError, CliExitCode};
use crate::world::sim::{SimFleet, SimOptions, SimWorkload};
use children::DemoProcesses;
use people::InboxServer;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Exit after at most this many seconds: exit code 0 if every scenario ended as expected, 1 otherwise.
    #[arg(long)]
    seconds: Option<u64>,
    /// Folder with `bin/prometheus` and `bin/alertmanager`, as created by `make tools`.
    #[arg(long, default_value = ".cache/tools")]
    tools: PathBuf,
    /// Folder with rules, runbooks and demo configuration.
    #[arg(long, default_value = ".")]
    home: PathBuf,
}

/// Prints one line of the scenario: seconds since the beginning, source, text.
#[derive(Clone)]
struct ScenarioLog {
    began: Instant,
}

impl ScenarioLog {
    fn say(&self, who: &str, what: &str) {
        let seconds = self.began.elapsed().as_secs_f32();
        let mut out = std::io::stdout().lock();
        // A closed pipe is no reason to stop the demo before its children are stopped.
        let _ = writeln!(out, "{seconds:6.1}s  {who:<12}  {what}");
        let _ = out.flush();
    }

    fn heading(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "\n── {text}");
        let _ = out.flush();
    }
}

/// Pods take a moment to end, as real ones do, so that there is a middle in which to pull the plug.
fn options() -> SimOptions {
    let workloads = vec![
        SimWorkload::deployment("llama-70b", "meta-llama/Llama-3.3-70B-Instruct", 3, 4),
        SimWorkload::deployment("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.3", 6, 1),
        SimWorkload::deployment("qwen-32b", "Qwen/Qwen2.5-32B-Instruct", 3, 2),
    ];
    SimOptions { workloads, pod_stops_after: Duration::from_secs(3), ..SimOptions::default() }
}

/// Everything that the stories look at and act on.
struct DemoFleet {
    pub fleet: SimFleet,
    pub people: InboxServer,
    pub children: DemoProcesses,
    pub say: ScenarioLog,
    pub deadline: Instant,
}

pub(super) fn run(args: DemoArgs) -> Result<(), CliError> {
    let template = args.home.join("deploy/demo/prometheus.yml.in");
    if !template.is_file() {
        return Err(CliError::usage(
            format!("the demo needs the source folder of Nightshift, and {} is not there", template.display()),
            "run it in that folder, or name it: `nightshift demo --home PATH`; without it, `nightshift sim` serves a \
             simulated fleet",
        ));
    }
    for tool in ["prometheus", "alertmanager"] {
        let program = args.tools.join("bin").join(tool);
        if !program.is_file() {
            return Err(CliError::usage(
                format!("{} is not there", program.display()),
                "`make demo` fetches it; or name the folder with `bin/prometheus` and `bin/alertmanager`: --tools PATH",
            ));
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failure(format!("runtime: {error}"), ""))?;
    let hint = "`make tools` fetches Prometheus and Alertmanager; `make demo` does both";
    runtime.block_on(play(args)).map_err(|error| CliError::failure(format!("{error:#}"), hint))?
}

async fn play(args: DemoArgs) -> anyhow::Result<Result<(), CliError>> {
    let say = ScenarioLog { began: Instant::now() };
    say.heading("setting the stage");
    let fleet = SimFleet::start(options())?;
    say.say("fleet", &format!("4 nodes × 8 GPUs, three models; Kubernetes API and metrics at {}", fleet.url()));
    let people = InboxServer::start(say.clone()).await?;
    let children = DemoProcesses::start(&args.tools, &args.home, &fleet.url(), &people, &say).await?;
    let patience = Duration::from_secs(args.seconds.unwrap_or(600));
    let mut stage = DemoFleet { fleet, people, children, say: say.clone(), deadline: say.began + patience };
    stage.children.follow_the_ledger(&say);

    let failed = tokio::select! {
        failed = stories::all(&mut stage) => failed,
        _ = tokio::signal::ctrl_c() => return Ok(Err(CliError::said(CliExitCode::Interrupted))),
    };
    say.heading("the end of the scenarios");
    for line in &failed {
        say.say("FAILED", line);
    }
    if !failed.is_empty() {
        say.say("demo", "not every scenario ended as expected; the end of the engine's log:");
        say.say("", &stage.children.engine_log());
    }
    if args.seconds.is_some() {
        if failed.is_empty() {
            say.say("demo", "every scenario ended as expected");
            return Ok(Ok(()));
        }
        return Ok(Err(CliError::said(CliExitCode::Failure)));
    }
    say.say("demo", "the fleet keeps running; explore it with:");
    for command in ["incidents", "show r1", "why gpu-2", "audit verify"] {
        say.say("", &stage.children.command_line(command));
    }
    say.say("demo", "Ctrl-C ends it");
    tokio::signal::ctrl_c().await?;
    Ok(Err(CliError::said(CliExitCode::Interrupted)))
}
