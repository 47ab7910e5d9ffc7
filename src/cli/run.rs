//! `nightshift run`: starts a runbook by hand. The plan is shown first, and the target is named back before it is touched.
//!
//! Invariant: nothing that changes the world is started without `--yes` or a person who typed the target's name.

use super::client::Client;
use super::invocation::Invocation;
use super::page;
use super::show::show_run;
use super::simulate;
use super::stop::{Code, Stop};
use crate::api::{RunAnswer, RunDetail, RunRequest, Simulation};
use crate::clock::{Clock, RealClock};
use crate::model::{Mode, Reach, Run, RunState, Span};
use serde_json::Value;

pub(super) const EXAMPLES: &str = "\
Examples:
  nightshift run node-drain node=gpu-3 --dry-run    print the plan, start nothing
  nightshift run node-drain node=gpu-3              asks you to type the target's name first
  nightshift run node-drain node=gpu-3 --yes --wait start it in a script, and exit with its outcome";

#[derive(clap::Args)]
pub(super) struct Args {
    /// The runbook's name: its file without `.rhai`
    runbook: String,
    /// Parameters of the runbook, as in `node=gpu-3`
    #[arg(value_name = "NAME=VALUE", value_parser = simulate::param)]
    params: Vec<(String, Value)>,
    /// The same as an option
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE", value_parser = simulate::param)]
    more: Vec<(String, Value)>,
    /// The cluster where it runs [default: `default_cluster` of the configuration]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Mode: observe, suggest, approve or auto [default: the installation's ceiling]
    #[arg(long, value_parser = mode)]
    mode: Option<Mode>,
    /// Print the plan without starting the run
    #[arg(long)]
    dry_run: bool,
    /// Skip the confirmation; for scripts
    #[arg(short, long)]
    yes: bool,
    /// Wait until the run ends, and exit with its outcome
    #[arg(long)]
    wait: bool,
    /// Maximum waiting time
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "wait")]
    timeout: Span,
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let client = Client::new(invocation)?;
    let params = [args.params.clone(), args.more.clone()].concat();
    let acts = args.mode.is_none_or(|mode| mode >= Mode::Approve);
    if args.dry_run || (acts && !args.yes) {
        let answer = simulate::plan(&client, &args.runbook, &params, None, args.cluster.as_deref())?;
        if args.dry_run {
            return if invocation.json() {
                invocation.print_json(&answer.raw)
            } else {
                simulate::show(invocation, &answer.read()?)
            };
        }
        confirm(invocation, args, &answer.read()?)?;
    }
    let body = RunRequest {
        runbook: args.runbook.clone(),
        params: simulate::gather(&params)?,
        event: None,
        mode: args.mode,
        cluster: args.cluster.clone(),
    };
    let answer = client.post::<RunAnswer>("runs", &body)?;
    if !args.wait && invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let run = answer.read()?.run;
    if !args.wait {
        invocation.say(&format!("started in mode {}; see `nightshift show {}`", run.mode, run.id));
        return invocation.line(&run.id.to_string());
    }
    invocation.say(&format!("started {} in mode {}; Ctrl-C stops waiting, not the run", run.id, run.mode));
    wait(args, invocation, &client, run)
}

/// Names the target back. Without a terminal no one can confirm it.
fn confirm(invocation: &Invocation, args: &Args, simulated: &Simulation) -> Result<(), Stop> {
    let writes = simulated.plan.calls.iter().filter(|call| call.reach > Reach::None).count();
    if writes == 0 {
        return Ok(());
    }
    let subject = &simulated.subject;
    let parts = ["pod", "workload", "node", "model", "namespace", "cluster"];
    let target = parts.iter().find_map(|part| subject.part(part)).unwrap_or(&args.runbook).to_owned();
    let what =
        format!("`{}` would make {} that change {}", args.runbook, page::count(writes, "call"), page::subject(subject));
    if !invocation.can_ask() {
        return Err(Stop::usage(
            format!("{what}, and there is no terminal to confirm it on"),
            "look with --dry-run, then add --yes",
        ));
    }
    for planned in simulated.plan.calls.iter().filter(|call| call.reach > Reach::None) {
        invocation.say(&format!("  {}", page::text(&planned.call.to_string())));
    }
    invocation.say(&format!("{what} (scope {}).", simulated.header.reach));
    let answer = invocation.ask(&format!("To start it, type `{}`:", page::text(&target)))?;
    if answer == target {
        return Ok(());
    }
    Err(Stop::failure(format!("`{}` is not `{}`: no run was started", page::text(&answer), page::text(&target)), ""))
}

fn wait(args: &Args, invocation: &Invocation, client: &Client, mut run: Run) -> Result<(), Stop> {
    let end = invocation.now + args.timeout.0;
    let mut shown = String::new();
    while !run.state.is_final() {
        if let Some(first) = page::stands(invocation, &run).first()
            && *first != shown
        {
            invocation.say(&format!("{}: {first}", run.id));
            shown.clone_from(first);
        }
        if RealClock.now() >= end {
            return Err(Stop::new(
                Code::Partial,
                format!("{} is not over after {}: {}", run.id, args.timeout, run.state.name()),
                format!("it continues; see `nightshift show {}`", run.id),
            ));
        }
        client.pause()?;
        run = client.get::<RunDetail>(&format!("runs/{}", run.id), &())?.read()?.run;
    }
    show_run(invocation, client, &run.id.to_string())?;
    match run.state {
        RunState::Done | RunState::Planned | RunState::Stopped { .. } => Ok(()),
        _ => Err(Stop::said(Code::Failure)),
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    let all = [Mode::Observe, Mode::Suggest, Mode::Approve, Mode::Auto];
    all.into_iter().find(|mode| mode.to_string() == text).ok_or("write observe, suggest, approve or auto".to_owned())
}
