//! `nightshift why`: action and inaction explained; `--explain CODE` prints the page of a reason.
//!
//! Invariant: every reason code has a page, and every answer names the entry that it rests on.

use super::client::Client;
use super::invocation::{Invocation, Paint};
use super::stop::{Code, Stop};
use super::{page, reasons};
use crate::api::{ExplainedOutcome, Explanation, ExplanationLine, WhyQuery};
use crate::model::ReasonCode;
use serde_json::{Value, json};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A run (r17), an incident (i3), an alert's name or fingerprint, a node or any other part of a subject, or a scope with a
    /// freeze or breaker: all, cluster:NAME, rule:NAME, symptom:RULE. For a rule's name: its current mode, and the reason
    #[arg(required_unless_present = "explain")]
    subject: Option<String>,
    /// Print the page of a reason code, e.g. blast_radius; `all` prints every page
    #[arg(long, value_name = "CODE", conflicts_with = "subject")]
    explain: Option<String>,
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    if let Some(code) = &args.explain {
        return explain(code, invocation);
    }
    let subject = args.subject.clone().unwrap_or_default();
    let answer = Client::new(invocation)?.get::<Explanation>("why", &WhyQuery { subject })?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let explanation = answer.read()?;
    let mut codes: Vec<String> = Vec::new();
    for (at, block) in explanation.blocks.iter().enumerate() {
        if at > 0 {
            invocation.line("")?;
        }
        let time = invocation.format(block.at, "%Y-%m-%d %H:%M:%S %Z");
        invocation.line(&format!(
            "{}  {}",
            invocation.paint(Paint::Dim, &time),
            invocation.paint(Paint::Strong, &page::text(&block.title))
        ))?;
        for line in &block.lines {
            print(invocation, line)?;
            codes.extend(line.code.clone().filter(|code| !codes.contains(code)));
        }
    }
    for code in codes {
        invocation.say(&format!("the meaning of `{code}`: nightshift why --explain {}", page::text(&code)));
    }
    Ok(())
}

fn print(invocation: &Invocation, line: &ExplanationLine) -> Result<(), Stop> {
    let paint = match line.what {
        ExplainedOutcome::Did => Paint::Good,
        ExplainedOutcome::DidNot => Paint::Odd,
        ExplainedOutcome::Decided => Paint::Strong,
        ExplainedOutcome::Now => Paint::Dim,
    };
    let what = invocation.paint(paint, &format!("{:<8}", line.what.word()));
    let code = line.code.as_ref().map(|code| format!(" [{}]", page::text(code))).unwrap_or_default();
    let no = line.no.map(|no| format!("  {no}")).unwrap_or_default();
    invocation.line(&format!("  {what}  {}{code}{}", page::text(&line.text), invocation.paint(Paint::Dim, &no)))
}

fn explain(code: &str, invocation: &Invocation) -> Result<(), Stop> {
    let wanted: Vec<ReasonCode> = match code {
        "all" => ReasonCode::ALL.to_vec(),
        _ => ReasonCode::ALL.iter().copied().filter(|known| known.name() == code).collect(),
    };
    if wanted.is_empty() {
        let names: Vec<&str> = ReasonCode::ALL.iter().map(|code| code.name()).collect();
        let hint = match crate::config::closest(code, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("codes: {}", names.join(", ")),
        };
        return Err(Stop::new(Code::NotFound, format!("`{}` is no reason code", code.escape_debug()), hint));
    }
    let pages: Vec<(&str, &str)> = wanted.iter().map(|code| (code.name(), reasons::page(*code))).collect();
    if invocation.json() {
        let list: Vec<Value> = pages.iter().map(|(code, page)| json!({ "code": code, "page": page })).collect();
        return invocation.print_json(&json!({ "reasons": list }));
    }
    for (at, (code, page)) in pages.iter().enumerate() {
        let gap = if at > 0 { "\n" } else { "" };
        invocation.line(&format!("{gap}{}\n\n{page}", invocation.paint(Paint::Strong, code)))?;
    }
    Ok(())
}
