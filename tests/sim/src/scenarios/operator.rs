//! Forces and activations that meet something.

use crate::script::{A, B, Closed, Keep, Scenario, Stage};
use mirror_core::command::Refusal;
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
            by: &[Rule::SkipGranted],
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
