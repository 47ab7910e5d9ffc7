//! `nightshift guards`: each limit, how much of it is used, who uses it; and the reset of a breaker.
//!
//! Invariant: a level that could not be read is said to be unknown, and a breaker is reset only with a reason.

use super::client::Client;
use super::invocation::Invocation;
use super::show::understood;
use super::stop::Stop;
use super::{freeze, page};
use crate::model::{Breaker, Freeze};
use serde_json::{Value, json};

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
    let answer: Value = client.post("breakers/reset", &json!({ "scope": args.scope, "why": args.why }))?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    invocation.line(&format!("reset: {}; earlier failures no longer count", page::text(&args.scope)))
}

fn list(invocation: &Invocation, client: &Client) -> Result<(), Stop> {
    let guards: Value = client.get("guards", &[])?;
    if invocation.json() {
        return invocation.print_json(&guards);
    }
    let levels: Vec<[String; 4]> = levels(&guards).into_iter().chain(together(&guards)).collect();
    invocation.table(["GUARD", "NOW", "LIMIT", "HOLDS"], levels)?;
    let text = |value: &Value| match value {
        Value::String(text) => page::text(text),
        other => other.to_string(),
    };
    let held: Vec<[String; 3]> =
        rows(&guards["held"], |run| [text(&run["run"]), text(&run["guard"]), text(&run["why"])]);
    if !held.is_empty() {
        invocation.table(["HELD", "BY", "WHY"], held)?;
        invocation.say("for the meaning of a guard: `nightshift why --explain BY`");
    }
    super::ladder::moved(invocation, &guards["moved"])?;
    let breakers: Vec<Breaker> = understood(guards["breakers"].clone())?;
    if !breakers.is_empty() {
        let row =
            |breaker: &Breaker| [page::text(&breaker.scope), invocation.age(breaker.since), page::text(&breaker.why)];
        invocation.table(["BREAKER", "AGE", "WHY"], breakers.iter().map(row).collect())?;
        invocation.say("to let it close: `nightshift guards reset SCOPE --why '…'`");
    }
    let freezes: Vec<Freeze> = understood(guards["freezes"].clone())?;
    if freezes.is_empty() { Ok(()) } else { freeze::table(invocation, &freezes) }
}

fn rows<const N: usize>(list: &Value, row: impl Fn(&Value) -> [String; N]) -> Vec<[String; N]> {
    list.as_array().into_iter().flatten().map(row).collect()
}

fn held_by(guards: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    some_of(&guards["holds"], |hold| format!("{} by {}", word(&hold["node"]), word(&hold["run"])))
}

/// A few of a list, and how many more.
fn some_of(list: &Value, show: impl Fn(&Value) -> String) -> String {
    let all: Vec<&Value> = list.as_array().into_iter().flatten().collect();
    let shown: Vec<String> = all.iter().take(crate::limits::NAMES_SHOWN).map(|one| page::text(&show(one))).collect();
    let more = all.len().saturating_sub(shown.len());
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// The guards that know who serves and who fails together.
fn together(guards: &Value) -> Vec<[String; 4]> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let limits = &guards["limits"];
    let taken: u64 =
        guards["replicas_taken"].as_array().into_iter().flatten().filter_map(|one| one["count"].as_u64()).sum();
    let which = |one: &Value| match word(&one["pod"]).as_str() {
        "" => format!("some of {} by {}", word(&one["set"]), word(&one["run"])),
        pod => format!("{pod} by {}", word(&one["run"])),
    };
    let labels = |list: &Value| some_of(list, |label| word(label));
    let pool = |pool: &Value| {
        let out = pool["out"].as_array().map_or(0, Vec::len);
        [
            format!("pool {}", page::text(&word(&pool["pool"]))),
            format!("{out} of {}", pool["total"]),
            pool["allowed"].to_string(),
            some_of(&pool["out"], word),
        ]
    };
    let pools = guards["pools"].as_array().into_iter().flatten().map(pool);
    pools
        .chain([
            [
                "replicas taken".to_owned(),
                taken.to_string(),
                format!("{} ready ones stay", limits["serving_floor"]),
                some_of(&guards["replicas_taken"], which),
            ],
            ["failure domains".to_owned(), String::new(), "1 run a domain".to_owned(), labels(&limits["domains"])],
            ["silences".to_owned(), String::new(), "held while they last".to_owned(), labels(&guards["silences_of"])],
        ])
        .collect()
}

fn levels(guards: &Value) -> Vec<[String; 4]> {
    let number = |value: &Value| value.as_u64().map_or("unknown".to_owned(), |number| number.to_string());
    let share = |value: &Value| value.as_f64().map_or("unknown".to_owned(), |share| format!("{:.0} %", share * 100.0));
    let limits = &guards["limits"];
    let out: Vec<&str> = guards["nodes_out"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let known = guards["nodes_total"].is_u64();
    let shown = out.iter().take(crate::limits::NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
    let stopped = guards["stopped"].as_str().unwrap_or_default();
    let text = |value: &str| page::text(value);
    // Distinct nodes that our runs took out, and how many of this fleet that share is.
    let taken = |row: &str, now: &str, limit: &str| {
        let allowed = &guards[format!("{now}_allowed")];
        [
            row.to_owned(),
            guards[now].as_array().map_or("unknown".to_owned(), |nodes| nodes.len().to_string()),
            match allowed.as_u64() {
                Some(nodes) => format!("{nodes} ({})", share(&limits[limit])),
                None => share(&limits[limit]),
            },
            some_of(&guards[now], |node| node.as_str().unwrap_or_default().to_owned()),
        ]
    };
    vec![
        [
            "kill switch".to_owned(),
            if stopped.is_empty() { "off".to_owned() } else { "engaged".to_owned() },
            format!("{} to release", number(&guards["release_persons"])),
            text(stopped),
        ],
        [
            "mode ceiling".to_owned(),
            String::new(),
            text(guards["mode_ceiling"].as_str().unwrap_or_default()),
            String::new(),
        ],
        [
            "nodes out at once".to_owned(),
            if known { format!("{} of {}", out.len(), number(&guards["nodes_total"])) } else { "unknown".to_owned() },
            number(&guards["nodes_out_allowed"]),
            text(&shown),
        ],
        taken("taken in an hour", "taken_hour", "share_per_hour"),
        taken("taken in a day", "taken_day", "share_per_day"),
        ["nodes locked by runs".to_owned(), number(&guards["nodes_held"]), "1 run a node".to_owned(), held_by(guards)],
        [
            "one symptom, many nodes".to_owned(),
            number(&json!(guards["symptom"]["nodes"].as_u64().unwrap_or(0))),
            if guards["correlated_limit"].is_u64() { number(&guards["correlated_limit"]) } else { "off".to_owned() },
            guards["symptom"]["rule"].as_str().map(|rule| format!("rule {}", page::text(rule))).unwrap_or_default(),
        ],
    ]
}
