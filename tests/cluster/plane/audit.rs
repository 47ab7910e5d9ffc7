//! The API server's audit log: what it was asked, by whom, and what it answered. Effects and calls are counted from it.
//!
//! Invariant: a request whose answer has arrived is in it, since the API server writes the line before it ends the answer.

use serde::Deserialize;
use serde_json::Value;
use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Mutex;

/// One request, when its answer was complete; a watch, when it began.
#[derive(Debug, Clone)]
pub struct Asked {
    pub id: String,
    pub verb: String,
    /// As RBAC names it: `pods/eviction`.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub code: u16,
    pub user: String,
    pub agent: String,
    pub path: String,
    /// From its arrival, in microseconds since 1970.
    pub arrived: i64,
    pub answered: i64,
}

impl Asked {
    /// An accepted patch of a node itself, as a cordon is one.
    pub fn is_patch_of_node(&self) -> bool {
        self.verb == "patch" && self.resource == "nodes" && self.code < 300
    }

    /// An accepted request that changes something, as `patch nodes`; evictions and scalings under their own names.
    pub fn change(&self) -> Option<String> {
        if !matches!(self.verb.as_str(), "patch" | "create" | "update" | "delete") || self.code >= 300 {
            return None;
        }
        Some(match self.resource.split_once('/') {
            Some((resource, "eviction")) => format!("evict {resource}"),
            Some((resource, "scale")) => format!("scale {resource}"),
            _ => format!("{} {}", self.verb, self.resource),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    #[serde(default)]
    user_agent: String,
    user: Value,
    #[serde(default)]
    object_ref: Value,
    #[serde(default)]
    response_status: Value,
    request_received_timestamp: String,
    stage_timestamp: String,
}

pub struct Audit {
    file: PathBuf,
    read: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    to: u64,
    lines: Vec<Asked>,
    /// A watch has two lines: one when it begins, one when it ends.
    watches: HashSet<String>,
}

impl Audit {
    pub fn of(file: PathBuf) -> Audit {
        Audit { file, read: Mutex::default() }
    }

    /// All requests whose user agent begins so, in the order in which they were answered.
    pub fn of_agent(&self, agent: &str) -> Vec<Asked> {
        self.select(|asked| asked.agent.starts_with(agent))
    }

    pub fn select(&self, wanted: impl Fn(&Asked) -> bool) -> Vec<Asked> {
        let mut kept = self.read.lock().unwrap_or_else(|broken| broken.into_inner());
        self.read_on(&mut kept);
        kept.lines.iter().filter(|asked| wanted(asked)).cloned().collect()
    }

    /// The last such request, without copying the others.
    pub fn last(&self, wanted: impl Fn(&Asked) -> bool) -> Option<Asked> {
        let mut kept = self.read.lock().unwrap_or_else(|broken| broken.into_inner());
        self.read_on(&mut kept);
        kept.lines.iter().rev().find(|asked| wanted(asked)).cloned()
    }

    fn read_on(&self, kept: &mut Kept) {
        let Ok(mut file) = std::fs::File::open(&self.file) else { return };
        file.seek(SeekFrom::Start(kept.to)).unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        // The last line may be half written.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        kept.to += whole as u64;
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Line = serde_json::from_slice(line).unwrap();
            let asked = asked(line);
            if asked.verb != "watch" || kept.watches.insert(asked.id.clone()) {
                kept.lines.push(asked);
            }
        }
    }
}

fn asked(line: Line) -> Asked {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let micros = |stamp: &str| stamp.parse::<nightshift::model::Time>().map_or(0, |time| time.as_microsecond());
    let (resource, part) = (text(&line.object_ref["resource"]), text(&line.object_ref["subresource"]));
    debug_assert!(line.stage.starts_with("Response") || line.stage == "Panic");
    Asked {
        id: line.audit_id,
        verb: line.verb,
        resource: if part.is_empty() { resource } else { format!("{resource}/{part}") },
        namespace: text(&line.object_ref["namespace"]),
        name: text(&line.object_ref["name"]),
        code: line.response_status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
        user: text(&line.user["username"]),
        agent: line.user_agent,
        path: line.request_uri,
        arrived: micros(&line.request_received_timestamp),
        answered: micros(&line.stage_timestamp),
    }
}
