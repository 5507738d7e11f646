//! What the tests of the host parts share: a mount namespace of their own, an NBD server, a loop
//! device on a file. They need root, `unshare`, `nbdkit` and `nbdfuse`.

#![allow(dead_code)] // each test program uses its own part of this

use mirror_agent::host::loops::LoopDevice;
use std::env;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FOLDER: &str = "MIRROR_HOST_TEST_FOLDER";

/// Runs `body` in a process with a mount namespace of its own and a folder that is gone
/// afterwards. Fails if a loop device on a file of that folder is left.
pub(crate) fn isolated<F: Future<Output = ()>>(test: &str, body: impl FnOnce(PathBuf) -> F) {
    if let Some(folder) = env::var_os(FOLDER) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("runtime").block_on(body(folder.into()));
        return;
    }
    if let Some(missing) = missing() {
        eprintln!("{test}: left out, there is no {missing} here");
        return;
    }
    let folder = tempfile::Builder::new().prefix("mirror-host-").tempdir().expect("folder");
    let output = Command::new("timeout")
        .args(["-k", "5", "120", "unshare", "-m", "--propagation", "private", "--"])
        .arg(env::current_exe().expect("own path"))
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("unshare runs");
    let left = loops_left(folder.path());
    for device in &left {
        let _ = Command::new("losetup").arg("-d").arg(device.path()).status();
    }
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{test} failed in its namespace: {}\n{said}", output.status);
    assert!(left.is_empty(), "{test} left {left:?}");
}

/// What these tests need and this machine does not give.
fn missing() -> Option<&'static str> {
    let unshare = || Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
    if !nix::unistd::geteuid().is_root() {
        return Some("root");
    }
    if !Path::new("/dev/fuse").exists() {
        return Some("/dev/fuse");
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("/dev/loop-control");
    }
    (!unshare().is_ok_and(|s| s.success())).then_some("mount namespace")
}

/// The loop devices on files of `folder` that do not go within five seconds. Another process that
/// just looks at a loop device, as `losetup -f` does, delays its end.
fn loops_left(folder: &Path) -> Vec<LoopDevice> {
    let is_here = |l: &LoopDevice| l.backing_file().is_some_and(|f| f.starts_with(folder));
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let left: Vec<_> = LoopDevice::all().into_iter().filter(is_here).collect();
        if left.is_empty() || Instant::now() >= end {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `holds`, at most ten seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process that is killed at the end.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("fits")
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An NBD server of zeros on `<folder>/nbd.sock`, with blocks of at least `block` bytes.
pub(crate) async fn serve(folder: &Path, block: u32) -> (Running, PathBuf) {
    let socket = folder.join("nbd.sock");
    let _ = fs::remove_file(&socket);
    let child = Command::new("nbdkit")
        .args(["-f", "--filter=blocksize-policy", "-e", "md1", "-U"])
        .arg(&socket)
        .args(["memory", "256M"])
        .arg(format!("blocksize-minimum={block}"))
        .args(["blocksize-preferred=4096", "blocksize-maximum=32M"])
        .stderr(Stdio::null())
        .spawn()
        .expect("nbdkit starts");
    let server = Running(child);
    eventually("the NBD server listens", || socket.exists()).await;
    (server, socket)
}

/// A loop device on a sparse file, detached at the end.
pub(crate) struct Disk(pub(crate) LoopDevice, pub(crate) PathBuf);

impl Disk {
    pub(crate) fn new(folder: &Path, name: &str, megabytes: u64) -> Self {
        let file = folder.join(name);
        fs::File::create(&file).and_then(|f| f.set_len(megabytes << 20)).expect("sparse file");
        let output = Command::new("losetup").args(["--show", "-f"]).arg(&file).output();
        let text = String::from_utf8(output.expect("losetup runs").stdout).expect("text");
        let device = LoopDevice::from_path(Path::new(text.trim())).expect("a loop device");
        Self(device, file)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(self.path()).status();
    }
}

/// Runs a command that has to succeed.
pub(crate) fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).stdout(Stdio::null()).status();
    assert!(status.expect("it starts").success(), "{program} {args:?}");
}

/// A process that does nothing but stand in `folder`.
pub(crate) fn stand_in(folder: &Path) -> Running {
    Running(Command::new("sleep").arg("600").current_dir(folder).spawn().expect("sleep starts"))
}

/// Puts a program in front of the search path and returns the new path.
pub(crate) fn fake(folder: &Path, name: &str, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).expect("folder");
    fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).expect("is written");
    fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("is set");
    format!("{}:{}", bin.display(), mirror_agent::host::command::SYSTEM_PATH)
}
