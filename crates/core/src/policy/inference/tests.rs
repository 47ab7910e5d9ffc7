//! Pages of the three engines, and an engine's day as looks: what begins, what ends, what is never said.
//!
//! Invariant: a complaint begins once, and no page, however odd, is more than a reason.

use super::*;
use crate::limits;
use proptest::prelude::*;

/// A page as users find it in the integration's folder.
fn sample(kind: EngineKind) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integrations/inference/pages");
    std::fs::read_to_string(folder.join(format!("{}.txt", kind.word()))).unwrap()
}

fn at(second: i64) -> Time {
    Time::from_second(1_795_320_000 + second).unwrap()
}

#[test]
fn the_three_engines_pages_are_read() {
    let vllm = parse_engine_page(EngineKind::Vllm, &sample(EngineKind::Vllm), None).unwrap();
    assert_eq!(vllm.lanes["mistral/1"], EngineQueue { running: 0.0, waiting: 12.0, steps: Some(113_500.0) });
    assert_eq!((vllm.running(), vllm.cache, vllm.began), (3.0, Some(0.97), Some(1_795_320_000.0)));
    let tokens = vllm.first_tokens.unwrap();
    assert_eq!((tokens.total, tokens.buckets.last().copied()), (1_000.0, Some((10.0, 990.0))));
    let tgi = parse_engine_page(EngineKind::Tgi, &sample(EngineKind::Tgi), None).unwrap();
    assert_eq!(tgi.lanes[""], EngineQueue { running: 4.0, waiting: 7.0, steps: Some(262_495.0) });
    let triton = parse_engine_page(EngineKind::Triton, &sample(EngineKind::Triton), None).unwrap();
    assert_eq!(triton.lanes["llama/1"], EngineQueue { running: 0.0, waiting: 5.0, steps: Some(2_280.0) });
    assert!(triton.lanes.contains_key("ocr \"fast\"/2"));
    let one = parse_engine_page(EngineKind::Triton, &sample(EngineKind::Triton), Some("llama")).unwrap();
    assert_eq!(one.lanes.len(), 1);
}

#[test]
fn a_page_of_another_program_or_with_a_broken_line_says_why() {
    let check = |kind, page: &str, expect: &str| {
        let why = parse_engine_page(kind, page, None).unwrap_err();
        assert!(why.contains(expect), "{why}");
    };
    check(EngineKind::Tgi, &sample(EngineKind::Vllm), "no metric of tgi");
    check(EngineKind::Vllm, "<html>Bad gateway</html>", "no metric of vllm");
    check(EngineKind::Vllm, "", "no metric of vllm");
    check(EngineKind::Vllm, "vllm:num_requests_waiting{a=\"b} 1", "line 1 (vllm:num_requests_waiting) cannot be read");
    check(EngineKind::Vllm, "vllm:num_requests_waiting many", "cannot be read");
    let why = parse_engine_page(EngineKind::Triton, &sample(EngineKind::Triton), Some("gpt")).unwrap_err();
    assert!(why.contains("of that model"), "{why}");
    let many: String =
        (0..=limits::ENGINE_LANES).map(|n| format!("nv_inference_count{{model=\"m{n}\"}} 1\n")).collect();
    check(EngineKind::Triton, &many, "more than");
    // A value that is no number yet is no reading of it.
    let page = "vllm:num_requests_waiting 2\nvllm:kv_cache_usage_perc NaN\n";
    assert_eq!(parse_engine_page(EngineKind::Vllm, page, None).unwrap().cache, None);
}

proptest! {
    #[test]
    fn no_page_breaks_the_reader(text in "\\PC{0,400}", cut in 0usize..3_000) {
        for &kind in EngineKind::ALL {
            let _ = parse_engine_page(kind, &text, None);
            let part: String = sample(EngineKind::Vllm).chars().take(cut).collect();
            let _ = parse_engine_page(kind, &part, Some("mistral"));
        }
    }
}

/// An engine under test: each look is one line of a story.
struct Day {
    judge: EngineJudge,
    limits: EngineLimits,
    second: i64,
}

impl Day {
    fn new() -> Day {
        let mut day = Day { judge: EngineJudge::default(), limits: EngineLimits::default(), second: 0 };
        assert_eq!(day.look(None, Ok(reading(0.0, 0.0, 0.0))), [""; 0]);
        day
    }

    /// 15 s later; what is wrong then.
    fn look(
        &mut self,
        unready: Option<&str>,
        page: Result<EngineReading, (EngineReadError, String)>,
    ) -> Vec<&'static str> {
        self.second += 15;
        let look = EngineLook { at: at(self.second), unready: unready.map(str::to_owned), page };
        self.judge.look(&look, &self.limits).into_iter().map(|trouble| trouble.check.key).collect()
    }

    fn looks(&mut self, times: usize, reading: &EngineReading) -> Vec<Vec<&'static str>> {
        (0..times).map(|_| self.look(None, Ok(reading.clone()))).collect()
    }
}

fn reading(running: f64, waiting: f64, steps: f64) -> EngineReading {
    let lane = EngineQueue { running, waiting, steps: Some(steps) };
    EngineReading { lanes: [("m/0".to_owned(), lane)].into(), cache: Some(0.5), ..EngineReading::default() }
}

#[test]
fn requests_wait_and_no_step_is_made_for_two_minutes_and_a_step_ends_it() {
    let mut day = Day::new();
    let said = day.looks(9, &reading(0.0, 12.0, 500.0));
    // The first look saw 500 for the first time, two minutes after it are eight looks more.
    assert!(said[..8].iter().all(Vec::is_empty), "{said:?}");
    assert_eq!(said[8], ["no-progress"]);
    assert_eq!(day.look(None, Ok(reading(0.0, 12.0, 501.0))), [""; 0]);
}

#[test]
fn a_busy_or_an_idle_engine_is_never_frozen_and_a_lull_does_not_end_it_at_once() {
    let mut day = Day::new();
    for step in 1..30 {
        assert_eq!(day.look(None, Ok(reading(8.0, 40.0, f64::from(step)))), [""; 0]);
    }
    assert!(day.looks(30, &reading(0.0, 0.0, 29.0)).iter().all(Vec::is_empty));
    assert_eq!(day.looks(10, &reading(0.0, 1.0, 29.0)).pop().unwrap(), ["no-progress"]);
    let lull = day.looks(4, &reading(0.0, 0.0, 29.0));
    assert_eq!(lull.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 0]);
}

#[test]
fn one_frozen_queue_shows_beside_one_that_works() {
    let mut day = Day::new();
    let mut last = Vec::new();
    for step in 0..12 {
        let mut both = reading(0.0, 3.0, 7.0);
        both.lanes.insert("m/1".to_owned(), EngineQueue { running: 4.0, waiting: 0.0, steps: Some(f64::from(step)) });
        last = day.look(None, Ok(both));
    }
    assert_eq!(last, ["no-progress"]);
}

#[test]
fn a_restart_sets_the_counters_back_and_is_no_progress_lost() {
    let mut day = Day::new();
    day.looks(10, &reading(0.0, 5.0, 900.0));
    assert_eq!(day.look(None, Ok(reading(0.0, 5.0, 3.0))), [""; 0], "it has begun anew");
    assert!(day.looks(8, &reading(0.0, 5.0, 3.0))[..7].iter().all(Vec::is_empty));
    // The same count of another process is no standstill either.
    let mut day = Day::new();
    let of = |began: f64| EngineReading { began: Some(began), ..reading(0.0, 5.0, 40.0) };
    day.looks(10, &of(1_000.0));
    assert_eq!(day.look(None, Ok(of(2_000.0))), [""; 0]);
}

#[test]
fn not_ready_is_said_after_three_looks_and_of_a_new_engine_only_after_its_start() {
    let mut day = Day::new();
    let busy = || Ok(reading(1.0, 0.0, 1.0));
    assert_eq!(day.look(Some("answers 503"), busy()), [""; 0]);
    assert_eq!(day.look(Some("answers 503"), busy()), [""; 0]);
    assert_eq!(day.look(Some("answers 503"), busy()), ["not-ready"]);
    assert_eq!(day.look(None, busy()), ["not-ready"]);
    assert_eq!(day.look(None, busy()), [""; 0]);

    let mut new = Day { judge: EngineJudge::default(), limits: EngineLimits::default(), second: 0 };
    let gone = || Err((EngineReadError::Unreached, "connection refused".to_owned()));
    let said: Vec<_> = (0..70).map(|_| new.look(Some("connection refused"), gone())).collect();
    assert!(said[..58].iter().all(Vec::is_empty), "weights are loaded for fifteen minutes");
    assert_eq!(said[69], ["not-ready", "unreadable"]);
}

#[test]
fn a_page_that_cannot_be_read_changes_nothing_else() {
    let mut day = Day::new();
    day.looks(10, &reading(0.0, 12.0, 500.0));
    let garbage = || Err((EngineReadError::Garbage, "no metric of vllm".to_owned()));
    assert_eq!(day.look(None, garbage()), ["no-progress"]);
    day.look(None, garbage());
    assert_eq!(day.look(None, garbage()), ["no-progress", "unreadable"]);
    assert_eq!(day.looks(2, &reading(0.0, 12.0, 500.0)).pop().unwrap(), ["no-progress"]);
}

#[test]
fn queue_cache_and_first_tokens_are_said_once_they_last() {
    let mut day = Day::new();
    let mut steps = 0.0;
    let mut tokens = (0.0, 0.0);
    let mut said = Vec::new();
    for _ in 0..25 {
        steps += 1.0;
        // Twenty requests between two looks, four of them late.
        tokens = (tokens.0 + 16.0, tokens.1 + 20.0);
        let first_tokens = Some(FirstTokens { buckets: vec![(1.0, 0.0), (10.0, tokens.0)], total: tokens.1 });
        let now = EngineReading { cache: Some(0.99), first_tokens, ..reading(8.0, 51.0, steps) };
        said.push(day.look(None, Ok(now)));
    }
    let begins = |key: &str| said.iter().position(|now| now.contains(&key)).unwrap();
    assert_eq!((begins("queue"), begins("cache-full"), begins("slow-first-token")), (8, 20, 21));
    assert_eq!(said[24].len(), 3, "{said:?}");
    // Nobody asks any more: what first tokens were like is not known, so it stays said.
    steps += 1.0;
    let calm = EngineReading { cache: Some(0.2), ..reading(1.0, 0.0, steps) };
    assert_eq!(day.looks(2, &calm).pop().unwrap(), ["slow-first-token"]);
}

#[test]
fn two_looks_give_signals_by_group_and_only_what_both_show() {
    let look = |second: i64, unready: Option<&str>, page: EngineReading| EngineLook {
        at: at(second),
        unready: unready.map(str::to_owned),
        page: Ok(page),
    };
    let agreed = |first: &EngineLook, second: &EngineLook| -> Vec<&'static str> {
        let all = engine_signals(first, second, &EngineLimits::default());
        assert_eq!(all.len(), 4, "one line a group");
        assert!(all.iter().all(|signal| !signal.words.is_empty()));
        all.into_iter().filter(|signal| signal.agrees).map(|signal| signal.group.word()).collect()
    };
    let stuck = reading(0.0, 9.0, 5.0);
    assert_eq!(agreed(&look(0, None, stuck.clone()), &look(15, None, stuck.clone())), ["progress"]);
    let no = Some("answers 503");
    assert_eq!(agreed(&look(0, no, stuck.clone()), &look(15, no, stuck.clone())), ["progress", "readiness"]);
    assert_eq!(agreed(&look(0, None, stuck.clone()), &look(15, no, stuck.clone())), ["progress"], "once is a hiccup");
    assert_eq!(agreed(&look(0, no, stuck.clone()), &look(15, no, reading(1.0, 9.0, 6.0))), ["readiness"]);
    let full = EngineReading { cache: Some(0.99), ..stuck };
    assert_eq!(agreed(&look(0, None, full.clone()), &look(15, None, full)), ["progress", "cache"]);
}
