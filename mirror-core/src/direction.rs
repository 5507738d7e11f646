//! Who copies to whom: one pure function of both sides' cards (rule 8).
//!
//! [`judge`] is total (every pair of cards gets a row) and symmetric (both sides, each with its
//! own card first, get the same row and the same source). The row's name is what the log prints.
//! `docs/recovery.md` has the table in prose; the rows are tried from top to bottom.

use crate::record::{Card, Record};
use crate::rules::{Rule, holds};
use crate::units::{Generation, SessionNo, Side};

/// What is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Everything, and the mirror is made by it.
    Initial,
    /// Everything.
    Full,
    /// The union of both sides' marks.
    Difference,
    /// The union of both sides' marks between sides of one generation. With `complete` the target
    /// is uninterrupted and stays usable meanwhile (rule 6, exemption).
    Settle {
        /// The target stays complete.
        complete: bool,
    },
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Open a session; there is nothing to copy.
    InSync,
    /// Open a session and copy from `source` to the other side.
    Copy {
        /// The side with the latest data.
        source: Side,
        /// What is copied.
        mode: Mode,
    },
    /// Open no session: an operator must act first.
    Refuse,
}

macro_rules! rows {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// The rows of the direction table, in the order in which they are tried.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Row {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Row {
            /// Every row.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that logs and `clpmdstat --json` print.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

rows! {
    /// Both records say the same side: the configuration or a partition is in the wrong place.
    SameSide = 1, "same-side";
    /// The sides belong to different mirrors.
    ForeignMirror = 2, "foreign-mirror";
    /// A disk of one side has failed.
    DiskFailed = 3, "disk-failed";
    /// Neither side has a history.
    InitialConstruction = 4, "initial-construction";
    /// A data partition is smaller than the mirror, or the recorded sizes differ.
    SizeMismatch = 5, "size-mismatch";
    /// A side without history is half copied from the other: go on with what is left.
    BlankResumed = 6, "blank-resumed";
    /// A side without history, and the other is half copied or behind: nobody has good data.
    BlankAndAbnormal = 7, "blank-and-abnormal";
    /// A side without history, and the other knows that it is the latest.
    BlankTarget = 8, "blank-target";
    /// A side without history, and the other cannot know whether it is the latest.
    BlankAndUnsure = 9, "blank-and-unsure";
    /// The histories have parted, or each overrules the other.
    SplitBrain = 10, "split-brain";
    /// Both sides are active.
    BothActive = 11, "both-active";
    /// The side that would be copied from is half copied or behind.
    SourceAbnormal = 12, "source-abnormal";
    /// The side that would be overwritten is active.
    TargetActive = 13, "target-active";
    /// The newer side was restored from an image: what it lacks is not known.
    RestoredSource = 14, "restored-source";
    /// The older side was restored from an image.
    RestoredTarget = 15, "restored-target";
    /// One side descends from the other's generation, which is the base of its marks.
    DescendantDifference = 16, "descendant-difference";
    /// One side descends from or overrules the other; its marks do not reach back so far.
    DescendantFull = 17, "descendant-full";
    /// One generation, and both sides are half copied or behind.
    BothAbnormal = 18, "both-abnormal";
    /// One generation; the target of a copy that did not end.
    InconsistentTarget = 19, "inconsistent-target";
    /// One generation; this side knows that the other may have gone on.
    BehindTarget = 20, "behind-target";
    /// One generation, settled from the active side.
    SettleFromActive = 21, "settle-from-active";
    /// One generation, settled from the only uninterrupted side.
    SettleFromUninterrupted = 22, "settle-from-uninterrupted";
    /// One generation, settled from the side that was activated last.
    SettleFromLastActivated = 23, "settle-from-last-activated";
    /// One generation, settled from the first server.
    SettleFromFirst = 24, "settle-from-first";
    /// One generation and no marks.
    InSync = 25, "in-sync";
}

/// The answer of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The row that decided.
    pub row: Row,
    /// What is to be done.
    pub outcome: Outcome,
}

impl Verdict {
    const fn refuse(row: Row) -> Self {
        Self { row, outcome: Outcome::Refuse }
    }

    const fn copy(row: Row, source: Side, mode: Mode) -> Self {
        Self { row, outcome: Outcome::Copy { source, mode } }
    }

    /// The side copied from, if anything is copied.
    #[must_use]
    pub const fn source(self) -> Option<Side> {
        match self.outcome {
            Outcome::Copy { source, .. } => Some(source),
            Outcome::InSync | Outcome::Refuse => None,
        }
    }
}

/// Decides the direction. `a` and `b` may be given in either order.
#[must_use]
pub fn judge(a: &Card, b: &Card) -> Verdict {
    let (ra, rb) = (&a.record, &b.record);
    if ra.side == rb.side {
        return Verdict::refuse(Row::SameSide);
    }
    if !ra.mirror.is_none() && !rb.mirror.is_none() && ra.mirror != rb.mirror {
        return Verdict::refuse(Row::ForeignMirror);
    }
    if ra.disk_error || rb.disk_error {
        return Verdict::refuse(Row::DiskFailed);
    }
    match (ra.generation, rb.generation) {
        (None, None) => judge_both_blank(a, b),
        (None, Some(generation)) => judge_blank(b, generation, a),
        (Some(generation), None) => judge_blank(a, generation, b),
        (Some(ga), Some(gb)) => {
            if !sizes_agree(a, b) {
                Verdict::refuse(Row::SizeMismatch)
            } else if ga == gb {
                judge_equal(a, b, ga)
            } else {
                judge_different(a, b)
            }
        }
    }
}

/// Neither has a history. One that is half copied had a source, whose history is lost: what is
/// here is worth nothing, and what is there may be the only good copy.
fn judge_both_blank(a: &Card, b: &Card) -> Verdict {
    if a.active || b.active {
        return Verdict::refuse(Row::TargetActive);
    }
    let block = a.device_block.max(b.device_block);
    if a.capacity.min(b.capacity) < u64::from(block.max(1)) {
        return Verdict::refuse(Row::SizeMismatch);
    }
    let source = match (a.record.inconsistent, b.record.inconsistent) {
        (None, None) => Side::First,
        (Some(_), None) => b.record.side,
        (None, Some(_)) => a.record.side,
        (Some(_), Some(_)) => return Verdict::refuse(Row::BlankAndAbnormal),
    };
    Verdict::copy(Row::InitialConstruction, source, Mode::Initial)
}

/// `blank` has no history, `full` has one.
fn judge_blank(full: &Card, generation: Generation, blank: &Card) -> Verdict {
    let record = &full.record;
    if blank.capacity < record.size || blank.device_block > record.block {
        return Verdict::refuse(Row::SizeMismatch);
    }
    if is_abnormal(record) {
        return Verdict::refuse(Row::BlankAndAbnormal);
    }
    if blank.active {
        return Verdict::refuse(Row::TargetActive);
    }
    if resumes(record, generation, &blank.record) {
        return Verdict::copy(Row::BlankResumed, record.side, Mode::Difference);
    }
    if full.active || knows_it_is_latest(record) || is_toward(record, &blank.record) {
        return Verdict::copy(Row::BlankTarget, record.side, Mode::Full);
    }
    Verdict::refuse(Row::BlankAndUnsure)
}

/// The record itself says that the peer cannot be newer: it was forced, the peer confirmed that
/// it is behind, or the generation was never within the peer's reach. A peer that may have adopted
/// the generation may also have gone on from it.
fn knows_it_is_latest(record: &Record) -> bool {
    record.owes_all || record.peer_behind || !record.peer_may_hold() || !holds(Rule::BlankUnsure)
}

/// `target` is half copied toward a generation that `source` has or had.
fn is_toward(source: &Record, target: &Record) -> bool {
    target.inconsistent.is_some_and(|i| {
        source.generation == Some(i.toward)
            || source.bases.contains(&Some(i.toward))
            || source.ancestors.contains(i.toward)
    })
}

/// The marks of `source` say what its half-copied `target` still lacks.
fn resumes(source: &Record, generation: Generation, target: &Record) -> bool {
    target.inconsistent.is_some_and(|i| {
        !source.owes_all
            && sessions_can_both_be_true(source, target)
            && (i.toward == generation || source.bases.contains(&Some(i.toward)))
    })
}

/// Sizes differ when a growth was interrupted between the two records. The larger one is the
/// mirror's: both partitions were found large enough before it was recorded.
fn sizes_agree(a: &Card, b: &Card) -> bool {
    let size = a.record.size.max(b.record.size);
    a.record.block == b.record.block
        && a.capacity >= size
        && b.capacity >= size
        && a.device_block <= a.record.block
        && b.device_block <= a.record.block
}

/// Whether one history of offers and sessions can have left both records.
///
/// The acceptor records *offered n*, then the dialler *open n*, then the acceptor *open n*, where
/// n is one above the highest that either knew. So numbers differ by one at most, a higher one is
/// only offered, and both cannot be offers of one number.
#[must_use]
pub fn sessions_can_both_be_true(a: &Record, b: &Record) -> bool {
    if !holds(Rule::Restored) {
        return true;
    }
    let (low, high) = if a.session <= b.session { (a, b) } else { (b, a) };
    match high.session.0 - low.session.0 {
        0 => low.session_open || high.session_open,
        1 => !high.session_open,
        _ => false,
    }
}

/// The number of the next session between sides with these records: one above the last that
/// may have been open. An offer that nobody accepted is made again under its number.
#[must_use]
pub fn next_session(a: &Record, b: &Record) -> SessionNo {
    let opened = |r: &Record| r.session.0 - u64::from(!r.session_open && r.session.0 > 0);
    SessionNo(opened(a).max(opened(b)) + 1)
}

/// Whether `x` descends from or overrules the history of `y`.
fn supersedes(x: &Card, y: &Card) -> bool {
    knows_as_former(&x.record, &y.record) || overrules_unseen(x, y)
}

/// The record of `x` names the generation of `y` as one that it descends from or overrules, or
/// `y` is being turned into something that `x` has.
fn knows_as_former(x: &Record, y: &Record) -> bool {
    let named = y.generation.is_none_or(|gy| {
        let overruled = x.overruled.contains(gy) && !went_on_since_force(x, y);
        x.ancestors.contains(gy) || x.bases.contains(&Some(gy)) || overruled
    });
    named || is_toward(x, y)
}

/// `y` was activated after the force that overruled it, without knowing of it: what it wrote then
/// was not meant.
fn went_on_since_force(x: &Record, y: &Record) -> bool {
    x.forced_at.is_some_and(|forced| y.activation >= forced) && holds(Rule::ForceSince)
}

/// A force without contact also overrules an inactive peer that was last activated earlier, but
/// not one that was forced, too, and not one that knows of the forced generation: what that one
/// became, it became later.
fn overrules_unseen(x: &Card, y: &Card) -> bool {
    x.record.forced_at.is_some_and(|forced| {
        !y.active
            && y.record.forced_at.is_none()
            && (y.record.activation < forced || !holds(Rule::ForceSince))
            && !knows_as_former(&y.record, &x.record)
            && holds(Rule::ForceUnseen)
    })
}

/// Whether `theirs` took over while the agent of `mine`, an active side, was away: it is active,
/// has newer data (also by a force), or was activated since. An activation after which nothing was
/// written there counts only as long as nothing was written here alone either: it ends the older
/// one, so that the numbers tell which side was active last. A side of another mirror took over
/// nothing.
#[must_use]
pub fn took_over(mine: &Card, theirs: &Card) -> bool {
    let asleep = Card { active: false, ..mine.clone() };
    let same = mine.record.generation == theirs.record.generation;
    let older = !same && supersedes(&asleep, theirs);
    let newer = !same && supersedes(theirs, &asleep);
    let since = theirs.record.activation > mine.record.activation;
    let went_on = theirs.record.generation.is_some() && !older && (newer || since);
    mine.record.mirror == theirs.record.mirror && (theirs.active || went_on)
}

/// Both have histories, of different generations.
fn judge_different(a: &Card, b: &Card) -> Verdict {
    let (newer, older) = match (supersedes(a, b), supersedes(b, a)) {
        (true, false) => (a, b),
        (false, true) => (b, a),
        (false, false) if !holds(Rule::SplitBrain) => (a, b),
        (true, true) | (false, false) => return Verdict::refuse(Row::SplitBrain),
    };
    if let Some(refusal) = copy_is_refused(newer, older) {
        return refusal;
    }
    let (rn, ro) = (&newer.record, &older.record);
    if !sessions_can_both_be_true(rn, ro) {
        return if ro.session < rn.session {
            Verdict::copy(Row::RestoredTarget, rn.side, Mode::Full)
        } else {
            Verdict::refuse(Row::RestoredSource)
        };
    }
    if marks_reach_back(rn, ro) {
        Verdict::copy(Row::DescendantDifference, rn.side, Mode::Difference)
    } else {
        Verdict::copy(Row::DescendantFull, rn.side, Mode::Full)
    }
}

fn copy_is_refused(source: &Card, target: &Card) -> Option<Verdict> {
    if source.active && target.active {
        return Some(Verdict::refuse(Row::BothActive));
    }
    if is_abnormal(&source.record) {
        return Some(Verdict::refuse(Row::SourceAbnormal));
    }
    target.active.then(|| Verdict::refuse(Row::TargetActive))
}

/// Half copied, or knows that the other may have gone on: never a source (rule 6).
fn is_abnormal(record: &Record) -> bool {
    (record.inconsistent.is_some() || record.behind) && holds(Rule::AbnormalSource)
}

/// The marks of both are complete against what `target` holds now.
fn marks_reach_back(source: &Record, target: &Record) -> bool {
    if source.owes_all || target.owes_all {
        return false;
    }
    let held = match target.inconsistent {
        Some(inconsistent) => Some(inconsistent.toward),
        None => target.generation,
    };
    !holds(Rule::ReachBack)
        || held.is_some() && (source.bases.contains(&held) || source.generation == held)
}

/// Both have the same generation.
fn judge_equal(a: &Card, b: &Card, generation: Generation) -> Verdict {
    if a.active && b.active && holds(Rule::BothActive) {
        return Verdict::refuse(Row::BothActive);
    }
    if !sessions_can_both_be_true(&a.record, &b.record) {
        return judge_equal_restored(a, b);
    }
    match (is_abnormal(&a.record), is_abnormal(&b.record)) {
        (true, true) => Verdict::refuse(Row::BothAbnormal),
        (true, false) => judge_equal_abnormal(b, a, generation),
        (false, true) => judge_equal_abnormal(a, b, generation),
        (false, false) => judge_settle(a, b),
    }
}

fn judge_equal_restored(a: &Card, b: &Card) -> Verdict {
    let (source, target) = match a.record.session.cmp(&b.record.session) {
        std::cmp::Ordering::Greater => (a, b),
        std::cmp::Ordering::Less => (b, a),
        // Two offers of one number: neither side can be told to be the restored one.
        std::cmp::Ordering::Equal => return Verdict::refuse(Row::RestoredSource),
    };
    copy_is_refused(source, target)
        .unwrap_or_else(|| Verdict::copy(Row::RestoredTarget, source.record.side, Mode::Full))
}

fn judge_equal_abnormal(source: &Card, target: &Card, generation: Generation) -> Verdict {
    if let Some(refusal) = copy_is_refused(source, target) {
        return refusal;
    }
    let row = match target.record.inconsistent {
        Some(_) => Row::InconsistentTarget,
        None => Row::BehindTarget,
    };
    let side = source.record.side;
    if source.record.owes_all || target.record.owes_all {
        return Verdict::copy(row, side, Mode::Full);
    }
    match target.record.inconsistent {
        Some(_) if !resumes(&source.record, generation, &target.record) => {
            Verdict::copy(row, side, Mode::Full)
        }
        Some(_) => Verdict::copy(row, side, Mode::Difference),
        None if unmarked(source, target) => Verdict { row: Row::InSync, outcome: Outcome::InSync },
        None => {
            let complete = stays_complete(source, target);
            Verdict::copy(row, side, Mode::Settle { complete })
        }
    }
}

fn unmarked(a: &Card, b: &Card) -> bool {
    a.marked == 0 && b.marked == 0 && !grows(a, b)
}

/// One side has yet to take the size of the other. What the mirror has grown by has no content that
/// both have, and is not to be shown before it has.
fn grows(a: &Card, b: &Card) -> bool {
    a.record.size != b.record.size
}

/// The target of settling stays complete.
fn stays_complete(source: &Card, target: &Card) -> bool {
    target.uninterrupted && !(grows(source, target) && holds(Rule::GrownIncomplete))
}

/// Same generation, both whole: take the difference from the side that most likely has what
/// applications saw last.
fn judge_settle(a: &Card, b: &Card) -> Verdict {
    match (a.record.owes_all, b.record.owes_all) {
        (true, true) => return Verdict::refuse(Row::BothAbnormal),
        (true, false) => return judge_owed(a, b),
        (false, true) => return judge_owed(b, a),
        (false, false) => {}
    }
    let (row, source, target) = settle_source(a, b);
    if unmarked(a, b) {
        return Verdict { row: Row::InSync, outcome: Outcome::InSync };
    }
    let complete = stays_complete(source, target) || !holds(Rule::SettleIncomplete);
    Verdict::copy(row, source.record.side, Mode::Settle { complete })
}

/// One generation, and `source` had begun to copy everything to a restored `target`. Their
/// session numbers agree since that attempt, so only the debt still tells them apart.
fn judge_owed(source: &Card, target: &Card) -> Verdict {
    copy_is_refused(source, target)
        .unwrap_or_else(|| Verdict::copy(Row::RestoredTarget, source.record.side, Mode::Full))
}

fn settle_source<'c>(a: &'c Card, b: &'c Card) -> (Row, &'c Card, &'c Card) {
    let pick = |row, a_wins: bool| if a_wins { (row, a, b) } else { (row, b, a) };
    if a.active != b.active && holds(Rule::SettleActive) {
        return pick(Row::SettleFromActive, a.active);
    }
    if a.uninterrupted != b.uninterrupted && holds(Rule::SettleUninterrupted) {
        return pick(Row::SettleFromUninterrupted, a.uninterrupted);
    }
    let (na, nb) = (a.record.activation, b.record.activation);
    if na != nb && holds(Rule::SettleActivation) {
        return pick(Row::SettleFromLastActivated, na > nb);
    }
    pick(Row::SettleFromFirst, a.record.side == Side::First)
}
