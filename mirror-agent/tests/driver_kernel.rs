//! The driver over a real block device, and over a disk so slow that its user dies before it
//! answers. Skipped where the machine does not have what they need.
#![allow(clippy::unwrap_used)] // helpers of tests

mod rig;

use kmod_shim::front::FrontEnd;
use kmod_shim::nbd::{Export, NbdServer};
use kmod_shim::sys::{Owner, Ring};
use mirror_agent::driver::{OpenError, Partition};
use mirror_core::buf::{Buf, BufMut};
use mirror_core::io::{Action, DataOp, IoId, Request, RequestOp};
use mirror_core::units::Extent;
use rig::{DATA_SIZE, LIMIT, Rig, Setup, partition};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_there() {
        assert!(Instant::now() < deadline, "{what}: not within the limit");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A loop device, as long as it lives.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path) -> Option<Self> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok()?;
        let name = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| Self(name.trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn a_block_device_works_like_a_file_and_is_held_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = partition(folder.path(), "disk", DATA_SIZE);
    let Some(device) = Loop::new(&file) else {
        eprintln!("skipped: no loop devices here");
        return;
    };
    let mut rig = Rig::new(Setup { data: Some(device.0.clone()), ..Setup::default() });
    let again = Partition::open(&device.0, Duration::ZERO);
    assert!(matches!(again, Err(OpenError::InUse { .. })), "{again:?}");
    let data = Buf::copied_from(&[3; 1 << 20]);
    let write = DataOp::Write { data: data.clone(), durable: true };
    assert_eq!(rig.data(write, 512, 1 << 20), Ok(None));
    for (unmap, durable, at) in [(true, true, 4096), (false, true, 65_536), (true, false, 131_584)]
    {
        assert_eq!(rig.data(DataOp::Zero { unmap, durable }, at, 8704), Ok(None));
        let expected = Buf::copied_from(&[0; 8704]);
        assert_eq!(rig.data(DataOp::Read, at, 8704), Ok(Some(expected)));
        assert_eq!(rig.data(DataOp::Read, at - 512, 512).unwrap().unwrap()[..], [3; 512]);
        assert_eq!(rig.data(DataOp::Read, at + 8704, 512).unwrap().unwrap()[..], [3; 512]);
    }
    assert_eq!(rig.data(DataOp::Flush, 0, 0), Ok(None));
    rig.stop();
    assert_eq!(Partition::open(&device.0, LIMIT).unwrap().size(), DATA_SIZE);
}

/// A disk whose writes take until `release` is set; mounted as a file by nbdfuse.
struct SlowDisk {
    fuse: Child,
    stop: Arc<AtomicBool>,
    /// A write has reached it.
    reached: Arc<AtomicBool>,
    release: Arc<AtomicBool>,
    /// Flushes that it has seen.
    flushes: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    file: PathBuf,
}

impl SlowDisk {
    fn new(folder: &Path) -> Option<Self> {
        let (socket, mount) = (folder.join("socket"), folder.join("mount"));
        std::fs::create_dir(&mount).unwrap();
        let [stop, reached, release] = [(); 3].map(|()| Arc::<AtomicBool>::default());
        let flushes = Arc::<AtomicUsize>::default();
        let flags = (stop.clone(), reached.clone(), release.clone(), flushes.clone());
        let path = socket.clone();
        let thread = std::thread::spawn(move || {
            let (stop, reached, release, flushes) = flags;
            serve_slowly(&path, &stop, |request| {
                let is_write = matches!(request.op, RequestOp::Write(_));
                let is_flush = matches!(request.op, RequestOp::Flush);
                reached.fetch_or(is_write, Ordering::Relaxed);
                flushes.fetch_add(usize::from(is_flush), Ordering::Relaxed);
                !is_write || release.load(Ordering::Relaxed)
            });
        });
        wait_for("socket", || socket.exists());
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        let fuse = Command::new("nbdfuse").arg(&mount).arg(uri).stderr(Stdio::null()).spawn();
        let file = mount.join("nbd");
        match fuse {
            Ok(fuse) => {
                Some(Self { fuse, stop, reached, release, flushes, thread: Some(thread), file })
            }
            Err(_) => {
                stop.store(true, Ordering::Relaxed);
                thread.join().unwrap();
                None
            }
        }
    }

    fn is_mounted(&mut self) -> bool {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline && self.fuse.try_wait().unwrap().is_none() {
            if self.file.exists() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        self.release.store(true, Ordering::Relaxed);
        let mount = self.file.parent().unwrap();
        let _ = Command::new("umount").arg(mount).stderr(Stdio::null()).status();
        let _ = self.fuse.kill();
        let _ = self.fuse.wait();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Serves zeros; requests wait as long as `is_due` says so.
fn serve_slowly(path: &Path, stop: &AtomicBool, is_due: impl Fn(&Request) -> bool) {
    let mut ring = Ring::new().unwrap();
    let export = Export { name: String::new(), size: DATA_SIZE, block: 512 };
    let mut server = NbdServer::new(path, export);
    server.start(&mut ring.owner(Owner::FRONT_END)).unwrap();
    let mut stopping = false;
    let mut held: Vec<Request> = Vec::new();
    while !server.is_stopped() {
        if stop.load(Ordering::Relaxed) && !stopping {
            stopping = true;
            server.stop(&mut ring.owner(Owner::FRONT_END));
        }
        let mut done = Vec::new();
        ring.wait(Some(Duration::from_millis(5)), &mut done).unwrap();
        for (_, cqe) in done {
            server.on_cqe(cqe, &mut ring.owner(Owner::FRONT_END), &mut held);
        }
        for request in std::mem::take(&mut held) {
            if !is_due(&request) {
                held.push(request);
                continue;
            }
            let data = matches!(request.op, RequestOp::Read)
                .then(|| BufMut::zeroed(usize::try_from(request.extent.len).unwrap()).freeze());
            let mut ring = ring.owner(Owner::FRONT_END);
            server.complete(request.id, Ok(data), &mut ring, &mut held);
        }
    }
}

#[test]
fn durable_operations_end_after_a_flush_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut disk) = SlowDisk::new(folder.path()) else {
        eprintln!("skipped: nbdfuse is not installed");
        return;
    };
    if !disk.is_mounted() {
        eprintln!("skipped: no FUSE here");
        return;
    }
    disk.release.store(true, Ordering::Relaxed);
    // FUSE leaves durable writes to its server, which knows none; the loop device flushes.
    let Some(device) = Loop::new(&disk.file) else {
        eprintln!("skipped: no loop devices here");
        return;
    };
    let flushes = disk.flushes.clone();
    let flushed = || flushes.swap(0, Ordering::Relaxed) > 0;
    let mut rig = Rig::new(Setup { data: Some(device.0.clone()), ..Setup::default() });
    flushed();
    let data = Buf::copied_from(&[1; 4096]);
    for durable in [false, true] {
        let write = DataOp::Write { data: data.clone(), durable };
        assert_eq!(rig.data(write, 0, 4096), Ok(None));
        assert_eq!(flushed(), durable, "write");
        for unmap in [false, true] {
            assert_eq!(rig.data(DataOp::Zero { unmap, durable }, 0, 8192), Ok(None));
            assert_eq!(flushed(), durable, "zero, unmap {unmap}");
        }
    }
    assert_eq!(rig.data(DataOp::Flush, 0, 0), Ok(None));
    assert!(flushed(), "flush");
}

#[test]
fn a_killed_users_last_write_keeps_the_partition_locked() {
    let name = "a_killed_users_last_write_keeps_the_partition_locked";
    if let Some(path) = std::env::var_os("TEST_SLOW_PARTITION") {
        write_and_wait(PathBuf::from(path));
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(mut disk) = SlowDisk::new(folder.path()) else {
        eprintln!("skipped: nbdfuse is not installed");
        return;
    };
    if !disk.is_mounted() {
        eprintln!("skipped: no FUSE here");
        return;
    }
    let mut user = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env("TEST_SLOW_PARTITION", &disk.file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let reached = disk.reached.clone();
    wait_for("the write", || reached.load(Ordering::Relaxed));
    user.kill().unwrap();
    let successor = Partition::open(&disk.file, Duration::from_millis(500));
    assert!(matches!(successor, Err(OpenError::InUse { .. })), "{successor:?}");
    disk.release.store(true, Ordering::Relaxed);
    drop(Partition::open(&disk.file, LIMIT).unwrap());
    user.wait().unwrap();
}

/// The user to be killed.
fn write_and_wait(path: PathBuf) -> ! {
    let rig = Rig::new(Setup { data: Some(path), ..Setup::default() });
    let op = DataOp::Write { data: Buf::copied_from(&[1; 4096]), durable: false };
    rig.act([Action::Data { io: IoId(1), op, extent: Extent::new(0, 4096) }]);
    loop {
        std::thread::park();
    }
}
