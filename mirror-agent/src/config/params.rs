//! The table of every configuration parameter: the loader checks against it and the manual page
//! is printed from it, so that neither can say what the other does not.

use super::doc::page;

/// A table of the configuration file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Section {
    /// `[[server]]`
    Server,
    /// `[agent]`
    Agent,
    /// `[[mirror]]`
    Mirror,
    /// `[mirror.on.SERVER]`
    MirrorOn,
    /// `[event.NAME]`
    Event,
}

impl Section {
    /// Every section, in the order of the manual page.
    pub const ALL: [Self; 5] =
        [Self::Server, Self::Agent, Self::Mirror, Self::MirrorOn, Self::Event];

    /// How the table is written in the file.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Server => "[[server]]",
            Self::Agent => "[agent]",
            Self::Mirror => "[[mirror]]",
            Self::MirrorOn => "[mirror.on.SERVER]",
            Self::Event => "[event.NAME]",
        }
    }
}

/// What a value may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A whole number within `min..=max`.
    Int {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
        /// Unit for the manual page, empty for a plain number.
        unit: &'static str,
    },
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A text; the string says which.
    Text(&'static str),
    /// A text of letters, digits, `-`, `_` and `.`, at most 31 bytes, that begins with a letter
    /// or a digit.
    Name,
    /// An absolute path.
    Path,
    /// An IP address.
    Address,
    /// A list of one to four IP addresses.
    Addresses,
}

/// What holds when the key is absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preset {
    /// The key must be there.
    Required,
    /// No value.
    Absent,
    /// This number.
    Int(i64),
    /// This switch.
    Bool(bool),
    /// This text, word or path.
    Text(&'static str),
    /// Derived from other values, as the string says.
    Derived(&'static str),
}

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its table.
    pub section: Section,
    /// Its key.
    pub key: &'static str,
    /// What the value may be.
    pub kind: Kind,
    /// The default.
    pub preset: Preset,
    /// One sentence for the manual page.
    pub help: &'static str,
}

const fn param(
    section: Section,
    key: &'static str,
    kind: Kind,
    preset: Preset,
    help: &'static str,
) -> Param {
    Param { section, key, kind, preset, help }
}

const fn int(min: i64, max: i64, unit: &'static str) -> Kind {
    Kind::Int { min, max, unit }
}

use Preset::{Absent, Derived, Required};
use Section::{Agent, Event, Mirror, MirrorOn, Server};

/// Every parameter there is.
pub static PARAMS: &[Param] = &[
    param(
        Server,
        "name",
        Kind::Name,
        Required,
        "Host name of the server, as `hostname -s` prints it.",
    ),
    param(
        Server,
        "agent_address",
        Kind::Address,
        Derived("first of mirror_connect"),
        "Address on which the agents talk to each other first; the mirror connects are tried after it.",
    ),
    param(
        Server,
        "mirror_connect",
        Kind::Addresses,
        Required,
        "Addresses for the mirror's data in order of priority; the n-th of one server is paired with the n-th of the other.",
    ),
    param(Agent, "port", int(1, 65535, ""), Preset::Int(29004), "TCP port between the agents."),
    param(
        Agent,
        "run_dir",
        Kind::Path,
        Preset::Text(super::RUN_DIR),
        "Folder for lock files and the control socket.",
    ),
    param(
        Agent,
        "log_dir",
        Kind::Path,
        Preset::Text("/var/log/clpmd"),
        "Folder for the alert log.",
    ),
    param(
        Agent,
        "device_dir",
        Kind::Path,
        Preset::Text("/dev"),
        "Folder in which the names NMP1, NMP2, ... appear.",
    ),
    param(
        Agent,
        "socket",
        Kind::Path,
        Derived("run_dir/ctl.sock"),
        "Control socket of the agent (mode 0600; 0660 with control_group).",
    ),
    param(
        Agent,
        "control_group",
        Kind::Name,
        Absent,
        "Group whose members may give the agent commands: all of them, as root may. It gets the control socket, and the agent's own `run_dir` becomes passable for it (mode 0710); a folder that the agent has not made is left as it is, and must let the group pass. Without it, only root.",
    ),
    param(
        Agent,
        "secret_file",
        Kind::Path,
        Preset::Text("/etc/clpmd/secret"),
        "File with the secret that both servers share: at least 16 bytes, mode 0600, owned by the user of the agent. `clpmdsecret` makes it.",
    ),
    param(
        Agent,
        "security",
        Kind::Choice(&["encrypted", "authenticated"]),
        Preset::Text("encrypted"),
        "How mirror connects and the link between the agents are protected. `encrypted`: nobody on the way can read or change anything. `authenticated`: nobody can change anything, but whoever is on the way can read the data; for a line that is trusted. Must be the same on both servers, which do not talk to each other otherwise.",
    ),
    param(
        Agent,
        "auto_recovery",
        Kind::Choice(&["always", "active", "off"]),
        Preset::Text("always"),
        "When a difference is recovered without being asked: whenever the direction is clear, only while the mirror is active, or never.",
    ),
    param(
        Agent,
        "alone",
        Kind::Choice(&["free", "fenced"]),
        Preset::Text("free"),
        "`free`: an active server goes on alone after a break. `fenced`: it completes nothing alone before the other server, or the cluster manager, has confirmed that it may; the only setting under which a total loss of contact cannot become a split brain.",
    ),
    param(
        Agent,
        "agent_timeout",
        int(0, 86_400, "s"),
        Preset::Int(60),
        "How long a device that outlives its agent (`ublk`, `nbd`) waits for a new one before the watchdog stops it and its users get I/O errors; 0: for ever. A device keeps the value with which it was made or, with `ublk`, last taken over.",
    ),
    param(
        Agent,
        "alert_log_size",
        int(16, 1_048_576, "KiB"),
        Preset::Int(1024),
        "Size at which the alert log is turned over.",
    ),
    param(
        Agent,
        "alert_log_keep",
        int(0, 99, "files"),
        Preset::Int(5),
        "Older alert logs that are kept, as alert.log.1 (the newest), alert.log.2, ...",
    ),
    param(
        Agent,
        "figures_dir",
        Kind::Path,
        Derived("log_dir/perf"),
        "Folder for the lines of figures: nmp1.cur for /dev/NMP1, the older ones nmp1.pre1 (the newest), nmp1.pre2, ...",
    ),
    param(
        Agent,
        "figures_interval",
        int(0, 3600, "s"),
        Preset::Int(60),
        "Time between two lines of figures, and what `clpmdstat --perf` shows as the last interval; 0: no lines.",
    ),
    param(
        Agent,
        "figures_size",
        int(16, 1_048_576, "KiB"),
        Preset::Int(1024),
        "Size at which a file of figures is turned over. With a line a minute, 1024 KiB are about two days.",
    ),
    param(
        Agent,
        "figures_keep",
        int(0, 99, "files"),
        Preset::Int(5),
        "Older files of figures that are kept, of each mirror.",
    ),
    param(
        Agent,
        "metrics_port",
        int(1, 65535, ""),
        Absent,
        "TCP port on which figures and states can be collected as OpenMetrics (`http://ADDRESS:PORT/metrics`); without it, none is open. Nobody is asked for a password there.",
    ),
    param(
        Agent,
        "metrics_address",
        Kind::Choice(&["loopback", "agent", "all"]),
        Preset::Text("loopback"),
        "Where that port is open: `loopback`: for this server only; `agent`: on its agent_address; `all`: on every IPv4 address.",
    ),
    param(
        Agent,
        "syslog",
        Kind::Path,
        Preset::Text("/dev/log"),
        "Datagram socket of the system log.",
    ),
    param(
        Agent,
        "mail_to",
        Kind::Text("mail address"),
        Absent,
        "Where events with the `mail` switch are sent; without it, no mail.",
    ),
    param(
        Agent,
        "mail_program",
        Kind::Path,
        Preset::Text("/usr/sbin/sendmail"),
        "Program that takes a mail on its input (`-t`).",
    ),
    param(
        Agent,
        "mail_timeout",
        int(1, 600, "s"),
        Preset::Int(30),
        "Time limit of one mail. Nothing waits for it; while one hangs, up to 16 wait and more are not sent.",
    ),
    param(Mirror, "name", Kind::Name, Required, "Name of the mirror disk resource: md1, md2, ..."),
    param(
        Mirror,
        "nmp",
        int(1, 255, ""),
        Derived("the number at the end of name"),
        "Number of the device: 1 for /dev/NMP1.",
    ),
    param(
        Mirror,
        "data_partition",
        Kind::Path,
        Derived("given in [mirror.on.SERVER]"),
        "Partition of the user's data.",
    ),
    param(
        Mirror,
        "cluster_partition",
        Kind::Path,
        Derived("given in [mirror.on.SERVER]"),
        "Partition of the mirror's own state.",
    ),
    param(
        Mirror,
        "port",
        int(1, 65535, ""),
        Derived("29050 + nmp"),
        "TCP port of the mirror's data.",
    ),
    param(
        Mirror,
        "fs",
        Kind::Choice(&["ext4", "ext3", "xfs", "none"]),
        Preset::Text("ext4"),
        "File system; `none`: the device is used as it is and never mounted.",
    ),
    param(
        Mirror,
        "mount_point",
        Kind::Path,
        Derived("required unless fs is none"),
        "Where the device is mounted.",
    ),
    param(
        Mirror,
        "mount_option",
        Kind::Text("mount options"),
        Preset::Text("rw"),
        "Options for mount.",
    ),
    param(Mirror, "mount_timeout", int(1, 999, "s"), Preset::Int(120), "Time limit of one mount."),
    param(
        Mirror,
        "mount_retry",
        int(0, 999, ""),
        Preset::Int(3),
        "Further attempts after a failed mount.",
    ),
    param(
        Mirror,
        "umount_timeout",
        int(1, 999, "s"),
        Preset::Int(300),
        "Time limit of one unmount.",
    ),
    param(
        Mirror,
        "umount_retry",
        int(0, 999, ""),
        Preset::Int(3),
        "Further attempts after a failed unmount.",
    ),
    param(
        Mirror,
        "umount_interval",
        int(0, 999, "s"),
        Preset::Int(5),
        "Pause between the attempts.",
    ),
    param(
        Mirror,
        "umount_action",
        Kind::Choice(&["kill", "none"]),
        Preset::Text("kill"),
        "What is done with processes that keep the file system busy.",
    ),
    param(
        Mirror,
        "fsck_option",
        Kind::Text("fsck options"),
        Preset::Text("-y"),
        "Options for fsck (not used for xfs).",
    ),
    param(Mirror, "fsck_timeout", int(1, 9999, "s"), Preset::Int(7200), "Time limit of fsck."),
    param(
        Mirror,
        "fsck_timing",
        Kind::Choice(&["never", "always", "interval"]),
        Preset::Text("interval"),
        "When fsck runs before a mount.",
    ),
    param(
        Mirror,
        "fsck_interval",
        int(0, 999, "mounts"),
        Preset::Int(10),
        "With `interval`: fsck runs at every so many mounts.",
    ),
    param(
        Mirror,
        "fsck_on_mount_failure",
        Kind::Bool,
        Preset::Bool(true),
        "Check an ext file system that cannot be mounted, and try again.",
    ),
    param(
        Mirror,
        "xfs_repair_option",
        Kind::Text("xfs_repair options"),
        Preset::Text(""),
        "Options for xfs_repair.",
    ),
    param(
        Mirror,
        "xfs_repair_timeout",
        int(1, 9999, "s"),
        Preset::Int(7200),
        "Time limit of xfs_repair.",
    ),
    param(
        Mirror,
        "xfs_repair_on_mount_failure",
        Kind::Bool,
        Preset::Bool(false),
        "Repair an xfs file system that cannot be mounted, and try again.",
    ),
    param(
        Mirror,
        "initial_mkfs",
        Kind::Bool,
        Preset::Bool(false),
        "Make the file system when the mirror is constructed for the first time; refused if one is found.",
    ),
    param(Mirror, "mkfs_option", Kind::Text("mkfs options"), Preset::Text(""), "Options for mkfs."),
    param(Mirror, "mkfs_timeout", int(1, 9999, "s"), Preset::Int(7200), "Time limit of mkfs."),
    param(
        Mirror,
        "activate_at_start",
        Kind::Name,
        Absent,
        "Server that activates the mirror by itself once it is in contact with an inactive, settled peer; without it, none does.",
    ),
    param(
        Mirror,
        "front_end",
        Kind::Choice(&["auto", "ublk", "nbd", "loop", "nbd-socket"]),
        Preset::Text("auto"),
        "How the device is served: `ublk`: a device of the kernel's ublk driver; `nbd`: a device of the kernel's NBD client; `loop`: a loop device over an NBD socket; `nbd-socket`: that socket and no device; `auto`: ublk if the kernel has it, else nbd, else loop.",
    ),
    param(
        Mirror,
        "heartbeat_interval",
        int(100, 60_000, "ms"),
        Preset::Int(1000),
        "Time between two heartbeats on the mirror connect.",
    ),
    param(
        Mirror,
        "peer_timeout",
        int(500, 600_000, "ms"),
        Preset::Int(5000),
        "A peer that is silent for so long is lost; at least twice heartbeat_interval.",
    ),
    param(
        Mirror,
        "connect_timeout",
        int(100, 99_000, "ms"),
        Preset::Int(3000),
        "Time limit of one connection attempt.",
    ),
    param(
        Mirror,
        "disk_timeout",
        int(1, 3600, "s"),
        Preset::Int(30),
        "A disk operation without an answer for so long is a disk error.",
    ),
    param(
        Mirror,
        "disk_error",
        Kind::Choice(&["stop-io", "reset", "panic", "detach"]),
        Preset::Text("stop-io"),
        "What a server does when a disk of this mirror fails there, active or not. `stop-io`: the device fails all I/O. `reset`: the server is also reset at once, as in the manual. `panic`: its kernel panics instead. `detach`: if the data partition of the active server fails while the other one is whole and connected, the device goes on with the disk of the other; else as `stop-io`. A server is reset once for a disk, not again before `clpmdchng`.",
    ),
    param(
        Mirror,
        "both_active",
        Kind::Choice(&["go-on", "stop-both", "survivor"]),
        Preset::Text("go-on"),
        "When both servers are active and the mirror connect returns: both go on, each for itself; both stop; or only the server `survivor` goes on. The one that stops loses the device, or is reset if `disk_error` says so. No data are changed on either.",
    ),
    param(
        Mirror,
        "survivor",
        Kind::Name,
        Absent,
        "The server that goes on with `both_active = \"survivor\"`.",
    ),
    param(
        Mirror,
        "hot_regions",
        int(16, 1_048_576, "regions of 64 KiB"),
        Preset::Int(65_536),
        "How many regions may stay marked while they are being written: more costs a longer recovery after a crash, fewer costs more marking.",
    ),
    param(
        MirrorOn,
        "data_partition",
        Kind::Path,
        Derived("that of [[mirror]]"),
        "Partition of the user's data on this server.",
    ),
    param(
        MirrorOn,
        "cluster_partition",
        Kind::Path,
        Derived("that of [[mirror]]"),
        "Partition of the mirror's own state on this server.",
    ),
    param(
        Event,
        "alert",
        Kind::Bool,
        Derived("as in the table of messages"),
        "Write the event to the alert log.",
    ),
    param(
        Event,
        "syslog",
        Kind::Bool,
        Derived("as in the table of messages"),
        "Send the event to the system log.",
    ),
    param(
        Event,
        "mail",
        Kind::Bool,
        Derived("as in the table of messages"),
        "Send the event by mail.",
    ),
];

/// The parameters of one section.
pub fn of(section: Section) -> impl Iterator<Item = &'static Param> {
    PARAMS.iter().filter(move |p| p.section == section)
}

/// The parameter with this key, if there is one.
#[must_use]
pub fn find(section: Section, key: &str) -> Option<&'static Param> {
    of(section).find(|p| p.key == key)
}

/// The manual page of the configuration file, in Markdown.
#[must_use]
pub fn manual() -> String {
    page()
}
