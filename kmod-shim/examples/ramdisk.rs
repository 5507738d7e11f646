//! A disk in memory, served over NBD on a unix socket:
//!
//! `cargo run -p kmod-shim --example ramdisk -- /tmp/ram.sock 64` (size in MiB), then for example
//! `nbdinfo nbd+unix:///?socket=/tmp/ram.sock`. It serves until it is killed.

#[path = "../tests/support/mod.rs"]
mod support;

use kmod_shim::nbd::{Export, NbdServer};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use support::MemoryDisk;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, mib] = args.as_slice() else {
        return Err(std::io::Error::other("usage: ramdisk SOCKET SIZE_IN_MIB"));
    };
    let mib: usize = mib.parse().map_err(std::io::Error::other)?;
    let mut disk = MemoryDisk::new(mib << 20);
    let export = Export { name: "ramdisk".into(), size: disk.bytes.len() as u64, block: 512 };
    let mut server = NbdServer::new(Path::new(path), export);
    support::serve(&mut server, &AtomicBool::new(false), |request| disk.serve(request))
}
