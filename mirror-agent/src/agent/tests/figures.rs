//! What is counted and what happens, as tools ask for it.

use super::{Lab, lab};
use crate::agent::changes;
use crate::agent::service::Control;
use crate::ctl::{Changes, Request, Response, Service as _};
use crate::figures::Taken;
use crate::messages::MdCode;
use mirror_core::io::Notice;
use std::sync::Arc;

async fn ask(lab: &Lab, request: Request) -> Response {
    Control(Arc::clone(&lab.agent)).call(request).await
}

async fn figures(lab: &Lab, last: bool) -> Taken {
    match ask(lab, Request::Figures { mirror: "md1".to_owned(), last }).await {
        Response::Figures(taken) => *taken,
        other => panic!("{other:?}"),
    }
}

async fn events(lab: &Lab, mirror: Option<&str>, from: Option<u64>) -> Changes {
    match ask(lab, Request::Events { mirror: mirror.map(str::to_owned), from }).await {
        Response::Changes(changes) => changes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_agents_own_part_is_added_to_the_drivers() {
    let lab = lab("").await;
    *lab.fake.fsck_due.lock().expect("lock") = true;
    let activate = Request::Activate { mirror: "md1".to_owned(), nomount: false, peer_down: false };
    assert!(matches!(ask(&lab, activate).await, Response::Done(_)));
    *lab.fake.mounted.lock().expect("lock") = true;
    let deactivate = Request::Deactivate { mirror: "md1".to_owned() };
    assert!(matches!(ask(&lab, deactivate).await, Response::Done(_)));
    let taken = figures(&lab, false).await;
    assert_eq!((taken.mirror.as_str(), taken.server.as_str()), ("md1", "a"));
    let f = &taken.figures;
    assert_eq!((f.device.write.bytes, f.fsck.count, f.umount.count), (512, 1, 1));
    // Before the first interval is over.
    assert_eq!(figures(&lab, true).await.figures.device.write.bytes, 512);
    let refused = ask(&lab, Request::Figures { mirror: "md2".to_owned(), last: false }).await;
    assert!(matches!(refused, Response::Refused(r) if r.code == MdCode::ReadCluster));
}

#[tokio::test]
async fn what_happens_is_told_with_the_state_that_it_led_to() {
    let lab = lab("").await;
    let first = events(&lab, None, None).await;
    assert_eq!((first.next, first.changes.len()), (0, 1), "md2 could not be opened");
    assert_eq!(first.changes[0].event, "now");
    let watch = changes::watch(Arc::clone(&lab.agent.changes), Arc::clone(&lab.mirror));
    let watch = tokio::spawn(watch);
    tokio::task::yield_now().await;
    lab.fake.set_active(true);
    lab.mirror.history.hear(&Notice::LinkLost("silent".to_owned()));
    let told = events(&lab, Some("md1"), Some(first.next)).await;
    let change = &told.changes[0];
    assert_eq!((change.event.as_str(), change.seq), ("link-lost", 0));
    assert_eq!(change.state.as_ref().expect("a state").active[0], Some(true));
    // Nothing is heard of it, but it shows.
    lab.fake.set_active(false);
    let told = events(&lab, None, Some(told.next)).await;
    assert_eq!((told.changes[0].event.as_str(), told.changes[0].seq), ("state", 1));
    watch.abort();
}

/// More at once than are kept for those who follow: how many are missing, and how it stands.
#[tokio::test]
async fn what_comes_too_fast_is_counted() {
    let lab = lab("").await;
    for n in 0..70 {
        lab.mirror.history.note(format!("step {n}"), None);
    }
    let watch = changes::watch(Arc::clone(&lab.agent.changes), Arc::clone(&lab.mirror));
    let watch = tokio::spawn(watch);
    let first = events(&lab, None, Some(0)).await;
    assert_eq!((first.changes.len(), first.changes[63].text.as_str()), (64, "step 63"));
    let then = events(&lab, None, Some(first.next)).await;
    let then: Vec<_> = then.changes.iter().map(|c| (c.event.as_str(), c.text.as_str())).collect();
    let lost = ("lost", "6 further changes came too fast to be told");
    assert_eq!(then, [lost, ("now", "how it stands")]);
    watch.abort();
}

#[tokio::test]
async fn the_number_of_followers_is_bounded_and_an_unknown_mirror_refused() {
    let lab = lab("").await;
    let place = lab.agent.followers.acquire().await.expect("one");
    let refused = ask(&lab, Request::Events { mirror: None, from: Some(0) }).await;
    assert!(matches!(refused, Response::Refused(_)), "{refused:?}");
    drop(place);
    let odd = Request::Events { mirror: Some("md7".to_owned()), from: None };
    assert!(matches!(ask(&lab, odd).await, Response::Refused(r) if r.code == MdCode::NoMirror));
    // A number that this agent has not given out is another one's: how do things stand?
    assert_eq!(events(&lab, None, Some(99)).await.changes[0].event, "now");
}
