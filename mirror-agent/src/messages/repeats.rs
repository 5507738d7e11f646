//! Lines that come again and again: some are let through, the rest is counted, and the count is
//! told at longer and longer intervals.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Equal lines that are let through at first.
const BURST: u32 = 5;
/// First interval of counting; each one in which the line came again is followed by one of twice
/// the length, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
/// Different lines that are watched. When there are more, all count as new.
const WATCHED: usize = 256;

struct Line<T> {
    what: T,
    until: Instant,
    length: Duration,
    /// How many may still be let through in this interval.
    room: u32,
    kept_back: u64,
}

/// See the module. `T` is what is told of a line once its repeats were counted.
pub(super) struct Repeats<T> {
    lines: HashMap<String, Line<T>>,
}

impl<T: Clone> Repeats<T> {
    pub(super) fn new() -> Self {
        Self { lines: HashMap::new() }
    }

    /// Whether this line is to be let through. If not, it is counted.
    pub(super) fn lets_through(&mut self, line: &str, what: &T, now: Instant) -> bool {
        if let Some(known) = self.lines.get_mut(line) {
            if known.room > 0 {
                known.room -= 1;
                return true;
            }
            known.kept_back += 1;
            return false;
        }
        if self.lines.len() >= WATCHED {
            self.make_room(now);
            if self.lines.len() >= WATCHED {
                return true; // until their counts were told
            }
        }
        let first = Line {
            what: what.clone(),
            until: now + FIRST,
            length: FIRST,
            room: BURST - 1,
            kept_back: 0,
        };
        self.lines.insert(line.to_owned(), first);
        true
    }

    /// Lines that were not kept back make room for others. The counts of the rest are due at once.
    fn make_room(&mut self, now: Instant) {
        self.lines.retain(|_, line| line.kept_back > 0);
        if self.lines.len() >= WATCHED {
            self.lines.values_mut().for_each(|line| line.until = now);
        }
    }

    /// The counts that are to be told now: the line, what it is of, how often it was kept back
    /// and within which time.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(String, T, u64, Duration)> {
        let mut told = Vec::new();
        self.lines.retain(|text, line| {
            if now < line.until {
                return true;
            }
            let came_again = line.kept_back > 0;
            if came_again {
                told.push((text.clone(), line.what.clone(), line.kept_back, line.length));
                line.length = (line.length * 2).min(LONGEST);
                line.until = now + line.length;
                line.kept_back = 0;
            }
            came_again
        });
        told
    }

    /// All counts, at the end.
    pub(super) fn rest(&mut self) -> Vec<(String, T, u64, Duration)> {
        let rest = self.lines.drain().filter(|(_, line)| line.kept_back > 0);
        rest.map(|(text, line)| (text, line.what, line.kept_back, line.length)).collect()
    }

    /// How long until [`due`](Self::due) may have something.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let next = self.lines.values().filter(|l| l.kept_back > 0).map(|l| l.until).min()?;
        Some(next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::{BURST, FIRST, Repeats, WATCHED};
    use std::time::{Duration, Instant};

    #[test]
    fn repeats_are_counted_and_told_at_longer_and_longer_intervals() {
        let (mut repeats, begin) = (Repeats::new(), Instant::now());
        let mut let_through = 0;
        let mut counted = Vec::new();
        // A line each second for an hour.
        for second in 0..3600 {
            let now = begin + Duration::from_secs(second);
            counted.extend(repeats.due(now).into_iter().map(|(_, (), n, _)| n));
            let_through += u32::from(repeats.lets_through("again", &(), now));
        }
        assert_eq!(let_through, BURST, "{counted:?}");
        assert!(counted.len() <= 6 && counted.iter().is_sorted(), "{counted:?}");
        let told: u64 = counted.iter().sum();
        let rest: u64 = repeats.rest().iter().map(|(_, (), n, _)| n).sum();
        assert_eq!(told + rest + u64::from(let_through), 3600, "none is forgotten");
    }

    #[test]
    fn another_line_and_one_after_a_quiet_time_are_let_through() {
        let (mut repeats, begin) = (Repeats::new(), Instant::now());
        for _ in 0..BURST + 1 {
            repeats.lets_through("one", &(), begin);
        }
        assert!(!repeats.lets_through("one", &(), begin));
        assert!(repeats.lets_through("other", &(), begin));
        assert_eq!(repeats.wait(begin), Some(FIRST));
        assert_eq!(repeats.due(begin + FIRST).len(), 1);
        let quiet = begin + FIRST * 3;
        assert!(repeats.due(quiet).is_empty());
        assert_eq!(repeats.wait(quiet), None);
        assert!(repeats.lets_through("one", &(), quiet), "it has stopped meanwhile");
    }

    #[test]
    fn what_is_watched_is_bounded() {
        let (mut repeats, now) = (Repeats::new(), Instant::now());
        for n in 0..10 * WATCHED {
            assert!(repeats.lets_through(&n.to_string(), &(), now));
        }
        assert!(repeats.lines.len() <= WATCHED);
        // However many there are, no count is forgotten.
        let (mut repeats, mut let_through, mut told) = (Repeats::new(), 0, 0);
        for n in 0..4 * WATCHED {
            for _ in 0..2 * BURST {
                let_through += u64::from(repeats.lets_through(&n.to_string(), &(), now));
            }
            assert!(repeats.lines.len() <= WATCHED);
        }
        told += repeats.due(now).iter().map(|(_, (), n, _)| n).sum::<u64>();
        told += repeats.rest().iter().map(|(_, (), n, _)| n).sum::<u64>();
        assert_eq!(let_through + told, 4 * 2 * WATCHED as u64 * u64::from(BURST));
    }
}
