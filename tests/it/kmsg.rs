//! The kernel log as the agent follows it: through a FIFO and a file as a test may write them, and through the machine's
//! own `/dev/kmsg` where we may write it.
//!
//! Invariant: the test of the real log looks only at lines with an address that no machine has, and that it wrote itself.

use nightshift::clock::SimClock;
use nightshift::config::AgentConfig;
use nightshift::model::{EventStatus, Finding, GpuName, Time};
use nightshift::node::{
    FaultObservation, FaultTracker, KMSG, KernelLog, KernelLogRead, Machine, NodeClock, follow, xid_finding,
};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn clock() -> NodeClock {
    NodeClock::default()
}

fn complaints(pass: &KernelLogRead) -> Vec<(String, u64)> {
    pass.sights.iter().map(|sight| (sight.finding.complaint.clone(), sight.times)).collect()
}

/// Passes until something is said.
fn next(log: &mut KernelLog) -> KernelLogRead {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let pass = log.pass(Duration::from_millis(50)).unwrap();
        if !pass.sights.is_empty() {
            return pass;
        }
    }
    panic!("nothing was heard for {PATIENCE:?}");
}

#[test]
fn a_fault_written_to_a_fifo_is_heard_with_all_that_belongs_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsg");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut log = KernelLog::open(&path, None, &clock()).unwrap();
    let mut fifo = OpenOptions::new().write(true).open(&path).unwrap();
    writeln!(fifo, "6,10,1000,-;NVRM: GPU at PCI:0000:65:00: GPU-455d8f70-37f5-f0f9-9d8b-9bf0e2fd0dd5").unwrap();
    writeln!(
        fifo,
        "3,11,1001,-;NVRM: Xid (PCI:0000:65:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
    )
    .unwrap();
    writeln!(fifo, " SUBSYSTEM=pci\n DEVICE=+pci:0000:65:00.0").unwrap();
    writeln!(fifo, "3,12,1002,-;NVRM: GPU 0000:65:00.0: GPU has fallen off the bus.").unwrap();
    writeln!(fifo, "3,13,1003,-;NVRM: The NVIDIA GPU 0000:b3:00.0\\x0aNVRM: (PCI ID: 10de:2330) installed in this system has\\x0aNVRM: fallen off the bus and is not responding to commands.").unwrap();
    let pass = next(&mut log);
    assert_eq!(complaints(&pass), [("xid-79 0000:65:00.0".to_owned(), 2), ("xid-79 0000:b3:00.0".to_owned(), 1)]);
    assert_eq!(pass.names[0].uuid, "GPU-455d8f70-37f5-f0f9-9d8b-9bf0e2fd0dd5");
    assert_eq!(pass.last, Some(13));
    let finding = &pass.sights[0].finding;
    assert_eq!(finding.labels["xid"], "79");
    assert!(finding.detail.starts_with("NVRM: Xid (PCI:0000:65:00): 79"), "{}", finding.detail);
    assert!(finding.summary.contains("GPU has fallen off the bus"), "{}", finding.summary);

    // Three lines of one fault of a switch; the verdict is not in the first.
    writeln!(fifo, "3,14,1,-;nvidia-nvswitch2: SXid (PCI:0000:c7:00.0): 20034, Data {{0x50610002, 0x10100030}}")
        .unwrap();
    writeln!(fifo, "3,15,1,-;nvidia-nvswitch2: SXid (PCI:0000:c7:00.0): 20034, Fatal, Link 63 LTSSM Fault Up").unwrap();
    writeln!(fifo, "3,16,1,-;nvidia-nvswitch2: SXid (PCI:0000:c7:00.0): 20034, Severity 1 Engine instance 60").unwrap();
    let pass = next(&mut log);
    assert_eq!(complaints(&pass), [("sxid-20034 0000:c7:00.0".to_owned(), 3)]);
    assert_eq!((&*pass.sights[0].finding.labels["fatal"], &*pass.sights[0].finding.labels["link"]), ("yes", "63"));
}

#[test]
fn what_was_lost_and_what_cannot_be_read_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut text = Vec::new();
    text.extend_from_slice(b"6,5,1,-;usb 1-1: new high-speed USB device\n6,9,1,-;NVRM: Xid (PCI:00zz:65:00): 79\n");
    text.extend_from_slice(
        b"6,10,1,-;NVRM: Xid (PCI:0000:\xff\xfe\n\x00\x01;;;,,,\n6,11\n6,12,1,-;NVRM: fallen off the bus\n",
    );
    std::fs::write(&path, text).unwrap();
    let mut log = KernelLog::open(&path, Some(2), &clock()).unwrap();
    let pass = next(&mut log);
    assert_eq!(complaints(&pass), [("kernel-log-lost".to_owned(), 2 + 3 + 1), ("kernel-line-unread".to_owned(), 3)]);
    assert!(pass.sights[1].finding.detail.contains("00zz"), "{:?}", pass.sights[1]);
    assert_eq!(pass.last, Some(12));
}

/// The agent keeps its own time beside a wall clock that was set, and a fault of the log has that time, as one of NVML has.
#[test]
fn a_fault_of_the_kernel_log_has_the_agents_time_and_not_that_of_a_clock_that_was_set() {
    let folder = tempfile::tempdir().unwrap();
    let (path, missing) = (folder.path().join("log"), folder.path().join("missing"));
    std::fs::write(&path, "3,1,1,-;NVRM: Xid (PCI:0000:65:00): 79, words\n").unwrap();
    let start: Time = "2026-11-23T03:00:00Z".parse().unwrap();
    let sim = Arc::new(SimClock::new(start));
    let clock = NodeClock::of(sim.clone());
    sim.jump(start + Duration::from_secs(400 * 86_400));
    sim.advance(Duration::from_secs(2));
    let pass = next(&mut KernelLog::open(&path, None, &clock).unwrap());
    assert_eq!(pass.sights[0].finding.at, start + Duration::from_secs(2));
    let mut at = Vec::new();
    follow(&missing, None, &clock, |pass| {
        at.extend(pass.sights.iter().map(|sight| sight.finding.at));
        false
    });
    assert_eq!(at, [start + Duration::from_secs(2)]);
}

#[test]
fn a_log_that_is_not_there_is_a_complaint_and_is_followed_once_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later");
    let (tell, told) = mpsc::sync_channel::<KernelLogRead>(1);
    let follower = std::thread::spawn({
        let path = path.clone();
        move || follow(&path, None, &clock(), |pass| tell.send(pass).is_ok())
    });
    let pass = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(complaints(&pass), [("kernel-log-unreadable".to_owned(), 1)]);
    assert!(pass.sights[0].finding.summary.contains("CAP_SYSLOG"), "{}", pass.sights[0].finding.summary);
    std::fs::write(&path, "6,1,1,-;NVRM: Xid (PCI:0000:65:00): 79\n").unwrap();
    let pass = told.recv_timeout(Duration::from_secs(60)).unwrap();
    let said: Vec<(&str, EventStatus)> =
        pass.sights.iter().map(|sight| (sight.finding.complaint.as_str(), sight.finding.status)).collect();
    assert_eq!(said, [("kernel-log-unreadable", EventStatus::Resolved), ("xid-79 0000:65:00.0", EventStatus::Firing)]);
    drop(told);
    follower.join().unwrap();
}

/// Hears sights as the agent does, and says them in short.
fn hear(faults: &FaultTracker, sights: Vec<FaultObservation>) -> Vec<String> {
    let said: Vec<Finding> = sights.into_iter().flat_map(|sight| faults.hear(sight, Time::now())).collect();
    said.into_iter().map(|finding| finding.complaint).collect()
}

#[test]
fn a_restart_says_again_what_is_open_and_misses_nothing_and_a_new_boot_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (log_path, memory) = (folder.path().join("log"), folder.path().join("memory.json"));
    let line = |seq: u32, code: u32| format!("3,{seq},1,-;NVRM: Xid (PCI:0000:65:00): {code}, pid=1, name=x, words\n");
    std::fs::write(&log_path, line(1, 79) + &line(2, 94)).unwrap();

    let faults = FaultTracker::open(&memory, "boot-1", Time::now());
    assert!(faults.tick(Time::now()).is_empty() && faults.last().is_none());
    let pass = next(&mut KernelLog::open(&log_path, faults.last(), &clock()).unwrap());
    assert_eq!(hear(&faults, pass.sights), ["xid-79 0000:65:00.0", "xid-94 0000:65:00.0"]);
    faults.commit(pass.last).unwrap();
    drop(faults);

    let mut more = OpenOptions::new().append(true).open(&log_path).unwrap();
    more.write_all((line(3, 79) + &line(4, 95)).as_bytes()).unwrap();
    let faults = FaultTracker::open(&memory, "boot-1", Time::now());
    let again = faults.tick(Time::now());
    let again: Vec<_> = again.iter().map(|finding| (finding.complaint.as_str(), finding.status)).collect();
    assert_eq!(again, [("xid-79 0000:65:00.0", EventStatus::Firing), ("xid-94 0000:65:00.0", EventStatus::Firing)]);
    assert!(faults.tick(Time::now()).is_empty(), "once");
    assert_eq!(faults.last(), Some(2));
    let pass = next(&mut KernelLog::open(&log_path, faults.last(), &clock()).unwrap());
    assert_eq!(pass.records, 2, "the first two were read before");
    assert_eq!(hear(&faults, pass.sights), ["xid-95 0000:65:00.0"], "the 79 is the one that is known");
    faults.commit(pass.last).unwrap();
    drop(faults);

    let faults = FaultTracker::open(&memory, "boot-2", Time::now());
    let ended = faults.tick(Time::now());
    let ended: Vec<&str> = ended.iter().map(|finding| finding.complaint.as_str()).collect();
    assert_eq!(ended, ["xid-79 0000:65:00.0", "xid-94 0000:65:00.0", "xid-95 0000:65:00.0"]);
    assert_eq!(faults.last(), None, "numbers begin anew");
    drop(faults);

    std::fs::write(&memory, "{\"boot\": \"boot-2\", \"la").unwrap();
    let faults = FaultTracker::open(&memory, "boot-2", Time::now());
    assert!(faults.tick(Time::now()).is_empty() && faults.last().is_none(), "a torn memory repeats rather than misses");
}

async fn heard(said: &mut tokio::sync::mpsc::Receiver<Finding>) -> Finding {
    tokio::time::timeout(PATIENCE, said.recv()).await.expect("it is said in time").expect("the watcher goes on")
}

#[tokio::test]
async fn the_watcher_sends_what_it_hears_within_a_moment_and_remembers_it_once_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsg");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let settings =
        AgentConfig { data_dir: folder.path().to_owned(), kernel_log: path.clone(), ..AgentConfig::default() };
    let machine = Machine::here("gpu-1".to_owned(), settings.into());
    let watcher = nightshift::node::watchers().find(|watcher| watcher.name() == "kmsg").unwrap();
    let (out, mut said) = tokio::sync::mpsc::channel(4);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let watching = tokio::spawn({
        let machine = machine.clone();
        async move { watcher.watch(&machine, out, stopped).await }
    });
    let mut fifo = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    writeln!(fifo, "3,7,1,-;NVRM: Xid (PCI:0000:65:00): 79, pid=1, name=x, GPU has fallen off the bus").unwrap();
    assert_eq!(heard(&mut said).await.complaint, "xid-79 0000:65:00.0");
    // What NVML saw of the same fault says nothing new; what it alone saw waits for the kernel's words, and then does.
    let nvml = |code| {
        FaultObservation::nvml(xid_finding(
            code,
            GpuName { pci: "0000:65:00.0".to_owned(), ..GpuName::default() },
            BTreeMap::new(),
            "",
            Time::now(),
        ))
    };
    assert!(machine.faults.hear(nvml(79), Time::now()).is_empty());
    assert!(machine.faults.hear(nvml(45), Time::now()).is_empty());
    assert_eq!(heard(&mut said).await.complaint, "xid-45 0000:65:00.0");
    machine.faults.healed("0000:65:00.0", "it was reset", Time::now());
    for over in [heard(&mut said).await, heard(&mut said).await] {
        assert_eq!((over.status, over.complaint.starts_with("xid-")), (EventStatus::Resolved, true));
    }
    let memory = folder.path().join("faults.json");
    crate::harness::eventually("the place in the log is remembered", async || {
        std::fs::read_to_string(&memory).ok().filter(|text| text.contains("\"last\":7"))
    })
    .await;
    stop.send(true).unwrap();
    tokio::time::timeout(PATIENCE, watching).await.unwrap().unwrap();
}

/// The kernel takes ten lines of one opening within five seconds, and shows a line only when its end is written.
fn say(lines: &[String]) -> std::io::Result<()> {
    for line in lines {
        File::options().write(true).open(KMSG)?.write_all(line.as_bytes())?;
    }
    Ok(())
}

#[test]
fn a_fault_in_the_machines_own_kernel_log_is_heard_once_and_with_its_time() {
    // A PCI domain for this test alone; machines count theirs from zero.
    let place = format!("{:04x}:fe:1d", 0xa000 | (std::process::id() & 0xfff));
    let complaint = |code: u32| format!("xid-{code} {place}.0");
    let before = Time::now();
    if let Err(error) =
        say(&[format!("<3>NVRM: Xid (PCI:{place}): 119, pid=1, name=x, Timeout after 6s of waiting for RPC\n")])
    {
        assert!(
            !rustix::process::geteuid().is_root() || !Path::new(KMSG).exists(),
            "root cannot write {KMSG}: {error}"
        );
        eprintln!("{KMSG} is not ours to write ({error}): the other tests use files");
        return;
    }
    let ours = |pass: &KernelLogRead, code: u32| {
        pass.sights.iter().find(|sight| sight.finding.complaint == complaint(code)).cloned()
    };
    let until = |log: &mut KernelLog, code: u32| {
        let give_up = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while Instant::now() < give_up {
            let pass = log.pass(Duration::from_millis(100)).unwrap();
            seen.extend(pass.sights.iter().map(|sight| sight.finding.complaint.clone()));
            if let Some(sight) = ours(&pass, code) {
                return (sight, pass.last, seen);
            }
        }
        panic!("{} was not heard within {PATIENCE:?}; heard: {seen:?}", complaint(code));
    };
    let mut log = KernelLog::open(Path::new(KMSG), None, &clock()).unwrap();
    let (sight, last, _) = until(&mut log, 119);
    assert_eq!(sight.finding.labels["process"], "x");
    let off = sight.finding.at.as_millisecond() - before.as_millisecond();
    assert!((-2_000..20_000).contains(&off), "its time is {off} ms off");
    assert!(last.is_some());

    // Another run of the agent goes on behind what was read.
    drop(log);
    say(&[format!("<3>NVRM: GPU {place}.0: GPU has fallen off the bus.\n")]).unwrap();
    let (_, _, seen) = until(&mut KernelLog::open(Path::new(KMSG), last, &clock()).unwrap(), 79);
    assert!(!seen.contains(&complaint(119)), "{seen:?}");
}
