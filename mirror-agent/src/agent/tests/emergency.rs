//! A disk error with each action, and both servers active: what the server does, and how often.

use super::fakes::take_events;
use super::{Lab, lab_with, until};
use crate::agent::{DriverEvent, follow};
use crate::host::power::{Marked, ResetMark};
use crate::messages::EventSwitches;
use mirror_core::io::Notice;
use std::time::Duration;
use tokio::task::JoinSet;

/// An agent with the driver's messages in the alert log, whose events are handled.
async fn lab(more: &str) -> (Lab, JoinSet<()>) {
    let alert = EventSwitches { alert: true, syslog: false, mail: false };
    let lab = lab_with(more, [("liscal".to_owned(), alert)].into()).await;
    let mut tasks = JoinSet::new();
    let events = take_events(&lab.fake);
    follow::start(&lab.agent, &lab.mirror, events, &mut tasks).await;
    (lab, tasks)
}

fn powers(lab: &Lab) -> Vec<String> {
    lab.fake.journal.take().into_iter().filter(|s| s.starts_with("power:")).collect()
}

async fn disk_fails(lab: &Lab, durable: bool) {
    let error = Notice::DiskError { cluster_partition: !durable, what: "write", offset: 0 };
    let recorded = Notice::ErrorRecorded { durable };
    for notice in [error, recorded] {
        lab.fake.events.send(DriverEvent::Notice(notice)).await.expect("the agent listens");
    }
}

/// Handled behind all that was sent before.
async fn handled(lab: &Lab) {
    let past = lab.mirror.history.steps().len();
    lab.fake.events.send(DriverEvent::DeviceFailed).await.expect("the agent listens");
    until("handled", || lab.mirror.history.steps().len() > past).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
}

fn mark(lab: &Lab) -> ResetMark {
    ResetMark::of(&lab.agent.config.agent.log_dir, "md1")
}

const REBOOT: &str = "warning!! NMP1 disk I/O error,system will reboot.";

#[tokio::test]
async fn a_disk_error_resets_or_panics_as_configured() {
    for (action, done) in [("reset", "Reset"), ("panic", "Panic")] {
        let (lab, mut tasks) = lab(&format!("disk_error = \"{action}\"")).await;
        disk_fails(&lab, true).await;
        let power = format!("power: {done} md1: a disk of this server failed");
        until("the server ends", || lab.fake.journal.contains(&power)).await;
        // Whatever comes after: the message is durable by then.
        let log = std::fs::read_to_string(lab.alert.path().join("alert.log")).expect("log");
        assert!(log.contains(REBOOT), "{log}");
        assert_eq!(mark(&lab).set(""), Marked::Before, "the next start knows of it");
        disk_fails(&lab, true).await;
        handled(&lab).await;
        assert_eq!(powers(&lab), [power], "once");
        tasks.shutdown().await;
    }
}

#[tokio::test]
async fn a_disk_error_only_fails_the_device_unless_configured() {
    let (lab, mut tasks) = lab("").await;
    disk_fails(&lab, true).await;
    handled(&lab).await;
    assert!(powers(&lab).is_empty());
    assert_eq!(mark(&lab).set(""), Marked::New, "no reset to remember");
    tasks.shutdown().await;
    drop(tasks);
    assert!(!lab.events().iter().any(|e| e.contains("will reboot")));
}

/// A server whose disk keeps failing must come up.
#[tokio::test]
async fn a_server_is_not_reset_twice_for_a_disk() {
    let (lab, mut tasks) = lab("disk_error = \"reset\"").await;
    assert_eq!(mark(&lab).set("before the reboot"), Marked::New);
    disk_fails(&lab, false).await;
    handled(&lab).await;
    assert!(powers(&lab).is_empty());
    let steps = lab.mirror.history.steps();
    assert!(steps.iter().any(|s| s.what.contains("reset for this disk before")), "{steps:?}");
    // The way out of it: clpmdchng does this.
    mark(&lab).clear().expect("cleared");
    disk_fails(&lab, false).await;
    until("the server ends", || {
        lab.fake.journal.contains("power: Reset md1: a disk of this server failed")
    })
    .await;
    tasks.shutdown().await;
    drop(tasks);
    let events = lab.events();
    assert!(events.iter().any(|e| e.contains("write disk error flag I/O error.")), "{events:?}");
}

/// Nothing could tell the next start of it: better a device that fails than a boot loop.
#[tokio::test]
async fn without_any_record_the_server_is_not_reset() {
    let (lab, mut tasks) = lab("disk_error = \"reset\"").await;
    let folder = &lab.agent.config.agent.log_dir;
    std::fs::write(folder, "not a folder").expect("file");
    disk_fails(&lab, false).await;
    handled(&lab).await;
    assert!(powers(&lab).is_empty());
    disk_fails(&lab, true).await;
    until("the record is enough", || {
        lab.fake.journal.contains("power: Reset md1: a disk of this server failed")
    })
    .await;
    tasks.shutdown().await;
}

async fn both_active(more: &str) -> (Lab, JoinSet<()>) {
    let (lab, tasks) = lab(more).await;
    lab.fake.status.lock().expect("lock").sides[0].active = Some(true);
    lab.fake.events.send(DriverEvent::Notice(Notice::BothActive)).await.expect("it listens");
    (lab, tasks)
}

#[tokio::test]
async fn the_side_that_does_not_survive_fails_its_device_and_closes_it() {
    for more in ["both_active = \"survivor\"\nsurvivor = \"b\"", "both_active = \"stop-both\""] {
        let (lab, mut tasks) = both_active(more).await;
        until("closed", || !lab.fake.is_active()).await;
        let steps = lab.fake.journal.take();
        let order = ["FailDevice", "Deactivate"].map(|s| steps.iter().position(|x| x == s));
        assert!(order[0].is_some() && order[0] < order[1], "{steps:?}");
        assert!(!steps.iter().any(|s| s.starts_with("power:")), "{steps:?}");
        tasks.shutdown().await;
        drop(tasks);
        let goes_on =
            if more.contains('b') && more.contains("survivor") { "b" } else { "no server" };
        let want = format!("NMP1 is active on both servers, stops here({goes_on} goes on).");
        let events = lab.events();
        assert_eq!(events.iter().filter(|e| e.contains(&want)).count(), 1, "{events:?}");
    }
}

#[tokio::test]
async fn the_survivor_and_a_side_without_a_rule_go_on() {
    for more in ["both_active = \"survivor\"\nsurvivor = \"a\"", "both_active = \"go-on\""] {
        let (lab, mut tasks) = both_active(more).await;
        handled(&lab).await;
        assert!(lab.fake.is_active());
        assert!(!lab.fake.journal.contains("FailDevice"));
        tasks.shutdown().await;
    }
}

#[tokio::test]
async fn where_a_disk_error_resets_so_does_giving_way() {
    let more = "disk_error = \"reset\"\nboth_active = \"survivor\"\nsurvivor = \"b\"";
    let (lab, mut tasks) = both_active(more).await;
    let power = "power: Reset md1: both servers are active, and b goes on";
    until("the server ends", || lab.fake.journal.contains(power)).await;
    tasks.shutdown().await;
    assert_eq!(mark(&lab).set(""), Marked::New, "its disk is good");
}
