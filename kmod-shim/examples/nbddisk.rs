//! A file as the kernel block device `/dev/nbd<n>`, until SIGTERM or SIGINT:
//!
//! `cargo run -p kmod-shim --example nbddisk -- IDENTIFIER FILE`. Needs root and the nbd driver
//! (`modprobe nbd`). Killed in the middle and started again, it goes on with the same device.
//! While there is a file `FILE.slow`, each request takes as many milliseconds as it says.

#[path = "../tests/support/mod.rs"]
mod support;

use kmod_shim::nbd::kernel::{self, Geometry};
use kmod_shim::nbd::{Export, NbdServer};
use mirror_core::buf::{Buf, BufMut};
use mirror_core::io::{Request, RequestError, RequestOp};
use nix::sys::signal::{SigSet, Signal};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn answer(file: &File, slow: &Path, request: &Request) -> io::Result<Option<Buf>> {
    if let Some(ms) = fs::read_to_string(slow).ok().and_then(|t| t.trim().parse().ok()) {
        std::thread::sleep(Duration::from_millis(ms));
    }
    let extent = request.extent;
    let len = usize::try_from(extent.len).map_err(io::Error::other)?;
    match &request.op {
        RequestOp::Read => {
            let mut buf = BufMut::zeroed(len);
            file.read_exact_at(&mut buf, extent.offset)?;
            return Ok(Some(buf.freeze()));
        }
        RequestOp::Write(data) => file.write_all_at(data, extent.offset)?,
        RequestOp::Zero { .. } => file.write_all_at(&vec![0; len], extent.offset)?,
        RequestOp::Flush => {}
    }
    Ok(None)
}

/// Makes the device, or goes on with the one that is there; its number.
fn attach(geometry: &Geometry, socket: &UnixStream) -> io::Result<u32> {
    let found = kernel::find(&geometry.identifier)?;
    let Some(device) = found.first() else { return kernel::connect(geometry, socket.as_fd()) };
    kernel::reconnect(device.number, geometry, socket.as_fd())?;
    Ok(device.number)
}

/// Attaches, and detaches when one of the signals has come.
fn attached(geometry: &Geometry, socket: UnixStream, signals: &SigSet) -> io::Result<()> {
    let number = attach(geometry, &socket)?;
    drop(socket);
    println!("{}", kernel::device_path(number).display());
    signals.wait()?;
    kernel::disconnect(number, &geometry.identifier)
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, identifier, path] = args.as_slice() else {
        return Err(io::Error::other("usage: nbddisk IDENTIFIER FILE"));
    };
    let file = File::options().read(true).write(true).open(path)?;
    let slow = format!("{path}.slow");
    let export = Export { name: identifier.clone(), size: file.metadata()?.len(), block: 512 };
    let geometry = Geometry {
        size: export.size,
        block: export.block,
        identifier: identifier.clone(),
        dead_limit: Duration::from_secs(30),
    };
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let (ours, theirs) = UnixStream::pair()?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    std::thread::spawn(move || {
        if let Err(e) = attached(&geometry, theirs, &signals) {
            eprintln!("{e}");
        }
        flag.store(true, Ordering::SeqCst);
    });
    let mut server = NbdServer::connected(vec![ours.into()], export);
    support::serve(&mut server, &stop, |request| {
        answer(&file, Path::new(&slow), request).map_err(|_| RequestError::Io)
    })
}
