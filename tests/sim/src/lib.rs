//! A deterministic simulator of two mirrors: the real core on both sides, simulated disks, network,
//! application, operator and fate, one seeded source of chance and a virtual clock. A seed replays
//! a run exactly.
#![allow(unreachable_pub, missing_docs)] // internals of one small tool

mod application;
pub mod converge;
mod disk;
mod fate;
mod hardware;
mod invariants;
mod landing;
pub mod minimise;
mod net;
mod node;
mod operator;
pub mod options;
mod oracle;
mod promises;
mod rng;
pub mod scenarios;
pub mod script;
mod survive;
mod wires;
pub mod world;
