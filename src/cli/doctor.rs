//! `nightshift doctor`: checks everything that this installation needs, and names the text to paste to fix it.
//!
//! Invariant: it changes nothing, sends no page, and runs every check even after one has failed.

mod cluster;
mod engines;
mod inside;
mod outside;
mod provider;
mod reach;
mod slack;

use super::invocation::{Invocation, TextStyle, clean};
use super::stop::{CliError, CliExitCode};
use crate::config::Config;
use serde::Serialize;
use serde_json::json;

#[derive(clap::Args)]
pub(super) struct DoctorArgs {
    /// Check only this machine: contact no cluster, no Prometheus, no channel
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum DoctorStatus {
    Good,
    Odd,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct DoctorFinding {
    area: String,
    health: DoctorStatus,
    what: String,
    /// The text to paste; empty where nothing is to fix.
    #[serde(skip_serializing_if = "String::is_empty")]
    mend: String,
}

/// Everything that was looked at so far.
#[derive(Debug, Default)]
struct DoctorFindings(Vec<DoctorFinding>);

impl DoctorFindings {
    fn good(&mut self, area: &str, what: impl Into<String>) {
        self.add(area, DoctorStatus::Good, what, "");
    }

    fn odd(&mut self, area: &str, what: impl Into<String>, mend: impl Into<String>) {
        self.add(area, DoctorStatus::Odd, what, mend);
    }

    fn bad(&mut self, area: &str, what: impl Into<String>, mend: impl Into<String>) {
        self.add(area, DoctorStatus::Bad, what, mend);
    }

    fn add(&mut self, area: &str, health: DoctorStatus, what: impl Into<String>, mend: impl Into<String>) {
        self.0.push(DoctorFinding { area: area.to_owned(), health, what: what.into(), mend: mend.into() });
    }
}

pub(super) fn run(args: &DoctorArgs, invocation: &Invocation) -> Result<(), CliError> {
    // A configuration that cannot be read has been explained already: there is nothing else to look at.
    let (config, found) = invocation.config()?;
    let offline = args.offline;
    let place = found.to_string();
    let looked = std::thread::Builder::new()
        .stack_size(crate::limits::SCRIPT_STACK_BYTES)
        .spawn(move || look(&config, &place, offline))
        .map_err(|error| CliError::failure(format!("cannot start a thread: {error}"), ""))?
        .join()
        .map_err(|_| CliError::failure("doctor itself failed", "report this"))?;
    let findings = looked?.0;
    report(invocation, &findings)?;
    let worst = |health: DoctorStatus| findings.iter().any(|finding| finding.health == health);
    match (worst(DoctorStatus::Bad), worst(DoctorStatus::Odd)) {
        (true, _) => Err(CliError::said(CliExitCode::Failure)),
        (false, true) => Err(CliError::said(CliExitCode::Partial)),
        (false, false) => Ok(()),
    }
}

fn look(config: &Config, place: &str, offline: bool) -> Result<DoctorFindings, CliError> {
    let mut findings = DoctorFindings::default();
    findings.good("configuration", place.strip_prefix("configuration ").unwrap_or(place));
    inside::secrets(config, &mut findings);
    inside::files(config, &mut findings);
    let loaded = inside::catalog(config, &mut findings);
    inside::port(config, &mut findings);
    if offline {
        inside::tokens(config, &[], &mut findings);
    }
    if !offline {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::failure(format!("runtime: {error}"), ""))?;
        runtime.block_on(outside::all(config, loaded.as_deref(), &mut findings))?;
    }
    Ok(findings)
}

fn report(invocation: &Invocation, findings: &[DoctorFinding]) -> Result<(), CliError> {
    if invocation.json() {
        return invocation.print_json(&json!({ "findings": findings }));
    }
    let width = findings.iter().map(|finding| finding.area.chars().count()).max().unwrap_or_default();
    for finding in findings {
        let (paint, word) = match finding.health {
            DoctorStatus::Good => (TextStyle::Good, "good"),
            DoctorStatus::Odd => (TextStyle::Odd, "odd "),
            DoctorStatus::Bad => (TextStyle::Bad, "bad "),
        };
        invocation.line(&format!(
            "{}  {:<width$}  {}",
            invocation.paint(paint, word),
            finding.area,
            clean(&finding.what, 400)
        ))?;
        for line in finding.mend.lines() {
            invocation.line(&format!("      {}", invocation.paint(TextStyle::Dim, &clean(line, 400))))?;
        }
    }
    let count = |health: DoctorStatus| findings.iter().filter(|finding| finding.health == health).count();
    invocation.say(&format!(
        "{} good, {} odd, {} bad",
        count(DoctorStatus::Good),
        count(DoctorStatus::Odd),
        count(DoctorStatus::Bad)
    ));
    Ok(())
}
