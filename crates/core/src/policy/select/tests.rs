//! Tests of selection: what a rule starts, what it refuses, and what `why` can say about the rest.
//!
//! Invariant: a hostile label gives a reason, never a run.

use super::*;
use crate::model::{EventStatus, ImpactScope, Labels, Mode, ParamType, RunbookParam, Severity, Time, UndoPolicy};

fn param(name: &str, ty: ParamType) -> RunbookParam {
    RunbookParam { name: name.to_owned(), ty, default: None, pattern: None, doc: String::new() }
}

fn header(params: Vec<RunbookParam>) -> RunbookHeader {
    RunbookHeader {
        title: "t".to_owned(),
        params,
        reach: ImpactScope::Node,
        undo: UndoPolicy::Never,
        approvers: vec![],
    }
}

fn runbooks(list: Vec<(&str, Vec<RunbookParam>)>) -> HashMap<String, (RunbookPin, RunbookHeader)> {
    list.into_iter()
        .map(|(name, params)| {
            (name.to_owned(), (RunbookPin { name: name.to_owned(), hash: "00".to_owned() }, header(params)))
        })
        .collect()
}

fn known() -> HashMap<String, (RunbookPin, RunbookHeader)> {
    runbooks(vec![
        ("bus", vec![param("node", ParamType::Node), param("gpu", ParamType::Gpu)]),
        ("stuck", vec![param("workload", ParamType::Workload)]),
        (
            "all",
            vec![
                RunbookParam { default: Some(Value::from(3)), ..param("count", ParamType::Int) },
                RunbookParam { pattern: Some("[a-z]+".to_owned()), ..param("team", ParamType::String) },
            ],
        ),
        ("none", vec![]),
    ])
}

fn rule(json: Value) -> Rule {
    serde_json::from_value(json).unwrap()
}

fn set(rules: Vec<Value>) -> RuleSet {
    RuleSet::compile(rules.into_iter().map(rule).collect(), known()).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn refused(rules: Vec<Value>) -> String {
    let errors = RuleSet::compile(rules.into_iter().map(rule).collect(), known()).expect_err("refused");
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn event(labels: &[(&str, &str)]) -> Event {
    let labels: Labels = labels.iter().copied().collect();
    Event {
        source: "am".to_owned(),
        fingerprint: format!("{:016x}", labels.fingerprint()),
        status: EventStatus::Firing,
        starts_at: Time::from_second(1_700_000_000).unwrap(),
        ends_at: None,
        subject: Subject::from_labels(&labels, &crate::model::LabelMap::default()),
        labels,
        annotations: Labels::default(),
        severity: Severity::Critical,
        summary: "ill".to_owned(),
        url: String::new(),
    }
}

fn start(set: &RuleSet, event: &Event) -> RunSpec {
    match set.select(event).remove(0).chosen {
        RuleDecision::Run(start) => *start,
        other => panic!("{other:?}"),
    }
}

fn reason(set: &RuleSet, event: &Event) -> Reason {
    match set.select(event).remove(0).chosen {
        RuleDecision::Nothing(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn xid() -> Value {
    json!({"name": "xid-79", "when": ["alertname=GpuXid", "xid=\"79\""], "run": "bus"})
}

#[test]
fn a_rule_binds_the_subject_and_starts_its_runbook() {
    let set = set(vec![xid()]);
    let event = event(&[("alertname", "GpuXid"), ("xid", "79"), ("node", "gpu-3"), ("gpu", "1"), ("pod", "dcgm-x")]);
    let start = start(&set, &event);
    assert_eq!(Value::Object(start.input.params), json!({"node": "gpu-3", "gpu": "1"}));
    assert_eq!(start.input.event["labels"]["xid"], "79");
    assert_eq!(start.input.event["severity"], "critical");
    assert_eq!(start.subject.to_string(), "node gpu-3 gpu 1", "what it acts on, without the exporter's pod");
    assert_eq!(start.bucket.len(), 32);
    assert_eq!(set.rule("xid-79").unwrap().mode, Mode::Observe);
}

#[test]
fn rules_speak_in_file_order_whether_indexed_or_not() {
    let set = set(vec![
        json!({"name": "a", "when": ["severity=~\".+\""], "tell": ["ops"]}),
        json!({"name": "b", "when": ["alertname=X"], "tell": ["ops"]}),
        json!({"name": "c", "when": ["alertname=Y"], "tell": ["ops"]}),
        json!({"name": "d", "when": ["alertname=~\"X|Y\""], "tell": ["ops"]}),
        json!({"name": "e", "when": ["{team=ml,alertname=\"X\"}"], "tell": ["ops"]}),
        json!({"name": "f", "at": {"cron": "0 3 * * *"}, "run": "none"}),
    ]);
    let names = |labels: &[(&str, &str)]| {
        set.select(&event(labels)).iter().map(|s| s.rule.name.clone()).collect::<Vec<_>>().join("")
    };
    assert_eq!(names(&[("alertname", "X"), ("severity", "page"), ("team", "ml")]), "abde");
    assert_eq!(names(&[("alertname", "Y")]), "cd");
    assert_eq!(names(&[("alertname", "Z")]), "");
    assert_eq!(set.scheduled().map(|(rule, _)| rule.name.as_str()).collect::<Vec<_>>(), ["f"]);
    assert_eq!(set.start_scheduled("f").unwrap().input.event, Value::Null);
    assert!(set.start_scheduled("a").is_err());
}

#[test]
fn a_muted_rule_says_which_line_muted_it() {
    let mut muted = xid();
    muted["unless"] = json!(["env=test", "team=ml,stage!=prod"]);
    let set = set(vec![muted]);
    let base = [("alertname", "GpuXid"), ("xid", "79"), ("node", "gpu-3"), ("gpu", "1")];
    let with = |more: &[(&'static str, &'static str)]| event(&[&base[..], more].concat());
    let said = reason(&set, &with(&[("team", "ml"), ("stage", "dev")]));
    assert_eq!(said.code, ReasonCode::Muted);
    assert!(said.text.contains("team=ml,stage!=prod"), "{said}");
    start(&set, &with(&[("team", "ml"), ("stage", "prod")]));
}

#[test]
fn a_hostile_or_missing_label_gives_a_reason_and_no_run() {
    let set = set(vec![xid()]);
    let with = |node: &str, gpu: &str| event(&[("alertname", "GpuXid"), ("xid", "79"), ("node", node), ("gpu", gpu)]);
    for node in ["../../etc", "gpu-3; rm -rf /", "gpu-3\n", "${node}", "gpu-3:9100", "Gpu-3"] {
        let said = reason(&set, &with(node, "1"));
        assert_eq!(said.code, ReasonCode::ParameterMissing);
        assert!(said.text.contains("is not the name of a node") && !said.text.contains('\n'), "{said}");
    }
    let said = reason(&set, &with("gpu-3", ""));
    assert!(said.text.contains("parameter `gpu` (Gpu) is missing: the event names no gpu"), "{said}");
    assert!(reason(&set, &with("gpu-3", &"9".repeat(4000))).text.len() < 400);
}

#[test]
fn what_a_rule_gives_wins_over_the_subject_and_defaults_fill_the_rest() {
    let rule = |with: Value| json!({"name": "r", "when": ["alertname=X"], "run": "all", "with": with});
    let labels = [("alertname", "X"), ("team", "ml"), ("n", "7"), ("owner", "infra"), ("count", "9")];
    let params = |with: Value| Value::Object(start(&set(vec![rule(with)]), &event(&labels)).input.params);
    assert_eq!(params(json!({"team": {"label": "team"}})), json!({"count": 3, "team": "ml"}));
    assert_eq!(
        params(json!({"count": {"label": "n"}, "team": {"label": "owner"}})),
        json!({"count": 7, "team": "infra"})
    );
    assert_eq!(params(json!({"count": 5, "team": "abc"})), json!({"count": 5, "team": "abc"}));
    assert_eq!(params(json!({"count": {"label": "gone"}, "team": "abc"})), json!({"count": 3, "team": "abc"}));
    let bad = set(vec![rule(json!({"count": {"label": "owner"}, "team": "abc"}))]);
    assert!(reason(&bad, &event(&labels)).text.contains("is \"infra\" (label `owner`), which is not a whole number"));
}

#[test]
fn a_label_fills_a_parameter_only_where_the_rule_says_so() {
    let params = vec![
        param("node", ParamType::Node),
        RunbookParam { default: Some(Value::from("")), ..param("also", ParamType::String) },
        RunbookParam { default: Some(Value::from("")), ..param("signal", ParamType::Query) },
    ];
    let known = || runbooks(vec![("restart", params.clone()), ("open", vec![param("query", ParamType::String)])]);
    let compiled = |value: Value| RuleSet::compile(vec![rule(value)], known());
    let labels = [("alertname", "X"), ("node", "gpu-3"), ("also", "vector(1)"), ("signal", "vector(1)")];
    let plain = compiled(json!({"name": "r", "when": ["alertname=X"], "run": "restart"})).unwrap();
    let bound = start(&plain, &event(&labels)).input.params;
    assert_eq!(Value::Object(bound), json!({"node": "gpu-3", "also": "", "signal": ""}));
    let with = |with: Value| compiled(json!({"name": "r", "when": ["alertname=X"], "run": "restart", "with": with}));
    let said_so = with(json!({"also": {"label": "also"}})).unwrap();
    assert_eq!(start(&said_so, &event(&labels)).input.params["also"], "vector(1)");
    let refused = with(json!({"signal": {"label": "also"}})).unwrap_err()[0].to_string();
    assert!(refused.contains("parameter `signal` (Query) is taken from label `also`"), "{refused}");
    let elsewhere = || runbooks(vec![("there", vec![param("cluster", ParamType::String)])]);
    let chosen =
        json!({"name": "r", "when": ["alertname=X"], "run": "there", "with": {"cluster": {"label": "target"}}});
    let refused = RuleSet::compile(vec![rule(chosen)], elsewhere()).unwrap_err()[0].to_string();
    assert!(refused.contains("is the run's cluster") && refused.contains("map the label in the source"), "{refused}");
    let open = compiled(json!({"name": "r", "when": ["alertname=X"], "run": "open"})).unwrap_err()[0].to_string();
    assert!(open.contains("parameter `query` (String) is never given") && open.contains("{label: query}"), "{open}");
    let given = json!({"node": "gpu-3"}).as_object().unwrap().clone();
    let by_hand = RuleSet::bind(&header(params.clone()), &given, Some(&event(&labels))).unwrap();
    assert_eq!((&by_hand.params["also"], &by_hand.params["signal"]), (&json!(""), &json!("")));
}

#[test]
fn a_rule_says_which_sources_it_believes_and_a_label_forges_neither_name_nor_kind() {
    let when = |line: &str| json!({"name": line, "when": ["alertname=X", line], "tell": ["ops"]});
    let set = set(vec![when("__source__=am"), when("__source_kind__=~\"agent|alertmanager\""), when("__source__=lab")]);
    let names = |kind: &str, labels: &[(&str, &str)]| {
        let event = event(labels);
        set.select_from(&event, kind).iter().map(|one| one.rule.name.clone()).collect::<Vec<_>>()
    };
    let both = ["__source__=am", "__source_kind__=~\"agent|alertmanager\""];
    assert_eq!(names("alertmanager", &[("alertname", "X")]), both);
    let forged = [("alertname", "X"), ("__source__", "lab"), ("__source_kind__", "agent")];
    assert_eq!(names("grafana", &forged), ["__source__=am"]);
    let misses = set.near_misses(&event(&forged), "grafana");
    assert!(misses[0].1.contains("the event has __source_kind__=\"grafana\""), "{misses:?}");
}

#[test]
fn a_workload_comes_with_its_namespace() {
    let plain = set(vec![json!({"name": "r", "when": ["alertname=X"], "run": "stuck"})]);
    let labels =
        [("alertname", "X"), ("namespace", "serve"), ("deployment", "llama"), ("app", "other"), ("pod", "p-0")];
    let started = start(&plain, &event(&labels));
    assert_eq!(started.input.params["workload"], "serve/llama");
    assert_eq!(started.subject.to_string(), "namespace serve workload llama");
    let label = json!({"workload": {"label": "app"}});
    let given = set(vec![json!({"name": "r", "when": ["alertname=X"], "run": "stuck", "with": label})]);
    assert_eq!(start(&given, &event(&labels)).input.params["workload"], "serve/other");
    let said = reason(&plain, &event(&[("alertname", "X"), ("deployment", "llama")]));
    assert!(said.text.contains("`namespace/name`"), "{said}");
}

#[test]
fn two_parameters_of_one_type_are_never_filled_with_the_same_thing() {
    let two = runbooks(vec![("move", vec![param("from", ParamType::Node), param("to", ParamType::Node)])]);
    let rule = rule(json!({"name": "r", "when": ["alertname=X"], "run": "move"}));
    let errors = RuleSet::compile(vec![rule], two).expect_err("refused");
    assert!(errors[0].to_string().contains("parameter `from` (Node) is never given"), "{errors:?}");
}

#[test]
fn buckets_tell_rules_and_parameters_apart() {
    let set = set(vec![xid(), json!({"name": "other", "when": ["alertname=GpuXid"], "run": "bus"})]);
    let buckets = |node: &str, gpu: &str| {
        let event = event(&[("alertname", "GpuXid"), ("xid", "79"), ("node", node), ("gpu", gpu)]);
        let of = |selected: &RuleSelection<'_>| match &selected.chosen {
            RuleDecision::Run(start) => start.bucket.clone(),
            other => panic!("{other:?}"),
        };
        set.select(&event).iter().map(of).collect::<Vec<_>>()
    };
    let all = [buckets("a", "1"), buckets("a", "2"), buckets("b", "1")].concat();
    assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 6);
    assert_eq!(buckets("a", "1"), buckets("a", "1"));
}

#[test]
fn a_wrong_rule_is_refused_in_words() {
    let bad = |value: Value, words: &str| {
        let said = refused(vec![value.clone()]);
        assert!(said.contains(words), "{value}\n{said}");
    };
    bad(json!({"name": " ", "when": ["a=b"], "tell": ["x"]}), "needs a name");
    bad(json!({"name": "r", "tell": ["x"]}), "neither `when` nor `at`");
    bad(json!({"name": "r", "when": ["a=b"], "at": {"cron": "* * * * *"}, "run": "none"}), "both `when` and `at`");
    bad(json!({"name": "r", "when": ["a=b"]}), "neither runs a runbook nor notifies a channel");
    bad(json!({"name": "r", "when": ["a=b"], "run": "buss"}), "there is no runbook `buss` (did you mean `bus`?)");
    bad(json!({"name": "r", "when": ["a=b"], "run": "bus", "with": {"nod": "x"}}), "did you mean `node`?");
    bad(json!({"name": "r", "when": ["a=b"], "run": "bus", "with": {"node": "A B"}}), "is not the name of a node");
    bad(json!({"name": "r", "when": ["a=b"], "run": "none", "with": {"x": 1}}), "the runbook takes none");
    bad(json!({"name": "r", "when": ["a=b"], "tell": [""]}), "empty channel");
    bad(json!({"name": "r", "when": ["a=~("], "tell": ["x"]}), "rule `r`, `when`");
    bad(json!({"name": "r", "when": ["a=b"], "unless": ["a=~\"(\""], "tell": ["x"]}), "rule `r`, `unless`");
    bad(json!({"name": "r", "when": ["a=b"], "unless": ["{}"], "tell": ["x"]}), "mute it always");
    bad(json!({"name": "r", "when": ["a!=b"], "run": "bus"}), "for every event");
    bad(json!({"name": "r", "when": ["a=b"], "run": "bus", "attempts": 0}), "attempts");
    bad(json!({"name": "r", "at": {"cron": "* * * * *"}, "run": "bus"}), "`node` (Node) is never given");
    bad(json!({"name": "r", "at": {"cron": "* * * * *"}, "run": "bus", "with": {"node": {"label": "x"}}}), "no event");
    let twice = json!({"name": "r", "when": ["a=b"], "tell": ["x"]});
    assert!(refused(vec![twice.clone(), twice]).contains("used twice"));
}

#[test]
fn a_rule_that_only_tells_may_meet_everything() {
    let set = set(vec![json!({"name": "all", "when": ["{}"], "tell": ["log"]})]);
    assert_eq!(set.select(&event(&[]))[0].chosen, RuleDecision::Tell);
}

#[test]
fn why_names_the_first_matcher_that_failed() {
    let set = set(vec![xid(), json!({"name": "b", "when": ["team=ml"], "tell": ["x"]})]);
    let misses = set.near_misses(&event(&[("alertname", "GpuXid"), ("xid", "48")]), "alertmanager");
    assert_eq!(
        misses,
        [
            ("xid-79".to_owned(), "it requires xid=\"79\", and the event has xid=\"48\"".to_owned()),
            ("b".to_owned(), "it requires team=\"ml\", and the event has no label `team`".to_owned()),
        ]
    );
}

#[test]
fn a_run_by_hand_is_bound_and_checked_the_same_way() {
    let known = known();
    let given = |value: Value| value.as_object().unwrap().clone();
    let bind = |name: &str, params: Value, event: Option<&Event>| RuleSet::bind(&known[name].1, &given(params), event);
    let input = bind("bus", json!({"node": "gpu-3", "gpu": "0"}), None).unwrap();
    assert_eq!((input.params.len(), input.event), (2, Value::Null));
    let said = bind("bus", json!({"nod": "x", "gpu": "0"}), None).unwrap_err();
    assert!(said.contains("did you mean `node`?"), "{said}");
    let said = bind("bus", json!({"node": "x"}), None).unwrap_err();
    assert_eq!(said, "parameter `gpu` (Gpu) is missing: it is not given and has no default");
    assert_eq!(bind("all", json!({"team": "ml", "count": "9"}), None).unwrap().params["count"], 9);
    assert!(bind("all", json!({"team": "ML"}), None).unwrap_err().contains("does not match the pattern"));
    let event = event(&[("node", "gpu-3"), ("gpu", "2")]);
    assert_eq!(bind("bus", json!({"gpu": "1"}), Some(&event)).unwrap().params["node"], "gpu-3");
}

#[test]
fn a_rule_that_ignores_has_a_reason_and_takes_not_everything() {
    let set = set(vec![
        json!({"name": "w", "when": ["alertname=Watchdog"], "ignore": "it always fires"}),
        json!({"name": "all", "when": ["team=ml"], "tell": ["ops"]}),
    ]);
    let said = reason(&set, &event(&[("alertname", "Watchdog")]));
    assert_eq!((said.code, said.text.as_str()), (ReasonCode::Muted, "rule `w` ignores it: it always fires"));
    let both = set.select(&event(&[("alertname", "Watchdog"), ("team", "ml")])).iter().filter(|s| s.speaks()).count();
    assert_eq!(both, 1, "another rule that matches has its say");
    for (wrong, words) in [
        (json!({"name": "r", "when": ["a=b"], "ignore": " "}), "`ignore` is empty"),
        (json!({"name": "r", "when": ["a=b"], "ignore": "x", "tell": ["ops"]}), "contradict"),
        (json!({"name": "r", "when": ["a=b"], "ignore": "x", "unless": ["c=d"]}), "has no `unless`"),
        (json!({"name": "r", "when": ["{}"], "ignore": "x"}), "it ignores every event"),
    ] {
        let refused = refused(vec![wrong]);
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn silence_below_a_mode_is_refused_where_it_would_mean_silence_for_ever() {
    let rule = |more: Value| {
        let mut rule =
            json!({"name": "r", "when": ["alertname=X"], "run": "none", "tell": ["ops"], "tell_in": "suggest"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    set(vec![rule(json!({}))]);
    set(vec![rule(json!({"tell_in": "auto", "mode": "auto", "promote": {"to": "suggest"}}))]);
    assert!(refused(vec![rule(json!({"tell": []}))]).contains("notifies no channel in any mode"));
    assert!(refused(vec![rule(json!({"run": null}))]).contains("write `ignore:` with a reason"));
    let never = refused(vec![rule(json!({"tell_in": "auto", "promote": {"to": "approve"}}))]);
    assert!(never.contains("it would never notify"), "{never}");
}
