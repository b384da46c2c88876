//! Which deliveries were taken already.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// Deliveries that are remembered; the oldest is forgotten first.
const REMEMBERED: usize = 1024;

/// Deliveries by a hash of provider and id, so that a long id costs no more than a short one.
#[derive(Debug, Default)]
pub struct Replays {
    hasher: RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Replays {
    /// Remembers a delivery; whether it is new.
    pub fn is_new(&mut self, provider: &str, id: &str) -> bool {
        let hash = self.hasher.hash_one((provider, id));
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_new_once_until_it_is_forgotten() {
        let mut replays = Replays::default();
        assert!(replays.is_new("github", "1"));
        assert!(!replays.is_new("github", "1"));
        assert!(replays.is_new("gitlab", "1"));
        for n in 0..REMEMBERED {
            assert!(replays.is_new("github", &format!("n{n}")));
        }
        assert_eq!(replays.known.len(), REMEMBERED);
        assert!(replays.is_new("github", "1"));
    }
}
