//! Why a rule had its mode: its moves up and down, from the ledger; and its present state.
//!
//! Invariant: a statement about the past rests on an entry; one about the present is marked as such.

use super::{Block, Line, What, about, explain_scope};
use crate::model::{Entry, EntryKind, Mode, Scorecard};
use crate::server::App;
use crate::server::api::{Problem, read};
use crate::store::Filter;

/// The present mode of a rule, and the evidence that it lacks for the next one.
pub(super) fn stands(card: &Scorecard) -> Vec<Line> {
    let now = |text: String| Line { no: None, what: What::Now, text, code: None };
    let mut lines = vec![now(format!("it is in {}", card.because()))];
    let since = card.card.since.map(|at| format!(" since {}", at.strftime("%Y-%m-%d"))).unwrap_or_default();
    lines.push(now(format!("statistics{since}: {}", card.card.words())));
    lines.extend(card.next.iter().map(|next| match next.missing.is_empty() {
        true => now(format!("it may go to {}: `nightshift promote {} --why …`", next.to, card.rule)),
        false => now(format!("for {}: {}", next.to, next.missing.join("; "))),
    }));
    lines
}

/// Moves of rules up and down the ladder.
pub(super) const MOVES: [&str; 2] = ["rule_promoted", "rule_demoted"];

/// Adds below each start of a run why its rule had its mode then: the last move before it, of the same content.
pub(super) async fn because(app: &App, blocks: &mut [Block], entries: &[Entry]) -> Result<(), Problem> {
    let starts = entries.iter().filter_map(|entry| match &entry.kind {
        EntryKind::RunCreated { rule: Some(rule), content: Some(content), mode, .. } => {
            Some((entry.no, entry.about.run, rule, content, *mode))
        }
        _ => None,
    });
    let starts: Vec<_> = starts.collect();
    if starts.is_empty() {
        return Ok(());
    }
    let moves = read::oldest_first(app, Filter { kinds: MOVES.to_vec(), ..about(None, None) }).await?;
    for (no, run, rule, content, mode) in starts {
        let Some(block) = blocks.iter_mut().find(|block| block.run.is_some() && block.run == run) else { continue };
        let moved = moves.iter().rev().find(|entry| entry.no < no && moves_of(&entry.kind) == Some((rule, content)));
        // A move to another mode than the run had is not its reason: the file or the ceiling was lower.
        let moved = moved.filter(|entry| moved_to(&entry.kind) == Some(mode));
        let line = match moved.and_then(|entry| Some((entry, explain_scope(entry)?))) {
            Some((entry, (_, line))) => {
                let on = entry.at.strftime("%Y-%m-%d %H:%M UTC");
                Line { text: format!("rule `{rule}` was in {mode} because, on {on}, {}", line.text), ..line }
            }
            None => {
                let text = format!(
                    "rule `{rule}` was in {mode} because of its file or the ceiling: no promotion or demotion set it"
                );
                Line { no: Some(no), what: What::Decided, text, code: None }
            }
        };
        block.lines.insert(1.min(block.lines.len()), line);
    }
    Ok(())
}

/// The mode that a move set.
fn moved_to(kind: &EntryKind) -> Option<Mode> {
    match kind {
        EntryKind::RulePromoted { to, .. } | EntryKind::RuleDemoted { to, .. } => Some(*to),
        _ => None,
    }
}

/// Which rule a move is of, and which content of it.
fn moves_of(kind: &EntryKind) -> Option<(&String, &String)> {
    match kind {
        EntryKind::RulePromoted { rule, content, .. } | EntryKind::RuleDemoted { rule, content, .. } => {
            Some((rule, content))
        }
        _ => None,
    }
}
