//! What the two servers say to each other (`docs/protocol.md`).

pub mod message;

pub use message::{Beat, Frame, Message, PeerHello};
