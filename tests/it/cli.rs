//! The command line as people meet it: the real binary, its exit codes, its words, and what it never prints.

use nightshift::config::Config;
use std::path::Path;
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_nightshift");

const SUBCOMMANDS: [&str; 40] = [
    "serve",
    "agent",
    "agents",
    "check",
    "backup",
    "restore",
    "simulate",
    "run",
    "show",
    "why",
    "approve",
    "deny",
    "incidents",
    "ack",
    "assign",
    "silence",
    "resolve",
    "runs",
    "cancel",
    "freeze",
    "unfreeze",
    "scorecard",
    "judge",
    "promote",
    "demote",
    "guards",
    "tokens",
    "sessions",
    "break-glass",
    "status",
    "audit",
    "cache",
    "channels",
    "doctor",
    "rbac",
    "demo",
    "sim",
    "config",
    "completions",
    "version",
];

struct Place(tempfile::TempDir);

impl Place {
    /// An empty folder, with this configuration if it is not empty.
    fn new(config: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        if !config.is_empty() {
            place.write("nightshift.yaml", config);
        }
        place
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs the binary here, with nothing of the caller's environment that it listens to.
    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).current_dir(self.path()).stdin(std::process::Stdio::null());
        for name in ["NIGHTSHIFT_CONFIG", "NIGHTSHIFT_SERVER", "NIGHTSHIFT_TOKEN", "NO_COLOR", "RUST_LOG"] {
            command.env_remove(name);
        }
        command.env("USER", "ann").env_remove("SUDO_USER").env("TZ", "UTC");
        command
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_names_every_subcommand_and_every_exit_code() {
    let help = Place::new("").run(&["--help"]);
    assert_eq!(code(&help), 0);
    let text = stdout(&help);
    for name in SUBCOMMANDS {
        assert!(text.lines().any(|line| line.trim_start().starts_with(name)), "{name} is missing in\n{text}");
    }
    let listed = text.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let named = |line: &str| line.starts_with("  ") && !line.starts_with("   ");
    let listed: Vec<&str> =
        listed.lines().filter(|line| named(line)).filter_map(|line| line.split_whitespace().next()).collect();
    let missing: Vec<_> = listed.iter().filter(|name| **name != "help" && !SUBCOMMANDS.contains(name)).collect();
    assert!(
        missing.is_empty() && listed.len() > SUBCOMMANDS.len() - 1,
        "a command that no test here knows: {missing:?}"
    );
    for line in [
        "0    ok",
        "1    failure",
        "2    wrong usage",
        "3    partly",
        "4    not allowed",
        "5    not found",
        "130  interrupted",
    ] {
        assert!(text.contains(line), "{line}");
    }
    assert_eq!(stderr(&help), "");
}

#[test]
fn every_subcommand_explains_itself_on_stdout() {
    let place = Place::new("");
    for name in SUBCOMMANDS {
        let help = place.run(&[name, "--help"]);
        assert_eq!(code(&help), 0, "{name}");
        assert!(stdout(&help).contains(&format!("Usage: nightshift {name}")), "{name}: {}", stdout(&help));
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_so_on_stderr() {
    let place = Place::new("");
    for args in
        [&["chek"][..], &[], &["show"], &["run", "x", "--mode", "bold"], &["show", "x1"], &["-o", "xml", "runs"]]
    {
        let refused = place.run(args);
        assert_eq!(code(&refused), 2, "{args:?}: {}", stderr(&refused));
        assert_eq!(stdout(&refused), "", "{args:?}");
    }
    assert!(stderr(&place.run(&["chek"])).contains("check"));
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_a_suggestion() {
    let place = Place::new("install: x\nchanels: {}\n");
    let refused = place.run(&["config"]);
    assert_eq!(code(&refused), 2);
    let text = stderr(&refused);
    for part in ["unknown key `chanels`", "nightshift.yaml:2:1", "did you mean `channels`?"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

/// The engine goes on with the configuration that it has read, and must be stoppable.
#[test]
fn a_freeze_with_a_broken_configuration_names_the_way_without_it() {
    let place = Place::new("chanels: {}\n");
    let refused = place.run(&["freeze", "--why", "x"]);
    assert_eq!(code(&refused), 2);
    let text = stderr(&refused);
    for part in ["unknown key `chanels`", "--server", "--token-file"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let way = ["--server", "http://127.0.0.1:9", "--token-file", "token", "freeze", "--why", "x"];
    std::fs::write(place.path().join("token"), "x".repeat(64)).unwrap();
    let reached = stderr(&place.run(&way));
    assert!(!reached.contains("chanels") && reached.contains("127.0.0.1:9"), "{reached}");
}

#[test]
fn every_problem_of_a_configuration_is_named_at_once() {
    let place = Place::new("server: { listen: '0.0.0.0:1' }\nguards: { share_per_day: 7 }\n");
    let text = stderr(&place.run(&["config"]));
    for part in ["2 things to fix", "server.listen:", "behind_tls", "guards.share_per_day:"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn the_effective_configuration_reads_back_and_holds_no_secret() {
    let config = "channels: { ops: { kind: slack, channel: C1, token: { file: token.txt } } }\n\
                  prometheus: { url: 'http://p:9090', token: { env: CANARY } }\n";
    let place = Place::new(config);
    place.write("token.txt", "xoxb-canary\n");
    let printed = place.command(&["config", "--effective"]).env("CANARY", "env-canary").output().unwrap();
    assert_eq!(code(&printed), 0, "{}", stderr(&printed));
    let all = stdout(&printed) + &stderr(&printed);
    assert!(!all.contains("canary"), "{all}");
    let expect = Config::parse("given", config).unwrap();
    assert_eq!(Config::parse("printed", &stdout(&printed)).unwrap(), expect);
}

#[test]
fn a_literal_secret_is_refused_without_being_repeated() {
    let place = Place::new("channels:\n  ops: { kind: slack, channel: C1, token: xoxb-canary }\n");
    let refused = place.run(&["config"]);
    assert_eq!(code(&refused), 2);
    let text = stderr(&refused);
    assert!(!text.contains("canary"), "{text}");
    assert!(text.contains("{ file: /run/secrets/name }"), "{text}");
}

#[test]
fn the_configuration_is_found_by_option_then_environment_then_place() {
    let place = Place::new("install: here\n");
    place.write("a.yaml", "install: by-option\n");
    place.write("b.yaml", "install: by-environment\n");
    let install = |command: &mut Command| stdout(&command.output().unwrap());
    let mut all = place.command(&["config", "--effective", "--config", "a.yaml"]);
    assert!(install(all.env("NIGHTSHIFT_CONFIG", "b.yaml")).contains("install: by-option"));
    let mut environment = place.command(&["config", "--effective"]);
    assert!(install(environment.env("NIGHTSHIFT_CONFIG", "b.yaml")).contains("install: by-environment"));
    assert!(install(&mut place.command(&["config", "--effective"])).contains("install: here"));
    let missing = place.run(&["config", "--config", "gone.yaml"]);
    assert_eq!(code(&missing), 2);
    assert!(stderr(&missing).contains("gone.yaml"));
}

/// The example with every `#~` removed, as its head says: what stands below an empty `{}` or `[]` replaces it.
pub(crate) fn everything_on(example: &str) -> String {
    let lines: Vec<&str> = example.lines().collect();
    let is_off = |line: &str| line.trim_start().starts_with("#~");
    let on: Vec<String> = lines
        .iter()
        .enumerate()
        .map(|(at, line)| {
            let opened = !is_off(line) && lines.get(at + 1).is_some_and(|next| is_off(next));
            let line = if opened { line.trim_end_matches(" {}").trim_end_matches(" []") } else { line };
            line.replacen("#~", "", 1)
        })
        .collect();
    on.join("\n")
}

#[test]
fn the_example_is_good_as_it_stands_and_with_everything_turned_on() {
    let example = include_str!("../../nightshift.example.yaml");
    let config = Config::parse("example", example).unwrap();
    assert_eq!(config.check(), []);
    let everything = Config::parse("example, all on", &everything_on(example)).unwrap();
    assert_eq!(everything.check(), []);
    assert_eq!(everything.channels.len(), 6);
    assert_eq!(everything.clusters.len(), 4);
    assert_eq!(everything.http_allow.len(), 2);
}

#[test]
fn check_points_at_the_mistake_in_a_runbook_and_ends_with_1() {
    let place = Place::new("");
    let text = "//! Close a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\nk8s::cordn(node, \"x\");\n";
    place.write("bad.rhai", text);
    let checked = place.run(&["check", "bad.rhai"]);
    assert_eq!(code(&checked), 1, "{}", stderr(&checked));
    let text = stdout(&checked);
    for part in ["bad.rhai:7", "k8s::cordn", "k8s::cordon", "^"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours in a pipe");
    let json = place.run(&["check", "bad.rhai", "-o", "json"]);
    assert_eq!(code(&json), 1);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["findings"][0]["line"], 7);
    assert_eq!(value["findings"][0]["level"], "error");
}

#[test]
fn a_file_that_is_not_there_ends_with_5() {
    let place = Place::new("");
    assert_eq!(code(&place.run(&["check", "gone.rhai"])), 5);
    let page = place.run(&["why", "--explain", "blast_radios"]);
    assert_eq!(code(&page), 5);
    assert!(stderr(&page).contains("did you mean `blast_radius`?"));
}

#[test]
fn the_page_of_a_reason_needs_no_engine() {
    let page = Place::new("").run(&["why", "--explain", "blast_radius"]);
    assert_eq!(code(&page), 0);
    assert!(stdout(&page).contains("nightshift status"));
}

#[test]
fn without_an_engine_or_a_token_the_words_say_what_to_do() {
    // Port 9 of this machine: nothing listens there.
    let place = Place::new("server: { listen: '127.0.0.1:9' }\n");
    let refused = place.run(&["runs"]);
    assert_eq!(code(&refused), 4);
    assert!(stderr(&refused).contains("NIGHTSHIFT_TOKEN"));
    let silent = place.command(&["runs"]).env("NIGHTSHIFT_TOKEN", "canary-of-a-token-canary").output().unwrap();
    assert_eq!(code(&silent), 1);
    assert!(stderr(&silent).contains("no engine answers at http://127.0.0.1:9"), "{}", stderr(&silent));
    assert!(!stderr(&silent).contains("canary"));
    assert_eq!(stdout(&silent), "");
}

#[test]
fn the_version_is_a_command_too_and_can_be_json() {
    let place = Place::new("");
    assert_eq!(stdout(&place.run(&["version"])), format!("nightshift {}\n", env!("CARGO_PKG_VERSION")));
    let json: serde_json::Value = serde_json::from_slice(&place.run(&["version", "-o", "json"]).stdout).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_help_of_what_people_type_at_night_has_examples_and_names_real_commands() {
    let place = Place::new("");
    for name in ["freeze", "approve", "run", "silence", "incidents"] {
        let help = stdout(&place.run(&[name, "--help"]));
        assert!(help.contains("Examples:") && help.contains(&format!("  nightshift {name}")), "{name}: {help}");
    }
    let help = stdout(&place.run(&["--help"]));
    assert!(help.contains("export, prove or redact entries"), "{help}");
    // Either word for the reason, wherever one is given.
    for name in
        ["approve", "deny", "cancel", "freeze", "unfreeze", "silence", "judge", "promote", "demote", "break-glass"]
    {
        let help = stdout(&place.run(&[name, "--help"]));
        assert!(help.contains("--why") && help.contains("reason"), "{name}: {help}");
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    let place = Place::new("");
    for shell in ["bash", "zsh", "fish"] {
        let script = place.run(&["completions", shell]);
        assert_eq!(code(&script), 0);
        assert!(stdout(&script).contains("unfreeze"), "{shell}");
    }
}

mod running {
    //! One engine with an empty catalog but a rule and a runbook, on a free port.

    use super::{Place, code, stderr, stdout};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::{Child, Stdio};

    struct Engine {
        place: Place,
        child: Child,
        url: String,
    }

    impl Engine {
        fn start() -> Engine {
            let place = Place::new(
                "log: { level: warn }\nchannels: { log: { kind: log } }\nsources: { prod: { kind: alertmanager } }\n",
            );
            place.write("rules/a.yaml", "rules:\n  - { name: all, when: ['severity=\"critical\"'], tell: [log] }\n");
            place.write(
                "runbooks/look.rhai",
                "//! Look at a node.\n//!\n//! params:\n//!   why: String\n//! scope: none\n\nnote(why);\n",
            );
            again(place)
        }

        fn run(&self, args: &[&str]) -> std::process::Output {
            self.place.command(args).env("NIGHTSHIFT_SERVER", &self.url).output().unwrap()
        }

        fn json(&self, args: &[&str]) -> serde_json::Value {
            let output = self.run(&[args, &["-o", "json"]].concat());
            assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
            serde_json::from_slice(&output.stdout).unwrap()
        }

        /// Posts as Alertmanager does, with this machine's own token; the status line of the answer.
        fn post(&self, path: &str, body: &str) -> String {
            let token = std::fs::read_to_string(self.place.path().join("data/token")).unwrap();
            let mut stream = std::net::TcpStream::connect(self.url.trim_start_matches("http://")).unwrap();
            let (token, size) = (token.trim(), body.len());
            write!(
                stream,
                "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
                 Content-Length: {size}\r\nConnection: close\r\n\r\n{body}"
            )
            .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer.lines().next().unwrap().to_owned()
        }

        /// SIGTERM, and the exit code of the engine.
        fn stop(mut self) -> (Place, Option<i32>) {
            let pid = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            let code = self.child.wait().unwrap().code();
            (std::mem::replace(&mut self.place, Place::new("")), code)
        }
    }

    impl Drop for Engine {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn a_run_by_hand_is_started_shown_and_explained() {
        let engine = Engine::start();
        let refused = engine.run(&["run", "lok", "--yes"]);
        assert_eq!(code(&refused), 5);
        assert!(stderr(&refused).contains("did you mean `look`?"), "{}", stderr(&refused));
        let refused = engine.run(&["run", "look", "--yes"]);
        assert_eq!(code(&refused), 2, "{}", stderr(&refused));
        assert!(stderr(&refused).contains("why: String"), "{}", stderr(&refused));
        let started = engine.run(&["run", "look", "--yes", "-p", "why=test", "--mode", "observe"]);
        assert_eq!((code(&started), stdout(&started).as_str()), (0, "r1\n"), "{}", stderr(&started));
        let shown = engine.run(&["show", "R1"]);
        assert!(stdout(&shown).starts_with("r1  look  on fleet"), "{}", stdout(&shown));
        assert!(stdout(&shown).contains(&format!("by {} · mode observe", ann())), "{}", stdout(&shown));
        let why = engine.run(&["why", "r1"]);
        assert!(stdout(&why).contains(&format!("started by hand ({})", ann())), "{}", stdout(&why));
        assert_eq!(engine.json(&["runs", "--all"])["runs"][0]["requested_by"], ann());
    }

    #[test]
    fn why_explains_what_an_alert_did_not_start_by_incident_and_by_node() {
        let engine = Engine::start();
        let alert = serde_json::json!({
            "status": "firing", "labels": { "alertname": "GpuXid", "severity": "warning", "node": "gpu-3" },
            "annotations": { "summary": "XID 79 on gpu-3" }, "startsAt": "2026-11-23T02:14:07Z",
            "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "aaaaaaaaaaaaaaaa",
        });
        let body = serde_json::json!({
            "version": "4", "groupKey": "g", "status": "firing", "receiver": "x", "groupLabels": {}, "commonLabels": {},
            "commonAnnotations": {}, "externalURL": "", "alerts": [alert],
        });
        let answer = engine.post("/in/alertmanager/prod", &body.to_string());
        assert!(answer.contains(" 200 "), "{answer}");
        let incidents = engine.json(&["incidents"]);
        let mut subjects = vec!["gpu-3".to_owned(), "GpuXid".to_owned()];
        subjects.extend(incidents["incidents"][0]["id"].as_str().map(str::to_owned));
        for subject in subjects {
            let why = engine.run(&["why", &subject]);
            assert_eq!(code(&why), 0, "{subject}: {}", stderr(&why));
            for part in ["XID 79 on gpu-3", "rule `all`", "severity=\"critical\""] {
                assert!(stdout(&why).contains(part), "{subject}: {part} is missing in\n{}", stdout(&why));
            }
        }
    }

    #[test]
    fn what_does_not_exist_ends_with_5_and_a_wrong_token_with_4() {
        let engine = Engine::start();
        for args in [
            &["show", "r9"][..],
            &["show", "i9"],
            &["show", "a9"],
            &["approve", "a9", "--yes"],
            &["ack", "i9"],
            &["why", "nobody"],
        ] {
            let missing = engine.run(args);
            assert_eq!(code(&missing), 5, "{args:?}: {}", stderr(&missing));
        }
        let wrong = engine
            .place
            .command(&["runs"])
            .env("NIGHTSHIFT_SERVER", &engine.url)
            .env("NIGHTSHIFT_TOKEN", "wrong")
            .output();
        assert_eq!(code(&wrong.unwrap()), 4);
    }

    #[test]
    fn a_freeze_names_who_and_why_and_only_freezes_what_exists() {
        let engine = Engine::start();
        let refused = engine.run(&["freeze", "--scope", "rule:al", "--why", "x"]);
        assert_eq!(code(&refused), 5);
        assert!(stderr(&refused).contains("rule:all"), "{}", stderr(&refused));
        assert_eq!(code(&engine.run(&["freeze", "--why", "  "])), 2);
        assert_eq!(code(&engine.run(&["freeze", "--why", "storm"])), 0);
        let freezes = engine.json(&["freeze"]);
        assert_eq!((&freezes["freezes"][0]["by"], &freezes["freezes"][0]["why"]), (&ann().into(), &"storm".into()));
        assert_eq!(code(&engine.run(&["unfreeze", "--yes", "--why", "over"])), 0);
        assert_eq!(code(&engine.run(&["unfreeze", "--yes", "--why", "over"])), 5);
    }

    #[test]
    fn a_stopped_engine_ends_with_0_and_leaves_a_signed_ledger_that_verifies() {
        let engine = Engine::start();
        assert_eq!(code(&engine.run(&["freeze", "--why", "to have an entry"])), 0);
        let (place, ended) = engine.stop();
        assert_eq!(ended, Some(0));
        let engine = again(place);
        assert_eq!(engine.json(&["audit", "verify"])["ok"], true);
        let proof = engine.run(&["audit", "proof", "1"]);
        assert_eq!(code(&proof), 0, "{}", stderr(&proof));
        assert_eq!(code(&engine.run(&["audit", "export", "ledger.jsonl"])), 0);
        assert_eq!(code(&engine.run(&["audit", "verify", "--export", "ledger.jsonl"])), 0);
        let path = engine.place.path().join("ledger.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("to have an entry", "to hide an entry", 1)).unwrap();
        let broken = engine.run(&["audit", "verify", "--export", "ledger.jsonl"]);
        assert_eq!(code(&broken), 1);
        assert!(stderr(&broken).contains("#2"), "{}", stderr(&broken));
    }

    #[test]
    fn an_export_whose_end_was_cut_says_how_many_entries_no_signature_covers() {
        let mut engine = Engine::start();
        // A checkpoint at each orderly end.
        for _ in 0..2 {
            assert_eq!(code(&engine.run(&["freeze", "--why", "to have an entry"])), 0);
            engine = again(engine.stop().0);
        }
        assert_eq!(code(&engine.run(&["audit", "export", "ledger.jsonl"])), 0);
        let path = engine.place.path().join("ledger.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let verify = || engine.run(&["audit", "verify", "--export", "ledger.jsonl"]);
        let last = text.lines().rfind(|line| line.contains("\"note\"")).unwrap();
        std::fs::write(&path, text.replacen(&format!("{last}\n"), "", 1)).unwrap();
        let cut = verify();
        assert_eq!(code(&cut), 0, "what is signed is whole: {}", stderr(&cut));
        let said = String::from_utf8(cut.stdout).unwrap();
        assert!(said.starts_with("good so far  ledger.jsonl: "), "{said}");
        assert!(said.contains(" after the last checkpoint: no signature covers them yet"), "{said}");
        let json = engine.json(&["audit", "verify", "--export", "ledger.jsonl"]);
        let number = |name: &str| json[name].as_u64().unwrap();
        assert!(number("unsigned") > 0 && number("unsigned") == number("entries") - number("signed"), "{json}");
    }

    /// How an act of ann's with this machine's own token is recorded.
    fn ann() -> String {
        format!("local:ann (uid {})", rustix::process::getuid().as_raw())
    }

    /// The token of the machine is one for all who have a shell there.
    #[test]
    fn the_command_line_on_the_engines_machine_leaves_the_login_name_in_the_ledger() {
        let engine = Engine::start();
        let by = |name: &str, args: &[&str]| {
            let mut command = engine.place.command(args);
            command.env("NIGHTSHIFT_SERVER", &engine.url).env_remove("SUDO_USER").env("USER", name);
            let done = command.output().unwrap();
            assert_eq!(code(&done), 0, "{args:?}: {}", stderr(&done));
        };
        by("bob", &["freeze", "--why", "storm"]);
        by("eve", &["unfreeze", "--yes", "--why", "over"]);
        by("$(reboot); \u{202e}", &["freeze", "--why", "again"]);
        assert_eq!(code(&engine.run(&["audit", "export", "ledger.jsonl"])), 0);
        let ledger = std::fs::read_to_string(engine.place.path().join("ledger.jsonl")).unwrap();
        let uid = rustix::process::getuid().as_raw();
        let acts = [
            ("frozen", "storm", format!("bob (uid {uid})")),
            ("unfrozen", "over", format!("eve (uid {uid})")),
            ("frozen", "again", format!("uid {uid}")),
        ];
        for (kind, why, who) in acts {
            let is_it = |line: &&str| line.contains(&format!("\"{kind}\\\"")) && line.contains(why);
            let line = ledger.lines().find(is_it).unwrap_or_else(|| panic!("no {kind} in {ledger}"));
            assert!(line.contains(&format!("person:local:{who}")), "{line}");
        }
        assert!(!ledger.contains("reboot"), "what is no name of a user is left out");
    }

    #[test]
    fn what_lets_something_begin_or_ends_it_is_refused_without_a_terminal_unless_yes_is_said() {
        let engine = Engine::start();
        let started = engine.run(&["run", "look", "--yes", "-p", "why=test", "--mode", "observe"]);
        assert_eq!(code(&started), 0, "{}", stderr(&started));
        assert_eq!(code(&engine.run(&["freeze", "--why", "storm"])), 0, "stopping is never asked about");
        let entries = engine.json(&["status"])["status"]["entries"].clone();
        for args in [
            &["approve", "a1", "--why", "x"][..],
            &["approve", "a1", "-o", "json"],
            &["deny", "a1"],
            &["cancel", "r1", "--why", "x"],
            &["unfreeze", "--why", "x"],
            &["promote", "all", "--why", "x"],
            &["guards", "reset", "rule:all", "--why", "x"],
            &["agents", "remove", "gpu-3", "--why", "x"],
            &["audit", "redact", "1", "--why", "x"],
        ] {
            let refused = engine.run(args);
            assert_eq!(code(&refused), 2, "{args:?}: {}", stderr(&refused));
            assert!(stderr(&refused).contains("--yes"), "{args:?}: {}", stderr(&refused));
        }
        assert_eq!(engine.json(&["status"])["status"]["entries"], entries, "nothing was done");
        assert_eq!(engine.json(&["freeze"])["freezes"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_freeze_prints_the_exact_way_back_and_a_wrong_scope_is_told_which_freezes_there_are() {
        let engine = Engine::start();
        let frozen = engine.run(&["freeze", "--scope", "rule:all", "--reason", "a bad driver"]);
        assert_eq!(code(&frozen), 0, "{}", stderr(&frozen));
        assert!(stdout(&frozen).contains("frozen: rule:all until it is released"), "{}", stdout(&frozen));
        let said = stderr(&frozen);
        assert!(
            said.contains("`nightshift unfreeze --scope rule:all --why '…'`") && said.contains("being notified: log"),
            "{said}"
        );
        let wrong = engine.run(&["unfreeze", "--yes", "--why", "over"]);
        assert_eq!(code(&wrong), 5);
        let said = stderr(&wrong);
        assert!(said.contains("frozen: rule:all") && said.contains("nightshift unfreeze --scope rule:all"), "{said}");
        assert_eq!(code(&engine.run(&["unfreeze", "--scope", "rule:all", "--yes", "--why", "over"])), 0);
        let none = engine.run(&["freeze", "--scope", "rule:nope", "--why", "x"]);
        assert_eq!(code(&none), 5);
        assert!(stderr(&none).contains("the nearest of 1 is `rule:all`"), "{}", stderr(&none));
    }

    #[test]
    fn a_freeze_that_ends_by_itself_is_bounded_and_outlives_a_restart() {
        let engine = Engine::start();
        for wrong in ["10s", "31d", "soon"] {
            let refused = engine.run(&["freeze", "--why", "x", "--for", wrong]);
            assert_eq!(code(&refused), 2, "{wrong}: {}", stderr(&refused));
            assert!(stderr(&refused).contains("from 1m to 30d"), "{}", stderr(&refused));
        }
        assert_eq!(code(&engine.run(&["freeze", "--for", "2h"])), 2, "without a reason it would only list");
        let frozen = engine.run(&["freeze", "--why", "storage upgrade", "--for", "2h"]);
        assert!(
            stdout(&frozen).contains("frozen: all until 20") && stdout(&frozen).contains(" UTC"),
            "{}",
            stdout(&frozen)
        );
        let until = engine.json(&["freeze"])["freezes"][0]["until"].clone();
        let incident = engine.json(&["incidents"])["incidents"][0].clone();
        let title = incident["title"].as_str().unwrap();
        assert!(title.starts_with(&format!("Automation frozen (all) by {} until", ann())), "{title}");
        assert!(title.ends_with("storage upgrade"), "{title}");
        let engine = again(engine.stop().0);
        assert_eq!(engine.json(&["freeze"])["freezes"][0]["until"], until);
        assert_eq!(code(&engine.run(&["unfreeze", "--yes", "--why", "done early"])), 0);
        let resolved = engine.json(&["incidents", "--state", "resolved"]);
        assert_eq!(resolved["incidents"][0]["id"], incident["id"]);
    }

    #[test]
    fn lists_are_narrowed_and_no_rows_at_all_are_no_answer() {
        let engine = Engine::start();
        assert_eq!(code(&engine.run(&["run", "look", "--yes", "-p", "why=test", "--mode", "observe"])), 0);
        assert_eq!(code(&engine.run(&["freeze", "--why", "storm"])), 0);
        for (args, ids) in [
            (&["incidents", "--severity", "warning"][..], 1),
            (&["incidents", "--severity", "critical"], 0),
            (&["incidents", "--state", "acknowledged"], 0),
            (&["incidents", "--node", "gpu-3"], 0),
            (&["incidents", "--since", "1h"], 1),
            (&["runs", "--all", "--since", "2000-01-01T00:00:00Z"], 1),
            (&["runs", "--all", "--rule", "other"], 0),
            (&["runs", "--state", "cancelled"], 0),
            (&["runs", "--state", "denied"], 0),
        ] {
            let answer = engine.json(args);
            let list = answer.get("incidents").or(answer.get("runs")).and_then(|list| list.as_array()).unwrap();
            assert_eq!(list.len(), ids, "{args:?}: {answer}");
        }
        for (args, hint) in [
            (&["incidents", "-n", "0"][..], "from 1 to"),
            (&["incidents", "--state", "opened"], "did you mean `open`?"),
            (&["runs", "--state", "asleep"], "states: ready, waiting"),
            (&["incidents", "--severity", "awful"], "`awful` is unknown; write one of `info`"),
            (&["incidents", "--since", "yesterday"], "write for example `2h`"),
        ] {
            let refused = engine.run(args);
            assert_eq!(code(&refused), 2, "{args:?}: {}", stderr(&refused));
            assert!(stderr(&refused).contains(hint), "{args:?}: {}", stderr(&refused));
        }
    }

    #[test]
    fn times_are_in_the_zone_of_the_terminal_and_say_which() {
        let engine = Engine::start();
        assert_eq!(code(&engine.run(&["run", "look", "--yes", "-p", "why=test", "--mode", "observe"])), 0);
        let shown = |args: &[&str]| {
            let mut command = engine.place.command(args);
            stdout(&command.env("NIGHTSHIFT_SERVER", &engine.url).env("TZ", "XST-5").output().unwrap())
        };
        assert!(shown(&["show", "r1"]).contains(" XST, "), "{}", shown(&["show", "r1"]));
        assert!(shown(&["show", "r1", "--utc"]).contains(" UTC, "), "{}", shown(&["show", "r1", "--utc"]));
        assert!(shown(&["audit", "log"]).contains("AT (XST)"));
        assert!(shown(&["why", "r1"]).contains(" XST  run r1"), "{}", shown(&["why", "r1"]));
    }

    #[test]
    fn why_of_a_rule_that_only_notifies_says_so() {
        let engine = Engine::start();
        let why = engine.run(&["why", "all"]);
        assert_eq!(code(&why), 0, "{}", stderr(&why));
        assert!(stdout(&why).contains("it matches alerts and notifies log; it runs no runbook"), "{}", stdout(&why));
    }

    #[test]
    fn a_refused_body_has_no_word_of_the_program_that_read_it() {
        let engine = Engine::start();
        let refused = engine.run(&["tokens", "make", "x", "--role", "king", "--expires", "1d"]);
        assert_eq!(code(&refused), 2, "{}", stderr(&refused));
        let said = stderr(&refused);
        assert!(said.contains("`king` is unknown; write one of") && !said.contains("column"), "{said}");
    }

    #[test]
    fn sighup_reads_the_rules_again_and_does_not_end_the_engine() {
        let engine = Engine::start();
        engine.place.write("rules/b.yaml", "rules:\n  - { name: more, when: ['severity=\"error\"'], tell: [log] }\n");
        let pid = rustix::process::Pid::from_child(&engine.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        let give_up = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while engine.json(&["status"])["status"]["rules"] != 2 {
            assert!(std::time::Instant::now() < give_up, "the rules were not read again");
        }
    }

    /// Starts an engine in a place, perhaps once more.
    fn again(place: Place) -> Engine {
        let mut command = place.command(&["serve", "--listen", "127.0.0.1:0"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // The stream ends if the engine does, so this cannot wait for ever on one that failed.
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.contains(" ready on ")).unwrap();
        // Keeps reading, so that the engine never blocks on its log.
        std::thread::spawn(move || lines.for_each(drop));
        assert!(ready.contains("1 rules, 1 runbooks, mode ceiling auto"), "{ready}");
        let url = ready.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Engine { place, child, url }
    }
}

const GOOD: &str = "//! Close a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\nk8s::cordon(node, \"x\");\n\
                    verify(|| k8s::node(node).unschedulable);\n";
const RUNS_CLOSE: &str = "rules:\n  - name: closes\n    when: ['alertname=\"A\"']\n    run: close\n    tell: [oncal]\n";

/// A folder with a runbook `close` of this text and a rule that runs it and notifies `oncal`.
fn with_rule(runbook: &str, config: &str) -> Place {
    let folders = "runbooks_dir: runbooks\nrules_dir: rules\nintegrations_dir: integrations\n";
    let place = Place::new(&format!("{folders}{config}"));
    std::fs::create_dir_all(place.path().join("integrations")).unwrap();
    place.write("runbooks/close.rhai", runbook);
    place.write("rules/a.yaml", RUNS_CLOSE);
    place
}

#[test]
fn the_old_names_of_keys_work_and_check_notes_each_of_them() {
    let channel = |delay: &str| {
        format!(
            "channels:\n  oncal: {{ kind: pagerduty, routing_key: {{ file: key }}, {delay}: 15m }}\ndefault: {{ tell: [oncal] }}\nprometheus: {{ url: 'http://p:9090' }}\n"
        )
    };
    let rule = |confirm: &str, approvers: &str| {
        format!("{RUNS_CLOSE}    {confirm}: 'up{{node=$node}} == 0'\n    {approvers}: 2\n")
    };
    let notes = |place: &Place| {
        let checked = place.run(&["check", "--strict", "-o", "json"]);
        let json: serde_json::Value = serde_json::from_str(&stdout(&checked)).unwrap();
        assert_eq!(code(&checked), 0, "a note is neither an error nor a warning: {json:#}");
        let found = json["findings"].as_array().unwrap().clone();
        assert!(found.iter().all(|one| one["level"] == "note" && one["code"] == "deprecated-key"), "{json:#}");
        found.iter().map(|one| one["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let key = |place: &Place| {
        place.write("key", "0123456789abcdef0123456789abcdef");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(place.path().join("key"), private).unwrap();
    };
    let place = with_rule(GOOD, &channel("notify_after"));
    key(&place);
    place.write("rules/a.yaml", &rule("confirm_query", "min_approvers"));
    assert_eq!(notes(&place), [""; 0]);
    let old = with_rule(&GOOD.replace("scope:", "reach:"), &channel("patience"));
    key(&old);
    old.write("rules/a.yaml", &rule("still", "persons"));
    let text = stdout(&old.run(&["check"]));
    for part in ["`reach:` is deprecated", "write `scope:`", "close.rhai:5", "rules/a.yaml:2", "nightshift.yaml:"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let said = notes(&old);
    for new in ["scope", "confirm_query", "min_approvers", "notify_after"] {
        assert!(new == "scope" || said.iter().any(|note| note.ends_with(&format!("write `{new}`"))), "{new}: {said:?}");
    }
    assert_eq!(said.len(), 4, "{said:?}");
}

#[test]
fn an_error_in_a_runbook_does_not_say_too_that_there_is_no_such_runbook() {
    let place = with_rule(&GOOD.replace("cordon", "cordn"), "");
    let checked = place.run(&["check"]);
    assert_eq!(code(&checked), 1);
    let text = stdout(&checked);
    assert!(text.contains("k8s::cordn") && !text.contains("there is no runbook"), "{text}");
    assert!(stderr(&checked).contains("1 error"), "{}", stderr(&checked));
    place.write("rules/a.yaml", &RUNS_CLOSE.replace("run: close", "run: clos"));
    place.write("runbooks/close.rhai", GOOD);
    let text = stdout(&place.run(&["check"]));
    assert!(text.contains("there is no runbook `clos`") && text.contains("rules/a.yaml:2"), "{text}");
    let checked = place.run(&["check", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&checked)).unwrap();
    let found = &json["findings"][0];
    assert!(found["file"].as_str().unwrap().ends_with("rules/a.yaml") && found["line"] == 2, "{json}");
}

#[test]
fn a_byte_order_mark_is_skipped_in_runbooks_and_in_the_configuration() {
    let place = with_rule(&format!("\u{feff}{GOOD}"), "");
    let config = std::fs::read_to_string(place.path().join("nightshift.yaml")).unwrap();
    place.write("nightshift.yaml", &format!("\u{feff}{config}"));
    for args in [&["check"][..], &["check", "runbooks/close.rhai"]] {
        let checked = place.run(args);
        assert_eq!(code(&checked), 0, "{}{}", stdout(&checked), stderr(&checked));
    }
}

#[test]
fn an_unknown_channel_is_reported_at_its_rules_file_and_line_and_in_runbooks_too() {
    let tells = format!("{GOOD}tell(\"onkall\", `{{node}} is closed`);\n");
    let place = with_rule(&tells, "channels: { oncall: { kind: log } }\n");
    let text = stdout(&place.run(&["check"]));
    assert!(text.contains("rules/a.yaml:2") && text.contains("did you mean `oncall`?"), "{text}");
    assert!(
        text.contains("notifies `onkall`, which is not a configured channel") && text.contains("close.rhai:9"),
        "{text}"
    );
    assert!(!text.contains("--> configuration"), "{text}");
}

#[test]
fn check_reads_the_files_of_a_folder_and_refuses_what_it_would_not_read() {
    let place = with_rule(&GOOD.replace("cordon", "cordn"), "");
    place.write("runbooks/close.test.yaml", "rubbish: [");
    place.write("runbooks/notes.md", "# not ours");
    let folder = place.run(&["check", "runbooks"]);
    assert_eq!(code(&folder), 1, "{}", stderr(&folder));
    assert!(
        stdout(&folder).contains("k8s::cordn") && stderr(&folder).contains("1 file checked"),
        "{}",
        stderr(&folder)
    );
    let test = place.run(&["check", "runbooks/close.test.yaml"]);
    assert_eq!(code(&test), 2, "a test is not checked, so it is not called good");
    assert!(stderr(&test).contains("close.test.yaml is a test of a runbook"), "{}", stderr(&test));
    let empty = place.run(&["check", "integrations"]);
    assert_eq!(code(&empty), 5, "{}", stderr(&empty));
}

#[test]
fn a_wrong_unit_is_reported_with_the_name_of_its_option() {
    let place = with_rule(&GOOD.replace("unschedulable)", "unschedulable, #{ within: \"10min\" })"), "");
    let text = stdout(&place.run(&["check"]));
    assert!(text.contains("within") && text.contains("10min") && !text.contains("the option"), "{text}");
}

#[test]
fn single_quotes_around_a_text_are_answered_with_double_ones() {
    let place = with_rule(&GOOD.replace("\"x\"", "'why'"), "");
    let text = stdout(&place.run(&["check"]));
    assert!(text.contains("use double quotes: `\"why\"`"), "{text}");
}

#[test]
fn a_rule_whose_mode_is_above_the_ceiling_is_a_warning() {
    let place = with_rule(GOOD, "mode_ceiling: observe\n");
    assert!(!stdout(&place.run(&["check"])).contains("mode_ceiling"));
    place.write("rules/a.yaml", &format!("{RUNS_CLOSE}    mode: approve\n"));
    let checked = place.run(&["check"]);
    assert_eq!(code(&checked), 0, "{}", stderr(&checked));
    let text = stdout(&checked);
    assert!(
        text.contains("`mode_ceiling: observe` keeps one rule at observe") && text.contains("`closes` (approve)"),
        "{text}"
    );
}

#[test]
fn the_effective_configuration_marks_what_is_a_default() {
    let printed = stdout(&Place::new("install: here\n").run(&["config", "--effective"]));
    assert!(printed.lines().any(|line| line == "install: here"), "{printed}");
    assert!(printed.lines().any(|line| line == "rules_dir: rules  # default"), "{printed}");
    assert_eq!(Config::parse("printed", &printed).unwrap().install, "here");
}
