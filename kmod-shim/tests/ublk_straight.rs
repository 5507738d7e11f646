//! Reads that go straight into the memory of a request, on a kernel that offers them; elsewhere, and
//! without root, there is nothing to try.
#![allow(clippy::unwrap_used)] // helpers of tests

use kmod_shim::front::FrontEnd;
use kmod_shim::nbd::Export;
use kmod_shim::sys::{Fd, Op, Owner, Ring, Slots};
use kmod_shim::ublk::{self, UblkServer, UblkSpec};
use mirror_core::buf::Buf;
use mirror_core::io::{Request, RequestId, RequestOp};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SIZE: usize = 4 << 20;
/// What is read there is answered with other bytes than the disk brings.
const OTHERS: std::ops::Range<u64> = (1 << 20)..(2 << 20);
const LIMIT: Duration = Duration::from_secs(60);

fn pattern() -> Vec<u8> {
    (0..SIZE).map(|at| (at / 512 * 7 + at).to_le_bytes()[0]).collect()
}

fn expected() -> Vec<u8> {
    let mut bytes = pattern();
    bytes[1 << 20..2 << 20].fill(0xee);
    bytes
}

/// Serves `file` until `stop`; gives how many reads went straight.
struct Server {
    ring: Ring,
    front: UblkServer,
    disk: Slots<RequestId>,
    file: File,
    straight: usize,
}

impl Server {
    fn read(&mut self, request: &Request) {
        let (id, offset) = (request.id, request.extent.offset);
        let range = 0..usize::try_from(request.extent.len).unwrap();
        let front = &mut self.ring.owner(Owner::FRONT_END);
        let Some(place) = self.front.lend(id) else {
            let mut bytes = vec![0; range.len()];
            self.file.read_exact_at(&mut bytes, offset).unwrap();
            self.front.complete(id, Ok(Some(Buf::copied_from(&bytes))), front, &mut Vec::new());
            return;
        };
        assert_eq!(self.front.lend(id), None, "lent twice");
        if offset < OTHERS.end && request.extent.end() > OTHERS.start {
            // The answer comes from elsewhere, before the disk's own lands in the same memory.
            let from = usize::try_from(offset).unwrap();
            let bytes = Buf::copied_from(&expected()[from..from + range.len()]);
            self.front.complete(id, Ok(Some(bytes)), front, &mut Vec::new());
        }
        let file: Fd = Arc::new(OwnedFd::from(self.file.try_clone().unwrap()));
        let op = Op::ReadStraight { file, offset, place, range };
        self.disk.submit(op, id, &mut self.ring.owner(Owner::DATA));
    }

    /// Goes on for a moment; the socket in place of the file does not answer.
    fn hang(&mut self) {
        let (mut done, mut requests) = (Vec::new(), Vec::new());
        self.ring.wait(Some(Duration::from_millis(50)), &mut done).unwrap();
        for (owner, cqe) in done {
            let front = &mut self.ring.owner(Owner::FRONT_END);
            if owner == Owner::FRONT_END {
                self.front.on_cqe(cqe, front, &mut requests);
            } else if let Some(ended) = self.disk.take(&cqe) {
                self.front.given_back(ended.tag, front);
            }
        }
        for request in requests {
            let place = self.front.lend(request.id).expect("a read, which can be lent");
            let file: Fd = Arc::new(OwnedFd::from(self.file.try_clone().unwrap()));
            let op = Op::ReadStraight { file, offset: 0, place, range: 0..4096 };
            self.disk.submit(op, request.id, &mut self.ring.owner(Owner::DATA));
        }
    }

    fn request(&mut self, request: &Request) {
        let result = match &request.op {
            RequestOp::Read => return self.read(request),
            RequestOp::Write(data) => {
                self.file.write_all_at(data, request.extent.offset).unwrap();
                Ok(None)
            }
            RequestOp::Zero { .. } | RequestOp::Flush => Ok(None),
        };
        let front = &mut self.ring.owner(Owner::FRONT_END);
        self.front.complete(request.id, result, front, &mut Vec::new());
    }

    fn run(mut self, stop: &AtomicBool) -> usize {
        self.front.start(&mut self.ring.owner(Owner::FRONT_END)).unwrap();
        let mut stopping = false;
        while !self.front.is_stopped() {
            if stop.load(Ordering::Relaxed) && !stopping {
                stopping = true;
                self.front.stop(&mut self.ring.owner(Owner::FRONT_END));
            }
            let (mut done, mut requests) = (Vec::new(), Vec::new());
            self.ring.wait(Some(Duration::from_millis(10)), &mut done).unwrap();
            for (owner, cqe) in done {
                let front = &mut self.ring.owner(Owner::FRONT_END);
                if owner == Owner::FRONT_END {
                    self.front.on_cqe(cqe, front, &mut requests);
                } else if let Some(ended) = self.disk.take(&cqe) {
                    assert!(ended.result.is_ok_and(|n| n > 0), "{:?}", ended.result);
                    self.straight += 1;
                    self.front.given_back(ended.tag, front);
                    self.front.complete(ended.tag, Ok(None), front, &mut Vec::new());
                }
            }
            assert!(self.front.opened().is_none_or(|o| o.is_ok()));
            for request in requests {
                self.request(&request);
            }
        }
        self.straight
    }
}

/// A socket that nobody writes to stands for a disk that does not answer.
#[test]
fn a_read_that_hangs_in_the_disk_does_not_keep_the_server() {
    if !ublk::reads_straight().unwrap_or(false) {
        println!("left out: this kernel's ublk driver does not offer it");
        return;
    }
    let spec = UblkSpec { number: 800 + std::process::id() % 90, mark: 1, take_over: false };
    let (socket, mut answer) = UnixStream::pair().unwrap();
    let export = Export { name: "t".into(), size: SIZE as u64, block: 512 };
    let mut server = Server {
        ring: Ring::new().unwrap(),
        front: UblkServer::new(spec, export),
        disk: Slots::default(),
        file: File::from(OwnedFd::from(socket)),
        straight: 0,
    };
    server.front.start(&mut server.ring.owner(Owner::FRONT_END)).unwrap();
    let (mut orders, mut reader) = (0, None);
    let end = Instant::now() + LIMIT;
    while !server.front.is_stopped() {
        assert!(Instant::now() < end, "it does not end");
        if reader.is_none() && server.front.opened().is_some_and(|o| o.is_ok()) {
            let path = ublk::device_path(spec.number);
            reader = Some(std::thread::spawn(move || File::open(path)?.read(&mut [0; 512])));
        }
        if !server.disk.is_empty() && orders < 2 {
            orders += 1;
            server.front.stop(&mut server.ring.owner(Owner::FRONT_END));
        }
        server.hang();
    }
    assert!(server.front.complaint().is_some_and(|c| c.contains("the disk has answered")));
    assert!(!server.front.is_over());
    // When the disk answers after all, the device goes.
    answer.write_all(&[7; 1 << 16]).unwrap();
    while !server.front.is_over() {
        assert!(Instant::now() < end, "the device stays");
        server.hang();
    }
    assert_eq!(ublk::inspect(spec.number).unwrap(), None);
    assert!(reader.is_some_and(|r| r.join().is_ok()), "the reader ends");
}

struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Running {
    fn start(spec: UblkSpec, file: File) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let export = Export { name: "t".into(), size: SIZE as u64, block: 512 };
            let (ring, front) = (Ring::new().unwrap(), UblkServer::new(spec, export));
            Server { ring, front, disk: Slots::default(), file, straight: 0 }.run(&flag)
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(&mut self) -> Option<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|t| t.join().ok())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn opened(number: u32) -> File {
    let deadline = Instant::now() + LIMIT;
    loop {
        match File::options().read(true).write(true).open(ublk::device_path(number)) {
            Ok(file) => return file,
            Err(e) => assert!(Instant::now() < deadline, "{e}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_the_disk_reads_goes_straight_to_the_request_and_nothing_overtakes_an_answer() {
    if !ublk::reads_straight().unwrap_or(false) {
        println!("left out: this kernel's ublk driver does not offer it");
        return;
    }
    let spec = UblkSpec { number: 900 + std::process::id() % 90, mark: 1, take_over: false };
    let file = tempfile::tempfile_in("/var/tmp").unwrap();
    file.write_all_at(&pattern(), 0).unwrap();
    let mut server = Running::start(spec, file.try_clone().unwrap());
    let mut device = opened(spec.number);
    let mut seen = Vec::new();
    device.read_to_end(&mut seen).unwrap();
    assert_eq!(seen.len(), SIZE);
    let differs = seen.iter().zip(&expected()).position(|(a, b)| a != b);
    assert_eq!(differs, None, "first byte that differs");
    // What is written is copied out of the request.
    device.write_all_at(&[0x5a; 8192], 3 << 20).unwrap();
    device.sync_all().unwrap();
    let mut written = [0; 8192];
    file.read_exact_at(&mut written, 3 << 20).unwrap();
    assert_eq!(written, [0x5a; 8192]);
    drop(device);
    assert!(server.end().unwrap() >= 8, "reads went straight");
    assert_eq!(ublk::inspect(spec.number).unwrap(), None);
}
