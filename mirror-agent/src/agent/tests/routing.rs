//! Requests of tools and of the other agent reach the right command.

use super::lab;
use crate::agent::peer_view::Said;
use crate::agent::service::{Control, FromPeer};
use crate::ctl::{MirrorReport, Refused, Request, Response, Service as _};
use crate::messages::MdCode;
use crate::peer::{PeerAnswer, PeerRequest, PeerService as _};
use mirror_core::command::Refusal;
use mirror_core::status::{Color, LinkStatus};
use mirror_core::units::SessionNo;
use std::sync::Arc;

fn force(server: &str) -> Request {
    Request::Force { server: server.to_owned(), mirror: "md1".to_owned() }
}

fn refused(response: Response) -> Refused {
    match response {
        Response::Refused(r) => r,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn force_goes_to_the_server_that_is_named() {
    let lab = lab("").await;
    let control = Control(Arc::clone(&lab.agent));
    assert!(matches!(control.call(force("a")).await, Response::Done(_)));
    assert_eq!(lab.fake.journal.take(), ["Force { peer_seen_active: None }"]);

    let done = PeerAnswer::Outcome(Response::Done("forced".to_owned()));
    *lab.fake.peer.lock().expect("lock") = Some(done);
    assert_eq!(control.call(force("b")).await, Response::Done("b: forced".to_owned()));
    assert_eq!(lab.fake.journal.take(), ["peer: Force { mirror: \"md1\" }"], "nothing here");

    // A mirror that cannot be opened here can still be forced there.
    let broken =
        |server: &str| Request::Force { server: server.to_owned(), mirror: "md2".to_owned() };
    assert!(matches!(control.call(broken("b")).await, Response::Done(_)));
    assert_eq!(refused(control.call(broken("a")).await).code, MdCode::ReadCluster);
}

#[tokio::test]
async fn naming_an_absent_or_unknown_server_is_refused_by_name() {
    let lab = lab("").await;
    let control = Control(Arc::clone(&lab.agent));
    let absent = refused(control.call(force("b")).await);
    assert_eq!(absent.code, MdCode::Failed);
    assert!(absent.message.starts_with("b cannot be reached"), "{}", absent.message);
    assert!(absent.next.ends_with("clpmdctrl --force a md1"), "{}", absent.next);
    lab.fake.journal.take();
    let unknown = refused(control.call(force("c")).await);
    assert_eq!(unknown.code, MdCode::BadOptions);
    assert!(unknown.message.contains("no server c; there are: a, b"), "{}", unknown.message);
    assert!(lab.fake.journal.take().is_empty());
}

#[tokio::test]
async fn without_a_session_the_other_agent_is_asked_whether_it_is_active() {
    let lab = lab("").await;
    lab.fake.status.lock().expect("lock").link = LinkStatus::Down;
    *lab.fake.peer.lock().expect("lock") = Some(PeerAnswer::Active(true));
    let control = Control(Arc::clone(&lab.agent));
    let activate = Request::Activate { mirror: "md1".to_owned(), nomount: true, peer_down: true };
    control.call(activate).await;
    let journal = lab.fake.journal.take();
    assert_eq!(journal[0], "peer: IsActive { mirror: \"md1\" }");
    assert_eq!(journal[1], "Activate { peer_down: true, peer_seen_active: Some(true) }");
    *lab.fake.peer.lock().expect("lock") = None;
    control.call(force("a")).await;
    assert_eq!(lab.fake.journal.take()[1], "Force { peer_seen_active: None }");
}

/// What is open grows with the mirror; where it cannot, that is said, with what to do.
#[tokio::test]
async fn a_mirror_that_grows_takes_its_open_device_along() {
    let lab = lab("").await;
    let control = Control(Arc::clone(&lab.agent));
    let resize = || Request::Resize { mirror: "md1".to_owned() };
    let said = |response| match response {
        Response::Done(text) => text,
        other => panic!("{other:?}"),
    };
    let inactive = said(control.call(resize()).await);
    assert!(inactive.ends_with("Next: clpmdctrl --active md1, then resize2fs /dev/NMP1"));
    assert!(!lab.fake.journal.contains("grow front end"), "nothing is open");
    let activate = Request::Activate { mirror: "md1".to_owned(), nomount: false, peer_down: false };
    said(control.call(activate).await);
    let live = said(control.call(resize()).await);
    assert!(live.ends_with("Next: resize2fs /dev/NMP1"), "{live}");
    assert!(lab.fake.journal.contains("to 8192 bytes"));
    lab.fake.fail(&["grow front end"]);
    let kept = said(control.call(resize()).await);
    let next = "Next: the open device keeps its size (grow front end went wrong): \
                clpmdctrl --deactive md1, clpmdctrl --active md1, then resize2fs /dev/NMP1";
    assert!(kept.ends_with(next), "{kept}");
}

#[tokio::test]
async fn every_request_has_its_command() {
    let lab = lab("").await;
    let control = Control(Arc::clone(&lab.agent));
    let md1 = || "md1".to_owned();
    assert!(
        matches!(control.call(Request::Ping).await, Response::Pong { server, .. } if server == "a")
    );
    assert_eq!(control.call(Request::List).await, Response::List(vec![md1(), "md2".to_owned()]));
    control.call(Request::Recover { mirror: md1() }).await;
    let none = refused(control.call(Request::Cancel { mirror: md1() }).await);
    assert_eq!(none.next, "clpmdstat --mirror md1");
    control.call(Request::PeerDown { mirror: md1() }).await;
    assert_eq!(lab.fake.journal.take(), ["Recover", "CancelRecovery", "PeerDown"]);
    let broken = refused(control.call(Request::Recover { mirror: "md2".to_owned() }).await);
    assert_eq!(broken.code, MdCode::ReadCluster);
    assert!(broken.message.contains("torn"), "{}", broken.message);
    let unknown = refused(control.call(Request::Status { mirror: Some("md9".to_owned()) }).await);
    assert_eq!(unknown.code, MdCode::NoMirror);
}

#[tokio::test]
async fn nothing_is_activated_while_the_agent_stops() {
    let lab = lab("").await;
    lab.agent.stopping.store(true, std::sync::atomic::Ordering::SeqCst);
    let control = Control(Arc::clone(&lab.agent));
    let activate = Request::Activate { mirror: "md1".to_owned(), nomount: false, peer_down: false };
    assert!(refused(control.call(activate).await).message.contains("stopping"));
    assert!(lab.fake.journal.take().is_empty());
}

#[tokio::test]
async fn the_other_agent_is_answered() {
    let lab = lab("").await;
    let peer = FromPeer(Arc::clone(&lab.agent));
    let md1 = || "md1".to_owned();
    assert_eq!(peer.call(PeerRequest::IsActive { mirror: md1() }).await, PeerAnswer::Active(false));
    let session = SessionNo(4);
    let told = PeerRequest::TellBehind { mirror: md1(), session };
    assert_eq!(peer.call(told.clone()).await, PeerAnswer::Behind { session });
    assert_eq!(lab.fake.journal.take(), ["ToldBehind { session: SessionNo(4) }"]);
    *lab.fake.refuse.lock().expect("lock") = Some(Refusal::Busy);
    assert!(matches!(peer.call(told).await, PeerAnswer::Refused(_)), "only what is durable");
    let forced = peer.call(PeerRequest::Force { mirror: md1() }).await;
    assert!(matches!(forced, PeerAnswer::Outcome(Response::Refused(_))));
    let unknown = peer.call(PeerRequest::IsActive { mirror: "md9".to_owned() }).await;
    assert_eq!(unknown, PeerAnswer::Active(false), "it is not served here");
    let broken = peer.call(PeerRequest::IsActive { mirror: "md2".to_owned() }).await;
    assert!(matches!(broken, PeerAnswer::Refused(_)), "nobody knows: {broken:?}");
}

/// With `disk_error = "detach"` a command may be refused for the disk of either server.
#[tokio::test]
async fn a_refusal_names_the_server_whose_disk_has_failed() {
    let lab = lab("").await;
    let control = Control(Arc::clone(&lab.agent));
    *lab.fake.refuse.lock().expect("lock") = Some(Refusal::DiskFailed);
    let separate = || Request::Separate { mirror: "md1".to_owned() };
    let own = refused(control.call(separate()).await);
    assert!(own.message.ends_with("a disk of this server has failed."), "{}", own.message);
    assert!(own.next.starts_with("replace the disk of a, "), "{}", own.next);
    lab.fake.status.lock().expect("lock").sides[1].disk_error = Some(true);
    let theirs = refused(control.call(separate()).await);
    let says = "the disk of b has failed, and b works with the disk of a.";
    assert!(theirs.message.ends_with(says), "{}", theirs.message);
    assert!(theirs.next.starts_with("on b: clpmdctrl --deactive md1, on a"), "{}", theirs.next);
}

async fn shown(control: &Control) -> MirrorReport {
    match control.call(Request::Status { mirror: Some("md1".to_owned()) }).await {
        Response::Status(mut all) => all.remove(0),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_other_agents_view_fills_in_while_there_is_no_session() {
    let lab = lab("").await;
    let control = Control(Arc::clone(&lab.agent));
    let report = shown(&control).await;
    assert_eq!((report.name.as_str(), report.device.as_str()), ("md1", "/dev/NMP1"));
    assert_eq!(report.mount_point.as_deref(), Some("/mnt/1"));
    {
        let mut s = lab.fake.status.lock().expect("lock");
        s.link = LinkStatus::Down;
        s.sides[1].color = Color::Gray;
    }
    let alone = shown(&control).await;
    assert_eq!((alone.peer_by_agent, alone.status.sides[1].color), (false, Color::Gray));
    let mut theirs = report;
    theirs.status = super::fakes::status(1);
    lab.mirror.peer.set(Said::Report(Box::new(theirs)));
    let both = shown(&control).await;
    assert_eq!((both.peer_by_agent, both.status.sides[1].color), (true, Color::Green));
    // What was said before a session says nothing after it.
    for link in [LinkStatus::Session, LinkStatus::Down] {
        lab.fake.status.lock().expect("lock").link = link;
        let later = shown(&control).await;
        assert_eq!((later.peer_by_agent, later.status.sides[1].color), (false, Color::Gray));
    }
}

#[tokio::test]
async fn a_driver_that_hangs_is_said_to() {
    let lab = lab("").await;
    lab.fake.fail(&["status"]);
    let control = Control(Arc::clone(&lab.agent));
    let peer = FromPeer(Arc::clone(&lab.agent));
    let status = Request::Status { mirror: Some("md1".to_owned()) };
    let active = PeerRequest::IsActive { mirror: "md1".to_owned() };
    let (silent, unknown) = tokio::join!(control.call(status), peer.call(active));
    let silent = refused(silent);
    assert_eq!(silent.code, MdCode::Internal);
    assert!(silent.message.contains("does not answer"), "{}", silent.message);
    assert!(matches!(unknown, PeerAnswer::Refused(_)), "not known is not inactive");
}
