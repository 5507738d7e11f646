//! Mail through the system's `sendmail`: on a thread of its own, with a time limit and a bounded
//! queue, so that a mail program that hangs holds up neither the agent nor the other logs.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// For a program that was killed to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);
/// Mails that may wait.
const QUEUE: usize = 16;

/// How mail is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mail {
    /// Program that takes a mail on its input (`-t`).
    pub program: PathBuf,
    /// Receiver.
    pub to: String,
    /// This server, for the subject; may be empty.
    pub server: String,
    /// A program that has not ended after so long is ended.
    pub limit: Duration,
}

/// What is sent.
pub(super) struct Letter {
    /// `mdadmn 5`
    pub(super) subject: String,
    pub(super) body: String,
}

/// The thread that sends. Dropping it lets what waits go out, within one time limit, and waits
/// for that.
pub(super) struct Mailer {
    queue: Option<SyncSender<Letter>>,
    thread: Option<JoinHandle<()>>,
}

impl Mailer {
    pub(super) fn start(mail: Mail) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("mail".to_owned())
            .spawn(move || deliver(&mail, &waiting))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Sends when its turn comes; false if too many wait.
    pub(super) fn send(&self, letter: Letter) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.try_send(letter).is_ok())
    }
}

impl Drop for Mailer {
    fn drop(&mut self) {
        self.queue = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the mail thread ended abnormally");
        }
    }
}

fn deliver(mail: &Mail, waiting: &Receiver<Letter>) {
    let mut failed_since: Option<Instant> = None;
    while let Ok(letter) = waiting.recv() {
        // After a program that hung, those that came meanwhile are not tried one by one.
        if failed_since.is_some_and(|at| at.elapsed() < mail.limit) {
            tracing::warn!("mail not sent, for the last one was not: {}", letter.subject);
            continue;
        }
        failed_since = None;
        if let Err(e) = mail.send(&letter) {
            tracing::warn!("mail could not be sent ({e}): {}", letter.subject);
            failed_since = (e.kind() == io::ErrorKind::TimedOut).then(Instant::now);
        }
    }
}

impl Mail {
    /// A program that is just being replaced is tried again until the time limit.
    fn start(&self) -> io::Result<Child> {
        let end = Instant::now() + self.limit;
        loop {
            let started = Command::new(&self.program)
                .arg("-t")
                .process_group(0)
                .current_dir("/")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            match started {
                Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                    std::thread::sleep(POLL);
                }
                started => return started,
            }
        }
    }

    fn send(&self, letter: &Letter) -> io::Result<()> {
        let mut child = self.start()?;
        let from = if self.server.is_empty() { String::new() } else { format!(" {}", self.server) };
        let head = format!("To: {}\nSubject: CLUSTERPRO{from}: {}\n\n", self.to, letter.subject);
        // A message fits into the pipe, so this does not wait for the program.
        let written = child
            .stdin
            .take()
            .map_or(Ok(()), |mut input| input.write_all((head + &letter.body).as_bytes()));
        let status = wait(&mut child, self.limit)?;
        written?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("it ended with {status}")))
        }
    }
}

/// Waits for `child`; one that takes longer than `limit` is ended, with what it has started.
fn wait(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(POLL);
    }
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL); // ESRCH: it has just ended
    }
    // One that waits for a device without a server does not end even then: it is left to itself,
    // since whoever serves that device next may be waiting for this process to end.
    let end = Instant::now() + KILL_LIMIT;
    while child.try_wait()?.is_none() && Instant::now() < end {
        std::thread::sleep(POLL);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the mail program did not end in time"))
}

#[cfg(test)]
mod tests {
    use super::{Letter, Mail, Mailer};
    use std::fs;
    use std::io;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    /// A mail program that runs `body`.
    fn program(dir: &tempfile::TempDir, body: &str) -> PathBuf {
        let path = dir.path().join("mailer");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).mode(0o700).open(&path).expect("script");
        io::Write::write_all(&mut file, format!("#!/bin/sh\n{body}\n").as_bytes()).expect("script");
        path
    }

    fn mail(program: PathBuf, limit: Duration) -> Mail {
        Mail { program, to: "root".to_owned(), server: "server1".to_owned(), limit }
    }

    fn letter() -> Letter {
        Letter { subject: "mdadmn 5".to_owned(), body: "the line\n".to_owned() }
    }

    fn send(mail: &Mail) -> io::Result<()> {
        mail.send(&letter())
    }

    #[test]
    fn a_mail_has_its_receiver_and_the_line() {
        let dir = tempfile::tempdir().expect("folder");
        let got = dir.path().join("got");
        let mailer = program(&dir, &format!("cat > {}", got.display()));
        send(&mail(mailer, Duration::from_secs(10))).expect("sent");
        let text = fs::read_to_string(got).expect("mail");
        assert_eq!(text, "To: root\nSubject: CLUSTERPRO server1: mdadmn 5\n\nthe line\n");
    }

    #[test]
    fn a_mail_program_that_fails_or_hangs_is_an_error() {
        let dir = tempfile::tempdir().expect("folder");
        let fails = program(&dir, "cat > /dev/null; exit 3");
        assert!(send(&mail(fails, Duration::from_secs(10))).is_err());
        let dir = tempfile::tempdir().expect("folder");
        let hangs = program(&dir, "sleep 100");
        let began = Instant::now();
        let e = send(&mail(hangs, Duration::from_millis(500))).expect_err("late");
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_mail_program_that_hangs_holds_nobody_up() {
        let dir = tempfile::tempdir().expect("folder");
        let hangs = program(&dir, "sleep 100");
        let began = Instant::now();
        let mailer = Mailer::start(mail(hangs, Duration::from_millis(300))).expect("thread");
        let taken = (0..100).filter(|_| mailer.send(letter())).count();
        assert!(began.elapsed() < Duration::from_secs(5), "the sender does not wait");
        assert!(taken < 100, "what waits is bounded");
        drop(mailer);
        assert!(began.elapsed() < Duration::from_secs(20), "the end does not wait for each");
    }
}
