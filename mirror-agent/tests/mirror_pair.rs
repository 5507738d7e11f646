//! Two servers with the real core, each in a process of its own that can be killed.
#![allow(clippy::unwrap_used)] // helpers of tests

mod rig;

use kmod_shim::nbd::Export;
use mirror_agent::driver::{Driver, DriverConfig, FrontEndSpec, NetConfig, Route, now, spawn};
use mirror_core::command::{Command, Done};
use mirror_core::disk::layout::{BITMAP, BLOCK_BYTES, SUPERBLOCK_A, SUPERBLOCK_B, required_bytes};
use mirror_core::disk::superblock::{Loaded, load, repairs};
use mirror_core::marks::Marks;
use mirror_core::mirror::{Mirror, Setup, Tuning};
use mirror_core::record::Record;
use mirror_core::status::{LinkStatus, Phase};
use mirror_core::units::{Id16, Side, regions_in};
use mirror_core::wire::{LinkConfig, Secret, Security};
use rig::client::Client;
use rig::{free_address, open};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SIZE: u64 = 64 << 20;
const LIMIT: Duration = Duration::from_secs(30);

// ---- the server's process ----

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn start(folder: &Path, side: Side, addresses: [SocketAddr; 2], boot: Id16) -> Driver {
    let data = open(&folder.join("data"));
    let cluster = open(&folder.join("cluster"));
    let copy = |at| cluster.read(at, BLOCK_BYTES).unwrap();
    let (a, b) = (copy(SUPERBLOCK_A), copy(SUPERBLOCK_B));
    let (record, fresh) = match load(&a, &b) {
        Loaded::NeverUsed => (Record::blank(Id16(random()), side), true),
        Loaded::Valid { record, .. } => (*record, false),
        Loaded::Broken(why) => panic!("{why}"),
    };
    if !fresh {
        for (offset, bytes) in repairs(&record, &a, &b) {
            cluster.write(offset, &bytes).unwrap();
        }
    }
    let marks = (record.size != 0).then(|| {
        let len = usize::try_from(required_bytes(SIZE) - BITMAP).unwrap();
        let bytes = cluster.read(BITMAP, len).unwrap();
        Marks::load(record.device, regions_in(record.size), &bytes).0
    });
    let setup = Setup {
        record,
        fresh,
        marks,
        capacity: SIZE,
        device_block: data.block(),
        boot,
        resume: false,
        seed: random(),
        tuning: Tuning::default(),
    };
    let net = NetConfig {
        link: LinkConfig {
            secret: Secret::new(b"a secret of the right length").unwrap(),
            mirror: "md1".to_owned(),
            side,
            security: Security::Encrypted,
        },
        routes: vec![Route { local: None, remote: addresses[side.other().index()] }],
        listen: vec![addresses[side.index()]],
        connect_limit: Duration::from_secs(3),
        handshake_limit: Duration::from_secs(3),
    };
    let disk_limit = Duration::from_secs(60);
    let config = DriverConfig { name: "md1".to_owned(), data, cluster, net, disk_limit };
    spawn(config, Mirror::new(setup, now())).unwrap()
}

/// Obeys the lines of standard input, one answer for each.
fn serve(spec: &str) -> ! {
    let words: Vec<&str> = spec.split(' ').collect();
    let [folder, side, first, second, boot] = words.as_slice() else { panic!("{spec}") };
    let folder = Path::new(folder);
    let side = if *side == "0" { Side::First } else { Side::Second };
    let boot = Id16([boot.parse().unwrap(); 16]);
    let addresses = [first.parse().unwrap(), second.parse().unwrap()];
    let driver = start(folder, side, addresses, boot);
    println!("\nready");
    for line in std::io::stdin().lines() {
        println!("\n{}", obey(&driver, folder, line.unwrap().as_str()));
    }
    std::process::exit(0);
}

fn obey(driver: &Driver, folder: &Path, order: &str) -> String {
    let handle = &driver.handle;
    let path = folder.join("nbd");
    let command = match order {
        "status" => {
            let s = handle.status().blocking_recv().unwrap();
            let whole = s.phase == Phase::Normal && s.link == LinkStatus::Session;
            return format!("{whole} {s:?}");
        }
        "open" => {
            let export = Export { name: "md1".to_owned(), size: SIZE, block: 4096 };
            let spec = FrontEndSpec::NbdSocket { path, export };
            return format!("{:?}", handle.open_front_end(spec).blocking_recv().unwrap());
        }
        "activate" => Command::Activate { peer_down: false, peer_seen_active: None },
        "deactivate" => {
            handle.close_front_end().blocking_recv().unwrap();
            Command::Deactivate
        }
        _ => Command::Shutdown,
    };
    format!("{:?}", handle.command(command).blocking_recv().unwrap())
}

// ---- the test's side ----

/// One server as the test sees it.
struct Server {
    spec: String,
    test: &'static str,
    folder: PathBuf,
    process: Option<(Child, ChildStdin, BufReader<ChildStdout>)>,
}

impl Server {
    fn new(root: &Path, side: usize, addresses: [SocketAddr; 2], test: &'static str) -> Self {
        let folder = root.join(side.to_string());
        std::fs::create_dir(&folder).unwrap();
        rig::partition(&folder, "data", SIZE);
        rig::partition(&folder, "cluster", required_bytes(SIZE));
        let [first, second] = addresses;
        let spec = format!("{} {side} {first} {second} {}", folder.display(), side + 1);
        let mut server = Self { spec, test, folder, process: None };
        server.start();
        server
    }

    fn start(&mut self) {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", self.test, "--nocapture"])
            .env("TEST_SERVER", &self.spec)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let input = child.stdin.take().unwrap();
        self.process = Some((child, input, output));
        while self.line() != "ready" {} // after the test harness's own lines
    }

    fn kill(&mut self) {
        if let Some((mut child, ..)) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn line(&mut self) -> String {
        let (_, _, output) = self.process.as_mut().unwrap();
        let mut line = String::new();
        assert!(output.read_line(&mut line).unwrap() > 0, "the server's process ended");
        line.trim_end().to_owned()
    }

    fn order(&mut self, order: &str) -> String {
        let (_, input, _) = self.process.as_mut().unwrap();
        writeln!(input, "{order}").unwrap();
        self.line(); // empty
        self.line()
    }

    fn wait_until_whole(&mut self) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = self.order("status");
            if status.starts_with("true") {
                return;
            }
            assert!(Instant::now() < deadline, "{status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn activate(&mut self) -> Client {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.order("activate").as_str() {
                answer if answer == format!("{:?}", Ok::<_, ()>(Done::Activated)) => break,
                answer => assert!(Instant::now() < deadline, "{answer}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(self.order("open"), "Ok(())");
        Client::connect(&self.folder.join("nbd"))
    }

    fn data(&self) -> Vec<u8> {
        std::fs::read(self.folder.join("data")).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Both servers, or never if this is a server's own process.
fn pair(test: &'static str) -> (Server, Server, tempfile::TempDir) {
    if let Ok(spec) = std::env::var("TEST_SERVER") {
        serve(&spec);
    }
    let root = tempfile::tempdir().unwrap();
    let addresses = [free_address(), free_address()];
    let mut one = Server::new(root.path(), 0, addresses, test);
    let two = Server::new(root.path(), 1, addresses, test);
    one.wait_until_whole();
    (one, two, root)
}

/// Writes that go on until told otherwise; keeps what the last write of each place was.
struct Writer {
    stop: Arc<AtomicBool>,
    /// Writes so far.
    written: Arc<AtomicUsize>,
    thread: JoinHandle<(Client, Vec<Option<u8>>)>,
}

const PLACE: usize = 65_536;

impl Writer {
    /// An error of the connection ends it, too: then the last write may be there or not.
    fn start(mut client: Client, seed: u64) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let written = Arc::<AtomicUsize>::default();
        let (flag, count) = (stop.clone(), written.clone());
        let thread = std::thread::spawn(move || {
            let places = usize::try_from(SIZE).unwrap() / PLACE;
            let (mut there, mut x) = (vec![None; places], seed);
            while !flag.load(Ordering::Relaxed) {
                x = x
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let place = usize::try_from(x >> 33).unwrap() % places;
                let fill = x.to_be_bytes()[6] | 1;
                there[place] = None; // unknown until acknowledged
                match client.try_write((place * PLACE) as u64, &[fill; PLACE]) {
                    Some(0) => {
                        there[place] = Some(fill);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => break,
                }
            }
            (client, there)
        });
        Self { stop, written, thread }
    }

    /// Waits for so many writes.
    fn wait(&self, count: usize) {
        let limit = Instant::now() + Duration::from_secs(60);
        while self.written.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < limit, "too little is written");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(self) -> (Client, Vec<Option<u8>>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn check(data: &[u8], there: &[Option<u8>]) {
    for (place, fill) in there.iter().enumerate() {
        if let Some(fill) = fill {
            let bytes = &data[place * PLACE..(place + 1) * PLACE];
            assert!(bytes.iter().all(|b| b == fill), "place {place} lost {fill}");
        }
    }
}

#[test]
fn a_standby_that_is_killed_and_comes_back_gets_what_it_missed() {
    let (mut one, mut two, _root) =
        pair("a_standby_that_is_killed_and_comes_back_gets_what_it_missed");
    let writer = Writer::start(one.activate(), 1);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(500));
        two.kill();
        std::thread::sleep(Duration::from_millis(500));
        two.start();
    }
    one.wait_until_whole();
    let (mut client, there) = writer.stop();
    assert!(there.iter().flatten().count() > 100, "too little was written");
    assert_eq!(client.flush(), 0);
    one.wait_until_whole();
    check(&one.data(), &there);
    assert!(one.data() == two.data());
}

#[test]
fn what_was_acknowledged_is_on_the_other_side_when_the_active_one_dies() {
    let (mut one, mut two, _root) =
        pair("what_was_acknowledged_is_on_the_other_side_when_the_active_one_dies");
    let writer = Writer::start(one.activate(), 2);
    writer.wait(200);
    one.kill();
    let (_, there) = writer.stop();
    assert!(there.iter().flatten().count() > 100, "too little was written");
    let mut client = two.activate();
    check(&client.read(0, 32 << 20).unwrap(), &there[..512]);
    check(&two.data(), &there);
    assert_eq!(client.write(0, &[0xaa; PLACE]), 0);
    one.start();
    two.wait_until_whole();
    assert_eq!(client.flush(), 0);
    assert!(one.data() == two.data());
    assert_eq!(one.data()[..PLACE], [0xaa; PLACE]);
}

#[test]
fn the_device_moves_over_and_back() {
    let (mut one, mut two, _root) = pair("the_device_moves_over_and_back");
    let ok = |done| format!("{:?}", Ok::<Done, ()>(done));
    let mut client = one.activate();
    assert_eq!(client.write(0, &[1; PLACE]), 0);
    assert_eq!(one.order("deactivate"), ok(Done::Deactivated));
    let mut client = two.activate();
    assert_eq!(client.read(0, PLACE).unwrap(), [1; PLACE]);
    assert_eq!(client.write(0, &[2; PLACE]), 0);
    assert_eq!(two.order("deactivate"), ok(Done::Deactivated));
    let mut client = one.activate();
    assert_eq!(client.read(0, PLACE).unwrap(), [2; PLACE]);
    assert_eq!(one.order("deactivate"), ok(Done::Deactivated));
    assert_eq!(one.order("shutdown"), ok(Done::Stopped));
    assert_eq!(two.order("shutdown"), ok(Done::Stopped));
    assert!(one.data() == two.data());
}
