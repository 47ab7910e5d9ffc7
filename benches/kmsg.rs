//! A burst of 100,000 lines of the kernel log: what it costs the agent, and whether a loss goes unseen.
//!
//! Invariant: what is counted as read and what is reported as lost add up to what was written; else the bench panics.

use nightshift::model::{Finding, GpuName, Time};
use nightshift::node::{FaultTracker, KMSG, KernelLog, NodeClock};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LINES: u64 = 100_000;

fn main() {
    let folder = tempfile::tempdir().expect("a folder for the log");
    file(&folder.path().join("kmsg"));
    match File::options().write(true).open(KMSG) {
        Ok(_) => [false, true].into_iter().for_each(device),
        Err(error) => println!("{KMSG} cannot be written ({error}): the burst through the kernel is left out"),
    }
}

/// One of eight GPUs, with the codes of a bad minute, and noise of other drivers between.
fn line(no: u64) -> String {
    let gpu = no % 8;
    match no % 5 {
        0 => format!(
            "NVRM: Xid (PCI:0000:{gpu:02x}:1e): 94, pid={no}, name=python3, Contained: SM (0x1). RST: No, D-RST: No"
        ),
        1 => format!(
            "NVRM: Xid (PCI:0000:{gpu:02x}:1e): 13, pid={no}, name=python3, Graphics SM Warp Exception on (GPC 1, TPC 3, SM 0): Out Of Range Address"
        ),
        2 => format!(
            "NVRM: Xid (PCI:0000:{gpu:02x}:1e): 45, pid={no}, name=python3, Ch 00000001 caused by previous Xid 94"
        ),
        3 => format!(
            "nvidia-nvswitch{gpu}: SXid (PCI:0000:{gpu:02x}:1f.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)"
        ),
        _ => format!("usb 1-{gpu}: new high-speed USB device number {no} using xhci_hcd"),
    }
}

struct Cost {
    cpu: Duration,
    wall: Duration,
    grown_kib: i64,
}

/// Reads until `records + lost` is as many as were written since `from`, and joins as the agent does.
fn read(
    log: &mut KernelLog,
    faults: &FaultTracker,
    all: u64,
    more: impl Fn() -> bool,
) -> (u64, u64, Vec<Finding>, Cost) {
    let (mut records, mut lost, mut said) = (0, 0, Vec::new());
    let (began, memory) = (Instant::now(), resident_kib());
    let cpu = thread_cpu();
    let (mut peak, mut quiet) = (memory, 0);
    while records + lost < all && quiet < 20 {
        let pass = log.pass(Duration::from_millis(50)).expect("the log is read");
        records += pass.records;
        let now = Time::now();
        for sight in pass.sights {
            if sight.finding.complaint == "kernel-log-lost" {
                lost += sight.times;
            }
            said.extend(faults.hear(sight, now));
        }
        peak = peak.max(resident_kib());
        quiet = if pass.records > 0 || more() { 0 } else { quiet + 1 };
    }
    let cost = Cost { cpu: thread_cpu() - cpu, wall: began.elapsed(), grown_kib: peak - memory };
    (records, lost, said, cost)
}

fn file(path: &Path) {
    let mut text = String::new();
    for no in 0..LINES {
        text += &format!("3,{no},{},-;{}\n", no * 10, line(no));
    }
    std::fs::write(path, &text).expect("the log is written");
    drop(text);
    let (records, lost, said, cost) = read(
        &mut KernelLog::open(path, None, &NodeClock::default()).expect("the log is there"),
        &FaultTracker::default(),
        LINES,
        || false,
    );
    assert_eq!((records, lost), (LINES, 0));
    tell("a file of 100,000 lines", records, lost, &said, &cost);
}

/// As fast as the kernel takes it. `late`: nobody reads until all is written, so that the kernel's ring overflows.
fn device(late: bool) {
    let mut log = KernelLog::open(Path::new(KMSG), None, &NodeClock::default()).expect("the kernel log is readable");
    while log.pass(Duration::ZERO).expect("the log is read").records > 0 {}
    let (done, faults) = (AtomicBool::new(false), FaultTracker::default());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for no in 0..LINES {
                // Ten lines of one opening within five seconds are what the kernel takes, so each has its own.
                let written = File::options().write(true).open(KMSG);
                let written = written.and_then(|mut log| log.write_all(format!("<6>{}\n", line(no)).as_bytes()));
                written.expect("the line is written");
            }
            done.store(true, Ordering::Release);
        });
        if late {
            writer.join().expect("all is written");
        }
        // Somebody else's lines count as well, so there may be more than were written here.
        let (records, lost, said, cost) = read(&mut log, &faults, LINES, || !done.load(Ordering::Acquire));
        assert!(records + lost >= LINES, "{records} read and {lost} lost are less than {LINES}: a loss went unseen");
        let told = said.iter().filter(|finding| finding.complaint == "kernel-log-lost").count();
        assert_eq!(told > 0, lost > 0, "a loss is told");
        assert!(!late || lost > 0, "the ring held {LINES} lines");
        let what = if late { "read when all was written" } else { "read meanwhile" };
        tell(&format!("{KMSG}, written as fast as it takes them, {what}"), records, lost, &said, &cost);
    });
    let nvml = nightshift::node::FaultObservation::nvml(nightshift::node::xid_finding(
        94,
        GpuName { pci: "0000:00:1e.0".to_owned(), ..GpuName::default() },
        std::collections::BTreeMap::new(),
        "",
        Time::now(),
    ));
    assert!(faults.hear(nvml, Time::now()).is_empty(), "what NVML saw of the same fault says nothing new");
}

fn tell(what: &str, records: u64, lost: u64, said: &[Finding], cost: &Cost) {
    println!(
        "{what}: {records} read, {lost} lost and said so, {} findings sent; {:.3} s of CPU in {:.3} s, memory grew by {} KiB",
        said.len(),
        cost.cpu.as_secs_f64(),
        cost.wall.as_secs_f64(),
        cost.grown_kib
    );
    assert!(cost.cpu <= Duration::from_secs(1), "more than a second of CPU");
}

fn thread_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn resident_kib() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok()).map_or(0, |pages| pages * 4)
}
