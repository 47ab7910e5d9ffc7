//! The arithmetic of promotion: a rule's present mode, and the evidence that the next mode still needs.
//!
//! Invariant: nothing here goes above the ceiling, and nothing but a level that a user has set goes above the file.

use crate::model::{Mode, PromotionCriteria, Rule, RuleLevel, RuleStats, Span, Time};
use crate::planted::planted;
use sha2::{Digest, Sha256};

/// The mode in force: the file's, unless a level of the same content sets another one.
pub fn effective(file: Mode, level: Option<&RuleLevel>, ceiling: Mode) -> Mode {
    let mode = match level {
        None => file,
        Some(level) if level.file == file => level.mode,
        // The author has written another mode since. A lower one holds; a higher one does not lift who was brought down.
        Some(level) if level.down => file.min(level.mode),
        Some(_) => file,
    };
    mode.min(ceiling)
}

/// The missing evidence for `to`, a sentence each; empty: it may be promoted. `others`: whether one of the card's
/// reviewers is certainly another user than `by`.
pub fn missing(
    asked: &PromotionCriteria,
    card: &RuleStats,
    to: Mode,
    by: &str,
    others: bool,
    now: Time,
) -> Vec<String> {
    let mut missing = Vec::new();
    if to > asked.to {
        missing.push(format!("the rule's file lets it be promoted to {} at most", asked.to));
    }
    let mut needs = |wanted: u32, has: u32, what: &str| {
        if has < wanted {
            missing.push(format!("requires {wanted} {what}, has {has}"));
        }
    };
    // From observe to suggest nothing more is done, and users are notified in both: no record is needed for that.
    if to >= Mode::Approve {
        needs(asked.matches, card.matches, "matches");
        needs(asked.judged_right, card.right, "reviewed as right");
    }
    if to == Mode::Auto {
        needs(asked.held, card.held, "outcomes that held");
    }
    if card.wrong.max(card.bad) > asked.wrong {
        let bad = card.bad.saturating_sub(card.wrong);
        missing.push(format!(
            "allows {} wrong, has {} reviewed as wrong and {bad} that ended badly",
            asked.wrong, card.wrong
        ));
    }
    if to == Mode::Auto {
        missing.extend(too_young(asked.over, card.since, now));
        if !others {
            let than = if by.is_empty() { "the author of its file" } else { by };
            missing.push(format!("requires a review or approval by a user other than {than}, has none"));
        }
    }
    missing
}

fn too_young(over: Span, since: Option<Time>, now: Time) -> Option<String> {
    let Some(since) = since else {
        return (over > Span::default()).then(|| format!("requires matches over {over}, has none"));
    };
    let age = now.as_second().saturating_sub(since.as_second()).max(0).unsigned_abs();
    let whole_minutes = Span::minutes(age / 60);
    (age < over.0.as_secs()).then(|| format!("requires matches over {over}, the first is {whole_minutes} old"))
}

/// 32 hex digits over a rule's behavior and the text of its runbook. Notified users, approvers and the mode itself are
/// not in it: a change of them does not change the reviewed behavior.
pub(super) fn content(rule: &Rule, runbook: &str) -> String {
    let does = (&rule.when, &rule.unless, &rule.at, &rule.run, &rule.with, &rule.repeat, &rule.still);
    // A list of plain data always has its JSON.
    let does = serde_json::to_vec(&does).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update((does.len() as u64).to_be_bytes());
    hash.update(&does);
    if !planted("runbook-not-in-the-content") {
        hash.update(runbook.as_bytes());
    }
    hex::encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;

    fn level(mode: Mode, file: Mode, down: bool) -> RuleLevel {
        RuleLevel {
            rule: "r".into(),
            content: "c".into(),
            mode,
            file,
            down,
            by: "ada".into(),
            why: String::new(),
            at: Time::UNIX_EPOCH,
            from_run: RunId(1),
            evidence_from: RunId(1),
            card: RuleStats::default(),
        }
    }

    #[test]
    fn the_file_counts_until_a_level_of_the_same_content_says_otherwise() {
        use Mode::{Approve, Auto, Observe, Suggest};
        let check = |file, level: Option<RuleLevel>, ceiling, expect| {
            assert_eq!(effective(file, level.as_ref(), ceiling), expect, "{file} {level:?} {ceiling}");
        };
        check(Auto, None, Auto, Auto);
        check(Auto, None, Suggest, Suggest);
        check(Observe, Some(level(Approve, Observe, false)), Auto, Approve);
        check(Observe, Some(level(Approve, Observe, false)), Suggest, Suggest);
        check(Auto, Some(level(Approve, Auto, true)), Auto, Approve);
        // The author has written another mode since.
        check(Observe, Some(level(Approve, Suggest, false)), Auto, Observe);
        check(Auto, Some(level(Suggest, Approve, true)), Auto, Suggest);
        check(Observe, Some(level(Suggest, Approve, true)), Auto, Observe);
        check(Auto, Some(level(Approve, Suggest, false)), Auto, Auto);
    }

    #[test]
    fn what_is_missing_is_listed_with_its_numbers() {
        let now: Time = "2026-03-08T03:00:00Z".parse().unwrap();
        let asked = PromotionCriteria::default();
        let card = RuleStats { since: Some(now), started: 9, matches: 7, right: 2, held: 1, ..RuleStats::default() };
        let check = |card: &RuleStats, to, expect: &[&str]| {
            let others = card.judges.iter().any(|judge| judge != "ada");
            assert_eq!(missing(&asked, card, to, "ada", others, now), expect);
        };
        check(&card, Mode::Suggest, &[]);
        check(&card, Mode::Approve, &["requires 20 matches, has 7", "requires 10 reviewed as right, has 2"]);
        let week = "2026-03-01T03:00:00Z".parse().unwrap();
        let judges = vec!["ada".to_owned()];
        let full = RuleStats { since: Some(week), matches: 20, right: 10, held: 5, judges, ..RuleStats::default() };
        check(&full, Mode::Auto, &["requires a review or approval by a user other than ada, has none"]);
        check(&RuleStats { judges: vec!["bob".into()], ..full.clone() }, Mode::Auto, &[]);
        let bad = RuleStats { wrong: 1, bad: 3, ..full };
        check(&bad, Mode::Suggest, &["allows 0 wrong, has 1 reviewed as wrong and 2 that ended badly"]);
        let least = PromotionCriteria { to: Mode::Suggest, matches: 0, wrong: 3, judged_right: 0, ..asked };
        let told = missing(&least, &bad, Mode::Approve, "ada", false, now);
        assert_eq!(told, ["the rule's file lets it be promoted to suggest at most"]);
    }
}
