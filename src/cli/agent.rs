//! `nightshift agent`: runs the agent on a GPU node, or lets it join an engine.
//!
//! Invariant: it listens on nothing; the first signal ends it once its findings are on disk.

use super::invocation::Invocation;
use super::pages::without_huge_pages;
use super::stop::CliError;
use crate::agent::{Agent, HttpLink, identity_paths, join, node_name};
use crate::config::AgentConfig;
use crate::model::Finding;
use crate::node::Machine;
use crate::{limits, telemetry};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncBufReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

#[derive(clap::Args)]
pub(super) struct AgentArgs {
    /// Engine address, instead of `engine` in agent.yaml: https://nightshift:7677
    #[arg(long, value_name = "URL", env = "NIGHTSHIFT_ENGINE")]
    engine: Option<String>,
    /// Name of this node, instead of `node` in agent.yaml [default: the host's name]
    #[arg(long, value_name = "NAME", env = "NIGHTSHIFT_NODE")]
    node: Option<String>,
    /// Cluster of this node in the engine's configuration, instead of `cluster` in agent.yaml; required if there are several
    #[arg(long, value_name = "NAME", env = "NIGHTSHIFT_CLUSTER")]
    cluster: Option<String>,
    /// Folder for the spool and the command journal, instead of `data_dir` in agent.yaml
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A projected ServiceAccount token, instead of `token_file` in agent.yaml
    #[arg(long, value_name = "FILE")]
    agent_token_file: Option<PathBuf>,
    /// Join with this token from `nightshift agents join-token`, store the certificate, and exit; `-` reads it from stdin
    #[arg(long, value_name = "TOKEN")]
    join: Option<String>,
    /// Also read findings from this file or pipe, one JSON object a line: for your own checks
    #[arg(long, value_name = "FILE")]
    findings: Option<PathBuf>,
}

/// Places that are looked at when `--config` names none.
const PLACES: [&str; 2] = ["agent.yaml", "/etc/nightshift/agent.yaml"];

pub(super) fn run(args: &AgentArgs, invocation: &Invocation) -> Result<(), CliError> {
    without_huge_pages("agent");
    super::private::keep_files_private();
    let settings = settings(args, invocation)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // An agent is small: only its disk blocks, and there is one of it.
        .max_blocking_threads(limits::AGENT_THREADS)
        .build()
        .map_err(|error| CliError::failure(format!("runtime: {error}"), ""))?;
    if let Some(token) = &args.join {
        return runtime.block_on(joined(&settings, token, invocation));
    }
    let json = settings.log.json.unwrap_or_else(|| !std::io::stderr().is_terminal());
    telemetry::init(&settings.log.level, json).map_err(|why| CliError::usage(why, "fix `log.level`"))?;
    let ended = runtime.block_on(serve(settings, args.findings.clone()));
    runtime.shutdown_timeout(limits::SHUTDOWN_SIGN);
    ended
}

async fn serve(settings: AgentConfig, findings: Option<PathBuf>) -> Result<(), CliError> {
    let wrong = |why: String| CliError::usage(why, "fix agent.yaml, or see `nightshift agent --help`");
    let settings = Arc::new(settings);
    let [_, certificate, _] = identity_paths(&settings.data_dir);
    let https = settings.engine.as_deref().is_some_and(|engine| engine.starts_with("https:"));
    if https && settings.token_file.is_none() && !certificate.exists() {
        return Err(wrong(format!(
            "this agent has neither a `token_file` nor a certificate in {}: join with `nightshift agent --join -`, which reads the token from stdin",
            settings.data_dir.display()
        )));
    }
    make_private(&settings)?;
    let machine = Machine::here(node_name(&settings), Arc::clone(&settings));
    let link = HttpLink::new(Arc::clone(&settings), &machine.clock).map_err(wrong)?;
    let agent =
        Agent::new(machine.clone(), Arc::new(link)).map_err(|why| CliError::failure(why, "is `data_dir` writable?"))?;
    let (stop, stopped) = watch::channel(false);
    let hear =
        |kind| signal(kind).map_err(|error| CliError::failure(format!("cannot install signal handlers: {error}"), ""));
    let (mut terminate, mut interrupt) = (hear(SignalKind::terminate())?, hear(SignalKind::interrupt())?);
    let extra = findings.map(|path| {
        let (out, heard) = mpsc::channel(limits::FINDINGS_QUEUE);
        tokio::spawn(read_findings(path, out));
        heard
    });
    eprintln!(
        "nightshift agent {} ready on node {} (engine {}, kill file {})",
        env!("CARGO_PKG_VERSION"),
        machine.name,
        settings.engine.as_deref().unwrap_or_default(),
        settings.kill_file.display()
    );
    let running = agent.run(stopped, extra);
    tokio::pin!(running);
    tokio::select! {
        () = &mut running => return Ok(()),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = stop.send(true);
    running.await;
    Ok(())
}

/// Lines of JSON, as long as the pipe has a writer. A pipe without a writer is opened again.
async fn read_findings(path: PathBuf, out: mpsc::Sender<Finding>) {
    loop {
        let file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) => return tracing::error!(%error, path = %path.display(), "cannot read findings"),
        };
        let mut lines = tokio::io::BufReader::new(file).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(finding) => {
                    if out.send(finding).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, path = %path.display(), "line is not a finding; skipped"),
            }
        }
        let is_file = std::fs::metadata(&path).is_ok_and(|meta| meta.is_file());
        if is_file {
            return;
        }
    }
}

/// Findings, commands and the node's key are for this user alone.
fn make_private(settings: &AgentConfig) -> Result<(), CliError> {
    let hint = "make the folder, or set `data_dir` in agent.yaml";
    super::private::folder(&settings.data_dir).map_err(|why| CliError::failure(format!("data_dir: {why}"), hint))
}

async fn joined(settings: &AgentConfig, token: &str, invocation: &Invocation) -> Result<(), CliError> {
    let token = match token {
        "-" => std::io::read_to_string(std::io::stdin())
            .map_err(|error| CliError::failure(format!("stdin: {error}"), ""))?,
        token => token.to_owned(),
    };
    make_private(settings)?;
    let joined = join(settings, token.trim())
        .await
        .map_err(|why| CliError::failure(why, "make another token with `nightshift agents join-token`"))?;
    invocation.line(&format!(
        "{} joined; its certificate is valid until {} and is renewed automatically",
        joined.node, joined.ends
    ))
}

fn settings(args: &AgentArgs, invocation: &Invocation) -> Result<AgentConfig, CliError> {
    let named = invocation.global.config.clone();
    let path = named.or_else(|| PLACES.iter().map(PathBuf::from).find(|path| path.is_file()));
    let mut settings = match &path {
        Some(path) => {
            invocation.say(&format!("configuration {}", path.display()));
            AgentConfig::load(path).map_err(|why| CliError::usage(why, ""))?
        }
        None => AgentConfig::default(),
    };
    let given = |path: &Option<PathBuf>| path.as_deref().map(Path::to_owned);
    settings.engine = args.engine.clone().or(settings.engine);
    settings.node = args.node.clone().or(settings.node);
    settings.cluster = args.cluster.clone().or(settings.cluster);
    settings.data_dir = given(&args.data_dir).unwrap_or(settings.data_dir);
    settings.token_file = given(&args.agent_token_file).or(settings.token_file);
    Ok(settings)
}
