//! `nightshift channels`: the configured channels and how each stands; a test message through one.
//!
//! Invariant: a test that no channel took ends with another code than 0.

use super::client::Client;
use super::invocation::{Invocation, Paint};
use super::page;
use super::stop::{Code, Stop};
use crate::api::{ChannelList, ChannelState, ChannelTest};
use serde_json::json;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// Send a test message through a channel, and print its answer; PagerDuty gets a trigger and its resolve
    Test {
        /// The channel's name, as under `channels` in the configuration
        name: String,
    },
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let client = Client::new(invocation)?;
    match &args.what {
        None => list(&client, invocation),
        Some(What::Test { name }) => test(&client, name, invocation),
    }
}

fn list(client: &Client, invocation: &Invocation) -> Result<(), Stop> {
    let answer = client.get::<ChannelList>("channels", &())?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let channels = answer.read()?.channels;
    let rows = channels.iter().map(|channel| {
        let (paint, state) = match channel.state {
            ChannelState::On => (Paint::Good, "on"),
            ChannelState::Off => (Paint::Bad, "off"),
            ChannelState::Failing => (Paint::Odd, "failing"),
        };
        let last = channel.last_delivery.as_ref();
        let last = last.map_or_else(|| "never".to_owned(), |last| invocation.age(last.at));
        let why = page::text(channel.why.as_deref().unwrap_or_default());
        [page::text(&channel.name), page::text(&channel.kind), invocation.paint(paint, state), last, why]
    });
    invocation.table(["CHANNEL", "KIND", "STATE", "LAST DELIVERY", "WHY"], rows.collect())?;
    invocation.say("send a test message with `nightshift channels test NAME`");
    Ok(())
}

fn test(client: &Client, name: &str, invocation: &Invocation) -> Result<(), Stop> {
    let answer = client.post_to::<ChannelTest>(&["channels", name, "test"], &json!({}))?;
    let raw = answer.raw.clone();
    let ChannelTest { delivered, answer, .. } = answer.read()?;
    if invocation.json() {
        invocation.print_json(&raw)?;
    } else {
        let (paint, word) = if delivered { (Paint::Good, "delivered") } else { (Paint::Bad, "not delivered") };
        let answer = page::text(&answer);
        invocation.line(&format!("{}  {}: {answer}", invocation.paint(paint, word), page::text(name)))?;
    }
    match delivered {
        true => Ok(()),
        false => {
            invocation.say(&format!("fix `channels.{name}`, then run `nightshift doctor`"));
            Err(Stop::said(Code::Failure))
        }
    }
}
