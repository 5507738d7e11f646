//! Times of single operations, and what is said of them.

use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long each operation took.
pub(crate) struct Samples {
    micros: Vec<f64>,
    bytes: u32,
    elapsed: Duration,
}

impl Samples {
    /// Repeats `operation`, which moves `bytes`, for `length`.
    pub(crate) fn take<E>(
        length: Duration,
        bytes: u32,
        mut operation: impl FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        let start = Instant::now();
        let mut micros = Vec::new();
        let mut before = start;
        while before - start < length {
            operation()?;
            let now = Instant::now();
            micros.push((now - before).as_secs_f64() * 1e6);
            before = now;
        }
        Ok(Self::of(micros, bytes, before - start))
    }

    /// Operations of `bytes` each that took `micros`, all of them together `elapsed`.
    pub(crate) fn of(mut micros: Vec<f64>, bytes: u32, elapsed: Duration) -> Self {
        micros.sort_by(f64::total_cmp);
        Self { micros, bytes, elapsed }
    }

    fn percentile(&self, percent: usize) -> f64 {
        self.micros.get(self.micros.len() * percent / 100).copied().unwrap_or(0.0)
    }

    /// Operations and megabytes per second, median and 99th percentile in microseconds.
    pub(crate) fn json(&self) -> Value {
        #[allow(clippy::cast_precision_loss)] // a count of some seconds
        let rate = self.micros.len() as f64 / self.elapsed.as_secs_f64();
        json!({
            "iops": rate,
            "mbps": rate * f64::from(self.bytes) / 1e6,
            "p50_us": self.percentile(50),
            "p99_us": self.percentile(99),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let samples = Samples {
            micros: (0..100).map(f64::from).collect(),
            bytes: 1_000_000,
            elapsed: Duration::from_secs(10),
        };
        let json = samples.json();
        assert_eq!(json["p50_us"], 50.0);
        assert_eq!(json["p99_us"], 99.0);
        assert_eq!(json["iops"], 10.0);
        assert_eq!(json["mbps"], 10.0);
    }

    #[test]
    fn an_operation_that_fails_ends_the_measurement() {
        let mut left = 3;
        let samples = Samples::take(Duration::from_secs(60), 1, || {
            left -= 1;
            if left == 0 { Err("no more") } else { Ok(()) }
        });
        assert_eq!(samples.err(), Some("no more"));
    }
}
