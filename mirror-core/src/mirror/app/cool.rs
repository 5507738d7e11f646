//! When marks that writing has left behind go (rule 2).

use super::Origin;
use crate::mirror::Mirror;
use crate::mirror::link::Link;
use crate::rules::{Rule, holds};
use crate::units::Millis;

/// The flushes after which hot marks may go.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::mirror) struct Cool {
    running: bool,
    not_before: Millis,
}

/// Pause between two rounds of making room among the hot marks, ms.
const CROWDED_PAUSE_MS: u64 = 500;

impl Mirror {
    pub(in crate::mirror) fn cool_deadline(&self) -> Option<Millis> {
        let idle =
            self.hot.len() > 0 && self.is_mirroring() && !self.cool.running && !self.device_failed;
        let last = self.last_write.filter(|_| idle)?;
        Some(last.plus(self.tuning.cool_ms))
    }

    /// Lets marks go: all clean ones when writing has paused, the oldest when there are too many.
    pub(in crate::mirror) fn cool_down(&mut self) {
        if !self.is_mirroring() || self.cool.running || self.device_failed {
            return;
        }
        let paused = self.cool_deadline().is_some_and(|due| due <= self.now.mono);
        let crowded =
            self.hot.len() > self.tuning.hot_regions && self.cool.not_before <= self.now.mono;
        if !paused && !crowded {
            return;
        }
        self.cool = Cool { running: true, not_before: self.now.mono.plus(CROWDED_PAUSE_MS) };
        self.begin_flush(Origin::Cool);
        self.advance_waiting();
    }

    pub(super) fn cooled(&mut self, ok: bool) {
        self.cool.running = false;
        if !ok || !self.is_mirroring() {
            return;
        }
        let over = self.hot.len().saturating_sub(self.tuning.hot_regions * 3 / 4);
        let paused = self.cool_deadline().is_some_and(|due| due <= self.now.mono);
        let limit = if paused { usize::MAX } else { over };
        self.clear_clean_marks(limit);
        if paused {
            self.last_write = None;
        }
    }

    /// Rule 2: clears marks that both disks have flushed, but none that is dirty.
    pub(in crate::mirror) fn clear_clean_marks(&mut self, limit: usize) {
        // What the mirror grows by is marked for the copy to come.
        if self.device_failed || self.growth.is_recording() {
            return;
        }
        let dirty = match &self.link {
            Link::Session(session) => session.dirty.as_ref(),
            _ => return,
        };
        let gone = self
            .hot
            .take_clean(limit, |r| holds(Rule::DirtyAtStart) && dirty.is_some_and(|d| d.get(r)));
        if let Some(marks) = &mut self.meta.marks {
            for r in gone {
                marks.clear(r);
            }
        }
    }
}
