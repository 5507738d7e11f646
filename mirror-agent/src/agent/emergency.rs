//! Emergencies (§10.7, §10.8): what the configuration has the server do when a disk of it failed,
//! and when both servers turn out to be active.

use super::Agent;
use super::managed::Managed;
use crate::host::power::{Marked, Power, PowerAction, ResetMark};
use crate::messages::{Event, driver};
use mirror_core::both_active::BothActive;
use mirror_core::command::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long a reset waits for the log, and for the mark of the reset: either may lie on the disk
/// that failed.
const LOG_LIMIT: Duration = Duration::from_secs(3);
/// Pause after a mirror that has to stop could not be closed.
const RETRY: Duration = Duration::from_secs(30);

/// What ends this server, at most once.
pub(super) struct Emergency {
    power: Arc<dyn Power>,
    done: AtomicBool,
}

impl Emergency {
    pub(super) fn new(power: Arc<dyn Power>) -> Self {
        Self { power, done: AtomicBool::new(false) }
    }
}

/// Ends the server once the log has what led to it.
async fn end_server(agent: &Agent, action: PowerAction, why: &str) {
    if agent.emergency.done.swap(true, Ordering::SeqCst) {
        return; // several mirrors may lie on one disk
    }
    if !agent.events.settled(LOG_LIMIT).await {
        tracing::warn!("the alert log may lack the last messages");
    }
    agent.emergency.power.act(action, why);
}

/// A disk of this server failed and the device fails all I/O, which is all there is to be done
/// with `stop-io`. `recorded`: a later start knows of it.
pub(super) async fn disk_error(agent: Arc<Agent>, mirror: Arc<Managed>, recorded: bool) {
    let Some(action) = mirror.settings().disk_error else { return };
    let name = &mirror.config.name;
    let why = format!("{name}: a disk of this server failed");
    let marked = mark(&agent, name, &why).await;
    if !marked.permits_reset(recorded) {
        let known = marked == Marked::Before;
        let reason = if known { "it was reset for this disk before" } else { "no record holds it" };
        mirror.history.note(format!("a disk failed; the server was not reset: {reason}"), None);
        tracing::error!("{why}, but it is not reset: {reason}. Next: replace the disk; clpmdchng");
        return;
    }
    mirror.history.note("the server is reset because a disk failed", None);
    agent.events.log(Event::driver(driver::REBOOT, mirror.config.nmp, &[]));
    end_server(&agent, action, &why).await;
}

async fn mark(agent: &Agent, mirror: &str, why: &str) -> Marked {
    let mark = ResetMark::of(&agent.config.agent.log_dir, mirror);
    let why = format!("{why}\n");
    let set = tokio::task::spawn_blocking(move || mark.set(&why));
    timeout(LOG_LIMIT, set).await.ok().and_then(Result::ok).unwrap_or(Marked::Failed)
}

/// Both servers are active: stops this side if the configuration has it stop. Its applications lose
/// the device: with the server if a failed disk would have it reset, else alone.
pub(super) async fn both_active(agent: Arc<Agent>, mirror: Arc<Managed>) {
    if !mirror.settings().both_active.stops(agent.config.side) {
        return;
    }
    let name = &mirror.config.name;
    let goes_on = match mirror.settings().both_active {
        BothActive::Survivor(side) => agent.config.servers[side.index()].name.as_str(),
        _ => "no server",
    };
    agent.events.log(Event::driver(driver::GIVES_WAY, mirror.config.nmp, &[goes_on]));
    mirror.history.note(format!("both servers were active; {goes_on} goes on"), None);
    if let Some(action) = mirror.settings().disk_error {
        let why = format!("{name}: both servers are active, and {goes_on} goes on");
        end_server(&agent, action, &why).await;
    }
    // First, so that nothing more is written here while the file system is being unmounted: it
    // would be lost when an operator chooses the other side.
    if let Err(refusal) = mirror.driver.command(Command::FailDevice).await {
        tracing::warn!("{name}: the device was not made to fail: {refusal}");
    }
    while let Err(r) = mirror.deactivate().await {
        tracing::error!("{} Next: {}", r.message, r.next);
        sleep(RETRY).await;
        if mirror.is_active().await == Some(false) {
            return;
        }
    }
    tracing::error!("{name} was stopped here. Next: clpmdstat --explain {name}");
}
