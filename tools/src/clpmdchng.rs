//! `clpmdchng`: prepares a replaced disk.

use crate::cli::Common;
use crate::clpmdinit::blank;
use crate::out::{EXIT_CODES, Failure};
use crate::partition::lies_on;
use clap::Parser;
use mirror_agent::config::{Config, MirrorConfig};
use mirror_agent::lock::{Lock, Role};
use mirror_agent::messages::MdCode;
use std::io::Write;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Example, on the server whose disk was replaced:
  systemctl stop clusterpro_md
  (make the partitions on the new disk)
  clpmdchng --execute /dev/sdb
  systemctl start clusterpro_md
  clpmdstat --mirror md1 --watch

The mirrors on that disk then count as never used on this server, and recovery brings all of
their data back from the other one. `clpmdchnng` is the same command.";

/// Prepare every cluster partition on a replaced disk (the agent must be stopped)
#[derive(Parser, Debug)]
#[command(name = "clpmdchng", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    /// The new disk
    #[arg(long, value_name = "DISK DEVICE", required = true)]
    pub execute: PathBuf,
    /// This server's name, if the host name is another
    #[arg(long, value_name = "NAME")]
    pub server: Option<String>,
    /// Common options
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// The agent runs, no mirror lies on the disk, or a partition cannot be written.
pub fn run(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let config = Config::load(&args.common.file(), args.server.as_deref())?;
    config.check_partitions()?;
    let _lock = Lock::take(&config.agent.run_dir, Role::Chng)?;
    let found = on_disk(&config, &args.execute)?;
    for (mirror, path) in &found {
        writeln!(out, "{}: {} will be made blank.", mirror.name, path.display())?;
    }
    for (mirror, path) in &found {
        blank(&config, (mirror, path), out)?;
    }
    let peer = &config.peer().name;
    writeln!(out, "Next: systemctl start clusterpro_md")?;
    for (mirror, _) in &found {
        let name = &mirror.name;
        writeln!(
            out,
            "{name} is then copied from {peer}; if auto_recovery is off: clpmdctrl --recovery {name}"
        )?;
    }
    Ok(())
}

/// The mirrors whose cluster partition on this server lies on `disk`. A partition that is not
/// there is not on it, but a disk that is not there is an error.
fn on_disk<'a>(
    config: &'a Config,
    disk: &Path,
) -> Result<Vec<(&'a MirrorConfig, &'a Path)>, Failure> {
    let missing = |e| {
        Failure::new(
            MdCode::BadOptions,
            format!("{} {}: {e}", MdCode::BadOptions.text(), disk.display()),
        )
    };
    std::fs::metadata(disk).map_err(missing)?;
    let side = config.side.index();
    let all = config.mirrors.iter().map(|m| (m, m.partitions[side].cluster.as_path()));
    let found: Vec<_> = all.filter(|(_, p)| lies_on(p, disk).unwrap_or(false)).collect();
    if found.is_empty() {
        let what = format!("no cluster partition of this server lies on {}", disk.display());
        let failure = Failure::new(MdCode::NoMirror, MdCode::NoMirror.fill(&[&what]));
        let missing =
            config.mirrors.iter().map(|m| &m.partitions[side].cluster).find(|p| !p.exists());
        return Err(match missing {
            Some(p) => {
                failure.next(format!("make the partitions first: {} is not there", p.display()))
            }
            None => failure,
        });
    }
    Ok(found)
}
