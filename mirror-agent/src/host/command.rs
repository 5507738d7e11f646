//! Runs external commands: never through a shell, always with a time limit, with bounded output,
//! and so that nothing of a command that was given up runs on.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Bytes kept of each output stream; the rest is read and dropped, so that the command goes on.
pub const OUTPUT_LIMIT: usize = 64 * 1024;

/// Where commands are looked for: the agent does not depend on who started it.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long the output of an ended command is still read: a daemon that it left behind may hold
/// its pipes open for ever.
const DRAIN_GRACE: Duration = Duration::from_millis(250);

/// How long a killed command is waited for. One that hangs in the kernel ignores SIGKILL; it is
/// reaped in the background whenever it ends.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// Makes commands that are looked up in one search path.
#[derive(Clone, Debug)]
pub struct Runner {
    path: OsString,
}

impl Default for Runner {
    fn default() -> Self {
        Self::with_path(SYSTEM_PATH)
    }
}

impl Runner {
    /// Looks for commands in `path` (folders separated by colons).
    #[must_use]
    pub fn with_path(path: impl Into<OsString>) -> Self {
        Self { path: path.into() }
    }

    /// The command `program`, to be run for at most `limit`.
    #[must_use]
    pub fn command(&self, program: &str, limit: Duration) -> Cmd {
        Cmd { program: program.into(), args: Vec::new(), path: self.path.clone(), limit }
    }
}

/// A command that has not been started yet.
#[derive(Clone, Debug)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    path: OsString,
    limit: Duration,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a command that ended by itself left.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, at most [`OUTPUT_LIMIT`] bytes.
    pub stdout: String,
    /// Its error output, at most [`OUTPUT_LIMIT`] bytes.
    pub stderr: String,
}

impl Output {
    /// The most telling line: the last one of the error output, else of the output.
    #[must_use]
    pub fn last_line(&self) -> &str {
        let last = |text| -> Option<&str> {
            str::lines(text).map(str::trim).rfind(|line| !line.is_empty())
        };
        last(&self.stderr).or_else(|| last(&self.stdout)).unwrap_or("no output")
    }
}

/// Why a command brought no usable result.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started; most often it is not installed.
    #[error("{command}: cannot be started: {source}")]
    NotStarted {
        /// The command with its arguments.
        command: String,
        /// The reason.
        source: io::Error,
    },
    /// It did not end in time and was killed, with all that it had started in its process group.
    #[error("{command}: not ended within {} seconds", limit.as_secs_f32())]
    TimedOut {
        /// The command with its arguments.
        command: String,
        /// The limit.
        limit: Duration,
    },
    /// It ended with something else than exit code 0.
    #[error("{command}: {exit}: {detail}")]
    Failed {
        /// The command with its arguments.
        command: String,
        /// How it ended.
        exit: Exit,
        /// The last line of what it said.
        detail: String,
    },
}

impl Cmd {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// The command as an operator would type it, for messages.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = self.program.to_string_lossy().into_owned();
        for arg in &self.args {
            line.push(' ');
            line.push_str(&arg.to_string_lossy());
        }
        line
    }

    /// Runs it to its end, whatever its exit code.
    ///
    /// # Errors
    /// [`CommandError::NotStarted`], [`CommandError::TimedOut`]. If the future is dropped, the
    /// command and its process group are killed.
    pub async fn run(self) -> Result<Output, CommandError> {
        tracing::debug!(command = %self.line(), "running");
        let mut child = self.start(Stdio::piped())?;
        let mut group = Group::of(&child);
        let ended = timeout(self.limit, wait_with_output(&mut child)).await;
        let Ok(ended) = ended else {
            group.kill();
            if timeout(KILL_GRACE, child.wait()).await.is_ok() {
                group.forget();
            }
            return Err(CommandError::TimedOut { command: self.line(), limit: self.limit });
        };
        group.forget();
        ended.map_err(|source| CommandError::NotStarted { command: self.line(), source })
    }

    /// Runs it and takes anything but exit code 0 as an error.
    ///
    /// # Errors
    /// As [`Self::run`], and [`CommandError::Failed`].
    pub async fn run_ok(self) -> Result<Output, CommandError> {
        let command = self.line();
        let output = self.run().await?;
        if output.exit == Exit::Code(0) {
            return Ok(output);
        }
        let detail = output.last_line().to_owned();
        Err(CommandError::Failed { command, exit: output.exit, detail })
    }

    /// Starts it as a companion that runs until it is stopped; the limit does not apply. The
    /// error output is a pipe that the caller must read. It is not killed when dropped: a carrier
    /// under a mounted file system goes down in order or not at all.
    ///
    /// # Errors
    /// [`CommandError::NotStarted`].
    pub fn spawn(self) -> Result<Child, CommandError> {
        tracing::debug!(command = %self.line(), "starting");
        self.start(Stdio::null())
    }

    fn start(&self, stdout: Stdio) -> Result<Child, CommandError> {
        Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .env("PATH", &self.path)
            .env("LC_ALL", "C") // messages are compared and shown
            .current_dir("/") // never keep a file system busy by standing in it
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| CommandError::NotStarted { command: self.line(), source })
    }
}

/// The process group of a running command; killed when dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    fn kill(&self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL); // ESRCH: it is gone, as wanted
        }
    }

    /// The leader has been reaped: its number may belong to somebody else from now on.
    fn forget(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn wait_with_output(child: &mut Child) -> io::Result<Output> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = {
        let reading = async { tokio::join!(keep(stdout, &mut out), keep(stderr, &mut err)) };
        tokio::pin!(reading);
        let mut all_read = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status?,
                _ = &mut reading, if !all_read => all_read = true,
            }
        };
        if !all_read {
            let _ = timeout(DRAIN_GRACE, reading).await;
        }
        status
    };
    Ok(Output { exit: status.into(), stdout: text(&out), stderr: text(&err) })
}

/// Reads to the end and keeps the first [`OUTPUT_LIMIT`] bytes.
async fn keep(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut chunk = [0_u8; 4096];
    while let Ok(n @ 1..) = stream.read(&mut chunk).await {
        let room = OUTPUT_LIMIT - kept.len();
        kept.extend_from_slice(&chunk[..n.min(room)]);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn sh(script: &str, limit: Duration) -> Cmd {
        Runner::default().command("sh", limit).arg("-c").arg(script)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn output_and_exit_code_are_kept_apart() {
        let out = sh("echo one; echo two >&2; exit 3", LONG).run().await.expect("runs");
        assert_eq!((out.exit, out.stdout.as_str()), (Exit::Code(3), "one\n"));
        assert_eq!(out.last_line(), "two");
        let failed = sh("echo why >&2; exit 3", LONG).run_ok().await.expect_err("is a failure");
        assert!(failed.to_string().ends_with("exit code 3: why"), "{failed}");
    }

    #[tokio::test]
    async fn a_missing_command_is_named() {
        let error = Runner::default().command("no-such-command", LONG).run().await;
        let error = error.expect_err("is not installed");
        assert!(error.to_string().starts_with("no-such-command: cannot be started"), "{error}");
    }

    #[tokio::test]
    async fn the_callers_search_path_decides() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let runner = Runner::with_path(dir.path());
        assert!(runner.command("true", LONG).run().await.is_err());
    }

    #[tokio::test]
    async fn output_without_end_is_bounded_and_does_not_block_the_command() {
        let out = sh("head -c 1000000 /dev/zero", LONG).run().await.expect("ends");
        assert_eq!(out.stdout.len(), OUTPUT_LIMIT);
    }

    #[tokio::test]
    async fn the_limit_kills_grandchildren_too() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! >{}; wait", pid_file.display());
        let error = sh(&script, Duration::from_millis(500)).run().await.expect_err("too long");
        assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
        let pid = std::fs::read_to_string(&pid_file).expect("was written");
        let state = format!("/proc/{}/stat", pid.trim());
        let end = Instant::now() + LONG;
        while std::fs::read_to_string(&state).is_ok_and(|s| !s.contains(") Z ")) {
            assert!(Instant::now() < end, "the grandchild lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_daemon_left_behind_does_not_hold_the_result_back() {
        let begin = Instant::now();
        let out = sh("echo up; setsid sleep 3 &", LONG).run().await.expect("ends");
        assert_eq!(out.stdout, "up\n");
        assert!(begin.elapsed() < Duration::from_secs(2), "waited for the daemon");
    }

    #[tokio::test]
    async fn no_shell_reads_the_arguments() {
        let out = Runner::default().command("echo", LONG).arg("$HOME; *").run().await;
        assert_eq!(out.expect("runs").stdout, "$HOME; *\n");
    }
}
