//! `nightshift scorecard`, `judge`, `promote` and `demote`: the modes of rules, and the evidence behind them.
//!
//! Invariant: every number is the engine's; an unknown one is shown as unknown.

use super::client::Client;
use super::invocation::{Invocation, Paint};
use super::page;
use super::stop::Stop;
use crate::api::{JudgeAnswer, JudgeRequest, MoveRequest, MovedRule, ScorecardAnswer, ScorecardList};
use crate::model::{Mode, Scorecard, Span};
use serde_json::json;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Rule; without it, one line for each rule
    rule: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Verdict {
    Right,
    Wrong,
}

#[derive(clap::Args)]
pub(super) struct JudgeArgs {
    /// The run (r17)
    run: String,
    /// Whether its actions or its plan were right; your latest review counts
    #[arg(value_enum)]
    verdict: Verdict,
    /// Reason; recorded in the ledger
    #[arg(short, long, visible_alias = "reason", default_value = "")]
    why: String,
}

#[derive(clap::Args)]
pub(super) struct PromoteArgs {
    /// The rule
    rule: String,
    /// Expected mode, as a safeguard: it must be the next level
    #[arg(long, value_name = "MODE", value_parser = mode)]
    to: Option<Mode>,
    /// Reason; recorded in the ledger
    #[arg(short, long, visible_alias = "reason")]
    why: String,
    /// Skip the confirmation; for scripts
    #[arg(short, long)]
    yes: bool,
}

#[derive(clap::Args)]
pub(super) struct DemoteArgs {
    /// The rule
    rule: String,
    /// Target mode [default: one level down]
    #[arg(long, value_name = "MODE", value_parser = mode)]
    to: Option<Mode>,
    /// Reason; recorded in the ledger
    #[arg(short, long, visible_alias = "reason")]
    why: String,
}

fn mode(text: &str) -> Result<Mode, String> {
    serde_json::from_value(json!(text)).map_err(|_| "modes: observe, suggest, approve, auto".to_owned())
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    match &args.rule {
        Some(rule) => show(invocation, rule),
        None => list(invocation),
    }
}

fn list(invocation: &Invocation) -> Result<(), Stop> {
    let answer = Client::new(invocation)?.get::<ScorecardList>("scorecards", &())?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let cards = answer.read()?.scorecards;
    if cards.is_empty() {
        invocation.say("no rule runs a runbook, so there are no modes to show");
        return Ok(());
    }
    let row = |scorecard: &Scorecard| {
        let card = &scorecard.card;
        let next = match &scorecard.next {
            None => "–".to_owned(),
            Some(next) if next.missing.is_empty() => format!("ready for {}", next.to),
            Some(next) => format!("{}: {} missing", next.to, next.missing.len()),
        };
        [
            page::text(&scorecard.rule),
            scorecard.mode.to_string(),
            scorecard.file.to_string(),
            card.matches.to_string(),
            card.right.to_string(),
            card.wrong.to_string(),
            card.held.to_string(),
            card.bad.to_string(),
            card.saved.map_or("unknown".to_owned(), short),
            next,
        ]
    };
    let head = ["RULE", "MODE", "FILE", "MATCHES", "RIGHT", "WRONG", "HELD", "BAD", "SAVED", "NEXT"];
    invocation.table(head, cards.iter().map(row).collect())
}

/// The card of one rule.
pub(super) fn show(invocation: &Invocation, rule: &str) -> Result<(), Stop> {
    let rule = rule.strip_prefix("rule:").unwrap_or(rule);
    let answer = Client::new(invocation)?.get_at::<ScorecardAnswer>(&["rules", rule, "scorecard"])?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    print(invocation, &answer.read()?.scorecard)
}

fn print(invocation: &Invocation, scorecard: &Scorecard) -> Result<(), Stop> {
    let card = &scorecard.card;
    invocation.line(&format!(
        "{}  runs {}, is in {}",
        invocation.paint(Paint::Strong, &page::text(&scorecard.rule)),
        page::text(&scorecard.runbook),
        page::text(&scorecard.because()),
    ))?;
    let since = card
        .since
        .map_or("nothing yet".to_owned(), |at| format!("since {}, {} ago", invocation.when(at), invocation.age(at)));
    let hash = scorecard.content.get(..12).unwrap_or(&scorecard.content);
    let head = format!("statistics of its current version ({hash}): {since}");
    invocation.line(&invocation.paint(Paint::Dim, &head))?;
    let judges = if card.judges.is_empty() { "none".to_owned() } else { page::text(&card.judges.join(", ")) };
    let median = card.answer_median.map_or("unknown".to_owned(), short);
    let saved = match card.saved {
        Some(saved) => {
            format!("{} (successful runs in auto, each worth the median wait for an approval, {median})", short(saved))
        }
        None => format!("unknown: {} of {} answers required for a median", card.answers, crate::limits::ANSWERS_MIN),
    };
    let rows = [
        ("matches", format!("{} of {} runs", card.matches, card.started)),
        ("reviewed as right", format!("{} ({} by approving), by {judges}", card.right, card.approved)),
        ("reviewed as wrong", format!("{} ({} denied)", card.wrong, card.denied)),
        (
            "acted",
            format!(
                "{}: {} done, {} failed ({} undone), {} stuck",
                card.acted, card.done, card.failed, card.taken_back, card.stuck
            ),
        ),
        (
            "afterwards",
            format!(
                "{} verified, {} came back, {} not fixed, {} pending",
                card.held, card.back, card.lingers, card.baking
            ),
        ),
        ("bad in all", card.bad.to_string()),
        ("time saved", saved),
    ];
    for (name, value) in rows {
        invocation.line(&format!("  {name:<13}  {value}"))?;
    }
    match &scorecard.next {
        None => invocation.line("this is the highest level"),
        Some(next) if next.missing.is_empty() => {
            let command = format!("nightshift promote {} --why '…'", page::text(&scorecard.rule));
            invocation.line(&format!("ready for {}: {}", next.to, invocation.paint(Paint::Good, &command)))
        }
        Some(next) => {
            invocation.line(&format!("for {}:", next.to))?;
            next.missing.iter().try_for_each(|what| invocation.line(&format!("  {}", page::text(what))))
        }
    }
}

pub(super) fn judge(args: &JudgeArgs, invocation: &Invocation) -> Result<(), Stop> {
    let verdict = match args.verdict {
        Verdict::Right => "right",
        Verdict::Wrong => "wrong",
    };
    let run = args.run.to_ascii_lowercase();
    let body = JudgeRequest { verdict: verdict.to_owned(), why: args.why.clone(), first: false };
    let answer = Client::new(invocation)?.post::<JudgeAnswer>(&format!("runs/{run}/judge"), &body)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    invocation.line(&format!("{run}: {verdict}"))?;
    if let Some(card) = answer.read()?.scorecard {
        invocation.say(&format!("rule {} has {}", page::text(&card.rule), card.card.words()));
    }
    Ok(())
}

pub(super) fn promote(args: &PromoteArgs, invocation: &Invocation) -> Result<(), Stop> {
    invocation.confirm(args.yes, &format!("promote rule {}", page::text(&args.rule)))?;
    moves(invocation, &args.rule, "promote", &MoveRequest { to: args.to, why: args.why.clone() })
}

pub(super) fn demote(args: &DemoteArgs, invocation: &Invocation) -> Result<(), Stop> {
    moves(invocation, &args.rule, "demote", &MoveRequest { to: args.to, why: args.why.clone() })
}

fn moves(invocation: &Invocation, rule: &str, verb: &str, body: &MoveRequest) -> Result<(), Stop> {
    let answer = Client::new(invocation)?.post_to::<ScorecardAnswer>(&["rules", rule, verb], body)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let card = answer.read()?.scorecard;
    invocation.line(&format!("rule {} is in {}", page::text(&card.rule), page::text(&card.because())))
}

/// Rules that do not go as far as their files say, or go further.
pub(super) fn moved(invocation: &Invocation, rules: &[MovedRule]) -> Result<(), Stop> {
    if rules.is_empty() {
        return Ok(());
    }
    let row = |moved: &MovedRule| {
        [
            page::text(&moved.rule),
            moved.mode.to_string(),
            moved.file.to_string(),
            page::text(&moved.by),
            invocation.age(moved.at),
            page::text(&moved.why),
        ]
    };
    invocation.table(["RULE", "MODE", "FILE MODE", "MOVED BY", "AGE", "WHY"], rules.iter().map(row).collect())
}

/// Whole minutes are enough for people.
fn short(span: Span) -> String {
    let seconds = span.0.as_secs();
    if seconds < 120 { Span::seconds(seconds).to_string() } else { Span::minutes(seconds / 60).to_string() }
}
