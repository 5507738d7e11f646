//! A server for NBD clients on a unix socket, and for the kernel's own client.
//!
//! [`protocol`] has the names and numbers of the wire, [`negotiate`] and [`connection`] the two
//! phases as machines without I/O, [`server`] the sockets, [`kernel`] the kernel's devices.

pub mod connection;
pub mod kernel;
pub mod negotiate;
mod pending;
pub mod protocol;
pub mod server;

pub use server::NbdServer;

/// What the server offers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    /// The name that clients ask for; the empty name stands for it, too.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Logical block size in bytes, a power of two: requests must be aligned to it.
    pub block: u32,
}
