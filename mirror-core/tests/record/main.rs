//! What events leave in the record of one mirror whose disks always work, seen from outside.

mod construction;
mod edges;
mod resume;
mod rig;

use mirror_core::command::Command;
use mirror_core::direction::{Row, judge};
use mirror_core::io::{Request, RequestId, RequestOp};
use mirror_core::mirror::Tuning;
use mirror_core::record::{Lineage, Record};
use mirror_core::units::{ActivationNo, Extent, Generation, Id16, SessionNo, Side};
use mirror_core::wire::Message;
use rig::Rig;

fn constructed(side: Side) -> Record {
    let mut record = Record::blank(Id16([4; 16]), side);
    record.mirror = Id16([9; 16]);
    record.size = rig::CAPACITY;
    record.block = 512;
    record.generation = Generation::new(1);
    record.bases = [record.generation, None];
    record.session = SessionNo(10);
    record
}

/// A server that lost its power stays interrupted, however often its agent is stopped and started
/// before the servers meet: nobody flushed what was in the disk's cache then.
#[test]
fn a_clean_stop_does_not_heal_a_crash() {
    let mut rig = Rig::new(constructed(Side::First));
    rig.command(Command::Shutdown);
    assert!(!rig.record().clean_stop);
    // One that ran on since a good stop stays so.
    let mut record = constructed(Side::First);
    record.clean_stop = true;
    let mut rig = Rig::new(record);
    rig.command(Command::Shutdown);
    assert!(rig.record().clean_stop);
}

/// A large frame on a bad line takes longer than the time limit of silence.
#[test]
fn what_arrives_in_parts_is_no_silence() {
    let tuning = Tuning { peer_timeout_ms: 5000, agree_ms: 60_000, ..Tuning::default() };
    let silent = |hears: bool| {
        let mut rig = Rig::tuned(constructed(Side::First), tuning);
        rig.connect();
        for _ in 0..4 {
            rig.wait(3000);
            if hears {
                rig.hear();
            }
        }
        rig.closed
    };
    assert!(silent(true).is_empty());
    assert_eq!(silent(false).len(), 1);
}

/// Whoever reads for the core may put the bytes where the request wants them.
#[test]
fn a_read_is_known_by_its_request_and_needs_no_bytes() {
    let mut rig = Rig::new(constructed(Side::First));
    rig.command(Command::Activate { peer_down: true, peer_seen_active: None });
    assert!(rig.is_active());
    rig.straight = true;
    let (id, extent) = (RequestId(77), Extent::new(4096, 512));
    rig.said.clear();
    rig.request(Request { id, op: RequestOp::Read, extent, fua: false });
    rig.wait(10);
    assert_eq!(
        (rig.reads.as_slice(), rig.said.as_slice()),
        (&[Some(id)][..], &["Ok(())".to_owned()][..])
    );
}

/// The generation of a new mirror may be the peer's before the source hears of it.
#[test]
fn the_peer_of_an_initial_construction_may_hold_it() {
    let mut first = Rig::new(Record::blank(Id16([1; 16]), Side::First));
    let second = Rig::new(Record::blank(Id16([2; 16]), Side::Second));
    first.connect();
    first.agree_with(second.card());
    first.receive(0, Message::Offer { session: SessionNo(1) });
    first.receive(0, Message::Opened { session: SessionNo(1) });
    assert!(first.record().generation.is_some());
    assert!(first.record().peer_may_hold());
}

/// A side that has seen a newer card knows that it is old, even if no session comes of it.
#[test]
fn a_side_that_saw_a_newer_card_is_behind() {
    let mut first = Rig::new(constructed(Side::First));
    let mut theirs = Rig::new(constructed(Side::Second)).card();
    theirs.record.generation = Generation::new(2);
    theirs.record.ancestors.push(Generation::new(1).expect("not 0"));
    assert_eq!(judge(&first.card(), &theirs).row, Row::DescendantDifference);
    first.connect();
    first.agree_with(theirs);
    assert!(first.record().behind);
    first.receive(0, Message::Offer { session: SessionNo(11) });
    assert!(first.record().behind);
}

/// Session 7 against 10: the peer was restored from an image.
fn restored() -> mirror_core::record::Card {
    let mut theirs = Rig::new(constructed(Side::Second)).card();
    theirs.record.session = SessionNo(7);
    theirs
}

/// The numbers tell a restored side only until the next session is offered: before the peer can
/// record that, the debt must be durable.
#[test]
fn a_full_copy_is_owed_before_the_verdict_is_told() {
    let mut first = Rig::new(constructed(Side::First));
    first.connect();
    let told = first.sends_at_once(Message::Card(Box::new(restored())));
    assert!(!told.iter().any(|m| matches!(m, Message::Verdict { .. })));
    assert!(first.record().owes_all);
}

/// The debt stays until the target says durably that it is half copied.
#[test]
fn a_full_copy_is_owed_until_the_target_is_half_copied() {
    let mut first = Rig::new(constructed(Side::First));
    first.connect();
    first.agree_with(restored());
    first.receive(0, Message::Offer { session: SessionNo(11) });
    first.receive(0, Message::Opened { session: SessionNo(11) });
    first.receive(11, Message::MarksEnd);
    assert!(first.has_sent(|m| matches!(m, Message::CopyStart { all: true, .. })));
    assert!(first.record().owes_all);
    first.receive(11, Message::CopyReady);
    assert!(!first.record().owes_all);
}

/// A server that restarted under an active peer may have lost what both had acknowledged. An
/// agreement changes nothing about that, nor does a session, until it has been settled: if contact is
/// lost before, it must not be activated on the word that its peer is off.
#[test]
fn a_target_forgets_that_its_peer_was_active_when_it_is_whole() {
    let mut record = constructed(Side::First);
    record.peer_active = true;
    let mut first = Rig::new(record);
    let mut theirs = Rig::new(constructed(Side::Second)).card();
    (theirs.uninterrupted, theirs.marked) = (true, 1);
    assert_eq!(judge(&first.card(), &theirs).row, Row::SettleFromUninterrupted);
    first.connect();
    first.agree_with(theirs);
    first.receive(0, Message::Offer { session: SessionNo(11) });
    first.receive(0, Message::Opened { session: SessionNo(11) });
    let generation = first.record().generation.expect("constructed");
    first.receive(11, Message::CopyStart { toward: generation, all: false, complete: false });
    assert!(first.record().peer_active);
    let (ancestors, overruled) = (Lineage::default(), Lineage::default());
    let mirror = first.record().mirror;
    first.receive(11, Message::Adopt { generation, ancestors, overruled, mirror });
    assert!(!first.record().peer_active);
}

/// The dialler records first that both are in sync again: what it was known to have missed must be
/// forgotten before, or this side could be activated on that later, when the other has gone on.
#[test]
fn a_peer_is_known_to_be_behind_until_it_is_offered_a_session_in_sync() {
    let mut record = constructed(Side::Second);
    record.peer_behind = true;
    let mut second = Rig::new(record);
    let mut theirs = Rig::new(constructed(Side::First)).card();
    theirs.record.behind = true;
    assert_eq!(judge(&second.card(), &theirs).row, Row::InSync);
    second.connect();
    second.agree_with(theirs);
    assert!(second.has_sent(|m| matches!(m, Message::Offer { .. })));
    assert!(!second.record().peer_behind);
}

/// The operator's word for a side lasts until the other one may have what was forced: from then on
/// that one may have gone on from it.
#[test]
fn a_force_permits_an_activation_until_the_peer_may_have_adopted() {
    let mut record = constructed(Side::First);
    record.generation = Generation::new(5);
    record.bases = [None; 2];
    record.forced_at = Some(ActivationNo(3));
    record.born_session = SessionNo(10);
    let activate = Command::Activate { peer_down: false, peer_seen_active: None };
    let mut first = Rig::new(record.clone());
    first.command(activate);
    assert_eq!(first.said, ["Ok(Activated)"]);
    record.session = SessionNo(11);
    let mut first = Rig::new(record);
    first.command(activate);
    assert_eq!(first.said, ["Err(NoContact)"]);
}

/// With `alone = "fenced"` the writes of two sides that have gone apart would wait for a word that
/// never comes: the device fails them, and can be closed.
#[test]
fn fenced_sides_that_have_gone_apart_fail_their_devices() {
    let mut record = constructed(Side::First);
    record.peer_behind = true;
    let tuning = Tuning { fenced: true, ..Tuning::default() };
    let mut first = Rig::tuned(record, tuning);
    first.command(Command::Activate { peer_down: false, peer_seen_active: None });
    assert_eq!(first.said, ["Ok(Activated)"]);
    let mut theirs = Rig::new(constructed(Side::Second)).card();
    theirs.record.generation = Generation::new(77);
    theirs.record.bases = [None; 2];
    first.connect();
    first.agree_with(theirs);
    assert_eq!(first.said[1..], ["device fails"]);
    let flush =
        Request { id: RequestId(1), op: RequestOp::Flush, extent: Extent::default(), fua: false };
    first.request(flush);
    first.command(Command::Deactivate);
    assert_eq!(first.said[2..], ["Err(Io)", "Ok(Deactivated)"]);
}

/// What a standby that stops records of itself is not taken back by the end of a copy.
#[test]
fn a_standby_that_stops_adopts_nothing() {
    let mut second = Rig::new(constructed(Side::Second));
    let mut theirs = Rig::new(constructed(Side::First)).card();
    (theirs.active, theirs.marked) = (true, 1);
    second.connect();
    second.agree_with(theirs);
    second.receive(0, Message::Accept { session: SessionNo(11) });
    let toward = Generation::new(1).expect("not 0");
    second.receive(11, Message::CopyStart { toward, all: false, complete: false });
    assert!(second.has_sent(|m| *m == Message::CopyReady));
    second.slow_meta = true;
    second.command(Command::Shutdown);
    second.receive(
        11,
        Message::Adopt {
            generation: toward,
            ancestors: Default::default(),
            overruled: Default::default(),
            mirror: Id16([9; 16]),
        },
    );
    second.end_meta();
    second.end_meta();
    assert_eq!(second.said, ["Ok(Stopped)"]);
    assert!(second.record().behind && second.record().inconsistent.is_some());
}

/// `--break`: two equal sides open no session while one of them keeps them apart, the active one
/// records the break at once, and `--recovery` on either ends it.
#[test]
fn separated_sides_open_no_session_until_a_recovery_is_asked_for() {
    let opens = |apart: (bool, bool), rejoins: (bool, bool)| {
        let mut first = Rig::new(constructed(Side::First));
        let mut theirs = Rig::new(constructed(Side::Second)).card();
        theirs.apart = apart.1;
        theirs.rejoins = rejoins.1;
        first.connect();
        if apart.0 {
            first.agree_with(theirs.clone());
            first.receive(0, Message::Offer { session: SessionNo(11) });
            first.receive(0, Message::Opened { session: SessionNo(11) });
            first.command(Command::Separate);
            first.connect();
        }
        first.agree_with(theirs);
        if rejoins.0 {
            first.command(Command::Recover);
            first.connect();
            let mut theirs = Rig::new(constructed(Side::Second)).card();
            theirs.apart = apart.1;
            first.agree_with(theirs);
        }
        let before = first.record().session;
        first.receive(0, Message::Offer { session: SessionNo(before.0 + 1) });
        first.record().session.0 > before.0
    };
    assert!(opens((false, false), (false, false)));
    assert!(!opens((false, true), (false, false)));
    assert!(!opens((true, false), (false, false)));
    assert!(opens((false, true), (false, true)));
    assert!(opens((false, true), (true, false)));
    assert!(opens((true, false), (true, false)));
}

/// A word that the other side goes on alone is not confirmed while this side is being activated:
/// it would be behind and active.
#[test]
fn a_side_that_is_being_activated_is_not_told_behind() {
    let mut record = constructed(Side::Second);
    record.peer_behind = true;
    let mut second = Rig::new(record);
    second.slow_meta = true;
    second.command(Command::Activate { peer_down: false, peer_seen_active: None });
    second.command(Command::ToldBehind { session: SessionNo(10) });
    second.end_meta();
    second.end_meta();
    assert_eq!(second.said, ["Err(AlreadyActive)", "Ok(Activated)"]);
    assert!(second.is_active() && !second.record().behind);
}

/// Rule 6: a side that knows itself behind is not activated in contact either, although no mark says
/// what it lacks, and the servers are only kept apart.
#[test]
fn a_side_that_is_behind_is_not_activated_while_kept_apart() {
    let mut record = constructed(Side::Second);
    record.behind = true;
    let mut second = Rig::new(record);
    let mut theirs = Rig::new(constructed(Side::First)).card();
    theirs.apart = true;
    assert_eq!(judge(&second.card(), &theirs).row, Row::InSync);
    second.connect();
    second.agree_with(theirs);
    second.command(Command::Activate { peer_down: false, peer_seen_active: None });
    assert!(!second.has_sent(|m| matches!(m, Message::ActivateAsk { .. })));
    assert_eq!(second.said, ["Err(NotLatest)"]);
}

/// The end of a copy does not take back what a grant beside it records of the peer.
#[test]
fn an_adoption_beside_a_grant_leaves_the_peer_active() {
    let mut second = Rig::new(constructed(Side::Second));
    let mut theirs = Rig::new(constructed(Side::First)).card();
    theirs.marked = 1;
    second.connect();
    second.agree_with(theirs);
    second.receive(0, Message::Accept { session: SessionNo(11) });
    let toward = Generation::new(1).expect("not 0");
    second.receive(11, Message::CopyStart { toward, all: false, complete: false });
    second.slow_meta = true;
    second.receive(11, Message::ActivateAsk { number: ActivationNo(5) });
    second.receive(
        11,
        Message::Adopt {
            generation: toward,
            ancestors: Default::default(),
            overruled: Default::default(),
            mirror: Id16([9; 16]),
        },
    );
    second.end_meta();
    second.end_meta();
    assert!(second.has_sent(|m| matches!(m, Message::ActivateGrant { .. })));
    assert!(second.record().peer_active);
}
