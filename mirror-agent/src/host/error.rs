//! What can go wrong between the NBD socket and the mounted file system, with the result code
//! that the commands and the cluster manager know it by.

use super::command::CommandError;
use super::holders::Holder;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A failure of activation or deactivation outside the mirror itself. `Display` gives the message
/// that belongs to [`HostError::md_code`].
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The configuration asks for something impossible (code 2).
    #[error("Options or parameters are invalid. ({0})")]
    Invalid(String),
    /// The system refused something that is not a command (code 30).
    #[error("Internal error[status={what}: {source}]")]
    System {
        /// What was attempted.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// The device name is taken by something that the agent did not make (code 30).
    #[error("Internal error[status={} exists and is not ours: {detail}]", path.display())]
    NameTaken {
        /// The name.
        path: PathBuf,
        /// What is there.
        detail: String,
    },
    /// Something is mounted on the mount point already (code 80).
    #[error("Mount point was already mounted.({})", .0.display())]
    AlreadyMounted(PathBuf),
    /// A command did not end in time (code 83).
    #[error("Command timeout({command}, timeout={})", limit.as_secs())]
    Timeout {
        /// The command with its arguments.
        command: String,
        /// Its limit.
        limit: Duration,
    },
    /// The mirror is not mounted on its mount point (code 84).
    #[error("Mount point was not mounted. ({})", .0.display())]
    NotMounted(PathBuf),
    /// The mount point is not there and cannot be made (code 87).
    #[error("Creating of mount point was failed. ({}: {source})", path.display())]
    MountPoint {
        /// The mount point.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A command failed or could not be started (code 89).
    #[error("Command failed. ({0})")]
    Command(String),
    /// The file system cannot be unmounted, because it is in use (code 89).
    #[error("Command failed. (umount {}: {}{})", mount_point.display(), detail, Held(holders))]
    Busy {
        /// The mount point.
        mount_point: PathBuf,
        /// What the last attempt said.
        detail: String,
        /// The processes that use it.
        holders: Vec<Holder>,
    },
    /// The device cannot be mounted, and nothing, or something else, is found on it (code 89).
    #[error("Command failed. (mount {}: {})", device.display(), Lacking { kind, found })]
    NoFileSystem {
        /// The device.
        device: PathBuf,
        /// The file system that is configured.
        kind: &'static str,
        /// What was found instead; `None` = nothing.
        found: Option<String>,
    },
    /// A file system was to be made where there is something already (code 89).
    #[error("Command failed. (mkfs {}: refused, it holds {found})", device.display())]
    NotEmpty {
        /// The device.
        device: PathBuf,
        /// What was found on it.
        found: String,
    },
    /// The file system check left errors or broke off (code 89).
    #[error("Command failed. (fsck {}: exit code {code}: {meaning})", device.display())]
    Fsck {
        /// The device.
        device: PathBuf,
        /// Exit code of the check.
        code: i32,
        /// What the code says.
        meaning: &'static str,
    },
}

impl HostError {
    /// The `md` result code (1-89) that this error is reported with.
    #[must_use]
    pub fn md_code(&self) -> u8 {
        match self {
            Self::Invalid(_) => 2,
            Self::System { .. } | Self::NameTaken { .. } => 30,
            Self::AlreadyMounted(_) => 80,
            Self::Timeout { .. } => 83,
            Self::NotMounted(_) => 84,
            Self::MountPoint { .. } => 87,
            Self::Command(_)
            | Self::Busy { .. }
            | Self::NoFileSystem { .. }
            | Self::NotEmpty { .. }
            | Self::Fsck { .. } => 89,
        }
    }

    /// A refusal by the system, with what was attempted.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

impl From<CommandError> for HostError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::TimedOut { command, limit } => Self::Timeout { command, limit },
            other => Self::Command(other.to_string()),
        }
    }
}

struct Lacking<'a> {
    kind: &'a str,
    found: &'a Option<String>,
}

impl fmt::Display for Lacking<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found {
            None => write!(f, "no file system is found on it"),
            Some(found) => write!(f, "it holds {found}, and the configuration says {}", self.kind),
        }
    }
}

struct Held<'a>(&'a [Holder]);

impl fmt::Display for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, holder) in self.0.iter().enumerate() {
            let lead = if i == 0 { "; held by " } else { ", " };
            write!(f, "{lead}{} ({})", holder.pid, holder.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_codes_are_those_of_the_manual() {
        let mounted = HostError::AlreadyMounted("/mnt/md1".into());
        assert_eq!(mounted.to_string(), "Mount point was already mounted.(/mnt/md1)");
        assert_eq!(mounted.md_code(), 80);
        let limit = Duration::from_secs(120);
        let slow = HostError::from(CommandError::TimedOut { command: "mount".into(), limit });
        assert_eq!(slow.to_string(), "Command timeout(mount, timeout=120)");
        assert_eq!(slow.md_code(), 83);
        let absent = HostError::NotMounted("/mnt/md1".into());
        assert_eq!(absent.to_string(), "Mount point was not mounted. (/mnt/md1)");
        assert_eq!(absent.md_code(), 84);
    }

    #[test]
    fn a_busy_file_system_names_who_holds_it() {
        let holder = |pid, name: &str| Holder { pid, name: name.into(), uses: "working folder" };
        let busy = HostError::Busy {
            mount_point: "/m".into(),
            detail: "target is busy".into(),
            holders: vec![holder(7, "sh"), holder(9, "postgres")],
        };
        let text = "Command failed. (umount /m: target is busy; held by 7 (sh), 9 (postgres))";
        assert_eq!(busy.to_string(), text);
        assert_eq!(busy.md_code(), 89);
    }
}
