//! Windows of the calendar: that each can be followed, and covers something.
//!
//! Invariant: a window that would never begin, or never end, is refused.

use super::ConfigFindings;
use crate::config::Config;
use crate::model::Span;

pub(super) fn check(config: &Config, found: &mut ConfigFindings) {
    for (at, window) in config.windows.iter().enumerate() {
        let path = format!("windows[{at}]");
        // Parsed by the sources' cron as well; here only checks that need no calendar.
        if window.at.cron.split_whitespace().count() < 5 {
            let what = format!("`{}` is no crontab line", window.at.cron);
            found.say(&format!("{path}.at"), what, "write five fields, as in `0 9 * * 1-5`");
        }
        if window.lasts == Span::default() {
            found.say(&format!("{path}.lasts"), "it would be over at once", "write how long it is, as in `9h`");
        }
        let named = ["cluster:", "rule:"]
            .iter()
            .any(|kind| window.scope.strip_prefix(kind).is_some_and(|name| !name.is_empty()));
        if window.scope != "all" && !named {
            let what = format!("`{}` is no scope", window.scope);
            found.say(&format!("{path}.scope"), what, "write `all`, `cluster:<name>` or `rule:<name>`");
        }
    }
}
