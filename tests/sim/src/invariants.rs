//! What must hold at every moment, whatever is in flight.

use crate::disk::Stamp;
use crate::world::World;
use mirror_core::direction::{Mode, Outcome, judge};
use mirror_core::marks::Marks;
use mirror_core::record::{Card, Record};
use mirror_core::status::LinkStatus;
use mirror_core::units::{REGION_BYTES, SessionNo};

/// The card that `record` would show after a restart.
fn card(record: Record, capacity: u64, marks: Option<&Marks>) -> Card {
    Card {
        record,
        active: false,
        uninterrupted: false,
        wants_recovery: true,
        apart: false,
        rejoins: false,
        capacity,
        device_block: 4096,
        marked: marks.map_or(0, Marks::count),
    }
}

impl World {
    /// Checks both sides as they are now.
    pub(crate) fn check_invariants(&mut self) {
        let broken = self
            .check_activity()
            .and_then(|()| self.check_cover())
            .and_then(|()| self.check_promises());
        if let Err(text) = broken {
            self.fail(text);
        }
    }

    fn check_activity(&self) -> Result<(), String> {
        let now = self.now();
        let mut session: Option<SessionNo> = None;
        for (n, node) in self.nodes.iter().enumerate() {
            let Some(mirror) = node.mirror.as_ref().filter(|m| m.is_active()) else { continue };
            if mirror.record().inconsistent.is_some() {
                return Err(format!("server{} is active and half copied", n + 1));
            }
            if mirror.status(now).link == LinkStatus::Session {
                let number = mirror.record().session;
                if session.replace(number) == Some(number) {
                    return Err(format!("both are active in session {}", number.0));
                }
            }
        }
        Ok(())
    }

    /// Each difference between the sides is covered: by a durable mark, or by records that lead to
    /// a copy of everything or to an operator. This holds for what the disks would return now, and
    /// for what a loss of power would leave.
    fn check_cover(&self) -> Result<(), String> {
        let [a, b] = &self.nodes;
        let blocks = self.mirrored_blocks()?;
        let cut = |content: &'_ [Stamp]| content[..blocks.min(content.len())].to_vec();
        let contents = [
            (a.data.live(), b.data.live()),
            (a.data.durable(), b.data.durable()),
            (a.data.live(), b.data.durable()),
            (a.data.durable(), b.data.live()),
        ];
        let contents = contents.map(|(x, y)| (cut(x), cut(y)));
        if contents.iter().all(|(x, y)| differing(x, y).next().is_none()) {
            return Ok(());
        }
        let mut cards = Vec::new();
        let mut marks = Vec::new();
        for node in &self.nodes {
            let record = node.durable_record()?;
            let Some(record) = record else { return Ok(()) };
            let marked = node.durable_marks(&record);
            cards.push(card(record, node.capacity, marked.as_ref()));
            marks.push(marked);
        }
        let verdict = judge(&cards[0], &cards[1]);
        match verdict.outcome {
            Outcome::Refuse | Outcome::Copy { mode: Mode::Full | Mode::Initial, .. } => {
                return Ok(());
            }
            Outcome::InSync | Outcome::Copy { .. } => {}
        }
        let is_marked = |block: usize| {
            let region = u32::try_from(block as u64 * 4096 / REGION_BYTES).unwrap_or(u32::MAX);
            marks.iter().flatten().any(|m| m.wanted().get(region))
        };
        for (x, y) in &contents {
            if let Some(n) = differing(x, y).find(|n| !is_marked(*n)) {
                return Err(format!(
                    "block {n} differs ({} and {}), has no mark, and the records say {}",
                    x[n],
                    y[n],
                    verdict.row.name()
                ));
            }
        }
        Ok(())
    }

    /// Blocks of the mirror, by the larger size that either side has recorded.
    pub(crate) fn mirrored_blocks(&self) -> Result<usize, String> {
        let mut size = 0;
        for node in &self.nodes {
            size = node.durable_record()?.map_or(0, |r| r.size).max(size);
        }
        Ok(usize::try_from(size / 4096).unwrap_or(0))
    }

    /// The first block of the mirror in which the disks differ now.
    pub(crate) fn differing_block(&self) -> Option<usize> {
        let blocks = self.mirrored_blocks().unwrap_or(0);
        let (a, b) = (self.nodes[0].data.live(), self.nodes[1].data.live());
        differing(a, b).next().filter(|n| *n < blocks)
    }
}

/// Blocks of the mirror in which two disks differ.
fn differing<'d>(x: &'d [Stamp], y: &'d [Stamp]) -> impl Iterator<Item = usize> + 'd {
    x.iter().zip(y).enumerate().filter(|(_, (x, y))| x != y).map(|(n, _)| n)
}
