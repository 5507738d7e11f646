//! The end of a run: faults stop, everything is healed, and both sides must become equal within
//! bounded time, if need be with an operator who resolves a split brain.

use crate::disk::Stamp;
use crate::operator::Pending;
use crate::world::{Happening, World};
use mirror_core::command::Command;
use mirror_core::status::{LinkStatus, MirrorStatus, Phase};

/// Virtual time that a healed pair may take, in microseconds.
const PATIENCE: u64 = 120_000_000;

impl World {
    /// Runs the whole of it: start, faults, healing, judgement.
    ///
    /// # Errors
    /// What did not hold.
    pub fn run(&mut self) -> Result<(), String> {
        self.faults = false;
        self.restart_some();
        self.schedule(0, Happening::Step);
        self.converge("the initial construction")?;
        self.faults = true;
        let mut steps = self.options.steps;
        self.run_until(u64::MAX, |world| {
            let stepped = world.took_step();
            steps = steps.saturating_sub(u64::from(stepped));
            steps == 0
        });
        self.faults = false;
        self.log(|| "no more faults".to_owned());
        self.heal();
        self.converge("the healed pair")?;
        self.judge()
    }

    fn repair(&mut self) {
        if self.has_failed(self.weak) {
            self.kill(self.weak, false);
        }
        self.restart_some();
        self.resolve();
    }

    pub(crate) fn status(&self, node: usize) -> Option<MirrorStatus> {
        self.nodes[node].mirror.as_ref().map(|m| m.status(self.now()))
    }

    pub(crate) fn is_normal(&self) -> bool {
        (0..2).all(|node| {
            self.status(node)
                .is_some_and(|s| s.phase == Phase::Normal && s.link == LinkStatus::Session)
        })
    }

    pub(crate) fn converge(&mut self, what: &str) -> Result<(), String> {
        let until = self.time + PATIENCE;
        while self.time < until {
            let slice = self.time + 500_000;
            self.run_until(slice, |world| world.is_normal());
            if let Some(failure) = &self.failure {
                return Err(failure.clone());
            }
            if self.is_normal() {
                return self.drain();
            }
            self.repair();
        }
        let states: Vec<_> = (0..2).map(|n| self.status(n)).collect();
        Err(format!("{what} did not become normal in time: {states:?}"))
    }

    /// The operator looks at a parked pair and does what the guide says.
    fn resolve(&mut self) {
        let needs_force = (0..2).all(|n| self.status(n).is_some_and(|s| s.needs_force));
        let parked = (0..2).all(|n| self.status(n).is_some_and(|s| s.link == LinkStatus::Parked));
        if needs_force {
            self.resolve_by_force();
        } else if parked {
            let either = usize::from(self.rng.chance(500));
            self.command(either, Command::Recover, Pending::Operator);
        } else if (0..2).all(|n| self.status(n).is_some_and(|s| s.link == LinkStatus::Session)) {
            // Somebody cancelled it.
            self.command(0, Command::Recover, Pending::Operator);
            self.command(1, Command::Recover, Pending::Operator);
        }
    }

    fn resolve_by_force(&mut self) {
        let complete = [0, 1].map(|node| self.can_win(node) && self.holds_everything(node));
        let apart = [0, 1].map(|n| self.oracle.lone[n] || self.oracle.parted[n]);
        let winner = match (complete, apart) {
            ([true, false], _) => 0,
            ([false, true], _) => 1,
            ([true, true], _) | ([false, false], [true, true]) => usize::from(self.rng.chance(500)),
            ([false, false], _) => {
                let lacks = self.lacks(0).or_else(|| self.lacks(1)).unwrap_or_default();
                self.fail(format!("no side has everything, and they did not both write: {lacks}"));
                return;
            }
        };
        let loser = 1 - winner;
        if self.nodes[loser].is_active() {
            self.command(loser, Command::Deactivate, Pending::Operator);
        } else {
            let peer_seen_active = Some(false);
            self.command(winner, Command::Force { peer_seen_active }, Pending::Force);
        }
    }

    pub(crate) fn lacks(&self, node: usize) -> Option<String> {
        self.lacks_in(self.nodes[node].data.live())
    }

    /// A block in which a disk with this content lacks what is protected.
    pub(crate) fn lacks_in(&self, live: &[Stamp]) -> Option<String> {
        // A larger size may have gone with the disks that had recorded it.
        let live = &live[..live.len().min(self.mirrored_blocks().unwrap_or(0))];
        let wrong =
            |(block, stamp): (usize, &u64)| self.oracle.check(block, *stamp, u64::MAX).err();
        live.iter().enumerate().find_map(wrong)
    }

    /// It has a history at all, so that a force there is not refused.
    fn can_win(&self, node: usize) -> bool {
        self.nodes[node].mirror.as_ref().is_some_and(|m| m.record().generation.is_some())
    }

    fn holds_everything(&self, node: usize) -> bool {
        self.lacks(node).is_none()
    }

    /// The application stops, and what is under way ends.
    fn drain(&mut self) -> Result<(), String> {
        let until = self.time + PATIENCE;
        let mut at_rest = false;
        while !at_rest && self.time < until && self.failure.is_none() {
            self.repair();
            for node in 0..2 {
                if self.nodes[node].is_active() {
                    self.command(node, Command::Deactivate, Pending::Operator);
                }
            }
            at_rest = self.run_until(self.time + 5_000_000, |world| {
                let idle = |n: usize| {
                    let node = &world.nodes[n];
                    !node.is_active() && node.requests.is_empty() && node.landing == 0
                };
                idle(0) && idle(1) && world.is_normal()
            });
        }
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let still = (0..2).any(|n| self.nodes[n].is_active() || !self.nodes[n].requests.is_empty());
        if still || !self.is_normal() {
            return Err("the pair did not come to rest".to_owned());
        }
        Ok(())
    }

    pub(crate) fn judge(&mut self) -> Result<(), String> {
        let (a, b) = (self.nodes[0].data.live(), self.nodes[1].data.live());
        if let Some(block) = self.differing_block() {
            return Err(format!(
                "the disks differ at block {block}: {} and {}, and the mirror says Normal",
                a[block], b[block]
            ));
        }
        self.lacks(0).map_or(Ok(()), Err)
    }

    /// Whether the event just run was a step; counted by the queue's own marker.
    fn took_step(&mut self) -> bool {
        std::mem::take(&mut self.stepped)
    }
}

/// Runs one seed.
///
/// # Errors
/// What did not hold, and the history that led there.
pub fn run_seed(seed: u64, options: crate::options::Options) -> Result<u64, (String, Vec<String>)> {
    let mut world = World::new(seed, options);
    match world.run() {
        Ok(()) => Ok(world.time),
        Err(text) => Err((text, world.history)),
    }
}
