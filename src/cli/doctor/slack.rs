//! Slack: whether its tokens are good and of one app, and whether the engine that runs here is connected.
//!
//! Invariant: the address that Slack gives for a connection is left unused, so nothing is connected.

use super::{Findings, inside, reach};
use crate::api::EngineStatus;
use crate::config::{Config, Secret, SlackApp};
use crate::limits;
use crate::notifiers::one_line;
use crate::notifiers::slack::Web;
use crate::world::World;
use tokio::time::timeout;

const AREA: &str = "slack";
const SILENT: &str = "Slack does not answer in time";
const WAY_OUT: &str = "let this machine out to slack.com and wss-primary.slack.com, port 443: no proxy is used";

pub(super) async fn all(config: &Config, world: &World, findings: &mut Findings) {
    let Some(slack) = &config.slack else { return };
    bot(config, slack, world, findings).await;
    // That a secret cannot be read has been said already.
    let Some(Ok(token)) = slack.app_token.as_ref().map(Secret::read) else { return };
    match timeout(limits::KUBE_TIMEOUT, Web::new(world.http.clone(), &slack.api, &token).socket()).await {
        Ok(Ok(_)) => findings.good(AREA, "the app token is valid, and Socket Mode is on"),
        Ok(Err(refusal)) if refusal.lasting => {
            findings.bad(AREA, refusal.why, "fix `slack.app_token`, or the app's settings");
        }
        Ok(Err(refusal)) => findings.bad(AREA, refusal.why, WAY_OUT),
        Err(_) => findings.bad(AREA, SILENT, WAY_OUT),
    }
    connection(config, world, findings).await;
}

/// The bot's token: forms and pages need it, and it says which workspace it is of.
async fn bot(config: &Config, slack: &SlackApp, world: &World, findings: &mut Findings) {
    let Some(secret) = config.slack_token() else {
        let mend = "slack:\n  token: { file: /run/secrets/slack-token }      # xoxb-…";
        return findings.odd(AREA, "no bot token: buttons open no forms, and the app has no page", mend);
    };
    let Ok(token) = secret.read() else { return };
    let bot = match timeout(limits::KUBE_TIMEOUT, Web::new(world.http.clone(), &slack.api, &token).bot()).await {
        Ok(Ok(bot)) => bot,
        Ok(Err(refusal)) => return findings.bad(AREA, refusal.why, "fix `slack.token`, or that of the channel"),
        Err(_) => return findings.bad(AREA, SILENT, WAY_OUT),
    };
    if !bot.commands {
        let mend = "add the scope `commands` (OAuth & Permissions), or the manifest of integrations/slack/, and reinstall the app";
        findings.bad(AREA, "the app lacks `commands`, so there is no /nightshift in the workspace", mend);
    }
    match &slack.team {
        _ if bot.team.is_empty() => {}
        Some(team) if *team != bot.team => findings.bad(
            AREA,
            format!("`slack.team` is {team}, and the bot token is of {}: every press and command is refused", bot.team),
            format!("slack:\n  team: {}", bot.team),
        ),
        Some(_) => findings.good(AREA, format!("the bot token is of the workspace {}", bot.team)),
        None => findings.odd(
            AREA,
            "`slack.team` is not set: presses and commands of any workspace that has the app count",
            format!("slack:\n  team: {}", bot.team),
        ),
    }
}

/// The state of the connection, from the engine that runs here.
async fn connection(config: &Config, world: &World, findings: &mut Findings) {
    let Ok(token) = std::fs::read_to_string(config.local_token_path()) else { return };
    let url = format!("http://{}/api/v1/status", inside::local(config.server.listen));
    // Whether an engine runs here at all is another finding.
    let Ok(answer) = reach::get(&world.http, &url, Some(token.trim())).await else { return };
    let Ok(status) = serde_json::from_str::<EngineStatus>(&answer.body) else { return };
    let Some(slack) = status.slack else {
        return findings.bad(
            AREA,
            "the running engine has no `slack.app_token`: it was started with another configuration",
            "restart it, then see `nightshift status`",
        );
    };
    let since = slack.since.map(|at| at.to_string()).unwrap_or_default();
    match slack.connected {
        true => findings.good(AREA, format!("the engine that runs here is connected since {since}")),
        false => {
            let why = one_line(slack.why.as_deref().unwrap_or_default(), limits::STORY_LINE_CHARS);
            let found = format!("the engine that runs here is not connected since {since}: {why}");
            findings.bad(AREA, found, format!("it tries again by itself; {WAY_OUT}"));
        }
    }
}
