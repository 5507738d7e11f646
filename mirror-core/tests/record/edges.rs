//! What comes between two steps of something else: a command in an agreement, a stop in an activation,
//! the end of a connection in an adoption.

use super::constructed;
use super::rig::{Rig, write};
use mirror_core::command::Command;
use mirror_core::direction::{Row, judge};
use mirror_core::mirror::Tuning;
use mirror_core::record::Card;
use mirror_core::units::{ActivationNo, Generation, Id16, SessionNo, Side};
use mirror_core::wire::Message;

const ACTIVATE: Command = Command::Activate { peer_down: false, peer_seen_active: None };

fn fenced() -> Tuning {
    Tuning { fenced: true, ..Tuning::default() }
}

/// The card of a second server in the state of [`constructed`].
fn second() -> Card {
    Rig::new(constructed(Side::Second)).card()
}

/// What a card says of its owner stays so until the agreement is over: the peer would take a side
/// for active that is not.
#[test]
fn a_device_that_fails_its_requests_is_not_closed_in_an_agreement() {
    let mut record = constructed(Side::First);
    record.peer_behind = true;
    let mut first = Rig::tuned(record, fenced());
    first.command(ACTIVATE);
    let mut theirs = second();
    theirs.record.generation = Generation::new(77);
    theirs.record.bases = [None; 2];
    first.connect();
    first.agree_with(theirs.clone());
    assert_eq!(first.said, ["Ok(Activated)", "device fails"]);
    first.connect();
    assert!(first.shown().expect("it shows a card").active);
    first.command(Command::Deactivate);
    assert!(first.is_active() && first.record().active);
    first.agree_with(theirs);
    assert_eq!(first.said[2..], ["Ok(Deactivated)"]);
    assert!(!first.is_active() && !first.record().active);
}

/// The word that the peer is off ends when it is met, also without a session: what waits then asks the
/// peer itself.
#[test]
fn a_word_that_the_peer_is_off_ends_with_contact() {
    let mut first = Rig::tuned(constructed(Side::First), fenced());
    first.command(Command::Activate { peer_down: true, peer_seen_active: None });
    first.wait(60_000);
    first.request(write(1));
    first.wait(60_000);
    assert_eq!(first.said, ["Ok(Activated)", "Ok(())"]);
    let mut theirs = second();
    theirs.apart = true;
    first.connect();
    first.agree_with(theirs);
    let told = first.told_peer;
    assert!(told > 0);
    first.lose_peer();
    first.request(write(1));
    first.wait(1000);
    assert_eq!(first.said.len(), 2);
    let session = first.record().session;
    first.command(Command::PeerConfirmedBehind { session });
    assert_eq!(first.said[2..], ["Ok(Noted)", "Ok(())"]);
}

/// A recovery, or a force, that was ordered before anything was known of a `--break` on the other
/// server does not undo that.
#[test]
fn a_break_outlasts_what_was_ordered_without_knowing_of_it() {
    let opens = |knows: bool| {
        let mut first = Rig::new(constructed(Side::First));
        let mut theirs = second();
        theirs.apart = true;
        if knows {
            first.connect();
            first.agree_with(theirs.clone());
            first.lose_peer();
        }
        first.command(Command::Force { peer_seen_active: None });
        assert_eq!(first.said, ["Ok(ForcedAlone)"]);
        first.connect();
        first.agree_with(theirs);
        first.receive(0, Message::Offer { session: SessionNo(11) });
        first.record().session == SessionNo(11)
    };
    assert!(!opens(false));
    assert!(opens(true), "the operator knew");
}

/// A session ends a `--break`; a word from before that does not undo the next one.
#[test]
fn a_break_after_a_session_is_not_undone_by_what_was_known_before() {
    let mut first = Rig::new(constructed(Side::First));
    let mut theirs = second();
    theirs.apart = true;
    first.connect();
    first.agree_with(theirs.clone());
    first.command(Command::Recover);
    first.connect();
    first.agree_with(theirs.clone());
    first.receive(0, Message::Offer { session: SessionNo(11) });
    first.receive(0, Message::Opened { session: SessionNo(11) });
    first.lose_peer();
    first.wait(60_000);
    first.command(Command::Force { peer_seen_active: None });
    assert_eq!(first.said, ["Ok(RecoveryStarted)", "Ok(ForcedAlone)"]);
    first.connect();
    theirs.record.session = SessionNo(11);
    first.agree_with(theirs);
    first.receive(0, Message::Offer { session: SessionNo(12) });
    assert_eq!(first.record().session, SessionNo(11));
}

/// An activation that is being recorded is not taken back by a stop: the record would say *active* of
/// a side that is not.
#[test]
fn a_stop_waits_for_an_activation_that_is_being_recorded() {
    let mut record = constructed(Side::Second);
    record.peer_behind = true;
    let mut second = Rig::new(record);
    second.slow_meta = true;
    second.command(ACTIVATE);
    second.command(Command::Shutdown);
    assert!(second.said.is_empty());
    second.end_meta();
    second.end_meta();
    second.request(write(1));
    assert_eq!(second.said, ["Ok(Activated)", "Ok(Stopped)", "Err(Inactive)"]);
    assert!(!second.record().active);
}

/// A target of mode *difference* (or full) as the second server, with its session open.
fn target(theirs: Card) -> Rig {
    let mut second = Rig::new(constructed(Side::Second));
    second.connect();
    second.agree_with(theirs);
    second.receive(0, Message::Accept { session: SessionNo(11) });
    second
}

fn first_marked() -> Card {
    let mut theirs = Rig::new(constructed(Side::First)).card();
    (theirs.active, theirs.marked) = (true, 1);
    theirs
}

/// The active side of a session was activated last, whatever number the other one once took apart: by
/// the numbers it would be overwritten after a restart of both, and its next agent would give way to a
/// side that has not taken over.
#[test]
fn the_active_side_of_a_session_has_the_highest_number() {
    active_against(ActivationNo(3), ActivationNo(4));
}

/// Both were activated apart, under the same number.
#[test]
fn of_two_equal_numbers_the_active_side_takes_a_new_one() {
    active_against(ActivationNo(1), ActivationNo(2));
}

/// The first server, active under number 1, opens a session with one that was activated under
/// `others`.
fn active_against(others: ActivationNo, expected: ActivationNo) {
    let mut record = constructed(Side::First);
    (record.active, record.boot) = (true, super::rig::BOOT);
    (record.activation, record.known_activation) = (ActivationNo(1), ActivationNo(1));
    record.generation = Generation::new(2);
    record.ancestors.push(Generation::new(1).expect("not 0"));
    record.bases = [Generation::new(1), None];
    let mut theirs = second();
    theirs.record.activation = others;
    let mut first = Rig::resuming(record, &[], Tuning::default());
    first.connect();
    let mine = first.shown().expect("it shows a card");
    first.agree_with(theirs.clone());
    first.receive(0, Message::Offer { session: SessionNo(11) });
    assert!(first.is_active());
    assert_eq!(first.record().activation, expected);
    assert_eq!(first.record().known_activation, expected);
    // The other end comes to the same.
    let mut second = Rig::new(theirs.record);
    second.connect();
    second.agree_with(mine);
    second.receive(0, Message::Accept { session: SessionNo(11) });
    assert_eq!(second.record().activation, others);
    assert_eq!(second.record().known_activation, expected);
}

/// From the order to adopt on the target has all that was ever acknowledged, and counts as uninterrupted
/// though the connection ends before its record is written.
#[test]
fn a_target_that_was_told_to_adopt_is_uninterrupted() {
    let mut second = target(first_marked());
    let toward = Generation::new(1).expect("not 0");
    second.receive(11, Message::CopyStart { toward, all: false, complete: false });
    second.slow_meta = true;
    second.receive(
        11,
        Message::Adopt {
            generation: toward,
            ancestors: Default::default(),
            overruled: Default::default(),
            mirror: Id16([9; 16]),
        },
    );
    second.lose_peer();
    second.end_meta();
    second.end_meta();
    assert!(second.record().inconsistent.is_none());
    second.connect();
    assert!(second.shown().expect("it shows a card").uninterrupted);
}

/// A server that lost its power under an active peer, and is kept apart from it, lacks what its cache
/// lost also when the peer is not active any more, or gives up an activation that was granted.
#[test]
fn a_side_that_may_lack_something_does_so_when_its_peer_is_closed() {
    let mut record = constructed(Side::First);
    record.peer_active = true;
    let mut first = Rig::new(record);
    let mut theirs = second();
    (theirs.uninterrupted, theirs.marked, theirs.apart) = (true, 1, true);
    first.connect();
    first.agree_with(theirs);
    first.receive(0, Message::ActivateAsk { number: ActivationNo(1) });
    assert!(first.has_sent(|m| matches!(m, Message::ActivateGrant { .. })));
    first.receive(0, Message::Deactivated);
    assert!(first.record().peer_active);
    first.lose_peer();
    first.command(Command::Activate { peer_down: true, peer_seen_active: None });
    assert_eq!(first.said, ["Err(PeerWasActive)"]);
}

/// What is copied follows from the verdict that both came to; a source that says something else is not
/// believed.
#[test]
fn a_target_looks_at_the_verdict_before_it_stays_complete() {
    let mut theirs = Rig::new(constructed(Side::First)).card();
    theirs.record.generation = Generation::new(2);
    theirs.record.ancestors.push(Generation::new(1).expect("not 0"));
    theirs.record.bases = [Generation::new(1), None];
    assert_eq!(judge(&second(), &theirs).row, Row::DescendantDifference);
    let toward = Generation::new(2).expect("not 0");
    for (all, complete) in [(false, true), (true, false), (false, false)] {
        let mut target = target(theirs.clone());
        target.receive(11, Message::CopyStart { toward, all, complete });
        let taken = target.has_sent(|m| *m == Message::CopyReady);
        assert_eq!(taken, (all, complete) == (false, false));
        assert_eq!(target.record().inconsistent.is_some(), taken);
    }
}
