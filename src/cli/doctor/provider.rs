//! The identity provider: whether it is where the configuration says, has keys, and agrees about the time.
//!
//! Invariant: asks as a sign-in does, and begins no sign-in.

use super::DoctorFindings;
use crate::clock::{Clock, RealClock};
use crate::config::Config;
use crate::limits;
use crate::server::look_at_provider;
use crate::world::World;
use jiff::fmt::rfc2822;

pub(super) async fn look(config: &Config, world: &World, findings: &mut DoctorFindings) {
    let Some(oidc) = &config.server.oidc else { return };
    let area = "oidc";
    let (keys, date) = match look_at_provider(&world.http, oidc).await {
        Ok(found) => found,
        Err(why) => {
            findings.bad(area, why, "check `server.oidc.issuer`: it must equal the provider's own issuer exactly");
            return;
        }
    };
    match keys {
        0 => findings.bad(area, format!("{} publishes no key that signs ID tokens", oidc.issuer), "check its keys"),
        _ => {
            findings.good(area, format!("{} answers, with {keys} keys; sign-ins go to {}", oidc.issuer, oidc.client_id))
        }
    }
    // In whole seconds, as `Date` is.
    let theirs = date.and_then(|date| rfc2822::parse(&date).ok()).map(|date| date.timestamp().as_second());
    let Some(ahead) = theirs.map(|theirs| theirs - RealClock.now().as_second()) else { return };
    if ahead.unsigned_abs() > limits::OIDC_SKEW.as_secs() / 2 {
        let words = if ahead > 0 { "behind" } else { "ahead of" };
        findings.bad(
            "clock",
            format!("this machine is {} s {words} the identity provider: ID tokens will be refused", ahead.abs()),
            "timedatectl set-ntp true      # on the one that is wrong",
        );
    }
}
