//! The control protocol between the tools and the agent: JSON lines on a unix socket. It is for
//! root and the agent's own user and, if one is named, for the members of a group.
//!
//! One line is one [`Query`] or one [`Reply`], at most [`LINE_MAX`] bytes with its newline. A
//! query is answered by any number of `Progress` replies, which only say that the agent lives,
//! and one other reply. A line that is no query is answered with `Error`, and the connection goes
//! on; a line that is too long is answered with `Error` and ends it.

mod access;
mod client;
mod server;

pub use access::Access;
pub use client::{Client, ClientError};
pub use server::{Answer, CtlServer, Service};

use crate::figures::Taken;
use crate::messages::MdCode;
use crate::monitor::Monitored;
use mirror_core::status::{Color, LinkStatus, Marked, MirrorStatus, Phase};
use serde::de::DeserializeOwned;
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

impl Query {
    /// Reads one line, with or without its newline.
    ///
    /// # Errors
    /// What is wrong with it, for whoever sent it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        parse(line, "here")
    }
}

impl Reply {
    /// Reads one line, with or without its newline.
    ///
    /// # Errors
    /// What is wrong with it, for the operator.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        parse(line, "by this tool")
    }
}

/// The version is read first, so that a newer line is told about versions, not about its fields.
fn parse<T: DeserializeOwned>(line: &[u8], whose: &str) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let not_understood = |e: serde_json::Error| format!("not understood: {e}");
    let Version { version } = serde_json::from_slice(line).map_err(not_understood)?;
    if version != VERSION {
        return Err(format!("version {version} is not spoken {whose}, {VERSION} is"));
    }
    serde_json::from_slice(line).map_err(not_understood)
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
    /// The state, how it came about, and what only one side has.
    Explain {
        /// Its name.
        mirror: String,
    },
    /// What the monitors judge.
    Monitor {
        /// Its name.
        mirror: String,
    },
    /// What is counted.
    Figures {
        /// Its name.
        mirror: String,
        /// Of the last interval that is over; false: since the agent began.
        last: bool,
    },
    /// What happens. Answered when there is something new, or after a while.
    Events {
        /// Only of this mirror; absent = all.
        mirror: Option<String>,
        /// Number of the first change that is wanted; absent = how things stand.
        from: Option<u64>,
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
    /// Keep the servers apart.
    Separate {
        /// Its name.
        mirror: String,
    },
    /// Take as much of the data partitions as both have.
    Resize {
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
    /// Read the configuration again and take over what differs.
    Reload,
    /// The cluster manager vouches that the other server is off (`alone = "fenced"`).
    PeerDown {
        /// Name of the mirror.
        mirror: String,
    },
}

impl Request {
    /// Whether it waits for something to happen, and does nothing: without its client it may end.
    pub(crate) const fn only_waits(&self) -> bool {
        matches!(self, Self::Events { .. })
    }
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
    /// The story asked for.
    Story(Box<Story>),
    /// What the monitors judge.
    Monitor(Box<Monitored>),
    /// What is counted.
    Figures(Box<Taken>),
    /// What happened.
    Changes(Changes),
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

/// What `clpmdstat --explain` tells of a mirror.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Story {
    /// Its state.
    pub report: MirrorReport,
    /// What happened on this server since its agent started, oldest first; not everything.
    pub past: Vec<Past>,
    /// Where each server has what the other lacks or may lack, in configuration order; absent if
    /// that server could not be asked.
    pub marked: [Option<Marked>; 2],
}

/// One step of what happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Past {
    /// Its kind, as in the stream of events.
    #[serde(default)]
    pub kind: String,
    /// When (the last time), seconds since 1970 UTC.
    pub at: i64,
    /// What.
    pub what: String,
    /// The row of the direction table that decided, if one did.
    pub rule: Option<String>,
    /// How often in a row.
    pub times: u32,
}

/// What happened to the mirrors, as far as it is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Changes {
    /// Number to ask from next.
    pub next: u64,
    /// Changes that are not kept any more, of all mirrors.
    pub lost: u64,
    /// The changes in their order.
    pub changes: Vec<Change>,
}

/// Something that happened to a mirror.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Its number, from 0 on since the agent began.
    pub seq: u64,
    /// When, seconds since 1970 UTC.
    pub at: i64,
    /// The server that saw it.
    pub server: String,
    /// The mirror.
    pub mirror: String,
    /// Its kind, as `link-lost`.
    pub event: String,
    /// In words.
    pub text: String,
    /// The row of the direction table that decided, if one did.
    pub rule: Option<String>,
    /// The state that it led to; absent if the driver does not answer.
    pub state: Option<MirrorState>,
}

/// The part of a state whose changes are told. Sides are in configuration order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MirrorState {
    /// First line of `clpmdstat`.
    pub phase: Phase,
    /// The connection.
    pub link: LinkStatus,
    /// Colours.
    pub colors: [Color; 2],
    /// Who serves the device; absent if it is not known.
    pub active: [Option<bool>; 2],
    /// Whose disk has failed; absent if it is not known.
    pub disk_error: [Option<bool>; 2],
    /// The row of the direction table that decided last, if any.
    pub verdict: Option<String>,
    /// An operator keeps the servers apart.
    pub separated: bool,
    /// Both sides are active.
    pub both_active: bool,
    /// Only `--force` helps.
    pub needs_force: bool,
}

#[cfg(test)]
mod tests;
