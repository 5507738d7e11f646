//! Operations that outlive their process or session, errors, and what must not wait for what.

use super::region;
use crate::script::{A, B, Closed, Io, Keep, Scenario, Stage};
use mirror_core::command::{Command, Done, Refusal};
use mirror_core::rules::Rule;
use mirror_core::status::Phase;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "ghost-io",
        about: "a write of a killed agent lands after the writes of its successor",
        closed: &[Closed { by: &[Rule::Lock], otherwise: "has no mark" }],
        steps: ghost_of_a_process,
    },
    Scenario {
        name: "ghost-io/reissue",
        about: "the device outlives its agent: the next one gets the same write again, then a newer one",
        closed: &[Closed { by: &[Rule::Lock], otherwise: "has no mark" }],
        steps: ghost_and_reissue,
    },
    Scenario {
        name: "ghost-io/time-out",
        about: "a write over its time limit lands after a later one in the same process",
        closed: &[Closed { by: &[Rule::ErrorFails], otherwise: "has no mark" }],
        steps: ghost_after_a_time_out,
    },
    Scenario {
        name: "ghost-io/half-open",
        about: "a write in a connection that one side has given up arrives after later ones",
        closed: &[Closed {
            by: &[Rule::ConnFrames, Rule::SessionFrames],
            otherwise: "has no mark",
        }],
        steps: ghost_of_a_connection,
    },
    Scenario {
        name: "error-then-break",
        about: "a write fails on the active side's disk; the other side has it",
        closed: &[Closed {
            by: &[Rule::ErrorFails],
            otherwise: "not so: nothing is served from the disk that lacks the write",
        }],
        steps: error_then_break,
    },
    Scenario {
        name: "error-then-break/reboot",
        about: "the side whose disk failed restarts, and looks clean",
        closed: &[Closed {
            by: &[Rule::ErrorKept],
            otherwise: "not so: activating server1 is refused: DiskFailed",
        }],
        steps: error_then_reboot,
    },
    Scenario {
        name: "error-then-break/bad-sector",
        about: "a bad sector would be read from a peer that lacks the newest write there",
        closed: &[Closed { by: &[Rule::CleanPeerRead], otherwise: "a read on server1" }],
        steps: bad_sector,
    },
    Scenario {
        name: "discard-differs",
        about: "after a discard one of the disks reads back the old bytes",
        closed: &[Closed { by: &[Rule::DiscardZeroes], otherwise: "has no mark" }],
        steps: discard_differs,
    },
    Scenario {
        name: "buffer-changed-in-flight",
        about: "the disk and the peer get a write from two places, which may differ by then",
        closed: &[Closed {
            by: &[Rule::OneCopy],
            otherwise: "server1 sends other bytes than it writes",
        }],
        steps: buffer_changed_in_flight,
    },
    Scenario {
        name: "read-then-gone",
        about: "a read returns a write that the standby does not have; the active side dies",
        closed: &[Closed {
            by: &[Rule::ReadsWait],
            otherwise: "a read on server1 has shown 1 since",
        }],
        steps: read_then_gone,
    },
    Scenario {
        name: "read-then-gone/after-a-resume",
        about: "the write is one of a killed agent whose device lives; the next agent's first read",
        closed: &[Closed { by: &[Rule::ResumeReads], otherwise: "not so: what was read is there" }],
        steps: read_after_a_resume,
    },
    Scenario {
        name: "read-then-gone/settling-stopped",
        about: "the same, once contact is back, and the settling is cancelled before it has come there",
        closed: &[Closed { by: &[Rule::StoppedBehind], otherwise: "has shown 5 since" }],
        steps: read_after_a_stopped_settling,
    },
    Scenario {
        name: "credit-deadlock",
        about: "the copies of a recovery are stuck on the target's disk; the application writes",
        closed: &[Closed { by: &[Rule::LiveCredit], otherwise: "never happened" }],
        steps: stuck_copies,
    },
    Scenario {
        name: "credit-deadlock/unreadable-source",
        about: "a block of the source cannot be read",
        closed: &[Closed {
            by: &[Rule::UnreadableEnds],
            otherwise: "not so: the recovery has ended",
        }],
        steps: unreadable_source,
    },
    Scenario {
        name: "credit-deadlock/hung-cluster-partition",
        about: "the record of going alone hangs over its time limit",
        closed: &[Closed { by: &[Rule::MetaFails], otherwise: "never happened" }],
        steps: hung_cluster_partition,
    },
];

fn ghost_of_a_process(s: &mut Stage) {
    s.activate(A);
    let ghost = s.hold(A, Io::Write(1));
    s.begin_write(A, 1);
    s.until_held(ghost);
    s.hold_no_more(ghost);
    s.wait(1);
    s.kill(A);
    if !s.try_start(A) {
        s.land(ghost);
        s.start(A);
    }
    s.until_normal();
    s.activate(A);
    s.write(A, 1);
    // Long enough for the marks to go.
    s.wait(5000);
    s.land(ghost);
}

fn ghost_and_reissue(s: &mut Stage) {
    s.activate(A);
    let ghost = s.hold(A, Io::Write(1));
    let first = s.begin_write(A, 1);
    s.until_held(ghost);
    s.hold_no_more(ghost);
    s.wait(1);
    s.kill_agent_only(A);
    if !s.try_start(A) {
        s.land(ghost);
        s.start(A);
    }
    s.until_done(first);
    s.write(A, 1);
    s.wait(5000);
    s.land(ghost);
}

fn ghost_after_a_time_out(s: &mut Stage) {
    s.activate(A);
    let ghost = s.hold(A, Io::Write(1));
    let first = s.begin_write(A, 1);
    s.until_held(ghost);
    s.hold_no_more(ghost);
    s.time_out(ghost);
    s.until_refused(first);
    let second = s.begin_write(A, 1);
    s.until("an answer", |s| s.is_answered(second));
    s.wait(5000);
    s.land(ghost);
}

fn ghost_of_a_connection(s: &mut Stage) {
    s.let_ghosts_arrive();
    s.activate(A);
    let ghost = s.hold_frame(B, "Write");
    let first = s.begin_write(A, 1);
    s.until_held(ghost);
    s.hold_no_more(ghost);
    s.reset_at(A);
    s.until_done(first);
    s.until_normal();
    s.write(A, 1);
    s.wait(5000);
    s.land(ghost);
}

/// A write that the standby has and the active side's disk has not.
fn failed_write(s: &mut Stage) {
    s.activate(A);
    let bad = s.hold(A, Io::Write(1));
    let write = s.begin_write(A, 1);
    s.until_held(bad);
    s.wait(1);
    s.fail(bad);
    s.until_refused(write);
}

fn error_then_break(s: &mut Stage) {
    failed_write(s);
    s.part();
    s.wait(5000);
    let read = s.begin_read(A, 1);
    s.until("an answer", |s| s.is_answered(read));
    let served = s.found(read).is_some();
    s.expect("nothing is served from the disk that lacks the write", !served);
    s.kill(A);
    s.activate(B);
    s.write(B, 1);
}

fn error_then_reboot(s: &mut Stage) {
    failed_write(s);
    s.part();
    s.power_loss(A, Keep::Everything);
    s.start(A);
    s.activation_refused(A, true, Refusal::DiskFailed);
}

fn bad_sector(s: &mut Stage) {
    s.activate(A);
    s.part();
    // More regions than copies may be in flight.
    (0..5).for_each(|n| {
        s.write(A, region(2 * n));
    });
    let slow = [0, 2, 4].map(|n| s.hold(A, Io::Read(region(n))));
    s.heal();
    slow.into_iter().for_each(|hold| s.until_held(hold));
    s.bad_sector(A, region(8));
    let read = s.begin_read(A, region(8));
    s.until("an answer", |s| s.is_answered(read));
    let found = s.found(read);
    s.expect("the read fails", found.is_none());
}

fn read_then_gone(s: &mut Stage) {
    s.activate(A);
    let write = s.hold_frame(B, "Write");
    s.begin_write(A, 1);
    s.until_held(write);
    s.wait(1);
    let read = s.begin_read(A, 1);
    s.wait(1);
    let shown = s.found(read);
    s.reset();
    s.kill(A);
    s.activate(B);
    let now = s.read(B, 1);
    s.expect("what was read is there", shown.is_none_or(|stamp| stamp == now));
}

fn read_after_a_resume(s: &mut Stage) {
    s.activate(A);
    let write = s.hold_frame(B, "Write");
    s.begin_write(A, 1);
    s.until_held(write);
    s.wait(1);
    s.part();
    s.kill_agent_only(A);
    // It dies before it is alone by its record, too: then it may show what only it has.
    s.hold(A, Io::RecordA);
    s.start(A);
    let read = s.begin_read(A, 1);
    s.wait(1);
    let shown = s.found(read);
    s.kill(A);
    s.activate(B);
    let now = s.read(B, 1);
    s.expect("what was read is there", shown.is_none_or(|stamp| stamp == now));
}

fn read_after_a_stopped_settling(s: &mut Stage) {
    s.activate(A);
    let write = s.hold_frame(B, "Write");
    let regions = [0, 2, 4, 6, 8].map(region);
    regions.into_iter().for_each(|block| {
        s.begin_write(A, block);
    });
    s.until_held(write);
    s.wait(1);
    s.part();
    s.kill_agent_only(A);
    s.withhold_requests(A);
    s.start(A);
    // As many copies as may be under way, and none of them at the last region.
    let copies = [0, 2, 4].map(|n| s.hold(B, Io::Write(region(n))));
    s.heal();
    copies.into_iter().for_each(|hold| s.until_held(hold));
    let read = s.begin_read(A, region(8));
    s.wait(1);
    s.expect("a read waits for the settling", s.found(read).is_none());
    let answer = s.order(A, Command::CancelRecovery);
    s.expect("the settling is cancelled", answer == Some(Ok(Done::RecoveryCancelled)));
    s.wait(5);
    let shown = s.found(read);
    s.expect("a read waits no longer", shown.is_some());
    s.kill(A);
    s.wait(1);
    if s.try_activate(B, false) {
        let now = s.read(B, region(8));
        s.expect("what was read is there", shown.is_none_or(|stamp| stamp == now));
    }
}

fn stuck_copies(s: &mut Stage) {
    s.activate(A);
    s.part();
    (0..5).for_each(|n| {
        s.write(A, region(2 * n));
    });
    let slow = [0, 2, 4].map(|n| s.hold(B, Io::Write(region(n))));
    s.heal();
    slow.into_iter().for_each(|hold| s.until_held(hold));
    s.write(A, region(20));
    s.flush(A);
}

fn unreadable_source(s: &mut Stage) {
    s.activate(A);
    s.part();
    s.write(A, 1);
    s.bad_sector(A, 1);
    s.heal();
    s.until_verdict("descendant-difference");
    s.wait(300);
    let recovering = s.status(A).is_some_and(|status| status.phase == Phase::Recovering);
    s.expect("the recovery has ended", !recovering);
    // The rest of the mirror goes on.
    s.write(A, region(20));
}

fn hung_cluster_partition(s: &mut Stage) {
    s.activate(A);
    s.part();
    let record = s.hold(A, Io::RecordA);
    let write = s.begin_write(A, 1);
    s.until_held(record);
    s.time_out(record);
    s.until_refused(write);
    s.kill(A);
    s.activate(B);
    s.write(B, 1);
}

fn discard_differs(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.discard(A, 1);
    // Long enough for the marks to go.
    s.wait(5000);
}

fn buffer_changed_in_flight(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.write_durably(A, 1);
    // A repeat after a lost session sends and writes the same bytes again.
    let write = s.hold_frame(B, "Write");
    let again = s.begin_write(A, 2);
    s.until_held(write);
    s.reset();
    s.until_done(again);
}
