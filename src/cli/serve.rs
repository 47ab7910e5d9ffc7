//! `nightshift serve`: puts the parts together, runs them, and ends them in order.
//!
//! Invariant: nothing is accepted before everything that was promised stands; the first signal ends gracefully, the second
//! at once.

mod agents;
mod assemble;

pub(super) use assemble::{assemble_world, folders};

use super::invocation::Invocation;
use super::pages::without_huge_pages;
use super::stop::{CliError, CliExitCode};
use crate::config::{Config, SecretSource};
use crate::engine::{self, EngineParts, EventLog};
use crate::notifiers::slack::SlackWebClient;
use crate::{limits, server, telemetry};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(clap::Args)]
pub(super) struct ServeArgs {
    /// Listen here instead of `server.listen`; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Also run this machine's agent in the same process
    #[arg(long)]
    with_agent: bool,
    /// Start even if signed ledger entries are missing or the signing key is lost; recorded in the ledger
    #[arg(long)]
    accept_loss: bool,
}

pub(super) fn run(args: &ServeArgs, invocation: &Invocation) -> Result<(), CliError> {
    without_huge_pages("serve");
    super::private::keep_files_private();
    let (mut config, found) = invocation.config()?;
    invocation.say(&found.to_string());
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    server::check_listen(&config.server).map_err(|why| CliError::usage(why, ""))?;
    let json = config.log.json.unwrap_or_else(|| !std::io::stderr().is_terminal());
    telemetry::init(&config.log.level, json).map_err(|why| CliError::usage(why, "fix `log.level`"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("nightshift")
        .thread_stack_size(limits::SCRIPT_STACK_BYTES)
        .enable_all()
        .build()
        .map_err(|error| CliError::failure(format!("runtime: {error}"), ""))?;
    // Spawned, not blocked on: only the runtime's own threads have the stack that scripts need.
    let file = found.path().map(Path::to_owned);
    let served = runtime.block_on(runtime.spawn(serve(config, file, args.with_agent, args.accept_loss)));
    runtime.shutdown_timeout(limits::SHUTDOWN_SIGN);
    served.map_err(|bug| {
        CliError::failure(
            format!("a bug ended the engine: {bug}"),
            "restart it: recorded runs continue; and report this",
        )
    })?
}

/// Opens the doors of an identity provider, Slack and PagerDuty, where the configuration has them.
fn with_doors(app: server::App, config: &Config) -> Result<server::App, CliError> {
    let app = match &config.server.oidc {
        None => app,
        Some(oidc) => {
            let wrong = |why: String| CliError::usage(format!("server.oidc: {why}"), "fix `server.oidc`");
            let secret = oidc.client_secret.as_ref().map(SecretSource::read).transpose().map_err(wrong)?;
            let public = config.server.public_url.as_deref().unwrap_or_default();
            app.with_provider(server::OidcProvider::new(oidc.clone(), public, secret).map_err(wrong)?)
        }
    };
    let app = match &config.pagerduty {
        None => app,
        Some(webhook) => {
            // All of them or none: with none every request is refused, until the files can be read.
            let secrets: Result<Vec<String>, String> = webhook.signing_secrets.iter().map(SecretSource::read).collect();
            app.with_pagerduty(server::PagerDutyDoor::new(&secrets.unwrap_or_default()))
        }
    };
    let Some(slack) = &config.slack else { return Ok(app) };
    let wrong = |why: String| CliError::usage(format!("slack: {why}"), "fix `slack` in the configuration");
    let hooks = slack.hooks.parse().map_err(|error| wrong(format!("hooks: {error}")))?;
    let http = app.parts.world.http.clone();
    // An unreadable one has been logged; its endpoints stay shut.
    let token = config.slack_token().and_then(|secret| secret.read().ok());
    let web = token.map(|token| SlackWebClient::new(http, &slack.api, &token));
    if web.is_none() {
        tracing::warn!("slack: no bot token, so there are no forms and no app home page: set `slack.token`");
    }
    // In place of a secret that cannot be read stands one that only this engine has, until the file is there.
    let shut = || hex::encode(app.parts.key.secret_for("slack's signing secret is missing"));
    let signing_secret = slack.signing_secret.as_ref().map(|secret| secret.read().unwrap_or_else(|_| shut()));
    let seal = assemble::seal(&app.parts.key, config);
    Ok(app.with_slack(server::SlackEndpoint { signing_secret, hooks, web, seal }))
}

async fn serve(config: Config, file: Option<PathBuf>, with_agent: bool, accept_loss: bool) -> Result<(), CliError> {
    let mut signals = StopSignals::new()?;
    let (parts, log) = assemble::assemble(config, accept_loss).await?;
    let config = Arc::clone(&parts.config);
    let tokens = server::ConfiguredTokens::load(&config.server, &config.data_dir)
        .map_err(|why| CliError::usage(why, "fix `server.tokens` in the configuration"))?;
    let listener = TcpListener::bind(config.server.listen).await.map_err(|error| {
        CliError::failure(
            format!("cannot listen on {}: {error}", config.server.listen),
            "is another engine running here? Choose another `server.listen`",
        )
    })?;
    let address = listener.local_addr().unwrap_or(config.server.listen);
    let app = with_doors(server::App::new(parts.clone(), tokens), &config)?;
    let (stop, stopped) = watch::channel(false);
    let (app, door) = agents::open(app).await?;
    let agent = if with_agent { Some(agents::inside(&app)?) } else { None };
    let mut tasks = EngineTasks {
        server: tokio::spawn(server::serve(app.clone(), listener, ended(stopped.clone()))),
        engine: tokio::spawn(engine::run(parts.clone(), stopped.clone())),
        slack: tokio::spawn(server::listen_to_slack(app.clone(), stopped.clone())),
        roster: tokio::spawn(roster(app.clone(), file, stopped.clone())),
        agents: tokio::spawn(agents::run(app, door, agent, stopped)),
    };
    eprintln!("{}", ready(&parts, address));
    let early = tokio::select! {
        () = signals.next() => None,
        why = tasks.first() => Some(why),
    };
    let _ = stop.send(true);
    tracing::info!("stopping: no new requests; running commits finish");
    let end = async {
        if tokio::time::timeout(limits::SHUTDOWN, tasks.all()).await.is_err() {
            tracing::warn!("shutdown deadline passed with work open; the next start settles it");
        }
        close(&parts, &log).await
    };
    let closed = tokio::select! {
        closed = end => closed,
        () = signals.next() => return Err(CliError::new(CliExitCode::Interrupted, "ended at once by a second signal", "the next start settles open work")),
    };
    match early {
        Some(why) => Err(CliError::failure(why, "restart it: recorded runs continue; and report this")),
        None => closed,
    }
}

/// Signs the ledger's end, and closes the store; then the log has every line.
async fn close(parts: &EngineParts, log: &EventLog) -> Result<(), CliError> {
    let hint = "no acknowledged data is lost; restart and run `nightshift audit verify`";
    let signed = parts.store.checkpoint(parts.key.clone(), parts.clock.now()).await;
    let closed = parts.store.close().await;
    if closed.is_ok() {
        log.close();
    }
    signed.map_err(|error| CliError::failure(format!("the last checkpoint could not be signed: {error}"), hint))?;
    closed.map_err(|error| CliError::failure(format!("the store could not be closed: {error}"), hint))
}

/// The one line that says that it works.
fn ready(parts: &EngineParts, address: SocketAddr) -> String {
    let loaded = parts.catalog.current();
    format!(
        "nightshift {} ready on http://{address} (store {}, {} rules, {} runbooks, mode ceiling {})",
        env!("CARGO_PKG_VERSION"),
        parts.config.store_path().display(),
        loaded.rules.rules().count(),
        loaded.runbooks.len(),
        parts.config.mode_ceiling
    )
}

async fn ended(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Takes in changed people and tokens; without a file there is nothing to look at.
async fn roster(app: server::App, file: Option<PathBuf>, stopped: watch::Receiver<bool>) {
    match file {
        Some(file) => server::watch_roster(app, file, stopped).await,
        None => ended(stopped).await,
    }
}

/// The parts of the engine. None may end before it is told to.
struct EngineTasks {
    server: JoinHandle<std::io::Result<()>>,
    engine: JoinHandle<()>,
    /// The connection with Slack; ends only when told to, also where there is none.
    slack: JoinHandle<()>,
    roster: JoinHandle<()>,
    /// The door for agents, and the agent inside; ends only when told to, also where there is neither.
    agents: JoinHandle<()>,
}

impl EngineTasks {
    /// Which one ended first, and how.
    async fn first(&mut self) -> String {
        tokio::select! {
            ended = &mut self.server => match ended {
                Ok(Ok(())) => "the server ended unexpectedly".to_owned(),
                Ok(Err(error)) => format!("the server failed: {error}"),
                Err(bug) => format!("a bug ended the server: {bug}"),
            },
            ended = &mut self.engine => match ended {
                Ok(()) => "the loops ended by themselves".to_owned(),
                Err(bug) => format!("a bug ended the loops: {bug}"),
            },
            ended = &mut self.slack => match ended {
                Ok(()) => "the connection with Slack ended unexpectedly".to_owned(),
                Err(bug) => format!("a bug ended the connection with Slack: {bug}"),
            },
            ended = &mut self.roster => match ended {
                Ok(()) => "the reload of users and tokens ended unexpectedly".to_owned(),
                Err(bug) => format!("a bug ended the reload of users and tokens: {bug}"),
            },
            ended = &mut self.agents => match ended {
                Ok(()) => "the agent listener ended unexpectedly".to_owned(),
                Err(bug) => format!("a bug ended the agent listener: {bug}"),
            },
        }
    }

    async fn all(&mut self) {
        // A task that has ended may not be asked again.
        if !self.server.is_finished() {
            let _ = (&mut self.server).await;
        }
        if !self.agents.is_finished() {
            let _ = (&mut self.agents).await;
        }
        if !self.slack.is_finished() {
            let _ = (&mut self.slack).await;
        }
        if !self.roster.is_finished() {
            let _ = (&mut self.roster).await;
        }
        if !self.engine.is_finished() {
            let _ = (&mut self.engine).await;
        }
    }
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// Those who read files again listen for themselves; this one is here so that it ends nothing before they do.
    _hangup: Signal,
}

impl StopSignals {
    fn new() -> Result<StopSignals, CliError> {
        let listen = |kind| {
            signal(kind).map_err(|error| CliError::failure(format!("cannot install signal handlers: {error}"), ""))
        };
        Ok(StopSignals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            _hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
