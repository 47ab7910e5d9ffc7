//! Warming a model against `vmtouch -t` and a parallel `dd`, cold each time, in turns on one disk.
//!
//! `cargo bench --bench warm`; WARM_MIB (2048) is the size, WARM_ROUNDS (5) how often, WARM_DIR where.

use nightshift::config::ModelCacheConfig;
use nightshift::node::cache::{CacheSettings, status, warm};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const SHARDS: usize = 4;
const HOUR: Duration = Duration::from_secs(3_600);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Safetensors of random bytes, on disk.
fn model(dir: &Path, mib: usize) {
    let mut chance = File::open("/dev/urandom").expect("/dev/urandom");
    let mut block = vec![0_u8; 1 << 20];
    for at in 0..SHARDS {
        let bytes = (mib / SHARDS) << 20;
        let mut file = File::create(dir.join(format!("model-{at}.safetensors"))).expect("a file");
        let header = format!(r#"{{"t{at}":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
        file.write_all(&(header.len() as u64).to_le_bytes()).expect("written");
        file.write_all(header.as_bytes()).expect("written");
        for _ in 0..mib / SHARDS {
            chance.read_exact(&mut block).expect("random bytes");
            file.write_all(&block).expect("written");
        }
        file.sync_all().expect("on disk");
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).expect("the folder").flatten().map(|entry| entry.path()).collect()
}

fn let_go(dir: &Path) {
    for path in files(dir) {
        let file = File::open(path).expect("a file");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice");
    }
}

fn ours(settings: &CacheSettings, dir: &Path) -> f64 {
    let began = Instant::now();
    let never = AtomicBool::new(false);
    let report = warm(settings, dir, None, HOUR, &never, &|_| ()).expect("a warm model");
    assert!(report.changed && report.resident >= 0.999, "{report:?}");
    began.elapsed().as_secs_f64()
}

fn vmtouch(dir: &Path) -> Option<f64> {
    let program = std::env::var("VMTOUCH").unwrap_or_else(|_| "vmtouch".to_owned());
    let began = Instant::now();
    let status = Command::new(program).args(["-q", "-t"]).arg(dir).stdout(Stdio::null()).status().ok()?;
    assert!(status.success(), "vmtouch");
    Some(began.elapsed().as_secs_f64())
}

/// One `dd` a file, all at once.
fn dd(dir: &Path) -> f64 {
    let began = Instant::now();
    let running: Vec<_> = files(dir)
        .into_iter()
        .map(|path| {
            let from = format!("if={}", path.display());
            Command::new("dd").args([&from, "of=/dev/null", "bs=4M", "status=none"]).spawn().expect("dd")
        })
        .collect();
    for mut one in running {
        assert!(one.wait().expect("dd ends").success());
    }
    began.elapsed().as_secs_f64()
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() {
    let (mib, rounds) = (number("WARM_MIB", 2_048), number("WARM_ROUNDS", 5));
    let top = std::env::var("WARM_DIR").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    let dir = tempfile::tempdir_in(top).expect("a folder");
    model(dir.path(), mib);
    let settings = CacheSettings::of(&ModelCacheConfig {
        roots: vec![dir.path().to_owned()],
        reserve_mib: 256,
        ..ModelCacheConfig::default()
    });
    let (mut by_us, mut by_vmtouch, mut by_dd) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let_go(dir.path());
        let cold = status(&settings, dir.path()).expect("a status").resident;
        assert!(cold < 0.05, "not cold: {cold}");
        by_us.push(ours(&settings, dir.path()));
        let_go(dir.path());
        by_vmtouch.extend(vmtouch(dir.path()));
        let_go(dir.path());
        by_dd.push(dd(dir.path()));
    }
    let rate = |seconds: f64| mib as f64 / seconds;
    let us = median(by_us);
    println!("warm of {mib} MiB in {SHARDS} shards, medians of {rounds} cold rounds in turns");
    println!("  nightshift  {us:.2} s  {:.0} MiB/s", rate(us));
    if !by_vmtouch.is_empty() {
        let it = median(by_vmtouch);
        println!("  vmtouch -t  {it:.2} s  {:.0} MiB/s  ratio {:.2}", rate(it), it / us);
    }
    let it = median(by_dd);
    println!("  parallel dd {it:.2} s  {:.0} MiB/s  ratio {:.2}", rate(it), it / us);

    let sparse = tempfile::tempdir_in(dir.path()).expect("a folder");
    let file = File::create(sparse.path().join("model.bin")).expect("a file");
    file.set_len(100 << 30).expect("a sparse file");
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).expect("written");
    let began = Instant::now();
    let counted = status(&settings, sparse.path()).expect("a status");
    println!("residency of 100 GiB sparse: {:.1} ms by {:?}", began.elapsed().as_secs_f64() * 1e3, counted.by);
}
