//! The agent's end of the control socket.

use super::access::Access;
use super::{LINE_MAX, Query, Reply, Request, Response, VERSION};
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// Connections served at once; more wait.
const CONNECTIONS: usize = 32;
/// Time between two `Progress` replies.
const PROGRESS: Duration = Duration::from_secs(5);
/// A client that says nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(300);
/// A client that does not read for so long is let go.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Somebody who may not ask gets so long to do it.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);

/// A boxed answer to come.
pub type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Who answers. Calls of different connections run at the same time; a call runs to its end even
/// if its client goes away, unless it does nothing but wait.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn call(&self, request: Request) -> Answer<Response>;
}

/// The listening socket. It is removed when this is dropped.
#[derive(Debug)]
pub struct CtlServer {
    listener: UnixListener,
    path: PathBuf,
    access: Access,
}

impl CtlServer {
    /// Listens on `path`, for those whom `access` lets. A socket that is there is replaced: the
    /// caller holds the agent's lock, so nobody serves it. The socket never has a wider mode under
    /// that name, not for a moment.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(path: &Path, access: Access) -> io::Result<Self> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&new)?;
        access.set_on(&new)?;
        fs::rename(&new, path)?;
        Ok(Self { listener, path: path.to_owned(), access })
    }

    /// Serves until it is dropped.
    pub async fn run(self, service: Arc<dyn Service>) {
        let free = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let allowed = self.access.check(&stream);
                    let (read, write) = stream.into_split();
                    let c = Connection { read: BufReader::new(read), write };
                    match allowed {
                        Ok(()) => drop(tokio::spawn(serve(c, Arc::clone(&service), permit))),
                        Err(who) => drop(tokio::spawn(turn_away(c, who, permit))),
                    }
                }
                Err(e) => {
                    tracing::warn!("control socket: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for CtlServer {
    fn drop(&mut self) {
        // Best effort: what stays is replaced at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

/// What came in.
enum Line {
    Query(Request),
    Bad(String),
    TooLong,
    End,
}

async fn serve(mut c: Connection, service: Arc<dyn Service>, _permit: OwnedSemaphorePermit) {
    loop {
        let sent = match c.line().await {
            Line::End => return,
            Line::Query(request) => c.answer(&service, request).await,
            Line::Bad(what) => c.send(Response::Error(what)).await,
            Line::TooLong => {
                let what = format!("a line may have at most {LINE_MAX} bytes");
                let _ = c.send(Response::Error(what)).await;
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn turn_away(mut c: Connection, who: String, _permit: OwnedSemaphorePermit) {
    tracing::warn!("control socket: {who} may not give commands");
    // Its query first: who is closed on while writing does not read the answer. Best effort; it may
    // be gone already.
    let _ = timeout(REFUSAL_LIMIT, c.line()).await;
    let _ = c.send(Response::Error(format!("{who} may not talk to the agent"))).await;
}

impl Connection {
    async fn line(&mut self) -> Line {
        let mut line = Vec::new();
        let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
        let mut limited = (&mut self.read).take(limit);
        match timeout(IDLE, limited.read_until(b'\n', &mut line)).await {
            Ok(Ok(n)) if n > 0 => {}
            _ => return Line::End,
        }
        if line.last() != Some(&b'\n') {
            return if line.len() < LINE_MAX { Line::End } else { Line::TooLong };
        }
        parse(&line)
    }

    async fn answer(&mut self, service: &Arc<dyn Service>, request: Request) -> io::Result<()> {
        let mut may_leave = request.only_waits();
        // A task of its own: it must not end half-way because the client went away.
        let mut call = tokio::spawn(service.call(request));
        let began = Instant::now();
        let mut tick = interval_at(began + PROGRESS, PROGRESS);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let response = loop {
            tokio::select! {
                done = &mut call => break done.unwrap_or_else(|e| {
                    tracing::error!("a request ended abnormally: {e}");
                    Response::Error("the agent failed on this request; see its log".to_owned())
                }),
                more = self.read.fill_buf(), if may_leave => match more {
                    Ok(more) if !more.is_empty() => may_leave = false, // the next query, already
                    _ => {
                        call.abort(); // what it holds is for others
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                },
                _ = tick.tick() => self.send(Response::Progress(began.elapsed().as_secs())).await?,
            }
        };
        self.send(response).await
    }

    async fn send(&mut self, response: Response) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Reply { version: VERSION, response })?;
        if line.len() >= LINE_MAX {
            let response = Response::Error("the answer is too long: ask for one mirror".to_owned());
            line = serde_json::to_vec(&Reply { version: VERSION, response })?;
        }
        line.push(b'\n');
        timeout(WRITE_LIMIT, self.write.write_all(&line)).await?
    }
}

fn parse(line: &[u8]) -> Line {
    match Query::parse(line) {
        Ok(query) => Line::Query(query.request),
        Err(what) => Line::Bad(what),
    }
}
