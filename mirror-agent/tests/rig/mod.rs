//! A driver over temporary files with a machine that does what the test says.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)] // shared helpers of tests

pub mod client;

use mirror_agent::driver::{
    Driver, DriverConfig, Machine, NetConfig, Partition, Report, Route, spawn,
};
use mirror_core::buf::Buf;
use mirror_core::command::{Command, Done};
use mirror_core::io::{
    Action, DataOp, Event, IoFailure, IoId, Request, RequestError, RequestId, RequestOp,
};
use mirror_core::status::{Color, LinkStatus, MirrorStatus, Phase, SideStatus};
use mirror_core::units::{Extent, Millis, Now, Side};
use mirror_core::wire::{LinkConfig, Secret, Security};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const DATA_SIZE: u64 = 8 << 20;
pub const LIMIT: Duration = Duration::from_secs(10);

/// What the test tells the machine.
#[derive(Default)]
pub struct Script {
    /// Carried out at the next command.
    pub actions: Vec<Action>,
    pub deadline: Option<Millis>,
}

/// Serves requests from the data partition and tells the test of everything else.
pub struct Fake {
    script: Arc<Mutex<Script>>,
    seen: Sender<Event>,
    requests: HashMap<IoId, RequestId>,
    next_io: u64,
}

impl Machine for Fake {
    fn handle(&mut self, _: Now, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Command { id, .. } => {
                out.append(&mut self.script.lock().unwrap().actions);
                out.push(Action::Reply { id, result: Ok(Done::Noted) });
            }
            Event::Request(request) => self.serve(request, out),
            Event::DataDone { io, result } if self.requests.contains_key(&io) => {
                let id = self.requests.remove(&io).unwrap();
                out.push(Action::Complete { id, result: result.map_err(|_| RequestError::Io) });
            }
            Event::Timer => {
                self.script.lock().unwrap().deadline = None;
                let _ = self.seen.send(Event::Timer);
            }
            other => {
                let _ = self.seen.send(other);
            }
        }
    }

    fn deadline(&self) -> Option<Millis> {
        self.script.lock().unwrap().deadline
    }

    fn status(&self, _: Now) -> MirrorStatus {
        let side = SideStatus {
            color: Color::Gray,
            active: None,
            last_update: None,
            break_time: None,
            disk_error: None,
            marked_regions: None,
            difference_percent: None,
            generation: None,
        };
        MirrorStatus {
            phase: Phase::NoConstruction,
            sides: [side.clone(), side],
            local: 0,
            total_difference_percent: 0,
            recovery: None,
            link: LinkStatus::Down,
            session: 4711,
            verdict: None,
            block: 512,
            size: 0,
            separated: false,
            both_active: false,
            needs_force: false,
            constructing: false,
        }
    }
}

impl Fake {
    fn serve(&mut self, request: Request, out: &mut Vec<Action>) {
        self.next_io += 1;
        let io = IoId((1 << 32) + self.next_io);
        self.requests.insert(io, request.id);
        let op = match request.op {
            RequestOp::Read => DataOp::Read,
            RequestOp::Write(data) => DataOp::Write { data, durable: request.fua },
            RequestOp::Zero { unmap } => DataOp::Zero { unmap, durable: request.fua },
            RequestOp::Flush => DataOp::Flush,
        };
        out.push(Action::Data { io, op, extent: request.extent });
    }
}

pub struct Rig {
    pub driver: Option<Driver>,
    pub script: Arc<Mutex<Script>>,
    pub seen: Receiver<Event>,
    pub data: PathBuf,
    pub cluster: PathBuf,
    pub folder: tempfile::TempDir,
    next_io: u64,
}

/// What differs between rigs.
pub struct Setup {
    pub name: &'static str,
    /// A data partition that is there already.
    pub data: Option<PathBuf>,
    pub side: Side,
    pub secret: &'static [u8],
    pub routes: Vec<Route>,
    pub listen: Vec<SocketAddr>,
    pub handshake_limit: Duration,
    pub disk_limit: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            name: "md1",
            data: None,
            side: Side::First,
            secret: b"a secret of the right length",
            routes: vec![],
            listen: vec![],
            handshake_limit: Duration::from_secs(3),
            disk_limit: Duration::from_secs(60),
        }
    }
}

pub fn partition(folder: &Path, name: &str, size: u64) -> PathBuf {
    let path = folder.join(name);
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    path
}

pub fn open(path: &Path) -> Partition {
    Partition::open(path, LIMIT).unwrap()
}

/// An address that is free right now.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn route(remote: SocketAddr) -> Route {
    Route { local: Some("127.0.0.1".parse().unwrap()), remote }
}

impl Rig {
    pub fn new(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = setup.data.unwrap_or_else(|| partition(folder.path(), "data", DATA_SIZE));
        let cluster = partition(folder.path(), "cluster", 1 << 20);
        let (seen, receiver) = channel();
        let script = Arc::<Mutex<Script>>::default();
        let machine = Fake { script: script.clone(), seen, requests: HashMap::new(), next_io: 0 };
        let config = DriverConfig {
            name: setup.name.to_owned(),
            data: open(&data),
            cluster: open(&cluster),
            net: NetConfig {
                link: LinkConfig {
                    secret: Secret::new(setup.secret).unwrap(),
                    mirror: "md1".to_owned(),
                    side: setup.side,
                    security: Security::Encrypted,
                },
                routes: setup.routes,
                listen: setup.listen,
                connect_limit: Duration::from_secs(3),
                handshake_limit: setup.handshake_limit,
            },
            disk_limit: setup.disk_limit,
        };
        let driver = Some(spawn(config, machine).unwrap());
        Self { driver, script, seen: receiver, data, cluster, folder, next_io: 0 }
    }

    pub fn driver(&self) -> &Driver {
        self.driver.as_ref().unwrap()
    }

    /// Lets the machine ask for these actions.
    pub fn act(&self, actions: impl IntoIterator<Item = Action>) {
        self.script.lock().unwrap().actions.extend(actions);
        let answer = self.driver().handle.command(Command::Recover).blocking_recv();
        assert_eq!(answer.unwrap(), Ok(Done::Noted));
    }

    pub fn next(&self) -> Event {
        loop {
            match self.seen.recv_timeout(LIMIT).expect("an event") {
                // Parts of a frame: how many there are is the network's affair. The partitions are
                // measured before each agreement.
                Event::Heard { .. } | Event::Measured { .. } => {}
                event => return event,
            }
        }
    }

    pub fn nothing_for(&self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(event) = self.seen.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            let passes = matches!(event, Event::Heard { .. } | Event::Measured { .. });
            assert!(passes, "unexpected {event:?}");
        }
    }

    /// Does an operation on the data partition.
    pub fn data(&mut self, op: DataOp, offset: u64, len: u64) -> Result<Option<Buf>, IoFailure> {
        self.next_io += 1;
        let asked = IoId(self.next_io);
        self.act([Action::Data { io: asked, op, extent: Extent::new(offset, len) }]);
        match self.next() {
            Event::DataDone { io, result } => {
                assert_eq!(io, asked);
                result
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Stops the driver; its last word.
    pub fn stop(&mut self) -> Report {
        let mut driver = self.driver.take().unwrap();
        driver.handle.stop();
        driver.thread.join().unwrap();
        let mut last = None;
        while let Some(report) = driver.reports.blocking_recv() {
            last = Some(report);
        }
        last.unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.driver.is_some() {
            self.stop();
        }
    }
}
