//! Small pieces of pages: texts, times, links, stories, calls.
//!
//! Invariant: a text from outside is shown as text; a link is http or https, shows its host, and sends no referrer.

use crate::api::GuardLevels;
use crate::engine::story::{cannot, over_to_you, planned_steps};
use crate::limits;
use crate::model::{Foretold, Freeze, Plan, PlanEnd, PlannedStep, Reach, Severity, StoryLine, Time};
use crate::notifiers::{one_line, web_link};
use crate::server::web::read::segment;
use maud::{Markup, html};

/// One line without invisible or reordering characters, never endless.
pub fn plain(text: &str) -> String {
    one_line(text, limits::WEB_TEXT_CHARS)
}

/// A moment with its day and zone, and the seconds on request.
pub fn moment(at: Time) -> Markup {
    html! { time datetime=(at) title=(at.strftime("%Y-%m-%d %H:%M:%S UTC")) { (at.strftime("%-d %b %H:%M UTC")) } }
}

/// A line of ours in which commands stand between backticks.
pub fn ticked(text: &str) -> Markup {
    let text = plain(text);
    let parts: Vec<&str> = text.split('`').collect();
    // A lone backtick is text.
    let paired = parts.len() % 2 == 1;
    html! {
        @if paired {
            @for (at, part) in parts.iter().enumerate() { @if at % 2 == 1 { code { (part) } } @else { (part) } }
        } @else { (text) }
    }
}

/// The severity as a colored word.
pub fn severity(severity: Severity) -> Markup {
    let class = match severity {
        Severity::Critical | Severity::Error => "bad",
        Severity::Warning => "warn",
        Severity::Info => "dim",
    };
    html! { span.mark.(class) { (severity) } }
}

/// A moment with its date and zone, for times of other days.
pub fn moment_with_date(at: Time) -> Markup {
    html! { time datetime=(at) { (at.strftime("%Y-%m-%d %H:%M:%S UTC")) } }
}

/// How far off it is, in the largest unit with a count.
pub fn distance(at: Time, now: Time) -> String {
    let seconds = (at.as_second() - now.as_second()).abs();
    if seconds < 1 {
        return "just now".to_owned();
    }
    let (number, unit) = match seconds {
        1..60 => (seconds, "s"),
        60..5_400 => (seconds / 60, "min"),
        5_400..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    if at >= now { format!("in {number} {unit}") } else { format!("{number} {unit} ago") }
}

/// The time since `at`; the moment itself is in the element's title.
pub fn since(at: Time, now: Time) -> Markup {
    html! { time datetime=(at) title=(at.strftime("%Y-%m-%d %H:%M:%S UTC")) { (distance(at, now)) } }
}

/// The value of an annotation: a link where it is one, with its host in sight, else text.
pub fn outside(text: &str) -> Markup {
    match web_link(text).zip(host(text)) {
        Some((href, host)) => html! {
            a href=(href) rel="noopener noreferrer nofollow" { (plain(text)) } " " span.dim { "(" (host) ")" }
        },
        None => html! { (plain(text)) },
    }
}

fn host(text: &str) -> Option<String> {
    let url = url::Url::parse(text).ok()?;
    // `https://google.com@evil.example` is written to be misread.
    (url.username().is_empty() && url.password().is_none()).then(|| url.host_str().map(plain)).flatten()
}

/// A timeline, oldest line first; lines beyond the bound of one page are a number.
pub fn story(lines: &[StoryLine]) -> Markup {
    let skip = lines.len().saturating_sub(limits::WEB_ROWS);
    html! {
        @if lines.is_empty() { p.dim { "No entries yet." } }
        @if skip > 0 { p.dim { "… " (skip) " earlier lines: nightshift show" } }
        ol.story {
            @for line in &lines[skip..] {
                li class=(if line.headline { "headline" } else { "dim" }) { (moment(line.at)) " " (ticked(&line.text)) }
            }
        }
    }
}

/// The steps of a plan, a line each with its cost and the guards that would hold it; calls, reads and the hash folded
/// away.
pub fn plan(plan: &Plan, foretold: &[Foretold]) -> Markup {
    let (acts, reads): (Vec<_>, Vec<_>) = plan.calls.iter().partition(|call| call.reach > Reach::None);
    html! {
        @if acts.is_empty() { p { "No changes." } }
        ol.plan { @for step in planned_steps(plan, foretold) { li { strong { (plain(&step.what)) } (costs(&step)) } } }
        @match &plan.end {
            PlanEnd::Done => {},
            PlanEnd::Stopped(why) => p { @match over_to_you(why) {
                Some(what) => { "Then over to you: " (plain(what)) },
                None => { "Then it stops: " (plain(why)) },
            } },
            PlanEnd::Failed(_) => p { "Then it would fail: " (ticked(&cannot(plan).unwrap_or_default())) },
            PlanEnd::Cut(reason) => p { "Cut short: " (plain(&reason.text)) },
        }
        details {
            summary { "Details" }
            ul {
                @for call in &acts {
                    li { code { (plain(&call.call.to_string())) }
                        div.dim { (plain(&call.target.words())) " · scope " (call.reach) " · effect " (call.effect) } }
                }
                @for call in reads { li { code { (plain(&call.call.to_string())) } " " span.dim { "only reads or notifies" } } }
            }
            p.dim.hash { "Plan " code { (plan.hash) } }
        }
    }
}

/// The cost of a step, and the guards that would hold it.
pub fn costs(step: &PlannedStep) -> Markup {
    html! {
        @if let Some(cost) = &step.cost { div { (ticked(cost)) } }
        @if let Some(held) = &step.held { div.bad { (ticked(held)) } }
    }
}

/// The freeze that covers a run with this rule and cluster, in words; none where no freeze is active.
pub fn frozen(guards: &GuardLevels, rule: Option<&str>, cluster: Option<&str>, now: Time) -> Option<Markup> {
    let then = " – approving will not start it.";
    if let Some(why) = &guards.stopped {
        return Some(html! { p.refusal role="alert" { strong { "Everything is stopped" } ": " (plain(why)) (then) } });
    }
    let covers = |freeze: &&Freeze| match freeze.scope.split_once(':') {
        Some(("cluster", name)) => cluster.is_none_or(|ours| ours == name),
        Some(("rule", name)) => rule == Some(name),
        _ => true,
    };
    let freeze = guards.freezes.iter().find(covers)?;
    Some(html! {
        p.refusal role="alert" {
            strong { "Frozen" @if freeze.scope != "all" { " (" (plain(&freeze.scope)) ")" } " by " (plain(&freeze.by)) }
            " since " (moment(freeze.since)) " (" (since(freeze.since, now)) ")"
            ": " (plain(&freeze.why)) (then)
        }
    })
}

/// The same in a few words, for a list.
pub fn planned(plan: &Plan, foretold: &[Foretold]) -> Markup {
    let steps = planned_steps(plan, foretold);
    html! {
        ul.plan {
            @for step in steps.iter().take(limits::HEADLINES) { li { (plain(&step.what)) (costs(step)) } }
            @if steps.len() > limits::HEADLINES { li { "and " (steps.len() - limits::HEADLINES) " more" } }
        }
    }
}

/// The address of a run's page.
pub fn to_run(id: impl std::fmt::Display) -> String {
    format!("/runs/{}", segment(&id.to_string()))
}

/// The address of an incident's page.
pub fn to_incident(id: impl std::fmt::Display) -> String {
    format!("/incidents/{}", segment(&id.to_string()))
}

/// How the guards stand, in a few lines.
pub fn guards(guards: &GuardLevels, now: Time) -> Markup {
    let level = match guards.nodes_total {
        Some(total) => {
            let allowed = guards.nodes_out_allowed.map(|most| most.to_string()).unwrap_or_default();
            format!("{} of {total} nodes out of service, {allowed} allowed at once", guards.nodes_out.len())
        }
        None => "The number of nodes out of service is unknown: steps that disturb a node are on hold".to_owned(),
    };
    html! {
        ul.guards {
            @if let Some(why) = &guards.stopped {
                li.bad { strong { "Everything is stopped" } ": " (plain(why)) }
            }
            @for freeze in &guards.freezes {
                li.bad {
                    strong { "Frozen: " (plain(&freeze.scope)) } " by " (plain(&freeze.by)) ": " (plain(&freeze.why))
                    " · " (since(freeze.since, now))
                    @if let Some(at) = freeze.until { ", ends " (since(at, now)) }
                }
            }
            @for breaker in &guards.breakers {
                li.bad { strong { "Breaker " (plain(&breaker.scope)) " has tripped" } ": " (plain(&breaker.why)) }
            }
            li { (level) }
            @for pool in &guards.pools {
                li { "Pool " (plain(&pool.pool)) ": " (pool.out.len()) " of " (pool.total) " out, " (pool.allowed) " allowed" }
            }
            @for held in guards.held.iter().take(limits::WEB_ROWS) {
                li { a href=(to_run(held.run)) { (held.run) } " is on hold: " (ticked(&held.why)) }
            }
            li { "Rules go no further than mode " strong { (guards.mode_ceiling) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_the_web_is_a_link_and_it_shows_its_host() {
        let shown = |text: &str| outside(text).into_string();
        assert!(shown("https://wiki.example/xid?x=1").contains("href=\"https://wiki.example/xid?x=1\" rel=\"noopener"));
        assert!(shown("https://wiki.example/xid").contains("(wiki.example)"));
        for text in [
            "javascript:alert(1)",
            "data:text/html,x",
            "//e.x",
            "https://a@e.x/",
            "https://e.x/\"onclick=\"x",
            "<script>x",
        ] {
            let shown = shown(text);
            assert!(!shown.contains("<a") && !shown.contains("<script"), "{shown}");
        }
    }

    #[test]
    fn a_distance_is_in_the_unit_that_people_would_say() {
        let now: Time = "2026-11-23T03:00:00Z".parse().unwrap();
        let after = |seconds: i64| Time::from_second(now.as_second() + seconds).unwrap();
        assert_eq!(distance(after(45), now), "in 45 s");
        assert_eq!(distance(after(1_800), now), "in 30 min");
        assert_eq!(distance(after(-7_200), now), "2 h ago");
        assert_eq!(distance(after(-400_000), now), "4 d ago");
    }
}
