//! Times, counted in fixed buckets: four in each octave of microseconds, so that what is read off
//! them is at most a quarter too long. Adding one costs a few instructions and no memory.

use serde::{Deserialize, Serialize};

/// Times of 2^32 microseconds (71 minutes) and more share the last bucket.
pub const BUCKETS: usize = 124;

/// Counted times in microseconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "Sparse", into = "Sparse")]
pub struct Histogram {
    /// How many.
    pub count: u64,
    /// All of them together.
    pub sum_us: u64,
    /// The longest.
    pub max_us: u64,
    /// The longest since [`Histogram::take_peak`].
    pub peak_us: u64,
    /// The latest.
    pub last_us: u64,
    counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { count: 0, sum_us: 0, max_us: 0, peak_us: 0, last_us: 0, counts: [0; BUCKETS] }
    }
}

/// The bucket of a time.
fn index(us: u64) -> usize {
    let v = u32::try_from(us).unwrap_or(u32::MAX);
    if v < 4 {
        return v as usize;
    }
    let octave = v.ilog2();
    (((octave - 1) << 2) | ((v >> (octave - 2)) & 3)) as usize
}

/// The longest time of a bucket, in microseconds.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < 4 {
        return index;
    }
    ((5 + index % 4) << (index / 4 - 1)) - 1
}

impl Histogram {
    /// Counts a time in microseconds.
    pub fn add(&mut self, us: u64) {
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
        self.peak_us = self.peak_us.max(us);
        self.last_us = us;
        self.counts[index(us)] += 1;
    }

    /// Begins a new interval for [`Histogram::peak_us`].
    pub fn take_peak(&mut self) {
        self.peak_us = 0;
    }

    /// What was counted since `earlier`, an older state of the same. The longest time is exact if
    /// it is the longest of all, else that of its bucket.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut new = self.clone();
        new.count = self.count.saturating_sub(earlier.count);
        new.sum_us = self.sum_us.saturating_sub(earlier.sum_us);
        for (count, before) in new.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*before);
        }
        let last = new.counts.iter().rposition(|n| *n > 0);
        new.max_us = match last {
            Some(_) if self.max_us > earlier.max_us => self.max_us,
            Some(last) => upper(last).min(self.max_us),
            None => 0,
        };
        new
    }

    /// Mean in microseconds; 0 if nothing was counted.
    #[must_use]
    pub fn mean_us(&self) -> u64 {
        self.sum_us.checked_div(self.count).unwrap_or(0)
    }

    /// The time that so many per cent took at most, in microseconds; 0 if nothing was counted.
    #[must_use]
    pub fn percentile_us(&self, percent: u8) -> u64 {
        let wanted = (u128::from(self.count) * u128::from(percent)).div_ceil(100);
        let mut seen = 0;
        for (at, n) in self.counts.iter().enumerate() {
            seen += u128::from(*n);
            if seen >= wanted && seen > 0 {
                return upper(at).min(self.max_us);
            }
        }
        0
    }

    /// How many took less than 2^`octave` microseconds.
    #[must_use]
    pub fn below(&self, octave: u32) -> u64 {
        let end = index(1 << octave.min(31));
        self.counts[..end].iter().sum()
    }
}

/// As it is sent: most buckets are empty.
#[derive(Serialize, Deserialize)]
struct Sparse {
    count: u64,
    sum_us: u64,
    max_us: u64,
    peak_us: u64,
    last_us: u64,
    buckets: Vec<(u8, u64)>,
}

impl From<Histogram> for Sparse {
    fn from(h: Histogram) -> Self {
        let filled = h.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        let buckets = filled.filter_map(|(at, n)| Some((u8::try_from(at).ok()?, *n))).collect();
        let Histogram { count, sum_us, max_us, peak_us, last_us, .. } = h;
        Self { count, sum_us, max_us, peak_us, last_us, buckets }
    }
}

impl From<Sparse> for Histogram {
    fn from(s: Sparse) -> Self {
        let Sparse { count, sum_us, max_us, peak_us, last_us, buckets } = s;
        let mut counts = [0; BUCKETS];
        // A bucket that there is not here is one of another version.
        for (at, n) in buckets {
            if let Some(bucket) = counts.get_mut(usize::from(at)) {
                *bucket = n;
            }
        }
        Self { count, sum_us, max_us, peak_us, last_us, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, index, upper};
    use proptest::prelude::*;

    #[test]
    fn the_buckets_follow_one_another() {
        assert_eq!(index(u64::MAX), BUCKETS - 1);
        assert_eq!(upper(BUCKETS - 1), u64::from(u32::MAX));
        for at in 0..BUCKETS - 1 {
            assert_eq!(index(upper(at)), at);
            assert_eq!(index(upper(at) + 1), at + 1);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_off_is_at_most_a_quarter_too_long(us in 0_u64..=u64::from(u32::MAX)) {
            let at = upper(index(us));
            prop_assert!(at >= us && at <= us + us / 4);
        }

        #[test]
        fn percentiles_are_in_order_and_no_longer_than_the_longest(
            times in proptest::collection::vec(0_u64..10_000_000, 1..200)
        ) {
            let mut h = Histogram::default();
            times.iter().for_each(|t| h.add(*t));
            let of = [1, 50, 99, 100].map(|p| h.percentile_us(p));
            prop_assert!(of.windows(2).all(|w| w[0] <= w[1]), "{of:?}");
            prop_assert_eq!(Some(&of[3]), times.iter().max());
        }

        #[test]
        fn an_interval_has_what_came_in_it(
            first in proptest::collection::vec(0_u64..1_000_000, 0..50),
            then in proptest::collection::vec(0_u64..1_000_000, 0..50),
        ) {
            let (mut h, mut alone) = (Histogram::default(), Histogram::default());
            first.iter().for_each(|t| h.add(*t));
            let before = h.clone();
            then.iter().for_each(|t| { h.add(*t); alone.add(*t); });
            let new = h.since(&before);
            prop_assert_eq!((new.count, new.sum_us), (alone.count, alone.sum_us));
            prop_assert_eq!(new.counts, alone.counts);
            prop_assert!(new.max_us >= alone.max_us);
            prop_assert!(new.max_us <= alone.max_us + alone.max_us / 4);
        }
    }

    #[test]
    fn it_is_the_same_after_it_was_sent() {
        let mut h = Histogram::default();
        [0, 3, 4, 17, 1000, u64::MAX].iter().for_each(|t| h.add(*t));
        let line = serde_json::to_string(&h).expect("a text");
        assert_eq!(serde_json::from_str::<Histogram>(&line).expect("understood"), h);
        let odd = line.replace("\"buckets\":[", "\"buckets\":[[255,9],");
        assert_eq!(serde_json::from_str::<Histogram>(&odd).expect("understood"), h);
    }

    #[test]
    fn a_new_interval_has_a_peak_of_its_own() {
        let mut h = Histogram::default();
        h.add(100);
        h.take_peak();
        h.add(7);
        assert_eq!((h.max_us, h.peak_us, h.last_us), (100, 7, 7));
        assert_eq!((h.below(0), h.below(3), h.below(7)), (0, 1, 2));
    }
}
