//! What happens and is logged, as messages of the table.

use super::table::{self, Message};
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// For information.
    Info,
    /// Something to look at.
    Warning,
    /// Something failed.
    Error,
}

impl Level {
    /// As the manual page prints it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "information",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// Severity of the system log.
    #[must_use]
    pub const fn severity(self) -> u8 {
        match self {
            Self::Info => 6,
            Self::Warning => 4,
            Self::Error => 3,
        }
    }
}

/// Where an event goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventSwitches {
    /// The alert log.
    pub alert: bool,
    /// The system log.
    pub syslog: bool,
    /// Mail.
    pub mail: bool,
}

/// A message of the driver, by its number in the table. Its lines bear no number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriverMessage(u16);

/// A message of `mdadmn` that the manual does not have yet, by its number in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaterMessage(u16);

/// The driver's messages that are given here. `%1` is the device's number unless the text in the
/// table says otherwise.
pub mod driver {
    use super::DriverMessage;

    /// The driver thread runs: major (0 here: the kernel chooses), number of mirrors.
    pub const REGISTERED: DriverMessage = DriverMessage(1);
    /// The driver thread ended.
    pub const UNREGISTERED: DriverMessage = DriverMessage(2);
    /// The cluster partition cannot be read: reason.
    pub const BITMAP_READ: DriverMessage = DriverMessage(28);
    /// A request failed.
    pub const IO_ERROR: DriverMessage = DriverMessage(31);
    /// The disk error cannot be recorded.
    pub const FLAG_WRITE: DriverMessage = DriverMessage(32);
    /// A copy of the state cannot be read.
    pub const FLAG_READ: DriverMessage = DriverMessage(33);
    /// A read failed.
    pub const READ_ERROR: DriverMessage = DriverMessage(34);
    /// A write failed: sector.
    pub const WRITE_ERROR: DriverMessage = DriverMessage(35);
    /// The connection ended while this side was being copied to.
    pub const PORT_CLOSED: DriverMessage = DriverMessage(36);
    /// The connection ended while this side was copying.
    pub const RECOVERY_PORT: DriverMessage = DriverMessage(37);
    /// A recovery was broken off for another reason.
    pub const RECOVERY_BREAK: DriverMessage = DriverMessage(38);
    /// The port cannot be bound: reason.
    pub const BIND: DriverMessage = DriverMessage(40);
    /// The port cannot be listened on: reason.
    pub const LISTEN: DriverMessage = DriverMessage(41);
    /// No socket could be made: reason, no number of a device.
    pub const SOCKET: DriverMessage = DriverMessage(42);
    /// The connection broke: reason.
    pub const RECEIVE: DriverMessage = DriverMessage(43);
    /// The peer cannot be reached: reason.
    pub const CONNECT: DriverMessage = DriverMessage(44);
    /// A connection cannot be accepted: reason.
    pub const ACCEPT: DriverMessage = DriverMessage(47);
    /// Somebody connected who is not the peer, or does not fit: reason.
    pub const REFUSED: DriverMessage = DriverMessage(48);
    /// The peer sent something that does not fit: what.
    pub const WRONG_COMMAND: DriverMessage = DriverMessage(69);
    /// Something came that is no frame.
    pub const WRONG_MAGIC: DriverMessage = DriverMessage(74);
    /// The device was opened for I/O.
    pub const OPENED: DriverMessage = DriverMessage(80);
    /// The device was closed for I/O.
    pub const CLOSED: DriverMessage = DriverMessage(81);
    /// No address pair works.
    pub const NO_NETWORK: DriverMessage = DriverMessage(84);
    /// The cluster partition cannot be written.
    pub const BITMAP_WRITE: DriverMessage = DriverMessage(93);
    /// The server is about to be reset.
    pub const REBOOT: DriverMessage = DriverMessage(94);
    /// A device is open at the end.
    pub const STILL_OPEN: DriverMessage = DriverMessage(95);
    /// The device is in use.
    pub const BUSY: DriverMessage = DriverMessage(96);
    /// The mirror broke, this side goes on alone.
    pub const BROKE: DriverMessage = DriverMessage(201);
    /// The device serves nothing any more.
    pub const FAILED: DriverMessage = DriverMessage(202);
    /// The device of an earlier agent is served again.
    pub const RESUMED: DriverMessage = DriverMessage(206);
    /// The device of an earlier agent fails all I/O; why.
    pub const NOT_RESUMED: DriverMessage = DriverMessage(207);
    /// Something is wrong with the block device of the kernel's; what.
    pub const FRONT_END: DriverMessage = DriverMessage(208);
    /// The device was stopped, since no agent came back; why.
    pub const GIVEN_UP: DriverMessage = DriverMessage(209);
    /// The agent ends and leaves the device to its successor.
    pub const LEFT: DriverMessage = DriverMessage(210);
    /// The driver ended by itself; why.
    pub const ENDED: DriverMessage = DriverMessage(203);
    /// A session opened; the row of the direction table.
    pub const SESSION: DriverMessage = DriverMessage(204);
    /// Both servers are active, and this one stops; who goes on.
    pub const GIVES_WAY: DriverMessage = DriverMessage(211);
    /// The own disk failed, and the other server's serves.
    pub const DETACHED: DriverMessage = DriverMessage(212);
    /// The other server's disk, the only one left, is out of reach.
    pub const DETACHED_LOST: DriverMessage = DriverMessage(213);
    /// The other server's disk failed, and this one's serves.
    pub const SERVES_PEER: DriverMessage = DriverMessage(214);
    /// Contact without a session; the row of the direction table.
    pub const PARKED: DriverMessage = DriverMessage(205);
}

/// Messages of `mdadmn` from 20 on.
pub mod later {
    use super::LaterMessage;

    /// The file system was made: device.
    pub const MKFS_DONE: LaterMessage = LaterMessage(21);
    /// No file system was made.
    pub const MKFS_LEFT_OUT: LaterMessage = LaterMessage(22);
    /// The mirror could not be separated: reason, device.
    pub const ISOLATE_FAILED: LaterMessage = LaterMessage(31);
    /// No activation on the operator's word: reason, device.
    pub const FORCED_ACTIVE_FAILED: LaterMessage = LaterMessage(32);
    /// No forced recovery: reason, device.
    pub const FORCE_FAILED: LaterMessage = LaterMessage(33);
    /// The mirror was separated: device.
    pub const ISOLATED: LaterMessage = LaterMessage(34);
    /// Activated on the operator's word: device.
    pub const FORCED_ACTIVE: LaterMessage = LaterMessage(35);
    /// What a force asked for is done: device.
    pub const FORCED: LaterMessage = LaterMessage(36);
    /// An external command failed: command, device, result.
    pub const COMMAND_FAILED: LaterMessage = LaterMessage(37);
    /// An external command has to be run by hand: command, device, option.
    pub const COMMAND_NEEDED: LaterMessage = LaterMessage(38);
    /// An external command was started: command, device, option.
    pub const COMMAND_STARTED: LaterMessage = LaterMessage(39);
    /// A recovery was stopped: device.
    pub const CANCELLED: LaterMessage = LaterMessage(44);
    /// A recovery could not be stopped: device.
    pub const CANCEL_FAILED: LaterMessage = LaterMessage(45);
    /// An unmount took too long: device.
    pub const UMOUNT_TIMEOUT: LaterMessage = LaterMessage(46);
    /// A check took too long: device.
    pub const FSCK_TIMEOUT: LaterMessage = LaterMessage(47);
    /// The mirror has grown: device.
    pub const EXTENDED: LaterMessage = LaterMessage(50);
    /// The mirror could not grow: device.
    pub const EXTEND_FAILED: LaterMessage = LaterMessage(51);
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[$vdoc])* #[doc = concat!("“", $text, "”")] $variant,)*
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)* })
            }
        }
    };
}

reasons! {
    /// Reasons of `mdagent` 2.
    StartReason {
        AgentRunning = "Agent is running.",
        InitRunning = "Command clpmdinit is running.",
        ChngRunning = "Command clpmdchng is running.",
        Address = "IP address in config file is wrong.",
        ServerName = "Server name in config file is wrong.",
        Config = "There is an error in config file.",
        Socket = "Failed to initialize socket server.",
    }
}

reasons! {
    /// Reasons of `mdadmn` 1.
    ActivateReason {
        OpenPort = "Failed to open I/O port.",
        NotLatest = "The local server hasn't the latest data.",
        NoContact = "Communication to the remote server failed.",
        RemoteActive = "The remote server is active.",
        AlreadyActive = "The local server was already active.",
        Mount = "Mount operation failed.",
    }
}

reasons! {
    /// Reasons of `mdadmn` 4.
    DeactivateReason {
        NotActive = "The mirror disk was already deactivated.",
        Umount = "Umount operation failed.",
    }
}

reasons! {
    /// Reasons of `mdadmn` 5 and 19.
    RecoveryReason {
        Running = "The recovery is in progress.",
        TargetActive = "The destination server is active.",
        NoDirection = "Can not judge the recovery direction.",
        SourceAbnormal = "The source server is abnormal.",
    }
}

/// Something that is logged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// `mdagent` 1
    AgentStarted,
    /// `mdagent` 2
    AgentStartFailed(StartReason),
    /// `mdagent` 3
    AgentStopped,
    /// `mdagent` 4
    AgentStopFailed,
    /// `mdadmn` 1: reason, device
    ActivateFailed(ActivateReason, String),
    /// `mdadmn` 2: device
    FsckStarted(String),
    /// `mdadmn` 3: device
    FsckDone(String),
    /// `mdadmn` 4: reason, device
    DeactivateFailed(DeactivateReason, String),
    /// `mdadmn` 5: reason, device
    RecoveryFailed(RecoveryReason, String),
    /// `mdadmn` 6: device
    RecoveryDone(String),
    /// `mdadmn` 7: true = difference only
    RecoveryMode {
        /// `FAST`: the difference; else `NORMAL`: all.
        fast: bool,
    },
    /// `mdadmn` 16: device
    InitialStarted(String),
    /// `mdadmn` 17: device
    RecoveryStarted(String),
    /// `mdadmn` 18: device
    InitialDone(String),
    /// `mdadmn` 19: reason, device
    InitialFailed(RecoveryReason, String),
    /// `mdagent` 5: mirror
    ResourceFailed(String),
    /// `mdadmn` from 20 on: message and its arguments
    Later(LaterMessage, Vec<String>),
    /// `liscal`: message and its arguments
    Driver(DriverMessage, Vec<String>),
}

impl Event {
    /// A message of the driver about device `nmp`, with the arguments after `%1`.
    #[must_use]
    pub fn driver(message: DriverMessage, nmp: u8, more: &[&str]) -> Self {
        let first = std::iter::once(nmp.to_string());
        Self::Driver(message, first.chain(more.iter().map(|&s| s.to_owned())).collect())
    }

    /// A message of `mdadmn` from 20 on.
    #[must_use]
    pub fn later(message: LaterMessage, arguments: &[&str]) -> Self {
        Self::Later(message, arguments.iter().map(|&s| s.to_owned()).collect())
    }

    /// Its row.
    #[must_use]
    pub fn message(&self) -> &'static Message {
        let (module, id) = self.key();
        table::row(module, id).expect("every event has its row; a test walks through them")
    }

    const fn key(&self) -> (&'static str, u16) {
        match self {
            Self::AgentStarted => ("mdagent", 1),
            Self::AgentStartFailed(_) => ("mdagent", 2),
            Self::AgentStopped => ("mdagent", 3),
            Self::AgentStopFailed => ("mdagent", 4),
            Self::ResourceFailed(_) => ("mdagent", 5),
            Self::ActivateFailed(..) => ("mdadmn", 1),
            Self::FsckStarted(_) => ("mdadmn", 2),
            Self::FsckDone(_) => ("mdadmn", 3),
            Self::DeactivateFailed(..) => ("mdadmn", 4),
            Self::RecoveryFailed(..) => ("mdadmn", 5),
            Self::RecoveryDone(_) => ("mdadmn", 6),
            Self::RecoveryMode { .. } => ("mdadmn", 7),
            Self::InitialStarted(_) => ("mdadmn", 16),
            Self::RecoveryStarted(_) => ("mdadmn", 17),
            Self::InitialDone(_) => ("mdadmn", 18),
            Self::InitialFailed(..) => ("mdadmn", 19),
            Self::Later(message, _) => ("mdadmn", message.0),
            Self::Driver(message, _) => ("liscal", message.0),
        }
    }

    /// Its level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.message().level
    }

    fn arguments(&self) -> Vec<String> {
        match self {
            Self::AgentStarted | Self::AgentStopped | Self::AgentStopFailed => Vec::new(),
            Self::AgentStartFailed(r) => vec![r.to_string()],
            Self::ActivateFailed(r, d) => vec![r.to_string(), d.clone()],
            Self::DeactivateFailed(r, d) => vec![r.to_string(), d.clone()],
            Self::RecoveryFailed(r, d) | Self::InitialFailed(r, d) => {
                vec![r.to_string(), d.clone()]
            }
            Self::ResourceFailed(d)
            | Self::FsckStarted(d)
            | Self::FsckDone(d)
            | Self::RecoveryDone(d)
            | Self::InitialStarted(d)
            | Self::RecoveryStarted(d)
            | Self::InitialDone(d) => vec![d.clone()],
            Self::RecoveryMode { fast } => vec![if *fast { "FAST" } else { "NORMAL" }.to_owned()],
            Self::Later(_, args) | Self::Driver(_, args) => args.clone(),
        }
    }

    /// Its text with the arguments filled in.
    #[must_use]
    pub fn text(&self) -> String {
        fill(self.message().text, &self.arguments())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key() {
            // The driver's messages have no number in the manual.
            ("liscal", _) => write!(f, "CLUSTERPRO: <type: liscal> {}", self.text()),
            (module, id) => write!(f, "CLUSTERPRO: <type: {module}><event: {id}> {}", self.text()),
        }
    }
}

/// Puts the arguments in place of `%1`, `%2`, ...; control characters in them become `?`, so that
/// no argument can begin a line of its own.
pub(super) fn fill(text: &str, arguments: &[String]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let digit = if c == '%' { chars.peek().and_then(|d| d.to_digit(10)) } else { None };
        match digit {
            Some(n) => {
                chars.next();
                let index = usize::try_from(n).unwrap_or(0).wrapping_sub(1);
                let value = arguments.get(index).map_or("", String::as_str);
                out.extend(value.chars().map(|c| if c.is_control() { '?' } else { c }));
            }
            None => out.push(c),
        }
    }
    out
}
