//! Forces and activations that meet something.

use crate::script::{A, B, Closed, Io, Keep, Scenario, Stage};
use mirror_core::command::{Command, Refusal};
use mirror_core::io::Notice;
use mirror_core::rules::Rule;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "restart-is-not-activation",
        about: "the agent of the active side is killed, its device lives; nobody took over",
        closed: &[Closed {
            by: &[Rule::Resumes],
            otherwise: "not so: the device is served, without an activation",
        }],
        steps: agent_dies_under_its_device,
    },
    Scenario {
        name: "restart-is-not-activation/taken-over",
        about: "the same, and the other side was activated meanwhile",
        closed: &[Closed {
            by: &[Rule::ResumeYields],
            otherwise: "server1 resumed and serves beside the other one",
        }],
        steps: agent_dies_and_the_peer_takes_over,
    },
    Scenario {
        name: "restart-is-not-activation/other-boot",
        about: "after a loss of power something looks like a device that is alive",
        closed: &[Closed {
            by: &[Rule::ResumeBoot],
            otherwise: "not so: nothing is served after a boot",
        }],
        steps: agent_starts_under_another_boot,
    },
    Scenario {
        name: "half-forced",
        about: "a force is interrupted when the loser is half copied; the loser looks usable",
        closed: &[Closed {
            by: &[Rule::AbnormalActive],
            otherwise: "not so: activating server2 is refused: NotLatest",
        }],
        steps: half_forced,
    },
    Scenario {
        name: "half-forced/before-the-loser-knows",
        about: "a force is interrupted before the loser records it; the loser goes on alone",
        closed: &[Closed {
            by: &[Rule::ForceSince],
            otherwise: "two sides that both wrote alone opened a session",
        }],
        steps: force_unknown_to_the_loser,
    },
    Scenario {
        name: "half-forced/one-server",
        about: "a force without contact, which does not know what the other wrote alone",
        closed: &[Closed {
            by: &[Rule::ForceUnseen],
            otherwise: "the verdict is split-brain, not descendant-full",
        }],
        steps: forced_alone,
    },
    Scenario {
        name: "ask-forgotten",
        about: "a side dies before the grant it asked for comes; the other is forced alone",
        closed: &[Closed {
            by: &[Rule::SkipGranted, Rule::GrantUnsure],
            otherwise: "two sides that both wrote alone opened a session",
        }],
        steps: ask_forgotten,
    },
    Scenario {
        name: "ask-forgotten/not-heard",
        about: "the number was never heard of; the side that asked for it is forced alone",
        closed: &[],
        steps: ask_not_heard,
    },
    Scenario {
        name: "grant-in-flight",
        about: "a grant is on its way when the side that gave it is forced alone; it arrives then",
        closed: &[Closed {
            by: &[Rule::GrantUnsure],
            otherwise: "two sides that both wrote alone opened a session",
        }],
        steps: grant_in_flight,
    },
    Scenario {
        name: "told-apart",
        about: "a side that wrote alone is told by the other, which went alone later, that it is behind",
        closed: &[Closed { by: &[Rule::ToldApart], otherwise: "not so: server1 confirms nothing" }],
        steps: told_apart,
    },
    Scenario {
        name: "told-apart/just-forced",
        about: "a side is told that it is behind while it is being forced",
        closed: &[Closed { by: &[Rule::ToldApart], otherwise: "not so: server1 confirms nothing" }],
        steps: told_while_forced,
    },
    Scenario {
        name: "both-activate",
        about: "both servers are activated at the same time",
        closed: &[Closed { by: &[Rule::Grant], otherwise: "both are active in session" }],
        steps: both_activate,
    },
];

/// Both sides have written alone, are inactive, and in contact.
fn split_brain(s: &mut Stage) {
    s.activate(A);
    s.part();
    s.write(A, 1);
    s.activate(B);
    s.write(B, 2);
    s.deactivate(A);
    s.deactivate(B);
    s.heal();
    s.until_verdict("split-brain");
}

fn half_forced(s: &mut Stage) {
    split_brain(s);
    let copy = s.hold_frame(B, "Copy");
    s.force(A);
    s.until_held(copy);
    s.power_loss(A, Keep::Everything);
    s.power_loss(B, Keep::Everything);
    s.start(B);
    s.activation_refused(B, false, Refusal::NotLatest);
    s.activation_refused(B, true, Refusal::NotLatest);
    s.start(A);
    s.until_normal();
}

fn force_unknown_to_the_loser(s: &mut Stage) {
    split_brain(s);
    let card = s.hold_frame(B, "Card");
    s.force(A);
    s.until_held(card);
    s.power_loss(A, Keep::Everything);
    s.power_loss(B, Keep::Everything);
    s.start(B);
    s.activate_vouched(B);
    s.write_durably(B, 3);
    s.deactivate(B);
    s.start(A);
    s.until_verdict("split-brain");
}

fn forced_alone(s: &mut Stage) {
    s.activate(B);
    s.part();
    s.write_durably(B, 1);
    s.power_loss(B, Keep::Nothing);
    s.activate(A);
    s.write(A, 2);
    s.force(A);
    s.write(A, 3);
    s.heal();
    s.start(B);
    s.until_verdict("descendant-full");
}

fn ask_forgotten(s: &mut Stage) {
    let grant = s.hold_frame(A, "ActivateGrant");
    let order = s.activation(A, false);
    s.begin(A, order);
    s.until_held(grant);
    s.kill(A);
    s.part();
    s.force(B);
    s.power_loss(B, Keep::Everything);
    s.start(A);
    s.activate_vouched(A);
    s.write_durably(A, 1);
    s.deactivate(A);
    s.heal();
    s.start(B);
    s.until_verdict("split-brain");
}

fn ask_not_heard(s: &mut Stage) {
    let ask = s.hold_frame(B, "ActivateAsk");
    let order = s.activation(A, false);
    let id = s.begin(A, order);
    s.until_held(ask);
    s.part();
    s.until_replied(id);
    s.force(A);
    s.power_loss(A, Keep::Everything);
    s.activate(B);
    s.write_durably(B, 1);
    s.deactivate(B);
    s.heal();
    s.start(A);
    s.until_verdict("split-brain");
}

/// The agents reach each other again: server2 tells that it has gone alone.
fn server1_confirms_nothing(s: &mut Stage) {
    let session = s.record(B).map(|r| r.session).unwrap_or_default();
    let answer = s.order(A, Command::ToldBehind { session });
    s.expect("server1 confirms nothing", answer == Some(Err(Refusal::SplitBrain)));
}

fn told_apart(s: &mut Stage) {
    s.activate(A);
    s.part();
    s.write_durably(A, 1);
    s.deactivate(A);
    s.activate(B);
    s.begin_write(B, 2);
    s.until_notice(B, "going alone", |notice| *notice == Notice::Broke);
    server1_confirms_nothing(s);
    s.power_loss(B, Keep::Everything);
    s.start(B);
    s.activation_refused(B, false, Refusal::WasActive);
}

fn told_while_forced(s: &mut Stage) {
    let flush = s.hold(A, Io::Flush);
    let force = s.begin(A, s.forcing(A));
    s.until_held(flush);
    s.part();
    s.activate(B);
    s.write(B, 1);
    server1_confirms_nothing(s);
    s.land(flush);
    s.until_replied(force);
    s.wait(1000);
}

fn grant_in_flight(s: &mut Stage) {
    let grant = s.hold_frame(B, "ActivateGrant");
    let order = s.activation(B, false);
    let id = s.begin(B, order);
    s.until_held(grant);
    s.cut();
    s.kill(A);
    s.start(A);
    s.force(A);
    s.heal();
    s.land(grant);
    let activated = s.until_replied(id);
    s.expect("the grant arrives after all", activated.is_some_and(|answer| answer.is_ok()));
    s.write_durably(B, 1);
    // They may have met in between, with B active.
    s.forget_notices();
    s.deactivate(B);
    s.until_verdict("split-brain");
}

fn both_activate(s: &mut Stage) {
    let orders = [A, B].map(|at| (at, s.activation(at, false)));
    let ids = orders.map(|(at, command)| s.begin(at, command));
    let answers = ids.map(|id| s.until_replied(id));
    let won = answers.iter().flatten().filter(|answer| answer.is_ok()).count();
    s.expect("one of the two is activated", won == 1);
    s.wait(100);
}

fn agent_dies_under_its_device(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.part();
    s.write(A, 2);
    s.kill_agent_only(A);
    s.start(A);
    let served = s.is_active(A);
    s.expect("the device is served, without an activation", served);
    s.write(A, 3);
    s.flush(A);
}

fn agent_dies_and_the_peer_takes_over(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.part();
    s.kill_agent_only(A);
    s.activate(B);
    s.write(B, 2);
    s.heal();
    s.start(A);
    s.until_verdict("descendant-difference");
    let active = [A, B].map(|at| s.is_active(at));
    s.expect("only server2 serves", active == [false, true]);
    s.write(B, 3);
}

fn agent_starts_under_another_boot(s: &mut Stage) {
    s.activate(A);
    s.write(A, 1);
    s.part();
    s.power_loss(A, Keep::Nothing);
    s.mistake_device(A);
    s.start(A);
    let served = s.is_active(A);
    s.expect("nothing is served after a boot", !served);
}
