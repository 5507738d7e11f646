//! `clpmdinit`: makes the cluster partition of a mirror anew.

use crate::cli::Common;
use crate::out::{EXIT_CODES, Failure};
use crate::wipe;
use clap::{Parser, ValueEnum};
use mirror_agent::config::{Config, MirrorConfig};
use mirror_agent::host::power::ResetMark;
use mirror_agent::lock::{Lock, LockError, Role};
use mirror_agent::messages::MdCode;
use std::io::{self, Write};
use std::path::Path;

const EXAMPLES: &str = "\
Example, after the data partition was resized (on both servers):
  systemctl stop clusterpro_md
  clpmdinit --create force md1
  systemctl start clusterpro_md
  clpmdstat --mirror md1 --watch

The mirror then counts as never used: when both agents run again, the first construction copies
all from the first server of the configuration to the second. The data partition is not touched.
Do the same after restoring a disk from an image.";

/// How to create.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Create {
    /// Whatever the cluster partition holds
    Force,
}

/// Make the cluster partition of a mirror disk anew (the agent must be stopped)
#[derive(Parser, Debug)]
#[command(name = "clpmdinit", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    /// Overwrite what is there
    #[arg(long, value_name = "force", required = true)]
    pub create: Create,
    /// The mirror disk
    #[arg(value_name = "MD")]
    pub mirror: String,
    /// This server's name, if the host name is another
    #[arg(long, value_name = "NAME")]
    pub server: Option<String>,
    /// Common options
    #[command(flatten)]
    pub common: Common,
}

impl From<LockError> for Failure {
    fn from(e: LockError) -> Self {
        let next = match e {
            LockError::Held(Role::Agent) => "systemctl stop clusterpro_md",
            LockError::Held(_) => "wait until it has ended",
            LockError::Io(_) => "",
        };
        Self::new(MdCode::Failed, MdCode::Failed.fill(&[&e.to_string()])).next(next)
    }
}

/// Zeroes one cluster partition. What its disk did before is forgotten with it.
pub(crate) fn blank(
    config: &Config,
    (mirror, path): (&MirrorConfig, &Path),
    out: &mut impl Write,
) -> Result<(), Failure> {
    let failed = |e: io::Error| {
        let text = MdCode::WriteCluster.text();
        Failure::new(MdCode::WriteCluster, format!("{text} {}: {e}", path.display()))
    };
    let file = wipe::open(path).map_err(failed)?;
    let mut file = wipe::lock(file).map_err(failed)?;
    let bytes = wipe::zero(&mut file).map_err(failed)?;
    let name = &mirror.name;
    ResetMark::of(&config.agent.log_dir, name).clear().map_err(|e| {
        let what = format!("the mark of a reset in {}: {e}", config.agent.log_dir.display());
        Failure::new(MdCode::Failed, MdCode::Failed.fill(&[&what]))
    })?;
    writeln!(out, "{name}: cluster partition {} ({bytes} bytes) is blank.", path.display())?;
    Ok(())
}

/// Runs the command.
///
/// # Errors
/// The agent runs, the mirror is not configured, or the partition cannot be written.
pub fn run(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let config = Config::load(&args.common.file(), args.server.as_deref())?;
    let mirror = config.mirror(&args.mirror).ok_or_else(|| {
        Failure::new(MdCode::NoMirror, MdCode::NoMirror.fill(&[&args.mirror])).next("clpmdstat -l")
    })?;
    config.check_partitions()?;
    let _lock = Lock::take(&config.agent.run_dir, Role::Init)?;
    let cluster = &mirror.partitions[config.side.index()].cluster;
    blank(&config, (mirror, cluster), out)?;
    let peer = &config.peer().name;
    writeln!(
        out,
        "Next: the same on {peer} if the data partition was resized, then on both: systemctl start clusterpro_md"
    )?;
    Ok(())
}
