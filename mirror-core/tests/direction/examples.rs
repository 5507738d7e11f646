//! One pair of cards for each row, by name. A is the first server, B the second.

use crate::cards::{Change, blank, in_sync};
use crate::rules::check;
use mirror_core::direction::{Mode, Outcome, Row};
use mirror_core::record::Card;
use mirror_core::units::Id16;
use mirror_core::units::Side::{self, First, Second};

#[track_caller]
pub(crate) fn refuses(a: &Card, b: &Card, row: Row) {
    let verdict = check(a, b);
    assert_eq!((verdict.row, verdict.outcome), (row, Outcome::Refuse));
}

#[track_caller]
pub(crate) fn copies(a: &Card, b: &Card, row: Row, source: Side, mode: Mode) {
    let verdict = check(a, b);
    assert_eq!((verdict.row, verdict.outcome), (row, Outcome::Copy { source, mode }));
}

#[track_caller]
pub(crate) fn is_in_sync(a: &Card, b: &Card) {
    let verdict = check(a, b);
    assert_eq!((verdict.row, verdict.outcome), (Row::InSync, Outcome::InSync));
}

fn a() -> Card {
    in_sync(First, 1)
}

fn b() -> Card {
    in_sync(Second, 1)
}

const SETTLE: Mode = Mode::Settle { complete: true };
const SETTLE_HALF: Mode = Mode::Settle { complete: false };

#[test]
fn same_side() {
    refuses(&a(), &a().alone_at(2), Row::SameSide);
}

#[test]
fn foreign_mirror() {
    refuses(&a(), &b().with(|c| c.record.mirror = Id16([4; 16])), Row::ForeignMirror);
    copies(&a().active(), &blank(Second), Row::BlankTarget, First, Mode::Full);
}

#[test]
fn disk_failed() {
    refuses(&a(), &b().with(|c| c.record.disk_error = true), Row::DiskFailed);
    refuses(&a().with(|c| c.record.disk_error = true), &blank(Second), Row::DiskFailed);
}

#[test]
fn initial_construction() {
    let (a, b) = (blank(First), blank(Second));
    copies(&a, &b, Row::InitialConstruction, First, Mode::Initial);
}

#[test]
fn size_mismatch() {
    let small = |card: Card| card.with(|c| c.capacity /= 2);
    refuses(&a().active(), &small(blank(Second)), Row::SizeMismatch);
    refuses(&a(), &small(b()), Row::SizeMismatch);
    refuses(&a(), &b().with(|c| c.device_block = 4096), Row::SizeMismatch);
    refuses(&blank(First), &blank(Second).with(|c| c.capacity = 100), Row::SizeMismatch);
    // A larger one is fine.
    is_in_sync(&a(), &b().with(|c| c.capacity *= 2));
}

/// One side has recorded that the mirror grows, and the other has not yet.
#[test]
fn growing() {
    let grown = |card: Card| {
        card.with(|c| {
            c.record.size += 512;
            c.capacity = c.record.size;
            c.marked = 1;
        })
    };
    let incomplete = Mode::Settle { complete: false };
    let roomy = b().with(|c| c.capacity += 512);
    copies(&grown(a().active()), &roomy, Row::SettleFromActive, First, incomplete);
    copies(&grown(a()), &roomy.clone().active(), Row::SettleFromActive, Second, incomplete);
    // Without a mark, too: the size tells.
    let unmarked = grown(a().active()).with(|c| c.marked = 0);
    copies(&unmarked, &roomy, Row::SettleFromActive, First, incomplete);
    refuses(&grown(a().active()), &b().with(|c| c.capacity = c.record.size), Row::SizeMismatch);
}

#[test]
fn blank_resumed() {
    let b = blank(Second).half_copied(1, true).session(10);
    copies(&a().marked(50), &b, Row::BlankResumed, First, Mode::Difference);
    // A went alone meanwhile.
    let alone = a().alone_at(2).marked(60);
    copies(&alone, &b, Row::BlankResumed, First, Mode::Difference);
    // Half copied long ago, by a side that was then a replaced disk's peer.
    copies(&a().session(14), &b, Row::BlankTarget, First, Mode::Full);
    copies(&a().owes_all(), &b, Row::BlankTarget, First, Mode::Full);
}

#[test]
fn blank_and_abnormal() {
    refuses(&a().half_copied(3, false), &blank(Second), Row::BlankAndAbnormal);
    refuses(&a().behind(), &blank(Second), Row::BlankAndAbnormal);
}

#[test]
fn blank_target() {
    copies(&a().active(), &blank(Second), Row::BlankTarget, First, Mode::Full);
    copies(&blank(First), &b().alone_at(2), Row::BlankTarget, Second, Mode::Full);
    copies(&blank(First), &b().forced_alone_at(2), Row::BlankTarget, Second, Mode::Full);
    let confirmed = b().with(|c| c.record.peer_behind = true);
    copies(&blank(First), &confirmed, Row::BlankTarget, Second, Mode::Full);
}

#[test]
fn blank_and_unsure() {
    refuses(&a(), &blank(Second), Row::BlankAndUnsure);
}

#[test]
fn split_brain() {
    refuses(&a().alone_at(2), &b().alone_at(3), Row::SplitBrain);
    refuses(&a().alone_at(2).active(), &b().alone_at(3).active(), Row::SplitBrain);
    refuses(&a().forced_alone_at(2), &b().forced_alone_at(3), Row::SplitBrain);
    // Each declared the other void.
    refuses(&a().forced_at(2, Some(3)), &b().forced_at(3, Some(2)), Row::SplitBrain);
}

#[test]
fn both_active() {
    refuses(&a().active(), &b().active(), Row::BothActive);
    refuses(&a().alone_at(2).active(), &b().active(), Row::BothActive);
}

#[test]
fn source_abnormal() {
    refuses(&a().alone_at(2).half_copied(9, false), &b(), Row::SourceAbnormal);
    refuses(&a().alone_at(2).behind(), &b(), Row::SourceAbnormal);
}

#[test]
fn target_active() {
    refuses(&a().alone_at(2), &b().active(), Row::TargetActive);
    refuses(&a(), &b().half_copied(1, false).active(), Row::TargetActive);
    refuses(&blank(First).active(), &b().alone_at(2), Row::TargetActive);
}

#[test]
fn restored_source() {
    refuses(&a().alone_at(2).session(8), &b(), Row::RestoredSource);
    // Two offers of one number.
    refuses(&a().offered(11), &b().offered(11), Row::RestoredSource);
}

#[test]
fn restored_target() {
    copies(&a().alone_at(2), &b().session(8), Row::RestoredTarget, First, Mode::Full);
    copies(&a(), &b().session(8), Row::RestoredTarget, First, Mode::Full);
    copies(&a().session(9), &b(), Row::RestoredTarget, Second, Mode::Full);
}

#[test]
fn descendant_difference() {
    copies(&a().alone_at(2), &b(), Row::DescendantDifference, First, Mode::Difference);
    // An offer that came to nothing changes nothing.
    copies(&a().alone_at(2), &b().offered(11), Row::DescendantDifference, First, Mode::Difference);
    let resumed = b().half_copied(2, false);
    copies(&a().alone_at(2), &resumed, Row::DescendantDifference, First, Mode::Difference);
}

#[test]
fn descendant_full() {
    let forced = a().forced_at(2, Some(3));
    copies(&forced, &b().alone_at(3), Row::DescendantFull, First, Mode::Full);
}

#[test]
fn both_abnormal() {
    refuses(&a().behind(), &b().half_copied(1, false), Row::BothAbnormal);
    refuses(&a().owes_all(), &b().owes_all(), Row::BothAbnormal);
}

#[test]
fn inconsistent_target() {
    let target = b().half_copied(1, false);
    copies(&a().marked(4), &target, Row::InconsistentTarget, First, Mode::Difference);
    copies(&a().owes_all(), &target, Row::InconsistentTarget, First, Mode::Full);
    let elsewhere = b().half_copied(9, false);
    copies(&a().marked(4), &elsewhere, Row::InconsistentTarget, First, Mode::Full);
}

#[test]
fn behind_target() {
    copies(&a().marked(4), &b().behind(), Row::BehindTarget, First, SETTLE);
    copies(&a().marked(4), &b().behind().interrupted(), Row::BehindTarget, First, SETTLE_HALF);
    is_in_sync(&a(), &b().behind());
}

#[test]
fn settle_from_active() {
    let b = b().active().interrupted();
    copies(&a().marked(4), &b, Row::SettleFromActive, Second, SETTLE);
}

#[test]
fn settle_from_uninterrupted() {
    let a = a().marked(4).interrupted().activation(5);
    copies(&a, &b(), Row::SettleFromUninterrupted, Second, SETTLE_HALF);
}

#[test]
fn settle_from_last_activated() {
    let (a, b) = (a().activation(4).marked(4), b().activation(5));
    copies(&a, &b, Row::SettleFromLastActivated, Second, SETTLE);
    let (a, b) = (a.interrupted(), b.interrupted());
    copies(&a, &b, Row::SettleFromLastActivated, Second, SETTLE_HALF);
}

#[test]
fn settle_from_first() {
    copies(&a().marked(4), &b(), Row::SettleFromFirst, First, SETTLE);
}

#[test]
fn in_sync_by_equal_generations() {
    is_in_sync(&a(), &b());
    is_in_sync(&a().active(), &b().offered(11));
}
