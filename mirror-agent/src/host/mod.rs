//! From an NBD socket to a mounted file system: the parts of this server that the agent works on
//! with external commands.
//!
//! [`carrier`] makes a block device of a mirror's NBD socket and names it `/dev/NMP<n>`;
//! [`filesystem`] makes, checks, mounts and unmounts what is on it. Both run commands through
//! [`command`] only, and both look at the kernel's own tables ([`mounts`], [`loops`],
//! [`holders`]) rather than trusting what they remember.

pub mod carrier;
pub mod command;
pub mod distribution;
pub mod error;
pub mod filesystem;
pub mod fsck;
pub mod fsevent;
pub mod holders;
pub mod loops;
pub mod mounts;
pub mod nbd_devices;
pub mod offers;
pub mod power;
pub mod process;
mod statefile;
pub mod survivor;
pub mod watchdog;

pub use carrier::{Carrier, CarrierConfig, CarrierKind};
pub use command::Runner;
pub use error::HostError;
pub use filesystem::{FileSystem, FsConfig, FsKind};
