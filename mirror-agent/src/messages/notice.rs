//! What the mirror reports of itself, as events.

use super::events::{Event, RecoveryReason, driver, later};
use mirror_core::io::Notice;
use mirror_core::status::CopyKind;

/// The events for one notice of mirror `NMP<nmp>`, whose device is called `device`.
#[must_use]
pub fn events_of(notice: &Notice, nmp: u8, device: &str) -> Vec<Event> {
    let d = || device.to_owned();
    match notice {
        Notice::Broke => vec![Event::driver(driver::BROKE, nmp, &[])],
        Notice::LinkLost(why) => vec![Event::driver(driver::RECEIVE, nmp, &[why])],
        Notice::SessionOpened { verdict } => vec![Event::driver(driver::SESSION, nmp, &[verdict])],
        Notice::Parked { verdict } => vec![Event::driver(driver::PARKED, nmp, &[verdict])],
        Notice::RecoveryStarted { kind: CopyKind::Initial, .. } => vec![Event::InitialStarted(d())],
        Notice::RecoveryStarted { kind, .. } => {
            let fast = *kind != CopyKind::Full;
            vec![Event::RecoveryMode { fast }, Event::RecoveryStarted(d())]
        }
        Notice::RecoveryFinished { kind: CopyKind::Initial, .. } => vec![Event::InitialDone(d())],
        Notice::RecoveryFinished { .. } => vec![Event::RecoveryDone(d())],
        Notice::RecoveryAborted { kind, source, reason } => {
            aborted((*kind, *source), reason, nmp, d())
        }
        Notice::Resumed => vec![Event::driver(driver::RESUMED, nmp, &[])],
        Notice::NotResumed { why } => vec![Event::driver(driver::NOT_RESUMED, nmp, &[why])],
        Notice::DiskError { cluster_partition: true, .. } => {
            vec![Event::Driver(driver::BITMAP_WRITE, Vec::new())]
        }
        Notice::DiskError { what, offset, .. } => vec![disk_error(what, *offset, nmp)],
        Notice::ErrorRecorded { durable: true } | Notice::BothActive | Notice::BadRecord(_) => {
            Vec::new()
        }
        Notice::ErrorRecorded { durable: false } => {
            vec![Event::Driver(driver::FLAG_WRITE, Vec::new())]
        }
        Notice::Detached => vec![Event::driver(driver::DETACHED, nmp, &[])],
        Notice::DetachedLost => vec![Event::driver(driver::DETACHED_LOST, nmp, &[])],
        Notice::ServesPeer => vec![Event::driver(driver::SERVES_PEER, nmp, &[])],
        Notice::Protocol(what) => vec![Event::driver(driver::WRONG_COMMAND, nmp, &[what])],
    }
}

/// The manual's reasons do not name the loss of the source; "abnormal" is the nearest. What an
/// operator stops has not failed. The target is not told why the source stops.
fn aborted((kind, source): (CopyKind, bool), why: &str, nmp: u8, device: String) -> Vec<Event> {
    if why.contains("operator") || why == "stopped at the source" {
        return vec![Event::later(later::CANCELLED, &[&device])];
    }
    let cause = match (why, source) {
        ("the connection was lost", true) => driver::RECOVERY_PORT,
        ("the connection was lost", false) => driver::PORT_CLOSED,
        _ => driver::RECOVERY_BREAK,
    };
    let reason = RecoveryReason::SourceAbnormal;
    let last = match kind {
        CopyKind::Initial => Event::InitialFailed(reason, device),
        _ => Event::RecoveryFailed(reason, device),
    };
    vec![Event::driver(cause, nmp, &[]), last]
}

fn disk_error(what: &str, offset: u64, nmp: u8) -> Event {
    match what {
        "write" => Event::driver(driver::WRITE_ERROR, nmp, &[&(offset / 512).to_string()]),
        "read" => Event::driver(driver::READ_ERROR, nmp, &[]),
        _ => Event::driver(driver::IO_ERROR, nmp, &[]),
    }
}
