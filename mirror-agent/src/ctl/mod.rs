//! The control protocol between the tools and the agent: JSON lines on a unix socket (mode 0600).
//!
//! One line is one [`Query`] or one [`Reply`], at most [`LINE_MAX`] bytes with its newline. A
//! query is answered by any number of `Progress` replies, which only say that the agent lives,
//! and one other reply. A line that is no query is answered with `Error`, and the connection goes
//! on; a line that is too long is answered with `Error` and ends it.

mod client;
mod server;

pub use client::{Client, ClientError};
pub use server::{Answer, CtlServer, Service};

use crate::messages::MdCode;
use crate::monitor::Monitored;
use mirror_core::status::MirrorStatus;
use serde::{Deserialize, Serialize};

/// Version of the protocol. A query of another version is answered with `Error`.
pub const VERSION: u32 = 1;

/// Longest line in bytes, with its newline.
pub const LINE_MAX: usize = 64 * 1024;

/// A line from a tool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Query {
    /// [`VERSION`]
    pub version: u32,
    /// What is wanted.
    pub request: Request,
}

/// A line from the agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`]
    pub version: u32,
    /// The answer.
    pub response: Response,
}

/// What a tool asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Are you there?
    Ping,
    /// Names of the mirrors.
    List,
    /// State of one mirror, or of all.
    Status {
        /// Its name; absent = all.
        mirror: Option<String>,
    },
    /// What the monitors judge.
    Monitor {
        /// Its name.
        mirror: String,
    },
    /// Open the device here, and mount it.
    Activate {
        /// Its name.
        mirror: String,
        /// Do not mount.
        nomount: bool,
        /// The operator vouches that the other server is off and wrote nothing alone.
        peer_down: bool,
    },
    /// Unmount and close the device.
    Deactivate {
        /// Its name.
        mirror: String,
    },
    /// Start a recovery.
    Recover {
        /// Its name.
        mirror: String,
    },
    /// Stop a running recovery.
    Cancel {
        /// Its name.
        mirror: String,
    },
    /// `server` holds the latest data.
    Force {
        /// Name of the server.
        server: String,
        /// Name of the mirror.
        mirror: String,
    },
    /// The cluster manager vouches that the other server is off (`alone = "fenced"`).
    PeerDown {
        /// Name of the mirror.
        mirror: String,
    },
}

/// What the agent answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Here.
    Pong {
        /// Name of this server.
        server: String,
        /// Version of the agent.
        agent: String,
    },
    /// The mirrors' names, in the order of the configuration.
    List(Vec<String>),
    /// The states asked for.
    Status(Vec<MirrorReport>),
    /// What the monitors judge.
    Monitor(Box<Monitored>),
    /// Done; the sentence says what.
    Done(String),
    /// Not done.
    Refused(Refused),
    /// Still at work; seconds since the query.
    Progress(u64),
    /// The query was not understood.
    Error(String),
}

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// The exit code for the tool.
    pub code: MdCode,
    /// What happened and why.
    pub message: String,
    /// The one safe next step; may be empty.
    pub next: String,
}

impl Refused {
    /// A refusal without a next step.
    #[must_use]
    pub fn plain(code: MdCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), next: String::new() }
    }
}

/// A mirror with the names that its state lacks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MirrorReport {
    /// Name, as md1.
    pub name: String,
    /// Device, as /dev/NMP1.
    pub device: String,
    /// Where it is mounted when active; absent for file system `none`.
    pub mount_point: Option<String>,
    /// Whether it is mounted here now; absent if that is not known.
    pub mounted: Option<bool>,
    /// Names of both servers, in configuration order.
    pub servers: [String; 2],
    /// State as this server sees it.
    pub status: MirrorStatus,
    /// The other side's part came over the agents' link, because the mirror connect is down.
    pub peer_by_agent: bool,
}

#[cfg(test)]
mod tests;
