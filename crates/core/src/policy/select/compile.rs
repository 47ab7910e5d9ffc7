//! The checks of rules when files change: all that is wrong, at once, each with the rule's name.
//!
//! Invariant: a rule that compiles can be matched against any event without an error.

use super::bind::ParamBinder;
use super::{CompiledRule, RuleError};
use crate::limits;
use crate::model::{Mode, ParamSource, Rule, RunbookHeader, RunbookPin, Span};
use crate::planted::planted;
use crate::policy::matcher::{Matcher, parse_matchers};
use crate::policy::suggest::did_you_mean;
use std::collections::{HashMap, HashSet};

/// Compiles every rule, or returns every error.
pub(super) fn compile(
    rules: Vec<Rule>,
    runbooks: &HashMap<String, (RunbookPin, RunbookHeader)>,
) -> Result<Vec<CompiledRule>, Vec<RuleError>> {
    let mut errors = Vec::new();
    if rules.len() > limits::RULES {
        let what = format!("there are {} rules; at most {} are taken", rules.len(), limits::RULES);
        return Err(vec![RuleError::Invalid { rule: "*".to_owned(), what }]);
    }
    let mut seen = HashSet::new();
    for rule in &rules {
        if !seen.insert(rule.name.as_str()) {
            errors.push(invalid(rule, "the name is used twice; users freeze and find a rule by its name".to_owned()));
        }
    }
    let mut compiled = Vec::with_capacity(rules.len());
    for rule in rules {
        let mut found = Vec::new();
        let one = one(rule, runbooks, &mut found);
        if found.is_empty() {
            compiled.push(one);
        }
        errors.append(&mut found);
    }
    if errors.is_empty() { Ok(compiled) } else { Err(errors) }
}

fn one(
    rule: Rule,
    runbooks: &HashMap<String, (RunbookPin, RunbookHeader)>,
    errors: &mut Vec<RuleError>,
) -> CompiledRule {
    errors.extend(shape(&rule).into_iter().map(|what| invalid(&rule, what)));
    let when: Vec<Matcher> =
        rule.when.iter().flat_map(|line| matchers(&rule, "when", line, errors).unwrap_or_default()).collect();
    let mut unless = Vec::new();
    for line in &rule.unless {
        match matchers(&rule, "unless", line, errors) {
            Some(set) if set.is_empty() => {
                errors.push(invalid(&rule, format!("`unless: {line}` would mute it always: write a matcher")));
            }
            Some(set) => unless.push(set),
            None => {}
        }
    }
    // The same law that Alertmanager has for silences, and for the same reason.
    let broken = errors.iter().any(|error| matches!(error, RuleError::Matcher { .. }));
    let selects_all = when.iter().all(|matcher| matcher.accepts("")) && !planted("an-empty-selector-is-all");
    if rule.ignore.is_some() && !rule.when.is_empty() && !broken && selects_all {
        let what = "it ignores every event: add a matcher that requires a label, as in `alertname=\"Watchdog\"`";
        errors.push(invalid(&rule, what.to_owned()));
    }
    if rule.run.is_some() && !rule.when.is_empty() && !broken && selects_all {
        let what =
            "it runs a runbook for every event: add a matcher that requires a label, as in `alertname=\"GpuXid\"`";
        errors.push(invalid(&rule, what.to_owned()));
    }
    let binder = rule.run.as_deref().and_then(|name| match bound(&rule, name, runbooks) {
        Ok(binder) => Some(binder),
        Err(problems) => {
            errors.extend(problems);
            None
        }
    });
    CompiledRule { rule, when, unless, binder, terms: None }
}

/// Errors of the rule apart from matchers and parameters, a sentence each.
fn shape(rule: &Rule) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut no = |bad: bool, what: &str| {
        if bad {
            wrong.push(what.to_owned());
        }
    };
    let name = &rule.name;
    no(name.trim().is_empty(), "a rule needs a name");
    no(name.chars().count() > limits::RULE_NAME_CHARS, "the name is longer than 100 characters");
    no(
        name.trim() != name || name.chars().any(char::is_control),
        "the name has blanks around it or control characters",
    );
    no(rule.when.is_empty() && rule.at.is_none(), "it has neither `when` nor `at`, so it never starts: add one");
    no(!rule.when.is_empty() && rule.at.is_some(), "it has both `when` and `at`: write two rules");
    no(
        rule.run.is_none() && rule.tell.is_empty() && rule.ignore.is_none(),
        "it neither runs a runbook nor notifies a channel: add `run:` or `tell:`, or `ignore:` with a reason",
    );
    wrong.extend(silence(rule));
    let mut no = |bad: bool, what: &str| {
        if bad {
            wrong.push(what.to_owned());
        }
    };
    no(rule.run.is_none() && !rule.with.is_empty(), "`with` gives parameters, but there is no `run`");
    no(rule.tell.iter().any(|channel| channel.trim().is_empty()), "`tell` holds an empty channel name");
    no(rule.group_by.iter().any(|part| part.trim().is_empty()), "`group_by` holds an empty name");
    no(rule.approvers.iter().any(|person| person.trim().is_empty()), "`approvers` holds an empty name");
    no(rule.persons == 0, "`min_approvers: 0` requires no approver: use `mode: auto` for that");
    no(rule.still.as_deref().is_some_and(|query| query.trim().is_empty()), "`confirm_query` is empty");
    no(
        rule.still.as_deref().is_some_and(names_no_part),
        "`confirm_query` has a `$` before a word that is not a part of a subject",
    );
    no(rule.attempts == 0, "`attempts: 0` would never let it act: use `mode: observe` for that");
    no(rule.mode == Mode::Approve && rule.approve_within == Span::default(), "`approve_within` is zero");
    no(rule.bake == Span::default(), "`bake` is zero, so no recurrence could be seen: write a longer time");
    no(rule.bake > limits::BAKE_MAX, "`bake` is longer than a week: a recurrence after that is another fault");
    no(
        rule.promote.to == Mode::Observe,
        "`promote.to: observe` has no level below it to promote from: leave it out, or write `suggest`",
    );
    let asked = &rule.promote;
    let most = asked.matches.max(asked.judged_right).max(asked.held).max(asked.wrong);
    no(
        most > limits::EVIDENCE_MAX,
        "`promote` requires a count above 10000, which is never reached: write a smaller one",
    );
    no(asked.over > limits::RECORD_KEPT, "`promote.over` is longer than the record is kept (400 days)");
    if let Some(repeat) = &rule.repeat {
        no(repeat.count == 0, "`repeat.count` is zero: two means the second time");
        no(repeat.within == Span::default(), "`repeat.within` is zero");
        no(repeat.by.iter().any(|part| part.trim().is_empty()), "`repeat.by` holds an empty name");
    }
    if rule.at.is_some() {
        no(rule.run.is_none(), "a rule with a schedule needs a `run`");
        no(!rule.unless.is_empty(), "`unless` matches events, and a schedule has none: remove it");
        no(rule.repeat.is_some(), "`repeat` counts episodes, and a schedule has none");
        no(!rule.group_by.is_empty(), "`group_by` groups episodes, and a schedule has none");
        let from_label = |argument: &ParamSource| matches!(argument, ParamSource::Label { .. });
        no(rule.with.values().any(from_label), "`with` takes a label, and a schedule has no event");
    }
    wrong
}

/// Errors of the rule's silence keys `ignore` and `tell_in`, a sentence each.
fn silence(rule: &Rule) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut no = |bad: bool, what: &str| {
        if bad {
            wrong.push(what.to_owned());
        }
    };
    if let Some(why) = &rule.ignore {
        no(why.trim().is_empty(), "`ignore` is empty: write why these events need no incident and no message");
        no(why.chars().count() > limits::TITLE_CHARS, "`ignore` is longer than 160 characters");
        no(rule.run.is_some() || !rule.tell.is_empty(), "`ignore` and `run` or `tell` contradict: keep one of them");
        no(rule.at.is_some(), "`ignore` is about events, and a schedule has none");
        no(!rule.unless.is_empty(), "`ignore` has no `unless`: write the exception into `when`, as in `team!=\"ml\"`");
    }
    if rule.tell_in > Mode::Observe {
        no(
            rule.tell.is_empty(),
            "`tell_in` without `tell` notifies no channel in any mode: add `tell:`, or leave it out",
        );
        no(
            rule.run.is_none(),
            "`tell_in` is for rules with a `run`: one without always notifies; to be silent, write `ignore:` with a reason",
        );
        no(
            rule.tell_in > rule.mode.max(rule.promote.to),
            "`tell_in` is above every mode that it can reach (`promote.to`): it would never notify",
        );
    }
    wrong
}

/// `$` stands before parts of the subject alone.
fn names_no_part(query: &str) -> bool {
    const PARTS: [&str; 8] = ["cluster", "node", "gpu", "slice", "namespace", "workload", "pod", "model"];
    let name = |piece: &str| piece.chars().take_while(char::is_ascii_alphabetic).collect::<String>();
    query.split('$').skip(1).any(|piece| !PARTS.contains(&name(piece).as_str()))
}

fn matchers(rule: &Rule, field: &'static str, line: &str, errors: &mut Vec<RuleError>) -> Option<Vec<Matcher>> {
    parse_matchers(line)
        .map_err(|source| errors.push(RuleError::Matcher { rule: rule.name.clone(), field, source }))
        .ok()
}

fn bound(
    rule: &Rule,
    runbook: &str,
    runbooks: &HashMap<String, (RunbookPin, RunbookHeader)>,
) -> Result<ParamBinder, Vec<RuleError>> {
    let Some((_, header)) = runbooks.get(runbook) else {
        let near = did_you_mean(runbook, runbooks.keys().map(String::as_str));
        return Err(vec![RuleError::NoRunbook { rule: rule.name.clone(), runbook: runbook.to_owned(), near }]);
    };
    let in_words = |problems: Vec<String>| problems.into_iter().map(|what| invalid(rule, what)).collect();
    let binder = ParamBinder::new(header, &rule.with).map_err(in_words)?;
    match binder.never_filled(rule.at.is_some()) {
        problems if problems.is_empty() => Ok(binder),
        problems => Err(in_words(problems)),
    }
}

fn invalid(rule: &Rule, what: String) -> RuleError {
    RuleError::Invalid { rule: rule.name.clone(), what }
}
