//! The stage: time, waiting and expectations.

use super::hold::{Hold, Io, Script};
use super::scenario::Played;
use crate::disk::Stamp;
use crate::options::Options;
use crate::world::World;
use mirror_core::io::{Notice, RequestId};
use mirror_core::record::Record;
use mirror_core::status::LinkStatus;

/// The first server; the active one where a scenario does not say otherwise.
pub const A: usize = 0;
/// The second server.
pub const B: usize = 1;

/// How long a script waits for anything, in virtual milliseconds.
const PATIENCE_MS: u64 = 60_000;

/// A request of the application.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub(super) id: RequestId,
    /// The stamp of a write.
    pub stamp: Stamp,
}

/// Two servers whose mirror has been constructed, in contact, in sync, inactive.
#[derive(Debug)]
pub struct Stage {
    pub(super) world: World,
    /// Notices before this one have been waited for.
    pub(super) heard: usize,
    /// Images of both partitions, by server.
    pub(super) images: [Option<super::steps::Image>; 2],
}

impl Stage {
    /// Raises the curtain.
    #[must_use]
    pub fn new(verbose: bool) -> Self {
        let options = Options { verbose, power: 1, ..Options::all() };
        let mut world = World::new(0, options);
        world.script = Some(Script::default());
        world.faults = false;
        let mut stage = Self { world, heard: 0, images: [None, None] };
        stage.start(A);
        stage.start(B);
        if let Err(text) = stage.world.converge("the initial construction") {
            stage.world.fail(text);
        }
        stage.heard = stage.script().notices.len();
        stage.say("the mirror is constructed");
        stage
    }

    /// Heals everything, waits until both sides are equal and at rest, and judges what they hold.
    #[must_use]
    pub fn finish(mut self) -> Played {
        self.say("the script ends; everything is healed");
        self.script_mut().bad.clear();
        let ends = self.script_mut().release_all();
        ends.into_iter().for_each(|end| self.world.schedule(1, end));
        self.world.heal();
        self.world.deliver_all();
        let result = match self.world.failure.clone() {
            Some(failure) => Err(failure),
            None => self.world.converge("the healed pair").and_then(|()| self.world.judge()),
        };
        Played { result, history: self.world.history }
    }

    pub(super) fn script(&self) -> &Script {
        self.world.script.as_ref().expect("a stage has a script")
    }

    pub(super) fn script_mut(&mut self) -> &mut Script {
        self.world.script.as_mut().expect("a stage has a script")
    }

    /// Something did not hold, and the script is over.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.world.failure.is_some()
    }

    pub(super) fn say(&mut self, text: &str) {
        self.world.log(|| format!("-- {text}"));
    }

    /// Demands something.
    pub fn expect(&mut self, what: &str, holds: bool) {
        if !holds && !self.has_failed() {
            self.world.fail(format!("not so: {what}"));
        }
    }

    /// Time passes.
    pub fn wait(&mut self, ms: u64) {
        let until = self.world.time + ms * 1000;
        self.world.run_until(until, |_| false);
        if !self.has_failed() {
            self.world.time = until;
        }
    }

    /// Runs until `is_so`; a minute is too long.
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let until = self.world.time + PATIENCE_MS * 1000;
        while !is_so(self) {
            if self.has_failed() {
                return;
            }
            let mut stepped = false;
            let ran = self.world.run_until(until, |_| !std::mem::replace(&mut stepped, true));
            if !ran && !self.has_failed() && !is_so(self) {
                self.world.fail(format!("never happened: {what}"));
            }
        }
    }

    // Holding.

    /// From now on the ends of such operations of `at` are held back.
    pub fn hold(&mut self, at: usize, io: Io) -> Hold {
        self.script_mut().hold_io(at, io, 0)
    }

    /// The same for all such operations but the first `skip`.
    pub fn hold_after(&mut self, at: usize, io: Io, skip: usize) -> Hold {
        self.script_mut().hold_io(at, io, skip)
    }

    /// From now on the first frame of this name toward `to` is held back, and everything that
    /// follows it on its connection.
    pub fn hold_frame(&mut self, to: usize, name: &'static str) -> Hold {
        self.script_mut().hold_frame(to, name, 0)
    }

    /// The same for the frame of this name that follows after `skip` others.
    pub fn hold_frame_after(&mut self, to: usize, name: &'static str, skip: usize) -> Hold {
        self.script_mut().hold_frame(to, name, skip)
    }

    /// Runs until the hold has caught something.
    pub fn until_held(&mut self, hold: Hold) {
        self.until("something to be held back", |stage| stage.script().is_holding(hold));
    }

    /// Whether the hold has caught something.
    #[must_use]
    pub fn is_held(&self, hold: Hold) -> bool {
        self.script().is_holding(hold)
    }

    /// What has been caught stays held, what comes later goes through.
    pub fn hold_no_more(&mut self, hold: Hold) {
        self.script_mut().close(hold);
    }

    /// What is held lands, or arrives, now; nothing of the kind is held any more.
    pub fn land(&mut self, hold: Hold) {
        let ends = self.script_mut().release(hold);
        ends.into_iter().for_each(|end| self.world.schedule(1, end));
        self.world.deliver_all();
        self.wait(1);
    }

    // What can be seen.

    /// The record as it is on the cluster partition of `at`.
    #[must_use]
    pub fn record(&self, at: usize) -> Option<Record> {
        self.world.nodes[at].durable_record().ok().flatten()
    }

    /// What a read of the data partition of `at` finds at `block`.
    #[must_use]
    pub fn content(&self, at: usize, block: usize) -> Stamp {
        self.world.nodes[at].data.live()[block]
    }

    /// Whether the device of `at` is being served.
    #[must_use]
    pub fn is_active(&self, at: usize) -> bool {
        self.world.nodes[at].is_active()
    }

    /// What `at` says of both sides.
    #[must_use]
    pub fn status(&self, at: usize) -> Option<mirror_core::status::MirrorStatus> {
        self.world.status(at)
    }

    /// Both are in contact without a session.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        (0..2).all(|n| self.status(n).is_some_and(|s| s.link == LinkStatus::Parked))
    }

    /// Runs until both sides are green and in contact.
    pub fn until_normal(&mut self) {
        self.until("both sides to be normal", |stage| stage.world.is_normal());
    }

    fn next_verdict(&self, at: usize) -> Option<(usize, &'static str)> {
        let notices = self.script().notices.iter().enumerate().skip(self.heard);
        notices
            .filter(|(_, (node, _))| *node == at)
            .filter_map(|(n, (_, notice))| match notice {
                Notice::SessionOpened { verdict } | Notice::Parked { verdict } => {
                    Some((n, *verdict))
                }
                _ => None,
            })
            .next()
    }

    /// Runs until both sides have met (since an agent was started, connections were reset, the network
    /// was healed, or this was last waited for), and demands that this row of the direction table
    /// decided.
    pub fn until_verdict(&mut self, row: &str) {
        self.until("a verdict", |s| s.next_verdict(A).is_some() && s.next_verdict(B).is_some());
        let verdicts = [self.next_verdict(A), self.next_verdict(B)];
        for (n, verdict) in verdicts.into_iter().flatten() {
            self.heard = self.heard.max(n + 1);
            if verdict != row && !self.has_failed() {
                self.world.fail(format!("the verdict is {verdict}, not {row}"));
            }
        }
    }

    /// What was noticed before does not count for [`Stage::until_notice`] and
    /// [`Stage::until_verdict`].
    pub fn forget_notices(&mut self) {
        self.heard = self.script().notices.len();
    }

    /// Runs until `at` has noticed something.
    pub fn until_notice(&mut self, at: usize, what: &str, is_it: impl Fn(&Notice) -> bool) {
        self.until(what, |stage| {
            let notices = stage.script().notices.iter().skip(stage.heard);
            notices.filter(|(node, _)| *node == at).any(|(_, notice)| is_it(notice))
        });
    }
}
