//! What the other agent says of a mirror while the mirror connect does not tell.

use crate::ctl::MirrorReport;
use crate::monitor::PeerDriver;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the other agent said is good for so long.
const LIFE: Duration = Duration::from_secs(10);

/// What the other agent said, or did not say.
#[derive(Clone)]
pub(super) enum Said {
    /// Its view of the mirror.
    Report(Box<MirrorReport>),
    /// Its driver of the mirror does not run.
    Abnormal,
    /// It could not be asked.
    Nothing,
}

/// The last of it.
#[derive(Default)]
pub(super) struct PeerView(Mutex<Option<(Instant, Said)>>);

impl PeerView {
    pub(super) fn set(&self, said: Said) {
        let mut view = self.view();
        // An agent that is out of reach for a moment has still said what it said.
        let keeps = matches!(said, Said::Nothing)
            && view.as_ref().is_some_and(|(at, _)| at.elapsed() < LIFE);
        if !keeps {
            *view = Some((Instant::now(), said));
        }
    }

    /// Forgets it: the mirror connect works, and after it all that may be wrong.
    pub(super) fn forget(&self) {
        *self.view() = None;
    }

    fn lately(&self) -> Option<Said> {
        self.view().as_ref().filter(|(at, _)| at.elapsed() < LIFE).map(|(_, said)| said.clone())
    }

    /// The other agent's view, if it gave one lately.
    pub(super) fn report(&self) -> Option<MirrorReport> {
        match self.lately() {
            Some(Said::Report(report)) => Some(*report),
            _ => None,
        }
    }

    pub(super) fn driver(&self) -> PeerDriver {
        match self.lately() {
            Some(Said::Report(_)) => PeerDriver::Runs,
            Some(Said::Abnormal) => PeerDriver::Abnormal,
            Some(Said::Nothing) | None => PeerDriver::Unknown,
        }
    }

    fn view(&self) -> MutexGuard<'_, Option<(Instant, Said)>> {
        // A panic while it was held leaves a whole value behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
