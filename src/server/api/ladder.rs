//! Promotion over HTTP: the rules' statistics, a user's review of a run, and the moves up and down.
//!
//! Invariant: a move is decided in the store, over the statistics at that moment; nothing here is remembered.

use super::{Allowed, App, Body, Problem, act, read, refuse};
use crate::api::{JudgeAnswer, JudgeRequest, MoveRequest, MovedRule, ScorecardAnswer, ScorecardList};
use crate::model::{
    Effect, Entry, EntryKind, Judgement, Level, Mode, NextRung, Reach, Rule, Run, RunId, Scorecard, Step, Terms,
};
use crate::policy;
use crate::store::{Climb, Control};
use crate::telemetry::Verdict;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;

/// One click: a reason is welcome, and not required.
pub(super) async fn judge(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Path(id): Path<String>,
    Body(word): Body<JudgeRequest>,
) -> Result<Json<JudgeAnswer>, Problem> {
    let id: RunId = refuse::id(&id)?;
    let run = read::find_run(&app, id).await?;
    caller.need_subject(&app, &run.subject)?;
    let verdict = match word.verdict.to_ascii_lowercase().as_str() {
        "right" => Verdict::Right,
        "wrong" => Verdict::Wrong,
        other => {
            let error = format!("`{}` is no verdict", other.escape_debug());
            return Err(refuse::bad(error, "write `right` or `wrong`"));
        }
    };
    let (right, why) = (verdict == Verdict::Right, refuse::bounded(&word.why)?);
    let (by, rule) = (caller.name.clone(), run.rule.unwrap_or_default());
    let in_force = (app.current)().rules.terms(&rule).map(|terms| terms.content.clone());
    act::control(&app, Control::Judge { run: id, right, by, why, first: word.first, in_force }).await?;
    app.parts.metrics.judged(verdict);
    // A rule that is gone keeps its record, and has no card to show.
    let scorecard = match find(&app, &rule) {
        Ok((rule, terms)) => Some(card(&app, &rule, &terms, &caller.name).await?),
        Err(_) => None,
    };
    let verdict = verdict.word().to_owned();
    Ok(Json(JudgeAnswer { run: id, verdict, by: caller.name, rule, scorecard }))
}

/// The reviews of a run, from its entries in ascending order: of each user the latest one.
pub(super) fn judgements(entries: &[Entry]) -> Vec<Judgement> {
    let mut said: Vec<Judgement> = Vec::new();
    for entry in entries {
        let EntryKind::RunJudged { right, by, why, .. } = &entry.kind else { continue };
        said.retain(|earlier| earlier.by != *by);
        said.push(Judgement { by: by.clone(), right: *right, why: why.clone(), at: entry.at });
    }
    said
}

/// Whether there is something to judge: a rule has planned it, or it has acted. The store looks once more.
pub(super) fn can_be_judged(run: &Run, steps: &[Step], entries: &[Entry]) -> bool {
    let planned = || entries.iter().any(|entry| matches!(entry.kind, EntryKind::RunPlanned { .. }));
    let reaches =
        |step: &Step| crate::actions::find(&step.call.action).map_or(Reach::None, |action| action.spec().reach);
    let acts = |step: &Step| step.effect != Effect::Read && reaches(step) > Reach::None;
    run.rule.is_some() && (planned() || run.approved.is_some() || steps.iter().any(acts))
}

pub(super) async fn scorecard(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Path(rule): Path<String>,
) -> Result<Json<ScorecardAnswer>, Problem> {
    let (rule, terms) = find(&app, &rule)?;
    Ok(Json(ScorecardAnswer { scorecard: card(&app, &rule, &terms, &caller.name).await? }))
}

pub(super) async fn scorecards(
    Allowed(caller): Allowed,
    State(app): State<App>,
) -> Result<Json<ScorecardList>, Problem> {
    let levels = app.parts.store.levels().await.map_err(refuse::store)?;
    let mut cards = Vec::new();
    for (rule, terms) in climbers(&app).into_iter().take(crate::limits::READ_LIMIT) {
        cards.push(card_at(&app, &rule, &terms, of(&levels, &rule, &terms).cloned(), &caller.name).await?);
    }
    Ok(Json(ScorecardList { scorecards: cards }))
}

pub(super) async fn promote(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Path(rule): Path<String>,
    Body(wanted): Body<MoveRequest>,
) -> Result<Json<ScorecardAnswer>, Problem> {
    let (rule, terms) = find(&app, &rule)?;
    // It goes as far in every cluster.
    caller.need_everywhere(&format!("rule {}", rule.name))?;
    let why = refuse::reason(&wanted.why)?;
    let channels = &app.parts.config.channels;
    if let Some(unknown) = rule.tell.iter().find(|name| !channels.is_empty() && !channels.contains_key(*name)) {
        return Err(refuse::conflict(
            format!(
                "rule {} notifies `{unknown}`, which is not a configured channel, so its messages would be lost",
                rule.name
            ),
            "configure the channel, or name another one in the rule's `tell`, before it is promoted",
        ));
    }
    let climb = climb(&rule, &terms, wanted.to, &caller.name, why);
    act::control(&app, Control::Promote(climb)).await.map_err(|problem| match problem.status {
        StatusCode::CONFLICT => Problem {
            hint: format!("`nightshift scorecard {}` shows the rule's statistics and the missing evidence", rule.name),
            ..problem
        },
        _ => problem,
    })?;
    Ok(Json(ScorecardAnswer { scorecard: card(&app, &rule, &terms, &caller.name).await? }))
}

pub(super) async fn demote(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Path(rule): Path<String>,
    Body(wanted): Body<MoveRequest>,
) -> Result<Json<ScorecardAnswer>, Problem> {
    let (rule, terms) = find(&app, &rule)?;
    // It goes as far in every cluster.
    caller.need_everywhere(&format!("rule {}", rule.name))?;
    let why = refuse::reason(&wanted.why)?;
    let climb = climb(&rule, &terms, wanted.to, &caller.name, why);
    act::control(&app, Control::Demote(climb)).await?;
    Ok(Json(ScorecardAnswer { scorecard: card(&app, &rule, &terms, &caller.name).await? }))
}

fn climb(rule: &Rule, terms: &Terms, to: Option<Mode>, by: &str, why: String) -> Climb {
    Climb { rule: rule.name.clone(), terms: terms.clone(), promote: rule.promote, to, by: by.to_owned(), why }
}

/// Rules with a runbook: only these have somewhere to go.
fn climbers(app: &App) -> Vec<(Rule, Terms)> {
    (app.current)().rules.climbers().map(|(rule, terms)| (rule.clone(), terms.clone())).collect()
}

fn find(app: &App, name: &str) -> Result<(Rule, Terms), Problem> {
    let rules = (app.current)().rules.clone();
    let Some(rule) = rules.rule(name) else {
        let hint = match crate::config::closest(name, rules.rules().map(|rule| rule.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`nightshift scorecard` lists them".to_owned(),
        };
        return Err(refuse::missing(format!("rule `{}`", name.escape_debug()), hint));
    };
    let terms = rules.terms(name).cloned().ok_or_else(|| {
        refuse::conflict(
            format!("rule {name} runs no runbook: it only notifies"),
            "only rules with a runbook have a mode to move",
        )
    })?;
    Ok((rule.clone(), terms))
}

async fn card(app: &App, rule: &Rule, terms: &Terms, by: &str) -> Result<Scorecard, Problem> {
    let levels = app.parts.store.levels().await.map_err(refuse::store)?;
    card_at(app, rule, terms, of(&levels, rule, terms).cloned(), by).await
}

async fn card_at(app: &App, rule: &Rule, terms: &Terms, level: Option<Level>, by: &str) -> Result<Scorecard, Problem> {
    let parts = &app.parts;
    let ceiling = parts.config.mode_ceiling;
    let mode = policy::effective(terms.file, level.as_ref(), ceiling);
    let card = parts.store.card(&rule.name, &terms.content).await.map_err(refuse::store)?;
    let mut others = false;
    for judge in &card.judges {
        others |= !parts.store.same_person(judge, by).await.map_err(refuse::store)?;
    }
    let next = mode.up().map(|to| {
        let mut missing = policy::missing(&rule.promote, &card, to, by, others, parts.clock.now());
        if to > ceiling {
            missing.push(format!("this installation's `mode_ceiling` is {ceiling}"));
        }
        NextRung { to, missing }
    });
    Ok(Scorecard {
        rule: rule.name.clone(),
        runbook: rule.run.clone().unwrap_or_default(),
        mode,
        file: terms.file,
        ceiling,
        content: terms.content.clone(),
        level,
        card,
        next,
    })
}

/// The state of each rule with a runbook: its file's mode, and the mode in force.
pub(in crate::server) async fn places(app: &App) -> Result<Vec<(Mode, Mode)>, Problem> {
    let levels = app.parts.store.levels().await.map_err(refuse::store)?;
    let ceiling = app.parts.config.mode_ceiling;
    let place = |(rule, terms): (Rule, Terms)| {
        let level = of(&levels, &rule, &terms);
        (terms.file, policy::effective(terms.file, level, ceiling))
    };
    Ok(climbers(app).into_iter().map(place).collect())
}

fn of<'a>(levels: &'a [Level], rule: &Rule, terms: &Terms) -> Option<&'a Level> {
    levels.iter().find(|level| level.rule == rule.name && level.content == terms.content)
}

/// Rules whose mode differs from their file's, with the user and the reason of the move.
pub(super) async fn moved(app: &App) -> Result<Vec<MovedRule>, Problem> {
    let levels = app.parts.store.levels().await.map_err(refuse::store)?;
    let ceiling = app.parts.config.mode_ceiling;
    let row = |(rule, terms): (Rule, Terms)| {
        let level = of(&levels, &rule, &terms)?;
        let mode = policy::effective(terms.file, Some(level), ceiling);
        (mode != terms.file).then(|| MovedRule {
            rule: rule.name,
            mode,
            file: terms.file,
            by: level.by.clone(),
            why: level.why.clone(),
            at: level.at,
        })
    };
    Ok(climbers(app).into_iter().filter_map(row).collect())
}

/// For `why`: the mode of a rule and its reason, and its statistics; none where there is no such rule with a runbook.
pub(super) async fn standing(app: &App, name: &str) -> Result<Option<Scorecard>, Problem> {
    match find(app, name) {
        Ok((rule, terms)) => card(app, &rule, &terms, "").await.map(Some),
        Err(_) => Ok(None),
    }
}
