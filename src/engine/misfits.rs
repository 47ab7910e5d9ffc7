//! Contradictions between the files and the configuration: channels, vendors' shapes, actions that are off.
//!
//! Invariant: pure over both; a misfit that would leave users without news or a source without ears is fatal.

use crate::actions;
use crate::catalog::CatalogSnapshot;
use crate::config::{ActionsConfig, ChannelConfig, Config, DefaultRoute, INFERENCE, KUBERNETES, closest};
use crate::model::Rule;
use crate::sources::cron;
use regex::Regex;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigConflict {
    pub text: String,
    /// File and line, where it is in a file other than the configuration.
    pub place: Option<String>,
    /// A start is refused over it; otherwise it is a warning.
    pub fatal: bool,
}

/// Every mismatch between a configuration and the files loaded beside it.
pub fn misfits(config: &Config, loaded: &CatalogSnapshot) -> Vec<ConfigConflict> {
    let mut found = channels(config, loaded);
    found.extend(silent(config, loaded));
    found.extend(told_by_runbooks(config, loaded));
    found.extend(held_by_the_ceiling(config, loaded));
    found.extend(actions_off(config, loaded));
    for (name, source) in &config.sources {
        let own = ["alertmanager", KUBERNETES, INFERENCE];
        if !own.contains(&source.kind.as_str()) && !loaded.decoders.contains_key(&source.kind) {
            let known = loaded.decoders.keys().map(String::as_str).chain(own).collect();
            let near = near(&source.kind, known);
            let text = format!("sources.{name}: there is no integrations/{}/decode.rhai: {near}", source.kind);
            found.push(ConfigConflict { text, place: None, fatal: true });
        }
    }
    found.extend(movable(config));
    for window in &config.windows {
        if let Err(why) = cron::parse(&window.at) {
            found.push(ConfigConflict { text: format!("window {}: {why}", window.name), place: None, fatal: true });
        }
    }
    for rule in loaded.rules.rules().filter(|rule| rule.still.is_some() && config.prometheus.is_none()) {
        let text =
            format!("rule {} requires a second signal (`confirm_query`), and no `prometheus` is configured", rule.name);
        found.push(ConfigConflict { text, place: None, fatal: false });
    }
    for (name, channel) in &config.channels {
        if let ChannelConfig::Webhook { shape, .. } = channel
            && !loaded.encoders.contains_key(shape)
        {
            let near = near(shape, loaded.encoders.keys().map(String::as_str).collect());
            let text = format!("channels.{name}: there is no integrations/{shape}/encode.rhai: {near}");
            found.push(ConfigConflict { text, place: None, fatal: true });
        }
    }
    found
}

/// Users who are named by a mail, beside groups that give roles too.
fn movable(config: &Config) -> Option<ConfigConflict> {
    let groups = config.server.oidc.as_ref().is_some_and(|oidc| !oidc.roles.is_empty());
    let by_mail = |person: &&crate::config::PersonConfig| person.oidc.as_deref().is_some_and(|oidc| oidc.contains('@'));
    let names: Vec<&str> = config.people.iter().filter(by_mail).map(|person| person.name.as_str()).collect();
    let first = *names.first().filter(|_| groups)?;
    let text = format!(
        "`people[].oidc` names {} by a mail, and `server.oidc.roles` gives roles to groups: until {first} has signed in once, \
         any account with that mail at the provider is {first}. Write the subject, which never changes",
        names.join(", ")
    );
    Some(ConfigConflict { text, place: None, fatal: false })
}

fn channels(config: &Config, loaded: &CatalogSnapshot) -> Vec<ConfigConflict> {
    let unknown = |rule: &&Rule| rule.tell.iter().any(|name| !config.channels.contains_key(name));
    if config.channels.is_empty() {
        let named: BTreeSet<&str> = loaded.rules.rules().flat_map(|rule| &rule.tell).map(String::as_str).collect();
        if named.is_empty() {
            return Vec::new();
        }
        let named: Vec<String> = named.into_iter().map(|name| format!("`{name}`")).collect();
        let text = format!(
            "no `channels` are configured: notifications of rules to {} go to this engine's log only",
            named.join(", ")
        );
        return vec![ConfigConflict { text, place: None, fatal: false }];
    }
    let mut found = unmatched(config);
    for rule in loaded.rules.rules().filter(unknown) {
        // A rule that is silent in its mode notifies no one, so no message is lost until it is promoted.
        let fatal = rule.run.is_none() || rule.mode.min(config.mode_ceiling) >= rule.tell_in;
        for channel in rule.tell.iter().filter(|name| !config.channels.contains_key(*name)) {
            let near = near(channel, config.channels.keys().map(String::as_str).collect());
            let text = format!("rule `{}` notifies `{channel}`, which is not a configured channel: {near}", rule.name);
            found.push(ConfigConflict { text, place: loaded.places.get(&rule.name).cloned(), fatal });
        }
    }
    found
}

/// Channels of the catch-all that are not there.
fn unmatched(config: &Config) -> Vec<ConfigConflict> {
    let missing = config.default.tell.iter().filter(|name| !config.channels.contains_key(*name));
    let say = |channel: &String| {
        let near = near(channel, config.channels.keys().map(String::as_str).collect());
        let built_in = config.default == DefaultRoute::default();
        let text = match built_in {
            true => format!(
                "there is no channel `{channel}` for events that no rule matches, so every channel is notified of \
                 them: write `default: {{ tell: [NAME] }}` to choose"
            ),
            false => format!("default.tell: `{channel}` is not a configured channel: {near}"),
        };
        ConfigConflict { text, place: None, fatal: !built_in }
    };
    missing.map(say).collect()
}

/// Rules that never notify under this configuration.
fn silent(config: &Config, loaded: &CatalogSnapshot) -> Vec<ConfigConflict> {
    let ceiling = config.mode_ceiling;
    let rules = loaded.rules.rules().filter(|rule| rule.tell_in > ceiling);
    rules
        .map(|rule| {
            let text = format!(
                "rule `{}` notifies from {} on (`tell_in`), and `mode_ceiling` is {ceiling}: it never notifies",
                rule.name, rule.tell_in
            );
            ConfigConflict { text, place: None, fatal: false }
        })
        .collect()
}

/// Runbooks that notify a channel by a name that is none; a name that is computed is not looked at.
fn told_by_runbooks(config: &Config, loaded: &CatalogSnapshot) -> Vec<ConfigConflict> {
    static TELL: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"\btell\(\s*"([^"]+)""#).ok());
    let mut found = Vec::new();
    let mut runbooks: Vec<_> = loaded.runbooks.iter().collect();
    runbooks.sort_by_key(|(name, _)| *name);
    // Without any channel everything goes to the log, which is reported once.
    for (name, runbook) in runbooks.into_iter().filter(|_| !config.channels.is_empty()) {
        let lines = runbook.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (at, line) in lines {
            let told = TELL.iter().flat_map(|tell| tell.captures_iter(line)).map(|found| found[1].to_owned());
            for channel in told.filter(|channel| !config.channels.contains_key(channel)) {
                let near = near(&channel, config.channels.keys().map(String::as_str).collect());
                let text = format!("runbook `{name}` notifies `{channel}`, which is not a configured channel: {near}");
                let place = config.runbooks_dir.join(format!("{name}.rhai")).display().to_string();
                found.push(ConfigConflict { text, place: Some(format!("{place}:{}", at + 1)), fatal: false });
            }
        }
    }
    found
}

/// Rules whose file has a higher mode than `mode_ceiling` allows.
fn held_by_the_ceiling(config: &Config, loaded: &CatalogSnapshot) -> Option<ConfigConflict> {
    let above: Vec<String> = loaded
        .rules
        .rules()
        .filter(|rule| rule.run.is_some() && rule.mode > config.mode_ceiling)
        .map(|rule| format!("`{}` ({})", rule.name, rule.mode))
        .collect();
    if above.is_empty() {
        return None;
    }
    let text = format!(
        "`mode_ceiling: {ceiling}` keeps {} at {ceiling}, below the mode in its file: {}; raise `mode_ceiling`, or lower \
         the rule's `mode`",
        if above.len() == 1 { "one rule".to_owned() } else { format!("{} rules", above.len()) },
        above.join(", "),
        ceiling = config.mode_ceiling,
    );
    Some(ConfigConflict { text, place: None, fatal: false })
}

/// Patterns that match nothing, and runbooks that call actions that are off.
fn actions_off(config: &Config, loaded: &CatalogSnapshot) -> Vec<ConfigConflict> {
    let names: Vec<&str> = actions::catalog().iter().map(|action| action.spec().name).collect();
    let mut found = Vec::new();
    for (key, patterns) in [("allow", &config.actions.allow), ("deny", &config.actions.deny)] {
        for pattern in patterns.iter().filter(|pattern| !names.iter().any(|name| ActionsConfig::fits(pattern, name))) {
            let text = format!("actions.{key}: `{pattern}` means no action: {}", near(pattern, names.clone()));
            found.push(ConfigConflict { text, place: None, fatal: true });
        }
    }
    let mut runbooks: Vec<_> = loaded.runbooks.iter().collect();
    runbooks.sort_by_key(|(name, _)| *name);
    for (name, runbook) in runbooks {
        let off: Vec<String> = runbook
            .actions()
            .iter()
            .filter(|spec| !config.actions.lets(spec.name))
            .map(|spec| format!("`{}`", spec.name))
            .collect();
        if !off.is_empty() {
            let text = format!("runbook `{name}` calls {}, off by `actions`: such a run ends there", off.join(", "));
            found.push(ConfigConflict { text, place: None, fatal: false });
        }
    }
    found
}

fn near(word: &str, known: Vec<&str>) -> String {
    match closest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there are none".to_owned(),
        None => format!("there are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_who_is_named_by_a_mail_beside_groups_is_a_warning() {
        let of = |people: &str, roles: &str| {
            let oidc = format!("{{ issuer: 'https://l.example', client_id: ns, roles: {roles} }}");
            let config = Config::parse("x", &format!("server:\n  oidc: {oidc}\npeople:\n{people}")).unwrap();
            movable(&config).map(|misfit| (misfit.text, misfit.fatal))
        };
        let mail = "  - { name: ann, role: operator, oidc: ann@example.com }\n";
        let (text, fatal) = of(mail, "{ leads: operator }").unwrap();
        assert!(text.contains("`people[].oidc` names ann by a mail") && !fatal, "{text}");
        assert_eq!(of(mail, "{}"), None);
        assert_eq!(of("  - { name: ann, role: operator, oidc: 00u1 }\n", "{ leads: operator }"), None);
    }
    use crate::policy::RuleSet;
    use std::collections::HashMap;
    use std::sync::Arc;

    fn loaded(rules: serde_json::Value) -> CatalogSnapshot {
        let header = crate::model::RunbookHeader {
            title: "Drain".to_owned(),
            params: vec![],
            reach: crate::model::ImpactScope::Node,
            undo: crate::model::UndoPolicy::Never,
            approvers: vec![],
        };
        let pin = crate::model::RunbookPin { name: "drain".to_owned(), hash: String::new() };
        let runbooks = HashMap::from([("drain".to_owned(), (pin, header))]);
        let rules = RuleSet::compile(serde_json::from_value(rules).unwrap(), runbooks).unwrap();
        CatalogSnapshot { rules: Arc::new(rules), ..CatalogSnapshot::default() }
    }

    fn check(channels: &[&str], rules: serde_json::Value) -> Vec<(bool, String)> {
        let channels = channels.iter().map(|name| ((*name).to_owned(), ChannelConfig::Log)).collect();
        let config = Config { channels, ..Config::default() };
        misfits(&config, &loaded(rules)).into_iter().map(|misfit| (misfit.fatal, misfit.text)).collect()
    }

    #[test]
    fn a_pattern_that_means_no_action_is_fatal_and_a_runbook_that_calls_what_is_off_is_a_warning() {
        let text =
            "//! Close a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\nk8s::cordon(node, \"x\");\n";
        let runbook = crate::script::compile("close", text, crate::catalog::host_api()).unwrap();
        let loaded = CatalogSnapshot {
            runbooks: [("close".to_owned(), Arc::new(runbook))].into(),
            ..CatalogSnapshot::default()
        };
        let found = |allow: &str, deny: &str| {
            let actions = ActionsConfig { allow: vec![allow.to_owned()], deny: vec![deny.to_owned()] };
            let config = Config { actions, ..Config::default() };
            misfits(&config, &loaded).into_iter().map(|misfit| (misfit.fatal, misfit.text)).collect::<Vec<_>>()
        };
        assert_eq!(found("*", "k8s::drain"), []);
        let wrong = found("*", "k8s::cordn");
        assert!(matches!(&wrong[..], [(true, text)] if text.contains("did you mean `k8s::cordon`?")), "{wrong:?}");
        let off = found("*", "k8s::*");
        assert!(matches!(&off[..], [(false, text)] if text.contains("`close` calls `k8s::cordon`")), "{off:?}");
    }

    #[test]
    fn an_unknown_channel_is_fatal_only_where_somebody_would_miss_news() {
        let rules = serde_json::json!([
            { "name": "looks", "when": ["a=\"b\""], "run": "drain", "tell": ["oncal"], "tell_in": "suggest" },
            { "name": "suggests", "when": ["a=\"b\""], "run": "drain", "mode": "suggest", "tell": ["oncal"] },
            { "name": "tells", "when": ["a=\"b\""], "tell": ["oncall"] },
        ]);
        let found = check(&["oncall"], rules.clone());
        let fatal: Vec<bool> = found.iter().map(|(fatal, _)| *fatal).collect();
        assert_eq!(fatal, [false, true], "{found:?}");
        assert!(found[1].1.contains("rule `suggests`") && found[1].1.contains("did you mean `oncall`?"), "{found:?}");
        let ops = serde_json::json!([{ "name": "r", "when": ["a=\"b\""], "tell": ["ops"] }]);
        let nameless = check(&["ops"], ops);
        assert!(!nameless[0].0 && nameless[0].1.contains("every channel is notified"), "{nameless:?}");
        let observes = serde_json::json!([{ "name": "r", "when": ["a=\"b\""], "run": "drain", "tell": ["oncal"] }]);
        assert!(check(&["oncall"], observes)[0].0, "an observing rule notifies, too");
        let none = check(&[], rules);
        assert_eq!(none.len(), 1);
        assert!(!none[0].0 && none[0].1.contains("`oncal`, `oncall`") && none[0].1.contains("log only"), "{none:?}");
    }
}
