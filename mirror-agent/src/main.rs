//! `clpmdagent`: the mirror agent.

use clap::Parser;
use mirror_agent::agent::{End, Ended, Options, StartError, config_failure, run};
use mirror_agent::check::CheckReport;
use mirror_agent::config::{self, Config, params};
use mirror_agent::host::offers;
use mirror_agent::host::power::RealPower;
use mirror_agent::messages::{Event, EventLog, Sinks};
use mirror_agent::plant::RealPlant;
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
mirror is unmounted, closed and cleanly stopped. SIGHUP has it read the configuration again, as
`clpmdctrl --reload` does. SIGUSR2 stops it for a restart: devices that outlive
it stay in use and wait for the next agent (see agent_timeout).";

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
    /// Check the configuration, the secret and what this host offers for them, and end. Every mistake
    /// is told, with file, line and key. Exit code 0: good; 1: the configuration cannot be used; 3: a mirror cannot be served here
    #[arg(long, visible_alias = "check-config", conflicts_with = "config_help")]
    check: bool,
    /// With --check: as JSON
    #[arg(long, requires = "check")]
    json: bool,
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
        .log_internal_errors(false) // they would go there, too, and a reader that is gone is a panic
        .init();
    if args.check {
        return check(&args);
    }
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
    let failed = |e: io::Error| StartError {
        reason: mirror_agent::messages::StartReason::Socket,
        what: e.to_string(),
    };
    let (events, log) = EventLog::start(Sinks::of(&config)).map_err(failed)?;
    let notify = std::env::var_os("NOTIFY_SOCKET");
    let options = Options { events, notify, power: Arc::new(RealPower), hangup: None };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(failed)?;
    let ended = runtime.block_on(async {
        let stop = signals().map_err(failed)?;
        let hangup = Some(signal(SignalKind::hangup()).map_err(failed)?);
        let options = Options { hangup, ..options };
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

fn check(args: &Args) -> ExitCode {
    let file = config::file(args.config.clone());
    let config = Config::load(&file, args.server.as_deref());
    let report = CheckReport::new(file.display().to_string(), &config, &offers::gather());
    let text = if args.json {
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    } else {
        report.to_string()
    };
    // A closed output is no error; the exit code still tells.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::from(report.code())
}

/// Ready at the first SIGTERM or SIGINT, or at SIGUSR2: then devices stay where they can.
fn signals() -> io::Result<impl Future<Output = End>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut usr2 = signal(SignalKind::user_defined2())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => End::Stop,
            _ = int.recv() => End::Stop,
            _ = usr2.recv() => End::Suspend,
        }
    })
}

/// An agent whose rules can be dropped is for no server.
const _: () = assert!(!mirror_core::rules::CAN_DROP || cfg!(debug_assertions));
