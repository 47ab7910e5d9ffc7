//! The rights of users and machines: roles, the rights of each, and their scope.
//!
//! Invariant: `Role::rights` is the only table of rights; a right that it does not list does not exist.

use serde::{Deserialize, Serialize};

/// One kind of thing that can be done through a door of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::VariantArray)]
pub enum Right {
    Read,
    Check,
    Respond,
    Approve,
    Operate,
    Post,
    Audit,
    /// The revocation of one's own tokens; every role includes it.
    Own,
    Administer,
    /// The page of metrics.
    Measure,
}

/// Roles have no order: each has its own rights.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    strum::Display,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum Role {
    /// A machine that posts events to its own sources, and reads nothing.
    Source,
    /// Reads everything but secrets.
    Viewer,
    /// Also acknowledges, assigns, silences and freezes.
    Responder,
    /// Also approves.
    Approver,
    /// Writes runbooks: reads, and tries them in plans; decides nothing.
    Author,
    /// Also runs runbooks, cancels, unfreezes, resets breakers.
    Operator,
    /// Also makes tokens, redacts, lets agents in.
    Admin,
    /// Reads, exports and proves the ledger; acts nowhere.
    Auditor,
    /// A machine that scrapes `/metrics`, and reads nothing else.
    Metrics,
    /// No right at all, by no auth method: blocks a user or a group. Not in `ALL`, which lists the roles that give something.
    #[serde(rename = "none")]
    #[strum(to_string = "none")]
    Blocked,
}

impl Role {
    /// Every role, in the order of the documentation.
    pub const ALL: [Role; 9] = [
        Role::Source,
        Role::Viewer,
        Role::Responder,
        Role::Approver,
        Role::Author,
        Role::Operator,
        Role::Admin,
        Role::Auditor,
        Role::Metrics,
    ];

    /// The table.
    pub const fn rights(self) -> &'static [Right] {
        use Right::*;
        match self {
            Role::Blocked => &[],
            Role::Source => &[Own],
            Role::Viewer => &[Read, Measure, Own],
            Role::Auditor => &[Read, Measure, Audit, Own],
            Role::Metrics => &[Measure, Own],
            Role::Author => &[Read, Measure, Check, Own],
            Role::Responder => &[Read, Measure, Check, Respond, Own],
            Role::Approver => &[Read, Measure, Check, Respond, Approve, Own],
            Role::Operator => &[Read, Measure, Check, Respond, Approve, Operate, Post, Audit, Own],
            Role::Admin => &[Read, Measure, Check, Respond, Approve, Operate, Post, Audit, Own, Administer],
        }
    }

    /// Whether the role includes the right.
    pub fn may(self, right: Right) -> bool {
        self.rights().contains(&right)
    }

    /// Whether it may nothing that the other one may not.
    pub fn within(self, other: Role) -> bool {
        self.rights().iter().all(|right| other.may(*right))
    }

    /// The role's name in the configuration.
    pub const fn name(self) -> &'static str {
        self.into_str()
    }
}

impl Right {
    /// Every right, in the order of the documentation.
    pub const ALL: &'static [Right] = <Right as strum::VariantArray>::VARIANTS;

    /// "this needs the right to …"
    pub const fn words(self) -> &'static str {
        match self {
            Right::Read => "read",
            Right::Check => "run a preflight of a runbook",
            Right::Respond => "acknowledge, assign, silence, review and freeze",
            Right::Approve => "answer approval requests",
            Right::Operate => "start and end runs, promote rules, unfreeze and reset breakers",
            Right::Post => "post events to every source",
            Right::Audit => "export and verify the ledger, and list tokens and sessions",
            Right::Own => "revoke tokens of one's own",
            Right::Administer => "make tokens, redact, let agents in, and end sessions",
            Right::Measure => "scrape metrics",
        }
    }

    /// The roles that have it, for a hint.
    pub fn holders(self) -> String {
        let names: Vec<&str> = Role::ALL.iter().filter(|role| role.may(self)).map(|role| role.name()).collect();
        names.join(", ")
    }
}

/// A role, and where it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Grant {
    pub role: Role,
    /// None: in every cluster. An empty list: in none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clusters: Option<Vec<String>>,
}

impl Grant {
    /// The role in every cluster.
    pub fn everywhere(role: Role) -> Grant {
        Grant { role, clusters: None }
    }

    /// Whether it holds for something in that cluster; where that is not known, only if it holds everywhere.
    pub fn holds_in(&self, cluster: Option<&str>) -> bool {
        match &self.clusters {
            None => true,
            Some(clusters) => cluster.is_some_and(|cluster| clusters.iter().any(|name| name == cluster)),
        }
    }

    /// Whether it gives nothing that the other one does not.
    pub fn within(&self, other: &Grant) -> bool {
        let inside = match (&self.clusters, &other.clusters) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(ours), Some(theirs)) => ours.iter().all(|cluster| theirs.contains(cluster)),
        };
        inside && self.role.within(other.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out once more by hand, so that a slip in the table shows.
    #[test]
    fn each_role_has_exactly_these_rights() {
        let table = "\
            source     -        -     -       -       -       -    -     own -          -
            viewer     read     -     -       -       -       -    -     own -          measure
            responder  read     check respond -       -       -    -     own -          measure
            approver   read     check respond approve -       -    -     own -          measure
            author     read     check -       -       -       -    -     own -          measure
            operator   read     check respond approve operate post audit own -          measure
            admin      read     check respond approve operate post audit own administer measure
            auditor    read     -     -       -       -       -    audit own -          measure
            metrics    -        -     -       -       -       -    -     own -          measure";
        assert_eq!(table.lines().count(), Role::ALL.len());
        for (line, role) in table.lines().zip(Role::ALL) {
            let mut words = line.split_whitespace();
            assert_eq!(words.next(), Some(role.name()));
            for (word, &right) in words.zip(Right::ALL) {
                assert_eq!(role.may(right), word != "-", "{role} {right:?}");
            }
        }
    }

    #[test]
    fn a_grant_is_within_another_only_in_what_and_in_where() {
        let grant = |role, clusters: Option<&[&str]>| Grant {
            role,
            clusters: clusters.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        };
        let admin_eu = grant(Role::Admin, Some(&["eu-1"]));
        assert!(grant(Role::Viewer, Some(&["eu-1"])).within(&admin_eu));
        assert!(grant(Role::Viewer, Some(&[])).within(&admin_eu));
        for wider in [grant(Role::Viewer, None), grant(Role::Viewer, Some(&["eu-1", "us-1"]))] {
            assert!(!wider.within(&admin_eu), "{wider:?}");
        }
        assert!(!Grant::everywhere(Role::Author).within(&Grant::everywhere(Role::Auditor)));
        assert!(!Grant::everywhere(Role::Auditor).within(&Grant::everywhere(Role::Approver)));
    }

    #[test]
    fn nowhere_and_who_knows_where_are_not_everywhere() {
        let scoped = |names: &[&str]| Grant {
            role: Role::Admin,
            clusters: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        };
        assert!(scoped(&["eu-1"]).holds_in(Some("eu-1")));
        assert!(!scoped(&["eu-1"]).holds_in(Some("eu-11")));
        assert!(!scoped(&["eu-1"]).holds_in(None));
        assert!(!scoped(&[]).holds_in(Some("eu-1")));
        assert!(Grant::everywhere(Role::Viewer).holds_in(None));
    }
}
