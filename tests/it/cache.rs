//! Weight caches on a real file system and the kernel's real page cache.
//!
//! Invariant: what is in memory is counted by the kernel, before and after; nothing is believed from a report alone.

use nightshift::config::AgentConfig;
use nightshift::config::ModelCacheConfig;
use nightshift::model::{AgentCommand, CommandStatus, FailureKind, Outcome, RunId};
use nightshift::node::cache::{CacheSettings, MemoryProbe, ModelRoots, ReadProgress, status, verify, warm};
use nightshift::node::{self, Machine};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MIB: usize = 1 << 20;
static NEVER: AtomicBool = AtomicBool::new(false);
const HOUR: Duration = Duration::from_secs(3_600);

/// Page caches are of disks: the folder of the build is on one, /tmp may not be.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn settings(root: &Path) -> CacheSettings {
    CacheSettings::of(&ModelCacheConfig {
        roots: vec![root.to_owned()],
        reserve_mib: 64,
        ..ModelCacheConfig::default()
    })
}

/// A file with one tensor of so many bytes; on disk, not only in memory, so that it can be let go.
fn shard(path: &Path, tensor: &str, bytes: usize) {
    let header = format!(r#"{{"{tensor}":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
    let mut text = (header.len() as u64).to_le_bytes().to_vec();
    text.extend(header.as_bytes());
    text.extend((0..bytes).map(|at| (at % 251) as u8));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
}

/// Two shards and the index that names them.
fn model(dir: &Path, bytes: usize) {
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    shard(&dir.join(names[0]), "a", bytes);
    shard(&dir.join(names[1]), "b", bytes);
    let index = json!({ "metadata": { "total_size": 2 * bytes }, "weight_map": { "a": names[0], "b": names[1] } });
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    fs::write(dir.join("config.json"), "{}").unwrap();
}

/// Lets every file below go from the page cache.
fn let_go(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            let_go(&path);
        } else {
            let file = File::open(&path).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }
}

fn quiet(_: ReadProgress) {}

/// The binary, with nothing of the caller's settings.
fn nightshift(args: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nightshift"));
    command.args(args).current_dir(env!("CARGO_TARGET_TMPDIR")).env_remove("NIGHTSHIFT_CONFIG").output().unwrap()
}

#[test]
fn a_cold_model_is_warmed_counted_and_not_read_twice() {
    let dir = folder();
    model(dir.path(), 5 * MIB + 17);
    let_go(dir.path());
    let settings = settings(dir.path());
    let cold = status(&settings, dir.path()).unwrap();
    assert!(cold.sound && cold.resident < 0.1 && cold.files == 4, "{cold:?}");
    assert_eq!(cold.missing[0].file, "model-00001-of-00002.safetensors");

    let seen = Mutex::new(Vec::new());
    let said = |now: ReadProgress| seen.lock().unwrap().push(now);
    let first = warm(&settings, dir.path(), None, HOUR, &NEVER, &said).unwrap();
    assert!(first.changed && first.read_bytes >= 10 * MIB as u64 && first.resident >= 0.999, "{first:?}");
    let last = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!((last.done, last.total), (first.bytes, first.bytes));

    assert_eq!(status(&settings, dir.path()).unwrap().missing, []);
    let second = warm(&settings, dir.path(), None, HOUR, &NEVER, &quiet).unwrap();
    assert!(!second.changed && second.read_bytes == 0 && second.resident_before >= 0.999, "{second:?}");
}

#[test]
fn a_shard_that_lacks_a_byte_is_found_and_named_and_nothing_is_read() {
    let dir = folder();
    model(dir.path(), MIB);
    let name = "model-00002-of-00002.safetensors";
    let path = dir.path().join(name);
    let whole = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(whole - 1).unwrap();
    let_go(dir.path());
    let settings = settings(dir.path());

    let refused = warm(&settings, dir.path(), None, HOUR, &NEVER, &quiet).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Invalid);
    assert!(refused.message.contains(&format!("{name} has ")), "{}", refused.message);
    assert!(refused.message.ends_with("1 byte is missing"), "{}", refused.message);
    let now = status(&settings, dir.path()).unwrap();
    assert!(!now.sound && now.resident < 0.2, "{now:?}");
    assert_eq!(now.flaws[0].file, name);
}

#[test]
fn what_an_index_promises_must_be_there() {
    let dir = folder();
    model(dir.path(), 64);
    fs::remove_file(dir.path().join("model-00001-of-00002.safetensors")).unwrap();
    let flaws = |dir: &Path| {
        let found = status(&settings(dir), dir).unwrap().flaws;
        found.into_iter().map(|flaw| format!("{} {}", flaw.file, flaw.what)).collect::<Vec<_>>()
    };
    assert_eq!(flaws(dir.path()), ["model-00001-of-00002.safetensors is in the index, but not there"]);

    shard(&dir.path().join("model-00001-of-00002.safetensors"), "other", 64);
    assert_eq!(
        flaws(dir.path()),
        ["model-00001-of-00002.safetensors lacks tensor \"a\" that the index promises (1 in all)"]
    );

    let index = json!({ "weight_map": { "a": "../../etc/passwd" } });
    fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert!(flaws(dir.path())[0].contains("which leads elsewhere"), "{:?}", flaws(dir.path()));

    fs::write(dir.path().join("model.safetensors.index.json"), "[").unwrap();
    assert!(flaws(dir.path())[0].contains("is no index of safetensors"));
}

/// A snapshot as the hub's client lays it out; the blobs' names are hashes.
fn hub(top: &Path) -> PathBuf {
    let model = top.join("models--acme--tiny");
    let snapshot = model.join("snapshots/abc123");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), "abc123").unwrap();
    let made = model.join("blobs/made");
    shard(&made, "a", 3 * MIB);
    let sum = sha256(&fs::read(&made).unwrap());
    fs::rename(&made, model.join("blobs").join(&sum)).unwrap();
    symlink(format!("../../blobs/{sum}"), snapshot.join("model.safetensors")).unwrap();
    model
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_snapshot_of_the_hub_is_followed_to_its_blobs_and_hashed_by_their_names() {
    let dir = folder();
    let model = hub(dir.path());
    let settings = settings(dir.path());
    let found = status(&settings, &model).unwrap();
    assert!(found.path.ends_with("snapshots/abc123") && found.files == 1 && found.sound, "{found:?}");

    let good = verify(&settings, &model, true, &NEVER, &quiet).unwrap();
    assert!(good.sound && good.hashed == 1, "{good:?}");

    let blob = fs::canonicalize(model.join("snapshots/abc123/model.safetensors")).unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&blob, bytes).unwrap();
    assert!(verify(&settings, &model, false, &NEVER, &quiet).unwrap().sound, "headers and sizes still fit");
    let bad = verify(&settings, &model, true, &NEVER, &quiet).unwrap();
    assert!(!bad.sound && bad.flaws[0].what.contains("and should have"), "{bad:?}");

    fs::remove_file(&blob).unwrap();
    let gone = status(&settings, &model).unwrap();
    assert_eq!(gone.flaws[0].what, "leads to a file that is not there");
}

#[test]
fn hashing_leaves_the_page_cache_as_it_was() {
    let dir = folder();
    shard(&dir.path().join("model.safetensors"), "a", 6 * MIB);
    let sum = sha256(&fs::read(dir.path().join("model.safetensors")).unwrap());
    fs::write(dir.path().join("SHA256SUMS"), format!("{sum}  ./model.safetensors\n")).unwrap();
    let_go(dir.path());
    let settings = settings(dir.path());
    let verified = verify(&settings, dir.path(), true, &NEVER, &quiet).unwrap();
    assert!(verified.sound && verified.hashed == 1, "{verified:?}");
    let after = status(&settings, dir.path()).unwrap();
    assert!(after.resident < 0.3, "{after:?}");
}

#[test]
fn nothing_outside_the_roots_is_opened_whatever_leads_there() {
    let dir = folder();
    let (inside, outside) = (dir.path().join("models"), dir.path().join("private"));
    model(&inside.join("m"), 64);
    shard(&outside.join("model.safetensors"), "a", 64);
    let settings = settings(&inside);
    let refused = |path: &Path| status(&settings, path).unwrap_err();

    for path in [&outside, &inside.join("m/../../private"), &inside.join("../private")] {
        let failure = refused(path);
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
        assert!(failure.message.contains("is outside the folders for models"), "{failure}");
    }
    // What is not there outside is refused in the same way as what is there.
    assert_eq!(refused(&dir.path().join("no-such")).kind, FailureKind::Refused);
    assert_eq!(refused(&inside.join("no-such")).kind, FailureKind::NotFound);
    assert_eq!(refused(Path::new("m")).kind, FailureKind::Invalid);

    symlink(&outside, inside.join("link")).unwrap();
    assert_eq!(refused(&inside.join("link")).kind, FailureKind::Refused);
    symlink(outside.join("model.safetensors"), inside.join("m/extra.bin")).unwrap();
    let failure = refused(&inside.join("m"));
    assert!(failure.kind == FailureKind::Refused && failure.message.contains("private/model.safetensors"), "{failure}");

    let nowhere = CacheSettings { roots: ModelRoots::default(), ..settings.clone() };
    assert!(status(&nowhere, &inside).unwrap_err().message.contains("no folder for models is configured"));
}

#[test]
fn a_pipe_or_a_device_is_no_model_and_makes_nobody_wait() {
    let dir = folder();
    let fifo = dir.path().join("model.safetensors");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let failure = status(&settings(dir.path()), dir.path()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound, "{failure}");
    symlink("/dev/zero", dir.path().join("zero.bin")).unwrap();
    let everywhere = settings(Path::new("/"));
    let failure = status(&everywhere, dir.path()).unwrap_err();
    assert!(failure.message.contains("no plain file"), "{failure}");
}

#[test]
fn residency_of_a_hundred_gibibytes_is_counted_within_a_second() {
    let dir = folder();
    let file = File::create(dir.path().join("model.bin")).unwrap();
    file.set_len(100 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).unwrap();
    let began = Instant::now();
    let counted = status(&settings(dir.path()), dir.path()).unwrap();
    let took = began.elapsed();
    assert_eq!((counted.bytes, counted.missing.len()), (100 << 30, 1));
    assert!(took <= Duration::from_secs(1), "{took:?} by {:?}", counted.by);
}

#[test]
fn a_warm_that_is_cut_off_goes_on_where_it_stopped() {
    let dir = folder();
    shard(&dir.path().join("model.safetensors"), "a", 40 * MIB);
    let_go(dir.path());
    let settings = settings(dir.path());
    let cancel = AtomicBool::new(false);
    let said = |now: ReadProgress| cancel.store(now.read >= 12 * MIB as u64, Ordering::Relaxed);
    let cut = warm(&settings, dir.path(), Some(40 * MIB as u64), HOUR, &cancel, &said).unwrap_err();
    assert!(cut.message.starts_with("it was cancelled at "), "{cut}");
    let half = status(&settings, dir.path()).unwrap().resident;
    assert!((0.2..0.95).contains(&half), "{half}");

    // Chunks that are wholly there are skipped; the two that were under way are read again.
    let rest = warm(&settings, dir.path(), None, HOUR, &NEVER, &quiet).unwrap();
    assert!(rest.changed && rest.resident >= 0.999, "{rest:?}");
    assert!((rest.resident_before - half).abs() < 0.01, "{rest:?}");
}

#[test]
fn a_throttle_holds_all_readers_together_and_time_that_is_up_ends_it() {
    let dir = folder();
    shard(&dir.path().join("model.safetensors"), "a", 8 * MIB);
    let_go(dir.path());
    let settings = settings(dir.path());
    let began = Instant::now();
    warm(&settings, dir.path(), Some(16 * MIB as u64), HOUR, &NEVER, &quiet).unwrap();
    // The first piece goes at once, so seven of eight wait for their turn.
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());

    let_go(dir.path());
    let late = warm(&settings, dir.path(), Some(MIB as u64), Duration::from_millis(300), &NEVER, &quiet).unwrap_err();
    assert_eq!(late.kind, FailureKind::Timeout);
    assert!(late.message.contains("the same call goes on from there"), "{late}");
}

/// A machine as its files under /proc and /sys describe it.
fn machine(files: &[(&str, String)]) -> (TempDir, MemoryProbe) {
    let top = folder();
    for (path, text) in files {
        let path = top.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let memory = MemoryProbe::under(top.path());
    (top, memory)
}

#[test]
fn a_model_that_does_not_fit_is_refused_before_anything_is_read() {
    let dir = folder();
    model(dir.path(), 8 * MIB);
    let_go(dir.path());
    let small = ("proc/meminfo", "MemAvailable: 81920 kB\n".to_owned());
    let large = ("proc/meminfo", "MemAvailable: 8192000 kB\n".to_owned());
    let group = [
        large.clone(),
        ("proc/self/cgroup", "0::/agent\n".to_owned()),
        ("sys/fs/cgroup/agent/memory.max", "8388608\n".to_owned()),
        ("sys/fs/cgroup/agent/memory.current", "1048576\n".to_owned()),
    ];
    for (files, why) in [(vec![small], "the machine has 80.0 MiB available"), (group.to_vec(), "control group /agent")]
    {
        let (_top, memory) = machine(&files);
        let settings = CacheSettings { memory, ..settings(dir.path()) };
        let refused = warm(&settings, dir.path(), None, HOUR, &NEVER, &quiet).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Refused);
        assert!(refused.message.contains(why), "{refused}");
        assert!(status(&settings, dir.path()).unwrap().resident < 0.1);
    }
}

#[test]
fn pressure_on_memory_holds_the_readers_back_until_it_is_over() {
    let dir = folder();
    shard(&dir.path().join("model.safetensors"), "a", 32 * MIB);
    let_go(dir.path());
    let pressure = |some: f64| format!("some avg10={some:.2} avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00\n");
    let (top, memory) =
        machine(&[("proc/meminfo", "MemAvailable: 8192000 kB\n".to_owned()), ("proc/pressure/memory", pressure(50.0))]);
    let settings = CacheSettings { memory, ..settings(dir.path()) };
    let waited = AtomicU64::new(0);
    let said = |now: ReadProgress| {
        if now.waits.is_some() && waited.fetch_add(1, Ordering::Relaxed) == 3 {
            fs::write(top.path().join("proc/pressure/memory"), pressure(0.0)).unwrap();
        }
    };
    // Slow enough that the first look at the pressure comes before the end.
    let warmed = warm(&settings, dir.path(), Some(16 * MIB as u64), HOUR, &NEVER, &said).unwrap();
    assert!(waited.load(Ordering::Relaxed) > 3 && warmed.resident >= 0.999, "{warmed:?}");
}

fn command(verb: &str, args: Value) -> AgentCommand {
    let Value::Object(args) = args else { panic!("{args}") };
    AgentCommand {
        run: RunId(1),
        step: 2,
        epoch: 1,
        verb: verb.to_owned(),
        args,
        deadline: jiff::Timestamp::MAX,
        incarnation: String::new(),
    }
}

fn machine_with(root: &Path) -> Machine {
    let cache = ModelCacheConfig { roots: vec![root.to_owned()], reserve_mib: 64, ..ModelCacheConfig::default() };
    Machine::here("gpu-1".to_owned(), Arc::new(AgentConfig { cache, ..AgentConfig::default() }))
}

async fn does(machine: &Machine, verb: &str, args: Value) -> Outcome {
    let answer = node::find(verb).unwrap().perform(machine, &command(verb, args), &|_| ()).await;
    match answer {
        CommandStatus::Ended { outcome } => outcome,
        working => panic!("{working:?}"),
    }
}

#[tokio::test]
async fn an_agent_warms_what_a_runbook_names_and_says_how_far_it_is() {
    let dir = folder();
    model(&dir.path().join("one"), 4 * MIB);
    shard(&dir.path().join("two/model.safetensors"), "a", MIB);
    let_go(dir.path());
    let machine = machine_with(dir.path());
    let one = dir.path().join("one").display().to_string();
    let two = dir.path().join("two").display().to_string();

    let said = Mutex::new(Vec::new());
    let asked =
        command("cache::warm", json!({ "models": [one, { "path": two, "model": "two" }, one], "node": "gpu-1" }));
    let answer = node::find("cache::warm").unwrap();
    let answer = answer.perform(&machine, &asked, &|now| said.lock().unwrap().push(now)).await;
    let CommandStatus::Ended { outcome: Outcome::Ok(value) } = answer else { panic!("{answer:?}") };
    assert_eq!((&value["changed"], value["models"].as_array().unwrap().len()), (&json!(true), 2));
    assert!(value["resident"].as_f64().unwrap() >= 0.999, "{value}");
    let last = said.lock().unwrap().last().cloned().unwrap_or_default();
    assert_eq!(last["percent"], 100, "{last}");

    let Outcome::Ok(value) = does(&machine, "cache::status", json!({ "path": two })).await else { panic!() };
    assert_eq!((&value["sound"], &value["resident"]), (&json!(true), &json!(1.0)));
    for (args, kind) in [
        (json!({ "path": "/etc" }), FailureKind::Refused),
        (json!({ "path": 7 }), FailureKind::Invalid),
        (json!({ "path": "/x\u{0}y" }), FailureKind::Invalid),
        (json!({}), FailureKind::Invalid),
    ] {
        let Outcome::Failed(failure) = does(&machine, "cache::verify", args.clone()).await else { panic!("{args}") };
        assert_eq!(failure.kind, kind, "{args}: {failure}");
    }
    let many: Vec<String> = (0..100).map(|at| format!("/models/{at}")).collect();
    for (models, within) in [(json!(many), "1m"), (json!(7), "1m"), (json!([{}]), "1m"), (json!(one), "soon")] {
        let args = json!({ "models": models, "within": within });
        let Outcome::Failed(failure) = does(&machine, "cache::warm", args).await else { panic!("{models}") };
        assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
    }
}

#[tokio::test]
async fn reading_stops_when_nobody_waits_for_the_answer() {
    let dir = folder();
    shard(&dir.path().join("model.safetensors"), "a", 32 * MIB);
    let_go(dir.path());
    let machine = machine_with(dir.path());
    let slow = command("cache::warm", json!({ "models": dir.path().display().to_string(), "mib_per_second": 1 }));
    let warming = node::find("cache::warm").unwrap();
    let cut = tokio::time::timeout(Duration::from_millis(300), warming.perform(&machine, &slow, &|_| ())).await;
    assert!(cut.is_err());
    // The next warm gets its turn at once, and finds nearly all of it unread.
    let fast = json!({ "models": dir.path().display().to_string() });
    let Outcome::Ok(value) = does(&machine, "cache::warm", fast).await else { panic!() };
    assert!(value["read_bytes"].as_u64().unwrap() >= 16 * MIB as u64, "{value}");
}

#[test]
fn the_command_line_warms_without_an_engine() {
    let dir = folder();
    let model = hub(dir.path());
    let_go(dir.path());
    let path = model.display().to_string();
    let metrics = dir.path().join("warm.prom").display().to_string();
    let report = dir.path().join("report.json").display().to_string();

    let cold = nightshift(&["cache", "status", &path, "-o", "json"]);
    let cold: Value = serde_json::from_slice(&cold.stdout).unwrap();
    assert!(cold["resident"].as_f64().unwrap() < 0.2, "{cold}");
    let warmed = nightshift(&["cache", "warm", &path, "--metrics", &metrics, "--report", &report]);
    let text = String::from_utf8_lossy(&warmed.stdout).into_owned();
    assert!(warmed.status.success() && text.contains("100.0 % in memory (before: "), "{text}{warmed:?}");
    let metrics = fs::read_to_string(metrics).unwrap();
    assert!(metrics.contains("nightshift_weight_cache_resident_ratio{path=\""), "{metrics}");
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!(report["changed"], true, "{report}");
    let again = nightshift(&["cache", "warm", &path]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("was in memory already"), "{again:?}");
    assert!(nightshift(&["cache", "verify", &path, "--hash"]).status.success());

    let blob = fs::canonicalize(model.join("snapshots/abc123/model.safetensors")).unwrap();
    File::options().write(true).open(blob).unwrap().set_len(3 * MIB as u64).unwrap();
    let broken = nightshift(&["cache", "verify", &path]);
    let text = String::from_utf8_lossy(&broken.stdout).into_owned();
    assert!(broken.status.code() == Some(1) && text.contains("flaw: model.safetensors has"), "{text}");
    let warmed = nightshift(&["cache", "warm", &path]);
    assert!(String::from_utf8_lossy(&warmed.stderr).contains("bytes are missing"), "{warmed:?}");
    let elsewhere = nightshift(&["cache", "status", &path, "--root", "/usr/share"]);
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("outside the folders for models"), "{elsewhere:?}");
    assert_eq!(nightshift(&["cache", "status", "/no/such/model"]).status.code(), Some(5));
}
