//! The configuration: one TOML file, the same on both servers.
//!
//! [`params`] is the single table of what may be said; [`Config::load`] checks a file against it
//! and gives typed values; the manual page is printed from the same table.

mod change;
mod devices;
mod doc;
mod load;
mod mistakes;
mod model;
mod names;
pub mod params;
mod place;
mod read;
mod said;

pub use change::{Change, Plan, Situation, decide};
pub use mistakes::{ConfigError, Fault, Mistake};
pub use model::{
    AgentConfig, Alone, AutoRecovery, Config, FileSystem, FrontEnd, FsckConfig, FsckTiming,
    MetricsAddress, MirrorConfig, MountConfig, Partitions, Server, Timing, UmountAction,
    UmountConfig,
};

/// Where the configuration is when nothing else is said.
pub const DEFAULT_FILE: &str = "/etc/clpmd/clpmd.toml";

/// Where the agent's locks and its control socket are when nothing else is said: a folder that is
/// its own, whoever has made it.
pub const RUN_DIR: &str = "/run/clpmd";

/// The file to read: `given` (from `--config`), else `CLPMD_CONFIG`, else [`DEFAULT_FILE`].
#[must_use]
pub fn file(given: Option<std::path::PathBuf>) -> std::path::PathBuf {
    given
        .or_else(|| std::env::var_os("CLPMD_CONFIG").map(Into::into))
        .unwrap_or_else(|| DEFAULT_FILE.into())
}

#[cfg(test)]
mod tests;
