//! How long the application's writes and the blocks of a recovery wait for each other: nobody else
//! sees it. A look at the clock only where something has to wait.

use super::Mirror;
use crate::status::Waits;
use crate::units::{Extent, Millis};
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waiting {
    Write,
    Copy,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watch {
    sums: Waits,
    open: BTreeMap<u64, (Waiting, Millis)>,
}

impl Watch {
    /// Who waited goes on.
    fn granted(&mut self, token: u64, now: Millis) {
        let Some((who, since)) = self.open.remove(&token) else { return };
        let ms = now.since(since);
        let (count, sum) = match who {
            Waiting::Write => (&mut self.sums.writes, &mut self.sums.write_ms),
            Waiting::Copy => (&mut self.sums.copies, &mut self.sums.copy_ms),
        };
        *count += 1;
        *sum += ms;
    }
}

impl Mirror {
    /// How long writes and recovery have waited for each other since this process began.
    #[must_use]
    pub fn waits(&self) -> Waits {
        self.waits.sums
    }

    /// A write has to wait for its range: it counts if a block of a recovery is in its way.
    pub(super) fn write_waits(&mut self, token: u64, extent: Extent) {
        let copying = self.session().and_then(|s| s.copying.as_ref());
        if copying.is_some_and(|c| c.is_at(extent)) {
            self.waits.open.insert(token, (Waiting::Write, self.now.mono));
        }
    }

    /// A block of a recovery has to wait for its range.
    pub(super) fn copy_waits(&mut self, token: u64) {
        self.waits.open.insert(token, (Waiting::Copy, self.now.mono));
    }

    pub(super) fn waits_no_more(&mut self, token: u64) {
        let now = self.now.mono;
        self.waits.granted(token, now);
    }

    /// It left without having been granted anything.
    pub(super) fn waits_given_up(&mut self, token: u64) {
        self.waits.open.remove(&token);
    }
}
