//! `clpmdagent`: the mirror agent.

use clap::Parser;
use mirror_agent::agent::{Ended, Options, StartError, config_failure, run};
use mirror_agent::config::{self, Config, params};
use mirror_agent::host::power::RealPower;
use mirror_agent::messages::{Event, EventLog, Sinks};
use mirror_agent::plant::RealPlant;
use mirror_agent::secret::Secret;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Exit code of an agent that ended by itself; the service manager may reset the server for it.
const DIED: u8 = 3;

const AFTER: &str = "\
The service starts it as: clpmdagent
By hand, on a host with another name:  clpmdagent --server server1 --config ./two-servers.toml

RUST_LOG sets what is logged to standard error [default: info]. SIGTERM and SIGINT stop it: every
mirror is unmounted, closed and cleanly stopped.";

/// The mirror agent: serves the mirror disks of this server
#[derive(Parser, Debug)]
#[command(name = "clpmdagent", version, after_help = AFTER)]
struct Args {
    /// Configuration file [default: CLPMD_CONFIG, else /etc/clpmd/clpmd.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// This server's name, if the host name is another
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Check the configuration and the secret, and end
    #[arg(long, conflicts_with = "config_help")]
    check: bool,
    /// Print the manual page of the configuration, and end
    #[arg(long)]
    config_help: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.config_help {
        // A closed output is no error.
        let _ = io::stdout().write_all(params::manual().as_bytes());
        return ExitCode::SUCCESS;
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let color = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(color)
        .with_writer(io::stderr)
        .init();
    match start(&args) {
        Ok(Ended::Cleanly) => ExitCode::SUCCESS,
        Ok(Ended::Uncleanly) => ExitCode::FAILURE,
        Ok(Ended::Died) => ExitCode::from(DIED),
        Err(e) => {
            tracing::error!("{}", Event::AgentStartFailed(e.reason));
            tracing::error!("{}", e.what);
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<Ended, StartError> {
    let file = config::file(args.config.clone());
    let config = Config::load(&file, args.server.as_deref())
        .map_err(|e| say_without_config(&config_failure(&e)))?;
    if args.check {
        return Ok(if check(&config) { Ended::Cleanly } else { Ended::Uncleanly });
    }
    let failed = |e: io::Error| StartError {
        reason: mirror_agent::messages::StartReason::Socket,
        what: e.to_string(),
    };
    let (events, log) = EventLog::start(Sinks::of(&config)).map_err(failed)?;
    let notify = std::env::var_os("NOTIFY_SOCKET");
    let options = Options { events, notify, power: Arc::new(RealPower) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(failed)?;
    let ended = runtime.block_on(async {
        let stop = signals().map_err(failed)?;
        let plant = RealPlant(options.events.clone());
        run(config, Arc::new(plant), options, stop).await
    });
    // What hangs with a dead driver must not keep the process.
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    if log.join().is_err() {
        tracing::error!("the event log ended abnormally");
    }
    ended
}

/// Without a configuration, the events' usual places are all that is known.
fn say_without_config(e: &StartError) -> StartError {
    let sinks = Sinks { syslog: Some("/dev/log".into()), ..Sinks::default() };
    if let Ok((events, log)) = EventLog::start(sinks) {
        events.log(Event::AgentStartFailed(e.reason));
        drop(events);
        let _ = log.join(); // it is said on standard error, too
    }
    StartError { reason: e.reason, what: e.what.clone() }
}

fn check(config: &Config) -> bool {
    let secret = Secret::load(&config.agent.secret_file).map_err(|e| e.to_string());
    match config.check_partitions().map_err(|e| e.to_string()).and(secret) {
        Ok(_) => {
            tracing::info!(
                "{}: good; this server is {}",
                config.file.display(),
                config.local().name
            );
            true
        }
        Err(e) => {
            tracing::error!("{e}");
            false
        }
    }
}

/// Ready at the first SIGTERM or SIGINT.
fn signals() -> io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// An agent whose rules can be dropped is for no server.
const _: () = assert!(!mirror_core::rules::CAN_DROP || cfg!(debug_assertions));
