//! An initial construction that is cut goes on as one, by itself, until both sides know of its end.

use crate::rig::Rig;
use mirror_core::command::Command;
use mirror_core::direction::{Mode, Outcome, Row, judge};
use mirror_core::mirror::{AutoRecovery, Tuning};
use mirror_core::record::{Card, Inconsistent, Record};
use mirror_core::status::CopyKind;
use mirror_core::units::{ActivationNo, Id16, SessionNo, Side};
use mirror_core::wire::Message;

fn blank(side: Side) -> Record {
    Record::blank(Id16([1 + u8::from(side == Side::Second); 16]), side)
}

fn reluctant() -> Tuning {
    Tuning { auto_recovery: AutoRecovery::Off, ..Tuning::default() }
}

/// What the other server shows, which wants no recovery.
fn shown(record: Record) -> Card {
    Card { wants_recovery: false, ..Rig::new(record).card() }
}

/// The peer has sent its marks and has recorded that it is half copied.
fn copy_begins(first: &mut Rig, number: u64) {
    first.receive(number, Message::MarksEnd);
    first.receive(number, Message::CopyReady);
}

/// The record of a source that was cut between its record and the session.
fn cut() -> Record {
    let mut first = Rig::new(blank(Side::First));
    first.connect();
    first.agree_with(Rig::new(blank(Side::Second)).card());
    first.receive(0, Message::Offer { session: SessionNo(1) });
    assert!(first.record().generation.is_some() && first.began.is_empty());
    first.record().clone()
}

/// The card of a target that was half copied from [`cut`].
fn half_copied(source: &Record) -> Card {
    let mut record = blank(Side::Second);
    record.inconsistent = source.generation.map(|toward| Inconsistent { toward, all: true });
    (record.size, record.block, record.session) = (source.size, source.block, source.session);
    shown(record)
}

fn meets(record: Record, theirs: Card) -> Rig {
    let number = record.session.0.max(theirs.record.session.0) + 1;
    let mut first = Rig::tuned(record, reluctant());
    first.open(theirs, number);
    copy_begins(&mut first, number);
    first
}

#[test]
fn a_construction_that_is_cut_before_its_session_goes_on_as_one() {
    let source = cut();
    assert!(Rig::new(source.clone()).status().constructing);
    let theirs = shown(blank(Side::Second));
    let verdict = judge(&Rig::new(source.clone()).card(), &theirs);
    assert!(matches!(verdict.outcome, Outcome::Copy { mode: Mode::Full, .. }), "{verdict:?}");
    assert_eq!(meets(source, theirs).began, [CopyKind::Initial], "by itself");
}

#[test]
fn a_construction_that_is_cut_in_its_middle_goes_on_as_one() {
    let mut source = cut();
    source.owes_all = false;
    let theirs = half_copied(&source);
    let first = meets(source.clone(), theirs.clone());
    assert_eq!(judge(&shown(source.clone()), &theirs).row, Row::BlankResumed);
    assert_eq!(first.began, [CopyKind::Initial]);
    assert!(first.status().constructing, "until its end");
    // The other end calls it the same.
    let mut second = Rig::tuned(theirs.record.clone(), reluctant());
    assert!(second.status().constructing);
    second.connect();
    second.agree_with(shown(source.clone()));
    let number = source.session.0 + 1;
    second.receive(0, Message::Accept { session: SessionNo(number) });
    let toward = source.generation.expect("it has one");
    second.receive(number, Message::CopyStart { toward, all: false, complete: false });
    assert_eq!(second.began, [CopyKind::Initial]);
}

/// The target has adopted, the source has not heard of it: that it is over is told all the same, once.
#[test]
fn a_construction_whose_end_was_not_heard_of_ends_in_the_next_session() {
    let mut source = cut();
    source.owes_all = false;
    let mut record = source.clone();
    (record.device, record.side) = (Id16([2; 16]), Side::Second);
    record.bases = [record.generation, None];
    let theirs = Rig::new(record).card();
    let mut first = Rig::new(source);
    first.open(theirs.clone(), 2);
    assert_eq!(first.finished, [(CopyKind::Initial, true)]);
    assert!(!first.status().constructing);
    first.lose_peer();
    first.wait(60_000);
    let mut theirs = theirs;
    theirs.record.session = SessionNo(2);
    first.open(theirs, 3);
    assert_eq!(first.finished.len(), 1);
}

/// A mirror that was used or forced is recovered like any other: nothing at the end may make a file
/// system, and with `auto_recovery = "off"` nothing begins by itself.
#[test]
fn what_was_used_or_forced_is_no_construction() {
    let began = |change: &dyn Fn(&mut Record), tuning| {
        let mut record = cut();
        change(&mut record);
        let mut first = Rig::tuned(record, tuning);
        first.open(shown(blank(Side::Second)), 2);
        copy_begins(&mut first, 2);
        first.began
    };
    let used = |record: &mut Record| {
        (record.activation, record.known_activation) = (ActivationNo(1), ActivationNo(1));
    };
    let forced = |record: &mut Record| record.forced_at = Some(ActivationNo(1));
    assert_eq!(began(&used, Tuning::default()), [CopyKind::Full]);
    assert_eq!(began(&forced, Tuning::default()), [CopyKind::Full]);
    assert!(began(&used, reluctant()).is_empty());
    assert!(began(&forced, reluctant()).is_empty());
}

/// Somebody activates the source while all is being copied, and may make a file system by hand.
#[test]
fn a_construction_that_ends_in_use_owes_nothing() {
    let ends = |used: bool| {
        let mut first = Rig::new(blank(Side::First));
        first.open(Rig::new(blank(Side::Second)).card(), 1);
        copy_begins(&mut first, 1);
        if used {
            first.command(Command::Activate { peer_down: false, peer_seen_active: None });
            first.receive(1, Message::ActivateGrant { number: ActivationNo(1) });
            assert!(first.is_active());
        }
        first.answer_copies(1);
        first.receive(1, Message::Adopted);
        first.finished
    };
    assert_eq!(ends(false), [(CopyKind::Initial, true)]);
    assert_eq!(ends(true), [(CopyKind::Full, true)]);
}
