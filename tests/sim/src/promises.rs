//! What the mirror promises beyond the content of blocks: who may be activated, who is told of what,
//! and that what a side has recorded about the other is true.
//!
//! Judged by what the simulator knows of both servers, not by what they know of themselves.

use crate::disk::{blocks, stamps};
use crate::world::World;
use mirror_core::io::Notice;
use mirror_core::record::Record;
use mirror_core::status::LinkStatus;
use mirror_core::units::{Extent, SessionNo};

/// What the simulator remembers of both servers, by server.
#[derive(Debug, Default)]
pub struct Promises {
    /// It has met a side that had gone on without it.
    met_newer: [bool; 2],
    /// It restarted after a session in which the other was active.
    restarted_under_active: [bool; 2],
    /// The cluster manager has vouched here that the other is off.
    pub(crate) vouched: [bool; 2],
    /// The last session that it opened, and the row that led there.
    opened: [Option<(SessionNo, &'static str)>; 2],
    /// An operator has forced a side, or a disk was lost, since the sides were last in a session.
    word: bool,
}

impl Promises {
    /// The operator's word stands above all this.
    pub(crate) fn forced(&mut self, node: usize) {
        self.met_newer[node] = false;
        self.restarted_under_active[node] = false;
        self.word = true;
    }

    /// What was on the disks of `node` is there no more, or counts no more.
    pub(crate) fn gave_up(&mut self, node: usize) {
        self.forced(1 - node);
        self.met_newer[node] = false;
        self.restarted_under_active[node] = false;
    }
}

impl World {
    fn durable(&self, node: usize) -> Option<Record> {
        self.nodes[node].durable_record().ok().flatten()
    }

    /// The other has gone on alone, this one has not, and it lacks something.
    fn is_older(&self, node: usize) -> bool {
        self.oracle.lone[1 - node] && !self.oracle.lone[node] && self.lacks(node).is_some()
    }

    pub(crate) fn noticed(&mut self, node: usize, notice: &Notice) {
        self.log(|| format!("server{}: {notice:?}", node + 1));
        self.promise_at(node, notice);
        if let Some(script) = &mut self.script {
            script.noticed(node, notice);
        }
        if matches!(notice, Notice::SessionOpened { .. } | Notice::Broke) {
            self.nodes[node].resumed = false;
        }
        match notice {
            Notice::SessionOpened { .. } if self.oracle.lone == [true, true] => {
                self.fail("two sides that both wrote alone opened a session".to_owned());
            }
            Notice::DiskError { what, .. } if *what != "read" => self.oracle.disk_failed(node),
            // Without power loss a cache is as good as the disk, and nothing is excused.
            Notice::Parked { verdict } => {
                self.adopted_unheard(verdict);
                self.parked_in_sync(verdict);
                self.check_parked(node);
            }
            Notice::Broke if self.options.power > 0 => self.oracle.went_alone(node),
            Notice::SessionOpened { verdict } => {
                self.nodes[node].restored = false;
                self.adopted_unheard(verdict);
                // Both sides are drained, and the dialler is not in the session yet.
                let dialler = self.nodes[0].durable_record().ok().flatten();
                let session = |r: &Record| (r.session, r.generation);
                let mine = self.nodes[1].durable_record().ok().flatten();
                // If the dialler is not in this session, or has gone on since, its frame has
                // outlived its side of the connection.
                let lives = dialler.as_ref().map(session) == mine.as_ref().map(session);
                if *verdict == "in-sync" && node == 1 && lives {
                    if self.differing_block().is_some() {
                        self.fail("in sync, they said, and the disks differ".to_owned());
                    }
                    self.oracle.lone = [false; 2];
                    self.oracle.parted = [false; 2];
                }
                self.oracle.overruled = [false; 2];
                self.oracle.alone = [false; 2];
                self.oracle.outlawed = [false; 2];
            }
            Notice::RecoveryFinished { .. } => {
                self.oracle.lone = [false; 2];
                self.oracle.parted = [false; 2];
            }
            Notice::BadRecord(why) => self.fail(format!("a record that cannot be read: {why}")),
            Notice::Protocol(what) => self.fail(format!("protocol error: {what}")),
            _ => {}
        }
    }

    /// `node` works with the disk of the other server, since its own has failed.
    pub(crate) fn is_detached(&self, node: usize) -> bool {
        self.has_failed(node) && self.in_session()
    }

    /// Both sides are in one session now.
    pub(crate) fn in_session(&self) -> bool {
        let now = self.now();
        let numbers = [0, 1].map(|n: usize| {
            let mirror = self.nodes[n].mirror.as_ref()?;
            let session = mirror.status(now).link == LinkStatus::Session;
            session.then(|| mirror.record().session)
        });
        numbers[0].is_some() && numbers[0] == numbers[1]
    }

    /// A read was answered: what it has shown must stay.
    pub(crate) fn read_shows(&mut self, node: usize, extent: Extent, data: &[u8], began: u64) {
        let abnormal = |n: usize| {
            let record = self.nodes[n].mirror.as_ref().map(mirror_core::mirror::Mirror::record);
            record.is_none_or(|r| r.inconsistent.is_some() || r.behind)
        };
        let detached = self.is_detached(node);
        let whole = !abnormal(1 - node) && (detached || !abnormal(node));
        let with_peer = self.in_session() && whole;
        if !with_peer && self.nodes[1 - node].is_active() {
            return;
        }
        for (block, stamp) in blocks(extent).zip(stamps(data)) {
            self.oracle.shown(node, block, stamp, began, (with_peer, detached));
        }
    }

    /// The process on `node` is about to end, in order or not.
    pub(crate) fn process_ends(&mut self, node: usize) {
        // What works with the disk of this side leaves nothing of its own behind.
        let goes_on = self.nodes[1 - node].is_active() && !self.is_detached(1 - node);
        let under_active = self.in_session() && goes_on;
        self.promises.restarted_under_active[node] |= under_active;
        self.promises.vouched[node] = false;
    }

    /// The operator activated `node`, and perhaps vouched that the other is off.
    pub(crate) fn activated(&mut self, node: usize, peer_down: bool) {
        let promises = &self.promises;
        let broken = if promises.met_newer[node] {
            Some("has met a newer side")
        } else if promises.restarted_under_active[node]
            && !self.in_session()
            && self.differing_block().is_some()
        {
            Some("restarted while the other was active, from which it differs")
        } else if self.durable(node).is_some_and(|r| !r.active || r.inconsistent.is_some()) {
            Some("has not recorded it, or is half copied")
        } else {
            None
        };
        self.promises.restarted_under_active[node] = false;
        let size = self.nodes[node].mirror.as_ref().map_or(0, |m| m.record().size);
        self.nodes[node].device_size = size;
        if let Some(why) = broken {
            self.fail(format!("server{} {why}, and was activated", node + 1));
        }
        if !self.in_session() {
            self.promises.vouched[node] |= peer_down;
            self.unvouched(node, self.promises.vouched[node]);
            self.oracle.activated_apart(node);
        }
    }

    /// Activated without contact: without the operator's word only by a process that has seen the
    /// last session, or if the other cannot have gone on.
    fn unvouched(&mut self, node: usize, vouched: bool) {
        let never_met = self.nodes[node].last_met != Some(self.nodes[node].incarnation);
        let behind = !vouched && never_met && self.is_older(node);
        if behind && !self.promises.word {
            let lacks = self.lacks(node).unwrap_or_default();
            self.fail(format!(
                "server{} was activated without a word, and the other had gone on: {lacks}",
                node + 1
            ));
        }
    }

    pub(crate) fn promise_at(&mut self, node: usize, notice: &Notice) {
        match notice {
            Notice::Parked { .. } => {
                // It is up, whoever said that it is off.
                self.promises.vouched[node] = false;
                // The other has gone on, and this one has not and does not now.
                let idle = !self.nodes[node].is_active();
                let older = idle && self.is_older(node);
                self.promises.met_newer[node] |= older && !self.promises.word;
            }
            Notice::SessionOpened { verdict } => self.session_opens(node, verdict),
            _ => {}
        }
    }

    /// One side adopted what the other had written alone, and was killed before anybody heard of it.
    pub(crate) fn adopted_unheard(&mut self, verdict: &str) {
        let whole = |n: usize| self.oracle.lone[1 - n] && !self.oracle.lone[n];
        let adopter = (0..2).find(|n| whole(*n));
        let has_it = adopter.is_some_and(|n| self.lacks(n).is_none());
        if verdict.starts_with("settle") && has_it {
            self.oracle.lone = [false; 2];
        }
    }

    fn session_opens(&mut self, node: usize, verdict: &'static str) {
        self.nodes[node].last_met = Some(self.nodes[node].incarnation);
        let number = self.nodes[node].mirror.as_ref().map(|m| m.record().session);
        self.promises.opened[node] = number.map(|number| (number, verdict));
        if let [Some((a, one)), Some((b, other))] = self.promises.opened {
            if a == b && one != other {
                self.fail(format!("session {}: one says {one}, the other {other}", a.0));
            }
        }
        self.older_over_newer(node);
        self.promises.met_newer = [false; 2];
        self.promises.restarted_under_active = [false; 2];
        self.promises.vouched[node] = false;
        if self.in_session() {
            self.promises.word = false;
            self.oracle.met();
        }
    }

    /// The side that has gone on alone is never copied to without the operator's word. Nothing is copied
    /// before both are in the session: the last word of an agreement may outlive the side that gave it.
    fn older_over_newer(&mut self, node: usize) {
        if !self.in_session() {
            return;
        }
        let now = self.now();
        let Some(status) = self.nodes[node].mirror.as_ref().map(|m| m.status(now)) else { return };
        let target = status.recovery.map(|r| r.target);
        let overwritten = target.is_some_and(|t| self.is_older(1 - t));
        if overwritten && !self.promises.word {
            self.fail("the older side is copied over the newer one".to_owned());
        }
    }

    /// What must hold of both at every step.
    pub(crate) fn check_promises(&self) -> Result<(), String> {
        for node in 0..2 {
            self.check_claim(node)?;
        }
        self.check_told()
    }

    /// A side that has recorded that the other knows itself to be behind is right.
    fn check_claim(&self, node: usize) -> Result<(), String> {
        let (Some(mine), Some(theirs)) = (self.durable(node), self.durable(1 - node)) else {
            return Ok(());
        };
        if mine.behind || mine.inconsistent.is_some() {
            // What it says of the other serves nobody.
            return Ok(());
        }
        let restored = self.nodes.iter().any(|n| n.restored);
        let knows = theirs.behind || theirs.inconsistent.is_some();
        let gone = theirs.generation.is_none() || theirs.disk_error || theirs.forced_at.is_some();
        if mine.peer_behind && !knows && !gone && !restored {
            let (me, other) = (node + 1, 2 - node);
            return Err(format!(
                "server{me} has recorded that server{other} knows itself behind, which it does not"
            ));
        }
        Ok(())
    }

    /// The operator keeps two equal sides apart: what either wrote alone before, both have now.
    pub(crate) fn parked_in_sync(&mut self, verdict: &str) {
        if verdict == "in-sync" && self.differing_block().is_none() {
            self.oracle.lone = [false; 2];
            self.oracle.parted = [false; 2];
        }
    }

    /// Two sides that both wrote alone and are in contact are told so.
    fn check_told(&self) -> Result<(), String> {
        let now = self.now();
        let apart = self.oracle.lone == [true; 2] && !self.promises.word;
        let told = |m: &mirror_core::mirror::Mirror| {
            let status = m.status(now);
            status.link != LinkStatus::Parked || status.needs_force
        };
        if apart && !self.nodes.iter().flat_map(|n| &n.mirror).all(told) {
            return Err("both wrote alone, are in contact, and are not told".to_owned());
        }
        Ok(())
    }

    /// With `alone = "fenced"` nothing completes alone before the other side has recorded that it is
    /// behind, or somebody vouched for its being off; and so no two sides write alone.
    pub(crate) fn check_fenced(&mut self, writer: usize, on_other: bool) {
        if !self.nodes[writer].tuning.fenced || self.promises.word {
            return;
        }
        let now = self.now();
        let mirror = self.nodes[writer].mirror.as_ref();
        let alone = mirror.is_some_and(|m| m.status(now).link != LinkStatus::Session);
        let restored = self.nodes.iter().any(|n| n.restored);
        // Its record may be there before its answer.
        let forced = !self.forcing[1 - writer].is_empty();
        if alone && !on_other && !self.promises.vouched[writer] && !restored && !forced {
            let knows = self.durable(1 - writer).is_none_or(|r| {
                r.behind || r.inconsistent.is_some() || r.generation.is_none() || r.disk_error
            });
            if !knows {
                self.fail(format!("server{} is fenced, and wrote alone", writer + 1));
            }
        }
        if self.nodes[1 - writer].tuning.fenced && self.oracle.lone == [true; 2] {
            self.fail("fenced sides both wrote alone".to_owned());
        }
    }
}
