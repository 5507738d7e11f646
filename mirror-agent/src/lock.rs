//! The agent, `clpmdinit` and `clpmdchng` exclude each other (message `mdagent` 2, reasons 1-3).
//!
//! Each holds an exclusive `flock` on a file of its own in the run folder for as long as it lives;
//! the kernel drops it at exit, however that comes. Taking one is serialised by a short guard, so
//! that two that start together never both give up, and never both go on.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Who may hold a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// `clpmdagent`
    Agent,
    /// `clpmdinit`
    Init,
    /// `clpmdchng`
    Chng,
}

impl Role {
    const ALL: [Self; 3] = [Self::Agent, Self::Init, Self::Chng];

    const fn file(self) -> &'static str {
        match self {
            Self::Agent => "agent.lock",
            Self::Init => "init.lock",
            Self::Chng => "chng.lock",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "the agent",
            Self::Init => "clpmdinit",
            Self::Chng => "clpmdchng",
        })
    }
}

/// Why a lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// This one runs.
    Held(Role),
    /// The run folder cannot be used.
    Io(io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(role) => write!(f, "{role} is running on this server"),
            Self::Io(e) => write!(f, "the lock files cannot be used: {e}"),
        }
    }
}

impl std::error::Error for LockError {}

impl From<io::Error> for LockError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _held: Flock<File>,
}

impl Lock {
    /// Takes the lock of `role`, if no other role and no second of its kind runs. The folder is
    /// made (mode 0700) if it is not there. Waits for nothing but another taker's short guard.
    ///
    /// # Errors
    /// Somebody else runs, or the folder cannot be used.
    pub fn take(run_dir: &Path, role: Role) -> Result<Self, LockError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
        let _guard = guard(run_dir)?;
        for other in Role::ALL.into_iter().filter(|r| *r != role) {
            drop(try_lock(run_dir, other)?);
        }
        Ok(Self { _held: try_lock(run_dir, role)? })
    }

    /// Whether somebody holds the lock of `role` now. A taker is not disturbed by the question.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn is_held(run_dir: &Path, role: Role) -> io::Result<bool> {
        let _guard = guard(run_dir)?;
        match try_lock(run_dir, role) {
            Ok(_) => Ok(false),
            Err(LockError::Held(_)) => Ok(true),
            Err(LockError::Io(e)) => Err(e),
        }
    }
}

fn guard(run_dir: &Path) -> io::Result<Flock<File>> {
    let guard = open(run_dir, "guard.lock")?;
    Flock::lock(guard, FlockArg::LockExclusive).map_err(|(_, e)| e.into())
}

fn open(run_dir: &Path, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(run_dir.join(name))
}

fn try_lock(run_dir: &Path, role: Role) -> Result<Flock<File>, LockError> {
    match Flock::lock(open(run_dir, role.file())?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => Err(LockError::Held(role)),
        Err((_, e)) => Err(LockError::Io(e.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::{Lock, LockError, Role};

    /// Every pair, the same role twice included: one holds, the other is told who; afterwards
    /// nothing is left behind.
    #[test]
    fn every_pair_excludes_each_other() {
        let dir = tempfile::tempdir().expect("folder");
        let run = dir.path().join("run");
        for first in Role::ALL {
            for second in Role::ALL {
                let held = Lock::take(&run, first).expect("free");
                assert_eq!(Lock::is_held(&run, second).expect("asks"), first == second);
                match Lock::take(&run, second) {
                    Err(LockError::Held(who)) => assert_eq!(who, first),
                    other => panic!("{second:?} beside {first:?}: {other:?}"),
                }
                drop(held);
            }
        }
    }

    /// Takers that start together: never two at once, and never none.
    #[test]
    fn of_many_at_once_one_goes_on() {
        let dir = tempfile::tempdir().expect("folder");
        for _ in 0..1000 {
            let start = std::sync::Barrier::new(3);
            let taken = std::thread::scope(|s| {
                let take = |role| {
                    start.wait();
                    Lock::take(dir.path(), role)
                };
                let threads = Role::ALL.map(|role| s.spawn(move || take(role)));
                threads.map(|t| t.join().expect("thread"))
            });
            assert_eq!(taken.iter().filter(|t| t.is_ok()).count(), 1);
        }
    }
}
