//! `clpmdwatch`: stops the devices of an agent that does not come back.

use clap::Parser;
use mirror_agent::config::{self, Config};
use mirror_agent::host::watchdog::{GivenUp, Watch};
use mirror_agent::messages::{Event, EventLog, Sinks, driver};
use nix::sys::mman::{MlockAllFlags, mlockall};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Pause between two attempts to become the one that watches.
const PAUSE: Duration = Duration::from_secs(2);

/// Watches the kernel devices of the mirrors: one whose agent is gone for longer than
/// agent_timeout is stopped, and what waits on it gets I/O errors
#[derive(Parser, Debug)]
#[command(name = "clpmdwatch", version)]
struct Args {
    /// Configuration file [default: CLPMD_CONFIG, else /etc/clpmd/clpmd.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder with the agent's records [default: run_dir of the configuration]
    #[arg(long, value_name = "FOLDER")]
    run_dir: Option<PathBuf>,
    /// End if another one watches, and with the last device
    #[arg(long)]
    if_none: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .log_internal_errors(false) // they would go there, too, and a reader that is gone is a panic
        .init();
    match watch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn watch(args: &Args) -> io::Result<()> {
    let config = Config::load_anywhere(&config::file(args.config.clone())).ok();
    let run_dir = args
        .run_dir
        .clone()
        .or_else(|| config.as_ref().map(|c| c.agent.run_dir.clone()))
        .unwrap_or_else(|| config::RUN_DIR.into());
    // What is to be ended may be what its pages would be read from. Without the right to, it
    // works as long as its pages stay.
    let _ = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE);
    let Some(watch) = take(&run_dir, args.if_none)? else { return Ok(()) };
    let sinks = config
        .as_ref()
        .map_or_else(|| Sinks { syslog: Some("/dev/log".into()), ..Sinks::default() }, Sinks::of);
    let (events, log) = EventLog::start(sinks)?;
    watch.run(&run_dir, args.if_none, |given_up| tell(&events, given_up));
    drop(events);
    let _ = log.join(); // all was said on standard error, too
    Ok(())
}

fn take(run_dir: &Path, if_none: bool) -> io::Result<Option<Watch>> {
    loop {
        match Watch::take(run_dir) {
            Ok(None) if if_none => return Ok(None),
            Ok(Some(watch)) => return Ok(Some(watch)),
            // The agent makes the folder.
            Err(e) if if_none || e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => std::thread::sleep(PAUSE),
        }
    }
}

fn tell(events: &EventLog, given_up: &GivenUp) {
    let nmp = u8::try_from(given_up.nmp).unwrap_or(u8::MAX);
    let waited = format!("no agent for {} s", given_up.waited.as_secs());
    let event = match &given_up.failure {
        None => Event::driver(driver::GIVEN_UP, nmp, &[&waited]),
        Some(why) => Event::driver(driver::FRONT_END, nmp, &[why]),
    };
    tracing::error!("{event}");
    events.log(event);
}
