//! A night shift of eight simulated hours with the shipped rules and runbooks: faults, flaps, storms, noise, and vendors that are
//! away, drawn from a seed; what people were notified of, held against what was really wrong.
//!
//! Invariant: pages are counted as PagerDuty counts them (a trigger of a key that is open pages no one), and what was wrong is
//! known from the plan of the night, never from our own records.

use super::vendor::{Manner, Posted, Vendor};
use crate::harness::{Draw, alertmanager_body};
use crate::night::{Night, seal};
use nightshift::config::{ChannelConfig, Config, SecretSource};
use nightshift::engine::{EventLines, NotificationDispatcher};
use nightshift::model::{EntryKind, Incident, Time};
use nightshift::store::Filter;
use nightshift::world::HttpClient;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const HOURS: u64 = 8;
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Alertmanager says again what still fires.
const REPEAT: u64 = 300;
/// A question, or the first message of an incident, reaches people within so many seconds where the vendor takes it.
const IN_TIME: u64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// One alert that no runbook is for.
    Single,
    /// XID 79 under a rule in mode approve; the flag: approved or denied.
    Question { yes: bool },
    /// One alert that comes and goes.
    Flap,
    /// One alert on many nodes.
    Storm,
    /// An alert that no rule knows.
    Unknown,
}

/// One thing that is really wrong, and its alerts: (second, fires, labels).
struct Problem {
    kind: Kind,
    begins: u64,
    ends: u64,
    nodes: BTreeSet<String>,
}

type Labels = Vec<(&'static str, String)>;

/// What the sender posts, second by second.
#[derive(Default)]
struct Plan {
    problems: Vec<Problem>,
    posts: BTreeMap<u64, Vec<(&'static str, Vec<Labels>)>>,
}

impl Plan {
    fn post(&mut self, at: u64, status: &'static str, alerts: Vec<Labels>) {
        self.posts.entry(at).or_default().push((status, alerts));
    }

    /// It fires over this time, said again as Alertmanager does, and ends.
    fn holds(&mut self, alerts: &[Labels], from: u64, until: u64) {
        for at in (from..until).step_by(REPEAT as usize) {
            self.post(at, "firing", alerts.to_vec());
        }
        self.post(until, "resolved", alerts.to_vec());
    }

    fn of(seed: u64) -> Plan {
        let mut draw = Draw(seed);
        let mut plan = Plan::default();
        let end = HOURS * 3_600;
        let mut node = 100;
        let mut fresh = |count: u64| -> Vec<String> {
            node += count;
            (node - count..node).map(|no| format!("gpu-{no}")).collect()
        };
        let named = |alert: &'static str, node: &str| -> Labels {
            let severity = ("severity", "warning".into());
            vec![("alertname", alert.into()), ("node", node.into()), ("gpu", "1".into()), severity]
        };
        let hot = |node: &str| named("GpuHot", node);
        for _ in 0..6 {
            let (nodes, begins) = (fresh(1), draw.range(60, end - 7_200));
            let ends = begins + draw.range(1_200, 3_600);
            plan.holds(&[hot(&nodes[0])], begins, ends);
            plan.problems.push(Problem { kind: Kind::Single, begins, ends, nodes: nodes.into_iter().collect() });
        }
        // Two of the four nodes that the fleet has, hours apart, so that budgets have room again.
        for (no, yes) in [(2, true), (3, false)] {
            let begins = draw.range(600, 3_600) + (no - 2) * 4 * 3_600;
            let (name, ends) = (format!("gpu-{no}"), begins + draw.range(3_000, 5_400));
            let xid = vec![
                ("alertname", "GpuXid".into()),
                ("xid", "79".into()),
                ("node", name.clone()),
                ("gpu", "5".into()),
                ("severity", "critical".into()),
            ];
            plan.holds(&[xid], begins, ends);
            plan.problems.push(Problem { kind: Kind::Question { yes }, begins, ends, nodes: [name].into() });
        }
        for _ in 0..3 {
            let (nodes, begins) = (fresh(1), draw.range(60, end - 7_200));
            let (mut at, lasts) = (begins, draw.range(600, 1_200));
            while at < begins + lasts {
                plan.post(at, "firing", vec![hot(&nodes[0])]);
                at += draw.range(5, 40);
                plan.post(at, "resolved", vec![hot(&nodes[0])]);
                at += draw.range(5, 40);
            }
            plan.problems.push(Problem { kind: Kind::Flap, begins, ends: at, nodes: nodes.into_iter().collect() });
        }
        // Names of their own: what fires while a group of its name is open belongs to that group.
        for (in_one_request, alert) in [(true, "GpuMemoryHot"), (false, "GpuPowerBrake")] {
            let nodes = fresh(draw.range(10, 31));
            let begins = draw.range(60, end - 7_200);
            let ends = begins + draw.range(900, 1_800);
            let alerts: Vec<Labels> = nodes.iter().map(|node| named(alert, node)).collect();
            match in_one_request {
                true => plan.holds(&alerts, begins, ends),
                // Each in a request of its own, within eight seconds; the first four at once, as a group of Alertmanager's is sent.
                false => {
                    for (no, alert) in alerts.iter().enumerate() {
                        plan.holds(std::slice::from_ref(alert), begins + (no as u64).saturating_sub(4) % 8, ends);
                    }
                }
            }
            plan.problems.push(Problem { kind: Kind::Storm, begins, ends, nodes: nodes.into_iter().collect() });
        }
        let (nodes, begins) = (fresh(1), draw.range(60, end - 7_200));
        let own =
            vec![("alertname", "OurOwnAlert".into()), ("node", nodes[0].clone()), ("severity", "critical".into())];
        plan.holds(&[own], begins, begins + 1_800);
        let ends = begins + 1_800;
        plan.problems.push(Problem { kind: Kind::Unknown, begins, ends, nodes: nodes.into_iter().collect() });
        // Noise that must reach no one.
        let watchdog: Labels = vec![("alertname", "Watchdog".into()), ("severity", "none".into())];
        for at in (0..end).step_by(REPEAT as usize) {
            plan.post(at, "firing", vec![watchdog.clone()]);
        }
        plan.problems.sort_by_key(|problem| problem.begins);
        plan
    }
}

/// What the rule's author wrote.
fn summary(labels: &Value) -> String {
    let (node, gpu) = (labels["node"].as_str().unwrap_or_default(), labels["gpu"].as_str().unwrap_or_default());
    match labels["alertname"].as_str().unwrap_or_default() {
        "GpuXid" => format!("GPU {gpu} of {node} reported XID {}", labels["xid"].as_str().unwrap_or_default()),
        "GpuHot" => format!("GPU {gpu} of {node} is above 88 °C"),
        "GpuMemoryHot" => format!("The memory of GPU {gpu} of {node} is above 95 °C"),
        "GpuPowerBrake" => format!("GPU {gpu} of {node} is slowed by its power brake"),
        "OurOwnAlert" => format!("The fans of {node} are loud"),
        _ => String::new(),
    }
}

/// PagerDuty: a trigger pages where its key is not open.
fn pagerduty(board: &mut Vec<Posted>, _: &str, body: &Value, _: &str) -> (u16, Value) {
    board.push(Posted { id: board.len().to_string(), thread: None, editions: vec![body.clone()] });
    (202, json!({ "status": "success", "message": "Event processed", "dedup_key": body["dedup_key"] }))
}

/// The shipped rules as a site has them in its first weeks: they notify a pager, too, and one of them asks.
fn rules(folder: &Path) {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    std::fs::create_dir_all(folder).unwrap();
    for file in std::fs::read_dir(home).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_none_or(|ending| ending != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap().replace("tell: [oncall]", "tell: [oncall, pager]");
        let asks =
            "    run: gpu-fell-off-the-bus       # takes `node` and `gpu`, both from the alert's labels\n    mode: ";
        let text = text.replace(&format!("{asks}observe"), &format!("{asks}approve"));
        std::fs::write(folder.join(file.file_name().unwrap()), text).unwrap();
    }
}

struct Shift {
    night: Night,
    courier: NotificationDispatcher,
    slack: Vendor,
    pager: Vendor,
    began: Time,
    /// When the pager took nothing, and Slack.
    away: [(u64, u64); 2],
}

/// What the night came to.
#[derive(Default)]
struct Tally {
    problems: usize,
    pages: usize,
    resolved: usize,
    slowest: u64,
}

impl Shift {
    async fn begin(draw: &mut Draw) -> Shift {
        let config = Config::default();
        let night = Night::fall_on_rules(rules, |options| {
            options.resolve_after = config.incidents.resolve_after;
            options.group_wait = config.incidents.group_wait;
            options.unmatched_tell = vec!["oncall".to_owned(), "pager".to_owned()];
        })
        .await;
        let slack = Vendor::start(night.clock.clone(), super::slack::does).await;
        let pager = Vendor::start(night.clock.clone(), pagerduty).await;
        let file = night.path().join("secret");
        std::fs::write(&file, SECRET).unwrap();
        let secret = SecretSource::File(file);
        let api = format!("{}/v2/enqueue", pager.url());
        let channels = BTreeMap::from([
            (
                "oncall".to_owned(),
                ChannelConfig::Slack { channel: "C1".into(), token: secret.clone(), api: slack.url(), buttons: true },
            ),
            ("pager".to_owned(), ChannelConfig::PagerDuty { routing_key: secret, api, patience: None }),
        ]);
        let http = HttpClient::new("nightshift/test", &[]).unwrap();
        let built = nightshift::notifiers::build(&channels, &HashMap::new(), &http, "test", &seal()).unwrap();
        let (parts, url) = (&night.parts, Some("https://ns.example"));
        let courier = NotificationDispatcher::with(
            parts.store.clone(),
            parts.store.clone(),
            Arc::new(built),
            parts.clock.clone(),
            parts.nudge.clone(),
            "test",
            url,
        )
        .counting(parts.world.clone(), parts.config.guards.clone());
        let began = night.now();
        let (pager_away, slack_away) = (draw.range(3_600, 20_000), draw.range(3_600, 20_000));
        let away = [(pager_away, pager_away + 600), (slack_away, slack_away + 1_200)];
        Shift { night, courier, slack, pager, began, away }
    }

    fn second(&self, at: Time) -> u64 {
        ((at.as_microsecond() - self.began.as_microsecond()) / 1_000_000) as u64
    }

    async fn hear(&self, status: &str, alerts: &[Labels]) {
        let borrowed: Vec<Vec<(&str, &str)>> =
            alerts.iter().map(|labels| labels.iter().map(|(name, value)| (*name, value.as_str())).collect()).collect();
        let slices: Vec<&[(&str, &str)]> = borrowed.iter().map(Vec::as_slice).collect();
        let now = self.night.now();
        let mut body = alertmanager_body(status, &now.to_string(), &slices);
        for alert in body["alerts"].as_array_mut().unwrap() {
            alert["annotations"] = json!({ "summary": summary(&alert["labels"]) });
        }
        let body = body.to_string();
        let source = &self.night.parts.config.sources["test"];
        let mut decoded = nightshift::sources::alertmanager::decode(body.as_bytes(), "test", source, now).unwrap();
        for event in &mut decoded.events {
            event.ends_at = event.ends_at.map(|_| now);
        }
        self.night.hear_events(decoded.events).await;
    }

    async fn work(&self) {
        self.night.settle().await;
        self.courier.pass().await.unwrap();
    }

    /// The person on call answers two minutes after the question is there.
    async fn answer(&self, plan: &Plan) {
        let filter = Filter { open: true, limit: 100, ..Filter::default() };
        for approval in self.night.parts.store.approvals(filter).await.unwrap() {
            let asked = self.second(self.asked_at(&approval.id.to_string()).await);
            if self.second(self.night.now()) < asked + 120 {
                continue;
            }
            let yes = plan.problems.iter().any(|problem| {
                problem.kind == Kind::Question { yes: true }
                    && problem.nodes.iter().any(|node| approval.question.contains(node.as_str()))
            });
            self.night.parts.store.decide(approval.id, yes, "ada", "looked", self.night.now()).await.unwrap();
        }
    }

    async fn asked_at(&self, approval: &str) -> Time {
        let asked = self.asked().await;
        asked.iter().find(|(name, ..)| name == approval).unwrap().1
    }

    /// Each question, when it was asked, and of which incident.
    async fn asked(&self) -> Vec<(String, Time, String)> {
        let filter = Filter { kinds: vec!["approval_asked"], after: Some(-1), limit: 1_000, ..Filter::default() };
        let entries = self.night.parts.store.entries(filter).await.unwrap();
        let asked = entries.into_iter().filter_map(|entry| match entry.kind {
            EntryKind::ApprovalAsked { approval, .. } => {
                Some((approval.to_string(), entry.at, entry.about.incident.unwrap().to_string()))
            }
            _ => None,
        });
        asked.collect()
    }

    /// The engine's log of the night, as far as it is about events.
    async fn log(&self) -> String {
        let filter = Filter { after: Some(-1), limit: 10_000, ..Filter::default() };
        let mut text = String::new();
        let mut lines = EventLines::default();
        let mut last = None;
        loop {
            let after = last.or(filter.after);
            let entries = self.night.parts.store.entries(Filter { after, ..filter.clone() }).await.unwrap();
            let Some(end) = entries.last().map(|entry| entry.no.0) else { return text };
            for entry in entries {
                let at = Duration::from_secs(self.second(entry.at));
                for line in lines.of(std::slice::from_ref(&entry), at) {
                    let fields = [
                        line.incident.map(|incident| format!(" incident={incident}")),
                        line.run.map(|run| format!(" run={run}")),
                        line.node.map(|node| format!(" node={node}")),
                        line.rule.map(|rule| format!(" rule={rule}")),
                        line.why.map(|why| format!(" why=\"{why}\"")),
                    ];
                    let fields: String = fields.into_iter().flatten().collect();
                    let _ = writeln!(text, "{} {:?} {}{fields}", entry.at.strftime("%H:%M:%S"), line.loud, line.text);
                }
            }
            last = Some(end);
        }
    }

    async fn incidents(&self) -> Vec<Incident> {
        let filter = Filter { after: Some(-1), limit: 1_000, ..Filter::default() };
        self.night.parts.store.incidents(filter).await.unwrap()
    }

    /// Lets the night pass: fine steps where something happens, coarse ones where nothing does.
    async fn pass(&self, plan: &Plan) {
        let end = (HOURS * 3_600 + 1_200) * 1_000;
        let (mut at, mut busy_until) = (0_u64, 0_u64);
        let mut posts = plan.posts.iter().peekable();
        while at < end {
            let second = at / 1_000;
            self.pager.is(if (self.away[0].0..self.away[0].1).contains(&second) {
                Manner::Refuses(429, None)
            } else {
                Manner::Up
            });
            self.slack.is(if (self.away[1].0..self.away[1].1).contains(&second) {
                Manner::Refuses(503, None)
            } else {
                Manner::Up
            });
            while posts.peek().is_some_and(|(due, _)| **due <= second) {
                for (status, alerts) in posts.next().unwrap().1 {
                    self.hear(status, alerts).await;
                }
                busy_until = at + 10_000;
            }
            self.work().await;
            self.answer(plan).await;
            let next = posts.peek().map_or(end, |(due, _)| **due * 1_000);
            let step = if at < busy_until { 500 } else { 5_000 };
            let to = (at + step).min(next.max(at + 1));
            self.night.pass(Duration::from_millis(to - at)).await;
            at = to;
        }
        self.work().await;
    }
}

/// What PagerDuty has of a night, by key: when it paged, what is still open, and when it was resolved.
#[derive(Default)]
struct Pages {
    paged: BTreeMap<String, Vec<Time>>,
    open: BTreeSet<String>,
    ended: BTreeMap<String, Time>,
}

/// When PagerDuty paged, by key: a trigger of what is not open.
fn pages(board: &[(Time, Value)]) -> Pages {
    let Pages { mut open, mut paged, mut ended } = Pages::default();
    for (at, event) in board {
        let key = event["dedup_key"].as_str().unwrap().to_owned();
        match event["event_action"].as_str().unwrap() {
            "trigger" if open.insert(key.clone()) => paged.entry(key).or_default().push(*at),
            "resolve" => {
                open.remove(&key);
                ended.insert(key, *at);
            }
            _ => {}
        }
    }
    Pages { paged, open, ended }
}

#[tokio::test]
async fn in_a_night_of_eight_hours_each_real_incident_is_one_page_and_each_question_comes_in_time() {
    for seed in [1, 7] {
        let mut draw = Draw(seed ^ 0xa11);
        let plan = Plan::of(seed);
        let shift = Shift::begin(&mut draw).await;
        shift.pass(&plan).await;
        let table = judge(&shift, &plan, seed).await;
        println!("{table}\n{}", shift.log().await);
    }
}

/// Holds what people were notified of against what was wrong; returns the table of the night.
async fn judge(shift: &Shift, plan: &Plan, seed: u64) -> String {
    let calls = shift.pager.moments("v2/enqueue", shift.began);
    // Refused calls are no events: PagerDuty has what it took.
    let taken: Vec<Time> = calls.into_iter().filter(|at| !within(shift, 0, *at)).collect();
    let board: Vec<(Time, Value)> =
        taken.into_iter().zip(shift.pager.board()).map(|(at, posted)| (at, posted.last().clone())).collect();
    let Pages { paged, open: still_open, ended } = pages(&board);
    let incidents = shift.incidents().await;
    let key_of = |incident: &Incident| incident.dedup_key("test");
    let mut tallies: BTreeMap<Kind, Tally> = BTreeMap::new();
    let mut explained: BTreeSet<String> = BTreeSet::new();
    let mut wrong = Vec::new();
    for problem in &plan.problems {
        let names = problem.nodes.iter();
        let events = names.flat_map(|node| board.iter().filter(move |(_, event)| about(event, node)));
        let mut keys: BTreeSet<String> =
            events.map(|(_, event)| event["dedup_key"].as_str().unwrap().to_owned()).collect();
        if problem.kind == Kind::Storm {
            let grouped = incidents.iter().filter(|incident| {
                let opened = shift.second(incident.opened_at);
                incident.title.contains(" nodes") && (problem.begins..problem.begins + 12).contains(&opened)
            });
            keys.extend(grouped.map(key_of).filter(|key| paged.contains_key(key)));
        }
        let times: Vec<Time> = keys.iter().flat_map(|key| paged.get(key).cloned().unwrap_or_default()).collect();
        let tally = tallies.entry(problem.kind).or_default();
        tally.problems += 1;
        tally.pages += times.len();
        tally.resolved += keys.iter().filter(|key| !still_open.contains(*key)).count();
        if times.len() != 1 {
            wrong.push(format!(
                "{:?} from second {} on {:?}: {} pages",
                problem.kind,
                problem.begins,
                problem.nodes,
                times.len()
            ));
        }
        if let Some(first) = times.first() {
            let late = shift.second(*first).saturating_sub(due(shift, 0, problem.begins));
            tally.slowest = tally.slowest.max(late);
            if late > IN_TIME {
                wrong.push(format!("{:?} from second {}: paged {late} s late", problem.kind, problem.begins));
            }
        }
        for end in keys.iter().filter_map(|key| ended.get(key)) {
            // The five minutes in which an alert may come back, and a minute for a vendor that was away.
            let (end, latest) = (shift.second(*end), due(shift, 0, problem.ends + 300) + 60);
            if end < problem.ends || end > latest {
                wrong.push(format!("{:?} was over at second {} and resolved at {end}", problem.kind, problem.ends));
            }
        }
        explained.extend(keys);
    }
    for key in paged.keys().filter(|key| !explained.contains(*key)) {
        wrong.push(format!("{key} was paged, and nothing was wrong there"));
    }
    let (questions, slowest) = questions(shift, &board, &mut wrong).await;
    assert_eq!(questions, 2, "both XIDs ask");
    assert!(still_open.is_empty(), "pages that never ended: {still_open:?}");
    let seen = shift.slack.board();
    let messages = super::slack::messages(&seen);
    let table = table(seed, &tallies, questions, slowest, messages.len(), shift.slack.calls().len());
    assert!(wrong.is_empty(), "{table}\n{}", wrong.join("\n"));
    assert_eq!(messages.len(), plan.problems.len(), "one message in Slack for each: {table}");
    table
}

/// Whether the event names this node, and no other of which it is a prefix.
fn about(event: &Value, node: &str) -> bool {
    event["payload"]["source"].as_str() == Some(node)
}

fn within(shift: &Shift, vendor: usize, at: Time) -> bool {
    (shift.away[vendor].0..shift.away[vendor].1).contains(&shift.second(at))
}

/// When people could be notified at the earliest of what began then: at once, or a minute after the vendor is back.
fn due(shift: &Shift, vendor: usize, second: u64) -> u64 {
    let (from, until) = shift.away[vendor];
    if (from..until).contains(&second) { until + 60 } else { second }
}

/// Each question is in an event of PagerDuty's within the time; how many there were, and the slowest.
async fn questions(shift: &Shift, board: &[(Time, Value)], wrong: &mut Vec<String>) -> (usize, u64) {
    let (asked, incidents) = (shift.asked().await, shift.incidents().await);
    let mut slowest = 0;
    for (approval, at, incident) in &asked {
        let key = incidents.iter().find(|one| one.id.to_string() == *incident).unwrap().dedup_key("test");
        let shown = board.iter().find(|(_, event)| {
            event["dedup_key"] == key.as_str() && event.to_string().contains(&format!("nightshift approve {approval}"))
        });
        let Some((told, _)) = shown else {
            wrong.push(format!("question {approval} of {incident} was in no page"));
            continue;
        };
        let late = shift.second(*told).saturating_sub(due(shift, 0, shift.second(*at)));
        slowest = slowest.max(late);
        if late > IN_TIME {
            wrong.push(format!("question {approval} of {incident} was paged {late} s late"));
        }
    }
    (asked.len(), slowest)
}

fn table(
    seed: u64,
    tallies: &BTreeMap<Kind, Tally>,
    questions: usize,
    slowest: u64,
    messages: usize,
    calls: usize,
) -> String {
    let mut text = format!(
        "night of seed {seed}: {HOURS} h\n{:24} {:>8} {:>6} {:>9} {:>10}\n",
        "what was wrong", "problems", "pages", "resolved", "slowest"
    );
    for (kind, tally) in tallies {
        let name = format!("{kind:?}");
        let _ = writeln!(
            text,
            "{name:24} {:>8} {:>6} {:>9} {:>8} s",
            tally.problems, tally.pages, tally.resolved, tally.slowest
        );
    }
    let _ = writeln!(
        text,
        "{questions} questions, the slowest paged after {slowest} s; {messages} messages in Slack, {calls} calls of its API"
    );
    text
}
