//! A peer that knows the secret and sends what no peer may send: its connection ends with a line in
//! the log, and nothing else happens to the agent. The agent is the real program.
#![allow(clippy::unwrap_used)] // helpers of tests

use mirror_core::buf::Buf;
use mirror_core::units::{Extent, SessionNo, Side};
use mirror_core::wire::{Frame, Link, LinkConfig, LinkEvent, Message, Secret};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);
const SECRET: &str = "a secret of the right length";

/// The agent of server1, whose peer is the test.
struct Agent {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended, which a test will have told
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn config(folder: &str, agent_port: u16, port: u16) -> String {
    format!(
        r#"
[[server]]
name = "server1"
mirror_connect = ["127.0.0.1"]
[[server]]
name = "server2"
mirror_connect = ["127.0.0.2"]
[agent]
port = {agent_port}
run_dir = "{folder}/run"
log_dir = "{folder}/log"
device_dir = "{folder}"
syslog = "{folder}/none"
secret_file = "{folder}/secret"
[[mirror]]
name = "md1"
fs = "none"
port = {port}
data_partition = "{folder}/data"
cluster_partition = "{folder}/cluster"
"#
    )
}

fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, size) in [("data", 8 << 20), ("cluster", 1 << 20)] {
            File::create(at(name)).unwrap().set_len(size).unwrap();
        }
        fs::write(at("secret"), SECRET).unwrap();
        fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        let port = free_port();
        fs::write(at("conf"), config(folder.path().to_str().unwrap(), free_port(), port)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_clpmdagent"))
            .args(["--server", "server1", "--config"])
            .arg(at("conf"))
            .stderr(File::create(at("stderr")).unwrap())
            .spawn()
            .unwrap();
        let agent = Self { child, folder, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        agent.says("event: 1> Agent has started");
        agent
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    fn says(&self, text: &str) {
        until(text, || self.log().contains(text).then_some(()));
    }

    /// Resident memory, KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// A connection on which the test has proved to be server2.
struct Peer {
    stream: TcpStream,
    link: Link,
}

impl Peer {
    fn connect(agent: &Agent) -> Self {
        let stream = TcpStream::connect(agent.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let secret = Secret::new(SECRET.as_bytes()).unwrap();
        let config = LinkConfig { secret, mirror: "md1".to_owned(), side: Side::Second };
        let link = Link::dial(config, [7; 32]).unwrap();
        let mut peer = Self { stream, link };
        let hello = peer.link.take_output();
        peer.stream.write_all(&hello).unwrap();
        assert!(matches!(peer.next(), LinkEvent::Ready(_)));
        // The agent is at the point where a connection costs it most: its card is on its way.
        let LinkEvent::Frame(card) = peer.next() else { panic!("no frame") };
        assert!(matches!(card.message, Message::Card(_)), "{card:?}");
        peer
    }

    fn next(&mut self) -> LinkEvent {
        loop {
            if let Some(event) = self.link.next() {
                return event;
            }
            let mut some = [0; 4096];
            let count = self.stream.read(&mut some).unwrap();
            assert!(count > 0, "closed");
            self.link.feed(&some[..count]).unwrap();
            let answer = self.link.take_output();
            self.stream.write_all(&answer).unwrap();
        }
    }

    fn encoded(&mut self, message: Message) -> Vec<u8> {
        let frame = Frame { session: SessionNo(0), settled: 0, message };
        let encoded = self.link.encode(&frame).unwrap();
        let mut bytes = encoded.head.to_vec();
        bytes.extend(encoded.payload.iter().flat_map(|p| p.iter()));
        bytes
    }

    /// Sends, and waits until the agent has closed.
    fn send_and_end(mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes); // it may be closed half-way
        let mut some = [0; 4096];
        loop {
            match self.stream.read(&mut some) {
                Ok(0) => return,
                Ok(_) => {} // frames that were on their way
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(e) => panic!("not closed: {e}"),
            }
        }
    }
}

fn write() -> Message {
    let data = Buf::copied_from(&[0x5a; 4096]);
    Message::Write { id: 1, extent: Extent::new(0, 4096), durable: false, data }
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |c: u32| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 };
    !bytes.iter().fold(!0, |c, b| (0..8).fold(c ^ u32::from(*b), |c, _| step(c)))
}

/// Puts a value into the header, so that its checksum is good again.
fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
    let sum = crc32(&bytes[..44]);
    bytes[44..48].copy_from_slice(&sum.to_le_bytes());
}

/// Each spoils a good frame; what the log then names.
type Fault = (&'static str, fn(&mut Vec<u8>), &'static str);

const FAULTS: [Fault; 8] = [
    ("a forged tag", |f| f[50] ^= 1, "tag"),
    ("a damaged header", |f| f[30] ^= 1, "checksum"),
    ("a damaged payload", |f| f[100] ^= 1, "checksum"),
    ("another layout", |f| set(f, 1, &[9]), ""),
    ("an unknown message", |f| set(f, 2, &[200]), ""),
    ("a length that nobody has memory for", |f| set(f, 4, &u32::MAX.to_le_bytes()), ""),
    ("an extent beyond every mirror", |f| set(f, 32, &u64::MAX.to_le_bytes()), ""),
    ("half a frame, and then nothing of it", |f| f.iter_mut().skip(64).for_each(|b| *b = 0), ""),
];

#[test]
fn a_malformed_frame_ends_its_connection_with_a_line_and_costs_nothing_else() {
    let mut agent = Agent::start();
    let data = fs::read(agent.folder.path().join("data")).unwrap();
    for (what, spoil, named) in FAULTS {
        let lines = agent.log().lines().count();
        let mut peer = Peer::connect(&agent);
        let mut bytes = peer.encoded(write());
        spoil(&mut bytes);
        peer.send_and_end(&bytes);
        until(what, || {
            let log = agent.log();
            let mut new = log.lines().skip(lines);
            new.any(|l| l.contains("connection lost") && l.contains(named)).then_some(())
        });
    }
    // Well-formed, and yet nothing that a peer may send before a session.
    let lines = agent.log().lines().count();
    let mut peer = Peer::connect(&agent);
    let bytes = peer.encoded(write());
    peer.send_and_end(&bytes);
    until("a line about a frame out of place", || {
        agent.log().lines().skip(lines).any(|l| l.contains("connection closed")).then_some(())
    });

    let before = agent.memory();
    for round in 0..200 {
        let mut peer = Peer::connect(&agent);
        let mut bytes = peer.encoded(write());
        FAULTS[round % FAULTS.len()].1(&mut bytes);
        peer.send_and_end(&bytes);
    }
    let grown = agent.memory().saturating_sub(before);
    assert!(grown < 4096, "memory has grown by {grown} KiB");
    assert!(agent.child.try_wait().unwrap().is_none(), "the agent has ended");
    assert!(data == fs::read(agent.folder.path().join("data")).unwrap(), "the disk was written");
}
