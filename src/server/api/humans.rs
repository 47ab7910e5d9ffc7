//! Which names belong to the same human: two names in the ledger, and the caller by any way of signing in.
//!
//! Invariant: the checks here give early and clear refusals; where it counts, the store checks once more.

use super::{App, Problem, refuse};
use crate::limits;
use crate::model::{LOCAL, Right, RunId, identity};
use crate::planted::planted;
use crate::server::{AuthMethod, Caller};
use http::StatusCode;
use std::collections::BTreeSet;

/// Whether the user behind a request or an approval may be the same human as the caller: by name, by a name that is
/// theirs now, or because one of the two is behind the token by which the other is here.
pub(super) async fn same(app: &App, name: &str, caller: &Caller) -> Result<bool, Problem> {
    if app.roster.now().same(name, &caller.name) {
        return Ok(true);
    }
    app.parts.store.same_person(name, &caller.name).await.map_err(refuse::store)
}

/// Whether a caller is an unnamed human: with this machine's own token, unless `people` names its owner, or with
/// break-glass access.
pub(super) fn is_unnamed(caller: &Caller) -> bool {
    let way = matches!(caller.way, AuthMethod::Local | AuthMethod::BreakGlass(..));
    way && caller.person.is_none() && !planted("local-is-a-person")
}

/// 403 for an unnamed caller where several different users must agree.
pub(super) fn need_name(caller: &Caller) -> Result<(), Problem> {
    if !is_unnamed(caller) {
        return Ok(());
    }
    let error = format!(
        "several approvers are required, and {} does not count as one: anyone may use {}",
        caller.name, caller.way
    );
    Err(refuse::with(StatusCode::FORBIDDEN, error, UNNAMED_HINT))
}

/// Why the caller cannot approve a run that this name has caused; `did` stands between the two.
pub(super) fn own_request(name: &str, did: &str, run: RunId, caller: &Caller) -> Problem {
    let machine = identity(name) == LOCAL || name.starts_with("break-glass (");
    if is_unnamed(caller) || machine {
        let error = format!(
            "{name} {did} {run}, and {} may be the same person, so it cannot approve it too: this machine's own token and \
             break-glass access belong to no single user",
            caller.name
        );
        let hint = if machine { MACHINE_HINT } else { UNNAMED_HINT };
        return refuse::with(StatusCode::FORBIDDEN, error, hint);
    }
    let error = format!("{} {did} {run} and cannot approve it too: another approver must", caller.name);
    refuse::with(StatusCode::FORBIDDEN, error, "ask another approver: they see the same request")
}

/// Of a run that the machine's own token has caused: whoever approves it could be the one who caused it.
const MACHINE_HINT: &str = "no one can approve this run: deny it, and post alerts with a token of role `source`, or start the runbook \
                            with a token of a user";
const UNNAMED_HINT: &str = "use a token of your own, or list `local` under `tokens` of its owner in `people`";

/// The number of different humans that must agree before a freeze is released: the configuration's, else two where two
/// can.
pub(super) async fn release_persons(app: &App) -> Result<u32, Problem> {
    match app.parts.config.guards.release_persons {
        Some(wanted) => Ok(wanted.max(1)),
        None => Ok(if two_can(app, Right::Operate).await? { 2 } else { 1 }),
    }
}

/// The number of different humans that must request a redaction: two where two can.
pub(super) async fn redaction_persons(app: &App) -> Result<u32, Problem> {
    Ok(if two_can(app, Right::Administer).await? { 2 } else { 1 })
}

/// Whether two different humans have this right: by tokens, by Slack or by the provider. The machine's own token has no
/// owner, and a group of the provider's is more than one.
async fn two_can(app: &App, right: Right) -> Result<bool, Problem> {
    if app.roster.now().some_group_may(right) {
        return Ok(true);
    }
    let (store, roster, now) = (&app.parts.store, app.roster.now(), app.parts.clock.now());
    let made = store.tokens(now).await.map_err(refuse::store)?;
    let live = made.into_iter().filter(|token| token.break_glass.is_none() && token.opens(now));
    let by_made = live.map(|token| {
        let name = token.person.unwrap_or(token.name);
        roster.caller_by(&name, token.grant, token.sources, AuthMethod::Made(token.id))
    });
    let able: BTreeSet<String> =
        by_made.filter(|caller| caller.may(right)).map(|caller| caller.name).chain(roster.holders(right)).collect();
    // One who made all the others is rare, and so are many of them.
    let able: Vec<&String> = able.iter().take(limits::NAMES_SHOWN).collect();
    for (at, one) in able.iter().enumerate() {
        for other in &able[at + 1..] {
            if !store.same_person(one, other).await.map_err(refuse::store)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
