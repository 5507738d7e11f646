//! The connections to the peer: dialling, accepting, and carrying frames.
//!
//! A connection is known to the core only between its `PeerReady` and its `PeerGone` or `Close`.
//! Strangers are bounded: at most [`MAX_STRANGERS`] connections that have not proved who they are
//! exist at a time, each holds a few hundred bytes and is closed after the handshake's limit.

use super::peer::{Conn, Lost, Phase};
use super::{Cx, sys};
use crate::figures::{Connected, Figures, Level};
use kmod_shim::sys::{Completion, Ended, Fd, Op, Slots};
use mirror_core::io::{ConnId, Event};
use mirror_core::units::Millis;
use mirror_core::wire::{Frame, Link, LinkConfig, LinkEvent};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, bind, listen,
    setsockopt, shutdown, socket, sockopt,
};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Connections accepted from somebody who has not proved to be the peer.
pub const MAX_STRANGERS: usize = 4;

/// For a closing connection to send its last frames.
const CLOSE_LIMIT_MS: u64 = 1000;
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// One way to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// This server's address on that network; `None` leaves it to the system.
    pub local: Option<IpAddr>,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

/// How to reach the peer, and how it reaches this server.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Name of the mirror, secret, side.
    pub link: LinkConfig,
    /// Ways to the peer, the preferred one first.
    pub routes: Vec<Route>,
    /// Where the peer may connect.
    pub listen: Vec<SocketAddr>,
    /// Limit of each attempt to connect.
    pub connect_limit: Duration,
    /// Limit of a handshake.
    pub handshake_limit: Duration,
}

/// Something that happened to a connection before the core knew of it. Each is told once for a
/// change of state: again only after the peer was connected, or with another reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetNote {
    /// The peer cannot be reached on a route: which, and why.
    ConnectFailed(String),
    /// No route leads to the peer.
    NoNetwork,
    /// A connection cannot be accepted: why.
    AcceptFailed(String),
    /// Who connected, or was connected to, has not proved to be the peer: why.
    Refused(String),
    /// Something came that is no frame of the protocol.
    NoFrame,
}

/// Different notes that are remembered between two connections; further ones are not told.
const MAX_NOTES: usize = 16;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {source}")]
pub struct ListenError {
    /// What failed.
    pub step: ListenStep,
    /// The address.
    pub address: SocketAddr,
    /// The reason.
    pub source: io::Error,
}

/// A step of listening.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenStep {
    /// Making the socket.
    Socket,
    /// Binding it to the address.
    Bind,
    /// Listening.
    Listen,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tag {
    Accept(usize),
    Connect,
    Recv(ConnId),
    Send(ConnId),
}

struct Listener {
    socket: Fd,
    /// Token of the accept or the pause under way.
    waiting: Option<u64>,
}

/// An answer to `Dial` in the making.
struct Dialling {
    /// The route that is being tried.
    route: usize,
    step: DialStep,
}

enum DialStep {
    Connecting { token: u64, deadline: Millis, socket: Fd },
    Handshake(ConnId),
}

/// See the module.
pub(super) struct Net {
    config: NetConfig,
    slots: Slots<Tag>,
    listeners: Vec<Listener>,
    conns: BTreeMap<ConnId, Conn>,
    dialling: Option<Dialling>,
    next_conn: u64,
    stopping: bool,
    /// To be told.
    notes: Vec<NetNote>,
    /// Told since the peer was connected last.
    told: Vec<NetNote>,
    sent_bytes: u64,
    received_bytes: u64,
    send_queue: Level,
}

impl Net {
    /// Opens the listening sockets.
    pub(super) fn new(config: NetConfig) -> io::Result<Self> {
        let open = |address: &SocketAddr| {
            let socket = Arc::new(listen_on(*address).map_err(io::Error::other)?);
            Ok(Listener { socket, waiting: None })
        };
        let listeners = config.listen.iter().map(open).collect::<io::Result<_>>()?;
        Ok(Self {
            config,
            slots: Slots::default(),
            listeners,
            conns: BTreeMap::new(),
            dialling: None,
            next_conn: 0,
            stopping: false,
            notes: Vec::new(),
            told: Vec::new(),
            sent_bytes: 0,
            received_bytes: 0,
            send_queue: Level::default(),
        })
    }

    /// What is to be told since the last call.
    pub(super) fn take_notes(&mut self) -> Vec<NetNote> {
        std::mem::take(&mut self.notes)
    }

    fn note(&mut self, note: NetNote) {
        if !self.stopping && self.told.len() < MAX_NOTES && !self.told.contains(&note) {
            self.told.push(note.clone());
            self.notes.push(note);
        }
    }

    /// Adds what was counted here.
    pub(super) fn tell_figures(&mut self, figures: &mut Figures) {
        let ready = self.conns.values().find(|c| c.phase == Phase::Ready);
        if ready.is_none() {
            self.send_queue.set(0);
        }
        figures.sent_bytes = self.sent_bytes;
        figures.received_bytes = self.received_bytes;
        figures.send_queue = self.send_queue;
        figures.connected = ready.and_then(addresses);
    }

    /// Begins a new interval for the peaks.
    pub(super) fn take_peaks(&mut self) {
        self.send_queue.take_peak();
    }

    /// How long the way to the peer and back takes on a connection, in microseconds.
    pub(super) fn round_trip_us(&self, id: ConnId) -> Option<u64> {
        let conn = self.conns.get(&id)?;
        sys::round_trip_us(conn.socket()).ok().map(u64::from)
    }

    /// Accepts where there is room for a stranger.
    pub(super) fn accept(&mut self, cx: &mut Cx<'_>) {
        let strangers = self.conns.values().filter(|c| !c.dialled && c.phase != Phase::Ready);
        if self.stopping || strangers.count() >= MAX_STRANGERS {
            return;
        }
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if listener.waiting.is_none() {
                let op = Op::Accept { socket: listener.socket.clone() };
                listener.waiting = Some(self.slots.submit(op, Tag::Accept(index), cx.ring));
            }
        }
    }

    /// Tries every route in turn.
    pub(super) fn dial(&mut self, cx: &mut Cx<'_>) {
        if self.dialling.is_none() && !self.stopping {
            self.try_route(0, cx);
        }
    }

    /// Queues a frame; [`flush`](Self::flush) sends it.
    pub(super) fn send(&mut self, id: ConnId, frame: &Frame, cx: &mut Cx<'_>) {
        let Some(conn) = self.conns.get_mut(&id).filter(|c| c.phase == Phase::Ready) else {
            return; // its end is on the way to the core
        };
        let sent = conn.send(frame);
        self.send_queue.set(conn.unsent() as u64);
        if let Err(why) = sent {
            self.lose(id, &why, cx);
        }
    }

    /// Ends a connection for the core. What is queued is still sent.
    pub(super) fn close(&mut self, id: ConnId, why: &str, cx: &mut Cx<'_>) {
        if let Some(conn) = self.conns.get_mut(&id).filter(|c| c.phase == Phase::Ready) {
            tracing::info!(peer = conn.remote, why, "connection closed");
            conn.phase = Phase::Closing;
            conn.waits_for_peer = true;
            conn.deadline = Some(cx.now.plus(CLOSE_LIMIT_MS));
        }
    }

    /// Starts what can be sent and received, and forgets what is over.
    pub(super) fn flush(&mut self, cx: &mut Cx<'_>) {
        for conn in self.conns.values_mut() {
            if conn.phase == Phase::Closing && conn.has_nothing_to_send() {
                finish(conn);
            }
            if let Some(op) = conn.next_send() {
                self.slots.submit(op, Tag::Send(conn.id), cx.ring);
            }
            if let Some(op) = conn.next_receive() {
                self.slots.submit(op, Tag::Recv(conn.id), cx.ring);
            }
        }
        let before = self.conns.len();
        self.conns.retain(|_, conn| !conn.is_over());
        if self.conns.len() < before {
            self.accept(cx);
        }
    }

    pub(super) fn on_cqe(&mut self, cqe: &Completion, cx: &mut Cx<'_>) {
        let Some(ended) = self.slots.take(cqe) else { return };
        match ended.tag {
            Tag::Accept(index) => self.accepted(index, ended, cx),
            Tag::Connect => self.connected(ended.result, cx),
            Tag::Recv(id) => self.received(id, ended, cx),
            Tag::Send(id) => self.sent(id, ended, cx),
        }
    }

    /// Acts upon time limits.
    pub(super) fn expire(&mut self, cx: &mut Cx<'_>) {
        if let Some(Dialling { step: DialStep::Connecting { token, deadline, .. }, .. }) =
            &mut self.dialling
        {
            if *deadline <= cx.now {
                *deadline = Millis(u64::MAX); // its end comes as an error
                cx.ring.cancel(*token);
            }
        }
        let due = |c: &&Conn| c.deadline.is_some_and(|d| d <= cx.now);
        let late: Vec<_> = self.conns.values().filter(due).map(|c| c.id).collect();
        for id in late {
            self.lose(id, "time limit", cx);
            self.retry(id, cx);
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let connecting = match &self.dialling {
            Some(Dialling { step: DialStep::Connecting { deadline, .. }, .. }) => Some(*deadline),
            _ => None,
        };
        self.conns.values().filter_map(|c| c.deadline).chain(connecting).min()
    }

    /// Ends everything; what is queued is still sent.
    pub(super) fn stop(&mut self, cx: &mut Cx<'_>) {
        self.stopping = true;
        self.listeners.iter().filter_map(|l| l.waiting).for_each(|token| cx.ring.cancel(token));
        if let Some(Dialling { step: DialStep::Connecting { token, .. }, .. }) = &self.dialling {
            cx.ring.cancel(*token);
        }
        let ids: Vec<_> = self.conns.keys().copied().collect();
        for id in ids {
            self.close(id, "stopping", cx);
        }
        self.conns.values_mut().filter(|c| c.phase == Phase::Handshake).for_each(gone);
        self.flush(cx);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopping && self.conns.is_empty() && self.slots.is_empty()
    }

    fn accepted(&mut self, index: usize, ended: Ended<Tag>, cx: &mut Cx<'_>) {
        self.listeners[index].waiting = None;
        match (ended.op, ended.accepted) {
            (Op::Accept { .. }, Some(socket)) if !self.stopping => self.welcome(socket, cx),
            (Op::Accept { .. }, None) if !self.stopping => {
                let why = ended.result.err().map_or_else(|| "no socket".to_owned(), errno_text);
                self.note(NetNote::AcceptFailed(why));
                // A lasting cause (no descriptors) must not become a busy loop.
                let op = Op::Pause { time: ACCEPT_PAUSE };
                let token = self.slots.submit(op, Tag::Accept(index), cx.ring);
                self.listeners[index].waiting = Some(token);
            }
            _ => {}
        }
        self.accept(cx);
    }

    fn welcome(&mut self, socket: OwnedFd, cx: &mut Cx<'_>) {
        let remote = match nix::sys::socket::getpeername::<SockaddrStorage>(socket.as_raw_fd()) {
            Ok(address) => address.to_string(),
            Err(_) => return, // gone already
        };
        let deadline = cx.now.plus(millis(self.config.handshake_limit));
        if let Err(e) = self.add(Arc::new(socket), remote, false, deadline) {
            tracing::warn!(error = %e, "cannot take a connection");
        }
    }

    /// Takes up a connected socket.
    fn add(
        &mut self,
        socket: Fd,
        remote: String,
        dialled: bool,
        deadline: Millis,
    ) -> io::Result<ConnId> {
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        // Heartbeats on a bad line: what is lost twice in a row is not to wait longer each time.
        // Only a hint: a kernel that does not know it works as well on good lines.
        let _ = sys::repeat_evenly(&socket);
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let make = if dialled { Link::dial } else { Link::accept };
        let link = make(self.config.link.clone(), nonce).map_err(io::Error::other)?;
        self.next_conn += 1;
        let id = ConnId(self.next_conn);
        self.conns.insert(id, Conn::new(id, (socket, remote), link, dialled, deadline));
        Ok(id)
    }

    fn try_route(&mut self, mut route: usize, cx: &mut Cx<'_>) {
        self.dialling = None;
        if self.stopping {
            return;
        }
        while let Some(way) = self.config.routes.get(route) {
            match prepare(way) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    let op = Op::Connect { socket: socket.clone(), address: way.remote };
                    let token = self.slots.submit(op, Tag::Connect, cx.ring);
                    let deadline = cx.now.plus(millis(self.config.connect_limit));
                    let step = DialStep::Connecting { token, deadline, socket };
                    self.dialling = Some(Dialling { route, step });
                    return;
                }
                Err(e) => {
                    tracing::debug!(?way, error = %e, "cannot dial");
                    let note = NetNote::ConnectFailed(format!("{}: {e}", way.remote));
                    self.note(note);
                }
            }
            route += 1;
        }
        self.note(NetNote::NoNetwork);
        cx.out.push_back(Event::DialFailed);
    }

    fn connected(&mut self, result: Result<usize, i32>, cx: &mut Cx<'_>) {
        let Some(Dialling { route, step: DialStep::Connecting { socket, .. } }) =
            self.dialling.take()
        else {
            return;
        };
        let remote = self.config.routes[route].remote.to_string();
        let deadline = cx.now.plus(millis(self.config.handshake_limit));
        let added = match result {
            Ok(_) if !self.stopping => self.add(socket, remote.clone(), true, deadline),
            Ok(_) => return,
            // Cancelled by its time limit.
            Err(nix::libc::ECANCELED) => Err(io::ErrorKind::TimedOut.into()),
            Err(e) => Err(io::Error::from_raw_os_error(e)),
        };
        match added {
            Ok(id) => self.dialling = Some(Dialling { route, step: DialStep::Handshake(id) }),
            Err(e) => {
                tracing::debug!(route, error = %e, "not connected");
                self.note(NetNote::ConnectFailed(format!("{remote}: {e}")));
                self.try_route(route + 1, cx);
            }
        }
    }

    fn received(&mut self, id: ConnId, ended: Ended<Tag>, cx: &mut Cx<'_>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let brought = ended.result.is_ok_and(|count| count > 0);
        self.received_bytes += ended.result.map_or(0, |n| n as u64);
        let result = conn.received(ended.op, ended.result);
        let whole = self.deliver(id, cx);
        if let Some(conn) = self.conns.get_mut(&id).filter(|c| c.phase == Phase::Ready && brought) {
            if conn.parts.says_alive(cx.now, whole) {
                cx.out.push_back(Event::Heard { conn: id });
            }
        }
        self.settle(id, result, cx);
    }

    fn sent(&mut self, id: ConnId, ended: Ended<Tag>, cx: &mut Cx<'_>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        self.sent_bytes += ended.result.map_or(0, |n| n as u64);
        let rest = conn.sent(ended.op, ended.result);
        if conn.phase == Phase::Ready {
            self.send_queue.set(conn.unsent() as u64);
        }
        if let Some(rest) = rest {
            self.slots.submit(rest, Tag::Send(id), cx.ring);
        } else if conn.is_deaf() && conn.phase == Phase::Ready {
            // The end of the receives tells; if it does not, time does.
            conn.deadline = Some(cx.now.plus(CLOSE_LIMIT_MS));
        }
    }

    /// Hands what the link has to the core; gives whether there was a whole frame.
    fn deliver(&mut self, id: ConnId, cx: &mut Cx<'_>) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        let mut whole = false;
        while let Some(event) = conn.next_event() {
            match (event, conn.phase) {
                (LinkEvent::Ready(hello), Phase::Handshake) => {
                    conn.phase = Phase::Ready;
                    conn.deadline = None;
                    if conn.dialled {
                        self.dialling = None;
                    }
                    self.told.clear();
                    cx.out.push_back(Event::PeerReady { conn: id, dialled: conn.dialled, hello });
                }
                (LinkEvent::Frame(frame), Phase::Ready) => {
                    whole = true;
                    cx.out.push_back(Event::Frame { conn: id, frame });
                }
                _ => {} // after its end nothing more is delivered
            }
        }
        whole
    }

    fn settle(&mut self, id: ConnId, result: Result<(), Lost>, cx: &mut Cx<'_>) {
        if let Err(why) = result {
            self.lose(id, &why, cx);
            self.retry(id, cx);
        }
    }

    /// A connection failed. If the core knows it, it is told.
    fn lose(&mut self, id: ConnId, why: &str, cx: &mut Cx<'_>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let note = match conn.phase {
            Phase::Ready if NO_FRAME.iter().any(|words| why.contains(words)) => {
                Some(NetNote::NoFrame)
            }
            Phase::Handshake => Some(NetNote::Refused(why.to_owned())),
            _ => None,
        };
        match conn.phase {
            Phase::Ready => {
                tracing::warn!(peer = conn.remote, why, "connection lost");
                cx.out.push_back(Event::PeerGone { conn: id });
                gone(conn);
            }
            Phase::Handshake => {
                tracing::info!(peer = conn.remote, why, "connection refused");
                // The answer that says why is still sent.
                conn.phase = Phase::Closing;
                conn.deadline = Some(cx.now.plus(CLOSE_LIMIT_MS));
            }
            Phase::Closing | Phase::Gone => gone(conn),
        }
        if let Some(note) = note {
            self.note(note);
        }
    }

    /// Goes on to the next route if the connection was the answer to a dial.
    fn retry(&mut self, id: ConnId, cx: &mut Cx<'_>) {
        match &self.dialling {
            Some(Dialling { route, step: DialStep::Handshake(tried) }) if *tried == id => {
                self.try_route(*route + 1, cx);
            }
            _ => {}
        }
    }
}

/// The addresses of both ends.
fn addresses(conn: &Conn) -> Option<Connected> {
    let ip = |address: SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|a| a.ip().to_string());
        v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().to_string()))
    };
    let socket = conn.socket().as_raw_fd();
    let local = ip(nix::sys::socket::getsockname(socket).ok()?)?;
    let remote = ip(nix::sys::socket::getpeername(socket).ok()?)?;
    Some(Connected { local, remote })
}

/// How the wire's error names bytes that are no frame of the peer. When all is encrypted, what is no
/// frame cannot be told from a forged one.
const NO_FRAME: [&str; 2] = ["frame magic", "is not authentic"];

fn errno_text(errno: i32) -> String {
    io::Error::from_raw_os_error(errno).to_string()
}

/// All is sent. The peer may be sending still; a stranger is not waited for.
fn finish(conn: &mut Conn) {
    if conn.waits_for_peer {
        let _ = shutdown(conn.socket().as_raw_fd(), Shutdown::Write); // again is as good
    } else {
        gone(conn);
    }
}

/// Nothing more goes over it; the operations under way end at once.
fn gone(conn: &mut Conn) {
    conn.phase = Phase::Gone;
    conn.deadline = None;
    // It may be shut down already, which is as good.
    let _ = shutdown(conn.socket().as_raw_fd(), Shutdown::Both);
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn stream(address: IpAddr) -> io::Result<OwnedFd> {
    Ok(socket(family(address), SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// A socket for this route, bound to its local address.
fn prepare(route: &Route) -> io::Result<OwnedFd> {
    let socket = stream(route.remote.ip())?;
    if let Some(local) = route.local {
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(local, 0)))?;
    }
    Ok(socket)
}

fn listen_on(address: SocketAddr) -> Result<OwnedFd, ListenError> {
    let failed = |step, e: nix::Error| ListenError { step, address, source: e.into() };
    let socket = stream(address.ip()).map_err(|source| ListenError {
        step: ListenStep::Socket,
        address,
        source,
    })?;
    let prepare = || {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        // The network of that address may come up later than the agent.
        setsockopt(&socket, sockopt::IpFreebind, &true)?;
        if address.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        }
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
    };
    prepare().map_err(|e| failed(ListenStep::Bind, e))?;
    Backlog::new(8)
        .and_then(|backlog| listen(&socket, backlog))
        .map_err(|e| failed(ListenStep::Listen, e))?;
    Ok(socket)
}
