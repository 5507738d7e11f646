//! The events of §12.1 and the driver messages of §12.2 that have an occasion here, to the letter.

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

/// A row of the table of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventSpec {
    /// Module type.
    pub module: &'static str,
    /// Number within the module; 0 for messages that have none.
    pub id: u16,
    /// Level.
    pub level: Level,
    /// Text with `%1`, `%2`.
    pub text: &'static str,
    /// Destinations unless the configuration says otherwise.
    pub to: EventSwitches,
}

impl EventSpec {
    /// Name in the configuration: `mdadmn-5`; the module alone for messages without a number.
    #[must_use]
    pub fn name(&self) -> String {
        if self.id == 0 { self.module.to_owned() } else { format!("{}-{}", self.module, self.id) }
    }
}

const ALERT_SYSLOG: EventSwitches = EventSwitches { alert: true, syslog: true, mail: false };
const ALL: EventSwitches = EventSwitches { alert: true, syslog: true, mail: true };
const SYSLOG: EventSwitches = EventSwitches { alert: false, syslog: true, mail: false };

const fn agent(id: u16, level: Level, text: &'static str) -> EventSpec {
    EventSpec { module: "mdagent", id, level, text, to: ALERT_SYSLOG }
}

const fn admin(id: u16, level: Level, text: &'static str, to: EventSwitches) -> EventSpec {
    EventSpec { module: "mdadmn", id, level, text, to }
}

use Level::{Error, Info, Warning};

/// The table of messages.
pub static EVENTS: &[EventSpec] = &[
    agent(1, Info, "Agent has started successfully."),
    agent(2, Error, "Failed to start agent.%1"),
    agent(3, Info, "Stop agent successfully."),
    agent(4, Error, "Stop agent abnormally."),
    admin(1, Error, "Failed to activate mirror disk.%1(Device:%2)", ALERT_SYSLOG),
    admin(2, Info, "Fsck has been started.(Device: %1)", ALERT_SYSLOG),
    admin(3, Info, "Disk has cleaned by fsck.(Device: %1)", ALERT_SYSLOG),
    admin(4, Error, "Failed to deactivate mirror disk.%1(Device:%2)", ALERT_SYSLOG),
    admin(5, Error, "Building of switch mirror disk finished abnormally.%1(Device:%2)", ALL),
    admin(
        6,
        Info,
        "Building of switch mirror disk has finished successfully.(Device: %1)",
        ALERT_SYSLOG,
    ),
    admin(7, Info, "Recovery mode is %1.", ALERT_SYSLOG),
    admin(16, Info, "Initial recovery of mirror disk started.(Device:%1)", ALERT_SYSLOG),
    admin(17, Info, "Recovery started.(Device: %1)", ALERT_SYSLOG),
    admin(
        18,
        Info,
        "Initial recovery of mirror disk has finished successfully.(Device:%1)",
        ALERT_SYSLOG,
    ),
    admin(19, Error, "Initial recovery of mirror disk finished abnormally.%1(Device:%2)", ALL),
    EventSpec {
        module: "liscal",
        id: 0,
        level: Info,
        text: "(messages of the driver)",
        to: SYSLOG,
    },
];

/// A message of the driver. It has no number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriverSpec {
    /// Level.
    pub level: Level,
    /// Text with `%1`, `%2`, ...
    pub text: &'static str,
}

const fn line(level: Level, text: &'static str) -> DriverSpec {
    DriverSpec { level, text }
}

/// The driver's messages, with the spelling of the manual. `%1` is the device's number unless
/// the text says otherwise.
pub mod driver {
    use super::{DriverSpec, Error, Info, Warning, line};

    /// The driver thread runs: major (0 here: the kernel chooses), number of mirrors.
    pub const REGISTERED: DriverSpec = line(Info, "registered device at major %1, nmp count is %2");
    /// The driver thread ended.
    pub const UNREGISTERED: DriverSpec = line(Info, "unregister blkdev successfully.");
    /// The cluster partition cannot be read: errno.
    pub const BITMAP_READ: DriverSpec = line(Info, "NMP%1 read bitmap from CP error(%2).");
    /// A request failed.
    pub const IO_ERROR: DriverSpec = line(Info, "NMP%1 disk I/O error.");
    /// A write failed: sector.
    pub const WRITE_ERROR: DriverSpec = line(Info, "NMP%1 disk I/O error when write sector(%2).");
    /// A read failed.
    pub const READ_ERROR: DriverSpec = line(Info, "NMP%1 read error.");
    /// The cluster partition cannot be written.
    pub const BITMAP_WRITE: DriverSpec =
        line(Error, "bitmap data write error, so set disk_err TRUE.");
    /// The server is about to be reset.
    pub const REBOOT: DriverSpec =
        line(Error, "warning!! NMP%1 disk I/O error,system will reboot.");
    /// The connection ended.
    pub const PORT_CLOSED: DriverSpec = line(Info, "NMP%1 com port is closed, exit.");
    /// The connection ended during a recovery.
    pub const RECOVERY_PORT: DriverSpec =
        line(Info, "NMP(%1) com port has already closed, to abort recovery.");
    /// The mirror broke during a recovery.
    pub const RECOVERY_BREAK: DriverSpec =
        line(Info, "NMP(%1):mirror break occurred,recovery failed.");
    /// The port cannot be bound: errno.
    pub const BIND: DriverSpec = line(Info, "NMP%1 socket binding failed(%2).");
    /// The port cannot be listened on: errno.
    pub const LISTEN: DriverSpec = line(Info, "NMP%1 socket listening failed(%2).");
    /// The peer cannot be reached: reason.
    pub const CONNECT: DriverSpec = line(Info, "NMP%1 connection failed(%2).");
    /// A connection was not accepted: reason.
    pub const ACCEPT: DriverSpec = line(Info, "NMP%1 accept failed(%2).");
    /// The connection broke: reason.
    pub const RECEIVE: DriverSpec = line(Info, "NMP%1 receiving failed(%2).");
    /// The peer sent something that does not fit: what.
    pub const WRONG_COMMAND: DriverSpec = line(Info, "NMP%1 wrong command received(%2).");
    /// The peer sent something that is no frame.
    pub const WRONG_MAGIC: DriverSpec = line(Info, "NMP%1 receive wrong magic data.");
    /// No heartbeat could be sent: reason.
    pub const HEARTBEAT: DriverSpec = line(Info, "send hb faild (%1).");
    /// The device was opened for I/O.
    pub const OPENED: DriverSpec = line(Info, "NMP%1 open I/O port OK");
    /// The device was closed for I/O.
    pub const CLOSED: DriverSpec = line(Info, "NMP%1 close I/O port OK.");
    /// No address pair works.
    pub const NO_NETWORK: DriverSpec = line(Info, "can not find a using network.");
    /// A device is open at the end.
    pub const STILL_OPEN: DriverSpec = line(Error, "ERROR:MOUNT PORT is opened");
    /// The device is in use.
    pub const BUSY: DriverSpec = line(Error, "ERROR:NMP%1 is busy.");
    /// Not in the manual: the mirror broke, this side goes on alone.
    pub const BROKE: DriverSpec = line(Warning, "NMP%1 mirror break occurred, goes on alone.");
    /// Not in the manual: the device serves nothing any more.
    pub const FAILED: DriverSpec = line(Error, "NMP%1 fails all I/O from now on.");
    /// Not in the manual: the device of an earlier agent is served again.
    pub const RESUMED: DriverSpec = line(Info, "NMP%1 is served again by a new agent.");
    /// Not in the manual: the device of an earlier agent fails all I/O; why.
    pub const NOT_RESUMED: DriverSpec = line(Error, "NMP%1 is not served again(%2).");
    /// Not in the manual: the driver ended by itself; why.
    pub const ENDED: DriverSpec = line(Error, "NMP%1 driver ended(%2).");
    /// Not in the manual: a session opened; the row of the direction table.
    pub const SESSION: DriverSpec = line(Info, "NMP%1 connected(%2).");
    /// Not in the manual: contact without a session; the row of the direction table.
    pub const PARKED: DriverSpec = line(Warning, "NMP%1 connected, but does not mirror(%2).");
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
    /// `liscal`: message and its arguments
    Driver(DriverSpec, Vec<String>),
}

impl Event {
    /// A message of the driver about device `nmp`, with the arguments after `%1`.
    #[must_use]
    pub fn driver(spec: DriverSpec, nmp: u8, more: &[&str]) -> Self {
        let first = std::iter::once(nmp.to_string());
        Self::Driver(spec, first.chain(more.iter().map(|&s| s.to_owned())).collect())
    }

    /// Its row.
    #[must_use]
    pub fn spec(&self) -> &'static EventSpec {
        let (module, id) = self.key();
        EVENTS
            .iter()
            .find(|e| e.module == module && e.id == id)
            .expect("every event has its row; a test walks through them")
    }

    const fn key(&self) -> (&'static str, u16) {
        match self {
            Self::AgentStarted => ("mdagent", 1),
            Self::AgentStartFailed(_) => ("mdagent", 2),
            Self::AgentStopped => ("mdagent", 3),
            Self::AgentStopFailed => ("mdagent", 4),
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
            Self::Driver(..) => ("liscal", 0),
        }
    }

    /// Its level.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Driver(spec, _) => spec.level,
            _ => self.spec().level,
        }
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
            Self::FsckStarted(d)
            | Self::FsckDone(d)
            | Self::RecoveryDone(d)
            | Self::InitialStarted(d)
            | Self::RecoveryStarted(d)
            | Self::InitialDone(d) => vec![d.clone()],
            Self::RecoveryMode { fast } => vec![if *fast { "FAST" } else { "NORMAL" }.to_owned()],
            Self::Driver(_, args) => args.clone(),
        }
    }

    /// Its text with the arguments filled in.
    #[must_use]
    pub fn text(&self) -> String {
        let text = match self {
            Self::Driver(spec, _) => spec.text,
            _ => self.spec().text,
        };
        fill(text, &self.arguments())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key() {
            (module, 0) => write!(f, "CLUSTERPRO: <type: {module}> {}", self.text()),
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
