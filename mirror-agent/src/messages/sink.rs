//! Where events go: the system log, standard error, the alert log, mail.
//!
//! Sending must never hold up the agent: events pass through a bounded queue to a thread of their
//! own. Standard error takes what the system log cannot. What does not fit is counted, and the count is logged as soon as there is room.

use super::events::{Event, EventSwitches};
use crate::config::Config;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Events that may wait.
const QUEUE: usize = 256;
/// Facility `daemon` of the system log.
const FACILITY: u8 = 3;

/// Where the events of this agent go.
#[derive(Clone, Debug, Default)]
pub struct Sinks {
    /// Datagram socket of the system log.
    pub syslog: Option<PathBuf>,
    /// Also to standard error.
    pub stderr: bool,
    /// The alert log and the size in bytes at which it is turned over.
    pub alert: Option<(PathBuf, u64)>,
    /// Mail program and receiver.
    pub mail: Option<(PathBuf, String)>,
    /// Destinations that differ from the table.
    pub switches: BTreeMap<String, EventSwitches>,
}

impl Sinks {
    /// As the configuration says. The folder of the alert log is made if it is not there.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let agent = &config.agent;
        Self {
            syslog: Some(agent.syslog.clone()),
            stderr: false,
            alert: Some((agent.log_dir.join("alert.log"), agent.alert_log_bytes)),
            mail: agent.mail_to.clone().map(|to| (agent.mail_program.clone(), to)),
            switches: config.events.clone(),
        }
    }

    fn send(&self, event: &Event) {
        let spec = event.spec();
        let to = self.switches.get(&spec.name()).copied().unwrap_or(spec.to);
        let line = event.to_string();
        if self.stderr {
            eprintln!("{line}");
        }
        let mut failed = Vec::new();
        if let (true, Some(path)) = (to.syslog, &self.syslog) {
            // Where there is no system log, the service manager still keeps standard error.
            if let (Err(e), false) = (syslog(path, event.level().severity(), &line), self.stderr) {
                tracing::debug!("system log: {e}");
                eprintln!("{line}");
            }
        }
        if let (true, Some((path, limit))) = (to.alert, &self.alert) {
            failed.extend(append(path, *limit, &line).err());
        }
        if let (true, Some((program, to))) = (to.mail, &self.mail) {
            failed.extend(mail(program, to, &line).err());
        }
        for e in failed {
            tracing::warn!("event could not be delivered ({e}): {line}");
        }
    }
}

/// Handle to the thread that delivers events. Clones share it.
#[derive(Clone, Debug)]
pub struct EventLog {
    queue: SyncSender<Event>,
    missed: Arc<AtomicU64>,
}

impl EventLog {
    /// Starts the thread. It ends, after delivering what waits, when every handle is gone; the
    /// returned handle lets the caller wait for that.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(sinks: Sinks) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, waiting) = sync_channel(QUEUE);
        let missed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&missed);
        let thread = std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || deliver(&sinks, &waiting, &counter))?;
        Ok((Self { queue, missed }, thread))
    }

    /// Logs `event`; never waits.
    pub fn log(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn deliver(sinks: &Sinks, waiting: &Receiver<Event>, missed: &AtomicU64) {
    while let Ok(event) = waiting.recv() {
        sinks.send(&event);
        let lost = missed.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::error!("{lost} events did not fit into the queue and were not delivered");
        }
    }
}

fn syslog(path: &Path, severity: u8, line: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let stamp = jiff::Zoned::now().strftime("%b %e %H:%M:%S");
    let priority = FACILITY * 8 + severity;
    let text = format!("<{priority}>{stamp} clpmdagent[{}]: {line}", std::process::id());
    socket.send_to(text.as_bytes(), path).map(drop)
}

/// Appends to the alert log; at `limit` bytes it becomes `<name>.1`, which replaces an older one.
fn append(path: &Path, limit: u64, line: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let open = || OpenOptions::new().create(true).append(true).mode(0o640).open(path);
    let mut file: File = open()?;
    if file.metadata()?.len() >= limit {
        let mut older = path.as_os_str().to_owned();
        older.push(".1");
        fs::rename(path, older)?;
        file = open()?;
    }
    let stamp = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S");
    file.write_all(format!("{stamp} {line}\n").as_bytes())
}

fn mail(program: &Path, to: &str, line: &str) -> io::Result<()> {
    let mut child = Command::new(program)
        .arg("-t")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let text = format!("To: {to}\nSubject: CLUSTERPRO\n\n{line}\n");
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
    let status = child.wait()?;
    written?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("mail: {status}"))) }
}
