//! The watchdog: a program of its own that stops devices whose agent does not come back, so that
//! their users get errors instead of waiting for ever.
//!
//! A device without a server cannot be bounded by that server. The service manager runs one
//! `clpmdwatch`; an agent that finds none running starts one itself. Whoever holds the lock on
//! `watch.lock` in the run folder watches.

use super::nbd_devices::{self, Identity};
use super::survivor::{self, DeviceRecord, Patience, Vigil};
use crate::lock::{Lock, Role};
use kmod_shim::nbd::kernel::Found;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Name of the program, beside the agent's.
const PROGRAM: &str = "clpmdwatch";

/// The right to watch, as long as it is held.
#[derive(Debug)]
pub struct Watch {
    _lock: Flock<File>,
}

impl Watch {
    /// Takes the right to watch; `None`: somebody watches.
    ///
    /// # Errors
    /// The lock file cannot be used.
    pub fn take(run_dir: &Path) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(run_dir.join("watch.lock"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self { _lock: lock })),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, e)) => Err(e.into()),
        }
    }

    /// Watches. Whatever is given up is told to `told`. With `to_the_last`, it returns once there
    /// is no device left to watch.
    pub fn run(&self, run_dir: &Path, to_the_last: bool, mut told: impl FnMut(&GivenUp)) {
        let start = Instant::now();
        let mut vigil = Vigil::default();
        loop {
            let records: Vec<_> = match DeviceRecord::all(run_dir) {
                Ok(all) => all.into_iter().filter_map(Result::ok).collect(),
                Err(e) => {
                    tracing::warn!("{e}");
                    Vec::new()
                }
            };
            let nbd = NbdLook::take(run_dir);
            if records.is_empty() && nbd.devices.is_empty() && to_the_last {
                return;
            }
            for record in &records {
                if let Some(given_up) = look(record, &mut vigil, start.elapsed()) {
                    told(&given_up);
                }
            }
            for (device, of) in &nbd.devices {
                if let Some(given_up) =
                    look_nbd((device, of), nbd.waits, &mut vigil, start.elapsed())
                {
                    told(&given_up);
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// A device that was given up, or was to be.
#[derive(Debug)]
pub struct GivenUp {
    /// Number n of `NMP<n>`.
    pub nmp: u32,
    /// How long it had waited.
    pub waited: Duration,
    /// What went wrong; `None`: it is stopped.
    pub failure: Option<String>,
}

fn look(record: &DeviceRecord, vigil: &mut Vigil, now: Duration) -> Option<GivenUp> {
    let waits = survivor::is_waiting(record).unwrap_or_else(|e| {
        tracing::warn!("{}: {e}", record.mirror);
        false
    });
    let patience = Duration::from_secs(record.patience_s);
    match vigil.look(&record.mirror, waits, patience, now) {
        Patience::Over(waited) => {
            let failure = survivor::give_up(record).err().map(|e| e.to_string());
            Some(GivenUp { nmp: record.nmp, waited, failure })
        }
        Patience::Waits(waited) if waited.is_zero() => {
            tracing::warn!("{}: its device has no agent", record.mirror);
            None
        }
        Patience::Waits(_) | Patience::Fine => None,
    }
}

/// The nbd devices of a run folder at one look.
#[derive(Default)]
struct NbdLook {
    devices: Vec<(Found, Identity)>,
    /// Nobody serves them.
    waits: bool,
}

impl NbdLook {
    fn take(run_dir: &Path) -> Self {
        let looked = nbd_devices::known(run_dir).and_then(|devices| {
            let waits = !devices.is_empty() && !Lock::is_held(run_dir, Role::Agent)?;
            Ok(Self { devices, waits })
        });
        looked.unwrap_or_else(|e| {
            tracing::warn!("nbd: {e}");
            Self::default()
        })
    }
}

fn look_nbd(
    (device, of): (&Found, &Identity),
    waits: bool,
    vigil: &mut Vigil,
    now: Duration,
) -> Option<GivenUp> {
    let patience = Duration::from_secs(of.patience_s);
    // The number: after another device's end there may be one with the same identifier.
    let key = format!("{} {}", device.number, device.identifier);
    match vigil.look(&key, waits, patience, now) {
        Patience::Over(waited) => {
            let failure = nbd_devices::give_up(device).err().map(|e| e.to_string());
            Some(GivenUp { nmp: u32::from(of.nmp), waited, failure })
        }
        Patience::Waits(waited) if waited.is_zero() => {
            tracing::warn!("{}: its device has no agent", of.mirror);
            None
        }
        Patience::Waits(_) | Patience::Fine => None,
    }
}

/// Starts a watchdog if none runs. What fails is logged: a device that nobody watches still works.
pub fn ensure(run_dir: &Path) {
    match Watch::take(run_dir) {
        Ok(None) => {}
        Ok(Some(ours)) => {
            drop(ours);
            if let Err(e) = start(run_dir) {
                tracing::warn!(
                    "{PROGRAM} does not start ({e}): if the agent dies and does not come back, its devices wait until `clpmdctrl --abandon`"
                );
            }
        }
        Err(e) => tracing::warn!("watch.lock: {e}"),
    }
}

fn start(run_dir: &Path) -> io::Result<()> {
    let program = std::env::current_exe()?.with_file_name(PROGRAM);
    let mut command = std::process::Command::new(program);
    command.arg("--run-dir").arg(run_dir).arg("--if-none").stdin(Stdio::null());
    // What ends the agent's group is not to end its watchdog.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn()?;
    // It ends when its lock is taken by another one, or with the last device.
    std::thread::Builder::new().name("watchdog".into()).spawn(move || child.wait())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Watch;

    #[test]
    fn one_watches_and_ends_with_the_last_device() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let watch = Watch::take(dir.path()).expect("lock").expect("is free");
        assert!(Watch::take(dir.path()).expect("lock").is_none());
        watch.run(dir.path(), true, |g| panic!("{g:?}"));
        drop(watch);
        assert!(Watch::take(dir.path()).expect("lock").is_some());
    }
}
