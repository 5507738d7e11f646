//! The blocking client of the tools.

use super::{LINE_MAX, Query, Reply, Request, Response, VERSION};
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Silence after which the agent counts as hung. It sends `Progress` far more often.
const SILENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens on the socket: the agent does not run.
    NoAgent(io::Error),
    /// The socket belongs to somebody else.
    Forbidden(io::Error),
    /// The connection broke, or the agent is silent.
    Broken(io::Error),
    /// The agent answered with something else than this protocol.
    Protocol(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAgent(e) => write!(f, "the agent does not run on this server: {e}"),
            Self::Forbidden(e) => write!(
                f,
                "this user may not talk to the agent: root may, and the members of control_group ({e})"
            ),
            Self::Broken(e) => write!(f, "the agent does not answer ({e})"),
            Self::Protocol(what) => write!(f, "the agent's answer was not understood: {what}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// A connection to the agent.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the agent's socket.
    ///
    /// # Errors
    /// Nobody listens, or this user may not.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        Self::connect_within(socket, SILENCE)
    }

    /// The same, with another time limit for each answer.
    ///
    /// # Errors
    /// Nobody listens, or this user may not.
    pub fn connect_within(socket: &Path, silence: Duration) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Forbidden(e),
            _ => ClientError::NoAgent(e),
        })?;
        let limits = stream.set_read_timeout(Some(silence));
        limits
            .and_then(|()| stream.set_write_timeout(Some(silence)))
            .map_err(ClientError::Broken)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks, and waits for the answer; `progress` is called with the seconds so far.
    ///
    /// # Errors
    /// The agent went away, is silent, or speaks another version.
    pub fn ask(
        &mut self,
        request: Request,
        mut progress: impl FnMut(u64),
    ) -> Result<Response, ClientError> {
        let mut line = serde_json::to_vec(&Query { version: VERSION, request })
            .map_err(|e| ClientError::Protocol(e.to_string()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(ClientError::Broken)?;
        loop {
            match self.reply()? {
                Response::Progress(seconds) => progress(seconds),
                other => return Ok(other),
            }
        }
    }

    fn reply(&mut self) -> Result<Response, ClientError> {
        let mut line = Vec::new();
        let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
        self.stream
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut line)
            .map_err(ClientError::Broken)?;
        if line.is_empty() {
            let gone = io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
            return Err(ClientError::Broken(gone));
        }
        let reply = Reply::parse(&line).map_err(ClientError::Protocol)?;
        Ok(reply.response)
    }
}
