//! Sequences of events that ended badly under simpler rules. Each test builds the cards that the
//! sequence leaves. G1 is the generation that A (first server) and B (second) shared.

use crate::cards::{Change, blank, generation, in_sync};
use crate::examples::{copies, is_in_sync, refuses};
use mirror_core::direction::{Mode, Row};
use mirror_core::record::Card;
use mirror_core::units::Side::{First, Second};

fn a() -> Card {
    in_sync(First, 1)
}

fn b() -> Card {
    in_sync(Second, 1)
}

/// A side that went on alone at G2 and was copied to the peer, whose word that it adopted G2
/// was lost with the connection of session 11.
fn owner_of_2(side: mirror_core::units::Side) -> Card {
    in_sync(side, 1).alone_at(2).session(11)
}

/// The peer that adopted G2.
fn adopter_of_2(side: mirror_core::units::Side) -> Card {
    in_sync(side, 2).session(11).with(|c| c.record.ancestors.push(generation(1)))
}

#[test]
fn missed_end_of_recovery() {
    // A writes alone after it: a new generation, since B may hold G2.
    let a_after = owner_of_2(First).alone_at(4);
    // B takes over, and writes alone, too.
    let b_after = adopter_of_2(Second).alone_at(3);
    refuses(&a_after, &b_after, Row::SplitBrain);
    // Only one of them wrote: a plain difference from it.
    copies(&a_after, &adopter_of_2(Second), Row::DescendantDifference, First, Mode::Difference);
    copies(&owner_of_2(First), &b_after, Row::DescendantDifference, Second, Mode::Difference);
}

#[test]
fn stale_card() {
    // A went on alone between two attempts: the second card says so.
    is_in_sync(&a().active(), &b());
    copies(&a().active().alone_at(2), &b(), Row::DescendantDifference, First, Mode::Difference);
}

#[test]
fn empty_side_wins() {
    // A's cluster partition is zeroed: under a recovery of B, and after hours alone.
    refuses(&blank(First), &b().half_copied(2, false), Row::BlankAndAbnormal);
    refuses(&blank(First), &b().behind(), Row::BlankAndAbnormal);
    refuses(&blank(First), &b(), Row::BlankAndUnsure);
}

#[test]
fn empty_side_wins_after_a_missed_end() {
    // B adopts G2, A misses it. B takes over and writes alone for hours, then its cluster
    // partition is zeroed. A was alone at G2, but cannot know that it is the latest.
    refuses(&owner_of_2(First), &blank(Second), Row::BlankAndUnsure);
    // Without a session since, it can.
    let a = a().alone_at(2);
    copies(&a, &blank(Second), Row::BlankTarget, First, Mode::Full);
    // An offer that nobody took up does not count.
    copies(&a.offered(11), &blank(Second), Row::BlankTarget, First, Mode::Full);
}

#[test]
fn empty_source_of_a_half_copied_blank_side() {
    // A was replaced and is being copied from B, whose cluster partition is zeroed on the way. The
    // half-copied side must not be taken for the first server of a new mirror.
    let a = blank(First).half_copied(5, true);
    copies(&a, &blank(Second), Row::InitialConstruction, Second, Mode::Initial);
    let b = blank(Second).half_copied(5, true);
    copies(&blank(First), &b, Row::InitialConstruction, First, Mode::Initial);
    refuses(&a, &b, Row::BlankAndAbnormal);
}

#[test]
fn old_image() {
    // B comes back from an image: same generation, no marks.
    copies(&a(), &b().session(7), Row::RestoredTarget, First, Mode::Full);
    // A's image of before the break: its peer went on since.
    copies(&a().session(9), &b().alone_at(2), Row::RestoredTarget, Second, Mode::Full);
    // A's image is of when A was alone; B has been copied to and has gone on since.
    let b = adopter_of_2(Second).alone_at(3).session(12);
    copies(&a().alone_at(2), &b, Row::RestoredTarget, Second, Mode::Full);
}

#[test]
fn old_image_and_a_copy_that_did_not_begin() {
    // B restored: everything is to be copied. Session 11 opened, so the numbers agree now; the
    // connection was lost before B recorded anything. Only A's debt tells what B is.
    let a = a().session(11).owes_all();
    let b = b().session(11);
    copies(&a, &b, Row::RestoredTarget, First, Mode::Full);
    // However B looks otherwise.
    let tempting = b.clone().activation(9);
    copies(&a.clone().interrupted(), &tempting, Row::RestoredTarget, First, Mode::Full);
    refuses(&a, &b.active(), Row::TargetActive);
}

#[test]
fn hours_old_standby() {
    // B rebooted and was activated by force although A had gone on: no order, no copy.
    let a = a().alone_at(2).activation(5);
    refuses(&a.clone().active(), &b().forced_alone_at(3), Row::SplitBrain);
    // Not forced, nothing written there: A is simply newer.
    copies(&a, &b().interrupted(), Row::DescendantDifference, First, Mode::Difference);
}

#[test]
fn equal_generations() {
    let settle = Mode::Settle { complete: false };
    let crashed = a().activation(5).marked(7).interrupted();
    // A crashed, B ran on: B has what it acked.
    copies(&crashed, &b(), Row::SettleFromUninterrupted, Second, settle);
    // B was activated afterwards and only read.
    let reader = b().activation(6).active();
    copies(&crashed, &reader, Row::SettleFromActive, Second, settle);
    let reader = b().activation(6).interrupted();
    copies(&crashed, &reader, Row::SettleFromLastActivated, Second, settle);
    // A came back and is active again.
    let back = crashed.active();
    copies(&back, &b(), Row::SettleFromActive, First, Mode::Settle { complete: true });
}

#[test]
fn half_forced() {
    // B wrote alone at G3; A was forced in contact, and neither told B nor copied a block.
    let a = a().alone_at(2).forced_at(4, Some(3));
    let b = b().alone_at(3);
    copies(&a, &b, Row::DescendantFull, First, Mode::Full);
    // B says that it is half copied; then A's marks are durable, and its debt is paid by them.
    let b_half = b.half_copied(4, true);
    copies(&a, &b_half, Row::DescendantFull, First, Mode::Full);
    let owing = a.with(|c| c.record.owes_all = false).marked(1000);
    copies(&owing, &b_half, Row::DescendantDifference, First, Mode::Difference);
}

#[test]
fn forced_alone() {
    let a = a().forced_alone_at(4);
    // B had gone on alone since its activation 5, unseen.
    let b = b().alone_at(3).activation(5);
    copies(&a, &b, Row::DescendantFull, First, Mode::Full);
    // Activated later, forced, too, or active now: no order.
    refuses(&a, &b.clone().activation(6), Row::SplitBrain);
    refuses(&a, &b.clone().forced_alone_at(7), Row::SplitBrain);
    refuses(&a, &b.active(), Row::SplitBrain);
}

#[test]
fn forced_back_after_a_force_without_contact() {
    // A was forced alone; in contact the operator thinks better of it and forces B, which knows
    // of A's forced generation by then. The later word counts.
    let a = a().forced_alone_at(4);
    let b = b().alone_at(3).activation(5).forced_at(6, Some(4));
    copies(&a, &b, Row::DescendantFull, Second, Mode::Full);
}

#[test]
fn too_old_ancestor() {
    // A: G1, G2, G3 alone, with B in between at G2. B comes back with the disk of G1.
    let a = a().alone_at(2).alone_at(3);
    copies(&a, &b(), Row::DescendantFull, First, Mode::Full);
    let b = adopter_of_2(Second).session(10);
    copies(&a, &b, Row::DescendantDifference, First, Mode::Difference);
}

#[test]
fn a_debt_of_the_target_makes_the_marks_worthless() {
    let b = b().owes_all().half_copied(1, true);
    copies(&a(), &b, Row::InconsistentTarget, First, Mode::Full);
    let older = in_sync(Second, 1).owes_all();
    copies(&a().alone_at(2), &older, Row::DescendantFull, First, Mode::Full);
}
