//! Old names of keys that are accepted for one release, and the places of a file that still use them.
//!
//! Invariant: an old name works like the new one; only `nightshift check` reports it, as a note.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

/// Old and new names of a rule's keys.
const RULE: [(&str, &str); 2] = [("still", "confirm_query"), ("persons", "min_approvers")];
/// Old and new names of a channel's keys.
const CHANNEL: [(&str, &str); 1] = [("patience", "notify_after")];

/// An old name in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeprecatedKey {
    /// From 1: the line on which the rule or the channel starts.
    pub line: u64,
    pub old: &'static str,
    pub new: &'static str,
}

type KeyMap = Spanned<BTreeMap<String, IgnoredAny>>;

#[derive(Deserialize)]
struct RuleKeys {
    #[serde(default)]
    rules: Vec<KeyMap>,
}

#[derive(Deserialize)]
struct ChannelKeys {
    #[serde(default)]
    channels: BTreeMap<String, KeyMap>,
}

/// The old names in a file of rules; none if it does not parse, which is an error of its own.
pub fn in_rules(text: &str) -> Vec<DeprecatedKey> {
    let rules = serde_saphyr::from_str::<RuleKeys>(text).map(|file| file.rules).unwrap_or_default();
    rules.iter().flat_map(|rule| old_names(rule, &RULE)).collect()
}

/// The old names in a configuration file; none if it does not parse.
pub fn in_configuration(text: &str) -> Vec<DeprecatedKey> {
    let channels = serde_saphyr::from_str::<ChannelKeys>(text).map(|file| file.channels).unwrap_or_default();
    channels.values().flat_map(|channel| old_names(channel, &CHANNEL)).collect()
}

fn old_names(
    keys: &KeyMap,
    names: &'static [(&'static str, &'static str)],
) -> impl Iterator<Item = DeprecatedKey> + use<> {
    let line = keys.referenced.line();
    let used: Vec<_> = names.iter().filter(|(old, _)| keys.value.contains_key(*old)).collect();
    used.into_iter().map(move |&(old, new)| DeprecatedKey { line, old, new })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::model::Rule;

    const OLD: &str = "{ name: x, when: ['a=\"b\"'], run: r, still: 'up == 0', persons: 2 }";
    const NEW: &str = "{ name: x, when: ['a=\"b\"'], run: r, confirm_query: 'up == 0', min_approvers: 2 }";

    #[test]
    fn the_old_names_of_a_rule_mean_the_same_and_are_reported() {
        let [old, new] = [OLD, NEW].map(|text| serde_saphyr::from_str::<Rule>(text).unwrap());
        assert_eq!(old, new);
        assert_eq!((new.still.as_deref(), new.persons), (Some("up == 0"), 2));
        let found = in_rules(&format!("rules:\n  - {NEW}\n  - {OLD}\n"));
        let names: Vec<_> = found.iter().map(|one| (one.line, one.old, one.new)).collect();
        assert_eq!(names, [(3, "still", "confirm_query"), (3, "persons", "min_approvers")]);
    }

    #[test]
    fn the_old_name_of_a_channels_delay_means_the_same_and_is_reported() {
        let text =
            |key: &str| format!("channels:\n  pager: {{ kind: pagerduty, routing_key: {{ env: PD }}, {key}: 15m }}\n");
        let [old, new] = ["patience", "notify_after"].map(|key| Config::parse("test", &text(key)).unwrap());
        assert_eq!(old.channels["pager"].patience(), new.channels["pager"].patience());
        assert!(new.channels["pager"].patience().is_some());
        assert_eq!(in_configuration(&text("notify_after")), []);
        let found = in_configuration(&text("patience"));
        assert_eq!((found.len(), found[0].line, found[0].new), (1, 2, "notify_after"));
    }
}
