//! The server against the NBD clients of this machine; a client that is missing is skipped.
#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use kmod_shim::nbd::{Export, NbdServer};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::MemoryDisk;

const SIZE: usize = 64 << 20;

struct Server {
    folder: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, path) = (stop.clone(), folder.path().join("s"));
        let thread = std::thread::spawn(move || {
            let export = Export { name: "md1".into(), size: SIZE as u64, block: 512 };
            let mut disk = MemoryDisk::new(SIZE);
            let mut server = NbdServer::new(&path, export);
            support::serve(&mut server, &flag, |request| disk.serve(request)).unwrap();
        });
        let server = Self { folder, stop, thread: Some(thread) };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !server.socket().exists() {
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::yield_now();
        }
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    fn uri(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.socket().display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Runs a program; `None` if it is not installed.
fn run(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).output() {
        Ok(output) => Some(output),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {program} is not installed");
            None
        }
        Err(e) => panic!("{program}: {e}"),
    }
}

fn text(output: &Output) -> String {
    [output.stdout.as_slice(), &output.stderr].concat().iter().map(|b| char::from(*b)).collect()
}

fn check(program: &str, args: &[&str]) -> Option<String> {
    let output = run(program, args)?;
    assert!(output.status.success(), "{program}: {}", text(&output));
    Some(text(&output))
}

#[test]
fn nbdinfo_sees_the_export() {
    let server = Server::start();
    for name in ["", "md1"] {
        let Some(shown) = check("nbdinfo", &[&server.uri(name)]) else { return };
        for expected in [
            "can_multi_conn: true",
            "can_fua: true",
            "can_trim: true",
            "can_zero: true",
            "block_size_minimum: 512",
        ] {
            assert!(shown.contains(expected), "{expected} is missing:\n{shown}");
        }
    }
    let list = check("nbdinfo", &["--list", &server.uri("")]).unwrap();
    assert!(list.contains("export=\"md1\""), "{list}");
    assert!(!run("nbdinfo", &[&server.uri("other")]).unwrap().status.success());
}

#[test]
fn nbdcopy_brings_a_file_there_and_back() {
    let server = Server::start();
    let (from, to) = (server.folder.path().join("from"), server.folder.path().join("to"));
    let mut data = vec![0_u8; SIZE];
    let mut x = 1_u32;
    for block in data.chunks_exact_mut(4096).step_by(3) {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        block.fill(x.to_be_bytes()[0]);
    }
    std::fs::write(&from, &data).unwrap();
    let path = |p: &Path| p.display().to_string();
    for request in ["--request-size=262144", "--request-size=33554432"] {
        let Some(_) = check("nbdcopy", &[request, "--flush", &path(&from), &server.uri("")]) else {
            return;
        };
        check("nbdcopy", &[request, &server.uri(""), &path(&to)]);
        assert!(std::fs::read(&to).unwrap() == data);
    }
}

#[test]
fn qemu_io_checks_its_own_patterns() {
    let server = Server::start();
    let commands = [
        "write -P 0x5a 512 5M",
        "write -f -P 0x5b 8M 4k",
        "flush",
        "read -P 0x5a 512 5M",
        "write -z 1M 64k",
        "write -z -u 2M 1536",
        "discard 3M 1M",
        "read -P 0 1M 64k",
        "read -P 0 2M 1536",
        "read -P 0x5a 2098688 512",
        "read -P 0 3M 1M",
        "read -P 0x5b 8M 4k",
    ];
    let mut args = vec!["-f", "raw"];
    commands.iter().for_each(|c| args.extend(["-c", c]));
    let uri = server.uri("md1");
    args.push(&uri);
    if let Some(shown) = check("qemu-io", &args) {
        assert!(!shown.contains("verification failed"), "{shown}");
    }
}

#[test]
fn fio_verifies_random_writes_deep_in_flight() {
    let server = Server::start();
    let uri = format!("--uri={}", server.uri(""));
    let fixed = [
        "--name=t",
        "--ioengine=nbd",
        "--rw=randwrite",
        "--bsrange=512-256k",
        "--blockalign=512",
        "--iodepth=64",
        "--size=48m",
        "--verify=crc32c",
        "--fsync=50",
        "--output-format=terse",
    ];
    let folder = format!("--aux-path={}", server.folder.path().display());
    let args: Vec<&str> = fixed.into_iter().chain([uri.as_str(), &folder]).collect();
    let Some(output) = run("fio", &args) else { return };
    if text(&output).contains("engine nbd not loadable") {
        eprintln!("skipped: this fio has no nbd engine");
        return;
    }
    assert!(output.status.success(), "{}", text(&output));
}
