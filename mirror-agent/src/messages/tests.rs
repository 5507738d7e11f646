//! Texts to the letter, delivery, and every refusal explained.

use super::events::fill;
use super::{
    ActivateReason, DeactivateReason, EVENTS, Event, EventLog, EventSwitches, MdCode, Operation,
    Parties, RecoveryReason, Sinks, StartReason, driver, events_of, explain,
};
use mirror_core::command::Refusal;
use mirror_core::io::Notice;
use mirror_core::status::CopyKind;
use proptest::prelude::*;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

fn dev() -> String {
    "/dev/NMP1".to_owned()
}

fn every_event() -> Vec<Event> {
    vec![
        Event::AgentStarted,
        Event::AgentStartFailed(StartReason::InitRunning),
        Event::AgentStopped,
        Event::AgentStopFailed,
        Event::ActivateFailed(ActivateReason::RemoteActive, dev()),
        Event::FsckStarted(dev()),
        Event::FsckDone(dev()),
        Event::DeactivateFailed(DeactivateReason::Umount, dev()),
        Event::RecoveryFailed(RecoveryReason::NoDirection, dev()),
        Event::RecoveryDone(dev()),
        Event::RecoveryMode { fast: true },
        Event::InitialStarted(dev()),
        Event::RecoveryStarted(dev()),
        Event::InitialDone(dev()),
        Event::InitialFailed(RecoveryReason::SourceAbnormal, dev()),
        Event::driver(driver::OPENED, 1, &[]),
    ]
}

#[test]
fn lines_are_those_of_the_manual() {
    let lines: Vec<String> = every_event().iter().map(ToString::to_string).collect();
    let want = [
        "CLUSTERPRO: <type: mdagent><event: 1> Agent has started successfully.",
        "CLUSTERPRO: <type: mdagent><event: 2> Failed to start agent.Command clpmdinit is running.",
        "CLUSTERPRO: <type: mdagent><event: 3> Stop agent successfully.",
        "CLUSTERPRO: <type: mdagent><event: 4> Stop agent abnormally.",
        "CLUSTERPRO: <type: mdadmn><event: 1> Failed to activate mirror disk.The remote server is active.(Device:/dev/NMP1)",
        "CLUSTERPRO: <type: mdadmn><event: 2> Fsck has been started.(Device: /dev/NMP1)",
        "CLUSTERPRO: <type: mdadmn><event: 3> Disk has cleaned by fsck.(Device: /dev/NMP1)",
        "CLUSTERPRO: <type: mdadmn><event: 4> Failed to deactivate mirror disk.Umount operation failed.(Device:/dev/NMP1)",
        "CLUSTERPRO: <type: mdadmn><event: 5> Building of switch mirror disk finished abnormally.Can not judge the recovery direction.(Device:/dev/NMP1)",
        "CLUSTERPRO: <type: mdadmn><event: 6> Building of switch mirror disk has finished successfully.(Device: /dev/NMP1)",
        "CLUSTERPRO: <type: mdadmn><event: 7> Recovery mode is FAST.",
        "CLUSTERPRO: <type: mdadmn><event: 16> Initial recovery of mirror disk started.(Device:/dev/NMP1)",
        "CLUSTERPRO: <type: mdadmn><event: 17> Recovery started.(Device: /dev/NMP1)",
        "CLUSTERPRO: <type: mdadmn><event: 18> Initial recovery of mirror disk has finished successfully.(Device:/dev/NMP1)",
        "CLUSTERPRO: <type: mdadmn><event: 19> Initial recovery of mirror disk finished abnormally.The source server is abnormal.(Device:/dev/NMP1)",
        "CLUSTERPRO: <type: liscal> NMP1 open I/O port OK",
    ];
    assert_eq!(lines, want);
}

#[test]
fn every_row_has_its_event_and_only_5_and_19_are_mailed() {
    let used: Vec<_> = every_event().iter().map(Event::spec).collect();
    for row in EVENTS {
        assert!(used.contains(&row), "{} is never sent", row.name());
        assert_eq!(row.to.mail, row.module == "mdadmn" && matches!(row.id, 5 | 19));
    }
}

#[test]
fn arguments_cannot_begin_a_line() {
    assert_eq!(fill("a%1b%2%3", &["x\ny".to_owned(), "%1".to_owned()]), "ax?yb%1");
}

#[test]
fn codes_are_those_of_the_manual() {
    let numbers: Vec<u8> = MdCode::ALL.iter().map(|c| c.number()).collect();
    assert_eq!(numbers, [1, 2, 4, 30, 77, 79, 80, 81, 82, 83, 84, 87, 89]);
    assert!(MdCode::ALL.iter().all(|c| MdCode::try_from(c.number()) == Ok(*c)));
    assert!(MdCode::try_from(3).is_err());
    assert_eq!(MdCode::Timeout.fill(&["fsck", "5"]), "Command timeout(fsck, timeout=5)");
}

const REFUSALS: [Refusal; 17] = [
    Refusal::NotLatest,
    Refusal::SplitBrain,
    Refusal::NoContact,
    Refusal::WasActive,
    Refusal::PeerWasActive,
    Refusal::PeerActive,
    Refusal::AlreadyActive,
    Refusal::NotActive,
    Refusal::NotConstructed,
    Refusal::Busy,
    Refusal::RecoveryRunning,
    Refusal::NoRecovery,
    Refusal::NoDirection,
    Refusal::SourceAbnormal,
    Refusal::TargetActive,
    Refusal::DiskFailed,
    Refusal::Stopping,
];

const WHO: Parties<'static> =
    Parties { mirror: "md1", device: "/dev/NMP1", local: "server1", peer: "server2" };

#[test]
fn every_refusal_says_what_and_what_next() {
    for refusal in REFUSALS {
        let e = explain(Operation::Activate, refusal, WHO);
        assert!(e.message.contains("md1") && e.message.contains(&refusal.to_string()));
        assert!(!e.next.is_empty());
    }
}

/// A dangerous option is offered only for the operation it helps, never as the plain answer.
#[test]
fn peer_down_and_force_are_offered_only_where_they_are_the_way_out() {
    for refusal in REFUSALS {
        let next = explain(Operation::Activate, refusal, WHO).next;
        let vouches = matches!(refusal, Refusal::NoContact | Refusal::WasActive);
        assert_eq!(next.contains("--peer-down"), vouches, "{refusal:?}: {next}");
        let forces =
            matches!(refusal, Refusal::SplitBrain | Refusal::NoDirection | Refusal::PeerWasActive);
        assert_eq!(next.contains("--force"), forces, "{refusal:?}: {next}");
    }
    assert!(!explain(Operation::Recover, Refusal::NoContact, WHO).next.contains("--peer-down"));
}

#[test]
fn a_recovery_without_contact_says_nothing_of_the_latest_data() {
    let e = explain(Operation::Recover, Refusal::NoContact, WHO);
    assert!(e.message.ends_with("the other server cannot be reached."), "{}", e.message);
}

#[test]
fn refusals_map_to_the_reasons_of_the_manual() {
    let of = |op, r| explain(op, r, WHO);
    let activate = of(Operation::Activate, Refusal::WasActive);
    assert_eq!(activate.event, Some(Event::ActivateFailed(ActivateReason::NoContact, dev())));
    assert_eq!(activate.code, MdCode::NotLatest);
    let twice = of(Operation::Deactivate, Refusal::NotActive);
    assert_eq!(twice.event, Some(Event::DeactivateFailed(DeactivateReason::NotActive, dev())));
    assert_eq!(twice.code, MdCode::NotMounted);
    let split = of(Operation::Recover, Refusal::SplitBrain);
    assert_eq!(split.event, Some(Event::RecoveryFailed(RecoveryReason::NoDirection, dev())));
    let running = of(Operation::Recover, Refusal::RecoveryRunning);
    assert_eq!(running.event, Some(Event::RecoveryFailed(RecoveryReason::Running, dev())));
}

#[test]
fn notices_become_the_messages_of_the_manual() {
    let text = |n: &Notice| -> Vec<String> {
        events_of(n, 1, "/dev/NMP1").iter().map(Event::text).collect()
    };
    let start = |kind| Notice::RecoveryStarted { kind, source: true, bytes: 1 };
    assert_eq!(
        text(&start(CopyKind::Full)),
        ["Recovery mode is NORMAL.", "Recovery started.(Device: /dev/NMP1)"]
    );
    assert_eq!(text(&start(CopyKind::Difference))[0], "Recovery mode is FAST.");
    assert_eq!(
        text(&start(CopyKind::Initial)),
        ["Initial recovery of mirror disk started.(Device:/dev/NMP1)"]
    );
    let bad = Notice::DiskError { cluster_partition: false, what: "write", offset: 1024 };
    assert_eq!(text(&bad), ["NMP1 disk I/O error when write sector(2)."]);
    let bitmap = Notice::DiskError { cluster_partition: true, what: "write", offset: 0 };
    assert_eq!(text(&bitmap), ["bitmap data write error, so set disk_err TRUE."]);
}

#[test]
fn events_reach_the_system_log_and_the_alert_log_which_is_bounded() {
    let dir = tempfile::tempdir().expect("folder");
    let log = dir.path().join("log/alert.log");
    let path = dir.path().join("syslog");
    let syslog = UnixDatagram::bind(&path).expect("bind");
    syslog.set_read_timeout(Some(Duration::from_secs(10))).expect("limit");
    let off = EventSwitches { alert: false, syslog: false, mail: false };
    let sinks = Sinks {
        syslog: Some(path),
        alert: Some((log.clone(), 200)),
        switches: [("mdagent-3".to_owned(), off)].into(),
        ..Sinks::default()
    };
    let (events, thread) = EventLog::start(sinks).expect("thread");
    events.log(Event::AgentStopped);
    for _ in 0..6 {
        events.log(Event::AgentStarted);
    }
    events.log(Event::driver(driver::BITMAP_WRITE, 1, &[]));
    drop(events);
    thread.join().expect("delivered");

    let mut buffer = [0; 512];
    let mut next = || {
        let n = syslog.recv(&mut buffer).expect("datagram");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let first = next();
    assert!(first.starts_with("<30>") && first.contains(" clpmdagent["), "{first}");
    assert!(
        first.ends_with("]: CLUSTERPRO: <type: mdagent><event: 1> Agent has started successfully.")
    );
    for _ in 1..6 {
        next();
    }
    assert!(next().starts_with("<27>"), "an error has its own severity");

    let alert = std::fs::read_to_string(&log).expect("alert log");
    let older = std::fs::read_to_string(dir.path().join("log/alert.log.1")).expect("older log");
    assert!(!alert.contains("Stop agent") && !older.contains("Stop agent"), "switched off");
    assert!(!alert.contains("liscal"), "the driver's messages go to the system log only");
    assert!(alert.len() < 300 && older.len() < 300, "turned over at its size");
}

proptest! {
    /// No argument, whatever it holds, makes more than one line or changes the text around it.
    #[test]
    fn a_message_is_one_line_that_holds_its_text(argument in any::<String>()) {
        let event = Event::driver(driver::RECEIVE, 1, &[&argument]).to_string();
        prop_assert!(event.starts_with("CLUSTERPRO: <type: liscal> NMP1 receiving failed("));
        prop_assert!(event.ends_with(")."));
        prop_assert!(!event.contains(char::is_control));
    }
}
