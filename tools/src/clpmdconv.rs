//! `clpmdconv`: writes our configuration from the product's own.

use crate::clpconf::{self, Converted, FILE_MAX};
use crate::out::{EXIT_CODES, Failure};
use clap::Parser;
use mirror_agent::config::Config;
use mirror_agent::messages::MdCode;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  clpmdconv /opt/nec/clusterpro/etc/clp.conf                      print it
  clpmdconv --output /etc/clpmd/clpmd.toml clp.conf               write it, if there is none yet

What is not taken over is listed on standard error, and at the top of what is written, each with its
reason. The secret is not part of it. The cluster partitions are not read: the product's state on them
means nothing here; make them blank (clpmdinit --create force) and construct the mirrors anew. The data
partitions stay as they are: the first server's content is copied to the second.";

/// Write a configuration from a clp.conf
#[derive(Parser, Debug)]
#[command(name = "clpmdconv", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Args {
    /// The product's configuration
    #[arg(value_name = "CLP.CONF")]
    pub file: PathBuf,
    /// Write to this file, which must not exist yet [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// The file cannot be read or used, or what was made of it cannot be written or used.
pub fn run(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let name = args.file.display();
    let wrong = |what: String| Failure::new(MdCode::NoConfig, format!("{name}: {what}"));
    let bytes = read(&args.file).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let Converted { toml, left } = clpconf::convert(&bytes).map_err(wrong)?;
    match &args.output {
        None => out.write_all(toml.as_bytes())?,
        Some(path) => write_new(path, &toml)?,
    }
    for line in &left {
        // Standard error may be closed; the list is in the file, too.
        let _ = writeln!(io::stderr(), "not taken over: {line}");
    }
    check(args.output.as_deref(), &toml)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::new(MdCode::Failed, format!("{}: {e}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// What was made of it must be what the agent takes.
fn check(path: Option<&Path>, toml: &str) -> Result<(), Failure> {
    let name = path.unwrap_or(Path::new("standard output"));
    let config = Config::parse_anywhere(name, toml).map_err(|e| {
        let what = format!("{}\n{e}", MdCode::NoConfig.text());
        Failure::new(MdCode::NoConfig, what)
            .next("correct what was written, then: clpmdagent --check")
    })?;
    let _ = writeln!(
        io::stderr(),
        "{} mirrors. Next: read it, copy it to both servers; clpmdagent --check",
        config.mirrors.len()
    );
    Ok(())
}
