//! The Docker engine of this machine, over its socket: containers that bear our label are listed, looked at and restarted.
//!
//! Invariant: access to that socket is root, so this client has three requests and no more; nothing is created,
//! executed, mounted or removed.

use super::WorldError;
use crate::limits;
use bollard::query_parameters::{ListContainersOptions, RestartContainerOptions};
use bollard::{API_DEFAULT_VERSION, errors::Error};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

/// The label that puts a container into our hands; its value is the served name of the model.
pub const MODEL: &str = "nightshift.dev/model";

/// How to reach the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DockerConfig {
    /// Its socket.
    pub socket: PathBuf,
}

impl Default for DockerConfig {
    fn default() -> Self {
        DockerConfig { socket: PathBuf::from("/var/run/docker.sock") }
    }
}

/// The fields of a container that we use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerContainer {
    pub name: String,
    pub id: String,
    pub image: String,
    /// Docker's word: `running`, `exited`, `restarting`, …
    pub state: String,
    /// `healthy`, `unhealthy`, `starting`; empty where the image has no check.
    pub health: String,
    /// RFC 3339 to the nanosecond; another one means that it was restarted.
    pub started_at: String,
    pub labels: BTreeMap<String, String>,
}

impl DockerContainer {
    /// The model in the container's label; empty where it has none.
    pub fn model(&self) -> &str {
        self.labels.get(MODEL).map(String::as_str).unwrap_or_default()
    }

    /// Why it may not be touched, in words.
    pub fn protected(&self) -> Option<String> {
        if self.labels.get(super::OPT_OUT).is_some_and(|value| value == "true") {
            return Some(format!("container {} has the label {}=true", self.name, super::OPT_OUT));
        }
        let ours = !self.model().is_empty();
        (!ours).then(|| format!("container {} does not have the label {MODEL}, so it is not ours", self.name))
    }
}

/// The client. Connects anew for each question, so that an engine that was restarted is no trouble.
#[derive(Clone, Debug)]
pub struct DockerClient {
    socket: PathBuf,
    /// Of the step that this client is for; see `World::gated`.
    gate: Option<super::KillSwitchGate>,
}

impl DockerClient {
    /// A client of this socket. Connects to nothing yet.
    pub fn new(config: &DockerConfig) -> DockerClient {
        DockerClient { socket: config.socket.clone(), gate: None }
    }

    /// The same client, which restarts nothing while this gate is closed.
    pub(super) fn gated(&self, gate: &super::KillSwitchGate) -> DockerClient {
        DockerClient { gate: Some(gate.clone()), ..self.clone() }
    }

    /// All containers with our label, by name; those that do not run, too.
    ///
    /// # Errors
    ///
    /// Fails when the engine is not reached or refuses, or more than `CONTAINERS` containers bear the label.
    pub async fn containers(&self) -> Result<Vec<DockerContainer>, WorldError> {
        let client = self.client(limits::DOCKER_TIMEOUT)?;
        let filters = HashMap::from([("label".to_owned(), vec![MODEL.to_owned()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        let listed = client.list_containers(Some(options)).await.map_err(|error| self.trouble("containers", &error))?;
        if listed.len() > limits::CONTAINERS {
            let why = format!("{} containers bear the label {MODEL}, more than {}", listed.len(), limits::CONTAINERS);
            return Err(WorldError::Invalid(why));
        }
        let mut found = Vec::new();
        for id in listed.into_iter().filter_map(|container| container.id) {
            match self.container(&id).await {
                Ok(container) => found.push(container),
                // Removed between the two questions.
                Err(WorldError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// One container, by name or id.
    ///
    /// # Errors
    ///
    /// Fails when the name is not valid, no such container exists, or the engine is not reached or refuses.
    pub async fn container(&self, name: &str) -> Result<DockerContainer, WorldError> {
        check(name)?;
        let client = self.client(limits::DOCKER_TIMEOUT)?;
        let found = client.inspect_container(name, None).await.map_err(|error| self.trouble(name, &error))?;
        let state = found.state.unwrap_or_default();
        let config = found.config.unwrap_or_default();
        let health = state.health.and_then(|health| health.status).map(|status| status.to_string());
        Ok(DockerContainer {
            name: found.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            id: found.id.unwrap_or_default(),
            image: config.image.unwrap_or_default(),
            state: state.status.map(|status| status.to_string()).unwrap_or_default(),
            health: health.filter(|health| health != "none").unwrap_or_default(),
            started_at: state.started_at.unwrap_or_default(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
        })
    }

    /// Ends a container, kills it after `grace`, and starts it again. By id: another one may bear the name by now.
    ///
    /// # Errors
    ///
    /// Fails when no such container exists, or the engine is not reached, refuses, or does not answer in time.
    pub async fn restart(&self, id: &str, grace: Duration) -> Result<(), WorldError> {
        check(id)?;
        let client = self.client(grace + limits::CONTAINER_RESTART_SLACK)?;
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = RestartContainerOptions { t: Some(seconds), ..RestartContainerOptions::default() };
        self.gate.as_ref().map_or(Ok(()), super::KillSwitchGate::pass)?;
        client.restart_container(id, Some(options)).await.map_err(|error| self.trouble(id, &error))
    }

    fn client(&self, timeout: Duration) -> Result<bollard::Docker, WorldError> {
        let path = self.socket.to_string_lossy();
        // The version is not sent: paths without one are answered by every engine in its own.
        bollard::Docker::connect_with_unix(&path, timeout.as_secs().max(1), API_DEFAULT_VERSION)
            .map_err(|error| self.trouble("", &error))
    }

    fn trouble(&self, what: &str, error: &Error) -> WorldError {
        let socket = self.socket.display();
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                let message: String = message.chars().take(limits::REASON_CHARS).collect();
                match status_code {
                    404 => WorldError::NotFound(format!("container {what}")),
                    409 => WorldError::Conflict(message),
                    401 | 403 => WorldError::Forbidden(message),
                    400..500 => WorldError::Invalid(message),
                    _ => WorldError::Unavailable(message),
                }
            }
            Error::SocketNotFoundError(_) => {
                WorldError::Unreached(format!("the Docker engine at {socket}: there is no such socket"))
            }
            other => {
                let text = causes(other);
                if text.contains("Permission denied") {
                    WorldError::Forbidden(format!("the Docker engine at {socket}: {text}"))
                } else if matches!(other, Error::HyperLegacyError { err } if err.is_connect()) {
                    WorldError::Unreached(format!("the Docker engine at {socket}: {text}"))
                } else {
                    WorldError::Unavailable(format!("the Docker engine at {socket}: {text}"))
                }
            }
        }
    }
}

/// A name as Docker allows it, so that it cannot lead to another path of the API.
fn check(name: &str) -> Result<(), WorldError> {
    let fits = |(at, c): (usize, char)| c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '_' | '.' | '-'));
    if name.len() > 1 && name.len() <= 255 && name.chars().enumerate().all(fits) {
        return Ok(());
    }
    let shown: String = name.chars().take(limits::QUOTE_CHARS).collect();
    Err(WorldError::Invalid(format!("{shown:?} is not a container name: use letters, digits, `_`, `.` and `-`")))
}

/// An error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_to_another_path() {
        for good in ["llm", "vllm-1", "a.b_c", "0dba48066109"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "a", "../x", "a/b", "a?b", "-ab", ".ab", "a b", "a%2fb", "ä1", &"x".repeat(256)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_bears_our_label_is_ours() {
        let container = |labels: &[(&str, &str)]| DockerContainer {
            name: "llm".to_owned(),
            id: "1".to_owned(),
            image: "i".to_owned(),
            state: "running".to_owned(),
            health: String::new(),
            started_at: "t".to_owned(),
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        assert_eq!(container(&[(MODEL, "m")]).protected(), None);
        assert!(container(&[]).protected().unwrap().contains("not ours"));
        assert!(container(&[(MODEL, "m"), (super::super::OPT_OUT, "true")]).protected().unwrap().contains("opt-out"));
    }
}
