//! Taking down what is provably ours: the parts that closing a carrier and clearing up after a
//! dead one share.
//!
//! Proof is, for a loop device, that its file lies in our folder of random name, or that it is
//! the recorded device with the recorded sequence number; for a mount, that it is of such a
//! device, or on that folder; for a process, its number and start time.

use super::nbdfuse::POLL;
use super::state::State;
use super::{CarrierConfig, link};
use crate::host::command::Runner;
use crate::host::error::HostError;
use crate::host::holders;
use crate::host::loops::LoopDevice;
use crate::host::mounts::{self, Mount};
use crate::host::process::Process;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tokio::time::{Instant, sleep};

/// What was found and cleared; all false = there was nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cleared {
    /// Mount points that a file system on our device was unmounted from.
    pub file_systems: Vec<PathBuf>,
    /// Loop devices that were detached.
    pub loops: Vec<PathBuf>,
    /// The FUSE mount was taken away.
    pub fuse: bool,
    /// The process of the FUSE mount had to be ended.
    pub server: bool,
    /// The dead device name was removed.
    pub link: bool,
}

pub(super) fn state_file(config: &CarrierConfig) -> PathBuf {
    config.run_dir.join(format!("{}.carrier", config.mirror))
}

pub(super) async fn clear(config: &CarrierConfig, runner: &Runner) -> Result<Cleared, HostError> {
    let mut cleared = Cleared::default();
    let Some(state) = State::load(&state_file(config))? else { return Ok(cleared) };
    if state.of_this_boot() {
        clear_devices(config, runner, &state, &mut cleared).await?;
        cleared.fuse = unmount_folder(config, runner, &state.folder, true).await?;
        cleared.server = end_server(config, state.server).await?;
    }
    cleared.link |= link::remove(&state.link, None)?;
    forget(config, &state)?;
    tracing::warn!(mirror = %config.mirror, ?cleared, "cleared what a dead agent left");
    Ok(cleared)
}

async fn clear_devices(
    config: &CarrierConfig,
    runner: &Runner,
    state: &State,
    cleared: &mut Cleared,
) -> Result<(), HostError> {
    for device in our_loops(state, &state.file()) {
        for mount in mounts_of(device, &state.link)?.iter().rev() {
            let mounts = mounts::current().map_err(HostError::system("mount table"))?;
            if !mounts::is_uppermost(&mounts, mount) {
                // umount would take the mount above it, which is not ours.
                tracing::warn!(point = %mount.point.display(), "a dead file system is covered by another mount");
                continue;
            }
            unmount_or_lazily(config, runner, &mount.point).await?;
            cleared.file_systems.push(mount.point.clone());
        }
        cleared.link |= link::remove(&state.link, Some(device))?;
        match detach(config, runner, device).await {
            // Somebody still has a file of it open: the kernel lets go when that is closed, and
            // until then it answers with errors. Nothing of it stands in the way.
            Err(error) => tracing::warn!(device = %device.path().display(), %error,
                "a dead loop device goes when its last user does"),
            Ok(()) => cleared.loops.push(device.path()),
        }
    }
    Ok(())
}

/// The loop devices that this carrier made.
pub(super) fn our_loops(state: &State, file: &Path) -> Vec<LoopDevice> {
    let mut ours = LoopDevice::backed_by(file);
    let recorded = state.device.and_then(super::state::Device::same);
    ours.extend(recorded.filter(|device| !ours.contains(device)));
    ours
}

fn mounts_of(device: LoopDevice, link: &Path) -> Result<Vec<Mount>, HostError> {
    let Some(dev) = device.dev() else { return Ok(Vec::new()) };
    let mounts = mounts::current().map_err(HostError::system("mount table"))?;
    let path = device.path();
    let leads_here = fs::read_link(link).is_ok_and(|target| target == path);
    let names: &[&Path] = if leads_here { &[&path, link] } else { &[&path] };
    Ok(mounts::of_device(&mounts, dev, names).into_iter().cloned().collect())
}

/// Who still uses a loop device, if anybody: detaching it would not take it down, but leave it
/// without a name until its last user goes.
pub(super) fn use_of(device: LoopDevice) -> Option<String> {
    let dev = device.dev()?;
    let path = device.path();
    let mounts = mounts::current().ok()?;
    if let Some(mount) = mounts::of_device(&mounts, dev, &[&path]).last() {
        return Some(format!(
            "losetup -d {}: mounted on {}",
            path.display(),
            mount.point.display()
        ));
    }
    let users = holders::of_device(&path);
    let first = users.first()?;
    Some(format!(
        "losetup -d {}: open in {} process(es), {} ({}) among them",
        path.display(),
        users.len(),
        first.pid,
        first.name
    ))
}

/// Detaches a loop device and waits until the kernel has let its file go.
pub(super) async fn detach(
    config: &CarrierConfig,
    runner: &Runner,
    device: LoopDevice,
) -> Result<(), HostError> {
    let Some(file) = device.backing_file() else { return Ok(()) };
    let sequence = device.sequence();
    device.detach(runner, config.command_limit).await?;
    let end = Instant::now() + config.ready_limit;
    while device.backing_file().as_ref() == Some(&file) && device.sequence() == sequence {
        if Instant::now() >= end {
            return Err(HostError::Command(still_used(device)));
        }
        sleep(POLL).await;
    }
    Ok(())
}

fn still_used(device: LoopDevice) -> String {
    let mut text = format!("losetup -d {}: still in use", device.path().display());
    let Some(dev) = device.dev() else { return text };
    for holder in holders::of(dev) {
        text.push_str(&format!(", by {} ({}: {})", holder.pid, holder.name, holder.uses));
    }
    for pid in mounts::other_namespaces_with(dev) {
        text.push_str(&format!(", mounted in the mount namespace of process {pid}"));
    }
    text
}

async fn unmount_or_lazily(
    config: &CarrierConfig,
    runner: &Runner,
    point: &Path,
) -> Result<(), HostError> {
    // No canonical path and no helper: both would ask the dead file system.
    let umount = || runner.command("umount", config.command_limit).args(["-c", "-i"]);
    if let Err(error) = umount().arg(point).run_ok().await {
        tracing::warn!(point = %point.display(), %error, "unmounting lazily");
        umount().arg("-l").arg(point).run_ok().await?;
    }
    Ok(())
}

/// Takes the FUSE mount from our folder, however often it is mounted there. With `lazily`, a
/// mount that is busy is detached from the tree all the same.
pub(super) async fn unmount_folder(
    config: &CarrierConfig,
    runner: &Runner,
    folder: &Path,
    lazily: bool,
) -> Result<bool, HostError> {
    let mut found = false;
    let end = Instant::now() + config.ready_limit;
    loop {
        let mounts = mounts::current().map_err(HostError::system("mount table"))?;
        if mounts::at(&mounts, folder).is_none() {
            return Ok(found);
        }
        found = true;
        if lazily {
            unmount_or_lazily(config, runner, folder).await?;
        } else {
            let umount = runner.command("umount", config.command_limit).args(["-c", "-i"]);
            let result = umount.arg(folder).run_ok().await;
            // A loop device that is just going still holds the file for a moment.
            if let (Err(error), true) = (result, Instant::now() >= end) {
                return Err(error.into());
            }
            sleep(POLL).await;
        }
    }
}

/// Ends the FUSE server of a dead agent. It ends by itself without its mount, unless the mount
/// could only be detached lazily: killing it then is what makes the kernel give up on it.
async fn end_server(config: &CarrierConfig, server: Option<Process>) -> Result<bool, HostError> {
    let Some(server) = server else { return Ok(false) };
    let mut killed = false;
    let mut end = Instant::now() + config.ready_limit.min(std::time::Duration::from_secs(2));
    while server.is_running() {
        if Instant::now() >= end {
            if killed {
                let what = format!("nbdfuse, process {}, cannot be killed", server.pid);
                return Err(HostError::Command(what));
            }
            let _ = kill(Pid::from_raw(server.pid), Signal::SIGKILL); // ESRCH: just gone
            killed = true;
            end = Instant::now() + config.ready_limit;
        }
        sleep(POLL).await;
    }
    Ok(killed)
}

/// Removes the folder and then the state file: the last traces, in this order.
pub(super) fn forget(config: &CarrierConfig, state: &State) -> Result<(), HostError> {
    gone(fs::remove_dir(&state.folder)).map_err(HostError::system("carrier folder"))?;
    gone(fs::remove_file(state_file(config))).map_err(HostError::system("state file"))
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
