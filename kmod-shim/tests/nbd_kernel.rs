//! Clients that do not negotiate, as the kernel's: their connections are given to the server. The
//! kernel's own is tried by `tests/nbd-kernel-*`.
#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use kmod_shim::front::FrontEnd;
use kmod_shim::nbd::kernel::{self, Geometry};
use kmod_shim::nbd::protocol::{RequestHeader, command, error, simple_reply};
use kmod_shim::nbd::server::MAX_CONNECTIONS;
use kmod_shim::nbd::{Export, NbdServer};
use kmod_shim::sys::{Owner, Ring};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::MemoryDisk;

const SIZE: usize = 4 << 20;

fn export() -> Export {
    Export { name: "md1".into(), size: SIZE as u64, block: 512 }
}

fn pairs(count: usize) -> (Vec<UnixStream>, Vec<std::os::fd::OwnedFd>) {
    (0..count)
        .map(|_| {
            let (client, server) = UnixStream::pair().unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            (client, server.into())
        })
        .unzip()
}

struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Running {
    fn start(sockets: Vec<std::os::fd::OwnedFd>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut disk = MemoryDisk::new(SIZE);
            let mut server = NbdServer::connected(sockets, export());
            support::serve(&mut server, &flag, |request| disk.serve(request))
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn request(stream: &mut UnixStream, command: u16, cookie: u64, offset: u64, length: u32) {
    let header = RequestHeader { flags: 0, command, cookie, offset, length };
    stream.write_all(&header.encode()).unwrap();
}

fn read(stream: &mut UnixStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn requests_are_served_from_the_first_byte_on() {
    let (mut clients, sockets) = pairs(2);
    let _server = Running::start(sockets);
    request(&mut clients[0], command::WRITE, 1, 512, 1024);
    clients[0].write_all(&[7; 1024]).unwrap();
    assert_eq!(read(&mut clients[0], 16), simple_reply(1, 0));
    request(&mut clients[1], command::FLUSH, 2, 0, 0);
    assert_eq!(read(&mut clients[1], 16), simple_reply(2, 0));
    request(&mut clients[1], command::READ, 3, 0, 2048);
    assert_eq!(read(&mut clients[1], 16), simple_reply(3, 0));
    assert_eq!(read(&mut clients[1], 2048), [[0; 512], [7; 512], [7; 512], [0; 512]].concat());
}

#[test]
fn a_client_that_disconnects_leaves_the_others() {
    let (mut clients, sockets) = pairs(2);
    let _server = Running::start(sockets);
    request(&mut clients[0], command::DISC, 0, 0, 0);
    assert_eq!(clients[0].read(&mut [0]).unwrap(), 0, "closed");
    request(&mut clients[1], command::FLUSH, 2, 0, 0);
    assert_eq!(read(&mut clients[1], 16), simple_reply(2, 0));
}

#[test]
fn a_device_that_failed_before_it_was_served_answers_errors() {
    let (mut clients, sockets) = pairs(1);
    request(&mut clients[0], command::READ, 5, 0, 512);
    let mut server = NbdServer::connected(sockets, export());
    let mut ring = Ring::new().unwrap();
    server.fail(&mut ring.owner(Owner::FRONT_END));
    server.start(&mut ring.owner(Owner::FRONT_END)).unwrap();
    let mut stopping = false;
    while !server.is_stopped() {
        let (mut done, mut requests) = (Vec::new(), Vec::new());
        ring.wait(Some(Duration::from_millis(10)), &mut done).unwrap();
        for (_, cqe) in done {
            server.on_cqe(cqe, &mut ring.owner(Owner::FRONT_END), &mut requests);
        }
        assert!(requests.is_empty(), "nothing reaches the mirror");
        clients[0].set_nonblocking(true).unwrap();
        let mut answer = [0; 16];
        if !stopping && clients[0].read_exact(&mut answer).is_ok() {
            assert_eq!(answer.to_vec(), simple_reply(5, error::ESHUTDOWN));
            stopping = true;
            server.stop(&mut ring.owner(Owner::FRONT_END));
        }
    }
}

/// The kernel learns of a larger device over another way, and keeps its connections.
#[test]
fn a_connection_that_is_open_serves_what_the_mirror_has_grown_by() {
    let (mut clients, sockets) = pairs(1);
    let client = &mut clients[0];
    let mut server = NbdServer::connected(sockets, export());
    let mut ring = Ring::new().unwrap();
    server.start(&mut ring.owner(Owner::FRONT_END)).unwrap();
    let mut asked = |server: &mut NbdServer, cookie| {
        request(client, command::WRITE_ZEROES, cookie, SIZE as u64, 512);
        for _ in 0..100 {
            let (mut done, mut requests) = (Vec::new(), Vec::new());
            ring.wait(Some(Duration::from_millis(10)), &mut done).unwrap();
            for (_, cqe) in done {
                server.on_cqe(cqe, &mut ring.owner(Owner::FRONT_END), &mut requests);
            }
            if let Some(request) = requests.pop() {
                let mut ring = ring.owner(Owner::FRONT_END);
                server.complete(request.id, Ok(None), &mut ring, &mut requests);
            }
            client.set_nonblocking(true).unwrap();
            let mut answer = [0; 16];
            let read = client.read_exact(&mut answer);
            client.set_nonblocking(false).unwrap();
            if read.is_ok() {
                return answer.to_vec();
            }
        }
        panic!("no answer");
    };
    assert_eq!(asked(&mut server, 1), simple_reply(1, error::EINVAL));
    server.grow(SIZE as u64 + 4096);
    assert_eq!(asked(&mut server, 2), simple_reply(2, 0));
    server.grow(SIZE as u64);
    assert_eq!(asked(&mut server, 3), simple_reply(3, 0), "it never shrinks");
}

#[test]
fn more_connections_than_places_are_refused() {
    let (_clients, sockets) = pairs(MAX_CONNECTIONS + 1);
    let mut server = NbdServer::connected(sockets, export());
    let mut ring = Ring::new().unwrap();
    let refused = server.start(&mut ring.owner(Owner::FRONT_END));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn what_is_not_connected_is_neither_found_nor_given_a_connection() {
    let (client, _server) = UnixStream::pair().unwrap();
    let geometry = Geometry {
        size: SIZE as u64,
        block: 512,
        identifier: "kmod-shim:nobody's".into(),
        dead_limit: Duration::from_secs(1),
    };
    assert_eq!(kernel::find("kmod-shim:").unwrap(), []);
    assert!(!kernel::is_connected(999_999, &geometry.identifier));
    assert!(kernel::reconnect(999_999, &geometry, client.as_fd()).is_err());
    kernel::disconnect(999_999, &geometry.identifier).unwrap();
}
