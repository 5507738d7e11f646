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
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Events that may wait.
const QUEUE: usize = 256;
/// A mail program that has not ended after so long is ended.
const MAIL_LIMIT: Duration = Duration::from_secs(10);
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
            failed.extend(mail(program, to, &line, MAIL_LIMIT).err());
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

fn mail(program: &Path, to: &str, line: &str, limit: Duration) -> io::Result<()> {
    let mut child = Command::new(program)
        .arg("-t")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let text = format!("To: {to}\nSubject: CLUSTERPRO\n\n{line}\n");
    // A message fits into the pipe, so this does not wait for the program.
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
    let status = wait(&mut child, limit)?;
    written?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("mail: {status}"))) }
}

/// Waits for `child`; one that takes longer than `limit` is ended.
fn wait(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::new(io::ErrorKind::TimedOut, "the mail program did not end in time"))
}

#[cfg(test)]
mod tests {
    use super::mail;
    use std::fs;
    use std::io;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    /// A mail program that runs `body`.
    fn program(dir: &tempfile::TempDir, body: &str) -> PathBuf {
        let path = dir.path().join("mailer");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).mode(0o700).open(&path).expect("script");
        io::Write::write_all(&mut file, format!("#!/bin/sh\n{body}\n").as_bytes()).expect("script");
        path
    }

    /// Sends; a script that another test's fork still holds open is tried again.
    fn send(program: &Path, limit: Duration) -> io::Result<()> {
        loop {
            match mail(program, "root", "CLUSTERPRO: text", limit) {
                Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => {}
                result => return result,
            }
        }
    }

    #[test]
    fn a_mail_has_its_receiver_and_the_line() {
        let dir = tempfile::tempdir().expect("folder");
        let got = dir.path().join("got");
        let mailer = program(&dir, &format!("cat > {}", got.display()));
        send(&mailer, Duration::from_secs(10)).expect("sent");
        let text = fs::read_to_string(got).expect("mail");
        assert_eq!(text, "To: root\nSubject: CLUSTERPRO\n\nCLUSTERPRO: text\n");
    }

    #[test]
    fn a_mail_program_that_fails_or_hangs_is_an_error() {
        let dir = tempfile::tempdir().expect("folder");
        let fails = program(&dir, "cat > /dev/null; exit 3");
        assert!(send(&fails, Duration::from_secs(10)).is_err());
        let dir = tempfile::tempdir().expect("folder");
        let hangs = program(&dir, "exec sleep 100");
        let began = Instant::now();
        let e = send(&hangs, Duration::from_millis(50)).expect_err("late");
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
