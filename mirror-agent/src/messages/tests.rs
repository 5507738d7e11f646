//! Texts to the letter, delivery, and every refusal explained.

use super::events::fill;
use super::table::{self, Origin, Raised};
use super::{
    ActivateReason, AlertLog, DeactivateReason, Event, EventLog, EventSwitches, Mail, MdCode,
    Operation, Parties, RecoveryReason, Sinks, StartReason, blank_and_unsure, driver, events_of,
    explain, later,
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
fn every_row_of_12_1_has_its_event_and_only_5_and_19_are_mailed() {
    let used: Vec<_> = every_event().iter().map(Event::message).collect();
    for row in table::all() {
        let own = matches!(row.origin, Origin::Manual("12.1")) && row.raised == Raised::Here;
        assert!(!own || used.contains(&row), "{} is never sent", row.name());
        assert_eq!(row.to.mail, row.module == "mdadmn" && matches!(row.id, 5 | 19));
        assert!(row.is_event() || !(row.to.alert || row.to.syslog), "{}", row.name());
    }
}

/// Each constant names the row that it is meant for.
#[test]
fn driver_and_later_messages_lead_to_their_rows() {
    let text = |e: &Event| e.message().text;
    for (message, want) in [
        (driver::REGISTERED, "registered device at major %1, nmp count is %2"),
        (driver::UNREGISTERED, "unregister blkdev successfully."),
        (driver::BITMAP_READ, "NMP%1 read bitmap from CP error(%2)."),
        (driver::IO_ERROR, "NMP%1 disk I/O error."),
        (driver::FLAG_WRITE, "write disk error flag I/O error."),
        (driver::FLAG_READ, "read disk error flag I/O error."),
        (driver::READ_ERROR, "NMP%1 read error."),
        (driver::WRITE_ERROR, "NMP%1 disk I/O error when write sector(%2)."),
        (driver::PORT_CLOSED, "NMP%1 com port is closed, exit."),
        (driver::RECOVERY_PORT, "NMP(%1) com port has already closed, to abort recovery."),
        (driver::RECOVERY_BREAK, "NMP(%1):mirror break occurred,recovery failed."),
        (driver::BIND, "NMP%1 socket binding failed(%2)."),
        (driver::LISTEN, "NMP%1 socket listening failed(%2)."),
        (driver::SOCKET, "creating socket failed(%1)."),
        (driver::RECEIVE, "NMP%1 receiving failed(%2)."),
        (driver::CONNECT, "NMP%1 connection failed(%2)."),
        (driver::ACCEPT, "NMP%1 accept failed(%2)."),
        (driver::REFUSED, "NMP%1 deciding connection type failed(%2)"),
        (driver::WRONG_COMMAND, "NMP%1 wrong command received(%2)."),
        (driver::WRONG_MAGIC, "NMP%1 receive wrong magic data."),
        (driver::OPENED, "NMP%1 open I/O port OK"),
        (driver::CLOSED, "NMP%1 close I/O port OK."),
        (driver::NO_NETWORK, "can not find a using network."),
        (driver::BITMAP_WRITE, "bitmap data write error, so set disk_err TRUE."),
        (driver::REBOOT, "warning!! NMP%1 disk I/O error,system will reboot."),
        (driver::STILL_OPEN, "ERROR:MOUNT PORT is opened"),
        (driver::BUSY, "ERROR:NMP%1 is busy."),
        (driver::BROKE, "NMP%1 mirror break occurred, goes on alone."),
        (driver::FAILED, "NMP%1 fails all I/O from now on."),
        (driver::ENDED, "NMP%1 driver ended(%2)."),
        (driver::SESSION, "NMP%1 connected(%2)."),
        (driver::PARKED, "NMP%1 connected, but does not mirror(%2)."),
    ] {
        assert_eq!(text(&Event::driver(message, 1, &[])), want);
    }
    for (message, want) in [
        (later::MKFS_DONE, "Mirror partition mkfs was executed. (Device:%1)"),
        (later::MKFS_LEFT_OUT, "Mirror partition mkfs was not executed"),
        (later::ISOLATE_FAILED, "Failed to isolate the mirror. %1(Device:%2)"),
        (later::FORCED_ACTIVE_FAILED, "Forced activation of the mirror failed. %1 (Device:%2)"),
        (later::FORCE_FAILED, "Forced recovery of the mirror failed. %1(Device:%2)"),
        (later::ISOLATED, "Isolating the mirror %1 completed successfully."),
        (later::FORCED_ACTIVE, "Mirror force active of %1 was completed successfully."),
        (later::FORCED, "Forced recovery of the mirror %1 completed successfully."),
        (later::COMMAND_FAILED, "%1 of %2 failed(ret=%3)."),
        (later::COMMAND_NEEDED, "Executing %1 of %2 with %3 option is necessary."),
        (later::COMMAND_STARTED, "%1 of %2 with %3 option has started."),
        (later::CANCELLED, "Mirror recovery of %1 was canceled."),
        (later::CANCEL_FAILED, "Failed to cancel mirror recovery of %1."),
        (later::UMOUNT_TIMEOUT, "umount timeout."),
        (later::FSCK_TIMEOUT, "fsck timeout."),
        (later::EXTENDED, "Extension of mirror disk %1 was succeeded."),
        (later::EXTEND_FAILED, "Failed to extend mirror disk %1."),
    ] {
        assert!(text(&Event::later(message, &[])).starts_with(want), "{want}");
    }
}

/// Numbers and levels of the manual's tables, and an explanation for every row.
#[test]
fn the_table_is_complete() {
    let of = |module: &str| table::all().filter(|m| m.module == module).collect::<Vec<_>>();
    let ids = |module: &str| of(module).iter().map(|m| m.id).collect::<Vec<_>>();
    assert_eq!(ids("mdagent"), [1, 2, 3, 4, 5]);
    assert_eq!(ids("mdadmn")[..19], (1..=19).collect::<Vec<u16>>());
    let driver: Vec<u16> = (1..=98).chain(201..=214).collect();
    assert_eq!(ids("liscal"), driver);
    assert_eq!(ids("md"), [1, 2, 4, 30, 77, 79, 80, 81, 82, 83, 84, 87, 89]);
    assert_eq!(ids("mdw"), [1, 2, 4, 5, 30, 51, 52, 53, 54, 58, 63, 64, 65, 66, 100]);
    assert_eq!(ids("mdnw"), [1, 2, 4, 5, 30, 31]);
    for m in table::all() {
        assert!(!m.meaning.is_empty(), "{}", m.name());
        let silent = m.level == super::Level::Info || !matches!(m.raised, Raised::Here);
        assert!(silent || !m.remedy.is_empty(), "{} says what to do", m.name());
        assert!(table::row(m.module, m.id).is_some_and(|found| found == m));
        assert!(m.page().lines().skip(2).all(|l| l.chars().count() <= 80), "{}", m.page());
    }
}

/// `UPDATE_DOCS=1 cargo test` writes the page; otherwise it must be what is printed.
#[test]
fn the_reference_of_messages_is_current() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/messages.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(file, table::reference()).expect("write the page");
    }
    let page = std::fs::read_to_string(file).expect("docs/messages.md");
    assert!(
        page == table::reference(),
        "docs/messages.md is stale: run UPDATE_DOCS=1 cargo test -p mirror-agent"
    );
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

const REFUSALS: [Refusal; 21] = [
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
    Refusal::NotRecorded,
    Refusal::NoRoom,
    Refusal::NoRoomAtPeer,
    Refusal::GrowsLater,
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
fn a_mirror_that_cannot_grow_says_which_server_lacks_room() {
    let of = |refusal| explain(Operation::Resize, refusal, WHO);
    for (refusal, server) in [(Refusal::NoRoom, "server1"), (Refusal::NoRoomAtPeer, "server2")] {
        let e = of(refusal);
        assert!(e.next.contains(&format!("lacks room on {server}")), "{}", e.next);
        assert_eq!(e.event, Some(Event::later(later::EXTEND_FAILED, &["/dev/NMP1"])));
    }
    assert_eq!(of(Refusal::PeerActive).next, "on server2: clpmdctrl --resize md1");
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
    for (refusal, reason) in [
        (Refusal::NotConstructed, ActivateReason::OpenPort),
        (Refusal::NotLatest, ActivateReason::NotLatest),
        (Refusal::NoContact, ActivateReason::NoContact),
        (Refusal::PeerActive, ActivateReason::RemoteActive),
        (Refusal::AlreadyActive, ActivateReason::AlreadyActive),
    ] {
        let event = of(Operation::Activate, refusal).event;
        assert_eq!(event, Some(Event::ActivateFailed(reason, dev())), "{refusal:?}");
    }
    for (refusal, reason) in [
        (Refusal::RecoveryRunning, RecoveryReason::Running),
        (Refusal::TargetActive, RecoveryReason::TargetActive),
        (Refusal::NoDirection, RecoveryReason::NoDirection),
        (Refusal::SourceAbnormal, RecoveryReason::SourceAbnormal),
    ] {
        for op in [Operation::Recover, Operation::Force] {
            let event = of(op, refusal).event;
            assert_eq!(event, Some(Event::RecoveryFailed(reason, dev())), "{op:?} {refusal:?}");
        }
    }
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
    let flush = Notice::DiskError { cluster_partition: false, what: "flush", offset: 0 };
    assert_eq!(text(&flush), ["NMP1 disk I/O error."]);
    let read = Notice::DiskError { cluster_partition: false, what: "read", offset: 0 };
    assert_eq!(text(&read), ["NMP1 read error."]);
    assert_eq!(text(&Notice::Broke), ["NMP1 mirror break occurred, goes on alone."]);
    assert_eq!(text(&Notice::LinkLost("why".to_owned())), ["NMP1 receiving failed(why)."]);
    assert_eq!(text(&Notice::Protocol("what".to_owned())), ["NMP1 wrong command received(what)."]);
    assert_eq!(text(&Notice::SessionOpened { verdict: "row" }), ["NMP1 connected(row)."]);
    assert_eq!(
        text(&Notice::Parked { verdict: "row" }),
        ["NMP1 connected, but does not mirror(row)."]
    );
    assert_eq!(text(&Notice::Resumed), ["NMP1 is served again by a new agent."]);
    let recorded = |durable| text(&Notice::ErrorRecorded { durable });
    assert_eq!(recorded(false), ["write disk error flag I/O error."]);
    assert!(recorded(true).is_empty());
    assert_eq!(text(&Notice::Detached), ["NMP1 goes on with the disk of the other server."]);
    assert_eq!(text(&Notice::DetachedLost), ["NMP1 lost the disk of the other server."]);
    let serves = ["NMP1 is the only disk, the other server works with it."];
    assert_eq!(text(&Notice::ServesPeer), serves);
    assert_eq!(text(&Notice::NotResumed { why: "why" }), ["NMP1 is not served again(why)."]);
}

#[test]
fn a_recovery_that_ends_early_says_why() {
    let text = |kind, source, reason| -> Vec<String> {
        let notice = Notice::RecoveryAborted { kind, source, reason };
        events_of(&notice, 1, "/dev/NMP1").iter().map(Event::text).collect()
    };
    let failed = "Building of switch mirror disk finished abnormally.The source server is abnormal.(Device:/dev/NMP1)";
    let lost = "the connection was lost";
    assert_eq!(
        text(CopyKind::Full, true, lost),
        ["NMP(1) com port has already closed, to abort recovery.", failed]
    );
    assert_eq!(text(CopyKind::Full, false, lost), ["NMP1 com port is closed, exit.", failed]);
    let unreadable = text(CopyKind::Initial, true, "a block of the source cannot be read");
    assert_eq!(unreadable[0], "NMP(1):mirror break occurred,recovery failed.");
    assert_eq!(
        unreadable[1],
        "Initial recovery of mirror disk finished abnormally.The source server is abnormal.(Device:/dev/NMP1)"
    );
    for reason in [
        "stopped by the operator",
        "stopped by the operator of the other server",
        "stopped at the source",
    ] {
        let stopped = text(CopyKind::Full, reason != "stopped at the source", reason);
        assert_eq!(stopped, ["Mirror recovery of /dev/NMP1 was canceled."], "{reason}");
    }
}

#[test]
fn what_has_no_reason_in_the_manual_has_a_later_message() {
    let text = |op, refusal| explain(op, refusal, WHO).event.map(|e| e.text());
    assert_eq!(
        text(Operation::Force, Refusal::NotConstructed).as_deref(),
        Some(
            "Forced recovery of the mirror failed. The mirror has not been constructed yet.(Device:/dev/NMP1)"
        )
    );
    assert_eq!(
        text(Operation::Cancel, Refusal::NoRecovery).as_deref(),
        Some("Failed to cancel mirror recovery of /dev/NMP1.")
    );
}

/// Every refusal begins with the text of its code, as it stands in the manual.
#[test]
fn refusals_say_the_text_of_their_code() {
    for (op, refusal, text) in [
        (
            Operation::Activate,
            Refusal::NotLatest,
            "The local server has not the latest data.(md1) ",
        ),
        (
            Operation::Activate,
            Refusal::AlreadyActive,
            "Mount point was already mounted.(/dev/NMP1) ",
        ),
        (Operation::Deactivate, Refusal::NotActive, "Mount point was not mounted. (/dev/NMP1) "),
        (
            Operation::Activate,
            Refusal::NotConstructed,
            "Failed to get cluster partition information. ",
        ),
        (Operation::Activate, Refusal::DiskFailed, "Failed to set cluster partition information. "),
        (
            Operation::Recover,
            Refusal::RecoveryRunning,
            "Command failed. (clpmdctrl --recovery md1) ",
        ),
    ] {
        let message = explain(op, refusal, WHO).message;
        assert!(message.starts_with(text), "{message}");
    }
}

/// Whether a force took effect that could not be recorded is not known: the answer says so, and what
/// shows it, before the other server is touched.
#[test]
fn what_may_be_recorded_all_the_same_is_not_called_refused() {
    for operation in [Operation::Force, Operation::Activate, Operation::Resize] {
        let e = explain(operation, Refusal::NotRecorded, WHO);
        assert!(e.message.contains("may be recorded"), "{}", e.message);
        assert!(e.next.starts_with("order nothing on "), "{}", e.next);
        assert!(e.next.contains("systemctl restart clusterpro_md"), "{}", e.next);
    }
}

#[test]
fn a_blank_side_is_named_with_the_one_way_out() {
    let refused = explain(Operation::Activate, Refusal::NotLatest, WHO);
    let e = blank_and_unsure(refused.clone(), WHO, "server1", "server2");
    assert!(e.message.contains("cluster partition of server2 is blank"), "{}", e.message);
    assert!(e.next.ends_with("clpmdctrl --force server1 md1"), "{}", e.next);
    assert_eq!((e.code, e.event), (refused.code, refused.event));
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
        alert: Some(AlertLog { path: log.clone(), limit: 200, keep: 1 }),
        switches: [("mdagent-3".to_owned(), off)].into(),
        ..Sinks::default()
    };
    let (events, thread) = EventLog::start(sinks).expect("thread");
    events.log(Event::AgentStopped);
    events.log(Event::AgentStarted);
    for n in 1..6 {
        events.log(Event::FsckStarted(n.to_string()));
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

/// One line per change of state: what repeats is counted, and the count is told.
#[test]
fn an_event_that_repeats_does_not_flood() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("alert.log");
    let alert = AlertLog { path: path.clone(), limit: 1 << 20, keep: 1 };
    let (events, thread) =
        EventLog::start(Sinks { alert: Some(alert), ..Sinks::default() }).expect("thread");
    for _ in 0..100 {
        events.log(Event::FsckStarted("again".to_owned()));
    }
    events.log(Event::FsckStarted("other".to_owned()));
    drop(events);
    thread.join().expect("delivered");
    let text = std::fs::read_to_string(path).expect("alert log");
    assert_eq!(text.matches("again)").count(), 6, "{text}");
    assert!(
        text.lines().last().is_some_and(|l| l.ends_with("(again, 95 times within 60 s)")),
        "{text}"
    );
    assert_eq!(text.matches("other)").count(), 1);
}

/// Destinations can be changed for each message (§12.3), and for the driver's as a whole.
#[test]
fn destinations_are_those_of_the_configuration() {
    let dir = tempfile::tempdir().expect("folder");
    let (log, mails) = (dir.path().join("alert.log"), dir.path().join("mails"));
    let program = dir.path().join("mailer");
    std::fs::write(&program, format!("#!/bin/sh\ncat >> {}\n", mails.display())).expect("script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&program, mode).expect("mode");
    let to = |alert, mail| EventSwitches { alert, syslog: false, mail };
    let sinks = Sinks {
        alert: Some(AlertLog { path: log.clone(), limit: 1 << 20, keep: 1 }),
        mail: Some(Mail {
            program,
            to: "root".to_owned(),
            server: "server1".to_owned(),
            limit: Duration::from_secs(20),
        }),
        switches: [
            ("mdadmn-5".to_owned(), to(true, false)),
            ("mdadmn-6".to_owned(), to(false, true)),
            ("liscal".to_owned(), to(true, false)),
            ("liscal-80".to_owned(), to(false, false)),
        ]
        .into(),
        ..Sinks::default()
    };
    let (events, thread) = EventLog::start(sinks).expect("thread");
    events.log(Event::RecoveryFailed(RecoveryReason::Running, dev()));
    events.log(Event::RecoveryDone(dev()));
    events.log(Event::driver(driver::OPENED, 1, &[]));
    events.log(Event::driver(driver::CLOSED, 1, &[]));
    drop(events);
    thread.join().expect("delivered");
    let alert = std::fs::read_to_string(log).expect("alert log");
    assert!(alert.contains("<event: 5>") && alert.contains("NMP1 close I/O port OK."), "{alert}");
    assert!(!alert.contains("<event: 6>") && !alert.contains("open I/O port"), "{alert}");
    let mails = std::fs::read_to_string(mails).expect("mails");
    assert!(mails.contains("Subject: CLUSTERPRO server1: mdadmn 6\n"), "{mails}");
    assert!(mails.contains("Meaning: ") && !mails.contains("mdadmn 5"), "{mails}");
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
