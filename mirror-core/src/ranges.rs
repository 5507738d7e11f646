//! Requests that overlap go one after the other, in the order in which they came (rule 5).
//!
//! A request enters with its extent and goes on when nothing that came earlier and overlaps it is
//! still there, be it at work or waiting itself. Because it waits for earlier ones only, nothing
//! can wait in a circle and nothing is overtaken for ever.

use crate::rules::{Rule, holds};
use crate::units::Extent;

/// What a request may share its extent with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Other shared requests (reads).
    Shared,
    /// Nothing (writes, copies).
    Exclusive,
}

impl Mode {
    fn conflicts(self, other: Self) -> bool {
        match (self, other) {
            (Self::Shared, Self::Shared) => false,
            (Self::Exclusive, Self::Exclusive) => true,
            _ => holds(Rule::ReadsWait),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    token: u64,
    extent: Extent,
    mode: Mode,
    /// Earlier entries in conflict with this one; 0 = granted.
    blockers: usize,
}

impl Entry {
    fn conflicts(&self, extent: Extent, mode: Mode) -> bool {
        holds(Rule::Overlap) && self.mode.conflicts(mode) && self.extent.overlaps(extent)
    }
}

/// The requests at work and those that wait. A call costs time in proportion to their number,
/// which the owner bounds (rule 12).
#[derive(Default, Debug)]
pub struct Ranges {
    /// In order of arrival.
    entries: Vec<Entry>,
}

impl Ranges {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a request under `token`. True: it may go on at once. False: it waits, and the token
    /// will be among those that [`Ranges::leave`] or [`Ranges::cancel`] returns. An empty extent
    /// never waits.
    pub fn enter(&mut self, token: u64, extent: Extent, mode: Mode) -> bool {
        debug_assert!(!self.contains(token), "token {token} entered twice");
        let blockers = self.entries.iter().filter(|e| e.conflicts(extent, mode)).count();
        self.entries.push(Entry { token, extent, mode, blockers });
        blockers == 0
    }

    /// Removes a request that ended, and returns the tokens that may go on now, in the order of
    /// their arrival. An unknown token releases nothing.
    #[must_use = "the requests returned wait to go on"]
    pub fn leave(&mut self, token: u64) -> Vec<u64> {
        self.remove(token)
    }

    /// Removes a request that gives up, waiting or granted; returns as [`Ranges::leave`]. The
    /// caller must not cancel a request whose I/O may still land (rule 12).
    #[must_use = "the requests returned wait to go on"]
    pub fn cancel(&mut self, token: u64) -> Vec<u64> {
        self.remove(token)
    }

    fn remove(&mut self, token: u64) -> Vec<u64> {
        let Some(at) = self.entries.iter().position(|e| e.token == token) else {
            return Vec::new();
        };
        let gone = self.entries.remove(at);
        let mut granted = Vec::new();
        for later in &mut self.entries[at..] {
            if later.conflicts(gone.extent, gone.mode) {
                later.blockers -= 1;
                if later.blockers == 0 {
                    granted.push(later.token);
                }
            }
        }
        granted
    }

    /// Whether a request would have to wait if it entered now.
    #[must_use]
    pub fn conflicts(&self, extent: Extent, mode: Mode) -> bool {
        self.entries.iter().any(|e| e.conflicts(extent, mode))
    }

    /// Whether a request is here, waiting or granted.
    #[must_use]
    pub fn contains(&self, token: u64) -> bool {
        self.entries.iter().any(|e| e.token == token)
    }

    /// Requests here, waiting or granted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no request is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Mode::{Exclusive, Shared};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const fn at(offset: u64) -> Extent {
        Extent::new(offset, 10)
    }

    #[test]
    fn writes_to_one_place_go_in_order() {
        let mut ranges = Ranges::new();
        assert!(ranges.enter(1, at(0), Exclusive));
        assert!(!ranges.enter(2, at(5), Exclusive));
        assert!(!ranges.enter(3, at(9), Exclusive));
        assert!(ranges.enter(4, at(20), Exclusive));
        assert_eq!(ranges.leave(1), [2]);
        assert_eq!(ranges.leave(2), [3]);
        assert!(ranges.leave(3).is_empty());
        assert_eq!(ranges.len(), 1);
    }

    #[test]
    fn reads_share_but_do_not_overtake_a_waiting_write() {
        let mut ranges = Ranges::new();
        assert!(ranges.enter(1, at(0), Shared));
        assert!(ranges.enter(2, at(0), Shared));
        assert!(!ranges.enter(3, at(0), Exclusive));
        assert!(!ranges.enter(4, at(0), Shared));
        assert!(!ranges.enter(5, at(0), Shared));
        assert!(ranges.leave(2).is_empty());
        assert_eq!(ranges.leave(1), [3]);
        assert_eq!(ranges.leave(3), [4, 5]);
    }

    #[test]
    fn a_waiter_that_gives_up_lets_the_next_ones_go_on() {
        let mut ranges = Ranges::new();
        assert!(ranges.enter(1, at(0), Shared));
        assert!(!ranges.enter(2, at(0), Exclusive));
        assert!(!ranges.enter(3, at(0), Shared));
        assert_eq!(ranges.cancel(2), [3]);
        assert!(ranges.cancel(2).is_empty());
    }

    #[test]
    fn a_flush_never_waits() {
        let mut ranges = Ranges::new();
        assert!(ranges.enter(1, at(0), Exclusive));
        assert!(ranges.enter(2, Extent::default(), Exclusive));
        assert!(ranges.leave(1).is_empty());
    }

    #[test]
    fn conflicts_says_what_enter_would() {
        let mut ranges = Ranges::new();
        assert!(!ranges.conflicts(at(0), Exclusive));
        assert!(ranges.enter(1, at(0), Shared));
        assert!(ranges.conflicts(at(9), Exclusive));
        assert!(!ranges.conflicts(at(9), Shared));
        assert!(!ranges.conflicts(at(10), Exclusive));
    }

    /// Arrivals in order, judged anew and in full each time.
    #[derive(Default)]
    struct Oracle {
        here: Vec<(u64, Extent, Mode)>,
        granted: BTreeSet<u64>,
    }

    impl Oracle {
        fn clash(a: &(u64, Extent, Mode), b: &(u64, Extent, Mode)) -> bool {
            let shared = a.2 == Shared && b.2 == Shared;
            !shared && a.1.offset < b.1.end() && b.1.offset < a.1.end()
        }

        /// Grants what nothing earlier forbids; returns the new ones.
        fn grant(&mut self) -> Vec<u64> {
            let free = self.here.iter().enumerate().filter(|(n, entry)| {
                !self.here[..*n].iter().any(|earlier| Self::clash(earlier, entry))
            });
            let new: Vec<u64> =
                free.map(|(_, e)| e.0).filter(|token| !self.granted.contains(token)).collect();
            self.granted.extend(&new);
            new
        }

        fn remove(&mut self, token: u64) -> Vec<u64> {
            self.here.retain(|e| e.0 != token);
            self.granted.remove(&token);
            self.grant()
        }

        fn check_exclusion(&self) {
            let holders: Vec<_> =
                self.here.iter().filter(|e| self.granted.contains(&e.0)).collect();
            for (n, a) in holders.iter().enumerate() {
                assert!(!holders[..n].iter().any(|b| Self::clash(a, b)), "two holders clash");
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Enter(u64, u64, bool),
        Leave(usize),
        Cancel(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0_u64..30, 1_u64..12, any::<bool>()).prop_map(|(o, l, s)| Op::Enter(o, l, s)),
            2 => any::<prop::sample::Index>().prop_map(|i| Op::Leave(i.index(1 << 16))),
            1 => any::<prop::sample::Index>().prop_map(|i| Op::Cancel(i.index(1 << 16))),
        ]
    }

    fn pick(tokens: &[u64], n: usize) -> Option<u64> {
        if tokens.is_empty() { None } else { Some(tokens[n % tokens.len()]) }
    }

    proptest! {
        #[test]
        fn it_serialises_as_the_oracle_and_grants_all_in_the_end(
            ops in prop::collection::vec(op(), 0..120),
        ) {
            let mut ranges = Ranges::new();
            let mut oracle = Oracle::default();
            for (token, op) in (0_u64..).zip(ops) {
                match op {
                    Op::Enter(offset, len, shared) => {
                        let (extent, mode) =
                            (Extent::new(offset, len), if shared { Shared } else { Exclusive });
                        let would_wait = ranges.conflicts(extent, mode);
                        let granted = ranges.enter(token, extent, mode);
                        oracle.here.push((token, extent, mode));
                        prop_assert_eq!(granted, oracle.grant() == [token]);
                        prop_assert_eq!(granted, !would_wait);
                    }
                    Op::Leave(n) => {
                        let holders: Vec<u64> = oracle.granted.iter().copied().collect();
                        if let Some(token) = pick(&holders, n) {
                            prop_assert_eq!(ranges.leave(token), oracle.remove(token));
                        }
                    }
                    Op::Cancel(n) => {
                        let all: Vec<u64> = oracle.here.iter().map(|e| e.0).collect();
                        if let Some(token) = pick(&all, n) {
                            prop_assert_eq!(ranges.cancel(token), oracle.remove(token));
                        }
                    }
                }
                oracle.check_exclusion();
                prop_assert_eq!(ranges.len(), oracle.here.len());
            }
            while let Some(first) = oracle.granted.first().copied() {
                prop_assert_eq!(ranges.leave(first), oracle.remove(first));
            }
            prop_assert!(ranges.is_empty() && oracle.here.is_empty(), "something starved");
        }
    }
}
