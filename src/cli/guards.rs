//! `nightshift guards`: each limit, how much of it is used, who uses it; and the reset of a breaker.
//!
//! Invariant: a level that could not be read is said to be unknown, and a breaker is reset only with a reason.

use super::client::Client;
use super::invocation::Invocation;
use super::stop::Stop;
use super::{freeze, page};
use crate::api::{BreakerReset, GuardLevels, HeldRun, NodeHold, PoolLevel, ScopeRequest};
use crate::model::Breaker;
use crate::policy::TakenReplica;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Reset a tripped breaker, with its cause
    Reset(ResetArgs),
}

#[derive(clap::Args)]
struct ResetArgs {
    /// Scope as in the list: cluster:NAME, rule:NAME or symptom:RULE
    scope: String,
    /// Cause; recorded in the ledger
    #[arg(short, long, visible_alias = "reason")]
    why: String,
    /// Skip the confirmation; for scripts
    #[arg(short, long)]
    yes: bool,
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let client = Client::new(invocation)?;
    match &args.command {
        Some(Command::Reset(reset)) => self::reset(reset, invocation, &client),
        None => list(invocation, &client),
    }
}

fn reset(args: &ResetArgs, invocation: &Invocation, client: &Client) -> Result<(), Stop> {
    invocation.confirm(args.yes, &format!("reset the breaker {}", page::text(&args.scope)))?;
    let wish = ScopeRequest { scope: args.scope.clone(), why: args.why.clone() };
    let answer = client.post::<BreakerReset>("breakers/reset", &wish)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    invocation.line(&format!("reset: {}; earlier failures no longer count", page::text(&args.scope)))
}

fn list(invocation: &Invocation, client: &Client) -> Result<(), Stop> {
    let answer = client.get::<GuardLevels>("guards", &())?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let guards = answer.read()?;
    let levels: Vec<[String; 4]> = levels(&guards).into_iter().chain(together(&guards)).collect();
    invocation.table(["GUARD", "NOW", "LIMIT", "HOLDS"], levels)?;
    if !guards.held.is_empty() {
        let row = |held: &HeldRun| [held.run.to_string(), held.guard.name().to_owned(), page::text(&held.why)];
        invocation.table(["HELD", "BY", "WHY"], guards.held.iter().map(row).collect())?;
        invocation.say("for the meaning of a guard: `nightshift why --explain BY`");
    }
    super::ladder::moved(invocation, &guards.moved)?;
    if !guards.breakers.is_empty() {
        let row =
            |breaker: &Breaker| [page::text(&breaker.scope), invocation.age(breaker.since), page::text(&breaker.why)];
        invocation.table(["BREAKER", "AGE", "WHY"], guards.breakers.iter().map(row).collect())?;
        invocation.say("to let it close: `nightshift guards reset SCOPE --why '…'`");
    }
    if guards.freezes.is_empty() { Ok(()) } else { freeze::table(invocation, &guards.freezes) }
}

/// A few of a list, and how many more.
fn some_of<T>(all: &[T], show: impl Fn(&T) -> String) -> String {
    let shown: Vec<String> = all.iter().take(crate::limits::NAMES_SHOWN).map(|one| page::text(&show(one))).collect();
    let more = all.len().saturating_sub(shown.len());
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// The guards that know who serves and who fails together.
fn together(guards: &GuardLevels) -> Vec<[String; 4]> {
    let limits = &guards.limits;
    let taken: u32 = guards.replicas_taken.iter().map(|one| one.count).sum();
    let which = |one: &TakenReplica| match one.pod.as_str() {
        "" => format!("some of {} by {}", one.set, one.run),
        pod => format!("{pod} by {}", one.run),
    };
    let pool = |pool: &PoolLevel| {
        [
            format!("pool {}", page::text(&pool.pool)),
            format!("{} of {}", pool.out.len(), pool.total),
            pool.allowed.to_string(),
            some_of(&pool.out, String::clone),
        ]
    };
    let others = [
        [
            "replicas taken".to_owned(),
            taken.to_string(),
            format!("{} ready ones stay", limits.serving_floor),
            some_of(&guards.replicas_taken, which),
        ],
        [
            "failure domains".to_owned(),
            String::new(),
            "1 run a domain".to_owned(),
            some_of(&limits.domains, String::clone),
        ],
        [
            "silences".to_owned(),
            String::new(),
            "held while they last".to_owned(),
            some_of(&guards.silences_of, String::clone),
        ],
    ];
    guards.pools.iter().map(pool).chain(others).collect()
}

fn levels(guards: &GuardLevels) -> Vec<[String; 4]> {
    let number = |value: Option<u32>| value.map_or("unknown".to_owned(), |number| number.to_string());
    let limits = &guards.limits;
    let out = &guards.nodes_out;
    let shown = out.iter().take(crate::limits::NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let stopped = guards.stopped.as_deref().unwrap_or_default();
    // Distinct nodes that our runs took out, and how many of this fleet that share is.
    let taken = |row: &str, nodes: &[String], allowed: Option<u32>, share: f64| {
        let share = format!("{:.0} %", share * 100.0);
        [
            row.to_owned(),
            nodes.len().to_string(),
            allowed.map_or_else(|| share.clone(), |nodes| format!("{nodes} ({share})")),
            some_of(nodes, String::clone),
        ]
    };
    let (symptom, rule) = match &guards.symptom {
        Some(symptom) => (symptom.nodes, format!("rule {}", page::text(&symptom.rule))),
        None => (0, String::new()),
    };
    vec![
        [
            "kill switch".to_owned(),
            if stopped.is_empty() { "off".to_owned() } else { "engaged".to_owned() },
            format!("{} to release", guards.release_persons),
            page::text(stopped),
        ],
        ["mode ceiling".to_owned(), String::new(), guards.mode_ceiling.to_string(), String::new()],
        [
            "nodes out at once".to_owned(),
            guards.nodes_total.map_or("unknown".to_owned(), |total| format!("{} of {total}", out.len())),
            number(guards.nodes_out_allowed),
            page::text(&shown),
        ],
        taken("taken in an hour", &guards.taken_hour, guards.taken_hour_allowed, limits.share_per_hour),
        taken("taken in a day", &guards.taken_day, guards.taken_day_allowed, limits.share_per_day),
        [
            "nodes locked by runs".to_owned(),
            guards.nodes_held.to_string(),
            "1 run a node".to_owned(),
            some_of(&guards.holds, |hold: &NodeHold| format!("{} by {}", hold.node, hold.run)),
        ],
        [
            "one symptom, many nodes".to_owned(),
            symptom.to_string(),
            guards.correlated_limit.map_or("off".to_owned(), |limit| limit.to_string()),
            rule,
        ],
    ]
}
