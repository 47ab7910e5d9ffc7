//! The agents' side of `serve`: their door, and the agent inside.
//!
//! Invariant: either the agents' listener is open before the engine reports that it is ready, or the error names the
//! fix.

use crate::agent::{Agent, node_name};
use crate::cli::stop::CliError;
use crate::node::Machine;
use crate::server::agents::{AgentAuthority, AgentEndpoint, InProcessLink};
use crate::server::{self, App};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// A listener and its handshake.
pub(super) type AgentTlsListener = Option<(TcpListener, TlsAcceptor)>;

/// Opens the door for agents where one is configured.
pub(super) async fn open(app: App) -> Result<(App, AgentTlsListener), CliError> {
    let config = Arc::clone(&app.parts.config);
    let Some(listen) = config.agents.listen else { return Ok((app, None)) };
    let wrong = |why: String| CliError::failure(why, "fix `agents` in the configuration");
    let now = app.parts.clock.now();
    let authority = AgentAuthority::open_or_create(&config.data_dir, &config.install, now).map_err(wrong)?;
    let tls = server::agents::listen(&config.agents, &authority, now).map_err(wrong)?;
    let listener =
        TcpListener::bind(listen).await.map_err(|error| wrong(format!("cannot listen on {listen}: {error}")))?;
    tracing::info!(address = %listener.local_addr().unwrap_or(listen), "agent listener started");
    Ok((app.with_agents(AgentEndpoint::new(Some(Arc::new(authority)))), Some((listener, tls))))
}

/// The agent of this machine, with its own folder within ours.
pub(super) fn inside(app: &App) -> Result<Agent, CliError> {
    let mut settings = app.parts.config.agent.clone();
    settings.data_dir = app.parts.config.data_dir.join("agent");
    let settings = Arc::new(settings);
    let node = node_name(&settings);
    let link = InProcessLink::new(app.clone(), &node);
    Agent::new(Machine::here(node, settings), Arc::new(link))
        .map_err(|why| CliError::failure(why, "is `data_dir` writable?"))
}

/// Runs both until `stop`.
pub(super) async fn run(app: App, door: AgentTlsListener, agent: Option<Agent>, stop: watch::Receiver<bool>) {
    let serving = async {
        if let Some((listener, tls)) = door
            && let Err(error) = server::agents::serve(app, listener, tls, super::ended(stop.clone())).await
        {
            tracing::error!(%error, "the agent listener failed");
        }
    };
    let working = async {
        if let Some(agent) = agent {
            agent.run(stop.clone(), None).await;
        }
    };
    tokio::join!(serving, working, super::ended(stop.clone()));
}
