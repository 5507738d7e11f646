//! A named sequence of steps, and what notices when a rule that it needs is dropped.

use super::stage::Stage;
use mirror_core::rules::Rule;

/// Rules that a scenario cannot do without: with all of them dropped it fails.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// The rules; more than one where each covers for the others.
    pub by: &'static [Rule],
    /// A part of what the failure says then.
    pub otherwise: &'static str,
}

/// A named sequence of steps.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name; a variant follows after a slash.
    pub name: &'static str,
    /// What happens, in one line.
    pub about: &'static str,
    /// What closes it.
    pub closed: &'static [Closed],
    /// The steps.
    pub steps: fn(&mut Stage),
}

/// How a scenario was played.
#[derive(Debug)]
pub struct Played {
    /// What did not hold.
    pub result: Result<(), String>,
    /// Each event.
    pub history: Vec<String>,
}

impl Scenario {
    /// Plays it with the rules that are in force in this thread; the disks of both sides are judged
    /// at the end, after everything has been healed.
    #[must_use]
    pub fn play(&self, verbose: bool) -> Played {
        let mut stage = Stage::new(verbose);
        (self.steps)(&mut stage);
        stage.finish()
    }

    /// Plays it with all rules in force, and again without those that close it.
    ///
    /// # Panics
    /// If it fails with all rules in force, or goes unnoticed without one that closes it.
    pub fn check(&self) {
        let played = self.play(false);
        if let Err(text) = played.result {
            panic!("{}: {text}\n{}", self.name, played.history.join("\n"));
        }
        #[cfg(feature = "mutations")]
        self.closed.iter().for_each(|closed| self.check_without(closed));
    }

    #[cfg(feature = "mutations")]
    fn check_without(&self, closed: &Closed) {
        mirror_core::rules::drop_rules(closed.by);
        let played = self.play(false);
        mirror_core::rules::drop_rules(&[]);
        let (name, by) = (self.name, closed.by);
        match played.result {
            Err(text) if text.contains(closed.otherwise) => {}
            Err(text) => {
                let history = played.history.join("\n");
                panic!("{name} without {by:?} fails in another way: {text}\n{history}");
            }
            Ok(()) => {
                panic!("{name}: {by:?} dropped, nobody notices\n{}", played.history.join("\n"));
            }
        }
    }
}
