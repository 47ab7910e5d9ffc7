//! Two witnesses, one event: in either order, in floods, over restarts and reboots.

use super::*;
use crate::model::GpuName;
use crate::node::sight::{recovery_finding, xid_finding};
use std::time::Duration;

fn at(millis: u64) -> Time {
    Time::UNIX_EPOCH + Duration::from_millis(millis)
}

fn join() -> FaultCorrelator {
    let mut join = FaultCorrelator::default();
    join.words_come(true);
    let gpu = GpuName { index: Some(2), uuid: "GPU-c".to_owned(), pci: "00000000:65:00.0".to_owned() };
    join.names().learn([gpu]);
    join
}

fn details(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn kernel(code: u32, pairs: &[(&str, &str)], now: u64) -> FaultObservation {
    let gpu = GpuName { pci: "0000:65:00.0".to_owned(), ..GpuName::default() };
    let finding = xid_finding(code, gpu, details(pairs), "words", at(now));
    FaultObservation::kernel(Finding { detail: "the line".to_owned(), ..finding })
}

fn nvml(code: u32, pairs: &[(&str, &str)], now: u64) -> FaultObservation {
    let gpu = GpuName { uuid: "GPU-c".to_owned(), ..GpuName::default() };
    FaultObservation::nvml(xid_finding(code, gpu, details(pairs), "", at(now)))
}

fn driver(wish: &str, now: u64) -> FaultObservation {
    let gpu = GpuName { index: Some(2), ..GpuName::default() };
    FaultObservation::nvml(recovery_finding(wish, gpu, BTreeMap::new(), at(now)))
}

/// What is said, in short.
fn words(said: &[Finding]) -> String {
    let one = |finding: &Finding| {
        let seen = finding.labels.get("seen").map(|seen| format!(" x{seen}")).unwrap_or_default();
        let end = if finding.status == EventStatus::Resolved { " over" } else { "" };
        format!("{}{seen}{end}", finding.complaint)
    };
    said.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[test]
fn the_first_witness_speaks_at_once_and_the_second_is_counted() {
    for (first, second) in [(kernel(79, &[], 0), nvml(79, &[], 40)), (nvml(79, &[], 0), kernel(79, &[], 40))] {
        let mut join = join();
        let said = join.hear(first, at(0));
        assert_eq!(words(&said), "xid-79 0000:65:00.0");
        assert_eq!(said[0].gpu.as_ref().unwrap().index, Some(2), "all names of the GPU are known");
        assert_eq!(join.hear(second, at(40)), []);
        let open = join.open().next().unwrap();
        assert_eq!((open.total, open.finding.detail.as_str()), (2, "the line"));
        assert_eq!(words(&join.tick(at(60_040))), "xid-79 0000:65:00.0 x2");
    }
}

#[test]
fn an_nvml_event_whose_meaning_is_in_the_kernels_words_waits_for_them_a_moment() {
    let mut join = join();
    assert_eq!(join.hear(nvml(13, &[("gi", "1")], 0), at(0)), []);
    assert_eq!(join.due(), Some(at(0) + limits::JOIN_WORDS.0));
    let said = join.hear(kernel(13, &[("gpc", "1"), ("tpc", "3")], 20), at(20));
    assert_eq!(words(&said), "xid-13 0000:65:00.0 x2");
    let label = |name: &str| said[0].labels.get(name).map(String::as_str);
    assert_eq!((label("gi"), label("gpc"), label("tpc")), (Some("1"), Some("1"), Some("3")));

    let mut alone = self::join();
    assert_eq!(alone.hear(nvml(45, &[], 0), at(0)), []);
    assert_eq!(words(&alone.tick(at(1_000))), "xid-45 0000:65:00.0", "the words did not come");
    let mut blind = self::join();
    blind.words_come(false);
    assert_eq!(words(&blind.hear(nvml(45, &[], 0), at(0))), "xid-45 0000:65:00.0", "nobody reads the kernel log");
}

#[test]
fn a_flood_is_one_complaint_and_its_number() {
    let mut join = join();
    let mut said = 0;
    for no in 0..100_000_u64 {
        said += join.hear(kernel(94, &[], no / 100), at(no / 100)).len();
    }
    assert_eq!(said, 1);
    assert_eq!(words(&join.tick(at(61_000))), "xid-94 0000:65:00.0 x100000");
    assert_eq!(join.tick(at(61_001)), []);
}

#[test]
fn what_an_application_did_is_over_when_it_is_quiet_and_may_begin_anew() {
    let mut join = join();
    let quiet = u64::try_from(limits::JOIN_QUIET.0.as_millis()).unwrap();
    join.hear(kernel(31, &[], 0), at(0));
    assert_eq!(join.tick(at(quiet - 1)), []);
    let said = join.tick(at(quiet));
    assert_eq!(words(&said), "xid-31 0000:65:00.0 over");
    assert!(said[0].summary.contains("not seen again for 3m"), "{}", said[0].summary);
    assert_eq!(words(&join.hear(kernel(31, &[], quiet + 1), at(quiet + 1))), "xid-31 0000:65:00.0");
}

#[test]
fn a_gpu_that_is_ill_stays_so_until_the_driver_is_content() {
    let mut join = join();
    join.hear(kernel(79, &[], 0), at(0));
    join.hear(kernel(94, &[], 0), at(0));
    assert_eq!(words(&join.hear(driver("drain-and-reset", 300), at(300))), "recovery-action 0000:65:00.0");
    assert_eq!(join.hear(driver("drain-and-reset", 400), at(400)), [], "the poll and the kernel are one");
    let more = join.hear(driver("node-reboot", 500), at(500));
    assert_eq!(words(&more), "recovery-action 0000:65:00.0 x3", "it wants more than it said");
    let day = 86_400_000;
    let said = words(&join.tick(at(day)));
    assert_eq!(said, "recovery-action 0000:65:00.0 x3; xid-79 0000:65:00.0; xid-94 0000:65:00.0 over");
    let said = words(&join.hear(driver("none", day + 1), at(day + 1)));
    assert_eq!(said, "recovery-action 0000:65:00.0 x3 over; xid-79 0000:65:00.0 over");
    assert_eq!(join.open().count(), 0);
    assert_eq!(join.hear(driver("none", day + 2), at(day + 2)), [], "nothing to end");
}

#[test]
fn a_reset_ends_what_was_wrong_with_that_gpu_and_no_other() {
    let mut join = join();
    join.hear(kernel(119, &[], 0), at(0));
    let mut other = kernel(119, &[], 0);
    other.finding.gpu = Some(GpuName { pci: "0000:b3:00.0".to_owned(), ..GpuName::default() });
    join.hear(other, at(0));
    assert_eq!(words(&join.healed("GPU-c", "it was reset", at(9))), "xid-119 0000:65:00.0 over");
    assert_eq!(join.open().count(), 1);
}

#[test]
fn a_restart_goes_on_and_a_reboot_ends_everything() {
    let mut before = join();
    before.hear(kernel(79, &[], 0), at(0));
    before.hear(nvml(45, &[], 0), at(0));
    let kept: Vec<OpenCondition> =
        serde_json::from_str(&serde_json::to_string(&before.open().collect::<Vec<_>>()).unwrap()).unwrap();
    let (mut again, said) = FaultCorrelator::restore(kept.clone(), false, at(10));
    assert_eq!(words(&said), "xid-79 0000:65:00.0", "said again: nobody knows whether it was heard");
    assert_eq!(again.hear(kernel(79, &[], 20), at(20)), [], "still the same fault");
    let (join, said) = FaultCorrelator::restore(kept, true, at(10));
    assert_eq!(words(&said), "xid-79 0000:65:00.0 over", "what was never said needs no end");
    assert_eq!(join.open().count(), 0);
}

#[test]
fn more_complaints_than_a_node_can_have_push_out_the_oldest_visibly() {
    let mut join = join();
    for code in 1..=u32::try_from(limits::COMPLAINTS_PER_NODE).unwrap() {
        join.hear(kernel(1_000 + code, &[], u64::from(code)), at(u64::from(code)));
    }
    let said = words(&join.hear(kernel(9, &[], 9_999), at(9_999)));
    assert_eq!(said, "xid-1001 0000:65:00.0 over; xid-9 0000:65:00.0");
    assert_eq!(join.open().count(), limits::COMPLAINTS_PER_NODE);
}

/// What a poll of NVML sees, under the name that the poll gives it.
fn poll(alertname: &str, key: &str, now: u64) -> FaultObservation {
    let finding = nvml(1, &[], now).finding;
    let labels = details(&[("alertname", alertname), ("action", "reset")]);
    FaultObservation::nvml(Finding { labels, complaint: format!("{key} GPU-c"), ..finding })
}

fn over(mut sight: FaultObservation) -> FaultObservation {
    sight.finding.status = EventStatus::Resolved;
    sight
}

#[test]
fn a_gpu_that_is_gone_is_one_complaint_for_the_driver_and_for_the_polls() {
    let lost = |now| poll("GpuLost", "gpu-lost", now);
    // The driver first.
    let mut join = join();
    assert_eq!(words(&join.hear(kernel(79, &[], 0), at(0))), "xid-79 0000:65:00.0");
    assert_eq!(join.hear(lost(900), at(900)), [], "counted");
    let open = join.open().next().unwrap();
    assert_eq!((open.total, open.finding.labels["alertname"].as_str()), (2, "GpuXid"));
    assert!(!open.finding.labels.contains_key("action"), "what an XID calls for is the table's to say");
    assert_eq!(words(&join.hear(over(lost(9_000)), at(9_000))), "xid-79 0000:65:00.0 x2 over", "NVML reaches it again");
    assert_eq!(join.open().count(), 0);

    // The poll first, within the moment that it waits.
    let mut join = self::join();
    assert_eq!(join.hear(lost(0), at(0)), []);
    assert_eq!(words(&join.hear(kernel(79, &[], 200), at(200))), "xid-79 0000:65:00.0 x2");
    assert_eq!(join.tick(at(1_000)), []);
    assert_eq!(words(&join.hear(over(lost(9_000)), at(9_000))), "xid-79 0000:65:00.0 x2 over");

    // Nobody else speaks of it: it is told as what it is.
    let mut join = self::join();
    assert_eq!(join.hear(lost(0), at(0)), []);
    let said = join.tick(at(300));
    assert_eq!((words(&said).as_str(), said[0].labels["alertname"].as_str()), ("gpu-lost 0000:65:00.0", "GpuLost"));
    assert_eq!(words(&join.hear(kernel(79, &[], 60_000), at(60_000))), "xid-79 0000:65:00.0", "another moment");
    assert_eq!(words(&join.hear(over(lost(90_000)), at(90_000))), "gpu-lost 0000:65:00.0 over");
    // Of another GPU: another fault.
    let mut other = kernel(79, &[], 0);
    other.finding.gpu = Some(GpuName { pci: "0000:b3:00.0".to_owned(), ..GpuName::default() });
    let mut join = self::join();
    join.hear(lost(0), at(0));
    assert_eq!(words(&join.hear(other, at(100))), "xid-79 0000:b3:00.0");
}

#[test]
fn a_row_that_is_to_be_remapped_lasts_until_the_polls_say_that_it_is() {
    let pending = |now| poll("GpuRowRemapPending", "row-remap-pending", now);
    let mut join = join();
    assert_eq!(words(&join.hear(kernel(63, &[], 0), at(0))), "xid-63 0000:65:00.0");
    assert_eq!(join.hear(pending(500), at(500)), []);
    let kept: Vec<OpenCondition> =
        serde_json::from_str(&serde_json::to_string(&join.open().collect::<Vec<_>>()).unwrap()).unwrap();
    let (mut join, _) = FaultCorrelator::restore(kept, false, at(1_000));
    let day = 86_400_000;
    assert_eq!(words(&join.tick(at(day))), "xid-63 0000:65:00.0 x2", "silence does not end it");
    let mut end = over(pending(day));
    // A name by which the GPU was known before the restart.
    end.finding.gpu = Some(GpuName { pci: "0000:65:00.0".to_owned(), ..GpuName::default() });
    assert_eq!(words(&join.hear(end, at(day))), "xid-63 0000:65:00.0 x2 over");
}

#[test]
fn an_address_that_nvml_does_not_know_is_told_with_the_doubt_each_for_itself() {
    let mut join = join();
    let mut said = Vec::new();
    for bus in 0..28_u32 {
        let mut sight = kernel(if bus % 2 == 0 { 79 } else { 31 }, &[], 0);
        sight.finding.gpu = Some(GpuName { pci: format!("a0b0:{bus:02x}:1d.0"), ..GpuName::default() });
        said.extend(join.hear(sight, at(u64::from(bus))));
    }
    assert_eq!(said.len(), 28, "none is swallowed");
    for finding in &said {
        let place = &finding.gpu.as_ref().unwrap().pci;
        assert!(finding.complaint.ends_with(place.as_str()) && finding.summary.ends_with("(NVML lists no GPU there)"));
        assert_eq!(finding.labels["gpu_known"], "no");
    }
    assert!(!join.hear(kernel(31, &[], 99), at(99))[0].labels.contains_key("gpu_known"));
}

#[test]
fn a_list_of_gpus_that_comes_later_than_the_fault_gives_it_a_name_or_the_doubt() {
    let mut join = FaultCorrelator::default();
    let at_address = |pci: &str, now: u64| {
        let mut sight = kernel(79, &[], now);
        sight.finding.gpu = Some(GpuName { pci: pci.to_owned(), ..GpuName::default() });
        sight
    };
    // The kernel log is heard before NVML has told which GPUs there are: nothing to doubt, and nothing is swallowed.
    let (known, stranger) = ("0000:65:00.0", "a0b0:0c:1d.0");
    for (number, pci) in [known, stranger].into_iter().enumerate() {
        let said = join.hear(at_address(pci, 0), at(number as u64));
        assert_eq!((said.len(), said[0].labels.get("gpu_known")), (1, None), "{said:?}");
    }
    let uuid = "GPU-65".to_owned();
    join.names().learn([GpuName { index: Some(3), uuid: uuid.clone(), pci: known.to_owned() }]);
    for pci in [known, stranger] {
        assert!(join.hear(at_address(pci, 1_000), at(1_000)).is_empty(), "the same complaint, which is counted");
    }
    let said = join.tick(at(120_000));
    assert_eq!(said.len(), 2, "{said:?}");
    let of = |pci: &str| said.iter().find(|finding| finding.complaint == format!("xid-79 {pci}")).unwrap();
    let gpu = of(known).gpu.as_ref().unwrap();
    assert_eq!((gpu.index, &gpu.uuid, of(known).labels.get("gpu_known")), (Some(3), &uuid, None));
    assert_eq!(of(stranger).labels["gpu_known"], "no");
    assert!(of(stranger).summary.ends_with("(seen 2 times) (NVML lists no GPU there)"), "{}", of(stranger).summary);
    // And one that was doubted is not any more, once NVML knows it: a GPU that was lost when the list was made.
    join.names().learn([GpuName { index: Some(4), uuid: String::new(), pci: stranger.to_owned() }]);
    assert!(join.hear(at_address(stranger, 121_000), at(121_000)).is_empty());
    let again = join.tick(at(240_000));
    let [again] = again.as_slice() else { panic!("{again:?}") };
    assert_eq!((again.labels.get("gpu_known"), again.gpu.as_ref().unwrap().index), (None, Some(4)), "{again:?}");
}
