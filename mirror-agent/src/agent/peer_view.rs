//! What the other agent says of a mirror while the mirror connect does not tell.

use crate::ctl::MirrorReport;
use crate::monitor::PeerDriver;
use crate::peer::ASK_LIMIT;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the other agent said is good for so long.
const LIFE: Duration = Duration::from_secs(10);

/// For a question after others that went unanswered: three round trips of a slow line.
const ONCE_MORE: Duration = Duration::from_secs(1);

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
pub(super) struct PeerView(Mutex<View>);

#[derive(Default)]
struct View {
    said: Option<(Instant, Said)>,
    /// When the first of the questions was put that have gone unanswered since.
    asked_in_vain: Option<Instant>,
}

impl PeerView {
    /// A question is put now.
    pub(super) fn asking(&self) {
        self.view().asked_in_vain.get_or_insert_with(Instant::now);
    }

    pub(super) fn set(&self, said: Said) {
        let mut view = self.view();
        // An agent that is out of reach for a moment has still said what it said.
        let is_nothing = matches!(said, Said::Nothing);
        let keeps = is_nothing && view.said.as_ref().is_some_and(|(at, _)| at.elapsed() < LIFE);
        if !is_nothing {
            view.asked_in_vain = None;
        }
        if !keeps {
            view.said = Some((Instant::now(), said));
        }
    }

    /// How long an answer to a further question is to be waited for: as long as ever, less the time
    /// for which questions have gone unanswered. The last one is still put: whoever is back answers.
    pub(super) fn patience(&self) -> Duration {
        let vain = self.view().asked_in_vain.map_or(Duration::ZERO, |since| since.elapsed());
        ASK_LIMIT.saturating_sub(vain).max(ONCE_MORE)
    }

    /// Forgets it: the mirror connect works, and after it all that may be wrong.
    pub(super) fn forget(&self) {
        *self.view() = View::default();
    }

    fn lately(&self) -> Option<Said> {
        self.view()
            .said
            .as_ref()
            .filter(|(at, _)| at.elapsed() < LIFE)
            .map(|(_, said)| said.clone())
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

    fn view(&self) -> MutexGuard<'_, View> {
        // A panic while it was held leaves a whole value behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(view: &PeerView, ago: Duration) {
        view.view().asked_in_vain = Instant::now().checked_sub(ago);
    }

    #[test]
    fn who_has_not_answered_for_a_while_is_not_waited_for_as_long_again() {
        let view = PeerView::default();
        assert_eq!(view.patience(), ASK_LIMIT);
        view.asking();
        view.set(Said::Nothing);
        since(&view, Duration::from_secs(1));
        let left = view.patience();
        assert!(left <= Duration::from_secs(2) && left > ONCE_MORE, "{left:?}");
        // The first question counts, not the last one.
        view.asking();
        since(&view, Duration::from_secs(60));
        view.asking();
        assert_eq!(view.patience(), ONCE_MORE);
        // An answer, or a session, and all is as before.
        view.set(Said::Abnormal);
        assert_eq!(view.patience(), ASK_LIMIT);
        view.asking();
        since(&view, Duration::from_secs(60));
        view.forget();
        assert_eq!(view.patience(), ASK_LIMIT);
    }
}
