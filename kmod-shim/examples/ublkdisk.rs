//! A disk in memory as the kernel block device `/dev/ublkb<NUMBER>`, until SIGTERM or SIGINT:
//!
//! `cargo run -p kmod-shim --example ublkdisk -- 7 64` (number, size in MiB). Needs root and the
//! ublk driver (`modprobe ublk_drv`). With a third argument, the device of one that was killed is
//! taken over; what was in its memory is gone.

#[path = "../tests/support/mod.rs"]
mod support;

use kmod_shim::nbd::Export;
use kmod_shim::ublk::{self, UblkServer, UblkSpec};
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::MemoryDisk;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, number, mib, rest @ ..] = args.as_slice() else {
        return Err(std::io::Error::other("usage: ublkdisk NUMBER SIZE_IN_MIB [take-over]"));
    };
    let number = number.parse().map_err(std::io::Error::other)?;
    let take_over = !rest.is_empty();
    println!("{:?} {:?}", ublk::survival()?, ublk::inspect(number)?);
    if take_over {
        ublk::begin_takeover(number, std::time::Duration::from_secs(20))?;
    }
    let mib: usize = mib.parse().map_err(std::io::Error::other)?;
    let mut disk = MemoryDisk::new(mib << 20);
    let export = Export { name: "ramdisk".into(), size: disk.bytes.len() as u64, block: 512 };
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = signals.wait();
        flag.store(true, Ordering::SeqCst);
    });
    let mut server = UblkServer::new(UblkSpec { number, mark: 0x6d61_726b, take_over }, export);
    support::serve(&mut server, &stop, |request| disk.serve(request))
}
