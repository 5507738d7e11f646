//! Asking the other agent.

use super::frame::Channel;
use super::hello::exchange;
use super::{ASK_LIMIT, Identity, PeerAnswer, PeerRequest};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

/// Why there is no answer.
#[derive(Debug)]
pub enum PeerError {
    /// The question did not get through: it had no effect. The last reason of each address pair.
    Unreachable(String),
    /// The question was sent and not answered: whether it had an effect is not known.
    NoAnswer(String),
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the other agent cannot be reached: {why}"),
            Self::NoAnswer(why) => write!(f, "the other agent did not answer: {why}"),
        }
    }
}

impl std::error::Error for PeerError {}

/// The way to the other agent.
#[derive(Debug)]
pub struct PeerLink {
    pairs: Vec<(SocketAddr, SocketAddr)>,
    identity: Identity,
    limit: Duration,
    /// The pair that worked last; it is tried first.
    good: AtomicUsize,
}

/// How far an attempt came.
enum Failed {
    Before(io::Error),
    After(io::Error),
}

impl PeerLink {
    /// A link over these (own, peer's) address pairs, to be tried in this order.
    #[must_use]
    pub fn new(identity: Identity, pairs: Vec<(SocketAddr, SocketAddr)>) -> Self {
        Self { pairs, identity, limit: ASK_LIMIT, good: AtomicUsize::new(0) }
    }

    /// As [`PeerLink::new`], with another time limit than [`ASK_LIMIT`].
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Asks, over each address pair in turn, the one that worked last first. The time limit is
    /// for all of them together, and each gets its share of what is left. A question that must
    /// not be repeated is not, once it has been sent.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn ask(&self, request: &PeerRequest) -> Result<PeerAnswer, PeerError> {
        self.ask_for(request, self.limit).await
    }

    /// As [`PeerLink::ask`], with this time limit.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn ask_for(
        &self,
        request: &PeerRequest,
        limit: Duration,
    ) -> Result<PeerAnswer, PeerError> {
        let end = Instant::now() + limit;
        let count = self.pairs.len();
        let first = self.good.load(Ordering::Relaxed);
        let mut reasons = Vec::new();
        let mut sent = false;
        for n in 0..count {
            let index = (first + n) % count;
            let left = u32::try_from(count - n).unwrap_or(1);
            let share = end.saturating_duration_since(Instant::now()) / left;
            match self.try_pair(self.pairs[index], request, share).await {
                Ok(answer) => {
                    self.good.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(Failed::Before(e)) => reasons.push(format!("{}: {e}", self.pairs[index].1)),
                Err(Failed::After(e)) => {
                    sent = true;
                    reasons.push(format!("{}: {e}", self.pairs[index].1));
                    if !request.may_repeat() {
                        break;
                    }
                }
            }
        }
        let reasons = reasons.join("; ");
        Err(if sent { PeerError::NoAnswer(reasons) } else { PeerError::Unreachable(reasons) })
    }

    async fn try_pair(
        &self,
        pair: (SocketAddr, SocketAddr),
        request: &PeerRequest,
        limit: Duration,
    ) -> Result<PeerAnswer, Failed> {
        let late =
            |what: &str| io::Error::new(io::ErrorKind::TimedOut, format!("no {what} in time"));
        let end = Instant::now() + limit;
        let connecting = async { dial(connect(pair).await?, &self.identity).await };
        let mut channel = timeout(limit, connecting)
            .await
            .map_err(|_| Failed::Before(late("connection")))?
            .map_err(Failed::Before)?;
        let asking = async {
            channel.send(request).await?;
            channel.receive().await
        };
        let rest = end.saturating_duration_since(Instant::now());
        timeout(rest, asking)
            .await
            .map_err(|_| Failed::After(late("answer")))?
            .map_err(Failed::After)
    }
}

/// Asks over a connection of whatever kind, as [`PeerLink::ask`] does over those that it makes, but
/// without a time limit.
///
/// # Errors
/// The other end is no agent of this mirror, breaks the protocol, or goes away.
pub async fn ask_stream<S>(
    stream: S,
    identity: &Identity,
    request: &PeerRequest,
) -> io::Result<PeerAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut channel = dial(stream, identity).await?;
    channel.send(request).await?;
    channel.receive().await
}

async fn dial<S>(mut stream: S, identity: &Identity) -> io::Result<Channel<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let keys = exchange(&mut stream, identity, true).await?;
    Ok(Channel::new(stream, keys))
}

/// From the pair's own address, so that the question takes the pair's network.
async fn connect((own, peer): (SocketAddr, SocketAddr)) -> io::Result<TcpStream> {
    let socket = if own.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(own.ip(), 0))?;
    let stream = socket.connect(peer).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
