//! Every shape of line that the driver is known to write, and shapes that must not be taken for one.

use super::*;
use std::fmt::Write;

/// A line as a short text: what it is, where, and its details.
fn told(line: &str) -> String {
    match read(line) {
        None => "nothing".to_owned(),
        Some(DriverLine::Unread) => "unread".to_owned(),
        Some(DriverLine::Fallen) => "fallen".to_owned(),
        Some(DriverLine::About { pci }) => format!("about {pci}"),
        Some(DriverLine::Name { pci, uuid }) => format!("{pci} is {uuid}"),
        Some(DriverLine::Sxid(sxid)) => {
            let link = sxid.link.map_or(String::new(), |link| format!(" link {link}"));
            format!("sxid {} on switch {} {} {:?}{link}", sxid.code, sxid.switch, sxid.pci, sxid.fatal)
        }
        Some(DriverLine::Xid(xid)) => {
            let mut text = format!("xid {} on {}", xid.code, xid.pci);
            for (name, value) in detail(&xid) {
                let _ = write!(text, " {name}={value}");
            }
            text
        }
    }
}

#[test]
fn every_line_of_the_driver_that_people_have_seen_is_read() {
    for (line, expect) in [
        ("NVRM: Xid (0000:03:00): 14, Channel 00000001", "xid 14 on 0000:03:00.0"),
        (
            "NVRM: Xid (PCI:0000:05:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            "xid 79 on 0000:05:00.0",
        ),
        ("NVRM: Xid (PCI:0000:b3:00.0): 79", "xid 79 on 0000:b3:00.0"),
        ("NVRM: Xid (PCI:0000:B3:00.0): 79", "xid 79 on 0000:b3:00.0"),
        ("NVRM: GPU 0000:29:00.0: GPU has fallen off the bus.", "xid 79 on 0000:29:00.0"),
        ("NVRM: GPU at PCI:0000:29:00: GPU-11 has been lost.", "xid 79 on 0000:29:00.0"),
        ("NVRM: The NVIDIA GPU 0000:18:00.0", "about 0000:18:00.0"),
        ("NVRM: fallen off the bus and is not responding to commands.", "fallen"),
        (
            "NVRM: Xid (PCI:0000:00:08): 94, pid='<unknown>', name=<unknown>, Contained: SM (0x1). RST: No, D-RST: No",
            "xid 94 on 0000:00:08.0 drain_rst=no rst=no",
        ),
        (
            "NVRM: Xid (PCI:0000:00:08): 95, pid=7, name=x, Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No",
            "xid 95 on 0000:00:08.0 drain_rst=no pid=7 process=x rst=yes",
        ),
        (
            "NVRM: Xid (PCI:0000:03:00): 48, pid=91237, name=nv-hostengine, Ch 00000076, errorString CTX SWITCH TIMEOUT, Info 0x3c046",
            "xid 48 on 0000:03:00.0 pid=91237 process=nv-hostengine",
        ),
        (
            "NVRM: Xid (PCI:0000:10:1c): 63, pid=1896, Row Remapper: New row marked for remapping, reset gpu to activate.",
            "xid 63 on 0000:10:1c.0 pid=1896 row_remap=pending",
        ),
        (
            "NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU4 GSP! Expected function 103 (GSP_RM_ALLOC) (0x2081 0x4).",
            "xid 119 on 0000:9b:00.0 pid=2024380 process=nvidia-smi",
        ),
        (
            "NVRM: Xid (PCI:0003:00:00): 74, pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link 14(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)",
            "xid 74 on 0003:00:00.0 fatal=yes link=14 registers=0x0 0x0 0x10000 0x0 0x0 0x0 0x0",
        ),
        (
            "NVRM: Xid (PCI:0000:b5:00): 13, pid='<unknown>', name=<unknown>, Graphics SM Warp Exception on (GPC 1, TPC 3, SM 0): Out Of Range Address",
            "xid 13 on 0000:b5:00.0 gpc=1 sm=0 tpc=3",
        ),
        (
            "NVRM: Xid (PCI:0000:00:07): 31, pid=2512125, name=python3.10, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_8 faulted @ 0x73ac_1c000000.",
            "xid 31 on 0000:00:07.0 pid=2512125 process=python3.10",
        ),
        (
            "NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000 0x00000000)",
            "xid 149 on 0018:01:00.0 fatal=yes link=9 status=0x00000000 subcode=37 unit=NETIR_LINK_EVT",
        ),
        (
            "NVRM: Xid (PCI:0008:01:00): 145, pid=11436, name=cache_mgr_main, RLW_SRC_TRACK Nonfatal XC1 i0 Link 03 (0x040868e2 0x00000008 0x0)",
            "xid 145 on 0008:01:00.0 fatal=no link=3 pid=11436 process=cache_mgr_main status=0x00000008 subcode=0 unit=RLW_SRC_TRACK",
        ),
        (
            "NVRM: Xid (PCI:0018:01:00): 149, NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x0)",
            "xid 149 on 0018:01:00.0 fatal=yes status=0x00000000 subcode=0 unit=NETIR",
        ),
        (
            "NVRM: Xid (PCI:0000:00:1e): 149, NETIR_LINK_EVT Fatal XC 1 i 2 Link 01 [0x0000000a]",
            "xid 149 on 0000:00:1e.0 fatal=yes link=1 unit=NETIR_LINK_EVT",
        ),
        (
            "NVRM: Xid (PCI:0008:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
            "xid 154 on 0008:01:00.0 recovery=gpu-reset",
        ),
        (
            "NVRM: Xid (PCI:0008:01:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)",
            "xid 154 on 0008:01:00.0 recovery=none",
        ),
        (
            "NVRM: Xid (PCI:0008:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x9 (Ask Somebody)",
            "xid 154 on 0008:01:00.0 recovery=unknown",
        ),
        (
            "NVRM: Xid (PCI:0000:dc:00): 45, pid=1818990, name=python3, Ch 00000001 caused by previous Xid 149",
            "xid 45 on 0000:dc:00.0 caused_by=149 pid=1818990 process=python3",
        ),
        (
            "NVRM: Xid (PCI:0009:01:00): 43, pid=3188489, name=trigger_xid, channel 0x0b00000a",
            "xid 43 on 0009:01:00.0 pid=3188489 process=trigger_xid",
        ),
        (
            "NVRM: GPU at PCI:0000:03:00: GPU-455d8f70-37f5-f0f9-9d8b-9bf0e2fd0dd5",
            "0000:03:00.0 is GPU-455d8f70-37f5-f0f9-9d8b-9bf0e2fd0dd5",
        ),
        (
            "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)",
            "sxid 12028 on switch 3 0000:05:00.0 Some(false) link 32",
        ),
        (
            "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 63 LTSSM Fault Up",
            "sxid 20034 on switch 0 0000:05:00.0 Some(true) link 63",
        ),
        (
            "nvidia-nvswitch2: SXid (PCI:0000:07:00.0): 20034, Severity 1 Engine instance 60 Sub-engine instance 00",
            "sxid 20034 on switch 2 0000:07:00.0 None",
        ),
        (
            "nvidia-nvswitch0: SXid (PCI:0000:a9:00.0): 20034, Data {0x50610002, 0x10100030}",
            "sxid 20034 on switch 0 0000:a9:00.0 None",
        ),
        ("<3>[  123.456789] NVRM: Xid (PCI:0000:05:00): 79", "xid 79 on 0000:05:00.0"),
    ] {
        assert_eq!(told(line), expect, "{line}");
    }
}

#[test]
fn a_line_that_begins_as_a_fault_and_cannot_be_read_is_said_to_be_so() {
    for line in [
        "NVRM: Xid (PCI:0000:zz:00): 79",
        "NVRM: Xid (PCI:0000:65): 79",
        "NVRM: Xid (PCI:0000:65:20): 79",
        "NVRM: Xid (PCI:0000:65:00): ",
        "NVRM: Xid (PCI:0000:65:00): 79x",
        "NVRM: Xid (PCI:0000:65:00): 99999999999999999999",
        "NVRM: Xid (PCI:0000:65:00): 0",
        "NVRM: Xid (PCI:0000:65:00",
        "NVRM: Xid error: xyz",
        "nvidia-nvswitch: SXid (PCI:0000:05:00.0): 20034, Fatal",
        "nvidia-nvswitch0: SXid (): 1",
    ] {
        assert_eq!(told(line), "unread", "{line}");
    }
}

#[test]
fn a_line_that_only_quotes_a_fault_is_not_one() {
    for line in [
        "",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.95.05",
        "NVRM: Xidentity",
        "usb 1-1: Product: NVRM: Xid (PCI:0000:65:00): 79, GPU has fallen off the bus.",
        "audit: type=1400 name=\"NVRM: Xid (PCI:0000:65:00): 79\"",
        "nvidia-nvswitch0: open (major=510)",
        "NVRM: GPU at PCI:0000:03:00: GPU-not/a/uuid",
        "thing fallen off the bus",
    ] {
        assert_eq!(told(line), "nothing", "{line}");
    }
}

#[test]
fn an_address_has_one_spelling() {
    for (text, expect) in [
        ("PCI:0000:65:00", Some("0000:65:00.0")),
        ("00000000:65:00.0", Some("0000:65:00.0")),
        ("0018:01:1f.7", Some("0018:01:1f.7")),
        ("00010000:65:00.0", Some("10000:65:00.0")),
        ("65:00.0", None),
        ("0000:65:20.0", None),
        ("0000:65:00.8", None),
        ("0000:65:00.", None),
        ("0000:+5:00", None),
        ("é:65:00", None),
    ] {
        assert_eq!(pci(text).as_deref(), expect, "{text}");
    }
}
