//! The kernel's own NBD client: a block device `/dev/nbd<n>` whose requests come over a socket.
//!
//! The device is made, given new sockets and taken away by generic netlink ([`connect`],
//! [`reconnect`], [`disconnect`]); the other end of the sockets is served by
//! [`NbdServer::connected`](super::NbdServer::connected). It outlives the process that serves it:
//! requests wait for [`reconnect`].
//!
//! # One connection, and no time limit
//!
//! A request that is sent twice may be carried out twice, the second time over something newer.
//! So the driver must never send a request again while the first copy can still be read. It sends
//! again when a request's timer runs out, and what happens then depends on the configuration:
//!
//! - several connections: it gives up the connection and sends the request over another one, while
//!   the first copy may still lie unread in the first;
//! - one connection and a time limit: the same, and the device has no connection left;
//! - one connection and no time limit (`NBD_ATTR_TIMEOUT` 0): it sends again only if the
//!   connection has been replaced meanwhile; otherwise it goes on waiting.
//!
//! No time limit is long enough for the first two: a mirror may hold a request until its peer or an
//! operator has spoken. In the third a connection is replaced by [`reconnect`] alone, which the
//! agent calls after the locks of its partitions have proved that its predecessor and its I/O are
//! gone. This costs no speed: one thread serves all connections anyway.
//!
//! The timer itself also decides how soon after [`reconnect`] the interrupted requests are sent
//! again: the driver does not do so before the timer's next turn. It is [`RESEND_TURN`] here.
//! Each turn of a request that only waits for the mirror leaves a line in the kernel's log
//! ("Possible stuck request").

mod netlink;

use super::protocol::transmission;
use mirror_core::units::MAX_EXTENT_BYTES;
use netlink::{Attributes, Netlink, find_u32};
use nix::libc;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Turn of the driver's timer of requests; see the module.
pub const RESEND_TURN: Duration = Duration::from_secs(2);

const FAMILY: &str = "nbd";

/// Numbers of the kernel's `include/uapi/linux/nbd-netlink.h`.
mod command {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const DISCONNECT: u8 = 2;
    pub(super) const RECONFIGURE: u8 = 3;
}

mod attribute {
    pub(super) const INDEX: u16 = 1;
    pub(super) const SIZE: u16 = 2;
    pub(super) const BLOCK_SIZE: u16 = 3;
    pub(super) const TIMEOUT: u16 = 4;
    pub(super) const SERVER_FLAGS: u16 = 5;
    pub(super) const CLIENT_FLAGS: u16 = 6;
    pub(super) const SOCKETS: u16 = 7;
    pub(super) const DEAD_CONN_TIMEOUT: u16 = 8;
    pub(super) const BACKEND_IDENTIFIER: u16 = 10;
    /// In [`SOCKETS`].
    pub(super) const SOCKET: u16 = 1;
    /// In [`SOCKET`].
    pub(super) const SOCKET_FD: u16 = 1;
}

/// Why there is no such device to be had here.
#[derive(Debug)]
pub enum Why {
    /// The driver is not there.
    NoDriver,
    /// This process lives in a network namespace of its own, where the driver does not answer.
    Namespace,
    /// Something else.
    Other(io::Error),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => f.write_str("the nbd driver is not loaded (try: modprobe nbd)"),
            Self::Namespace => f.write_str(
                "the nbd driver does not answer in a network namespace other than the machine's",
            ),
            Self::Other(e) => write!(f, "the nbd driver cannot be asked: {e}"),
        }
    }
}

impl std::error::Error for Why {}

/// Whether this kernel has the driver, loaded and within reach.
///
/// # Errors
/// Why not.
pub fn available() -> Result<(), Why> {
    match Netlink::open(FAMILY) {
        Ok(_) => Ok(()),
        Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(Why::Other(e)),
        Err(_) if Path::new("/sys/module/nbd").exists() => Err(Why::Namespace),
        Err(_) => Err(Why::NoDriver),
    }
}

/// The block device with this number.
#[must_use]
pub fn device_path(number: u32) -> PathBuf {
    format!("/dev/nbd{number}").into()
}

/// What a device is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Size in bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block: u32,
    /// Whose it is: the kernel keeps it, and takes new sockets only from somebody who says the
    /// same.
    pub identifier: String,
    /// How long requests wait for [`reconnect`] after the server has died; then new ones fail.
    /// (Those that the dead server had wait for [`disconnect`].) Whole seconds, at least one.
    pub dead_limit: Duration,
}

/// A device of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Number n of `/dev/nbd<n>`.
    pub number: u32,
    /// Size in bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block: u32,
    /// See [`Geometry::identifier`].
    pub identifier: String,
}

/// Makes a device of a number that the kernel chooses, and gives the number. The other end of
/// `socket` must be served already: its first requests may come before this returns, and are
/// waited for. The caller's copy of `socket` is not needed any more.
///
/// # Errors
/// The kernel's: EPERM without `CAP_SYS_ADMIN`.
pub fn connect(geometry: &Geometry, socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut netlink = Netlink::open(FAMILY)?;
    let wanted = Attributes::default()
        .u64(attribute::SIZE, geometry.size)
        .u64(attribute::BLOCK_SIZE, u64::from(geometry.block))
        .u64(attribute::TIMEOUT, 0)
        .u64(attribute::SERVER_FLAGS, u64::from(transmission::SERVED))
        // The device neither goes with its last user (mounting comes after mkfs), nor is the
        // number's node taken from others when we are done with it.
        .u64(attribute::CLIENT_FLAGS, 0);
    let answer = netlink.ask(command::CONNECT, &common(wanted, geometry, socket))?;
    let number = find_u32(&answer, attribute::INDEX)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "nbd: no number"))?;
    if let Err(e) = tune(number) {
        let _ = netlink.ask(command::DISCONNECT, &index(number)); // the first error says more
        return Err(e);
    }
    Ok(number)
}

/// Gives our device a new connection in place of one that has ended. The interrupted requests are
/// sent again at the next [`RESEND_TURN`], new ones at once. Whether the kernel has taken the
/// socket shows at its other end: if not (the old one is not seen to have ended yet), that is at
/// its end of stream once the caller's copy of `socket` is closed.
///
/// # Errors
/// EINVAL: the device is not connected (any more), or another's, or [`connect`] was interrupted.
pub fn reconnect(number: u32, geometry: &Geometry, socket: BorrowedFd<'_>) -> io::Result<()> {
    // Tuning would wait for the interrupted requests, and what is not tuned was never used.
    if !is_tuned(number) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut netlink = Netlink::open(FAMILY)?;
    netlink.ask(command::RECONFIGURE, &common(index(number), geometry, socket)).map(|_| ())
}

/// Gives a connected device of `identifier` its new size in bytes; whoever has it open sees that. One
/// that is not smaller stays as it is. Requests in flight may be waited for.
///
/// # Errors
/// `NotFound`: it is not connected (any more), or another's; `Unsupported`: the driver does not do it.
pub fn grow(number: u32, identifier: &str, size: u64) -> io::Result<()> {
    let size_of = || {
        let found = look(number).filter(|found| found.identifier == identifier);
        found.map(|found| found.size).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    if size_of()? >= size {
        return Ok(());
    }
    Netlink::open(FAMILY)?.ask(command::RECONFIGURE, &larger(number, identifier, size))?;
    if size_of()? < size {
        let what = "this kernel's nbd driver did not change the size of the device";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(())
}

fn larger(number: u32, identifier: &str, size: u64) -> Attributes {
    index(number).u64(attribute::SIZE, size).text(attribute::BACKEND_IDENTIFIER, identifier)
}

/// Takes a device away if it is that of `identifier`: whatever it has in flight fails, and so does
/// all that its users still try. A device that is gone, or another's, is left alone.
///
/// # Errors
/// The kernel's.
pub fn disconnect(number: u32, identifier: &str) -> io::Result<()> {
    if !is_connected(number, identifier) {
        return Ok(());
    }
    Netlink::open(FAMILY)?.ask(command::DISCONNECT, &index(number)).map(|_| ())
}

/// Whether the device is connected, if only to a server that has died, and that of `identifier`.
#[must_use]
pub fn is_connected(number: u32, identifier: &str) -> bool {
    look(number).is_some_and(|found| found.identifier == identifier)
}

/// What is known of a connected device that was made with an identifier.
#[must_use]
pub fn look(number: u32) -> Option<Found> {
    found(number, |name| fs::read_to_string(format!("/sys/block/nbd{number}/{name}")).ok())
}

/// What the files of a device in sysfs say, by their names in its folder.
#[must_use]
pub fn found(number: u32, text: impl Fn(&str) -> Option<String>) -> Option<Found> {
    let read = |name: &str| Some(text(name)?.trim_end_matches('\n').to_owned());
    // After a disconnect the device keeps its identifier until its last user goes.
    let process: u32 = read("pid")?.parse().ok()?;
    let sectors: u64 = read("size")?.parse().ok()?;
    let block = read("queue/logical_block_size")?.parse().ok()?;
    let identifier = read("backend")?;
    let size = sectors.checked_mul(512)?;
    (process != 0).then_some(Found { number, size, block, identifier })
}

/// All connected devices whose identifier begins so.
///
/// # Errors
/// The list of block devices cannot be read.
pub fn find(prefix: &str) -> io::Result<Vec<Found>> {
    let mut all = Vec::new();
    let entries = match fs::read_dir("/sys/block") {
        // Without sysfs there is nobody to ask, and no device could have been made from here.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix("nbd")?.parse().ok());
        all.extend(number.and_then(look).filter(|found| found.identifier.starts_with(prefix)));
    }
    Ok(all)
}

/// The device's number in one datagram of the driver's answer to [`connect`]: `None` if the end of
/// the answer is not in it, else the kernel's error, or the number if there is one.
#[must_use]
pub fn number_in(datagram: &[u8], sequence: u32) -> Option<io::Result<Option<u32>>> {
    let mut answer = Vec::new();
    let end = netlink::read_answer(datagram, sequence, &mut answer)?;
    Some(end.map(|()| find_u32(&answer, attribute::INDEX)))
}

fn index(number: u32) -> Attributes {
    Attributes::default().u32(attribute::INDEX, number)
}

/// What [`connect`] and [`reconnect`] both say.
fn common(start: Attributes, geometry: &Geometry, socket: BorrowedFd<'_>) -> Attributes {
    let fd = u32::try_from(socket.as_raw_fd()).expect("a descriptor is not negative");
    let item = Attributes::default().u32(attribute::SOCKET_FD, fd);
    let sockets = Attributes::default().list(attribute::SOCKET, &item);
    start
        .u64(attribute::DEAD_CONN_TIMEOUT, geometry.dead_limit.as_secs().max(1))
        .text(attribute::BACKEND_IDENTIFIER, &geometry.identifier)
        .list(attribute::SOCKETS, &sockets)
}

/// The settings that only sysfs has: requests as long as the mirror takes them instead of 128 KiB,
/// and the timer's turn, which `NBD_ATTR_TIMEOUT` has just set to 30 s.
fn settings() -> [(&'static str, u128); 2] {
    [
        ("max_sectors_kb", u128::from(MAX_EXTENT_BYTES / 1024)),
        ("io_timeout", RESEND_TURN.as_millis()),
    ]
}

fn setting_file(number: u32, name: &str) -> String {
    format!("/sys/block/nbd{number}/queue/{name}")
}

fn tune(number: u32) -> io::Result<()> {
    settings().into_iter().try_for_each(|(name, value)| {
        let path = setting_file(number, name);
        fs::write(&path, value.to_string())
            .map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))
    })
}

fn is_tuned(number: u32) -> bool {
    settings().into_iter().all(|(name, value)| {
        fs::read_to_string(setting_file(number, name)).is_ok_and(|t| t.trim() == value.to_string())
    })
}
