//! The ublk front end: a block device of the kernel's, served from the mirror's own ring.
//!
//! libublk was looked at first: it brings its own ring and loop for each queue, a thread-local
//! control ring and an async runtime, and needs libclang to build. Here the mirror's thread has the
//! one ring on which block requests, disks and the peer meet, and what is left of the protocol is
//! eleven admin commands and two I/O commands.
//!
//! A write's bytes are copied once before the core sees them, so that nobody can change them in
//! flight: the two disks must get the same. A read changes nothing: where the driver registers the
//! memory of requests with the ring (found by asking for its features), the disk reads straight into
//! it ([`FrontEnd::lend`](crate::front::FrontEnd::lend)); what another server has to send is copied.
//! Such a read cannot be given up: the request ends when the disk has answered, since the disk could
//! still write to its memory until then. The driver waits for that, too, before it lets the device go;
//! a server that is to close at once lets nobody wait for it
//! ([`FrontEnd::stop`](crate::front::FrontEnd::stop), the second time), and ends the device, on which
//! everything fails meanwhile, when the disk has answered.
//!
//! Where the driver can, a device is made to outlive its server (*user recovery* with *reissue*):
//! when the process dies, requests wait, and the driver hands everything that was not answered to
//! the next server. What may be taken over is for the caller to decide; the mark that a device is
//! made with helps to know one's own. Nothing bounds the wait but [`stop`].

pub(crate) mod abi;
mod device;
mod request;
mod requests;
mod server;

pub use device::{
    DeviceInfo, DeviceState, Survival, begin_takeover, device_path, grow, grows, inspect,
    is_available, is_claimed, reads_straight, remove, state, stop, survival,
};
pub use request::Wanted;
pub use server::{DEPTH, MAX_IO, UblkServer, UblkSpec};
