//! Kernel calls that have no safe wrapper.
#![allow(unsafe_code)] // ioctl, flock, statx and the state of a TCP connection

use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

mod ioctl {
    nix::ioctl_read_bad!(block_size, nix::libc::BLKSSZGET, nix::libc::c_int);
}

/// Takes an exclusive lock on the open file itself: it lasts until every user of the open file is
/// gone, I/O in flight included.
pub(super) fn lock(file: &OwnedFd) -> io::Result<()> {
    // SAFETY: takes two integers, the first a descriptor that is open as long as `file`.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Logical block size of a block device in bytes.
pub(super) fn device_block(file: &OwnedFd) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: the call writes one int to `size`.
    unsafe { ioctl::block_size(file.as_raw_fd(), &raw mut size) }?;
    u32::try_from(size).map_err(io::Error::other)
}

/// Alignment in bytes that direct I/O on a regular file needs; `None` if the kernel does not say.
pub(super) fn file_block(file: &OwnedFd) -> Option<u32> {
    // SAFETY: all zero is a valid value of this plain structure.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
    // SAFETY: the path is a valid C string and the result goes to a structure of the right type.
    let result =
        unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut found) };
    (result == 0 && found.stx_mask & mask != 0 && found.stx_dio_offset_align != 0)
        .then_some(found.stx_dio_offset_align)
}

/// Has TCP repeat what was lost at even intervals, and not at ever longer ones, as long as little is
/// under way.
pub(super) fn repeat_evenly(socket: &OwnedFd) -> io::Result<()> {
    let (on, len) = (1 as libc::c_int, size_of::<libc::c_int>());
    let len = libc::socklen_t::try_from(len).map_err(io::Error::other)?;
    let name = libc::TCP_THIN_LINEAR_TIMEOUTS;
    // SAFETY: the option is read from one int, which lives through the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, name, (&raw const on).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Not in the `libc` crate for this target.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Tells the kernel that this thread, and what it starts, serves a block device: when memory runs
/// out, it is not made to wait for that device's own pages. Needs `CAP_SYS_RESOURCE`.
pub(super) fn serve_writeback() -> io::Result<()> {
    // SAFETY: this option takes one integer and three zeros, and no memory.
    match unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps this process in memory: what it has now at once, what comes later from its first use on.
/// Needs `CAP_IPC_LOCK`, or a limit that is large enough.
pub(super) fn lock_memory() -> io::Result<()> {
    let later = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    for flags in [libc::MCL_CURRENT, later] {
        // SAFETY: takes an integer; it changes how pages are kept, not what is in them.
        if unsafe { libc::mlockall(flags) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The round trip of a TCP connection as the kernel has measured it, in microseconds, smoothed.
pub(super) fn round_trip_us(socket: &OwnedFd) -> io::Result<u32> {
    // SAFETY: all zero is a valid value of this plain structure.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len =
        libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(io::Error::other)?;
    let into = (&raw mut info).cast();
    // SAFETY: the call writes at most `len` bytes to `info`, which is that long, and `len`.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut len)
    };
    match result {
        0 => Ok(info.tcpi_rtt),
        _ => Err(io::Error::last_os_error()),
    }
}
