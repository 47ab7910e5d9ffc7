//! The units of systemd: what each holds its process to.
//!
//! Invariant: a line that is taken out of a unit is taken out here as well, with its reason in DECISIONS.md.

use std::collections::BTreeSet;
use std::path::Path;

fn unit(name: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd").join(name);
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn each_unit_holds_its_process_to_what_it_needs() {
    let both = [
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "ProtectControlGroups=yes",
        "RestrictNamespaces=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "SystemCallArchitectures=native",
        "UMask=0077",
    ];
    let (engine, agent) = (unit("nightshift.service"), unit("nightshift-agent.service"));
    for line in both {
        assert!(engine.contains(line), "nightshift.service: {line}");
        assert!(agent.contains(line), "nightshift-agent.service: {line}");
    }
    for line in ["MemoryDenyWriteExecute=yes", "CapabilityBoundingSet=", "DynamicUser=yes", "PrivateDevices=yes"] {
        assert!(engine.contains(line), "nightshift.service: {line}");
    }
    assert!(agent.contains("DevicePolicy=closed"));
    // NVIDIA's tools and libraries run under the agent's filter.
    assert!(!agent.contains("MemoryDenyWriteExecute=yes"));
}
