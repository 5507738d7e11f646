//! Going on with the disk of the other server (`disk_error = "detach"`).

use crate::script::{A, B, Closed, Io, Keep, Scenario, Stage};
use mirror_core::command::{Command, Refusal};
use mirror_core::io::Notice;
use mirror_core::rules::Rule;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "detach",
        about: "the active side's disk fails; reads, writes and flushes go on with the other's",
        closed: &[Closed { by: &[Rule::DetachReads], otherwise: "a read on server1" }],
        steps: goes_on,
    },
    Scenario {
        name: "detach/the-peer-knows",
        about: "the side whose disk serves restarts alone, and is activated without a word",
        closed: &[Closed {
            by: &[Rule::DetachPeer],
            otherwise: "on server2 is done (PeerWasActive)",
        }],
        steps: the_peer_knows,
    },
    Scenario {
        name: "detach/new-agent",
        about: "the agent without a disk dies, its device does not, and the other is out of reach",
        closed: &[Closed { by: &[Rule::DetachSelf], otherwise: "which it does not" }],
        steps: a_new_agent_serves_nothing,
    },
    Scenario {
        name: "detach/lost",
        about: "contact is lost while the peer records: the device fails, and the peer takes over",
        closed: &[],
        steps: contact_is_lost,
    },
    Scenario {
        name: "detach/no-record",
        about: "the cluster partition fails, too: nothing is served in place of the disk",
        closed: &[],
        steps: nothing_can_be_recorded,
    },
    Scenario {
        name: "detach/half-copied",
        about: "the peer is a target of recovery: its disk cannot serve",
        closed: &[],
        steps: the_peer_is_not_whole,
    },
    Scenario {
        name: "detach/peer-stops",
        about: "the peer stops in order while it serves: it has the latest data and says so",
        closed: &[],
        steps: the_peer_stops,
    },
];

/// Block 1 is written; the next write there fails on the disk of the active side.
fn failing_write(s: &mut Stage) -> crate::script::Ticket {
    s.restart_with(|tuning| tuning.detach = true);
    s.activate(A);
    s.write(A, 1);
    s.flush(A);
    let bad = s.hold(A, Io::Write(1));
    let write = s.begin_write(A, 1);
    s.until_held(bad);
    s.fail(bad);
    s.hold_no_more(bad);
    write
}

fn detached(s: &mut Stage) {
    let write = failing_write(s);
    s.until_done(write);
}

fn goes_on(s: &mut Stage) {
    detached(s);
    s.read(A, 1);
    s.write(A, 40);
    s.write_durably(A, 41);
    s.read(A, 40);
    s.flush(A);
    s.deactivate(A);
    s.wait(5);
    s.activate(B);
    s.read(B, 40);
    s.write(B, 1);
}

fn the_peer_knows(s: &mut Stage) {
    detached(s);
    s.flush(A);
    s.power_loss(A, Keep::Nothing);
    s.power_loss(B, Keep::Nothing);
    s.start(B);
    s.activate(B);
    s.read(B, 1);
}

fn a_new_agent_serves_nothing(s: &mut Stage) {
    detached(s);
    s.flush(A);
    s.cut();
    s.kill_agent_only(A);
    s.start(A);
    let read = s.begin_read(A, 1);
    s.wait(10_000);
    s.expect("the disk that failed serves nothing", s.found(read).is_none());
}

fn contact_is_lost(s: &mut Stage) {
    s.restart_with(|tuning| tuning.detach = true);
    s.activate(A);
    s.write(A, 1);
    let (bad, asked) = (s.hold(A, Io::Write(1)), s.hold_frame(B, "Detach"));
    let write = s.begin_write(A, 1);
    s.until_held(bad);
    s.fail(bad);
    s.until_held(asked);
    s.expect("nothing completes before the peer's record", !s.is_answered(write));
    s.part();
    s.until_refused(write);
    s.activation_refused(A, true, Refusal::AlreadyActive);
    s.kill(A);
    s.activate(B);
    s.write(B, 2);
}

fn nothing_can_be_recorded(s: &mut Stage) {
    s.restart_with(|tuning| tuning.detach = true);
    s.activate(A);
    s.write(A, 1);
    let (bad, record) = (s.hold(A, Io::Write(1)), s.hold(A, Io::RecordA));
    let write = s.begin_write(A, 1);
    s.until_held(bad);
    s.fail(bad);
    s.until_held(record);
    s.fail(record);
    s.until_refused(write);
    s.kill(A);
    s.activate(B);
}

fn the_peer_is_not_whole(s: &mut Stage) {
    s.restart_with(|tuning| tuning.detach = true);
    s.activate(A);
    s.part();
    (0..5).for_each(|n| {
        s.write(A, super::region(2 * n));
    });
    let copy = s.hold(A, Io::Read(super::region(4)));
    s.heal();
    s.until_held(copy);
    let bad = s.hold(A, Io::Write(380));
    let write = s.begin_write(A, 380);
    s.until_held(bad);
    s.fail(bad);
    s.until_refused(write);
    s.hold_no_more(copy);
    s.land(copy);
}

fn the_peer_stops(s: &mut Stage) {
    detached(s);
    s.flush(A);
    s.stop(B);
    s.until_notice(A, "the loss of the disk", |n| *n == Notice::DetachedLost);
    let lost = s.begin_write(A, 2);
    s.until_refused(lost);
    let behind = s.record(B).is_none_or(|r| r.behind);
    s.expect("the side that served is not behind", !behind);
    s.order(A, Command::Deactivate);
    s.start(B);
    s.activate(B);
    s.read(B, 1);
}
