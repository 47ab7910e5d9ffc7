//! The places for connections of one listener, and who gives way when all are taken: the oldest of those that have proven
//! nothing, of the peer that has most of them.
//!
//! Invariant: while a single connection without a proven request is there, a new one finds a place; a proven request is never cut.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Nothing has come yet, or the requests so far have proven nothing: such a connection gives way first.
const STRANGER: u8 = 0;
/// A request of which it is not known yet whose it is.
const UNPROVED: u8 = 1;
/// Between two requests, after one that was proven.
const IDLE: u8 = 2;
/// A request with a valid token, signature or session.
const PROVED: u8 = 3;
/// For good.
const PINNED: u8 = 4;

/// All places of one listener.
pub(super) struct ConnectionSeats {
    places: Arc<Semaphore>,
    taken: Mutex<OccupiedSeats>,
}

#[derive(Default)]
struct OccupiedSeats {
    next: u64,
    seats: BTreeMap<u64, (Option<IpAddr>, Arc<SeatState>)>,
}

struct SeatState {
    class: AtomicU8,
    leave: Notify,
}

/// The place of one connection, for as long as this lives.
pub(super) struct HeldSeat {
    seats: Arc<ConnectionSeats>,
    no: u64,
    pub seat: SeatHandle,
    _place: OwnedSemaphorePermit,
}

/// A request's hold on its connection's state.
#[derive(Clone)]
pub(super) struct SeatHandle(Arc<SeatState>);

/// The request has a valid token, signature or session, so its connection is no stranger's.
pub(super) fn proven(extensions: &http::Extensions) {
    if let Some(seat) = extensions.get::<SeatHandle>() {
        seat.proves();
    }
}

impl ConnectionSeats {
    /// Room for `most` connections.
    pub fn new(most: usize) -> Arc<ConnectionSeats> {
        Arc::new(ConnectionSeats { places: Arc::new(Semaphore::new(most)), taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, OccupiedSeats> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection. Where none is free, another connection is signaled to give way; where none may
    /// be cut, this waits.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        self.evict();
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Writes down who has the place.
    pub fn sit(self: &Arc<ConnectionSeats>, place: OwnedSemaphorePermit, peer: Option<IpAddr>) -> HeldSeat {
        let state = Arc::new(SeatState { class: AtomicU8::new(STRANGER), leave: Notify::new() });
        let mut taken = self.taken();
        let no = taken.next;
        taken.next += 1;
        taken.seats.insert(no, (peer, Arc::clone(&state)));
        HeldSeat { seats: Arc::clone(self), no, seat: SeatHandle(state), _place: place }
    }

    fn evict(&self) {
        let taken = self.taken();
        let of = |class: u8| {
            let seats = taken.seats.iter().filter(move |(_, (_, state))| state.class.load(Ordering::Relaxed) == class);
            seats.map(|(no, (peer, state))| (*no, *peer, state))
        };
        for class in [STRANGER, UNPROVED, IDLE] {
            let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
            of(class).for_each(|(_, peer, _)| *counts.entry(peer).or_default() += 1);
            let Some(most) = counts.values().copied().max() else { continue };
            // One signal is enough: the next one that gives way is another. One that has proven itself meanwhile stays.
            let gives_way = |state: &Arc<SeatState>| {
                state.class.compare_exchange(class, PINNED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            };
            let mut oldest = of(class).filter(|(_, peer, _)| counts.get(peer) == Some(&most));
            if let Some((_, _, state)) = oldest.find(|(_, _, state)| gives_way(state)) {
                state.leave.notify_one();
                return;
            }
        }
    }
}

impl Drop for HeldSeat {
    fn drop(&mut self) {
        self.seats.taken().seats.remove(&self.no);
    }
}

impl SeatHandle {
    /// A request has begun, and its sender is not proven yet.
    pub fn begins(&self) {
        self.turn(&[STRANGER, IDLE], UNPROVED);
    }

    /// A token, a signature or a session is valid.
    pub fn proves(&self) {
        self.turn(&[STRANGER, UNPROVED, IDLE], PROVED);
    }

    /// The request has ended; a proven connection stays proven.
    pub fn ends(&self) {
        self.turn(&[UNPROVED], STRANGER);
        self.turn(&[PROVED], IDLE);
    }

    /// This connection never gives way.
    pub fn stays(&self) {
        self.0.class.store(PINNED, Ordering::Relaxed);
    }

    /// Until the connection must give way.
    pub async fn must_leave(&self) {
        self.0.leave.notified().await;
    }

    fn turn(&self, from: &[u8], to: u8) {
        for class in from {
            if self.0.class.compare_exchange(*class, to, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sit(seats: &Arc<ConnectionSeats>, peer: u8) -> HeldSeat {
        let place = seats.place().await.unwrap();
        seats.sit(place, Some(IpAddr::from([10, 0, 0, peer])))
    }

    async fn left(held: &HeldSeat) -> bool {
        tokio::time::timeout(std::time::Duration::from_millis(1), held.seat.must_leave()).await.is_ok()
    }

    #[tokio::test]
    async fn the_oldest_stranger_of_the_peer_with_most_gives_way_and_a_proven_request_never() {
        let seats = ConnectionSeats::new(5);
        let (alone, first, second) = (sit(&seats, 1).await, sit(&seats, 2).await, sit(&seats, 2).await);
        let (proven, idle) = (sit(&seats, 3).await, sit(&seats, 3).await);
        proven.seat.begins();
        proven.seat.proves();
        idle.seat.begins();
        idle.seat.proves();
        idle.seat.ends();
        let mut waiting = asks_for_place(&seats);
        assert!(left(&first).await && !left(&alone).await && !left(&second).await);
        drop(first);
        let new = seats.sit(waiting.recv().await.unwrap(), None);
        new.seat.begins();
        let mut kept = Vec::new();
        for next in [alone, second] {
            let mut waiting = asks_for_place(&seats);
            assert!(left(&next).await);
            drop(next);
            let held = seats.sit(waiting.recv().await.unwrap(), None);
            held.seat.stays();
            kept.push(held);
        }
        // Then a request of which it is not known whose it is, then a proven connection between two requests; no more.
        let _waiting = asks_for_place(&seats);
        assert!(left(&new).await && !left(&idle).await);
        let _waiting = asks_for_place(&seats);
        assert!(left(&idle).await);
        let _waiting = asks_for_place(&seats);
        assert!(!left(&proven).await);
    }

    /// Requests a place in another task, and gives it once it is there.
    fn asks_for_place(seats: &Arc<ConnectionSeats>) -> tokio::sync::mpsc::Receiver<OwnedSemaphorePermit> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let seats = Arc::clone(seats);
        tokio::spawn(async move {
            if let Some(place) = seats.place().await {
                let _ = sender.send(place).await;
            }
        });
        receiver
    }
}
