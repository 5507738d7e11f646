//! What one side knows durably about itself and its peer: the content of the superblock.
//!
//! The bytes are the business of `crate::disk`; the meaning is here.

use crate::rules::{Rule, holds};
use crate::units::{
    ActivationNo, Generation, Id16, MAX_MIRROR_BYTES, REGION_BYTES, SessionNo, Side, regions_in,
};
use std::collections::VecDeque;

/// How many former generations a side remembers. A peer further back than this is taken for a
/// split brain, which costs an operator's word and no data.
pub const LINEAGE_MAX: usize = 16;

/// Highest number of a session, an activation or an update that a record may have. No mirror comes
/// near it by counting, and there is room to count on from it.
pub const NUMBER_MAX: u64 = 1 << 63;

/// Highest number of a session or an activation that is taken from a peer, whatever this side has
/// counted to itself.
pub const PEER_NUMBER_MAX: u64 = 1 << 62;

/// Above [`PEER_NUMBER_MAX`] both sides can only get together: how far one may be ahead.
const COUNTED_APART: u64 = 1 << 32;

/// Highest number on any card: what is counted on from it stays far below [`NUMBER_MAX`].
const CARD_NUMBER_MAX: u64 = 3 << 61;

/// A bounded list of generations, newest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lineage(VecDeque<Generation>);

impl Lineage {
    /// Remembers `generation` as the newest entry; the oldest is forgotten beyond
    /// [`LINEAGE_MAX`]. An entry that is there already moves to the front.
    pub fn push(&mut self, generation: Generation) {
        self.0.retain(|g| *g != generation);
        self.0.push_front(generation);
        self.0.truncate(LINEAGE_MAX);
    }

    /// Whether `generation` is in the list.
    #[must_use]
    pub fn contains(&self, generation: Generation) -> bool {
        self.0.contains(&generation)
    }

    /// Newest to oldest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Generation> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<Generation> for Lineage {
    /// Takes the entries newest first; keeps at most [`LINEAGE_MAX`].
    fn from_iter<T: IntoIterator<Item = Generation>>(iter: T) -> Self {
        Self(iter.into_iter().take(LINEAGE_MAX).collect())
    }
}

/// The mark of a half-copied target (rule 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inconsistent {
    /// The generation that is being copied to this side.
    pub toward: Generation,
    /// True: everything may be wrong (full copy). False: only the marked regions may be.
    pub all: bool,
}

/// The durable record of one side (see `docs/on-disk.md` for the bytes).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Counts the updates of this record; the higher of two valid copies is the newer.
    pub seq: u64,
    /// The mirror this side belongs to; [`Id16::NONE`] until constructed.
    pub mirror: Id16,
    /// This side's cluster partition; new at every `clpmdinit`.
    pub device: Id16,
    /// Which server this side was made for.
    pub side: Side,
    /// Size of the mirror in bytes; 0 until constructed. It never shrinks.
    pub size: u64,
    /// The mirror has grown: from this byte on everything differs, whatever the marks say, since
    /// theirs may not be durable yet. 0 = they are.
    pub grown_from: u64,
    /// Logical block size in bytes, fixed at construction; 0 until then.
    pub block: u32,
    /// The generation of the data here; `None` = no history (never mirrored).
    pub generation: Option<Generation>,
    /// The peer's generations that the marks are complete against: what a peer of such a
    /// generation lacks is marked here. Equal to `generation` while both are in sync.
    pub bases: [Option<Generation>; 2],
    /// Generations that this one descends from.
    pub ancestors: Lineage,
    /// Generations that `--force` declared void in favour of this one.
    pub overruled: Lineage,
    /// Set by a force, until the peer has taken the generation over: one above every activation
    /// known of when the sides last met. It outweighs a peer whose last activation has a lower
    /// number, but not one that was activated since.
    pub forced_at: Option<ActivationNo>,
    /// The last session that had been open when `generation` was born. A later session may have
    /// told the peer of it (rule 3, "may hold").
    pub born_session: SessionNo,
    /// The last session.
    pub session: SessionNo,
    /// False: the last session was only offered by this side (as acceptor), not known to be open.
    pub session_open: bool,
    /// The number of this side's own last activation.
    pub activation: ActivationNo,
    /// The highest activation number that both sides know of, from when they were last in contact.
    /// What either was activated as since they parted is not in it.
    pub known_activation: ActivationNo,
    /// This side is (or was, when it went down) active.
    pub active: bool,
    /// The boot under which `active` was set.
    pub boot: Id16,
    /// The peer was active when last heard of.
    pub peer_active: bool,
    /// Rule 6: a copy to this side has begun and has not ended.
    pub inconsistent: Option<Inconsistent>,
    /// This side knows that the peer may have gone on without it.
    pub behind: bool,
    /// The peer confirmed durably that it knows itself behind.
    pub peer_behind: bool,
    /// Everything must be copied to the peer: the marks do not say it (yet).
    pub owes_all: bool,
    /// The agent stopped after a good flush and nothing was written since.
    pub clean_stop: bool,
    /// A disk of this side failed; cleared by `clpmdinit` and `clpmdchng` only.
    pub disk_error: bool,
    /// When the mirror broke, seconds since 1970 UTC; 0 = it is whole.
    pub break_time: i64,
    /// When the data was last written, seconds since 1970 UTC; 0 = not known.
    pub update_time: i64,
}

impl Record {
    /// The highest of all numbers of sessions and activations in it.
    #[must_use]
    pub fn highest_number(&self) -> u64 {
        let activations =
            self.activation.max(self.known_activation).max(self.forced_at.unwrap_or_default());
        self.session.max(self.born_session).0.max(activations.0)
    }

    /// Neither side was ever activated or forced, as far as this one knows: what is here came from before
    /// the mirror, or from its construction.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        let numbers = self.activation.max(self.known_activation);
        numbers == ActivationNo(0) && self.forced_at.is_none()
    }

    /// The construction has begun, is not known here to have ended, and nobody has used the mirror.
    #[must_use]
    pub fn is_constructing(&self) -> bool {
        let begun = match self.generation {
            Some(_) => self.bases == [None; 2],
            None => self.inconsistent.is_some(),
        };
        begun && self.is_unused()
    }

    /// Whether this side may count on from `number`, which the peer shows. Whatever one side has taken
    /// once, the other one takes from it, too; a side without history joins at any number.
    #[must_use]
    pub fn takes_from_peer(&self, number: u64) -> bool {
        let ahead = self.highest_number().saturating_add(COUNTED_APART);
        let far = if self.generation.is_none() { CARD_NUMBER_MAX } else { ahead };
        number <= far.clamp(PEER_NUMBER_MAX, CARD_NUMBER_MAX)
    }

    /// The regions that count as marked, whatever the bitmap says.
    #[must_use]
    pub fn grown_regions(&self) -> std::ops::Range<u32> {
        if self.grown_from == 0 || !holds(Rule::GrownDirty) {
            return 0..0;
        }
        let first = u32::try_from(self.grown_from / REGION_BYTES).unwrap_or(u32::MAX);
        first..regions_in(self.size)
    }

    /// The record of a side that was never mirrored.
    #[must_use]
    pub fn blank(device: Id16, side: Side) -> Self {
        Self {
            seq: 0,
            mirror: Id16::NONE,
            device,
            side,
            size: 0,
            grown_from: 0,
            block: 0,
            generation: None,
            bases: [None; 2],
            ancestors: Lineage::default(),
            overruled: Lineage::default(),
            forced_at: None,
            born_session: SessionNo(0),
            session: SessionNo(0),
            session_open: true,
            activation: ActivationNo(0),
            known_activation: ActivationNo(0),
            active: false,
            boot: Id16::NONE,
            peer_active: false,
            inconsistent: None,
            behind: false,
            peer_behind: false,
            owes_all: false,
            clean_stop: false,
            disk_error: false,
            break_time: 0,
            update_time: 0,
        }
    }

    /// Whether the peer may hold the current generation (rule 3): it was born in sync with the
    /// peer, or a session has been open since in which the peer may have adopted it. An offer of
    /// this side that nobody is known to have accepted opened nothing here.
    #[must_use]
    pub fn peer_may_hold(&self) -> bool {
        if self.bases.contains(&self.generation) {
            return true;
        }
        holds(Rule::MayHold) && self.last_open() != self.born_session
    }

    /// The last session that may have been open here. One that was only offered was not, and its
    /// number may be given to the next.
    #[must_use]
    pub fn last_open(&self) -> SessionNo {
        let offered = u64::from(!self.session_open);
        SessionNo(self.session.0.saturating_sub(offered))
    }
}

/// What a side shows its peer before a session (rule 8): the durable record and what only the
/// running agent knows. From the moment it is sent until the session opens or fails, nothing on
/// it changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Card {
    /// The durable record.
    pub record: Record,
    /// Serving the device right now.
    pub active: bool,
    /// The agent has run since the last session ended, or durably stopped after a flush, and no
    /// disk error is known.
    pub uninterrupted: bool,
    /// An operator or the configuration wants a recovery to run, if one is needed.
    pub wants_recovery: bool,
    /// An operator keeps the servers apart: no session, whatever the verdict is.
    pub apart: bool,
    /// An operator has asked for a recovery since, which ends that on both sides.
    pub rejoins: bool,
    /// Usable bytes of the data partition.
    pub capacity: u64,
    /// Logical block size of the data partition in bytes.
    pub device_block: u32,
    /// Marked regions.
    pub marked: u32,
}

impl Card {
    /// Whether a mirror could have shown it: sizes and blocks that exist, numbers that can be
    /// reached by counting. What it says of its owner's state is another matter.
    #[must_use]
    pub fn makes_sense(&self) -> bool {
        let Record { size, block, device, .. } = self.record;
        let whole = size <= MAX_MIRROR_BYTES && size % u64::from(block.max(1)) == 0;
        // A size comes with a history, or with the copy that will become one.
        let geometry = match (self.record.generation, self.record.inconsistent) {
            (None, None) => size == 0 && block == 0,
            _ => size > 0 && block > 0,
        };
        whole
            && geometry
            && !device.is_none()
            && (block == 0 || is_block_size(block))
            && is_block_size(self.device_block)
            && self.record.highest_number() <= CARD_NUMBER_MAX
    }
}

/// Whether disks have logical blocks of `bytes`.
#[must_use]
pub const fn is_block_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && bytes >= 512 && bytes <= 65_536
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Born with session 10 as the last, on top of a base that the peer holds.
    fn lone() -> Record {
        let mut record = Record::blank(Id16([1; 16]), Side::First);
        record.session = SessionNo(10);
        record.born_session = SessionNo(10);
        record.generation = Generation::new(2);
        record.bases = [Generation::new(1), None];
        record
    }

    #[test]
    fn a_peer_may_hold_a_generation_that_a_session_has_shown_it() {
        let mut record = lone();
        assert!(!record.peer_may_hold());
        record.session = SessionNo(11);
        record.session_open = false;
        assert!(!record.peer_may_hold(), "an offer opens nothing");
        record.session_open = true;
        assert!(record.peer_may_hold());
    }

    /// A generation born after a failed offer, whose number the next session then takes.
    #[test]
    fn a_reused_number_is_a_later_session() {
        let mut record = lone();
        record.session = SessionNo(11);
        record.session_open = false;
        record.born_session = record.last_open();
        assert!(!record.peer_may_hold());
        record.session_open = true;
        assert!(record.peer_may_hold());
    }
}
