//! Whether the loop stays awake while it waits for the ring.
//!
//! A thread that sleeps must be woken, and on a processor that sleeps, too, that takes as long as a
//! disk. So where the waits of late were short, and few operations are under way, the thread keeps
//! looking for about as long as it will have to wait. It never does when idle, and leaves it when
//! that does not pay, as where others need the processor. With many operations under way there is always something to do
//! meanwhile, and time spent looking would be lost to throughput.

use kmod_shim::sys::Awake;
use std::time::Duration;

/// Longer waits count as this long, µs.
const LONG_US: u32 = 1000;
/// Expected waits that are longer than this are slept through, µs.
const WORTH_US: u32 = 80;
/// Nobody who needs the processor is kept from it for longer, µs.
const LONGEST_US: u32 = 120;
/// Operations under way above which there is no hurry.
const FEW: u32 = 4;
/// Waits that are slept through after a flush: those threads need processors on both sides.
const FLUSH_REST: u32 = 16;
/// Averages go over about this many waits, and are kept as so many times the value.
const WEIGHT: u32 = 8;
/// Staying awake costs as much as so many times that it helped: where it was too short, and where
/// others needed the processor.
const TOO_SHORT: u32 = 6;
const DISTURBED: u32 = 8;
/// So many times that it helped are remembered.
const MOST_CREDIT: u32 = 32;
/// Waits that are slept through once it does not pay: at first, and at the most.
const REST: (u32, u32) = (256, 1 << 16);

/// What is waited for. The waits of each are of a length of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum For {
    /// The end of an operation that is under way: a disk's, or the peer's.
    Operation,
    /// The peer's next operation.
    Peer,
    /// An application. It may well be waiting for this very processor, so it is not looked out for.
    Application,
    /// A thread of the kernel's, for which the same is true.
    Thread,
}

/// What the loop learns from its waits.
#[derive(Debug)]
pub(super) struct Patience {
    /// Average lengths, for [`For::Operation`] and [`For::Peer`].
    operation_us: u32,
    peer_us: u32,
    depth: u32,
    /// How often staying awake has helped of late, less what it has cost.
    credit: u32,
    /// Waits still to be slept through, and how many it will be the next time.
    rest: u32,
    next_rest: u32,
    /// With one processor whatever is waited for would be kept from running.
    possible: bool,
}

impl Patience {
    pub(super) fn new(processors: usize) -> Self {
        Self {
            operation_us: LONG_US * WEIGHT,
            peer_us: LONG_US * WEIGHT,
            depth: 0,
            credit: DISTURBED,
            rest: 0,
            next_rest: REST.0,
            possible: processors > 1,
        }
    }

    /// How long to stay awake during the next wait; `None` means to sleep at once. `under_way` is
    /// how many operations are.
    pub(super) fn awake(&mut self, what: For, under_way: usize) -> Option<Duration> {
        let under_way = u32::try_from(under_way).unwrap_or(u32::MAX).min(LONG_US);
        self.depth = average(self.depth, under_way);
        if what == For::Thread {
            self.rest = self.rest.max(FLUSH_REST);
        }
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        let expected = match what {
            For::Operation => self.operation_us / WEIGHT,
            For::Peer => self.peer_us / WEIGHT,
            For::Application | For::Thread => return None,
        };
        let few = self.depth <= FEW * WEIGHT;
        let worth = self.possible && few && expected <= WORTH_US;
        worth.then(|| Duration::from_micros(u64::from((3 * expected + 20).min(LONGEST_US))))
    }

    /// A wait took so long; how staying awake went, if that was tried.
    pub(super) fn waited(&mut self, what: For, us: u64, awake: Option<Awake>) {
        let us = u32::try_from(us).unwrap_or(u32::MAX).min(LONG_US);
        match what {
            For::Operation => self.operation_us = average(self.operation_us, us),
            For::Peer => self.peer_us = average(self.peer_us, us),
            For::Application | For::Thread => {}
        }
        match awake {
            Some(Awake::Found) => {
                self.credit = MOST_CREDIT.min(self.credit + 1);
                self.next_rest = REST.0.max(self.next_rest - self.next_rest / 64);
            }
            Some(Awake::TooShort) => self.in_vain(TOO_SHORT),
            Some(Awake::Disturbed) => self.in_vain(DISTURBED),
            None => {}
        }
    }

    fn in_vain(&mut self, cost: u32) {
        if let Some(left) = self.credit.checked_sub(cost) {
            self.credit = left;
            return;
        }
        self.credit = DISTURBED;
        self.rest = self.next_rest;
        self.next_rest = (2 * self.next_rest).min(REST.1);
    }
}

fn average(sum: u32, new: u32) -> u32 {
    sum - sum / WEIGHT + new
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits of this length, as they come when nothing else wants the processor; how many of them
    /// were spent awake.
    fn waits(patience: &mut Patience, what: For, depth: usize, us: u64, count: usize) -> usize {
        let mut awake = 0;
        for _ in 0..count {
            let tried = patience.awake(what, depth);
            let enough = |limit| if us <= micros(limit) { Awake::Found } else { Awake::TooShort };
            patience.waited(what, us, tried.map(enough));
            awake += usize::from(tried.is_some());
        }
        awake
    }

    fn micros(time: Duration) -> u64 {
        u64::try_from(time.as_micros()).unwrap()
    }

    #[test]
    fn short_waits_are_spent_awake_and_long_ones_asleep() {
        for what in [For::Operation, For::Peer] {
            let mut patience = Patience::new(2);
            assert!(patience.awake(what, 1).is_none(), "nothing is known yet");
            waits(&mut patience, what, 1, 50, 100);
            assert_eq!(waits(&mut patience, what, 1, 50, 100), 100);
            let awake = patience.awake(what, 1).unwrap();
            assert!((50..=120).contains(&micros(awake)), "{awake:?}");
            waits(&mut patience, what, 1, 5000, 100);
            assert_eq!(waits(&mut patience, what, 1, 5000, 100), 0);
        }
    }

    #[test]
    fn a_pause_costs_one_short_look() {
        let mut patience = Patience::new(2);
        waits(&mut patience, For::Peer, 0, 50, 100);
        let looks = waits(&mut patience, For::Peer, 0, 500_000, 20);
        assert!(looks <= 2, "{looks} times awake while idle");
    }

    #[test]
    fn nobody_stays_awake_for_an_application_nor_with_much_under_way_nor_on_one_processor() {
        for what in [For::Application, For::Thread] {
            assert_eq!(waits(&mut Patience::new(2), what, 1, 20, 100), 0);
        }
        let mut patience = Patience::new(2);
        waits(&mut patience, For::Operation, 32, 20, 100);
        assert_eq!(waits(&mut patience, For::Operation, 32, 20, 100), 0);
        assert_eq!(waits(&mut Patience::new(1), For::Operation, 1, 20, 1000), 0);
    }

    #[test]
    fn after_a_flush_the_next_waits_are_slept_through() {
        let mut patience = Patience::new(2);
        waits(&mut patience, For::Operation, 1, 50, 100);
        assert_eq!(waits(&mut patience, For::Thread, 1, 50, 1), 0);
        assert_eq!(waits(&mut patience, For::Operation, 1, 50, 15), 0);
        assert_eq!(waits(&mut patience, For::Operation, 1, 50, 10), 10);
    }

    /// Every second time it is in vain.
    #[test]
    fn what_does_not_pay_is_left_and_tried_again_ever_more_seldom() {
        let mut patience = Patience::new(2);
        waits(&mut patience, For::Operation, 1, 50, 100);
        let mut awake = 0;
        for i in 0..20_000 {
            let tried = patience.awake(For::Operation, 1);
            let ended = if i % 2 == 0 { Awake::Found } else { Awake::Disturbed };
            patience.waited(For::Operation, 50, tried.map(|_| ended));
            awake += u32::from(tried.is_some());
        }
        assert!((20..200).contains(&awake), "{awake} of 20000");
        // When the others are gone it is found out.
        waits(&mut patience, For::Operation, 1, 50, 1 << 16);
        assert_eq!(waits(&mut patience, For::Operation, 1, 50, 100), 100);
    }
}
