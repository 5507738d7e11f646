//! The server on a real socket and ring, with clients written by hand.
#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use kmod_shim::nbd::protocol::{RequestHeader, command, simple_reply};
use kmod_shim::nbd::server::MAX_CONNECTIONS;
use kmod_shim::nbd::{Export, NbdServer};
use mirror_core::io::RequestError;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::MemoryDisk;

const SIZE: usize = 8 << 20;

struct Server {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nbd.sock");
        Self::start_on(folder, path)
    }

    fn start_on(folder: tempfile::TempDir, path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, socket) = (stop.clone(), path.clone());
        let thread = std::thread::spawn(move || {
            let mut disk = MemoryDisk::new(SIZE);
            support::serve(&mut server(&socket), &flag, |request| disk.serve(request))
        });
        Self { path, stop, thread: Some(thread), _folder: folder }
    }

    fn connect(&self) -> UnixStream {
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match UnixStream::connect(&self.path) {
                Ok(stream) => break stream,
                Err(e) if Instant::now() > deadline => panic!("no server: {e}"),
                Err(_) => std::thread::yield_now(),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// A client that has chosen the export.
    fn client(&self) -> UnixStream {
        let mut stream = self.connect();
        greet(&mut stream);
        stream
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn server(path: &Path) -> NbdServer {
    NbdServer::new(path, Export { name: "md1".into(), size: SIZE as u64, block: 512 })
}

fn greet(stream: &mut UnixStream) {
    read(stream, 18);
    stream.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0").unwrap();
    assert_eq!(read(stream, 10)[..8], (SIZE as u64).to_be_bytes());
}

fn read(stream: &mut UnixStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn request(stream: &mut UnixStream, command: u16, cookie: u64, offset: u64, length: usize) {
    let length = u32::try_from(length).unwrap();
    let header = RequestHeader { flags: 0, command, cookie, offset, length };
    stream.write_all(&header.encode()).unwrap();
}

#[test]
fn what_is_written_is_read_back_over_another_connection() {
    let server = Server::start();
    let (mut one, mut two) = (server.client(), server.client());
    let data: Vec<u8> = (0..=250_u8).cycle().take(3_000_320).collect();
    request(&mut one, command::WRITE, 1, 4096, data.len());
    one.write_all(&data).unwrap();
    assert_eq!(read(&mut one, 16), simple_reply(1, 0));
    request(&mut two, command::READ, 2, 4096, data.len());
    assert_eq!(read(&mut two, 16), simple_reply(2, 0));
    assert!(read(&mut two, data.len()) == data);
}

#[test]
fn a_slow_reader_gets_all_its_answers() {
    let server = Server::start();
    let mut writer = server.client();
    let mut reader = writer.try_clone().unwrap();
    // Far more than the socket's buffers and the server's bounds hold: the server must wait for
    // the reader, not drop or grow.
    const COUNT: u64 = 300;
    let thread = std::thread::spawn(move || {
        for cookie in 0..COUNT {
            request(&mut writer, command::READ, cookie, 0, 1 << 20);
        }
    });
    for cookie in 0..COUNT {
        assert_eq!(read(&mut reader, 16), simple_reply(cookie, 0));
        assert!(read(&mut reader, 1 << 20).iter().all(|b| *b == 0));
    }
    thread.join().unwrap();
}

#[test]
fn the_seventeenth_client_waits_for_a_place() {
    let server = Server::start();
    let mut clients: Vec<_> = (0..MAX_CONNECTIONS).map(|_| server.client()).collect();
    let mut waiting = server.connect();
    waiting.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(waiting.read_exact(&mut [0; 18]).is_err(), "not served yet");
    waiting.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    request(&mut clients[3], command::DISC, 0, 0, 0);
    drop(clients.swap_remove(5));
    greet(&mut waiting);
}

#[test]
fn clients_that_vanish_or_talk_nonsense_leave_no_trace() {
    let server = Server::start();
    for i in 0..3 * MAX_CONNECTIONS {
        let mut stream = if i % 2 == 0 { server.client() } else { server.connect() };
        match i % 4 {
            0 => request(&mut stream, command::WRITE, 1, 0, 1 << 20), // no payload
            1 => stream.write_all(&[0xff; 100]).unwrap(),
            2 => (0..9).for_each(|_| request(&mut stream, command::READ, 1, 0, 1 << 20)),
            _ => {}
        }
    }
    let mut good = server.client();
    request(&mut good, command::FLUSH, 9, 0, 0);
    assert_eq!(read(&mut good, 16), simple_reply(9, 0));
}

#[test]
fn the_socket_is_private_and_goes_with_the_server() {
    let mut server = Server::start();
    let mut client = server.client();
    let mode = std::fs::metadata(&server.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.stop();
    assert!(!server.path.exists());
    assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0, "closed");
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_respected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nbd.sock");
    drop(UnixListener::bind(&path).unwrap()); // the file stays
    let running = Server::start_on(folder, path.clone());
    running.client();
    let never = AtomicBool::new(true);
    let refused = support::serve(&mut server(&path), &never, |_| Err(RequestError::Io));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    running.client();
}

#[test]
fn something_else_at_the_path_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let never = AtomicBool::new(true);
    assert!(support::serve(&mut server(&path), &never, |_| Err(RequestError::Io)).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}
