//! Answering the other agent.

use super::frame::Channel;
use super::hello::exchange;
use super::{Identity, PeerAnswer, PeerRequest, STEP_LIMIT};
use crate::ctl::Answer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// Connections served at once on one address; more wait in the kernel's queue.
const CONNECTIONS: usize = 16;
/// Pause before an address that could not be bound is tried again.
const BIND_RETRY: Duration = Duration::from_secs(5);

/// Who answers the other agent. A call runs to its end even if the asker goes away.
pub trait PeerService: Send + Sync + 'static {
    /// Answers one request, from the authenticated peer.
    fn call(&self, request: PeerRequest) -> Answer<PeerAnswer>;
}

/// The listening sockets.
#[derive(Debug)]
pub struct PeerServer {
    listeners: Vec<TcpListener>,
    missing: Vec<SocketAddr>,
}

impl PeerServer {
    /// Listens on each of `addresses`. One that this host does not have (yet) is tried again while
    /// the server runs.
    ///
    /// # Errors
    /// None of them can be used.
    pub fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut server = Self { listeners: Vec::new(), missing: Vec::new() };
        let mut last = io::Error::other("no address");
        for address in addresses {
            match listen(*address) {
                Ok(l) => server.listeners.push(l),
                Err(e) => {
                    tracing::warn!("cannot listen on {address}: {e}");
                    server.missing.push(*address);
                    last = io::Error::new(e.kind(), format!("{address}: {e}"));
                }
            }
        }
        if server.listeners.is_empty() { Err(last) } else { Ok(server) }
    }

    /// The addresses that are listened on.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// Serves until it is dropped.
    pub async fn run(self, identity: Identity, service: Arc<dyn PeerService>) {
        let host = Host { identity: Arc::new(identity), service };
        let mut tasks = tokio::task::JoinSet::new();
        for listener in self.listeners {
            tasks.spawn(accept(listener, host.clone()));
        }
        for address in self.missing {
            let host = host.clone();
            tasks.spawn(async move { accept(appears(address).await, host).await });
        }
        while tasks.join_next().await.is_some() {}
    }
}

#[derive(Clone)]
struct Host {
    identity: Arc<Identity>,
    service: Arc<dyn PeerService>,
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(64)
}

async fn appears(address: SocketAddr) -> TcpListener {
    loop {
        sleep(BIND_RETRY).await;
        if let Ok(listener) = listen(address) {
            tracing::info!("now listening on {address}");
            return listener;
        }
    }
}

async fn accept(listener: TcpListener, host: Host) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                tokio::spawn(serve_logged(stream, from, host.clone(), permit));
            }
            Err(e) => {
                tracing::warn!("link between the agents: {e}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_logged(s: TcpStream, from: SocketAddr, host: Host, _permit: OwnedSemaphorePermit) {
    if let Err(e) = serve(s, from, host).await {
        tracing::debug!("link between the agents, {from}: {e}");
    }
}

async fn serve(stream: TcpStream, from: SocketAddr, host: Host) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let opened = open(stream, &host.identity).await;
    let (channel, request) = opened.inspect_err(|e| {
        // The other agent, too, hangs up on one that does not answer in time.
        if e.kind() != io::ErrorKind::UnexpectedEof {
            tracing::info!("link between the agents: connection from {from} refused: {e}");
        }
    })?;
    reply(channel, request, &host.service).await
}

/// Serves one connection of whatever kind, as [`PeerServer::run`] does those that it accepts.
///
/// # Errors
/// The other end is no agent of this mirror, breaks the protocol, or goes away.
pub async fn serve_stream<S>(
    stream: S,
    identity: &Identity,
    service: &Arc<dyn PeerService>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (channel, request) = open(stream, identity).await?;
    reply(channel, request, service).await
}

/// Hellos and the question. Strangers and half-open connections hold their place for
/// [`STEP_LIMIT`] at most.
async fn open<S>(mut stream: S, identity: &Identity) -> io::Result<(Channel<S>, PeerRequest)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let opening = async {
        let keys = exchange(&mut stream, identity, false).await?;
        let mut channel = Channel::new(stream, keys);
        let request: PeerRequest = channel.receive().await?;
        io::Result::Ok((channel, request))
    };
    timeout(STEP_LIMIT, opening).await.map_err(io::Error::from).and_then(|r| r)
}

async fn reply<S>(
    mut channel: Channel<S>,
    request: PeerRequest,
    service: &Arc<dyn PeerService>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // A task of its own: it must not end half-way because the asker went away.
    let call = tokio::spawn(service.call(request));
    let answer = call.await.unwrap_or_else(|e| {
        tracing::error!("a request of the other agent ended abnormally: {e}");
        PeerAnswer::Refused("the agent failed on this request; see its log".to_owned())
    });
    timeout(STEP_LIMIT, channel.send(&answer)).await?
}
