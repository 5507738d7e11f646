//! One mirror with requests under way when something goes wrong.

mod rig;

use mirror_core::command::{Command, Done, Refusal};
use mirror_core::io::{DataOp, Event, IoFailure, RequestError};
use mirror_core::mirror::Tuning;
use mirror_core::record::{Inconsistent, NUMBER_MAX, PEER_NUMBER_MAX, Record};
use mirror_core::status::Waits;
use mirror_core::units::{ActivationNo, Generation, Id16, SessionNo, Side};
use mirror_core::wire::{Beat, Message};
use rig::{Rig, constructed};

const EIO: IoFailure = IoFailure::Errno(5);

/// An application that always has a read under way must not keep the servers apart.
#[test]
fn reads_under_way_do_not_hold_up_an_agreement() {
    let mut rig = Rig::active_alone();
    rig.read(0);
    assert_eq!(rig.data.len(), 1);
    rig.connect();
    assert!(rig.card().is_some(), "the card waits for a read");
}

#[test]
fn a_write_under_way_holds_up_an_agreement() {
    let mut rig = Rig::active_alone();
    rig.write(0);
    assert_eq!(rig.data.len(), 1);
    rig.connect();
    assert!(rig.card().is_none(), "the card would change");
    rig.data_ends(Ok(None));
    assert!(rig.card().is_some());
}

/// The device has failed: what was on its way fails, too, and nothing goes on alone for its sake.
/// The peer would be told that it is behind, and could not take over.
#[test]
fn a_failed_device_does_not_go_on_alone() {
    let mut rig = Rig::active();
    let (failed, late) = (rig.write(0), rig.write(4096));
    rig.data_ends(Err(EIO));
    rig.data_ends(Ok(None));
    rig.pass(60_000);
    let io = Err(RequestError::Io);
    assert_eq!(rig.completed, [(failed, io.clone()), (late, io)]);
    assert!(rig.told.is_empty(), "the peer was told that it is behind");
    assert_eq!(rig.record().generation, constructed(Side::First).generation);
}

/// Whoever resets the server after a disk error must know whether its record holds (rule 11).
#[test]
fn a_disk_error_says_once_whether_it_is_recorded() {
    let mut rig = Rig::active();
    rig.write(0);
    rig.write(4096);
    assert!(rig.errors_recorded.is_empty());
    rig.data_ends(Err(EIO));
    rig.data_ends(Err(EIO));
    assert_eq!(rig.errors_recorded, [true]);
    assert!(rig.record().disk_error);
}

#[test]
fn without_cluster_partition_a_disk_error_is_not_recorded() {
    let mut rig = Rig::active();
    rig.cluster_fails = true;
    rig.write(1 << 19);
    assert_eq!(rig.errors_recorded, [false]);
}

/// What is on record is no news: a server is not reset for it again.
#[test]
fn a_recorded_disk_error_is_no_new_one() {
    let mut record = constructed(Side::First);
    record.disk_error = true;
    let mut rig = Rig::new(record);
    rig.cluster_fails = true;
    rig.connect();
    rig.pass(60_000);
    assert!(rig.errors_recorded.is_empty());
}

/// Contact returns, and both have gone on alone or not: who is to stop is decided from that.
#[test]
fn two_active_sides_are_told_apart_from_one() {
    let met = |change: &dyn Fn(&mut Record), active| {
        let mut rig = Rig::active_alone();
        let mut theirs = constructed(Side::Second);
        change(&mut theirs);
        rig.meet(theirs, active);
        rig.both_active
    };
    let unchanged = |_: &mut Record| {};
    assert_eq!(met(&unchanged, true), 1);
    assert_eq!(met(&unchanged, false), 0);
    let went_on = |r: &mut Record| r.generation = Generation::new(3);
    assert_eq!(met(&went_on, true), 1);
    assert_eq!(met(&|r| r.disk_error = true, true), 0, "it serves nothing");
    assert_eq!(met(&|r| r.mirror = Id16([8; 16]), true), 0, "of another mirror");
}

/// A side that has to give way fails its device at once, and can be closed then.
#[test]
fn a_device_that_is_given_up_fails_and_can_be_closed() {
    let mut rig = Rig::active_alone();
    rig.write(0);
    rig.data_ends(Ok(None));
    let before = rig.record().clone();
    let waits = rig.write(0);
    let id = rig.command(Command::FailDevice);
    assert_eq!(rig.replies.pop(), Some((id, Ok(Done::Noted))));
    let refused = rig.write(4096);
    assert!(rig.completed.contains(&(refused, Err(RequestError::Io))));
    rig.data_ends(Ok(None));
    assert!(rig.completed.iter().any(|(id, _)| *id == waits));
    assert_eq!(rig.record().generation, before.generation);
    assert!(!rig.record().disk_error, "the disk is good");
    let id = rig.command(Command::Deactivate);
    while !rig.data.is_empty() {
        rig.data_ends(Ok(None));
    }
    assert_eq!(rig.replies.pop(), Some((id, Ok(Done::Deactivated))));
    let id = rig.command(Command::FailDevice);
    assert_eq!(rig.replies.pop(), Some((id, Err(Refusal::NotActive))));
}

/// The same after the cluster partition failed, which can record nothing any more.
#[test]
fn a_device_without_cluster_partition_can_be_closed() {
    let mut rig = Rig::active();
    let late = rig.write(0);
    rig.cluster_fails = true;
    let unmarked = rig.write(1 << 19);
    rig.data_ends(Ok(None));
    rig.pass(60_000);
    let io = Err(RequestError::Io);
    assert_eq!(rig.completed, [(unmarked, io.clone()), (late, io)]);
    let id = rig.command(Command::Deactivate);
    assert!(rig.replies.contains(&(id, Ok(Done::Deactivated))), "{:?}", rig.replies);
}

/// The peer went on alone after an offer that this side never saw.
#[test]
fn a_side_can_be_told_of_a_session_that_it_never_saw() {
    let mut rig = Rig::new(constructed(Side::Second));
    let stale = rig.command(Command::ToldBehind { session: SessionNo(9) });
    assert_eq!(rig.replies.pop(), Some((stale, Err(Refusal::Busy))));
    let id = rig.command(Command::ToldBehind { session: SessionNo(11) });
    assert_eq!(rig.replies, [(id, Ok(Done::Noted))]);
    assert!(rig.record().behind);
}

/// Each failed agreement may take a new number, under which the peer is to be told again.
#[test]
fn an_agreement_that_fails_tells_the_peer_again() {
    let mut rig = Rig::active();
    rig.disconnect();
    rig.write(0);
    rig.pass(60_000);
    assert_eq!(rig.told, [SessionNo(11)]);
    rig.data_ends(Ok(None));
    rig.connect();
    rig.disconnect();
    assert_eq!(rig.told, [SessionNo(11); 2]);
}

#[test]
fn of_two_forces_the_second_is_refused_and_both_are_answered() {
    let mut rig = Rig::new(constructed(Side::First));
    let first = rig.command(Command::Force { peer_seen_active: None });
    let second = rig.command(Command::Force { peer_seen_active: None });
    assert_eq!(rig.replies, [(second, Err(Refusal::Busy))]);
    rig.data_ends(Ok(None));
    assert_eq!(rig.replies[1..], [(first, Ok(Done::ForcedAlone))]);
}

/// An order to stop does not leave a force half done and unanswered, whichever flush ends first.
#[test]
fn a_stop_waits_for_a_force_that_has_begun() {
    let mut rig = Rig::new(constructed(Side::First));
    let force = rig.command(Command::Force { peer_seen_active: None });
    let stop = rig.command(Command::Shutdown);
    assert_eq!(rig.data.len(), 1, "the flush before the force");
    rig.data_ends(Ok(None));
    rig.data_ends(Ok(None));
    assert_eq!(rig.replies, [(force, Ok(Done::ForcedAlone)), (stop, Ok(Done::Stopped))]);
}

/// One that waits to begin is refused.
#[test]
fn a_stop_refuses_a_force_that_waits() {
    let mut rig = Rig::new(constructed(Side::First));
    let force = rig.command(Command::Force { peer_seen_active: Some(false) });
    let stop = rig.command(Command::Shutdown);
    rig.data_ends(Ok(None));
    assert_eq!(rig.replies, [(force, Err(Refusal::Stopping)), (stop, Ok(Done::Stopped))]);
}

/// A clean goodbye tells an active peer that this side knows itself behind: so one that is already
/// stopping as a side in sync lets nobody be activated under its eyes.
#[test]
fn a_side_that_stops_grants_nothing() {
    let mut rig = Rig::in_session();
    let stop = rig.command(Command::Shutdown);
    rig.receive(11, Message::ActivateAsk { number: ActivationNo(1) });
    rig.data_ends(Ok(None));
    assert_eq!(rig.replies, [(stop, Ok(Done::Stopped))]);
    let granted = |m: &Message| matches!(m, Message::ActivateGrant { .. });
    assert!(!rig.sent.iter().any(granted));
    assert!(!rig.record().behind);
}

/// One that granted before does know it.
#[test]
fn a_side_that_stops_after_a_grant_is_behind() {
    let mut rig = Rig::in_session();
    rig.receive(11, Message::ActivateAsk { number: ActivationNo(1) });
    rig.command(Command::Shutdown);
    rig.data_ends(Ok(None));
    assert!(rig.record().behind);
}

/// The peer takes this side for active once it has granted; nothing else would tell it.
#[test]
fn a_grant_that_comes_too_late_is_given_back() {
    let mut rig = Rig::in_session();
    let id = rig.command(Command::Activate { peer_down: false, peer_seen_active: None });
    let number = rig.asked().expect("the peer is asked");
    for _ in 0..9 {
        rig.pass(1000);
        rig.receive(0, Message::Beat(Beat::default()));
    }
    assert_eq!(rig.replies, [(id, Err(Refusal::Busy))]);
    rig.receive(11, Message::ActivateGrant { number });
    assert!(matches!(rig.sent.last(), Some(Message::Deactivated)), "{:?}", rig.sent.last());
}

/// The number would be recorded, and a record with one near the end of 64 bits cannot be read back.
#[test]
fn a_grant_of_what_was_not_asked_for_breaks_the_protocol() {
    let grants = |mut rig: Rig, number| {
        let before = rig.record().known_activation;
        rig.receive(11, Message::ActivateGrant { number });
        assert_eq!(rig.record().known_activation, before, "{number:?} is recorded");
        assert_eq!(rig.faults, 1, "{number:?} is no fault");
    };
    for number in [1, 5, 1 << 63, u64::MAX].map(ActivationNo) {
        grants(Rig::in_session(), number);
    }
    let mut rig = Rig::in_session();
    rig.command(Command::Activate { peer_down: false, peer_seen_active: None });
    let asked = rig.asked().expect("the peer is asked");
    grants(rig, asked.next());
    let mut rig = Rig::active();
    rig.command(Command::Deactivate);
    rig.data_ends(Ok(None));
    grants(rig, asked.next());
}

/// In contact with a peer that knows of activation `theirs`; this side knows of `mine`.
fn with_numbers(mut record: Record, mine: u64, theirs: u64) -> Rig {
    record.known_activation = ActivationNo(mine);
    let mut rig = Rig::new(record);
    let mut peer = constructed(Side::Second);
    (peer.activation, peer.known_activation) = (ActivationNo(theirs), ActivationNo(theirs));
    rig.meet(peer, false);
    rig
}

/// Both have to be able to count on from any number that either takes from the other.
#[test]
fn whatever_number_is_taken_from_a_peer_can_be_counted_on_from() {
    for number in [PEER_NUMBER_MAX, PEER_NUMBER_MAX + 1000] {
        let taken = |mine| with_numbers(constructed(Side::First), mine, number).faults == 0;
        assert_eq!(taken(7), number == PEER_NUMBER_MAX, "a jump to {number:#x}");
        assert!(taken(number) && taken(number - 1), "counted to {number:#x} together");
        let blank = Record::blank(Id16([4; 16]), Side::First);
        assert_eq!(with_numbers(blank, 0, number).faults, 0, "joins a mirror at {number:#x}");
    }
    // What it was asked for is above what it took.
    let mut rig = with_numbers(constructed(Side::First), 7, PEER_NUMBER_MAX);
    rig.receive(0, Message::Offer { session: SessionNo(11) });
    rig.receive(0, Message::Opened { session: SessionNo(11) });
    let number = ActivationNo(PEER_NUMBER_MAX).next();
    rig.receive(11, Message::ActivateAsk { number });
    assert!(
        matches!(rig.sent.last(), Some(Message::ActivateGrant { .. })),
        "{:?}",
        rig.sent.last()
    );
    // And there is an end to it.
    assert_eq!(with_numbers(constructed(Side::First), NUMBER_MAX - 10, NUMBER_MAX - 9).faults, 1);
    let blank = Record::blank(Id16([4; 16]), Side::First);
    assert_eq!(with_numbers(blank, 0, NUMBER_MAX - 10).faults, 1);
}

/// What was asked over an earlier connection is not asked any more.
#[test]
fn a_grant_belongs_to_the_connection_of_its_question() {
    let mut rig = Rig::in_session();
    rig.command(Command::Activate { peer_down: false, peer_seen_active: None });
    let number = rig.asked().expect("the peer is asked");
    rig.disconnect();
    rig.pass(60_000);
    let mut foreign = constructed(Side::Second);
    foreign.mirror = Id16([8; 16]);
    rig.meet(foreign, false);
    rig.receive(0, Message::ActivateGrant { number });
    assert_eq!((rig.record().known_activation, rig.faults), (ActivationNo(0), 1));
}

/// What is on the cluster partition stays readable, whatever went wrong here.
#[test]
fn a_record_that_could_not_be_read_back_is_not_written() {
    let mut record = constructed(Side::First);
    record.peer_behind = true;
    record.seq = NUMBER_MAX;
    let mut rig = Rig::new(record);
    let id = rig.command(Command::Activate { peer_down: false, peer_seen_active: None });
    rig.pass(60_000);
    assert_eq!((rig.record_writes, rig.bad_records), (0, 1));
    assert_eq!(rig.errors_recorded, [false]);
    assert_eq!(rig.replies.len(), 1, "{:?}", rig.replies);
    assert!(matches!(rig.replies[0], (to, Err(_)) if to == id), "{:?}", rig.replies);
}

/// A side without history would join a mirror of any size, and make as many marks for it.
#[test]
fn a_peer_without_history_has_no_size() {
    let met = |change: &dyn Fn(&mut Record)| {
        let mut rig = Rig::new(Record::blank(Id16([4; 16]), Side::Second));
        let mut theirs = Record::blank(Id16([5; 16]), Side::First);
        change(&mut theirs);
        rig.meet(theirs, false);
        rig.receive(0, Message::Accept { session: SessionNo(1) });
        rig.receive(
            1,
            Message::CopyStart {
                toward: Generation::new(1).expect("not zero"),
                all: true,
                complete: false,
            },
        );
        (rig.faults, rig.record().size)
    };
    assert_eq!(met(&|_| {}), (0, rig::SIZE));
    assert_eq!(met(&|r| r.size = 4096), (1, 0));
    assert_eq!(met(&|r| (r.size, r.block) = (1 << 47, 512)), (1, 0));
    let half_copied = |r: &mut Record, size| {
        let toward = Generation::new(1).expect("not zero");
        r.inconsistent = Some(Inconsistent { toward, all: true });
        (r.size, r.block) = (size, 512);
    };
    assert_eq!(met(&|r| half_copied(r, rig::SIZE)).1, rig::SIZE, "it is the target");
    assert_eq!(met(&|r| half_copied(r, 0)), (1, 0));
}

/// With the first of the two copies written, the record would be of two mirrors, and unreadable.
#[test]
fn a_side_is_not_adopted_into_another_mirror() {
    let adopted = |own: Id16, shown: Id16, told: Id16| {
        let mut record = constructed(Side::Second);
        (record.mirror, record.behind) = (own, true);
        let mut rig = Rig::new(record);
        let (mut theirs, generation) = (constructed(Side::First), Generation::new(2).expect("2"));
        (theirs.mirror, theirs.generation) = (shown, Some(generation));
        theirs.ancestors.push(Generation::new(1).expect("not zero"));
        rig.meet(theirs, false);
        rig.receive(0, Message::Accept { session: SessionNo(11) });
        rig.receive(11, Message::CopyStart { toward: generation, all: false, complete: false });
        let (ancestors, overruled) = Default::default();
        rig.receive(11, Message::Adopt { generation, ancestors, overruled, mirror: told });
        let record = rig.record();
        (record.mirror, record.generation == Some(generation), rig.faults)
    };
    let [ours, other] = [Id16([9; 16]), Id16([8; 16])];
    assert_eq!(adopted(ours, ours, ours), (ours, true, 0));
    assert_eq!(adopted(ours, ours, other), (ours, false, 1));
    assert_eq!(adopted(ours, Id16::NONE, other), (ours, false, 1));
    assert_eq!(adopted(Id16::NONE, ours, other), (Id16::NONE, false, 1));
}

/// The flush before an agent ends may give up what was cached, and the next flush would not tell: a
/// successor that went on with the device would take for durable what is not (rule 11).
#[test]
fn a_flush_that_fails_at_the_end_is_a_disk_error() {
    for (command, active) in
        [(Command::Suspend, true), (Command::Suspend, false), (Command::Shutdown, false)]
    {
        let mut rig = if active { Rig::active_alone() } else { Rig::in_session() };
        if active {
            rig.write(0);
            rig.data_ends(Ok(None));
        }
        rig.command(command);
        while !rig.data.is_empty() {
            rig.data_ends(Err(EIO));
        }
        assert!(rig.record().disk_error, "{command:?}, active: {active}");
        assert!(!rig.record().clean_stop);
    }
}

/// A side that went on alone has just met its peer again and copies to it what that lacks: all of
/// its one region.
fn recovering() -> Rig {
    let mut rig = Rig::active_alone();
    rig.write(0);
    rig.data_ends(Ok(None));
    meets(&mut rig);
    rig
}

/// It meets its peer again, and is the source.
fn meets(rig: &mut Rig) {
    rig.meet(constructed(Side::Second), false);
    rig.receive(0, Message::Offer { session: SessionNo(11) });
    rig.receive(0, Message::Opened { session: SessionNo(11) });
    rig.receive(11, Message::MarksEnd);
    assert!(rig.sent.iter().any(|m| matches!(m, Message::CopyStart { .. })), "it is the source");
}

fn block() -> mirror_core::buf::Buf {
    mirror_core::buf::Buf::copied_from(&vec![0; 1 << 16])
}

#[test]
fn a_write_that_waits_for_a_recovery_is_counted_with_its_time() {
    let mut rig = recovering();
    rig.receive(11, Message::CopyReady);
    rig.write(512);
    rig.write(1 << 19);
    rig.pass(30);
    assert_eq!(rig.waits(), Waits::default(), "it is not over");
    rig.data_ends(Ok(Some(block())));
    rig.acks(11);
    assert_eq!(rig.waits(), Waits { writes: 1, write_ms: 30, ..Waits::default() });
}

#[test]
fn a_recovery_that_waits_for_a_write_is_counted_with_its_time() {
    let mut rig = recovering();
    let write = rig.write(512);
    rig.receive(11, Message::CopyReady);
    rig.pass(20);
    rig.data_ends(Ok(None));
    rig.acks(11);
    assert_eq!(rig.completed.last(), Some(&(write, Ok(None))));
    assert_eq!(rig.waits(), Waits { copies: 1, copy_ms: 20, ..Waits::default() });
    rig.disconnect();
}

#[test]
fn what_waits_when_the_session_ends_is_not_counted_again() {
    let mut rig = recovering();
    rig.receive(11, Message::CopyReady);
    rig.write(512);
    rig.pass(10);
    rig.disconnect();
    rig.data_ends(Ok(Some(block())));
    let once = rig.waits();
    assert_eq!((once.writes, once.write_ms), (1, 10));
    rig.pass(100);
    assert_eq!(rig.waits(), once);
}

/// Two regions of a group are being written: a write to a third finds its mark.
#[test]
fn neighbours_are_marked_ahead() {
    let mut rig = Rig::active();
    rig.write(0);
    rig.write(1 << 16);
    assert_eq!(rig.data.len(), 2);
    rig.cluster_fails = true;
    rig.write(2 << 16);
    assert_eq!(rig.data.len(), 3, "it waits for a mark of its own");
}

/// The session ends: the neighbours that were not written are no difference.
#[test]
fn marks_ahead_go_with_the_session() {
    let mut rig = Rig::active();
    rig.write(0);
    rig.write(1 << 16);
    assert_eq!(rig.marked(), 64, "all of the group");
    rig.disconnect();
    assert_eq!(rig.marked(), 2);
}

/// A side that was forced has met the one that it overruled in vain, and is restarted. What is written
/// there then came after all that the other one may say by a force that does not know of it.
#[test]
fn what_a_parked_peer_has_taken_is_known_to_the_next_process() {
    let met = |mirror: Id16| {
        let mut record = constructed(Side::First);
        record.forced_at = Some(ActivationNo(4));
        (record.session_open, record.born_session) = (true, SessionNo(10));
        (record.generation, record.bases) = (Generation::new(2), [None; 2]);
        let mut rig = Rig::new(record);
        let mut theirs = constructed(Side::Second);
        (theirs.generation, theirs.activation) = (Generation::new(3), ActivationNo(5));
        theirs.mirror = mirror;
        rig.meet(theirs, false);
        rig.disconnect();
        rig.record().clone()
    };
    let known = met(Id16([9; 16]));
    assert_eq!(known.known_activation, ActivationNo(5));
    let mut rig = Rig::new(known);
    rig.command(Command::Activate { peer_down: false, peer_seen_active: None });
    assert!(rig.record().activation > ActivationNo(6), "{:?}", rig.record().activation);
    assert_eq!(met(Id16([8; 16])).known_activation, ActivationNo(0), "of another mirror");
}

/// A mirror in sync of this size, in a session with a peer that has room for more.
fn active_with_room(size: u64) -> Rig {
    let ours = |side| Record { size, ..constructed(side) };
    let tuning = Tuning { detach: true, ..Tuning::default() };
    let mut rig = Rig::with(ours(Side::First), tuning);
    rig.handle(Event::Measured { capacity: 2 * rig::SIZE });
    rig.room = 2 * rig::SIZE;
    rig.meet(ours(Side::Second), false);
    rig.receive(0, Message::Offer { session: SessionNo(11) });
    rig.receive(0, Message::Opened { session: SessionNo(11) });
    rig.command(Command::Activate { peer_down: false, peer_seen_active: None });
    let number = rig.asked().expect("the peer is asked");
    rig.receive(11, Message::ActivateGrant { number });
    rig
}

/// The mirror ends within a region that was marked ahead of writes: once it grows, the rest of that
/// region differs.
#[test]
fn a_mark_ahead_stays_where_the_mirror_grows() {
    let size = rig::SIZE - 4096;
    let last = rig::SIZE - (1 << 20);
    let mut rig = active_with_room(size);
    rig.write(last);
    rig.command(Command::Resize);
    rig.data_ends(Ok(None));
    // Both agree anew. What was under way is settled first, and meanwhile the application writes on.
    let mut theirs = Record { size, session: SessionNo(11), ..constructed(Side::Second) };
    (theirs.session_open, theirs.known_activation) = (true, ActivationNo(1));
    rig.meet(theirs, false);
    rig.receive(0, Message::Offer { session: SessionNo(12) });
    rig.sent.clear();
    rig.receive(0, Message::Opened { session: SessionNo(12) });
    rig.receive(12, Message::MarksEnd);
    rig.receive(12, Message::CopyReady);
    rig.write(last + (1 << 16));
    assert!(rig.is_marked(size - 1), "marked ahead");
    rig.all_goes_well(12, &block());
    assert!(rig.sent.iter().any(|m| matches!(m, Message::Adopt { .. })), "the copy is over");
    rig.receive(12, Message::Adopted);
    assert_eq!(rig.record().size, 2 * rig::SIZE);
    assert!(!rig.is_marked(size - (1 << 19)), "the session has ended, and no write came there");
    assert!(rig.is_marked(size), "nothing tells the peer of the rest of the region");
}

/// The disk fails while the larger size is being recorded: the peer's, which serves, has not grown, and
/// the session is all there is.
#[test]
fn a_side_that_lost_its_disk_does_not_grow() {
    let mut rig = active_with_room(rig::SIZE);
    rig.command(Command::Resize);
    let mut theirs = Record { session: SessionNo(11), ..constructed(Side::Second) };
    (theirs.session_open, theirs.known_activation) = (true, ActivationNo(1));
    rig.meet(theirs, false);
    rig.receive(0, Message::Offer { session: SessionNo(12) });
    rig.cluster_waits = true;
    rig.receive(0, Message::Opened { session: SessionNo(12) });
    assert_eq!(rig.record().size, 2 * rig::SIZE, "it is being recorded");
    rig.command(Command::Deactivate);
    rig.data_ends(Err(EIO));
    rig.cluster_goes_on();
    assert!(rig.replies.iter().any(|(_, r)| *r == Err(Refusal::DiskFailed)), "{:?}", rig.replies);
    assert!(matches!(rig.sent.last(), Some(Message::Detach)), "the session goes on");
    rig.receive(12, Message::Detached);
    assert_eq!(rig.faults, 0);
}

/// What its last attempt to join a mirror has left to it is not the size of this one.
#[test]
fn a_half_copied_peer_without_history_makes_no_mirror_larger() {
    let mut record = constructed(Side::First);
    (record.owes_all, record.bases) = (true, [None; 2]);
    let mut rig = Rig::new(record);
    let mut theirs = Record::blank(Id16([5; 16]), Side::Second);
    (theirs.size, theirs.block) = (2 * rig::SIZE, 512);
    let toward = Generation::new(7).expect("not zero");
    theirs.inconsistent = Some(Inconsistent { toward, all: true });
    rig.room = 2 * rig::SIZE;
    rig.meet(theirs, false);
    rig.receive(0, Message::Offer { session: SessionNo(11) });
    assert_eq!(rig.record().session, SessionNo(11), "it is copied to");
    assert_eq!(rig.record().size, rig::SIZE);
}

/// Alone, every mark is a difference that has to be copied.
#[test]
fn alone_nothing_is_marked_ahead() {
    let mut rig = Rig::active_alone();
    rig.write(0);
    rig.write(1 << 16);
    assert_eq!(rig.data.len(), 2);
    rig.cluster_fails = true;
    rig.write(2 << 16);
    assert_eq!(rig.data.len(), 2, "its mark was set before it came");
}

/// An active side with a write that its own disk has and the peer has not confirmed, out of contact.
fn undecided() -> Rig {
    let mut rig = Rig::active();
    rig.write(0);
    rig.data_ends(Ok(None));
    rig.disconnect();
    rig
}

/// Whatever this disk has of a write that nobody was told of, a peer that takes over does not have: the
/// peer may show and flush what was there before, and this side must not bring the write back.
#[test]
fn a_side_that_leaves_a_write_undecided_is_not_uninterrupted() {
    let mut rig = undecided();
    rig.command(Command::Suspend);
    rig.data_ends(Ok(None));
    assert!(rig.replies.iter().any(|(_, r)| *r == Ok(Done::Stopped)));
    assert!(!rig.record().clean_stop, "left to the next agent");

    let mut rig = undecided();
    rig.command(Command::FailDevice);
    rig.command(Command::Deactivate);
    rig.connect();
    let failed = rig.completed.iter().any(|(_, r)| r.is_err());
    assert!(failed && !rig.card().expect("it shows a card").uninterrupted, "failed");

    let mut rig = Rig::active();
    rig.disconnect();
    rig.command(Command::Suspend);
    rig.data_ends(Ok(None));
    assert!(rig.record().clean_stop, "nothing was left");
}

/// Whether a record is there whose write failed shows when it is read again: the answer must not say
/// that nothing was done.
#[test]
fn an_order_whose_record_fails_may_be_recorded_all_the_same() {
    let answer = |mut rig: Rig, command| {
        rig.cluster_fails = true;
        let id = rig.command(command);
        while !rig.data.is_empty() {
            rig.data_ends(Ok(None));
        }
        let replies = rig.replies.iter().filter(|(to, _)| *to == id);
        replies.map(|(_, result)| *result).collect::<Vec<_>>()
    };
    let unsure = [Err(Refusal::NotRecorded)];
    let inactive = || Rig::new(constructed(Side::First));
    assert_eq!(answer(inactive(), Command::Force { peer_seen_active: None }), unsure);
    assert_eq!(answer(Rig::in_session(), Command::Force { peer_seen_active: None }), unsure);
    let vouched = Command::Activate { peer_down: true, peer_seen_active: None };
    assert_eq!(answer(inactive(), vouched), unsure);
    // The device is closed, whatever the record says.
    assert_eq!(answer(Rig::active_alone(), Command::Deactivate), [Ok(Done::Deactivated)]);
    // Nothing is recorded for this.
    assert_eq!(answer(Rig::in_session(), Command::Separate), [Ok(Done::Separated)]);
    // Known before anything is written.
    let mut failed = constructed(Side::First);
    failed.disk_error = true;
    let force = Command::Force { peer_seen_active: None };
    assert_eq!(answer(Rig::new(failed), force), [Err(Refusal::DiskFailed)]);
}

/// A source with a difference of 64 regions, in a row, about to copy it.
fn with_much_to_copy() -> Rig {
    let mut rig = Rig::active_alone();
    for region in 0..64 {
        rig.write(region << 16);
        rig.data_ends(Ok(None));
    }
    meets(&mut rig);
    rig
}

/// How long the copies are that it begins with, in regions.
fn copies_of(rig: &mut Rig) -> Vec<u64> {
    rig.receive(11, Message::CopyReady);
    let reads =
        rig.data.iter().map(|(_, op, extent)| (matches!(op, DataOp::Read), extent.len >> 16));
    reads.filter(|(is_read, len)| *is_read && *len > 0).map(|(_, len)| len).collect()
}

#[test]
fn a_recovery_steps_back_for_a_busy_application() {
    let mut rig = with_much_to_copy();
    rig.pass(100);
    assert_eq!(copies_of(&mut rig), [16, 16, 16, 16], "nobody is in its way");

    let mut rig = with_much_to_copy();
    rig.pass(20);
    assert_eq!(copies_of(&mut rig), [4, 4], "it has just written");

    let mut rig = with_much_to_copy();
    rig.read(6 << 20);
    rig.pass(1000);
    assert_eq!(copies_of(&mut rig), [4, 4], "it waits for a read");
    rig.data_ends(Ok(Some(mirror_core::buf::Buf::copied_from(&[0; 512]))));
    rig.pass(100);
    rig.data_ends(Ok(Some(mirror_core::buf::Buf::copied_from(&vec![0; 1 << 18]))));
    rig.acks(11);
    let longest = rig.data.iter().map(|(_, _, extent)| extent.len >> 16).max();
    assert_eq!(longest, Some(16), "it has what it wanted");
}
