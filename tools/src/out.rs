//! What a program says at its end: output, errors and exit codes.

use mirror_agent::config::ConfigError;
use mirror_agent::ctl::{ClientError, Refused};
use mirror_agent::messages::MdCode;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// Why a program ends with an error.
#[derive(Debug)]
pub enum Failure {
    /// With this code; what happened; the next step, if any.
    Md(Refused),
    /// Nobody reads the output any more: that is no error.
    Pipe,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Md(r) if r.next.is_empty() => f.write_str(&r.message),
            Self::Md(r) => write!(f, "{}\nNext: {}", r.message, r.next),
            Self::Pipe => f.write_str("the output was closed"),
        }
    }
}

impl Failure {
    /// A failure without a next step.
    #[must_use]
    pub fn new(code: MdCode, message: impl Into<String>) -> Self {
        Self::Md(Refused::plain(code, message))
    }

    /// Adds the next step.
    #[must_use]
    pub fn next(self, next: impl Into<String>) -> Self {
        match self {
            Self::Md(r) => Self::Md(Refused { next: next.into(), ..r }),
            Self::Pipe => Self::Pipe,
        }
    }

    /// The exit code; 0 for a closed output.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Md(r) => r.code.number(),
            Self::Pipe => 0,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::Pipe,
            _ => Self::new(MdCode::Internal, MdCode::Internal.fill(&[&e.to_string()])),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        Self::new(MdCode::NoConfig, format!("{} {e}", MdCode::NoConfig.text()))
            .next("clpmdagent --check, once the file is corrected")
    }
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        match e {
            ClientError::NoAgent(_) => {
                Self::new(MdCode::NoAgent, format!("{} ({e})", MdCode::NoAgent.text()))
                    .next("systemctl start clusterpro_md")
            }
            other => Self::new(MdCode::Internal, MdCode::Internal.fill(&[&other.to_string()])),
        }
    }
}

/// Ends a program: prints what went wrong to standard error and gives the exit code.
pub fn finish(program: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Pipe) {
                // Standard error may be closed, too; the exit code still tells.
                let _ = writeln!(io::stderr(), "{program}: {failure}");
            }
            ExitCode::from(failure.code())
        }
    }
}

/// The exit codes for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   the agent does not run
  2   wrong options or parameters
  4   the configuration cannot be used
  30  internal error
  77  no such mirror disk in the configuration
  79  the cluster partition cannot be read or is not valid
  80  mounted or active already
  81  this server does not, or cannot know that it does, hold the latest data
  82  the cluster partition cannot be written
  83  a command took too long
  84  not mounted or not active
  87  the mount point cannot be made
  89  a command failed or was refused for another reason";
