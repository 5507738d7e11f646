//! The NBD server: sockets on the ring, one [`Connection`] for each client. Clients come through a
//! listening socket, or are given when the server is made.

use super::Export;
use super::connection::{Connection, Part, PartId};
use crate::front::{FrontEnd, first_request};
use crate::sys::{Completion, Ended, Fd, Op, Slots, Submitter};
use mirror_core::buf::Buf;
use mirror_core::io::{Request, RequestError, RequestId};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, bind, listen, shutdown, socket,
};
use nix::sys::stat::{Mode, fchmod};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Clients served at a time; the next waits in the socket's queue.
pub const MAX_CONNECTIONS: usize = 16;

const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tag {
    Accept,
    Pause,
    Recv(usize),
    Send(usize),
}

struct Client {
    socket: Fd,
    machine: Connection,
    receiving: bool,
    sending: bool,
}

struct Listener {
    socket: Fd,
    /// Device and inode of the socket file, so that only our own is removed.
    file: Option<(u64, u64)>,
    /// Token of the accept under way.
    accepting: Option<u64>,
}

/// See [`crate::nbd`].
pub struct NbdServer {
    /// Of the listening socket, if there is one.
    path: Option<PathBuf>,
    /// Connections to clients that do not negotiate; served from the start on.
    given: Vec<OwnedFd>,
    export: Arc<Export>,
    listener: Option<Listener>,
    slots: Slots<Tag>,
    clients: Vec<Option<Client>>,
    /// Which part of which client a request of the core is.
    requests: HashMap<RequestId, (usize, PartId)>,
    next_request: u64,
    failed: bool,
    stopping: bool,
}

impl NbdServer {
    /// A server that will listen on `path`; see [`FrontEnd::start`].
    #[must_use]
    pub fn new(path: &Path, export: Export) -> Self {
        Self::with(Some(path.to_owned()), Vec::new(), export)
    }

    /// A server for clients that know the export already (the [kernel's](super::kernel)), over
    /// their connected sockets: [`MAX_CONNECTIONS`] at most. There is no way in for others.
    #[must_use]
    pub fn connected(sockets: Vec<OwnedFd>, export: Export) -> Self {
        Self::with(None, sockets, export)
    }

    fn with(path: Option<PathBuf>, given: Vec<OwnedFd>, export: Export) -> Self {
        Self {
            path,
            given,
            export: Arc::new(export),
            listener: None,
            slots: Slots::default(),
            clients: std::iter::repeat_with(|| None).take(MAX_CONNECTIONS).collect(),
            requests: HashMap::new(),
            next_request: first_request(),
            failed: false,
            stopping: false,
        }
    }

    /// Accepts the next client if there is room for it.
    fn accept(&mut self, ring: &mut dyn Submitter) {
        let room = self.clients.iter().any(Option::is_none);
        if let Some(listener) = &mut self.listener {
            if room && listener.accepting.is_none() && !self.stopping {
                let op = Op::Accept { socket: listener.socket.clone() };
                listener.accepting = Some(self.slots.submit(op, Tag::Accept, ring));
            }
        }
    }

    /// The accept failed; a lasting cause (no descriptors) must not become a busy loop.
    fn pause(&mut self, ring: &mut dyn Submitter) {
        if let (Some(listener), false) = (&mut self.listener, self.stopping) {
            let op = Op::Pause { time: ACCEPT_PAUSE };
            listener.accepting = Some(self.slots.submit(op, Tag::Pause, ring));
        }
    }

    fn accepted(&mut self, socket: Option<OwnedFd>, ring: &mut dyn Submitter) {
        if let Some(listener) = &mut self.listener {
            listener.accepting = None;
        }
        let free = self.clients.iter().position(Option::is_none);
        if let (Some(socket), Some(index), false) = (socket, free, self.stopping) {
            self.begin(index, socket, Connection::new(self.export.clone()), ring);
        }
        self.accept(ring);
    }

    /// Begins to serve a client.
    fn begin(
        &mut self,
        index: usize,
        socket: OwnedFd,
        mut machine: Connection,
        ring: &mut dyn Submitter,
    ) {
        if self.failed {
            machine.fail();
        }
        let socket = Arc::new(socket);
        self.clients[index] = Some(Client { socket, machine, receiving: false, sending: false });
        self.pump(index, ring, &mut Vec::new()); // the greeting, if any; nothing was read yet
    }

    fn serve_given(&mut self, ring: &mut dyn Submitter) -> io::Result<()> {
        let given = std::mem::take(&mut self.given);
        if given.len() > self.clients.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many connections"));
        }
        for (index, socket) in given.into_iter().enumerate() {
            let machine = Connection::negotiated(self.export.clone());
            self.begin(index, socket, machine, ring);
        }
        Ok(())
    }

    fn received(&mut self, index: usize, ended: Ended<Tag>) {
        let (Some(client), Op::Recv { buf, .. }) = (&mut self.clients[index], ended.op) else {
            return;
        };
        client.receiving = false;
        client.machine.received(buf, ended.result.unwrap_or(0));
        if ended.result.is_err() {
            client.machine.abort();
        }
    }

    fn sent(&mut self, index: usize, ended: Ended<Tag>, ring: &mut dyn Submitter) {
        let (Some(client), Op::Send { socket, pieces, skip }) =
            (&mut self.clients[index], ended.op)
        else {
            return;
        };
        client.sending = false;
        let total: usize = pieces.iter().map(|p| p.len()).sum();
        match ended.result {
            Ok(0) | Err(_) => {
                client.machine.abort();
                shut(&client.socket, Shutdown::Both); // wakes the receive
            }
            Ok(count) if skip + count < total => {
                client.sending = true;
                let op = Op::Send { socket, pieces, skip: skip + count };
                self.slots.submit(op, Tag::Send(index), ring);
            }
            Ok(_) => {}
        }
    }

    /// Moves a client on: requests to the core, answers to the socket, the next receive.
    fn pump(&mut self, index: usize, ring: &mut dyn Submitter, out: &mut Vec<Request>) {
        let Some(client) = &mut self.clients[index] else { return };
        loop {
            let mut parts = Vec::new();
            client.machine.advance(&mut parts);
            for part in parts {
                let (id, request) = name(&mut self.next_request, part);
                self.requests.insert(request.id, (index, id));
                out.push(request);
            }
            // Handing out answers makes room, so what has arrived is looked at again.
            if client.sending || !send(client, index, &mut self.slots, ring) {
                break;
            }
        }
        receive(client, index, &mut self.slots, ring);
        if client.machine.is_finished() && !client.sending {
            if client.receiving {
                shut(&client.socket, Shutdown::Both);
            } else {
                self.clients[index] = None;
                self.accept(ring);
            }
        }
    }

    fn pump_all(&mut self, ring: &mut dyn Submitter) {
        for index in 0..self.clients.len() {
            self.pump(index, ring, &mut Vec::new());
        }
    }

    fn remove_socket_file(&mut self) {
        let ours = self.listener.as_mut().and_then(|l| l.file.take());
        let Some(path) = &self.path else { return };
        if ours.is_some() && identity(path) == ours {
            // A file that stays behind is found to be stale by the next server.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl FrontEnd for NbdServer {
    fn start(&mut self, ring: &mut dyn Submitter) -> io::Result<()> {
        self.serve_given(ring)?;
        let Some(path) = &self.path else { return Ok(()) };
        remove_if_stale(path)?;
        let socket = listen_on(path)?;
        let file = identity(path);
        self.listener = Some(Listener { socket: Arc::new(socket), file, accepting: None });
        self.accept(ring);
        Ok(())
    }

    fn on_cqe(&mut self, cqe: Completion, ring: &mut dyn Submitter, out: &mut Vec<Request>) {
        let Some(ended) = self.slots.take(&cqe) else { return };
        match ended.tag {
            Tag::Accept if ended.result.is_err() => self.pause(ring),
            Tag::Accept | Tag::Pause => self.accepted(ended.accepted, ring),
            Tag::Recv(index) => {
                self.received(index, ended);
                self.pump(index, ring, out);
            }
            Tag::Send(index) => {
                self.sent(index, ended, ring);
                self.pump(index, ring, out);
            }
        }
    }

    fn complete(
        &mut self,
        id: RequestId,
        result: Result<Option<Buf>, RequestError>,
        ring: &mut dyn Submitter,
        out: &mut Vec<Request>,
    ) {
        let Some((index, part)) = self.requests.remove(&id) else { return };
        if let Some(client) = &mut self.clients[index] {
            client.machine.ended(part, result);
        }
        self.pump(index, ring, out);
    }

    fn grow(&mut self, size: u64) {
        if size > self.export.size {
            self.export = Arc::new(Export { size, ..(*self.export).clone() });
            let clients = self.clients.iter_mut().flatten();
            clients.for_each(|client| client.machine.grow(self.export.clone()));
        }
    }

    fn fail(&mut self, ring: &mut dyn Submitter) {
        self.failed = true;
        self.requests.clear();
        self.clients.iter_mut().flatten().for_each(|c| c.machine.fail());
        self.pump_all(ring);
    }

    fn stop(&mut self, ring: &mut dyn Submitter) {
        let again = std::mem::replace(&mut self.stopping, true);
        self.remove_socket_file();
        if let Some(token) = self.listener.as_ref().and_then(|l| l.accepting) {
            ring.cancel(token);
        }
        for client in self.clients.iter_mut().flatten() {
            client.machine.stop();
            if again {
                client.machine.abort();
            }
            shut(&client.socket, if again { Shutdown::Both } else { Shutdown::Read });
        }
        self.pump_all(ring);
    }

    fn is_stopped(&self) -> bool {
        self.stopping && self.slots.is_empty() && self.clients.iter().all(Option::is_none)
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        self.remove_socket_file();
    }
}

fn name(next: &mut u64, part: Part) -> (PartId, Request) {
    *next += 1;
    let Part { id, op, extent, fua } = part;
    (id, Request { id: RequestId(*next), op, extent, fua })
}

/// Starts to send what there is; whether there was something.
fn send(
    client: &mut Client,
    index: usize,
    slots: &mut Slots<Tag>,
    ring: &mut dyn Submitter,
) -> bool {
    let Some(pieces) = client.machine.output() else { return false };
    client.sending = true;
    let op = Op::Send { socket: client.socket.clone(), pieces, skip: 0 };
    slots.submit(op, Tag::Send(index), ring);
    true
}

fn receive(client: &mut Client, index: usize, slots: &mut Slots<Tag>, ring: &mut dyn Submitter) {
    if client.receiving {
        return;
    }
    if let Some((buf, range)) = client.machine.lend() {
        client.receiving = true;
        let op = Op::Recv { socket: client.socket.clone(), buf, range };
        slots.submit(op, Tag::Recv(index), ring);
    }
}

/// Ends a direction of a connection. It may have ended already, which is as good.
fn shut(socket: &Fd, how: Shutdown) {
    let _ = shutdown(socket.as_raw_fd(), how);
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// Removes a socket file on which nobody listens.
fn remove_if_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "not a socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(e) => Err(e),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there")),
    }
}

fn listen_on(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Before `bind`, so that the file never has another mode.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::new(16)?)?;
    Ok(socket)
}
