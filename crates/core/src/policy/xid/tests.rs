//! What the shipped table decides for each code, and what a site may change.

use super::*;
use crate::model::{EventStatus, Labels, Subject, Time};
use std::collections::BTreeMap;

fn judged(table: &XidTable, labels: &[(&str, &str)]) -> Event {
    let labels: Labels = labels.iter().copied().collect();
    let mut event = Event {
        source: "agents".to_owned(),
        fingerprint: "1".to_owned(),
        status: EventStatus::Firing,
        starts_at: Time::UNIX_EPOCH,
        ends_at: None,
        labels,
        annotations: Labels::default(),
        subject: Subject::default(),
        severity: Severity::Warning,
        summary: String::new(),
        url: String::new(),
    };
    table.judge(&mut event);
    event
}

/// `reset critical, driver`: what, how bad, and who says so.
fn says(labels: &[(&str, &str)]) -> String {
    let mut all = vec![("alertname", "GpuXid")];
    all.extend(labels);
    let event = judged(&XidTable::default(), &all);
    format!("{} {}, {}", event.labels.get("action"), event.severity, event.labels.get("action_by"))
}

#[test]
fn each_code_from_1_to_172_has_its_decision() {
    let mut by_decision: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for code in 1..=172_u32 {
        let text = code.to_string();
        by_decision.entry(says(&[("xid", &text)])).or_default().push(code);
        let event = judged(&XidTable::default(), &[("alertname", "GpuXid"), ("xid", &text)]);
        assert!(!event.labels.get("blames").is_empty(), "{code}");
    }
    let mut expected: BTreeMap<&str, Vec<u32>> = BTreeMap::from([
        ("none info, table", vec![14, 43, 45, 63, 106, 107, 108, 137, 162, 171, 172]),
        ("tell info, table", vec![37, 38, 44, 66, 67, 141, 152, 153, 160, 161]),
        ("tell error, table", vec![74, 144, 145, 146, 149, 154, 159, 167, 169]),
        (
            "restart-app warning, table",
            [
                &[
                    8, 11, 13, 25, 31, 32, 39, 40, 41, 60, 68, 69, 70, 71, 72, 75, 76, 77, 80, 82, 83, 84, 85, 86, 88,
                    89,
                ][..],
                &(96..=105).collect::<Vec<_>>(),
                &(126..=135).collect::<Vec<_>>(),
                &[139],
            ]
            .concat(),
        ),
        ("restart-app error, table", vec![94]),
        ("reset critical, table", vec![46, 48, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 150, 155, 156, 158]),
        ("reboot critical, table", vec![79, 151]),
        ("support error, table", vec![54]),
        ("support warning, table", vec![78, 142]),
    ]);
    // Unused or left blank by the catalogue, or a counter that people should hear of.
    let rest: Vec<u32> = (1..=172).filter(|code| !expected.values().any(|codes| codes.contains(code))).collect();
    for told in [92, 93, 121, 147, 148, 157, 163, 164, 165, 166, 168, 170] {
        assert!(rest.contains(&told), "{told}");
    }
    assert_eq!(rest.len(), 61 + 12, "61 codes are unused");
    expected.insert("tell warning, table", rest);
    let expected: BTreeMap<String, Vec<u32>> =
        expected.into_iter().map(|(key, codes)| (key.to_owned(), codes)).collect();
    assert_eq!(by_decision, expected);
    assert_eq!(says(&[("xid", "173")]), "tell warning, unknown", "nobody knows it, so nobody acts");
}

#[test]
fn what_the_driver_asks_for_outranks_the_code() {
    for (labels, expect) in [
        (&[("xid", "79"), ("recovery", "gpu-reset")][..], "reset critical, driver"),
        (&[("xid", "45"), ("recovery", "node-reboot")], "reboot critical, driver"),
        (&[("xid", "999"), ("recovery", "drain-and-reset")], "reset critical, driver"),
        (&[("xid", "95"), ("recovery", "none")], "reset critical, table"),
        (&[("xid", "154"), ("recovery", "unknown")], "tell error, driver"),
        (&[("recovery", "drain-p2p")], "drain error, driver"),
        (&[("recovery", "none")], "none info, driver"),
        (&[("recovery", "make-tea")], "tell warning, unknown"),
    ] {
        assert_eq!(says(labels), expect, "{labels:?}");
    }
}

#[test]
fn a_code_with_a_named_cause_is_only_its_echo() {
    assert_eq!(says(&[("xid", "45"), ("caused_by", "149")]), "none info, cause");
    assert_eq!(says(&[("xid", "95"), ("caused_by", "48")]), "none info, cause");
}

#[test]
fn the_bits_of_nvlink_5_decide_and_bits_that_nobody_knows_do_not() {
    let link = |xid: &str, unit: &str, subcode: &str, status: &str| {
        says(&[("xid", xid), ("unit", unit), ("subcode", subcode), ("status", status)])
    };
    for (xid, unit, subcode, status, expect) in [
        ("144", "SAW_MVB", "0", "0x00000002", "reset critical, bits"),
        ("144", "SAW_MVB", "0", "0x00000004", "none info, bits"),
        ("144", "SAW_MVB", "0", "0x00000008", "tell warning, bits"),
        ("145", "RLW_SRC_TRACK", "0", "0x00000008", "tell warning, bits"),
        ("145", "RLW_SRC_TRACK", "0", "0x00000001", "reset critical, bits"),
        ("145", "RLW_REMAP", "0", "0x00000001", "tell warning, bits"),
        ("145", "RLW_REMAP", "0", "0x00000041", "reset critical, bits"),
        ("145", "RLW_TAGSTATE", "0", "0x00100000", "reset critical, bits"),
        ("146", "TLW_RX_PIPE1", "0", "0x00000004", "reset critical, bits"),
        ("146", "TLW_TX", "0", "0x80000000", "none info, bits"),
        ("147", "TREX", "0", "0x00000001", "none info, bits"),
        ("148", "NVLPW", "0", "0x80000000", "none info, bits"),
        ("149", "NETIR_LINK_EVT", "37", "0x00000000", "reset critical, bits"),
        ("149", "NETIR_LINK_DOWN", "40", "0x00000000", "tell warning, bits"),
        ("149", "NETIR_LINK_EVT", "63", "0x00000000", "tell error, table"),
        ("149", "NETIR_BER_EVENT", "0", "0x00000001", "tell warning, bits"),
        ("149", "NETIR_MFDE_EVENT", "0", "0x00000003", "none info, bits"),
        ("149", "NETIR_MFDE_EVENT", "0", "0x00000007", "reset critical, bits"),
        ("149", "NETIR_MFDE_EVENT", "0", "0x00000002", "tell error, table"),
        ("149", "NETIR", "0", "0x00000000", "reset critical, bits"),
        ("150", "MSE_WATCHDOG", "0", "0x00000000", "reset critical, bits"),
        ("145", "RLW_NEW_BLOCK", "0", "0x00000001", "tell error, table"),
        ("145", "RLW_REMAP", "0", "nonsense", "tell error, table"),
    ] {
        assert_eq!(link(xid, unit, subcode, status), expect, "{xid} {unit} {subcode} {status}");
    }
}

#[test]
fn the_registers_of_xid_74_decide() {
    for (registers, expect) in [
        ("0x10 0x0 0x0 0x0 0x0 0x0 0x0", "tell error, bits"),
        ("0x100 0x0 0x0 0x0 0x0 0x0 0x0", "support error, bits"),
        ("0x2 0x0 0x0 0x0 0x0 0x0 0x0", "none info, bits"),
        ("0x102 0x0 0x0 0x0 0x0 0x0 0x0", "support error, bits"),
        ("0x0 0x0 0x0 0x40000 0x0 0x0 0x0", "support critical, bits"),
        ("0x0 0x0 0x0 0x0 0x100000 0x0 0x0", "none info, bits"),
        ("0x0 0xffffffff 0x0 0x0 0x0 0x0 0x0", "tell error, table"),
        ("0x0 0x0 0x10000 0x0 0x0 0x0 0x0", "tell error, table"),
        ("garbage", "tell error, table"),
    ] {
        assert_eq!(says(&[("xid", "74"), ("registers", registers)]), expect, "{registers}");
    }
}

#[test]
fn a_switch_goes_by_its_code_or_else_by_the_word() {
    let says = |sxid: &str, fatal: &str| says(&[("alertname", "NvSwitchSxid"), ("sxid", sxid), ("fatal", fatal)]);
    assert_eq!(says("20034", "yes"), "drain critical, word");
    assert_eq!(says("12028", "no"), "tell warning, word");
    assert_eq!(says("20034", ""), "tell warning, word");
    assert_eq!(says("23001", "yes"), "reboot critical, table");
    assert_eq!(says("28002", "no"), "none info, table");
}

#[test]
fn an_event_without_a_code_stays_as_it_is_and_a_foreign_name_keeps_its_severity() {
    let untouched = [("alertname", "NodeDown"), ("action", "x"), ("xid", "seventy-nine")];
    assert_eq!(judged(&XidTable::default(), &untouched).labels, untouched.into_iter().collect());
    let foreign = judged(&XidTable::default(), &[("alertname", "OurXidAlert"), ("xid", "79"), ("severity", "info")]);
    assert_eq!((foreign.labels.get("action"), foreign.labels.get("severity")), ("reboot", "info"));
    assert_eq!(foreign.severity, Severity::Warning);
    let ours = judged(&XidTable::default(), &[("alertname", "GpuXid"), ("xid", "79"), ("severity", "info")]);
    assert_eq!((ours.labels.get("severity"), ours.severity), ("critical", Severity::Critical));
}

#[test]
fn a_site_changes_what_it_names_and_nothing_else() {
    let table = XidTable::default();
    let site = table
        .overlaid("xid: {109: {action: tell}, 500: {severity: error, action: support}}\nunknown: {severity: info}\n")
        .unwrap();
    let says = |xid: &str| {
        let event = judged(&site, &[("alertname", "GpuXid"), ("xid", xid)]);
        format!("{} {} {}", event.labels.get("action"), event.severity, event.labels.get("xid_name"))
    };
    assert_eq!(says("109"), "tell critical CTXSW_TIMEOUT_ERROR");
    assert_eq!(says("500"), "support error ");
    assert_eq!(says("501"), "tell info ");
    assert_eq!(says("79"), "reboot critical GPU_HAS_FALLEN_OFF_THE_BUS");
    assert_eq!(table.overlaid("").unwrap(), table, "an empty file changes nothing");
}

#[test]
fn a_table_that_is_wrong_says_what_is_wrong() {
    for (text, expect) in [
        ("xid: {500: {action: tell}}", "xid 500: the shipped table does not have it"),
        ("xid: {79: {action: explode}}", "explode"),
        ("xid: {79: {acton: tell}}", "acton"),
        ("xids: {}", "xids"),
        ("recovery: {tea: {severity: info, action: none}}", "recovery `tea`"),
        ("bits: [{xid: 149, action: reset, severity: critical}]", "XID 149"),
        ("xid: [", ""),
    ] {
        let error = XidTable::default().overlaid(text).unwrap_err().to_string();
        assert!(error.contains(expect), "{text}: {error}");
    }
}
