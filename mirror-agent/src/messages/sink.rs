//! Where events go (§12.3): the system log, standard error, the alert log, mail.
//!
//! Sending must never hold up the agent: events pass through a bounded queue to a thread of their
//! own, and mails from there to another. Standard error takes what the system log cannot. What does
//! not fit is counted, and the count is logged as soon as there is room. Lines that repeat are
//! counted, too (see `repeats`).

use super::alert::AlertLog;
use super::events::{Event, EventSwitches};
use super::mail::{Letter, Mailer};
use super::repeats::Repeats;
use crate::config::Config;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub use super::mail::Mail;

/// Events that may wait.
const QUEUE: usize = 256;
/// Facility `daemon` of the system log.
const FACILITY: u8 = 3;
/// Longest wait of the thread: nothing is due before.
const LONG: Duration = Duration::from_secs(3600);

/// Where the events of this agent go.
#[derive(Clone, Debug, Default)]
pub struct Sinks {
    /// Datagram socket of the system log.
    pub syslog: Option<PathBuf>,
    /// Also to standard error.
    pub stderr: bool,
    /// The alert log.
    pub alert: Option<AlertLog>,
    /// Mail.
    pub mail: Option<Mail>,
    /// Destinations that differ from the table, by message; `liscal` stands for all of its own.
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
            alert: Some(AlertLog {
                path: agent.log_dir.join("alert.log"),
                limit: agent.alert_log_bytes,
                keep: agent.alert_log_keep,
            }),
            mail: agent.mail_to.clone().map(|to| Mail {
                program: agent.mail_program.clone(),
                to,
                server: config.local().name.clone(),
                limit: agent.mail_timeout,
            }),
            switches: config.events.clone(),
        }
    }

    fn destinations(&self, event: &Event) -> EventSwitches {
        let message = event.message();
        let own = self.switches.get(&message.name());
        own.or_else(|| self.switches.get(message.module)).copied().unwrap_or(message.to)
    }
}

/// What the thread is handed.
#[derive(Debug)]
enum Item {
    Event(Event),
    /// Deliver to these from now on.
    Sinks(Box<Sinks>),
    /// Make durable what came before, and say so.
    Settle(oneshot::Sender<()>),
}

/// The sinks in use.
struct Delivery {
    sinks: Sinks,
    mailer: Option<Mailer>,
    repeats: Repeats<Event>,
}

impl Delivery {
    fn take(&mut self, event: &Event) {
        let line = event.to_string();
        if self.repeats.lets_through(&line, event, Instant::now()) {
            self.send(event, &line);
        }
    }

    fn reconfigure(&mut self, sinks: Sinks) {
        if sinks.mail != self.sinks.mail {
            match sinks.mail.clone().map(Mailer::start).transpose() {
                Ok(mailer) => self.mailer = mailer,
                Err(e) => tracing::error!("mail goes on as before: {e}"),
            }
        }
        self.sinks = sinks;
    }

    fn is_durable(&self) -> bool {
        self.sinks.alert.as_ref().is_none_or(|log| log.sync().is_ok())
    }

    fn tell(&self, counts: Vec<(String, Event, u64, Duration)>) {
        for (line, event, count, time) in counts {
            let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
            self.send(&event, &format!("{line} (again, {times} within {} s)", time.as_secs()));
        }
    }

    fn send(&self, event: &Event, line: &str) {
        let to = self.sinks.destinations(event);
        if self.sinks.stderr {
            to_stderr(line);
        }
        if let (true, Some(path)) = (to.syslog, &self.sinks.syslog) {
            // Where there is no system log, the service manager still keeps standard error.
            let sent = syslog(path, event.level().severity(), line);
            if let (Err(e), false) = (sent, self.sinks.stderr) {
                tracing::debug!("system log: {e}");
                to_stderr(line);
            }
        }
        if let (true, Some(log)) = (to.alert, &self.sinks.alert) {
            if let Err(e) = log.append(line) {
                tracing::warn!("not in the alert log ({e}): {line}");
            }
        }
        if let (true, Some(mailer)) = (to.mail, &self.mailer) {
            if !mailer.send(letter(event, line)) {
                tracing::warn!("not mailed, too many wait: {line}");
            }
        }
    }
}

/// The line, and what the table says about it: who is woken by it need not look it up.
fn letter(event: &Event, line: &str) -> Letter {
    let message = event.message();
    let subject = format!("{} {}", message.module, message.id);
    Letter { subject, body: format!("{line}\n\n{}", message.page()) }
}

/// Handle to the thread that delivers events. Clones share it.
#[derive(Clone, Debug)]
pub struct EventLog {
    queue: SyncSender<Item>,
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
        let mailer = sinks.mail.clone().map(Mailer::start).transpose()?;
        let delivery = Delivery { sinks, mailer, repeats: Repeats::new() };
        let missed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&missed);
        let thread = std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || deliver(delivery, &waiting, &counter))?;
        Ok((Self { queue, missed }, thread))
    }

    /// Logs `event`; never waits.
    pub fn log(&self, event: Event) {
        if self.queue.try_send(Item::Event(event)).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// From now on events go to `sinks`. Never waits: with a full queue they go on as before, and
    /// that is said.
    pub fn reconfigure(&self, sinks: Sinks) {
        if self.queue.try_send(Item::Sinks(Box::new(sinks))).is_err() {
            tracing::error!("too many events wait: they go on to where they went before");
        }
    }

    /// Waits, at most for `limit`, until what was logged before is on its way to the system log and
    /// durable in the alert log. Gives whether it is; mails are not waited for.
    pub async fn settled(&self, limit: Duration) -> bool {
        let (settle, settled) = oneshot::channel();
        self.queue.try_send(Item::Settle(settle)).is_ok()
            && matches!(tokio::time::timeout(limit, settled).await, Ok(Ok(())))
    }
}

fn deliver(mut delivery: Delivery, waiting: &Receiver<Item>, missed: &AtomicU64) {
    loop {
        let wait = delivery.repeats.wait(Instant::now()).unwrap_or(LONG);
        match waiting.recv_timeout(wait) {
            Ok(Item::Event(event)) => delivery.take(&event),
            Ok(Item::Sinks(sinks)) => delivery.reconfigure(*sinks),
            Ok(Item::Settle(settled)) => {
                if delivery.is_durable() {
                    let _ = settled.send(()); // whoever asked has waited long enough
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let due = delivery.repeats.due(Instant::now());
        delivery.tell(due);
        let lost = missed.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::error!("{lost} events did not fit into the queue and were not delivered");
        }
    }
    let rest = delivery.repeats.rest();
    delivery.tell(rest);
}

/// Nobody may read it any more.
fn to_stderr(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn syslog(path: &Path, severity: u8, line: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let stamp = jiff::Zoned::now().strftime("%b %e %H:%M:%S");
    let priority = FACILITY * 8 + severity;
    let text = format!("<{priority}>{stamp} clpmdagent[{}]: {line}", std::process::id());
    socket.send_to(text.as_bytes(), path).map(drop)
}
