//! A peer that knows the secret and sends what no peer may send: its connection ends with a line in
//! the log, and nothing else happens to the agent. The agent is the real program.
#![allow(clippy::unwrap_used)] // helpers of tests

use mirror_core::buf::Buf;
use mirror_core::units::{Extent, SessionNo, Side};
use mirror_core::wire::{Frame, Link, LinkConfig, LinkEvent, Message, Secret, Security};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);
const SECRET: &str = "a secret of the right length";

/// The agent of server2. The test is server1, which dials.
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
mirror_connect = ["127.0.0.2"]
[[server]]
name = "server2"
mirror_connect = ["127.0.0.1"]
[agent]
port = {agent_port}
run_dir = "{folder}/run"
log_dir = "{folder}/log"
device_dir = "{folder}"
syslog = "{folder}/none"
secret_file = "{folder}/secret"
security = "authenticated"
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
            .args(["--server", "server2", "--config"])
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

/// A connection on which the test has proved to be server1.
struct Peer {
    stream: TcpStream,
    link: Link,
}

impl Peer {
    /// `None` if the agent does not want to talk just now: it backs off after a failure.
    fn try_connect(agent: &Agent) -> Option<Self> {
        let stream = TcpStream::connect(agent.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let secret = Secret::new(SECRET.as_bytes()).unwrap();
        let (mirror, security) = ("md1".to_owned(), Security::Authenticated);
        let config = LinkConfig { secret, mirror, side: Side::First, security };
        let link = Link::dial(config, [7; 32]).unwrap();
        let mut peer = Self { stream, link };
        let hello = peer.link.take_output();
        peer.stream.write_all(&hello).unwrap();
        assert!(matches!(peer.next()?, LinkEvent::Ready(_)));
        let LinkEvent::Frame(card) = peer.next()? else { panic!("no frame") };
        assert!(matches!(card.message, Message::Card(_)), "{card:?}");
        Some(peer)
    }

    fn connect(agent: &Agent) -> Self {
        until("a connection", || Self::try_connect(agent))
    }

    fn next(&mut self) -> Option<LinkEvent> {
        loop {
            if let Some(event) = self.link.next() {
                return Some(event);
            }
            let mut some = [0; 4096];
            let count = self.stream.read(&mut some).unwrap();
            if count == 0 {
                return None;
            }
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
    ("a forged tag", |f| f[50] ^= 1, "is not authentic"),
    ("a damaged header", |f| f[30] ^= 1, "checksum"),
    ("a damaged payload", |f| f[100] ^= 1, "checksum"),
    ("another layout", |f| set(f, 1, &[9]), ""),
    ("an unknown message", |f| set(f, 2, &[200]), ""),
    ("a length that nobody has memory for", |f| set(f, 4, &u32::MAX.to_le_bytes()), ""),
    ("an extent beyond every mirror", |f| set(f, 32, &u64::MAX.to_le_bytes()), ""),
    ("another payload", |f| f.iter_mut().skip(64).for_each(|b| *b = 0), "checksum"),
];

/// Sends a spoilt frame to a fresh agent; one line of its log must then have both words.
fn ends_only_its_connection(what: &str, spoil: fn(&mut Vec<u8>), named: [&str; 2]) {
    let mut agent = Agent::start();
    let mut peer = Peer::connect(&agent);
    let before = agent.memory();
    let mut bytes = peer.encoded(write());
    spoil(&mut bytes);
    peer.send_and_end(&bytes);
    until(what, || {
        let log = agent.log();
        log.lines().any(|l| named.iter().all(|n| l.contains(n))).then_some(())
    });
    let grown = agent.memory().saturating_sub(before);
    assert!(grown < 4096, "{what}: memory has grown by {grown} KiB");
    Peer::connect(&agent);
    assert!(agent.child.try_wait().unwrap().is_none(), "{what}: the agent has ended");
    let data = fs::read(agent.folder.path().join("data")).unwrap();
    assert!(data.iter().all(|b| *b == 0), "{what}: the disk was written");
}

#[test]
fn a_malformed_frame_ends_its_connection_with_a_line_and_costs_nothing_else() {
    for (what, spoil, named) in FAULTS {
        ends_only_its_connection(what, spoil, ["connection lost", named]);
    }
}

/// The driver's message for bytes that are no frame of the protocol.
#[test]
fn bytes_that_are_no_frame_are_told() {
    let agent = Agent::start();
    let mut peer = Peer::connect(&agent);
    let mut bytes = peer.encoded(write());
    bytes[0] ^= 1;
    peer.send_and_end(&bytes);
    agent.says("NMP1 receive wrong magic data.");
}

#[test]
fn a_frame_that_is_out_of_place_ends_its_connection_with_a_line_and_costs_nothing_else() {
    let as_it_is = |_: &mut Vec<u8>| {};
    ends_only_its_connection("a write before a session", as_it_is, ["connection closed", "why="]);
}
