//! What goes on by itself.

use super::fakes::take_events;
use super::{Lab, lab, line, until};
use crate::agent::managed::How;
use crate::agent::{DriverEvent, follow};
use crate::messages::Event;
use crate::peer::PeerAnswer;
use mirror_core::io::Notice;
use mirror_core::status::{CopyKind, LinkStatus, Phase};
use mirror_core::units::SessionNo;
use tokio::task::JoinSet;

async fn started(lab: &Lab) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let events = take_events(&lab.fake);
    follow::start(&lab.agent, &lab.mirror, events, &mut tasks).await;
    tasks
}

async fn send(lab: &Lab, event: DriverEvent) {
    lab.fake.events.send(event).await.expect("the agent listens");
}

fn constructed(source: bool) -> DriverEvent {
    DriverEvent::Notice(Notice::RecoveryFinished { kind: CopyKind::Initial, source })
}

#[tokio::test]
async fn a_peer_is_told_until_it_has_confirmed_this_very_session() {
    let lab = lab("").await;
    lab.fake.status.lock().expect("lock").link = LinkStatus::Down;
    let _tasks = started(&lab).await;
    let wrong = PeerAnswer::Behind { session: SessionNo(6) };
    *lab.fake.peer.lock().expect("lock") = Some(wrong);
    send(&lab, DriverEvent::TellPeerBehind(SessionNo(7))).await;
    let tell = "peer: TellBehind { mirror: \"md1\", session: SessionNo(7) }";
    until("told", || lab.fake.journal.contains(tell)).await;
    assert!(!lab.fake.journal.contains("PeerConfirmedBehind { session: SessionNo(7) }"));
    *lab.fake.peer.lock().expect("lock") = Some(PeerAnswer::Behind { session: SessionNo(7) });
    until("confirmed", || {
        lab.fake.journal.contains("PeerConfirmedBehind { session: SessionNo(7) }")
    })
    .await;
}

/// The session may have the number that the peer was told of: it was only offered until then.
#[tokio::test]
async fn a_peer_is_not_told_during_a_session() {
    let lab = lab("").await;
    lab.fake.status.lock().expect("lock").link = LinkStatus::Down;
    let _tasks = started(&lab).await;
    send(&lab, DriverEvent::TellPeerBehind(SessionNo(1))).await;
    let tell = "peer: TellBehind { mirror: \"md1\", session: SessionNo(1) }";
    until("told", || lab.fake.journal.contains(tell)).await;
    lab.fake.status.lock().expect("lock").link = LinkStatus::Session;
    lab.fake.journal.take();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert!(!lab.fake.journal.contains(tell));
}

/// Also without a command of an operator's here: the other side may have brought the new size along.
#[tokio::test]
async fn a_device_that_is_open_grows_with_its_mirror() {
    let lab = lab("").await;
    let mut tasks = started(&lab).await;
    lab.mirror
        .activate_from(&mut lab.mirror.enter().await.expect("free"), How::default())
        .await
        .expect("activated");
    send(&lab, DriverEvent::Grown(8192)).await;
    until("it grows", || lab.fake.journal.contains("to 8192 bytes")).await;
    tasks.shutdown().await;
}

#[tokio::test]
async fn notices_reach_the_event_log() {
    let lab = lab("").await;
    let mut tasks = started(&lab).await;
    send(&lab, constructed(false)).await;
    send(&lab, DriverEvent::DeviceFailed).await;
    send(&lab, DriverEvent::TellPeerBehind(SessionNo(1))).await;
    until("both handled", || {
        lab.fake.journal.contains("peer: TellBehind { mirror: \"md1\", session: SessionNo(1) }")
    })
    .await;
    tasks.shutdown().await;
    drop(tasks);
    assert_eq!(lab.events(), [line(&Event::InitialDone("/dev/NMP1".to_owned()))]);
}

#[tokio::test]
async fn at_start_the_named_server_activates_once_in_contact() {
    let lab = lab("activate_at_start = \"a\"").await;
    lab.fake.status.lock().expect("lock").link = LinkStatus::Down;
    let _tasks = started(&lab).await;
    until("looked at", || lab.fake.journal.contains("peer: Report { mirror: \"md1\" }")).await;
    assert!(!lab.fake.is_active());
    lab.fake.status.lock().expect("lock").link = LinkStatus::Session;
    until("mounted", || lab.fake.journal.contains("mount")).await;
    lab.mirror.deactivate().await.expect("by hand");
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert!(!lab.fake.is_active(), "once only");
}

/// A reload that is at work on the mirror delays what goes on by itself, and takes nothing away.
#[tokio::test]
async fn what_goes_on_by_itself_waits_for_a_reload() {
    let lab = lab("activate_at_start = \"a\"").await;
    lab.mirror.hold().await.expect("inactive");
    let _tasks = started(&lab).await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert!(!lab.fake.is_active(), "it is held");
    let by_hand = lab.agent.activate(&lab.mirror, How::default()).await;
    assert!(by_hand.expect_err("held").message.contains("by a reload of the configuration"));
    lab.mirror.release();
    until("activated", || lab.fake.journal.contains("mount")).await;
}

/// Waits for the last of the steps that follow the construction.
async fn follow_up(more: &str, source: bool, last: &str) -> Vec<String> {
    let lab = lab(more).await;
    lab.fake.status.lock().expect("lock").phase = Phase::NoConstruction;
    let _tasks = started(&lab).await;
    lab.fake.status.lock().expect("lock").phase = Phase::Normal;
    send(&lab, constructed(source)).await;
    until(last, || lab.fake.journal.contains(last)).await;
    lab.fake.journal.take()
}

const ACTIVATE: &str = "Activate { peer_down: false, peer_seen_active: None }";

#[tokio::test]
async fn after_the_construction_the_source_makes_the_file_system_and_closes() {
    let steps = follow_up("initial_mkfs = true", true, "Deactivate").await;
    assert_eq!(
        steps,
        [
            ACTIVATE,
            "open front end",
            "attach",
            "mkfs",
            "umount",
            "detach",
            "close front end",
            "Deactivate"
        ]
    );
}

/// The core says what belongs to the construction, however often that was cut.
#[tokio::test]
async fn only_the_end_of_the_construction_is_followed_by_that() {
    let lab = lab("initial_mkfs = true").await;
    lab.fake.status.lock().expect("lock").phase = Phase::NoConstruction;
    let _tasks = started(&lab).await;
    lab.fake.status.lock().expect("lock").phase = Phase::Normal;
    let (initial, rest, source) = (CopyKind::Initial, CopyKind::Difference, true);
    for notice in [
        Notice::RecoveryStarted { kind: initial, source, bytes: 9 },
        Notice::RecoveryAborted { kind: initial, source, reason: "connection lost" },
        Notice::RecoveryStarted { kind: initial, source, bytes: 5 },
        Notice::RecoveryFinished { kind: initial, source },
    ] {
        send(&lab, DriverEvent::Notice(notice)).await;
    }
    until("closed again", || lab.fake.journal.contains("Deactivate")).await;
    assert!(lab.fake.journal.contains("mkfs"));
    // A later recovery is not the end of a construction.
    lab.fake.journal.take();
    send(&lab, DriverEvent::Notice(Notice::RecoveryFinished { kind: rest, source })).await;
    send(&lab, DriverEvent::TellPeerBehind(SessionNo(1))).await;
    until("handled", || {
        lab.fake.journal.contains("peer: TellBehind { mirror: \"md1\", session: SessionNo(1) }")
    })
    .await;
    assert!(!lab.fake.journal.contains(ACTIVATE));
}

#[tokio::test]
async fn after_the_construction_the_named_server_makes_it_and_stays_active() {
    let more = "initial_mkfs = true\nactivate_at_start = \"a\"";
    for source in [true, false] {
        let steps = follow_up(more, source, "mount").await;
        assert_eq!(steps, [ACTIVATE, "open front end", "attach", "mkfs", "fsck", "mount"]);
    }
    let steps = follow_up("activate_at_start = \"a\"", true, "mount").await;
    assert!(!steps.contains(&"mkfs".to_owned()), "{steps:?}");
}

#[tokio::test]
async fn without_settings_nothing_is_activated_after_the_construction() {
    for (more, source) in [
        ("", true),
        ("", false),
        ("initial_mkfs = true", false),
        ("initial_mkfs = true\nactivate_at_start = \"b\"", true),
    ] {
        let lab = lab(more).await;
        let _tasks = started(&lab).await;
        send(&lab, constructed(source)).await;
        send(&lab, DriverEvent::TellPeerBehind(SessionNo(1))).await;
        until("both handled", || {
            lab.fake.journal.contains("peer: TellBehind { mirror: \"md1\", session: SessionNo(1) }")
        })
        .await;
        assert!(!lab.fake.journal.contains(ACTIVATE), "{more} {source}");
    }
}

/// The core was found unable to go on: nobody will deactivate it.
#[tokio::test]
async fn a_device_of_an_inactive_mirror_that_fails_is_taken_down() {
    let lab = lab("").await;
    lab.agent.activate(&lab.mirror, How::default()).await.expect("activated");
    lab.fake.journal.take();
    // Active: whoever deactivates it closes it.
    assert!(!lab.mirror.device_failed().await);
    assert!(!lab.fake.journal.contains("discard"));
    lab.fake.set_active(false);
    let _tasks = started(&lab).await;
    send(&lab, DriverEvent::DeviceFailed).await;
    until("closed", || lab.fake.journal.contains("close front end")).await;
    let steps = lab.fake.journal.take();
    let at = |what: &str| steps.iter().position(|s| s == what);
    assert!(at("discard").is_some() && at("discard") < at("close front end"), "{steps:?}");
}
