//! The end of a server at once: what the manual's driver does after a disk error (§10.8).
//!
//! Nothing is flushed or unmounted first: a disk that failed could hold that up for ever, and what
//! was promised to applications is on the other server already. Whoever calls this has made
//! durable what the next start must know.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// How the server ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerAction {
    /// It is reset, as by its button.
    Reset,
    /// Its kernel panics: a dump where one is set up; a reboot after it if `kernel.panic` says so.
    Panic,
}

/// What can end this server.
pub trait Power: Send + Sync + 'static {
    /// Ends it. Comes back only if that failed, or in a test.
    fn act(&self, action: PowerAction, why: &str);
}

/// This server.
#[derive(Clone, Copy, Debug)]
pub struct RealPower;

#[cfg(not(feature = "fault-injection"))]
impl Power for RealPower {
    fn act(&self, action: PowerAction, why: &str) {
        tracing::error!("this server ends now ({action:?}): {why}");
        let key = match action {
            PowerAction::Reset => "b",
            PowerAction::Panic => "c",
        };
        if let Err(e) = fs::write("/proc/sysrq-trigger", key) {
            tracing::error!("/proc/sysrq-trigger: {e}");
        }
        // A kernel without that key. This way asks its drivers first, which may take a while.
        let Err(e) = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
        tracing::error!("this server cannot be reset: {e}");
    }
}

/// A build with faults on demand never ends a server: it adds a line to the file that the variable
/// `MIRROR_POWER` names, and only the process ends, at once.
#[cfg(feature = "fault-injection")]
impl Power for RealPower {
    fn act(&self, action: PowerAction, why: &str) {
        let Some(path) = std::env::var_os("MIRROR_POWER") else {
            tracing::error!("not done, this build is for tests ({action:?}): {why}");
            return;
        };
        let line = format!("{action:?} {why}\n");
        let written = File::options()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(e) = written {
            tracing::error!("MIRROR_POWER: {e}");
        }
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::SIGKILL);
    }
}

/// Remembers, across a reboot, that this server was reset for a mirror's disk. It must not happen
/// again before the disk was replaced: a server whose disk keeps failing would never come up.
#[derive(Clone, Debug)]
pub struct ResetMark(PathBuf);

/// What became of [`ResetMark::set`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Marked {
    /// It is durable, and there was none before.
    New,
    /// There was one before.
    Before,
    /// It could not be written.
    Failed,
}

impl Marked {
    /// Whether a server may be reset for a disk error: not twice for the same disk. It must be sure
    /// that the next start knows of it, from the mirror's record or from this mark.
    #[must_use]
    pub const fn permits_reset(self, recorded: bool) -> bool {
        match self {
            Self::New => true,
            Self::Before => false,
            Self::Failed => recorded,
        }
    }
}

impl ResetMark {
    /// That of this mirror, in the folder of the logs.
    #[must_use]
    pub fn of(log_dir: &Path, mirror: &str) -> Self {
        Self(log_dir.join(format!("{mirror}.was-reset")))
    }

    /// Sets it, durably.
    #[must_use]
    pub fn set(&self, why: &str) -> Marked {
        self.create(why).unwrap_or_else(|e| {
            tracing::error!("{}: {e}", self.0.display());
            Marked::Failed
        })
    }

    fn create(&self, why: &str) -> io::Result<Marked> {
        let folder = self.0.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let mut file = match File::create_new(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(Marked::Before),
            created => created?,
        };
        file.write_all(why.as_bytes())?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        Ok(Marked::New)
    }

    /// Takes it away: the disk was replaced. What is not there is taken away.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Marked, ResetMark};

    #[test]
    fn a_mark_is_set_once_until_it_is_cleared() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = dir.path().join("log");
        let of = |name| ResetMark::of(&folder, name);
        of("md1").clear().expect("nothing to clear");
        assert_eq!(of("md1").set("why"), Marked::New);
        assert_eq!(of("md1").set("why"), Marked::Before);
        assert_eq!(of("md2").set("why"), Marked::New, "another mirror");
        of("md1").clear().expect("cleared");
        assert_eq!(of("md1").set("why"), Marked::New);
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("file");
        assert_eq!(ResetMark::of(&file, "md1").set("why"), Marked::Failed, "no folder");
    }

    #[test]
    fn no_reset_that_the_next_start_would_not_know_of() {
        assert!(Marked::New.permits_reset(false) && Marked::New.permits_reset(true));
        assert!(!Marked::Before.permits_reset(false) && !Marked::Before.permits_reset(true));
        assert!(!Marked::Failed.permits_reset(false) && Marked::Failed.permits_reset(true));
    }
}
