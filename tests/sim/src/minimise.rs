//! Makes a failure small: fewer kinds of faults, then fewer steps.

use crate::converge::run_seed;
use crate::options::Options;

/// A failing run.
#[derive(Clone, Copy, Debug)]
pub struct Failing {
    /// Its seed.
    pub seed: u64,
    /// Its options.
    pub options: Options,
}

/// The first of `runs` seeds from `seed` on that fails.
#[must_use]
pub fn first_failing(seed: u64, runs: u64, options: Options) -> Option<Failing> {
    (seed..seed + runs)
        .find(|seed| run_seed(*seed, options).is_err())
        .map(|seed| Failing { seed, options })
}

/// Tries to do without each kind of fault, and with fewer steps; up to `runs` seeds are tried
/// for each, since another choice of faults makes another run of a seed.
#[must_use]
pub fn minimise(mut failing: Failing, runs: u64) -> Failing {
    let kinds = failing.options.kinds().map(|(name, _)| name);
    for kind in kinds.into_iter().filter(|k| *k != "steps") {
        let mut options = failing.options;
        for (name, rate) in options.kinds() {
            if name == kind {
                *rate = 0;
            }
        }
        failing = first_failing(failing.seed, runs, options).unwrap_or(failing);
    }
    for steps in [3, 5, 8, 12, 18, 25, 35, 50, 70, 90] {
        if steps < failing.options.steps {
            let options = Options { steps, ..failing.options };
            if let Some(smaller) = first_failing(failing.seed, runs, options) {
                return smaller;
            }
        }
    }
    failing
}

/// The kinds of faults that are left, as arguments of `vopr --only`.
#[must_use]
pub fn kinds_left(mut options: Options) -> String {
    let left = options.kinds().into_iter().filter(|(name, rate)| **rate > 0 && *name != "steps");
    left.map(|(name, rate)| format!("{name}={rate}")).collect::<Vec<_>>().join(",")
}
