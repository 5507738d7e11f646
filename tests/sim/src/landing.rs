//! Operations on the simulated disks: when they end, what lands, and what a loss of power leaves.

use crate::disk::{Stamp, Tearing, blocks, stamps};
use crate::script::hold::{Io, Script};
use crate::world::{Happening, World};
use mirror_core::buf::Buf;
use mirror_core::io::{DataOp, IoFailure, IoId};
use mirror_core::rules::{Rule, holds};
use mirror_core::units::Extent;

/// What a bad disk answers.
pub(crate) const EIO: IoFailure = IoFailure::Errno(5);

/// How long the driver waits for a disk, in microseconds.
pub(crate) const IO_LIMIT: u64 = 3_000_000;

/// How long an operation on a disk takes while a script runs, in microseconds.
const SCRIPTED_IO: u64 = 100;

/// An operation on a data partition under way.
#[derive(Debug)]
pub enum Landing {
    /// Stamps that land.
    Write {
        /// One per block.
        values: Vec<Stamp>,
        /// Not into the cache only.
        durable: bool,
    },
    /// A read.
    Read,
    /// A flush over this many cached writes.
    Flush(usize),
}

impl World {
    pub(crate) fn land(&mut self, node: usize, extent: Extent, what: &Landing) -> Option<Buf> {
        if let (Some(block), Landing::Write { values, .. }) = (self.options.watch, what) {
            if let Some(n) = blocks(extent).position(|b| b == block) {
                let stamp = values[n];
                self.log(|| format!("server{}: block {block} becomes {stamp}", node + 1));
            }
        }
        let disk = &mut self.nodes[node].data;
        match what {
            Landing::Write { values, durable: true } => {
                disk.write_durably(extent, values.iter().copied());
                None
            }
            Landing::Write { values, durable: false } => {
                disk.write(extent, values.iter().copied());
                None
            }
            Landing::Read => Some(disk.read(extent)),
            Landing::Flush(landed) => {
                disk.flush(*landed);
                None
            }
        }
    }

    /// A failed operation: any part of a write may be there, and a flush gives up what it covers.
    pub(crate) fn land_badly(&mut self, node: usize, extent: Extent, what: Landing) {
        match what {
            Landing::Write { values, .. } => self.land_part(node, extent, values),
            Landing::Flush(landed) => self.nodes[node].data.fail_flush(landed, &mut self.rng),
            Landing::Read => {}
        }
    }

    fn land_part(&mut self, node: usize, extent: Extent, values: Vec<Stamp>) {
        let landed = values.len().min(usize::try_from(self.rng.below(5)).unwrap_or(0));
        let start = Extent::new(extent.offset, landed as u64 * 4096);
        let tearing = &mut Tearing { rate: self.options.torn, torn: &mut self.oracle.torn };
        let (disk, rng) = (&mut self.nodes[node].data, &mut self.rng);
        let old = disk.live()[blocks(start)].to_vec();
        let left = old.into_iter().zip(values).map(|(old, new)| tearing.left(old, new, rng));
        let left: Vec<Stamp> = left.collect();
        disk.write(start, left.into_iter());
    }

    pub(crate) fn submit(&mut self, node: usize, io: IoId, op: DataOp, extent: Extent) {
        let incarnation = self.nodes[node].incarnation;
        let kind = Io::of_data(&op, extent);
        let (what, base) = match op {
            DataOp::Read => (Landing::Read, 40),
            DataOp::Write { data, durable } => {
                (Landing::Write { values: stamps(&data).collect(), durable }, 40)
            }
            // A disk that reads back the old bytes after a discard, if nobody sees to it.
            DataOp::Zero { unmap: true, .. } if node == 1 && !holds(Rule::DiscardZeroes) => {
                (Landing::Write { values: Vec::new(), durable: false }, 40)
            }
            DataOp::Zero { durable, .. } => {
                (Landing::Write { values: blocks(extent).map(|_| 0).collect(), durable }, 40)
            }
            DataOp::Flush => (Landing::Flush(self.nodes[node].data.landed()), 100),
        };
        let slow = if self.rng.chance(20) { 5000 } else { 150 };
        let mut after = base + self.rng.below(slow) + self.slowness();
        if self.goes_bad(node, self.options.hang) {
            self.schedule(IO_LIMIT, Happening::TimedOut { node, incarnation, io });
            after += IO_LIMIT + self.rng.below(4_000_000);
        }
        let is_read = matches!(what, Landing::Read);
        let bad = self.script.as_ref().is_some_and(|script| script.is_bad(node, extent));
        let ok = !self.goes_bad(node, self.options.data_error)
            && !(is_read && (bad || self.goes_bad(node, self.options.read_error)));
        self.land_early(node, extent, &what, after);
        self.nodes[node].landing += 1;
        let data = Happening::Data { node, incarnation, io, extent, what, ok };
        self.begin_io(node, kind, after, data);
    }

    /// An operation is under way, if no script holds it.
    pub(crate) fn begin_io(&mut self, node: usize, kind: Io, after: u64, end: Happening) {
        match &mut self.script {
            None => self.schedule(after, end),
            Some(script) => {
                if let Some(end) = script.pass(node, kind, end) {
                    self.schedule(SCRIPTED_IO, end);
                }
            }
        }
    }

    /// Something below repeats a write: it is there early, and lands again when it ends.
    fn land_early(&mut self, node: usize, extent: Extent, what: &Landing, end: u64) {
        if let Landing::Write { values, .. } = what {
            if self.rng.chance(self.options.twice) {
                let values = values.clone();
                let after = self.rng.below(end);
                self.schedule(after, Happening::Early { node, extent, values });
            }
        }
    }

    /// Per block, what the disk of `node` may hold once everything under way there has ended.
    pub(crate) fn possible_content(&self, node: usize) -> Vec<Vec<Stamp>> {
        let mut all = self.nodes[node].data.possible();
        let held = self.script.iter().flat_map(Script::held);
        for happening in self.queue.values().chain(held) {
            if let Happening::Data {
                node: n, extent, what: Landing::Write { values, .. }, ..
            } = happening
            {
                let blocks = blocks(*extent).zip(values).filter(|_| *n == node);
                blocks.for_each(|(block, stamp)| all[block].push(*stamp));
            }
        }
        for (extent, values) in self.net.writes_toward(node) {
            blocks(extent).zip(values).for_each(|(block, stamp)| all[block].push(stamp));
        }
        // What lies behind the end of the mirror is nobody's.
        let size = self.nodes[node].durable_record().ok().flatten().map_or(0, |r| r.size);
        all.truncate(usize::try_from(size / 4096).unwrap_or(0));
        all
    }

    pub(crate) fn slowness(&mut self) -> u64 {
        if self.rng.chance(self.options.slow) { self.rng.below(1_000_000) } else { 0 }
    }

    /// Whether bad hardware strikes, at a rate in 100 000.
    pub(crate) fn goes_bad(&mut self, node: usize, rate: u64) -> bool {
        rate > 0 && self.faults && node == self.weak && self.rng.below(100_000) < rate
    }

    /// The power of `node` goes: of what was under way any part may have landed.
    pub(crate) fn lose_power(&mut self, node: usize) {
        self.oracle.power_goes(node, self.nodes[node].data.live());
        let of_node = |h: &Happening| match h {
            Happening::Data { node: n, .. }
            | Happening::Meta { node: n, .. }
            | Happening::Early { node: n, .. }
            | Happening::MetaTimedOut { node: n, .. }
            | Happening::TimedOut { node: n, .. } => *n == node,
            _ => false,
        };
        let keys: Vec<(u64, u64)> =
            self.queue.iter().filter(|(_, h)| of_node(h)).map(|(k, _)| *k).collect();
        let scripted = self.script.is_some();
        for key in keys {
            match self.queue.remove(&key) {
                // A script lands what is to be there.
                Some(_) if scripted => {}
                Some(Happening::Data { extent, what: Landing::Write { values, .. }, .. }) => {
                    self.land_part(node, extent, values);
                }
                Some(Happening::Meta { offset, bytes, .. }) => {
                    self.nodes[node].cluster.tear(offset, &bytes, &mut self.rng);
                }
                _ => {}
            }
        }
        self.nodes[node].landing = 0;
        let script = self.script.as_mut().map(|script| script.power_lost(node));
        let tearing = &mut Tearing { rate: self.options.torn, torn: &mut self.oracle.torn };
        match script {
            Some(keep) => self.nodes[node].data.lose_power_but(|block| keep.keeps(block)),
            None => self.nodes[node].data.lose_power(tearing, &mut self.rng),
        }
        self.nodes[node].reboot(&mut self.rng);
    }
}
