//! The ublk front end: a block device of the kernel's, served from the mirror's own ring.
//!
//! libublk was looked at first: it brings its own ring and loop for each queue, a thread-local
//! control ring and an async runtime, and needs libclang to build. Here the mirror's thread has the
//! one ring on which block requests, disks and the peer meet, and what is left of the protocol is
//! six admin commands and two I/O commands.
//!
//! Requests are copied (the driver copies a write's bytes out before it hands the request over),
//! so nobody can change them in flight. User recovery is not used: the device goes with its agent.

pub(crate) mod abi;
mod device;
mod server;

pub use device::{device_path, is_available};
pub use server::UblkServer;
