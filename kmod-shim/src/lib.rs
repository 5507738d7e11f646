//! Block front ends: what lets applications reach a mirror.
//!
//! A front end lives on the thread and the ring of its mirror. It turns what its kernel interface
//! or socket brings into [`mirror_core::io::Request`]s and answers them. [`front`] has the trait,
//! [`nbd`] the server for NBD clients on a unix socket, [`ublk`] the kernel block device, [`sys`] the ring and the only unsafe code.

pub mod front;
pub mod nbd;
pub mod sys;
pub mod ublk;
