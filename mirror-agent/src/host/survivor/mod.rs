//! Devices of the kernel's that outlive their agent: knowing one's own, and getting rid of them.
//!
//! Before a device is made, its number and a random mark are written down in the run folder
//! ([`DeviceRecord`]); the driver keeps the mark with the device. So an agent that starts, the
//! watchdog and an operator can prove that a device is this mirror's, and nothing else is ever
//! touched. What is to be done with it is decided by [`judge`] alone.

mod judge;
mod record;
mod vigil;

pub use judge::{Facts, Verdict, Why, judge, waits};
pub use record::{DeviceRecord, Wanted};
pub use vigil::{Patience, Vigil};

use super::command::Runner;
use super::error::HostError;
use super::holders;
use super::mounts::{self, DevNo};
use super::statefile::boot_id;
use kmod_shim::ublk::{self, DeviceInfo};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For the driver to forget a device whose server is gone; longer only while somebody has it open.
const REMOVE_LIMIT: Duration = Duration::from_secs(3);
/// Mirror n has the first free device of 1000 + n, 1256 + n, ...: out of the way of the numbers
/// that the driver gives out, and different for all mirrors (n is at most 255).
const FIRST_NUMBER: u32 = 1000;
const STEP: u32 = 256;
const ATTEMPTS: u32 = 16;

/// Judges the device of a record as things stand now.
///
/// # Errors
/// Code 30: the kernel does not say.
pub fn look(
    record: &DeviceRecord,
    configured: bool,
    mirror: Option<(u64, u32)>,
) -> Result<Verdict, HostError> {
    with_facts(record, |facts| judge(&Facts { configured, mirror, ..*facts }))
}

/// Whether users of a recorded device may be waiting for a server now.
///
/// # Errors
/// Code 30: the kernel does not say.
pub fn is_waiting(record: &DeviceRecord) -> Result<bool, HostError> {
    with_facts(record, waits)
}

fn with_facts<T>(record: &DeviceRecord, ask: impl FnOnce(&Facts<'_>) -> T) -> Result<T, HostError> {
    let boot = boot_id().map_err(HostError::system("boot id"))?;
    let device = device_of(record, &boot)?;
    let server_runs = record.server_runs();
    Ok(ask(&Facts { record, boot: &boot, device, server_runs, configured: true, mirror: None }))
}

fn device_of(record: &DeviceRecord, boot: &str) -> Result<Option<DeviceInfo>, HostError> {
    if record.boot_id != boot {
        return Ok(None);
    }
    match ublk::inspect(record.number) {
        // Without the driver there is no device of it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map_err(HostError::system(format!("ublk device {}", record.number))),
    }
}

/// A number that no device has, for mirror `nmp`.
///
/// # Errors
/// Code 30: the driver is not there; 89: all numbers are taken.
pub fn free_number(nmp: u32) -> Result<u32, HostError> {
    for number in candidates(nmp) {
        let device = ublk::state(number).map_err(HostError::system("/dev/ublk-control"))?;
        if device.is_none() {
            return Ok(number);
        }
        tracing::warn!("NMP{nmp}: {} is somebody else's", ublk::device_path(number).display());
    }
    let first = ublk::device_path(FIRST_NUMBER + nmp);
    Err(HostError::Command(format!("no free ublk device from {} on", first.display())))
}

fn candidates(nmp: u32) -> impl Iterator<Item = u32> {
    (0..ATTEMPTS).map(move |i| FIRST_NUMBER + nmp + i * STEP)
}

/// Gives a device up: whoever waits on it gets errors. Its record stays: the next agent clears the
/// mounts away and removes the device. Waits for the driver.
///
/// A device that is gone is given up already; another one under its number is not touched.
///
/// # Errors
/// Code 30: the driver's.
pub fn give_up(record: &DeviceRecord) -> Result<(), HostError> {
    let path = ublk::device_path(record.number);
    let boot = boot_id().map_err(HostError::system("boot id"))?;
    // The decision may be old: whoever made it may have waited for an operator's answer.
    if device_of(record, &boot)?.is_none_or(|device| device.mark != record.mark) {
        tracing::info!("{} is not the device on record any more", path.display());
        return Ok(());
    }
    ublk::stop(record.number).map_err(HostError::system(format!("stop of {}", path.display())))
}

fn remove(record: &DeviceRecord, is_used: bool) -> Result<(), HostError> {
    let path = ublk::device_path(record.number);
    match ublk::remove(record.number, is_used, REMOVE_LIMIT) {
        Err(e) if matches!(e.kind(), io::ErrorKind::TimedOut | io::ErrorKind::ResourceBusy) => {
            tracing::warn!("{} is not removed: {e}", path.display());
            Ok(())
        }
        other => other.map_err(HostError::system(format!("removal of {}", path.display()))),
    }
}

async fn aside(
    record: &DeviceRecord,
    work: impl FnOnce(&DeviceRecord) -> Result<(), HostError> + Send + 'static,
) -> Result<(), HostError> {
    let record = record.clone();
    let ended = tokio::task::spawn_blocking(move || work(&record)).await;
    ended.map_err(|e| HostError::system("thread")(io::Error::other(e)))?
}

/// Takes down all that is left of a recorded device: the device if it is still ours, what is
/// mounted from it, its name, its record. Gives where it was mounted. The device and the record of
/// one that is served are left to its server: without a record nobody would look after it.
///
/// # Errors
/// Code 30 for the driver and the mount table, 83 and 89 if a mount resists.
pub async fn take_down(
    record: &DeviceRecord,
    verdict: Verdict,
    run_dir: &Path,
    runner: &Runner,
    limit: Duration,
) -> Result<Vec<PathBuf>, HostError> {
    // A file system knows its device by this number, also when the device is gone.
    let dev = dev_of(record, verdict);
    let there = matches!(verdict, Verdict::Discard(_) | Verdict::Adopt);
    if there {
        // First: what waits on the device would keep its mounts from going.
        aside(record, give_up).await?;
    }
    let unmounted = unmount(record, verdict, dev, runner, limit).await?;
    remove_name(record)?;
    if there {
        // Last: it waits for all that has the device open.
        let is_used = unmounted.lazily || is_open(record);
        aside(record, move |record| remove(record, is_used)).await?;
    }
    if verdict != Verdict::Served {
        record.forget(run_dir)?;
    }
    Ok(unmounted.points)
}

fn dev_of(record: &DeviceRecord, verdict: Verdict) -> Option<DevNo> {
    let ours = !matches!(verdict, Verdict::Gone(_));
    let found = fs::metadata(ublk::device_path(record.number)).ok().filter(|_| ours)?;
    Some(DevNo::from_stat(found.rdev()))
}

/// Whether a process has the device open, under its name or after that is gone.
fn is_open(record: &DeviceRecord) -> bool {
    let path = ublk::device_path(record.number);
    let mut gone = path.clone().into_os_string();
    gone.push(" (deleted)");
    !holders::of_device(&path).is_empty() || !holders::of_device(Path::new(&gone)).is_empty()
}

#[derive(Default)]
struct Unmounted {
    points: Vec<PathBuf>,
    /// Somebody was using one of them, and may go on.
    lazily: bool,
}

async fn unmount(
    record: &DeviceRecord,
    verdict: Verdict,
    dev: Option<DevNo>,
    runner: &Runner,
    limit: Duration,
) -> Result<Unmounted, HostError> {
    if verdict == Verdict::Gone(Why::OtherBoot) {
        return Ok(Unmounted::default());
    }
    let path = ublk::device_path(record.number);
    // The device of somebody else may be mounted under the kernel's name.
    let foreign = verdict == Verdict::Gone(Why::Foreign);
    let names: &[&Path] = if foreign { &[&record.link] } else { &[&record.link, &path] };
    let mut unmounted = Unmounted::default();
    let table = mounts::current().map_err(HostError::system("mount table"))?;
    for mount in table.iter().rev() {
        let named = names.iter().any(|n| n.as_os_str() == mount.source);
        if !named && dev != Some(mount.dev) {
            continue;
        }
        let now = mounts::current().map_err(HostError::system("mount table"))?;
        if !mounts::is_uppermost(&now, mount) {
            // umount would take the mount above it, which is not ours.
            tracing::warn!(point = %mount.point.display(), "a dead file system is covered by another mount");
            continue;
        }
        let umount = || runner.command("umount", limit).args(["-c", "-i"]);
        if umount().arg(&mount.point).run_ok().await.is_err() {
            // Somebody still holds files of it; they get errors until they let go.
            umount().arg("-l").arg(&mount.point).run_ok().await?;
            unmounted.lazily = true;
        }
        unmounted.points.push(mount.point.clone());
    }
    Ok(unmounted)
}

fn remove_name(record: &DeviceRecord) -> Result<(), HostError> {
    let target = ublk::device_path(record.number);
    if fs::read_link(&record.link).is_ok_and(|t| t == target) {
        fs::remove_file(&record.link)
            .map_err(HostError::system(format!("device name {}", record.link.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{DeviceRecord, Runner, Verdict, Why, candidates, take_down};
    use std::collections::HashSet;
    use std::time::Duration;

    #[tokio::test]
    async fn what_is_served_keeps_its_record() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut record = DeviceRecord::sample();
        record.link = dir.path().join("NMP1");
        record.save(dir.path()).expect("is written");
        let runner = Runner::with_path("/nowhere");
        for (verdict, stays) in [(Verdict::Served, true), (Verdict::Gone(Why::NoDevice), false)] {
            let limit = Duration::from_secs(1);
            take_down(&record, verdict, dir.path(), &runner, limit).await.expect("taken down");
            let found = DeviceRecord::load(dir.path(), &record.mirror).expect("is read");
            assert_eq!(found.is_some(), stays, "{verdict:?}");
        }
    }

    #[test]
    fn mirrors_never_compete_for_a_number() {
        let all: Vec<u32> = (1..=255).flat_map(candidates).collect();
        let different: HashSet<u32> = all.iter().copied().collect();
        assert_eq!(all.len(), different.len());
        assert_eq!(candidates(1).next(), Some(1001));
    }
}
