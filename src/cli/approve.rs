//! `nightshift approve` and `nightshift deny`: the answers to approval requests.
//!
//! Invariant: an answer is for the plan that is shown; the engine voids it when the plan changes.

use super::client::EngineClient;
use super::invocation::Invocation;
use super::page;
use super::show::approval_page;
use super::stop::CliError;
use crate::api::{ApprovalAnswer, ApprovalList, DecisionRequest, ListQuery};
use crate::model::{Approval, ApprovalState};

pub(super) const EXAMPLES: &str = "\
Examples:
  nightshift approve                              list the open requests
  nightshift show a5                              the plan, and the guards' current decisions
  nightshift approve a5 --why 'pods may move'     asks for confirmation on a terminal
  nightshift approve a5 --yes --why '…'           in a script
  nightshift deny a5 --why 'not before the demo'";

#[derive(clap::Args)]
pub(super) struct ApproveArgs {
    /// Approval (a5); without it, list the open ones
    id: Option<String>,
    /// Reason; recorded in the ledger
    #[arg(short, long, visible_alias = "reason", default_value = "")]
    why: String,
    /// Skip the plan and the confirmation; for scripts
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    listed: ApprovalListArgs,
}

/// What the list shows; with an ID these mean nothing.
#[derive(clap::Args)]
struct ApprovalListArgs {
    /// List also those that are answered or over
    #[arg(short, long, conflicts_with = "id")]
    all: bool,
    /// List only those in this state: open, approved, denied, expired or void
    #[arg(long, value_name = "STATE", conflicts_with = "id")]
    state: Option<String>,
    /// List only those of runs about this node
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    node: Option<String>,
    /// List only those of runs of this rule
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    rule: Option<String>,
    /// List only those requested since then: 2h ago, or a time
    #[arg(long, value_name = "TIME", conflicts_with = "id")]
    since: Option<String>,
    /// List at most so many
    #[arg(short = 'n', long, default_value_t = crate::limits::LIST_ROWS, value_parser = super::invocation::rows)]
    limit: usize,
}

#[derive(clap::Args)]
pub(super) struct DenyArgs {
    /// The approval (a5)
    id: String,
    /// Reason; recorded in the ledger
    #[arg(short, long, visible_alias = "reason", default_value = "")]
    why: String,
    /// Skip the confirmation; for scripts
    #[arg(short, long)]
    yes: bool,
}

pub(super) fn run(args: &ApproveArgs, invocation: &Invocation) -> Result<(), CliError> {
    let client = EngineClient::new(invocation)?;
    let Some(id) = &args.id else { return list(invocation, &client, &args.listed) };
    let id = id.to_ascii_lowercase();
    // On a terminal the plan is shown once more; a script has read it with `show`, and says so.
    if !args.yes && invocation.can_ask() && !invocation.json() {
        let answer = client.get::<ApprovalAnswer>(&format!("approvals/{id}"), &())?;
        approval_page(invocation, &answer.read()?.approval)?;
    }
    invocation.confirm(args.yes, &format!("approve {}", page::text(&id)))?;
    answer(invocation, &client, &id, true, &args.why)
}

pub(super) fn deny(args: &DenyArgs, invocation: &Invocation) -> Result<(), CliError> {
    let id = args.id.to_ascii_lowercase();
    invocation.confirm(args.yes, &format!("deny {}", page::text(&id)))?;
    answer(invocation, &EngineClient::new(invocation)?, &id, false, &args.why)
}

fn answer(invocation: &Invocation, client: &EngineClient, id: &str, approve: bool, why: &str) -> Result<(), CliError> {
    let request = DecisionRequest { approve, plan_hash: None, why: why.to_owned() };
    let answer = client.post::<ApprovalAnswer>(&format!("approvals/{id}"), &request)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let approval = answer.read()?.approval;
    let word = if approve { "approved" } else { "denied" };
    invocation.line(&format!("{} {word}", approval.id))?;
    invocation.say(&format!("see `nightshift show {}`", approval.run));
    Ok(())
}

fn list(invocation: &Invocation, client: &EngineClient, listed: &ApprovalListArgs) -> Result<(), CliError> {
    let open = !listed.all && listed.state.is_none();
    let query = ListQuery {
        open,
        limit: Some(listed.limit),
        state: listed.state.clone(),
        node: listed.node.clone(),
        rule: listed.rule.clone(),
        since: listed.since.clone(),
        ..ListQuery::default()
    };
    let answer = client.get::<ApprovalList>("approvals", &query)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let approvals = answer.read()?.approvals;
    if approvals.is_empty() {
        let narrowed = listed.node.is_some() || listed.rule.is_some() || listed.since.is_some();
        invocation.say(match (open, narrowed) {
            (true, false) => "no approval is pending",
            (true, true) => "no open request matches; --all also looks at those that are over",
            (false, _) => "no request matches",
        });
        return Ok(());
    }
    let row = |approval: &Approval| {
        let last = match approval.state {
            ApprovalState::Open => invocation.soon(approval.expires_at),
            ApprovalState::Approved => "approved".to_owned(),
            ApprovalState::Denied => "denied".to_owned(),
            ApprovalState::Expired => "expired".to_owned(),
            ApprovalState::Void => "void".to_owned(),
        };
        [
            approval.id.to_string(),
            approval.run.to_string(),
            page::text(&approval.question),
            invocation.age(approval.asked_at),
            last,
        ]
    };
    let last = if open { "EXPIRES" } else { "STATE" };
    invocation.table(["ID", "RUN", "QUESTION", "AGE", last], approvals.iter().map(row).collect())
}
