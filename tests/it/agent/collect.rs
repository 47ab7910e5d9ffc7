//! `node::collect`: a bundle of what will be asked for, with a stand-in for NVIDIA's bug report that a test can make slow,
//! large or broken.
//!
//! Invariant: what is in the bundle is read back from the node's own disk, hashes included.

use super::commands::ended;
use super::*;
use sha2::Digest;

const RUNBOOK: &str = "//! Collect.\n//!\n//! scope: none\n\nnode::collect(\"gpu-1\");\n";

struct Stand {
    place: Place,
    engine: Engine,
    _agent: Agent,
}

/// `script` is NVIDIA's tool; `$out` is where it writes.
async fn stand(script: &str, extra: &str, prepare: impl FnOnce(&Place) -> Option<Disk>) -> (Stand, Option<Disk>) {
    let place = Place::new("", "rules: []\n", &[("collect", RUNBOOK)]);
    let folder = place.folder("gpu-1");
    let f = folder.display();
    let tool = folder.join("bug-report");
    executable(
        &tool,
        &format!("#!/bin/sh\necho \"$1\" >>{f}/count\nout=$2.log.gz\n{}\n", script.replace("HERE", &f.to_string())),
    );
    place.write_config("gpu-1", &format!("bug_report: {}\n{extra}", tool.display()));
    std::fs::write(folder.join("kernel.log"), "6,1,1,-;NVRM: Xid (PCI:0000:65:00): 79\n").unwrap();
    let engine = place.site.start(&[]).await.unwrap();
    let token = token(&engine, json!({})).await;
    assert!(place.join("gpu-1", &token).status.success());
    let disk = prepare(&place);
    let agent = place.start("gpu-1");
    connected(&engine, "gpu-1").await;
    (Stand { place, engine, _agent: agent }, disk)
}

impl Stand {
    /// What the step of a run came to.
    async fn collect(&self) -> Value {
        let (status, run) = self.engine.post("/api/v1/runs", &json!({ "runbook": "collect" })).await.unwrap();
        assert_eq!(status, 201, "{run}");
        let ended = ended(&self.engine, run["run"]["id"].as_str().unwrap()).await;
        ended["steps"][0]["outcome"].clone()
    }

    fn calls(&self) -> usize {
        let text = std::fs::read_to_string(self.place.folder("gpu-1").join("count")).unwrap_or_default();
        text.lines().count()
    }

    fn bundles(&self) -> Vec<String> {
        let folder = self.place.folder("gpu-1").join("data/bundles");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn missing(bundle: &Value) -> String {
    bundle["missing"].to_string()
}

#[tokio::test]
async fn a_bundle_holds_the_report_and_the_kernels_lines_and_says_what_is_missing() {
    let (stand, _) = stand("echo report >$out", "", |_| None).await;
    let bundle = stand.collect().await["ok"].clone();
    let folder = PathBuf::from(bundle["folder"].as_str().unwrap_or_else(|| panic!("{bundle}")));
    let files = bundle["files"].as_array().unwrap();
    let names: Vec<&str> = files.iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["kernel.log", "nvidia-bug-report.log.gz"], "{bundle}");
    for file in files {
        let bytes = std::fs::read(folder.join(file["name"].as_str().unwrap())).unwrap();
        let sum: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((file["sha256"].as_str(), file["bytes"].as_u64()), (Some(sum.as_str()), Some(bytes.len() as u64)));
    }
    assert!(std::fs::read_to_string(folder.join("kernel.log")).unwrap().contains("Xid (PCI:0000:65:00): 79"));
    // There is no NVIDIA library on this machine, and that costs one part alone.
    assert!(missing(&bundle).contains("gpus.json"), "{bundle}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700, "it is nobody else's to read");
    assert_eq!(stand.calls(), 1);
}

#[tokio::test]
async fn a_report_that_hangs_is_ended_and_the_bundle_goes_without_it() {
    let script = "echo $$ >HERE/pid\necho begun >$out\nwhile :; do sleep 1; done";
    let (stand, _) = stand(script, "bug_report_within: 1s\n", |_| None).await;
    let bundle = stand.collect().await["ok"].clone();
    assert!(missing(&bundle).contains("is not done after 1 s; it was ended"), "{bundle}");
    assert!(bundle["files"].to_string().contains("kernel.log"), "{bundle}");
    let pid = std::fs::read_to_string(stand.place.folder("gpu-1").join("pid")).unwrap();
    eventually("the tool is gone", async || (!Path::new(&format!("/proc/{}", pid.trim())).exists()).then_some(()))
        .await;
}

#[tokio::test]
async fn a_report_that_is_too_large_is_taken_out_and_only_the_newest_bundles_stay() {
    let (stand, _) = stand("truncate -s 300M $out", "", |_| None).await;
    for _ in 0..7 {
        let bundle = stand.collect().await["ok"].clone();
        let report = bundle["files"].as_array().unwrap().iter().find(|file| file["name"] == "nvidia-bug-report.log.gz");
        let report = report.unwrap_or_else(|| panic!("{bundle}"));
        assert!(report["removed"].as_str().unwrap().contains("larger than a bundle may be"), "{bundle}");
        assert!(!Path::new(bundle["folder"].as_str().unwrap()).join("nvidia-bug-report.log.gz").exists());
    }
    let bundles = stand.bundles();
    // Behind run and step stands the incarnation of the store.
    let steps: Vec<&str> = bundles.iter().map(|name| &name[..4]).collect();
    assert_eq!(steps, ["r3-0", "r4-0", "r5-0", "r6-0", "r7-0"]);
}

#[tokio::test]
async fn a_tool_that_is_missing_or_fails_costs_its_part_alone() {
    let (stand, _) = stand("echo 'no driver' >&2; exit 4", "", |_| None).await;
    let bundle = stand.collect().await["ok"].clone();
    assert!(missing(&bundle).contains("code 4: no driver"), "{bundle}");
    std::fs::remove_file(stand.place.folder("gpu-1").join("bug-report")).unwrap();
    let bundle = stand.collect().await["ok"].clone();
    assert!(missing(&bundle).contains("bug-report") && bundle["files"].to_string().contains("kernel.log"), "{bundle}");
}

#[tokio::test]
async fn on_a_full_disk_no_half_file_is_taken_for_a_whole_one() {
    let prepare = |place: &Place| {
        let disk = Disk::mount(&place.folder("gpu-1").join("data/bundles"));
        disk.fill();
        Some(disk)
    };
    let (stand, disk) = stand("head -c 100000 /dev/zero >$out || exit 1", "", prepare).await;
    let outcome = stand.collect().await;
    let bundle = outcome["ok"].clone();
    assert!(missing(&bundle).contains("kernel.log: No space left on device"), "{outcome}");
    assert!(missing(&bundle).contains("code 1"), "{outcome}");
    let names = bundle["files"].to_string();
    assert!(!names.contains("kernel.log"), "{outcome}");
    disk.unwrap().empty();
    let bundle = stand.collect().await["ok"].clone();
    assert!(bundle["files"].to_string().contains("kernel.log"), "{bundle}");
}

/// As a person keeps and puts back a copy of a folder.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[tokio::test]
async fn a_restored_engine_collects_again_and_does_not_take_the_first_bundle_for_its_own() {
    let (Stand { place, engine, _agent }, _) = stand("echo report >$out", "", |_| None).await;
    let (data, kept) = (place.site.path().join("data"), place.site.path().join("kept"));
    assert_eq!(engine.stop(), Some(0));
    copy(&data, &kept);
    let engine = place.site.start(&[]).await.unwrap();
    connected(&engine, "gpu-1").await;
    let stand = Stand { place, engine, _agent };
    let first = stand.collect().await["ok"].clone();
    let Stand { place, engine, _agent } = stand;
    engine.kill();
    copy(&kept, &data);
    let engine = place.site.start(&[]).await.unwrap();
    connected(&engine, "gpu-1").await;
    let stand = Stand { place, engine, _agent };
    let second = stand.collect().await["ok"].clone();
    assert_ne!(first["folder"], second["folder"], "{second}");
    assert_eq!((stand.calls(), stand.bundles().len()), (2, 2), "counted on the node");
}
