//! Each message of the agent is given by what it describes.

use super::fakes::take_events;
use super::{Lab, lab_with_driver_log, line, until};
use crate::agent::managed::How;
use crate::agent::service::Control;
use crate::agent::{DriverEvent, follow};
use crate::ctl::{Refused, Request, Response, Service as _};
use crate::messages::{ActivateReason, DeactivateReason, Event, driver, later};
use mirror_core::command::Refusal;
use mirror_core::io::Notice;
use mirror_core::status::{CopyKind, LinkStatus};
use mirror_core::units::SessionNo;
use std::sync::Arc;

const DEV: &str = "/dev/NMP1";

async fn activate(lab: &Lab, how: How) -> Result<String, Refused> {
    lab.agent.activate(&lab.mirror, how).await
}

fn refuse(lab: &Lab, refusal: Refusal) {
    *lab.fake.refuse.lock().expect("lock") = Some(refusal);
}

async fn ask(lab: &Lab, request: Request) -> Response {
    Control(Arc::clone(&lab.agent)).call(request).await
}

fn lines(events: &[Event]) -> Vec<String> {
    events.iter().map(line).collect()
}

#[tokio::test]
async fn opening_and_closing_the_device_are_told() {
    let lab = lab_with_driver_log("").await;
    activate(&lab, How::default()).await.expect("activated");
    lab.mirror.deactivate().await.expect("deactivated");
    let want = [Event::driver(driver::OPENED, 1, &[]), Event::driver(driver::CLOSED, 1, &[])];
    assert_eq!(lab.events(), lines(&want));
}

#[tokio::test]
async fn a_busy_device_is_told_with_the_failed_deactivation() {
    let lab = lab_with_driver_log("").await;
    activate(&lab, How::default()).await.expect("activated");
    lab.fake.fail(&["umount"]);
    lab.mirror.deactivate().await.expect_err("busy");
    let want = [
        Event::driver(driver::OPENED, 1, &[]),
        Event::driver(driver::BUSY, 1, &[]),
        Event::DeactivateFailed(DeactivateReason::Umount, DEV.to_owned()),
    ];
    assert_eq!(lab.events(), lines(&want));
}

#[tokio::test]
async fn an_activation_on_the_operators_word_is_told() {
    let lab = lab_with_driver_log("fs = \"ext4\"").await;
    let how = How { peer_down: true, nomount: true, ..How::default() };
    activate(&lab, how).await.expect("activated");
    lab.mirror.deactivate().await.expect("deactivated");
    refuse(&lab, Refusal::NotLatest);
    let refused = activate(&lab, how).await.expect_err("refused");
    let want = [
        Event::driver(driver::OPENED, 1, &[]),
        Event::later(later::FORCED_ACTIVE, &[DEV]),
        Event::driver(driver::CLOSED, 1, &[]),
        Event::ActivateFailed(ActivateReason::NotLatest, DEV.to_owned()),
        Event::later(later::FORCED_ACTIVE_FAILED, &[&refused.message, DEV]),
    ];
    assert_eq!(lab.events(), lines(&want));
}

#[tokio::test]
async fn a_force_is_done_when_its_copy_has_ended() {
    let lab = lab_with_driver_log("").await;
    let mut tasks = tokio::task::JoinSet::new();
    let events = take_events(&lab.fake);
    follow::start(&lab.agent, &lab.mirror, events, &mut tasks).await;
    let copied = |source| {
        let notice = Notice::RecoveryFinished { kind: CopyKind::Full, source };
        DriverEvent::Notice(notice)
    };
    lab.fake.events.send(copied(true)).await.expect("a full copy that nobody forced");
    until("it is handled", || lab.fake.events.capacity() == lab.fake.events.max_capacity()).await;
    let force = Request::Force { server: "a".to_owned(), mirror: "md1".to_owned() };
    let answer = ask(&lab, force.clone()).await;
    assert!(matches!(answer, Response::Done(_)), "{answer:?}");
    lab.fake.events.send(copied(true)).await.expect("its copy");
    lab.fake.events.send(DriverEvent::DeviceFailed).await.expect("the last one");
    until("all is handled", || lab.fake.events.capacity() == lab.fake.events.max_capacity()).await;
    refuse(&lab, Refusal::Busy);
    assert!(matches!(ask(&lab, force).await, Response::Refused(_)));
    tasks.shutdown().await;
    drop(tasks);
    let done = Event::RecoveryDone(DEV.to_owned());
    let failed = Event::driver(driver::FAILED, 1, &[]);
    let busy = "The servers are just agreeing on the state of the mirror.";
    let refused = Event::later(later::FORCE_FAILED, &[busy, DEV]);
    let forced = Event::later(later::FORCED, &[DEV]);
    let told = lab.events();
    assert_eq!(told, lines(&[done.clone(), done, forced, failed, refused]));
}

#[tokio::test]
async fn a_recovery_that_cannot_be_stopped_is_told() {
    let lab = lab_with_driver_log("").await;
    let answer = ask(&lab, Request::Cancel { mirror: "md1".to_owned() }).await;
    assert!(matches!(answer, Response::Refused(_)), "{answer:?}");
    assert_eq!(lab.events(), lines(&[Event::later(later::CANCEL_FAILED, &[DEV])]));
}

/// After the construction: with `initial_mkfs`, that the file system was made; else, that none was.
#[tokio::test]
async fn whether_the_first_file_system_was_made_is_told() {
    let constructed =
        || DriverEvent::Notice(Notice::RecoveryFinished { kind: CopyKind::Initial, source: true });
    for (more, message) in [("initial_mkfs = true", later::MKFS_DONE), ("", later::MKFS_LEFT_OUT)] {
        let lab = lab_with_driver_log(more).await;
        let mut tasks = tokio::task::JoinSet::new();
        let events = take_events(&lab.fake);
        follow::start(&lab.agent, &lab.mirror, events, &mut tasks).await;
        lab.fake.events.send(constructed()).await.expect("the agent listens");
        if !more.is_empty() {
            until("made and closed", || lab.fake.journal.contains("Deactivate")).await;
        }
        until("handled", || lab.fake.events.capacity() == lab.fake.events.max_capacity()).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        tasks.shutdown().await;
        drop(tasks);
        let told = lab.events();
        assert!(told.contains(&line(&Event::later(message, &[DEV]))), "{more}: {told:?}");
    }
}

/// The row of the table that refuses is named, with the one way out, on either side.
#[tokio::test]
async fn a_blank_side_is_explained() {
    for (blank, full, name) in [(1, "a", "b"), (0, "b", "a")] {
        let lab = lab_with_driver_log("").await;
        {
            let mut status = lab.fake.status.lock().expect("lock");
            status.link = LinkStatus::Parked;
            status.verdict = Some("blank-and-unsure".to_owned());
            status.sides[blank].generation = None;
        }
        refuse(&lab, Refusal::NotLatest);
        let refused = activate(&lab, How::default()).await.expect_err("refused");
        let said = format!("The cluster partition of {name} is blank");
        assert!(refused.message.contains(&said), "{}", refused.message);
        let way = format!("clpmdctrl --force {full} md1");
        assert!(refused.next.ends_with(&way), "{}", refused.next);
    }
}

/// A device on which nothing is found: not "correct the cause", but how to make a file system.
#[tokio::test]
async fn a_mirror_without_a_file_system_proposes_to_make_one() {
    for step in ["fsck", "mount"] {
        let lab = lab_with_driver_log("").await;
        *lab.fake.blank.lock().expect("lock") = true;
        lab.fake.fail(&[step]);
        let refused = activate(&lab, How::default()).await.expect_err("nothing to mount");
        assert!(refused.next.starts_with("clpmdctrl --active -nomount md1; "), "{}", refused.next);
        assert!(refused.next.contains("mkfs.ext4 /dev/NMP1"), "{}", refused.next);
    }
    let lab = lab_with_driver_log("").await;
    *lab.fake.blank.lock().expect("lock") = true;
    lab.fake.fail(&["attach"]);
    let refused = activate(&lab, How::default()).await.expect_err("no device");
    assert!(refused.next.starts_with("clpmdagent --check says"), "{}", refused.next);
    assert!(refused.next.ends_with("then: clpmdctrl --active md1"), "{}", refused.next);
}

/// What the monitors are given, for each state of this server's driver and the other's.
#[tokio::test]
async fn the_monitors_are_given_both_drivers() {
    use crate::agent::peer_view::Said;
    use crate::monitor::PeerDriver;
    let lab = lab_with_driver_log("").await;
    let monitored =
        async |name: &str| match ask(&lab, Request::Monitor { mirror: name.to_owned() }).await {
            Response::Monitor(m) => *m,
            other => panic!("{other:?}"),
        };
    let now = monitored("md1").await;
    assert!(now.report.is_some() && now.peer == PeerDriver::Runs, "in session");
    lab.fake.status.lock().expect("lock").link = LinkStatus::Down;
    assert_eq!(monitored("md1").await.peer, PeerDriver::Unknown);
    lab.mirror.peer.set(Said::Abnormal);
    assert_eq!(monitored("md1").await.peer, PeerDriver::Abnormal);
    lab.mirror.peer.set(Said::Nothing);
    assert_eq!(monitored("md1").await.peer, PeerDriver::Abnormal, "out of reach for a moment");
    let broken = monitored("md2").await;
    assert!(broken.report.is_none(), "it could not be opened");
    lab.fake.fail(&["status"]);
    assert!(monitored("md1").await.report.is_none(), "its driver is silent");
    let absent = ask(&lab, Request::Monitor { mirror: "md7".to_owned() }).await;
    assert!(matches!(absent, Response::Refused(r) if r.code.number() == 77));
}

#[tokio::test]
async fn a_separation_is_told_whether_done_or_refused() {
    let lab = lab_with_driver_log("").await;
    let separate = || Request::Separate { mirror: "md1".to_owned() };
    assert!(matches!(ask(&lab, separate()).await, Response::Done(_)));
    refuse(&lab, Refusal::RecoveryRunning);
    let Response::Refused(refused) = ask(&lab, separate()).await else { panic!("done") };
    assert!(refused.next.contains("--rwait md1"), "{}", refused.next);
    let reason = "A mirror recovery is in progress.";
    let want = [
        Event::later(later::ISOLATED, &["md1"]),
        Event::later(later::ISOLATE_FAILED, &[reason, DEV]),
    ];
    assert_eq!(lab.events(), lines(&want));
}

#[tokio::test]
async fn a_fault_of_the_kernels_device_is_told() {
    let lab = lab_with_driver_log("").await;
    let mut tasks = tokio::task::JoinSet::new();
    let events = take_events(&lab.fake);
    follow::start(&lab.agent, &lab.mirror, events, &mut tasks).await;
    let fault = DriverEvent::FrontEnd("it is gone".to_owned());
    lab.fake.events.send(fault).await.expect("the agent listens");
    let last = DriverEvent::TellPeerBehind(SessionNo(1));
    lab.fake.events.send(last).await.expect("so that the first one is done with");
    until("it is handled", || lab.fake.events.capacity() == lab.fake.events.max_capacity()).await;
    tasks.shutdown().await;
    drop(tasks);
    assert_eq!(lab.events(), lines(&[Event::driver(driver::FRONT_END, 1, &["it is gone"])]));
}
