//! The ring, and operations that own their memory until the kernel is done with it.
//!
//! All unsafe code of the front ends and of the driver loop's I/O is in this module. The argument
//! is one: an operation is only ever submitted by [`Slots`], which keeps its buffers, addresses
//! and descriptors in a table from before the submission until the kernel's completion has been
//! reaped, and which leaks them if it is dropped earlier. [`Completion`]s come from [`Ring`] alone,
//! so safe code cannot pretend that an operation has ended.
#![allow(unsafe_code)] // io_uring takes raw pointers

mod ring;
mod slots;
pub(crate) mod ublk;

pub use ring::{Awake, Completion, Owner, Ring, Submitter, Tagged};
pub use slots::{Ended, Fd, Op, Piece, Slots};
