//! Recent deliveries, so that a repeat counts once.
//!
//! Invariant: bounded; the oldest is forgotten first.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

/// The ids that a service gives to its deliveries.
#[derive(Debug)]
pub(super) struct ReplayCache {
    most: usize,
    ids: Mutex<(VecDeque<String>, HashSet<String>)>,
}

impl ReplayCache {
    pub(super) fn new(most: usize) -> ReplayCache {
        ReplayCache { most, ids: Mutex::default() }
    }

    /// Whether it came before. A delivery without an id is always new.
    pub(super) fn again(&self, id: &str) -> bool {
        if id.is_empty() {
            return false;
        }
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let (order, known) = &mut *ids;
        if !known.insert(id.to_owned()) {
            return true;
        }
        if order.len() >= self.most
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        order.push_back(id.to_owned());
        false
    }

    /// It came to nothing, so its repeat is the first.
    pub(super) fn forget(&self, id: &str) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.1.remove(id) {
            ids.0.retain(|other| other != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_heard_once_and_memory_is_bounded() {
        let heard = ReplayCache::new(2);
        assert!(!heard.again("01A") && heard.again("01A"));
        assert!(!heard.again("") && !heard.again(""));
        assert!(!heard.again("01B") && !heard.again("01C"));
        assert!(!heard.again("01A"), "the oldest is forgotten");
        assert!(heard.again("01C"));
        heard.forget("01C");
        assert!(!heard.again("01C") && heard.again("01A"));
    }
}
