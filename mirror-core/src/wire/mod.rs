//! What the two servers say to each other (`docs/protocol.md`).
//!
//! [`link::Link`] is one connection: it turns stream bytes into frames and frames into bytes. Below
//! it, [`handshake`] lets both sides prove the secret, [`header`] is the fixed part of a frame and
//! [`codec`] turns [`message`]s into header and payload;
//! [`cipher`] is the encryption.

mod body;
pub mod cipher;
pub mod codec;
pub mod error;
pub mod handshake;
pub mod header;
pub mod link;
pub mod message;
mod seal;
#[cfg(test)]
mod tests;

pub use cipher::Security;
pub use codec::Encoded;
pub use error::{FrameError, HandshakeError, Refusal};
pub use handshake::{Secret, SecretError, VersionRange};
pub use link::{EncodeError, Link, LinkConfig, LinkError, LinkEvent, Loan, Want};
pub use message::{Beat, Frame, Message, PeerHello};
