//! The link between the two agents (29004/TCP): a second way to ask the other server when the
//! mirror connect is cut.
//!
//! One question is one connection: both sides send a hello with a fresh nonce, derive one key per
//! direction from the shared secret and both hellos, and every frame after that carries a tag
//! under its direction's key and its number. So a frame that was recorded, reordered, sent back
//! or made up is refused, and nothing is allocated or obeyed for somebody without the secret.
//! Unless `security` is set to "authenticated", the nonces are public keys, whose common key goes into
//! the keys, too, and every frame is encrypted.

mod client;
mod frame;
mod hello;
mod server;

pub use client::{PeerError, PeerLink, ask_stream};
pub use frame::FRAME_MAX;
pub use server::{PeerServer, PeerService, serve_stream};

use crate::ctl::{MirrorReport, Response};
use crate::secret::Secret;
use mirror_core::status::Marked;
use mirror_core::units::{SessionNo, Side};
use mirror_core::wire::Security;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time limit of one question, over all address pairs together.
pub const ASK_LIMIT: Duration = Duration::from_secs(3);

/// Time limit for the parts of a connection that the other side must deliver by itself.
const STEP_LIMIT: Duration = Duration::from_secs(3);

/// What an agent is to the other one, and how it talks to it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This server.
    pub side: Side,
    /// The secret that both share.
    pub secret: Secret,
    /// What both must want.
    pub security: Security,
}

/// What one agent asks the other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerRequest {
    /// Are you there?
    Ping,
    /// How do you see this mirror?
    Report {
        /// Its name.
        mirror: String,
    },
    /// Where do you have what this side may lack?
    Marked {
        /// Its name.
        mirror: String,
    },
    /// Are you serving it?
    IsActive {
        /// Its name.
        mirror: String,
    },
    /// An operator at this server declares that yours holds the latest data.
    Force {
        /// Its name.
        mirror: String,
    },
    /// This side goes on alone: you are behind as of `session`.
    TellBehind {
        /// Its name.
        mirror: String,
        /// The session that ended.
        session: SessionNo,
    },
}

impl PeerRequest {
    /// Whether asking twice does no more than asking once.
    const fn may_repeat(&self) -> bool {
        !matches!(self, Self::Force { .. })
    }
}

/// What the other agent answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerAnswer {
    /// Here; the name of that server.
    Pong(String),
    /// Its view.
    Report(Box<MirrorReport>),
    /// There.
    Marked(Marked),
    /// Serving it or not.
    Active(bool),
    /// What the forwarded command gave.
    Outcome(Response),
    /// Recorded durably: it knows itself behind.
    Behind {
        /// The session that it was told.
        session: SessionNo,
    },
    /// It will not or cannot; the reason.
    Refused(String),
}

#[cfg(test)]
mod tests;
