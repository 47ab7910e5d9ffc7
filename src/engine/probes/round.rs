//! Who is looked at when: each engine at its own times, spread by chance, so many at once.
//!
//! Invariant: a look that takes long, or that did the last time, has a place among its like, so that engines that hang keep
//! no other waiting for more than a moment.

use super::desk::{DiscoveredEngines, ProbeSource, complaints, left_out};
use crate::engine::EngineParts;
use crate::limits;
use crate::model::Time;
use crate::policy::{EngineJudge, EngineLook};
use crate::telemetry::{ProbeLevels, ProbeResult};
use crate::world::{EngineKind, EnginePoint, WorldError};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Which engine: the place of its desk, and its key there.
type EngineKey = (usize, String);

/// The end of a probe or of a list.
pub(super) enum ProbeEvent {
    Looked { name: EngineKey, look: EngineLook, took: Duration },
    Listed { desk: usize, found: Result<DiscoveredEngines, WorldError> },
}

struct ProbedEngine {
    point: EnginePoint,
    judge: EngineJudge,
    due: Time,
    /// When the look began that is under way.
    looked_since: Option<Time>,
    /// It took long at the last look.
    is_slow: bool,
    last: Option<(Time, bool)>,
}

struct PodListing {
    due: Time,
    is_under_way: bool,
    is_well: bool,
    odd: BTreeSet<String>,
}

pub(super) struct ProbeSchedule {
    desks: Vec<Arc<ProbeSource>>,
    patients: BTreeMap<EngineKey, ProbedEngine>,
    lists: Vec<PodListing>,
    chance: RandomState,
    draws: u64,
    told: Option<Time>,
}

impl ProbeSchedule {
    /// A schedule of the engines that are named in the configuration; pods are listed at the first turn.
    pub fn new(parts: &EngineParts, desks: Vec<Arc<ProbeSource>>) -> ProbeSchedule {
        let now = parts.clock.now();
        let list =
            |_: &Arc<ProbeSource>| PodListing { due: now, is_under_way: false, is_well: true, odd: BTreeSet::new() };
        let lists = desks.iter().map(list).collect();
        let mut round =
            ProbeSchedule { desks, patients: BTreeMap::new(), lists, chance: RandomState::new(), draws: 0, told: None };
        for desk in 0..round.desks.len() {
            let named = round.desks[desk].named();
            round.seat(desk, named, now);
        }
        round
    }

    /// Begins every list and every look that is due and has room.
    pub fn begin(&mut self, parts: &EngineParts, tasks: &mut JoinSet<ProbeEvent>) {
        let now = parts.clock.now();
        for (desk, list) in self.lists.iter_mut().enumerate() {
            if self.desks[desk].finds_pods() && !list.is_under_way && list.due <= now {
                list.is_under_way = true;
                let at = self.desks[desk].clone();
                tasks.spawn(async move { ProbeEvent::Listed { desk, found: at.find().await } });
            }
        }
        // Looks under way: prompt ones so far, and those that take long.
        let mut lanes = [0, 0];
        for (patient, began) in self.patients.values().filter_map(|patient| Some((patient, patient.looked_since?))) {
            lanes[usize::from(patient.is_slow || since(began, now) > limits::PROBE_PROMPT)] += 1;
        }
        for (name, patient) in &mut self.patients {
            let lane = &mut lanes[usize::from(patient.is_slow)];
            if patient.looked_since.is_some() || patient.due > now || *lane >= limits::PROBES_AT_ONCE {
                continue;
            }
            *lane += 1;
            patient.looked_since = Some(now);
            let (world, point, name) = (parts.world.clone(), patient.point.clone(), name.clone());
            let within = self.desks[name.0].probe.within;
            tasks.spawn(async move {
                let look = world.look_at(&point, within).await;
                let took = since(now, look.at);
                ProbeEvent::Looked { name, look, took }
            });
        }
        self.tell(parts, now);
    }

    /// When something is due that is not under way yet.
    pub fn wake(&self, now: Time) -> Time {
        let looks = self.patients.values().filter(|patient| patient.looked_since.is_none()).map(|patient| patient.due);
        let lists = self.lists.iter().filter(|list| !list.is_under_way).map(|list| list.due);
        // A probe that is due already waits for room, and is woken by the end of another.
        let next = looks.chain(lists).filter(|due| *due > now).min();
        let latest = now + Duration::from_secs(1);
        next.map_or(latest, |due| due.min(latest))
    }

    /// Takes the end of a probe or of a list, and sets when the next one is due.
    pub fn take(&mut self, parts: &EngineParts, came: ProbeEvent) {
        let now = parts.clock.now();
        match came {
            ProbeEvent::Looked { name, look, took } => self.looked(parts, name, &look, took, now),
            ProbeEvent::Listed { desk, found } => {
                self.lists[desk].is_under_way = false;
                self.lists[desk].due = now + limits::PROBE_LIST_EVERY;
                match found {
                    Ok(found) => self.listed(desk, found, now),
                    Err(error) => self.unlisted(desk, &error),
                }
            }
        }
    }

    fn looked(&mut self, parts: &EngineParts, name: EngineKey, look: &EngineLook, took: Duration, now: Time) {
        let desk = self.desks[name.0].clone();
        let every = self.spread(desk.probe.every.0, &name);
        // Its pod may have gone meanwhile.
        let Some(patient) = self.patients.get_mut(&name) else { return };
        patient.looked_since = None;
        patient.is_slow = took > limits::PROBE_PROMPT;
        patient.last = Some((look.at, look.unready.is_none() && look.page.is_ok()));
        patient.due = (patient.due + every).max(now);
        parts.metrics.probed(patient.point.kind, outcome(look));
        let troubles = patient.judge.look(look, &desk.probe.limits);
        desk.board().hear_engine(&name.1, complaints(&patient.point, &troubles), now);
    }

    fn listed(&mut self, desk: usize, found: DiscoveredEngines, now: Time) {
        self.say_well(desk);
        let at = self.desks[desk].clone();
        let named = at.named();
        let gone = |(of, key): &&EngineKey| *of == desk && !named.contains_key(key) && !found.engines.contains_key(key);
        let gone: Vec<EngineKey> = self.patients.keys().filter(gone).cloned().collect();
        for name in gone {
            self.patients.remove(&name);
            at.board().forget_engine(&name.1, now);
        }
        let over: Vec<String> =
            self.lists[desk].odd.iter().filter(|key| !found.odd.contains_key(*key)).cloned().collect();
        for key in over {
            at.board().forget_engine(&key, now);
        }
        self.lists[desk].odd = found.odd.keys().cloned().collect();
        for (key, complaint) in found.odd {
            at.board().hear_engine(&key, vec![complaint], now);
        }
        self.seat(desk, found.engines, now);
    }

    /// Takes in engines that are new, as far as there is room.
    fn seat(&mut self, desk: usize, engines: BTreeMap<String, EnginePoint>, now: Time) {
        let at = self.desks[desk].clone();
        let mut left = 0;
        for (key, point) in engines {
            let name = (desk, key);
            if let Some(known) = self.patients.get_mut(&name) {
                known.point = point;
                continue;
            }
            if self.patients.len() >= limits::PROBES {
                left += 1;
                continue;
            }
            let due = now + at.probe.every.0.mul_f64(self.draw(&name));
            let judge = EngineJudge::default();
            let patient = ProbedEngine { point, judge, due, looked_since: None, is_slow: false, last: None };
            self.patients.insert(name, patient);
        }
        let complaint = (left > 0).then(|| left_out(&at.source, left));
        at.board().hear_engine("left out", complaint.into_iter().collect(), now);
    }

    fn unlisted(&mut self, desk: usize, error: &WorldError) {
        if std::mem::take(&mut self.lists[desk].is_well) {
            let source = &self.desks[desk].source;
            tracing::warn!(%source, %error, "cannot list pods with inference engines; polling the known ones");
        }
    }

    fn say_well(&mut self, desk: usize) {
        if !std::mem::replace(&mut self.lists[desk].is_well, true) {
            tracing::info!(source = %self.desks[desk].source, "listing of pods with inference engines restored");
        }
    }

    /// From 0 to 1, by chance.
    fn draw(&mut self, name: &EngineKey) -> f64 {
        self.draws = self.draws.wrapping_add(1);
        let bits = self.chance.hash_one((name, self.draws)) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }

    /// A tenth more or less, so that looks do not fall into step.
    fn spread(&mut self, every: Duration, name: &EngineKey) -> Duration {
        every.mul_f64(0.9 + 0.2 * self.draw(name))
    }

    /// Levels for the metrics page, at most once a second.
    fn tell(&mut self, parts: &EngineParts, now: Time) {
        if self.told.is_some_and(|told| since(told, now) < Duration::from_secs(1)) {
            return;
        }
        self.told = Some(now);
        for &kind in EngineKind::ALL {
            let of = || self.patients.values().filter(move |patient| patient.point.kind == kind);
            let ages = of().map(|patient| patient.last.map_or(f64::INFINITY, |(at, _)| since(at, now).as_secs_f64()));
            // One that was not looked at yet is not old, it is new.
            let oldest = ages.filter(|age| age.is_finite()).fold(0.0, f64::max);
            let levels = ProbeLevels {
                targets: of().count(),
                up: of().filter(|patient| patient.last.is_some_and(|(_, up)| up)).count(),
                oldest_seconds: oldest,
            };
            parts.metrics.set_probes(kind, &levels);
        }
    }
}

fn outcome(look: &EngineLook) -> ProbeResult {
    match (&look.page, &look.unready) {
        (Err((why, _)), _) => ProbeResult::Unread(*why),
        (Ok(_), Some(_)) => ProbeResult::NotReady,
        (Ok(_), None) => ProbeResult::Up,
    }
}

fn since(from: Time, to: Time) -> Duration {
    Duration::from_micros(u64::try_from(to.as_microsecond().saturating_sub(from.as_microsecond())).unwrap_or(0))
}
