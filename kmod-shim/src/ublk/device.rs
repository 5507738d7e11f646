//! Making and removing a ublk device.

use super::abi::{self, DEV_INFO_BYTES, ctrl};
use crate::sys::ublk::Control;
use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For the driver's nodes to appear.
const NODE_LIMIT: Duration = Duration::from_secs(5);
const NODE_PAUSE: Duration = Duration::from_millis(10);

/// Whether this kernel has the driver, loaded and accessible.
#[must_use]
pub fn is_available() -> bool {
    Control::open().is_ok()
}

/// The block device with this number.
#[must_use]
pub fn device_path(number: u32) -> PathBuf {
    format!("/dev/ublkb{number}").into()
}

/// What a device is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) number: u32,
    pub(super) size: u64,
    pub(super) block: u32,
    pub(super) depth: u16,
    pub(super) max_io: u32,
    pub(super) max_zero: u32,
}

/// The control device and the command numbers that it takes.
pub(super) struct Admin {
    control: Control,
    pub(super) legacy: bool,
}

impl Admin {
    pub(super) fn open() -> io::Result<Self> {
        let mut control = Control::open()?;
        let mut features = [0; 8];
        let op = abi::ctrl_op(ctrl::GET_FEATURES);
        // A kernel that does not know this command has the old numbers only.
        let legacy = control.command(op, u32::MAX, &mut features, 0).is_err();
        Ok(Self { control, legacy })
    }

    fn run(&mut self, command: u8, number: u32, buffer: &mut [u8], data: u64) -> io::Result<()> {
        let op = if self.legacy { u32::from(command) } else { abi::ctrl_op(command) };
        self.control.command(op, number, buffer, data)
    }

    /// Makes the device and opens the server's end of it. A dead device of the same number, left
    /// by a predecessor that was killed, is removed first.
    pub(super) fn make(&mut self, geometry: Geometry) -> io::Result<OwnedFd> {
        let Geometry { number, size, block, depth, max_io, max_zero } = geometry;
        self.remove_dead(number)?;
        let mut info = abi::dev_info(number, depth, max_io);
        self.run(ctrl::ADD_DEV, number, &mut info, 0)?;
        let opened = open_node(&PathBuf::from(format!("/dev/ublkc{number}"))).and_then(|node| {
            let mut params = abi::params(size, block, max_io, max_zero);
            self.run(ctrl::SET_PARAMS, number, &mut params, 0)?;
            Ok(node)
        });
        if opened.is_err() {
            let _ = self.remove(number); // the first error says more
        }
        opened
    }

    fn remove_dead(&mut self, number: u32) -> io::Result<()> {
        let mut info = [0; DEV_INFO_BYTES];
        match self.run(ctrl::GET_DEV_INFO, number, &mut info, 0) {
            Err(_) => Ok(()), // there is none
            Ok(()) if abi::state_of(&info) == abi::STATE_DEAD => self.remove(number),
            // Older kernels notice the death of a server only after seconds.
            Ok(()) if !is_alive(abi::server_of(&info)) => {
                self.stop(number)?;
                self.remove(number)
            }
            Ok(()) => {
                let what = format!("{} is in use", device_path(number).display());
                Err(io::Error::new(io::ErrorKind::AddrInUse, what))
            }
        }
    }

    /// Makes the block device appear. Returns when it is there, which needs a server that answers.
    pub(super) fn start(&mut self, number: u32) -> io::Result<()> {
        self.run(ctrl::START_DEV, number, &mut [], u64::from(std::process::id()))
    }

    /// Makes the block device disappear; the server gets its tags back.
    pub(super) fn stop(&mut self, number: u32) -> io::Result<()> {
        self.run(ctrl::STOP_DEV, number, &mut [], 0)
    }

    /// Removes the device. Waits until the server has closed its end.
    pub(super) fn remove(&mut self, number: u32) -> io::Result<()> {
        self.run(ctrl::DEL_DEV, number, &mut [], 0)
    }
}

fn is_alive(process: i32) -> bool {
    Path::new("/proc").join(process.to_string()).exists()
}

fn open_node(path: &Path) -> io::Result<OwnedFd> {
    let deadline = Instant::now() + NODE_LIMIT;
    loop {
        match File::options().read(true).write(true).open(path) {
            Ok(file) => return Ok(file.into()),
            Err(e) if Instant::now() < deadline && may_come(&e) => std::thread::sleep(NODE_PAUSE),
            Err(e) => return Err(e),
        }
    }
}

/// The node is made by the kernel or udev a moment after the device.
fn may_come(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EACCES | libc::EBUSY))
}
