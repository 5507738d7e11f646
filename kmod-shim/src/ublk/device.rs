//! Making, finding, taking over and removing ublk devices.

use super::abi::{self, DEV_INFO_BYTES, DevInfo, ctrl};
use crate::sys::Ring;
use crate::sys::ublk::Control;
use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// For the driver's nodes to appear.
const NODE_LIMIT: Duration = Duration::from_secs(5);
const NODE_PAUSE: Duration = Duration::from_millis(10);
/// Between two looks at a device whose server is just ending.
const QUIET_PAUSE: Duration = Duration::from_millis(20);

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

/// The server's end of it.
fn server_path(number: u32) -> PathBuf {
    format!("/dev/ublkc{number}").into()
}

/// Where a device stands, as the driver says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceState {
    /// There is no block device (yet, or any more).
    Dead,
    /// A server answers, or has died a moment ago.
    Live,
    /// The server is gone; requests wait for another one.
    Quiesced,
    /// The server is gone; requests fail until there is another one.
    Failing,
    /// Something that this version does not know.
    Other(u16),
}

impl DeviceState {
    const fn from_number(state: u16) -> Self {
        match state {
            0 => Self::Dead,
            1 => Self::Live,
            2 => Self::Quiesced,
            3 => Self::Failing,
            other => Self::Other(other),
        }
    }
}

/// A device that the driver knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// Number n of `/dev/ublkb<n>`.
    pub number: u32,
    /// Where it stands.
    pub state: DeviceState,
    /// What its maker put there, see [`UblkSpec`](super::UblkSpec).
    pub mark: u64,
    /// It outlives its server, and what the server left unanswered is asked again.
    pub survives: bool,
    /// Process of its server, or of the last one; 0 or less: none yet.
    pub server: i32,
    /// Size in bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block: u32,
    /// Requests that it hands over at once.
    pub depth: u16,
    /// Longest read or write, in bytes.
    pub max_io: u32,
}

/// What the driver says of the device `number`; `None`: there is no such device.
///
/// # Errors
/// The driver is not there or refuses to say.
pub fn inspect(number: u32) -> io::Result<Option<DeviceInfo>> {
    Admin::open()?.inspect(number)
}

/// Mark and state of the device `number`; `None`: there is no such device. Unlike [`inspect`] this
/// never waits, not even for a device that the driver is just taking away.
///
/// # Errors
/// The driver is not there or refuses to say.
pub fn state(number: u32) -> io::Result<Option<(u64, DeviceState)>> {
    let info = Admin::open()?.info(number)?;
    Ok(info.map(|info| (info.mark, DeviceState::from_number(info.state))))
}

/// What the driver offers that this front end can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survival {
    /// Devices outlive their server.
    Yes,
    /// They do not.
    No,
    /// The driver cannot be asked; it is tried.
    Untold,
}

/// Whether devices of this driver can outlive their server.
///
/// # Errors
/// The driver is not there, or no permission.
pub fn survival() -> io::Result<Survival> {
    Ok(match Admin::open()?.features {
        None => Survival::Untold,
        Some(features) if features & SURVIVES == SURVIVES => Survival::Yes,
        Some(_) => Survival::No,
    })
}

/// Whether reads can go from a disk straight into the memory of the request, without a copy here.
///
/// # Errors
/// The driver is not there, or no permission.
pub fn reads_straight() -> io::Result<bool> {
    let places = Ring::new().is_ok_and(|ring| ring.places() > 0);
    Ok(places && Admin::open()?.features.is_some_and(|f| f & STRAIGHT == STRAIGHT))
}

/// Whether devices of this driver can grow while they are in use.
///
/// # Errors
/// The driver is not there, or no permission.
pub fn grows() -> io::Result<bool> {
    Ok(Admin::open()?.features.is_some_and(|f| f & abi::F_UPDATE_SIZE != 0))
}

/// Gives a device that is served its new size in bytes, whole sectors; whoever has it open sees that.
/// One that is not smaller stays as it is.
///
/// # Errors
/// `Unsupported`: this driver cannot; `NotFound`: there is no such block device.
pub fn grow(number: u32, size: u64) -> io::Result<()> {
    let mut admin = Admin::open()?;
    match admin.inspect(number)? {
        Some(device) if device.size >= size => Ok(()),
        // Some drivers do not look whether there is one.
        Some(DeviceInfo { state: DeviceState::Live, .. }) => admin.update_size(number, size),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "there is no such block device")),
    }
}

/// Begins to take over a device whose server is gone: afterwards a
/// [`UblkServer`](super::UblkServer) of this process may serve it. Waits up to `limit` until the
/// driver is done with the former server, which takes seconds before kernel 6.7.
///
/// # Errors
/// The device is not there, cannot be taken over, or its server goes on.
pub fn begin_takeover(number: u32, limit: Duration) -> io::Result<()> {
    let mut admin = Admin::open()?;
    let end = Instant::now() + limit;
    loop {
        match admin.run(ctrl::START_USER_RECOVERY, number, &mut [], 0) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < end => {
                std::thread::sleep(QUIET_PAUSE);
            }
            other => return other,
        }
    }
}

/// Makes the block device disappear: what waits on it and what comes fails. The server, if there
/// is one, gets its tags back.
///
/// # Errors
/// The driver's.
pub fn stop(number: u32) -> io::Result<()> {
    Admin::open()?.stop(number)
}

/// Whether a file system (also one that was unmounted lazily) or another device holds it.
#[must_use]
pub fn is_claimed(number: u32) -> bool {
    let claim = File::options().read(true).custom_flags(libc::O_EXCL).open(device_path(number));
    claim.is_err_and(|e| e.raw_os_error() == Some(libc::EBUSY))
}

/// Removes a device whose server is gone, after [`stop`]. Waits up to `limit` until nothing has it
/// open. `is_used`: somebody may have.
///
/// # Errors
/// The driver's; `TimedOut`: the device goes with its last user; `ResourceBusy`: it stays, since the
/// driver would do nothing else for anybody while it waited for the last user (kernels before 6.4).
pub fn remove(number: u32, is_used: bool, limit: Duration) -> io::Result<()> {
    let mut admin = Admin::open()?;
    if is_used && admin.waits_alone() {
        return Err(stays());
    }
    let (done, ended) = mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("ublk-remove-{number}"));
    thread.spawn(move || {
        let _ = done.send(admin.remove(number)); // nobody may wait any more
    })?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "its server's end is still open");
    ended.recv_timeout(limit).map_err(late)?
}

pub(super) fn stays() -> io::Error {
    let what = "it is in use, and this kernel's driver can remove nothing that is";
    io::Error::new(io::ErrorKind::ResourceBusy, what)
}

const SURVIVES: u64 = abi::F_USER_RECOVERY | abi::F_USER_RECOVERY_REISSUE;
/// Reads go straight into the request's memory, everything else is copied by the server.
const STRAIGHT: u64 = abi::F_USER_COPY | abi::F_AUTO_BUF_REG;

/// What a device is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) number: u32,
    pub(super) mark: u64,
    pub(super) size: u64,
    pub(super) block: u32,
    pub(super) depth: u16,
    pub(super) max_io: u32,
    pub(super) max_zero: u32,
    /// The server's ring has places for the memory of requests.
    pub(super) places: bool,
}

/// The server's end of a device.
pub(super) struct ServerEnd {
    pub(super) file: OwnedFd,
    pub(super) depth: u16,
    pub(super) max_io: u32,
    /// The memory of requests is registered with the server's ring.
    pub(super) registers: bool,
}

/// The control device and the command numbers that it takes.
pub(super) struct Admin {
    control: Control,
    /// As the driver lists them, if it can.
    features: Option<u64>,
}

impl Admin {
    pub(super) fn open() -> io::Result<Self> {
        let mut control = Control::open()?;
        let mut features = [0; 8];
        let op = abi::ctrl_op(ctrl::GET_FEATURES);
        let told = control.command(op, u32::MAX, &mut features, 0).is_ok();
        Ok(Self { control, features: told.then(|| u64::from_ne_bytes(features)) })
    }

    /// A driver that does not list its features has the old command numbers only.
    pub(super) const fn legacy(&self) -> bool {
        self.features.is_none()
    }

    /// While a removal waits for the last user of a device, the driver takes no other command.
    pub(super) const fn waits_alone(&self) -> bool {
        self.legacy()
    }

    fn run(&mut self, command: u8, number: u32, buffer: &mut [u8], data: u64) -> io::Result<()> {
        let op = if self.legacy() { u32::from(command) } else { abi::ctrl_op(command) };
        self.control.command(op, number, buffer, data)
    }

    fn info(&mut self, number: u32) -> io::Result<Option<DevInfo>> {
        let mut info = [0; DEV_INFO_BYTES];
        match self.run(ctrl::GET_DEV_INFO, number, &mut info, 0) {
            Ok(()) => Ok(Some(DevInfo::parse(&info))),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn inspect(&mut self, number: u32) -> io::Result<Option<DeviceInfo>> {
        let Some(info) = self.info(number)? else { return Ok(None) };
        let mut params = abi::params_wanted();
        // A device that was never given any is one that nobody could use.
        let (size, block) = match self.run(ctrl::GET_PARAMS, number, &mut params, 0) {
            Ok(()) => abi::size_and_block(&params),
            Err(_) => (0, 0),
        };
        Ok(Some(DeviceInfo {
            number,
            state: DeviceState::from_number(info.state),
            mark: info.mark,
            survives: info.flags & SURVIVES == SURVIVES,
            server: info.server,
            size,
            block,
            depth: info.depth,
            max_io: info.max_io,
        }))
    }

    /// Makes the device and opens the server's end of it. It outlives its server where the driver
    /// can do that.
    pub(super) fn make(&mut self, geometry: Geometry) -> io::Result<ServerEnd> {
        let Geometry { number, size, block, depth, max_io, max_zero, .. } = geometry;
        let registers = self.add(geometry)? & STRAIGHT == STRAIGHT;
        let opened = open_node(&server_path(number)).and_then(|node| {
            let mut params = abi::params(size, block, max_io, max_zero);
            self.run(ctrl::SET_PARAMS, number, &mut params, 0)?;
            Ok(ServerEnd { file: node, depth, max_io, registers })
        });
        if opened.is_err() {
            let _ = self.remove(number); // the first error says more
        }
        opened
    }

    /// Makes the device with as much of what is wanted as the driver can; gives its flags.
    fn add(&mut self, geometry: Geometry) -> io::Result<u64> {
        let Geometry { number, mark, depth, max_io, places, .. } = geometry;
        if self.info(number)?.is_some() {
            let what = format!("{} is in use", device_path(number).display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
        }
        let mut refused = Err(io::ErrorKind::Unsupported.into());
        for flags in wanted(self.features, places) {
            let info = DevInfo { depth, max_io, number, flags, mark, ..DevInfo::default() };
            let mut info = info.encode();
            match self.run(ctrl::ADD_DEV, number, &mut info, 0) {
                // The driver says what it made of the flags.
                Ok(()) => return Ok(DevInfo::parse(&info).flags & flags),
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => refused = Err(e),
                Err(e) => return Err(e),
            }
        }
        refused
    }

    /// Opens the server's end of a device after [`begin_takeover`].
    pub(super) fn take_over(&mut self, number: u32) -> io::Result<ServerEnd> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the device is gone");
        let info = self.info(number)?.ok_or_else(gone)?;
        let file = open_node(&server_path(number))?;
        let registers = info.flags & STRAIGHT == STRAIGHT;
        Ok(ServerEnd { file, depth: info.depth, max_io: info.max_io, registers })
    }

    /// Ends the takeover: requests flow again. Returns when the server has fetched all its tags.
    pub(super) fn end_takeover(&mut self, number: u32) -> io::Result<()> {
        self.run(ctrl::END_USER_RECOVERY, number, &mut [], u64::from(std::process::id()))
    }

    /// Makes the block device appear. Returns when it is there, which needs a server that answers.
    pub(super) fn start(&mut self, number: u32) -> io::Result<()> {
        self.run(ctrl::START_DEV, number, &mut [], u64::from(std::process::id()))
    }

    fn update_size(&mut self, number: u32, size: u64) -> io::Result<()> {
        if self.features.is_none_or(|f| f & abi::F_UPDATE_SIZE == 0) {
            let what = "this kernel's ublk driver cannot change the size of a device that is open";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        self.run(ctrl::UPDATE_SIZE, number, &mut [], size / 512)
    }

    /// Makes the block device disappear; the server gets its tags back. What is gone is stopped.
    pub(super) fn stop(&mut self, number: u32) -> io::Result<()> {
        self.run(ctrl::STOP_DEV, number, &mut [], 0).or_else(done_if_absent)
    }

    /// Removes the device. Waits until the server has closed its end.
    pub(super) fn remove(&mut self, number: u32) -> io::Result<()> {
        self.run(ctrl::DEL_DEV, number, &mut [], 0).or_else(done_if_absent)
    }
}

/// The flags to try, best first, for a driver that lists these features (`None`: it cannot, and is
/// tried) and a ring with or without places.
fn wanted(features: Option<u64>, places: bool) -> Vec<u64> {
    let has = |flags: u64| features.is_some_and(|f| f & flags == flags);
    let survives = if features.is_none() || has(SURVIVES) { SURVIVES } else { 0 };
    let straight = if places && has(STRAIGHT) { STRAIGHT } else { 0 };
    let mut all = vec![survives | straight, survives];
    if features.is_none() {
        all.push(0);
    }
    all.dedup();
    all
}

/// What the driver answers for a number without a device, depending on its version.
fn is_absent(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENODEV))
}

fn done_if_absent(e: io::Error) -> io::Result<()> {
    if is_absent(&e) { Ok(()) } else { Err(e) }
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

#[cfg(test)]
mod tests {
    use super::{STRAIGHT, SURVIVES, wanted};

    #[test]
    fn a_device_is_made_with_what_the_driver_lists() {
        let all = SURVIVES | STRAIGHT;
        assert_eq!(wanted(Some(u64::MAX), true), [all, SURVIVES]);
        assert_eq!(wanted(Some(u64::MAX), false), [SURVIVES]);
        assert_eq!(wanted(Some(all & !SURVIVES), true), [STRAIGHT, 0]);
        assert_eq!(wanted(Some(SURVIVES | 1 << 7), true), [SURVIVES]);
        assert_eq!(wanted(Some(0), true), [0]);
        assert_eq!(wanted(None, true), [SURVIVES, 0]);
    }
}
