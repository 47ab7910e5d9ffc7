//! Who is the same human as who: two names in the ledger, and whoever asks now by whatever way.
//!
//! Invariant: where two persons must agree, a token made here is no second person of its maker, nor two of them of theirs.

use super::{App, Problem, refuse};
use crate::model::{ApiToken, Right};
use crate::planted::planted;
use crate::server::auth::LOCAL;
use crate::server::roster::Roster;
use crate::server::{Caller, Way};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How the names of tokens of broken glasses begin; no token that is made otherwise can be called so.
pub(super) const GLASS: &str = "break-glass (";

/// Everybody who is known at this moment.
pub(super) struct Humans {
    roster: Arc<Roster>,
    made: Vec<ApiToken>,
}

/// One human as far as it can be told: by what name, and who else may have what they came by.
struct Human {
    name: String,
    behind: BTreeSet<String>,
}

impl Human {
    /// Whether two may be one. The machine's own token may be behind many: who holds it can say in the configuration who is
    /// who, so what it made are different humans, but none of them is another one than itself.
    fn may_be(&self, other: &Human) -> bool {
        let shared = || self.behind.intersection(&other.behind).any(|name| name != LOCAL);
        self.behind.contains(&other.name) || other.behind.contains(&self.name) || shared()
    }
}

impl Humans {
    pub async fn now(app: &App) -> Result<Humans, Problem> {
        let made = app.parts.store.tokens().await.map_err(refuse::store)?;
        Ok(Humans { roster: app.roster.now(), made })
    }

    /// Whoever a name in the ledger means: a person; the holder of a token that is nobody's, or its maker, who may have kept
    /// its text; for a broken glass whoever holds the machine's own token.
    fn named(&self, name: &str) -> Human {
        let name = self.meant(name);
        let mut behind = BTreeSet::from([name.clone()]);
        let mut open = vec![name.clone()];
        while let Some(next) = open.pop() {
            if self.roster.by_name(&next).is_some() || planted("maker-is-somebody-else") {
                continue;
            }
            for token in self.made.iter().filter(|token| token.name == next) {
                let maker = self.meant(&token.made_by);
                if behind.insert(maker.clone()) {
                    open.push(maker);
                }
            }
        }
        Human { name, behind }
    }

    fn meant(&self, name: &str) -> String {
        if name.starts_with(GLASS) {
            return LOCAL.to_owned();
        }
        self.roster.of_token(name).map_or_else(|| name.to_owned(), |person| person.name.clone())
    }

    fn asking(&self, caller: &Caller) -> Human {
        let mut human = self.named(if matches!(caller.way, Way::BreakGlass(..)) { LOCAL } else { &caller.name });
        // Whoever holds the machine's own token can write the file that says whose a token is; so its word counts.
        let vouched = |maker: &str| maker == LOCAL && caller.person.is_some();
        if let Some(maker) = caller.maker.as_deref().filter(|maker| !vouched(maker) && human.name != LOCAL)
            && !planted("maker-is-somebody-else")
        {
            human.behind.extend(self.named(maker).behind);
        }
        human
    }

    /// Whether whoever has asked for something, or said yes to it, may be the same human as the caller.
    pub fn same(&self, name: &str, caller: &Caller) -> bool {
        self.named(name).may_be(&self.asking(caller))
    }

    /// Whether two different humans may release what is frozen: by tokens, by Slack or by the provider. The machine's own
    /// token is nobody's, and a group of the provider's is more than one.
    fn two_can_release(&self, app: &App) -> bool {
        let groups = app.parts.config.server.oidc.as_ref().map(|oidc| &oidc.roles);
        if groups.is_some_and(|roles| roles.values().any(|role| role.may(Right::Operate))) {
            return true;
        }
        let now = app.parts.clock.now();
        let live = self.made.iter().filter(|token| token.break_glass.is_none() && token.opens(now));
        let by_made = live.map(|token| {
            let way = Way::Made(token.id);
            self.roster.caller_by(&token.name, token.grant.clone(), token.sources.clone(), way)
        });
        let able: BTreeSet<String> = by_made
            .filter(|caller| caller.may(Right::Operate))
            .map(|caller| caller.name)
            .chain(self.roster.releasers())
            .collect();
        let able: Vec<Human> = able.iter().map(|name| self.named(name)).collect();
        able.iter().enumerate().any(|(at, one)| able[at + 1..].iter().any(|other| !one.may_be(other)))
    }
}

/// How many different humans must agree before a freeze is released: what the configuration says, else two where two can.
pub(super) async fn release_persons(app: &App) -> Result<u32, Problem> {
    match app.parts.config.guards.release_persons {
        Some(wanted) => Ok(wanted.max(1)),
        None => Ok(if Humans::now(app).await?.two_can_release(app) { 2 } else { 1 }),
    }
}
