//! `nightshift channels`: the configured channels and how each stands; a test message through one.
//!
//! Invariant: a test that no channel took ends with another code than 0.

use super::client::Client;
use super::invocation::{Invocation, Paint};
use super::page;
use super::stop::{Code, Stop};
use crate::model::Time;
use serde_json::{Value, json};

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
    let answer: Value = client.get("channels", &[])?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    let text = |value: &Value| page::text(value.as_str().unwrap_or_default());
    let rows = answer["channels"].as_array().cloned().unwrap_or_default();
    let rows = rows.iter().map(|channel| {
        let (paint, state) = match channel["state"].as_str().unwrap_or_default() {
            "on" => (Paint::Good, "on"),
            "off" => (Paint::Bad, "off"),
            _ => (Paint::Odd, "failing"),
        };
        let last = channel["last_delivery"]["at"].as_str().and_then(|at| at.parse::<Time>().ok());
        let last = last.map_or_else(|| "never".to_owned(), |at| invocation.age(at));
        [text(&channel["name"]), text(&channel["kind"]), invocation.paint(paint, state), last, text(&channel["why"])]
    });
    invocation.table(["CHANNEL", "KIND", "STATE", "LAST DELIVERY", "WHY"], rows.collect())?;
    invocation.say("send a test message with `nightshift channels test NAME`");
    Ok(())
}

fn test(client: &Client, name: &str, invocation: &Invocation) -> Result<(), Stop> {
    let answer: Value = client.post_to(&["channels", name, "test"], &json!({}))?;
    let delivered = answer["delivered"] == true;
    if invocation.json() {
        invocation.print_json(&answer)?;
    } else {
        let (paint, word) = if delivered { (Paint::Good, "delivered") } else { (Paint::Bad, "not delivered") };
        let answer = page::text(answer["answer"].as_str().unwrap_or_default());
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
