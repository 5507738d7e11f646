//! The watchdog: a program of its own that stops devices whose agent does not come back, so that
//! their users get errors instead of waiting for ever.
//!
//! A device without a server cannot be bounded by that server. The service manager runs one
//! `clpmdwatch`; an agent that finds none running starts one itself, outside of its own unit.
//! Whoever holds the lock on `watch.lock` in the run folder watches.

use super::error::HostError;
use super::nbd_devices::{self, Identity};
use super::survivor::{self, DeviceRecord, Patience, Vigil};
use crate::lock::{Lock, Role};
use kmod_shim::nbd::kernel::Found;
use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Before one that has died is started again; doubled each time.
const RESTART_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
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
        let mut said = String::new();
        loop {
            match Devices::all(run_dir) {
                Ok(devices) if devices.are_none() && to_the_last => return,
                Ok(devices) => {
                    said.clear();
                    devices.look(&mut vigil, start.elapsed(), &mut told);
                }
                // A moment's failure is not the last device's end.
                Err(e) if e == said => {}
                Err(e) => {
                    tracing::warn!("{e}");
                    said = e;
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// All devices of a run folder, at one look.
struct Devices {
    records: Vec<Result<DeviceRecord, HostError>>,
    nbd: NbdLook,
}

impl Devices {
    fn all(run_dir: &Path) -> Result<Self, String> {
        let records = DeviceRecord::all(run_dir).map_err(|e| e.to_string())?;
        let nbd = NbdLook::take(run_dir).map_err(|e| format!("nbd: {e}"))?;
        Ok(Self { records, nbd })
    }

    /// A record that cannot be read is one all the same.
    fn are_none(&self) -> bool {
        self.records.is_empty() && self.nbd.devices.is_empty()
    }

    fn look(&self, vigil: &mut Vigil, now: Duration, told: &mut impl FnMut(&GivenUp)) {
        let records = self.records.iter().flatten();
        let mut given_up: Vec<_> = records.filter_map(|record| look(record, vigil, now)).collect();
        for (device, of) in &self.nbd.devices {
            given_up.extend(look_nbd((device, of), self.nbd.waits, vigil, now));
        }
        vigil.end_round();
        given_up.iter().for_each(told);
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
    let waits = match survivor::is_waiting(record) {
        Ok(waits) => waits,
        Err(e) => {
            tracing::warn!("{}: {e}", record.mirror);
            vigil.unknown(&record.mirror);
            return None;
        }
    };
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
struct NbdLook {
    devices: Vec<(Found, Identity)>,
    /// Nobody serves them.
    waits: bool,
}

impl NbdLook {
    fn take(run_dir: &Path) -> io::Result<Self> {
        let devices = nbd_devices::known(run_dir)?;
        let waits = !devices.is_empty() && !Lock::is_held(run_dir, Role::Agent)?;
        Ok(Self { devices, waits })
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

/// Has a thread look that there is a watchdog: one that runs, or one that is started and, should it
/// die, started again. What fails is logged: a device that nobody watches still works.
pub fn ensure(run_dir: &Path, config: &Path) {
    let (run_dir, config) = (run_dir.to_owned(), config.to_owned());
    let thread = std::thread::Builder::new().name("watchdog".into());
    let spawned = thread.spawn(move || {
        let kept = std::env::current_exe().and_then(|own| {
            let program = own.with_file_name(PROGRAM);
            keep(&run_dir, &Start::new(&program, &run_dir, &config, manager()))
        });
        kept.unwrap_or_else(|e| nobody_watches(&e));
    });
    if let Err(e) = spawned {
        nobody_watches(&e);
    }
}

fn nobody_watches(e: &io::Error) {
    tracing::warn!(
        "{PROGRAM} does not start ({e}): if the agent dies and does not come back, its devices wait until `clpmdctrl --abandon`"
    );
}

/// Returns when another one watches, or the one that was started is not needed any more.
fn keep(run_dir: &Path, start: &Start) -> io::Result<()> {
    let mut pause = RESTART_PAUSE;
    loop {
        match Watch::take(run_dir)? {
            None => return Ok(()),
            Some(ours) => drop(ours),
        }
        match start.run()? {
            None => return Ok(()),
            Some(status) if status.success() => return Ok(()),
            Some(status) => tracing::warn!("{PROGRAM} ended ({status}); it is started again"),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The service manager's way to start a process outside of the agent's own unit: whatever stops the
/// unit ends all that is in it. `None`: this process is in no unit.
fn manager() -> Option<&'static Path> {
    std::env::var_os("INVOCATION_ID")?;
    let systemd_run = Path::new("/usr/bin/systemd-run");
    (Path::new("/run/systemd/system").is_dir() && systemd_run.exists()).then_some(systemd_run)
}

/// How a watchdog is started.
struct Start {
    program: PathBuf,
    arguments: Vec<OsString>,
    manager: Option<PathBuf>,
}

impl Start {
    fn new(program: &Path, run_dir: &Path, config: &Path, manager: Option<&Path>) -> Self {
        // It does not start in this process's folder.
        let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let arguments = vec![
            "--run-dir".into(),
            whole(run_dir).into(),
            "--if-none".into(),
            "--config".into(),
            whole(config).into(),
        ];
        Self { program: program.to_owned(), arguments, manager: manager.map(Path::to_owned) }
    }

    /// Runs one to its end; `None`: the service manager looks after it.
    fn run(&self) -> io::Result<Option<ExitStatus>> {
        if let Some(manager) = &self.manager {
            match self.by(manager).status() {
                Ok(status) if status.success() => return Ok(None),
                other => tracing::warn!("{} {PROGRAM}: {other:?}", manager.display()),
            }
        }
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null());
        // What ends the agent's group is not to end its watchdog.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.status().map(Some)
    }

    fn by(&self, manager: &Path) -> Command {
        let mut command = Command::new(manager);
        command.args(["--quiet", "--collect", "--no-ask-password"]);
        command.args(["--description=Watchdog of the mirror disk agent", "--service-type=exec"]);
        command.args(["--property=Restart=on-failure", "--property=OOMScoreAdjust=-1000", "--"]);
        command.arg(&self.program).args(&self.arguments).stdin(Stdio::null());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::{Start, Watch, keep};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    /// A program that writes down how it was called, each time in a line, and does `more`.
    fn script(dir: &Path, name: &str, more: &str) -> PathBuf {
        let path = dir.join(name);
        let text = format!("#!/bin/sh\necho \"$*\" >>{}/{name}.calls\n{more}\n", dir.display());
        fs::write(&path, text).expect("is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
        path
    }

    fn calls(dir: &Path, name: &str) -> Vec<String> {
        let text = fs::read_to_string(dir.join(format!("{name}.calls"))).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn one_in_a_unit_is_started_outside_of_it_with_the_configuration() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let dir = dir.path();
        let (watchdog, manager) = (script(dir, "watchdog", ""), script(dir, "manager", ""));
        let start = Start::new(&watchdog, dir, Path::new("/etc/x.toml"), Some(&manager));
        keep(dir, &start).expect("starts");
        let [call] = &calls(dir, "manager")[..] else { panic!("called once") };
        let own = format!(
            "{} --run-dir {} --if-none --config /etc/x.toml",
            watchdog.display(),
            dir.display()
        );
        assert!(call.ends_with(&format!("-- {own}")), "{call}");
        assert!(calls(dir, "watchdog").is_empty(), "the manager starts it");
    }

    #[test]
    fn without_a_manager_that_does_it_the_agent_starts_it_and_again_when_it_dies() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let dir = dir.path();
        let refuses = script(dir, "manager", "exit 1");
        // It dies once.
        let dies = format!("[ $(wc -l <{}/watchdog.calls) -ge 2 ]", dir.display());
        let watchdog = script(dir, "watchdog", &dies);
        let start = Start::new(&watchdog, dir, Path::new("/etc/x.toml"), Some(&refuses));
        keep(dir, &start).expect("starts");
        assert_eq!(calls(dir, "manager").len(), 2);
        let seen = calls(dir, "watchdog");
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(seen[0].contains("--if-none --config /etc/x.toml"), "{seen:?}");
        // Who finds one leaves it alone.
        let _watches = Watch::take(dir).expect("lock").expect("is free");
        keep(dir, &start).expect("looks");
        assert_eq!(calls(dir, "watchdog").len(), 2);
    }

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
