//! A warm over the real link: engine and agent are processes of their own, and the files are real.
//!
//! Invariant: what is in memory is counted by the test itself, before, in the middle and after.

use super::commands::ended;
use super::*;
use rustix::fs::Advice;
use std::fs::File;

const MIB: usize = 1 << 20;
const RUNBOOK: &str = "//! Warm a model.\n//!\n//! params:\n//!   path: String\n//!   rate: Int = 0\n//! scope: none\n\n\
                       let options = #{ within: \"10m\" };\nif rate > 0 { options.mib_per_second = rate; }\n\
                       cache::warm(path, \"gpu-1\", options);\n";

/// Two shards of a model on a disk, cold.
fn model(folder: &Path, mib: usize) -> Vec<PathBuf> {
    std::fs::create_dir_all(folder).unwrap();
    let shards = ["a.bin", "b.bin"].map(|name| folder.join(name));
    for shard in &shards {
        std::fs::write(shard, (0..mib * MIB).map(|at| (at % 251) as u8).collect::<Vec<_>>()).unwrap();
        let file = File::open(shard).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
    shards.to_vec()
}

/// For each page of a file whether it is in memory, by `mincore`, which the program uses only where it must.
fn pages(file: &Path) -> Vec<bool> {
    let file = File::open(file).unwrap();
    let bytes = file.metadata().unwrap().len() as usize;
    let mut vector = vec![0_u8; bytes.div_ceil(rustix::param::page_size())];
    let map = memmap2::MmapOptions::new().map_raw_read_only(&file).unwrap();
    // SAFETY: the file is mapped until `map` goes, and the vector has a byte for each of its pages.
    #[allow(unsafe_code)]
    let answer = unsafe { libc::mincore(map.as_mut_ptr().cast(), bytes, vector.as_mut_ptr()) };
    assert_eq!(answer, 0);
    vector.into_iter().map(|page| page & 1 == 1).collect()
}

/// The share of these files' pages in memory.
fn resident(files: &[PathBuf]) -> f64 {
    let all: Vec<bool> = files.iter().flat_map(|file| pages(file)).collect();
    all.iter().filter(|there| **there).count() as f64 / all.len() as f64
}

/// The bytes of the pieces, as one reader takes them on, that are in memory whole.
fn whole_pieces(files: &[PathBuf]) -> u64 {
    let piece = nightshift::limits::CACHE_CHUNK_BYTES as usize / rustix::param::page_size();
    let of = |file: &PathBuf| {
        let pages = pages(file);
        pages.chunks(piece).filter(|piece| piece.iter().all(|there| *there)).map(<[bool]>::len).sum::<usize>()
    };
    (files.iter().map(of).sum::<usize>() * rustix::param::page_size()) as u64
}

struct Stand {
    place: Place,
    engine: Engine,
    _agent: Agent,
    /// On a real disk: /tmp may have none behind it.
    disk: tempfile::TempDir,
}

async fn stand() -> Stand {
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let place = Place::new("", "rules: []\n", &[("warm", RUNBOOK)]);
    place.write_config(
        "gpu-1",
        &format!("cache: {{ roots: [{}], reserve_mib: 64, readers: 1 }}\n", disk.path().display()),
    );
    let engine = place.site.start(&[]).await.unwrap();
    let agent = place.agent(&engine, "gpu-1").await;
    connected(&engine, "gpu-1").await;
    Stand { place, engine, _agent: agent, disk }
}

impl Stand {
    async fn begin(&self, folder: &Path, rate: u32) -> String {
        let params = json!({ "path": folder.display().to_string(), "rate": rate });
        let (status, run) =
            self.engine.post("/api/v1/runs", &json!({ "runbook": "warm", "params": params })).await.unwrap();
        assert_eq!(status, 201, "{run}");
        run["run"]["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the run says what the agent is at, and that it is under way.
    async fn under_way(&self, run: &str) -> Value {
        eventually("the warm is under way", async || {
            let answer = self.engine.get(&format!("/api/v1/runs/{run}")).await?;
            let step = answer["steps"].as_array()?.last()?.clone();
            step["carry"]["progress"]["read_bytes"].as_u64().filter(|read| *read > 17 * MIB as u64)?;
            // Between two looks at the agent the run is ready, and says nothing.
            answer["run"]["state"]["why"].as_str().filter(|why| why.contains("% of"))?;
            Some(answer)
        })
        .await
    }

    async fn page(&self) -> String {
        self.engine.text("/metrics").await.unwrap_or_default()
    }
}

/// The value of a metric on a page.
fn value(page: &str, name: &str) -> f64 {
    let line = page.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{name} is not in {page}"))
}

#[tokio::test]
async fn a_cold_model_is_warm_after_the_step_and_the_journal_holds_before_and_after() {
    let stand = stand().await;
    let folder = stand.disk.path().join("llama");
    let shards = model(&folder, 6);
    let before = resident(&shards);
    assert!(before < 0.1, "{before}");
    let run = stand.begin(&folder, 0).await;
    let ended = ended(&stand.engine, &run).await;
    let step = &ended["steps"][0];
    let outcome = &step["outcome"]["ok"];
    assert!(resident(&shards) >= 0.999, "{ended}");
    let report = &outcome["models"][0];
    let said = report["resident_before"].as_f64().unwrap_or_else(|| panic!("{ended}"));
    assert!((said - before).abs() < 0.05 && report["resident"].as_f64().unwrap() >= 0.999, "{report}");
    assert!(report["charged_to"].is_string() || report["charged_to"].is_null(), "{report}");
    let page = stand.page().await;
    assert_eq!(value(&page, r#"nightshift_cache_warms_total{via="agent",outcome="ok"}"#), 1.0);
    assert_eq!(value(&page, "nightshift_cache_warm_read_bytes_total"), outcome["read_bytes"].as_f64().unwrap());
    assert!(value(&page, "nightshift_cache_warm_resident_ratio") >= 0.999);
    assert_eq!(value(&page, "nightshift_cache_warming"), 0.0);
    assert_eq!(stand.engine.stop(), Some(0));
}

#[tokio::test]
async fn a_cancelled_run_stops_the_reading_and_the_next_one_goes_on_from_there() {
    let stand = stand().await;
    let folder = stand.disk.path().join("llama");
    let shards = model(&folder, 40);
    // Twenty seconds in all, and a whole piece of 16 MiB is there by the second word of the agent.
    let run = stand.begin(&folder, 4).await;
    let seen = stand.under_way(&run).await;
    let why = seen["run"]["state"]["why"].as_str().unwrap_or_default();
    assert!(why.contains("% of 80.0 MiB"), "a person sees how far it is: {seen}");
    let page = stand.page().await;
    assert_eq!(value(&page, "nightshift_cache_warming"), 1.0);
    let (all, done) =
        (value(&page, "nightshift_cache_warming_bytes"), value(&page, "nightshift_cache_warming_done_bytes"));
    assert!(all == (80 * MIB) as f64 && done > 0.0 && done < all, "{done} of {all}");

    let why = json!({ "why": "the other node will do" });
    let (status, answer) = stand.engine.post(&format!("/api/v1/runs/{run}/cancel"), &why).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let left = eventually("the agent has stopped", async || {
        let commands = std::fs::read_to_string(stand.place.folder("gpu-1").join("data/commands")).unwrap_or_default();
        commands.contains("was cancelled").then(|| resident(&shards))
    })
    .await;
    assert!((0.2..0.95).contains(&left), "{left}");

    // What is there is not read again, piece by piece.
    let there = whole_pieces(&shards);
    let run = stand.begin(&folder, 0).await;
    let ended = ended(&stand.engine, &run).await;
    let report = &ended["steps"][0]["outcome"]["ok"]["models"][0];
    assert!(report["resident_before"].as_f64().unwrap() >= left - 0.01, "{report} after {left}");
    assert!(resident(&shards) >= 0.999);
    let read = report["read_bytes"].as_u64().unwrap();
    assert!(read + there <= (80 * MIB) as u64, "{there} bytes were there: {report}");
}
