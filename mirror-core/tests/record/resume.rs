//! A device that outlives its agent: who may serve it, and what that needs.

use crate::constructed;
use crate::rig::{BOOT, Rig, flush, write};
use mirror_core::command::Command;
use mirror_core::direction::Row;
use mirror_core::io::{Request, RequestId, RequestOp};
use mirror_core::mirror::Tuning;
use mirror_core::record::{Inconsistent, Record};
use mirror_core::units::{ActivationNo, Extent, Generation, Id16, SessionNo, Side};
use mirror_core::wire::Message;

const GRACE: u64 = 3000;

/// The record that an active first server leaves when its agent dies in session 10.
fn orphaned() -> Record {
    let mut record = constructed(Side::First);
    record.active = true;
    record.boot = BOOT;
    record.activation = ActivationNo(4);
    record.known_activation = ActivationNo(4);
    record
}

fn resumed(record: Record) -> Rig {
    Rig::resuming(record, &[], Tuning::default())
}

fn theirs() -> mirror_core::record::Card {
    let mut card = Rig::new(constructed(Side::Second)).card();
    card.record.known_activation = ActivationNo(4);
    card.uninterrupted = true;
    card
}

fn extent() -> Extent {
    Extent::new(0, 4096)
}

fn read(id: u64) -> Request {
    Request { id: RequestId(id), op: RequestOp::Read, extent: extent(), fua: false }
}

fn copy(message: &Message) -> Option<u64> {
    if let Message::Copy { id, .. } = message { Some(*id) } else { None }
}

fn written(message: &Message) -> Option<u64> {
    if let Message::Write { id, .. } = message { Some(*id) } else { None }
}

fn flushed(message: &Message) -> Option<u64> {
    if let Message::Flush { id } = message { Some(*id) } else { None }
}

#[test]
fn an_active_side_is_active_again_without_an_activation() {
    let mut first = resumed(orphaned());
    assert_eq!(first.said, ["resumed"]);
    assert!(first.is_active());
    first.connect();
    let Some(card) = first.shown() else { panic!("it shows a card") };
    assert!(card.active && !card.uninterrupted);
    assert_eq!(card.record, orphaned(), "nothing is recorded for it");
}

#[test]
fn a_device_that_must_not_be_served_fails() {
    let mut inactive = orphaned();
    inactive.active = false;
    let mut rebooted = orphaned();
    rebooted.boot = Id16([8; 16]);
    let mut behind = orphaned();
    behind.behind = true;
    let mut half = orphaned();
    half.inconsistent = Generation::new(9).map(|toward| Inconsistent { toward, all: false });
    let mut failed = orphaned();
    failed.disk_error = true;
    let new = Record::blank(Id16([4; 16]), Side::First);
    for record in [inactive, rebooted, behind, half, failed, new] {
        let mut first = resumed(record.clone());
        assert!(!first.is_active());
        assert_eq!(first.said.len(), 2, "{:?}", first.said);
        assert!(first.said[0].starts_with("not resumed"));
        assert_eq!(first.said[1], "device fails");
        first.request(read(1));
        assert!(first.said[2].starts_with("Err"), "{:?}", first.said);
    }
}

/// Nothing is served before the peer was met or the wait for it is over, and nothing completes
/// alone before the record of it.
#[test]
fn requests_wait_for_the_peer_and_then_for_the_record_of_the_break() {
    let mut first = resumed(orphaned());
    first.request(read(1));
    first.request(write(2));
    first.request(flush(3));
    first.wait(GRACE - 1);
    assert_eq!(first.said, ["resumed"]);
    assert_eq!(first.record().generation, orphaned().generation);
    first.wait(1);
    let mut said = first.said[1..].to_vec();
    said.sort();
    assert_eq!(said, ["Ok(())", "Ok(())", "Ok(())"]);
    assert!(first.record().ancestors.contains(Generation::new(1).expect("not 0")));
}

/// What an earlier agent acknowledged may be in caches only, and the peer may lose its own.
#[test]
fn the_first_flush_alone_needs_the_record_of_the_break() {
    let mut first = resumed(orphaned());
    first.request(flush(1));
    first.wait(GRACE);
    assert_eq!(first.said[1..], ["Ok(())"]);
    assert_ne!(first.record().generation, orphaned().generation);
}

#[test]
fn fenced_requests_wait_for_a_word_on_the_peer() {
    let tuning = Tuning { fenced: true, ..Tuning::default() };
    let mut first = Rig::resuming(orphaned(), &[], tuning);
    first.request(read(1));
    first.request(write(2));
    first.wait(10 * GRACE);
    assert_eq!(first.said, ["resumed"]);
    first.command(Command::PeerDown);
    assert_eq!(first.said.len(), 4, "{:?}", first.said);
}

#[test]
fn a_resumed_side_gives_way_to_an_active_peer() {
    let mut first = resumed(orphaned());
    first.request(write(1));
    first.connect();
    let mut card = theirs();
    card.active = true;
    first.receive(0, Message::Card(Box::new(card)));
    assert_eq!(first.said[2..], ["device fails", "Err(Io)"]);
    assert!(!first.is_active() && !first.record().active && first.record().peer_active);
    assert!(!first.has_sent(|m| matches!(m, Message::Verdict { .. })), "they agree anew");
    first.request(write(2));
    assert_eq!(first.said[4..], ["Err(Inactive)"]);
}

#[test]
fn a_resumed_side_gives_way_to_newer_data() {
    let mut first = resumed(orphaned());
    first.connect();
    let mut card = theirs();
    card.record.generation = Generation::new(2);
    card.record.ancestors.push(Generation::new(1).expect("not 0"));
    first.receive(0, Message::Card(Box::new(card)));
    assert!(!first.is_active() && first.record().behind);
}

/// A failover after which nothing was written: the numbers must tell who was active last.
#[test]
fn a_resumed_side_gives_way_to_a_later_activation() {
    let mut card = theirs();
    card.record.activation = ActivationNo(5);
    let mut first = resumed(orphaned());
    first.connect();
    first.receive(0, Message::Card(Box::new(card.clone())));
    assert!(!first.is_active() && !first.record().behind);
    // But what was written here alone is newer than an activation without a write.
    let mut record = orphaned();
    record.generation = Generation::new(2);
    record.ancestors.push(Generation::new(1).expect("not 0"));
    let mut first = resumed(record);
    first.connect();
    first.receive(0, Message::Card(Box::new(card)));
    assert!(first.is_active());
}

#[test]
fn a_resumed_side_does_not_give_way_to_another_mirror() {
    let mut first = resumed(orphaned());
    first.connect();
    let mut card = theirs();
    card.active = true;
    card.record.mirror = Id16([1; 16]);
    first.agree_with(card);
    assert!(first.is_active());
}

/// A peer that has gone on alone says so over another path: it would not if this side were known
/// to be active.
#[test]
fn a_resumed_side_gives_way_to_a_word_of_its_peer() {
    let mut first = resumed(orphaned());
    first.request(write(1));
    first.command(Command::ToldBehind { session: SessionNo(10) });
    assert_eq!(first.said[2..], ["device fails", "Err(Io)", "Ok(Noted)"]);
    assert!(!first.is_active() && first.record().behind);
}

/// Once something completed alone it is an active side like any other: both have written, and an
/// operator decides.
#[test]
fn a_side_that_went_alone_does_not_give_way() {
    let mut first = resumed(orphaned());
    first.request(write(1));
    first.wait(GRACE);
    assert_eq!(first.said[1..], ["Ok(())"]);
    let mut card = theirs();
    card.active = true;
    card.record.generation = Generation::new(77);
    card.record.bases = [Generation::new(1), None];
    first.connect();
    first.agree_with(card);
    let split = Row::SplitBrain as u8;
    assert!(first.has_sent(|m| *m == Message::Verdict { row: split }));
    assert!(first.is_active());
}

/// A marked region may hold a write that nobody has acknowledged and the peer lacks: it is read
/// only when it is on both disks.
#[test]
fn a_read_of_a_marked_region_waits_until_it_is_settled() {
    let mut first = Rig::resuming(orphaned(), &[0], Tuning::default());
    first.request(read(1));
    first.open(theirs(), 11);
    first.receive(11, Message::MarksEnd);
    assert!(first.has_sent(|m| matches!(m, Message::CopyStart { complete: true, .. })));
    first.request(read(2));
    first.receive(11, Message::CopyReady);
    assert_eq!(first.said, ["resumed"]);
    let id = first.sent_last(copy).expect("the region is copied");
    first.receive(11, Message::Ack { id, ok: true });
    assert_eq!(first.said[1..], ["Ok(())", "Ok(())"]);
}

#[test]
fn other_reads_go_on_at_contact() {
    let mut first = Rig::resuming(orphaned(), &[3], Tuning::default());
    first.request(read(1));
    assert_eq!(first.said, ["resumed"]);
    first.open(theirs(), 11);
    first.receive(11, Message::MarksEnd);
    first.receive(11, Message::CopyReady);
    assert_eq!(first.said[1..], ["Ok(())"]);
}

/// An active first server in session 11.
fn in_session() -> Rig {
    let mut first = resumed(orphaned());
    first.open(theirs(), 11);
    first
}

#[test]
fn a_suspended_side_leaves_nothing_to_copy() {
    let mut first = in_session();
    first.request(write(1));
    let id = first.sent_last(written).expect("it goes to both");
    first.command(Command::Suspend);
    first.receive(11, Message::Ack { id, ok: true });
    assert_eq!(first.said[1..], ["Ok(())"], "what is under way ends");
    let id = first.sent_last(flushed).expect("both disks are flushed");
    first.receive(11, Message::Ack { id, ok: true });
    assert_eq!(first.said[2..], ["Ok(Stopped)"]);
    assert_eq!(first.marked(), Some(0));
    assert!(first.record().active && first.record().clean_stop);
    assert_eq!(first.record().boot, BOOT);
    first.request(write(2));
    assert_eq!(first.said.len(), 3, "later requests are the next agent's");
    let mut next = resumed(first.record().clone());
    let mut card = theirs();
    card.record.session = SessionNo(11);
    next.connect();
    next.agree_with(card);
    let in_sync = Row::InSync as u8;
    assert!(next.has_sent(|m| *m == Message::Verdict { row: in_sync }));
}

/// Without a session it waits for nobody, and completes nothing alone.
#[test]
fn a_suspended_side_does_not_wait_for_its_peer() {
    let mut first = resumed(orphaned());
    first.request(write(1));
    first.request(read(2));
    first.command(Command::Suspend);
    assert_eq!(first.said[1..], ["Ok(Stopped)"]);
    assert_eq!(first.record().generation, orphaned().generation);
    assert!(first.record().active && !first.record().clean_stop);
}

#[test]
fn a_suspended_side_lets_go_what_its_peer_does_not_answer() {
    let mut first = in_session();
    first.request(write(1));
    first.command(Command::Suspend);
    assert_eq!(first.said, ["resumed"]);
    first.lose_peer();
    assert_eq!(first.said[1..], ["Ok(Stopped)"]);
    assert_eq!(first.record().generation, orphaned().generation);
    assert_eq!(first.marked(), Some(1), "it may be on one disk");
}

/// A clean stop counts no more once something was completed since.
#[test]
fn going_alone_ends_a_clean_stop() {
    let mut record = orphaned();
    record.clean_stop = true;
    let mut first = resumed(record);
    first.request(write(1));
    first.wait(GRACE);
    assert_eq!(first.said[1..], ["Ok(())"]);
    assert!(!first.record().clean_stop);
}

#[test]
fn a_suspended_side_takes_no_shutdown_and_the_other_way_round() {
    let mut first = in_session();
    first.command(Command::Suspend);
    first.command(Command::Shutdown);
    assert_eq!(first.said[1..], ["Err(Stopping)"]);
    let mut first = in_session();
    first.request(write(1));
    first.command(Command::Shutdown);
    first.command(Command::Suspend);
    assert_eq!(first.said[1..], ["Err(Stopping)"], "the first one is told: the last is answered");
}

/// A force that waits is refused, one that has begun is recorded and answered before the end.
#[test]
fn a_suspended_side_leaves_no_force_half_done() {
    let mut first = resumed(orphaned());
    first.command(Command::Force { peer_seen_active: Some(false) });
    first.command(Command::Suspend);
    assert_eq!(first.said[1..], ["Err(Stopping)", "Ok(Stopped)"]);
    first.wait(20_000);
    assert_eq!(first.record().generation, orphaned().generation);
    let mut first = resumed(orphaned());
    first.slow_meta = true;
    first.command(Command::Force { peer_seen_active: None });
    first.command(Command::Suspend);
    (0..4).for_each(|_| first.end_meta());
    assert_eq!(first.said[1..], ["Ok(ForcedAlone)", "Ok(Stopped)"]);
}
