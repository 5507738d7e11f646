//! The order of activation and deactivation, and what is undone when a step fails.

use super::{Lab, lab, line};
use crate::agent::managed::How;
use crate::messages::{ActivateReason, DeactivateReason, Event, MdCode};
use mirror_core::command::Refusal;

const ACTIVATE: &str = "Activate { peer_down: false, peer_seen_active: None }";
const DEV: &str = "/dev/NMP1";

async fn activate(lab: &Lab, nomount: bool) -> Result<String, crate::ctl::Refused> {
    lab.agent.activate(&lab.mirror, How { nomount, ..How::default() }).await
}

#[tokio::test]
async fn up_and_down_in_order() {
    let lab = lab("").await;
    let text = activate(&lab, false).await.expect("activated");
    assert_eq!(text, "md1 is active on a: /dev/NMP1 is mounted on /mnt/1.");
    assert_eq!(lab.fake.journal.take(), [ACTIVATE, "open front end", "attach", "fsck", "mount"]);
    lab.mirror.deactivate().await.expect("deactivated");
    assert_eq!(lab.fake.journal.take(), ["umount", "detach", "close front end", "Deactivate"]);
    let twice = lab.mirror.deactivate().await.expect_err("refused");
    assert_eq!(twice.code, MdCode::NotMounted);
    let want = Event::DeactivateFailed(DeactivateReason::NotActive, DEV.to_owned());
    assert_eq!(lab.events(), [line(&want)]);
}

#[tokio::test]
async fn nomount_opens_only_and_what_was_mounted_by_hand_is_unmounted() {
    let lab = lab("").await;
    let text = activate(&lab, true).await.expect("activated");
    assert_eq!(text, "md1 is active on a: /dev/NMP1 is open, not mounted.");
    assert_eq!(lab.fake.journal.take(), [ACTIVATE, "open front end", "attach"]);
    lab.mirror.deactivate().await.expect("deactivated");
    assert_eq!(lab.fake.journal.take()[0], "umount");
}

#[tokio::test]
async fn a_refused_activation_touches_nothing() {
    let lab = lab("").await;
    *lab.fake.refuse.lock().expect("lock") = Some(Refusal::PeerActive);
    let refused = activate(&lab, false).await.expect_err("refused");
    assert_eq!(refused.next, "on b: clpmdctrl --deactive md1");
    assert_eq!(lab.fake.journal.take(), [ACTIVATE]);
    *lab.fake.refuse.lock().expect("lock") = None;
    let idle = lab.mirror.deactivate().await.expect_err("nothing to deactivate");
    assert_eq!(idle.code, MdCode::NotMounted);
    let want = [
        line(&Event::ActivateFailed(ActivateReason::RemoteActive, DEV.to_owned())),
        line(&Event::DeactivateFailed(DeactivateReason::NotActive, DEV.to_owned())),
    ];
    assert_eq!(lab.events(), want);
}

#[tokio::test]
async fn a_second_activation_is_refused_and_leaves_the_first_alone() {
    let lab = lab("").await;
    activate(&lab, false).await.expect("activated");
    lab.fake.journal.take();
    let twice = activate(&lab, false).await.expect_err("refused");
    assert_eq!(twice.code, MdCode::AlreadyMounted);
    assert_eq!(lab.fake.journal.take(), [ACTIVATE], "nothing is undone");
    lab.mirror.deactivate().await.expect("still to be closed in order");
    assert_eq!(lab.fake.journal.take().len(), 4);
}

/// What holds the device hangs: that is said, and the mirror stays what it is until the next try.
#[tokio::test]
async fn a_device_that_does_not_close_is_not_waited_for_without_end() {
    let lab = lab("").await;
    activate(&lab, false).await.expect("activated");
    lab.fake.journal.take();
    lab.fake.fail(&["end of close front end"]);
    let refused = lab.mirror.deactivate().await.expect_err("it hangs");
    assert_eq!(refused.code, MdCode::Timeout);
    assert!(refused.message.contains("/dev/NMP1 was not closed within"), "{}", refused.message);
    assert_eq!(lab.fake.journal.take(), ["umount", "detach", "close front end"]);
    lab.fake.fail(&[]);
    lab.mirror.deactivate().await.expect("deactivated");
    assert_eq!(lab.fake.journal.take(), ["close front end", "Deactivate"]);
}

/// Each step of the activation fails in turn: everything from there down is undone in reverse.
#[tokio::test]
async fn a_failed_step_is_rolled_back_in_reverse() {
    let steps = ["open front end", "attach", "fsck", "mount"];
    let undo: [&[&str]; 4] = [
        &["close front end", "Deactivate"],
        &["umount", "detach", "close front end", "Deactivate"],
        &["umount", "detach", "close front end", "Deactivate"],
        &["umount", "detach", "close front end", "Deactivate"],
    ];
    for (n, step) in steps.into_iter().enumerate() {
        let lab = lab("").await;
        lab.fake.fail(&[step]);
        let refused = activate(&lab, false).await.expect_err("failed");
        assert_eq!(refused.code, MdCode::Timeout, "the step's own code");
        assert!(refused.message.contains(&format!("{step} went wrong")), "{}", refused.message);
        let want: Vec<_> =
            [ACTIVATE].iter().chain(&steps[..=n]).chain(undo[n]).map(ToString::to_string).collect();
        assert_eq!(lab.fake.journal.take(), want, "{step}");
        let reason = if n < 2 { ActivateReason::OpenPort } else { ActivateReason::Mount };
        assert_eq!(lab.events(), [line(&Event::ActivateFailed(reason, DEV.to_owned()))]);
    }
}

#[tokio::test]
async fn a_failed_rollback_tells_both_causes_and_can_be_finished_later() {
    let lab = lab("").await;
    lab.fake.fail(&["mount", "detach"]);
    let refused = activate(&lab, false).await.expect_err("failed");
    assert!(refused.message.contains("mount went wrong"), "{}", refused.message);
    assert!(refused.message.contains("detach went wrong"), "{}", refused.message);
    assert_eq!(refused.next, "clpmdctrl --deactive md1");
    lab.fake.journal.take();
    lab.fake.fail(&[]);
    lab.mirror.deactivate().await.expect("finished");
    assert_eq!(lab.fake.journal.take(), ["umount", "detach", "close front end", "Deactivate"]);
}

#[tokio::test]
async fn a_busy_file_system_keeps_the_device_open() {
    let lab = lab("").await;
    activate(&lab, false).await.expect("activated");
    lab.fake.journal.take();
    lab.fake.fail(&["umount"]);
    let refused = lab.mirror.deactivate().await.expect_err("busy");
    assert!(refused.next.contains("end what uses /dev/NMP1"), "{}", refused.next);
    assert_eq!(lab.fake.journal.take(), ["umount"], "the device stays under the file system");
    assert!(lab.fake.is_active());
    let want = Event::DeactivateFailed(DeactivateReason::Umount, DEV.to_owned());
    assert_eq!(lab.events(), [line(&want)]);
}

#[tokio::test]
async fn fsck_is_announced_and_confirmed() {
    let lab = lab("").await;
    *lab.fake.fsck_due.lock().expect("lock") = true;
    activate(&lab, false).await.expect("activated");
    let want = [line(&Event::FsckStarted(DEV.to_owned())), line(&Event::FsckDone(DEV.to_owned()))];
    assert_eq!(lab.events(), want);
}

#[tokio::test]
async fn stopping_goes_down_and_then_stops_cleanly() {
    let lab = lab("").await;
    activate(&lab, false).await.expect("activated");
    lab.fake.journal.take();
    lab.mirror.stop().await.expect("stopped");
    assert_eq!(
        lab.fake.journal.take(),
        ["umount", "detach", "close front end", "Deactivate", "Shutdown", "end"]
    );
    activate(&lab, false).await.expect("activated");
    lab.fake.journal.take();
    lab.fake.fail(&["umount"]);
    lab.mirror.stop().await.expect_err("busy");
    assert_eq!(lab.fake.journal.take(), ["umount", "end"], "not recorded as cleanly stopped");
}

/// A driver that a predecessor left active is closed like one that was activated here.
#[tokio::test]
async fn what_a_predecessor_left_open_is_closed() {
    let first = lab("").await;
    first.fake.status.lock().expect("lock").sides[0].active = Some(true);
    let mirror = crate::agent::managed::Managed::new(
        first.agent.config.mirrors[0].clone(),
        DEV.to_owned(),
        (["a".to_owned(), "b".to_owned()], 0),
        (first.fake.clone(), first.fake.clone()),
        first.agent.events.clone(),
    )
    .await;
    mirror.deactivate().await.expect("closed");
    assert_eq!(first.fake.journal.take(), ["umount", "detach", "close front end", "Deactivate"]);
}

/// A server that is gone has been asked all the while: an activation does not wait as long again.
#[tokio::test]
async fn who_has_not_answered_is_asked_once_more_and_not_waited_for() {
    let lab = lab("").await;
    lab.fake.status.lock().expect("lock").link = mirror_core::status::LinkStatus::Down;
    let asked_for = || *lab.fake.asked_for.lock().expect("lock");
    let refused = lab.agent.informed(&lab.mirror, How::default()).await.expect("asked");
    assert_eq!((refused.peer_seen_active, asked_for()), (None, crate::peer::ASK_LIMIT));
    lab.mirror.peer.asking();
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    // Should it be back, it is heard.
    *lab.fake.peer.lock().expect("lock") = Some(crate::peer::PeerAnswer::Active(true));
    let how = lab.agent.informed(&lab.mirror, How::default()).await.expect("asked");
    assert_eq!(
        (how.peer_seen_active, asked_for()),
        (Some(true), std::time::Duration::from_secs(1))
    );
}

/// What the other agent said before a long wait may not be true any more.
#[tokio::test]
async fn the_other_agent_is_asked_when_the_mirror_is_free() {
    let lab = lab("").await;
    lab.fake.status.lock().expect("lock").link = mirror_core::status::LinkStatus::Down;
    let asked = "peer: IsActive { mirror: \"md1\" }";
    let busy = lab.mirror.enter().await.expect("free");
    let (agent, mirror) = (lab.agent.clone(), lab.mirror.clone());
    let waiting = tokio::spawn(async move { agent.activate(&mirror, How::default()).await });
    tokio::task::yield_now().await;
    assert!(!lab.fake.journal.contains(asked), "asked before the wait");
    drop(busy);
    waiting.await.expect("no panic").expect("activated");
    assert!(lab.fake.journal.contains(asked));
}
