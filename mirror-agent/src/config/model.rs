//! The configuration as typed values. What each means, its unit, range and default are in
//! [`super::params`].

use super::said::Said;
use crate::host::power::PowerAction;
use crate::messages::EventSwitches;
use mirror_core::both_active::BothActive;
use mirror_core::units::Side;
use mirror_core::wire::Security;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The whole file, seen from one of the servers.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// Both servers in configuration order.
    pub servers: [Server; 2],
    /// Which of them this is.
    pub side: Side,
    /// `[agent]`.
    pub agent: AgentConfig,
    /// The mirrors in the order of the file.
    pub mirrors: Vec<MirrorConfig>,
    /// Destinations that differ from the table of messages, by event name.
    pub events: BTreeMap<String, EventSwitches>,
    /// What holds for each key.
    pub(super) said: Said,
}

impl Config {
    /// This server.
    #[must_use]
    pub fn local(&self) -> &Server {
        &self.servers[self.side.index()]
    }

    /// The other server.
    #[must_use]
    pub fn peer(&self) -> &Server {
        &self.servers[self.side.other().index()]
    }

    /// The mirror of this name.
    #[must_use]
    pub fn mirror(&self, name: &str) -> Option<&MirrorConfig> {
        self.mirrors.iter().find(|m| m.name == name)
    }

    /// Which server has this name.
    #[must_use]
    pub fn side_of(&self, server: &str) -> Option<Side> {
        [Side::First, Side::Second].into_iter().find(|s| self.servers[s.index()].name == server)
    }

    /// Pairs of (own, peer's) addresses for the agents' link, in the order to try them.
    #[must_use]
    pub fn agent_pairs(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let port = self.agent.port;
        let ours = self.local().all_addresses();
        let theirs = self.peer().all_addresses();
        let mut pairs = Vec::new();
        for (a, b) in ours.iter().zip(theirs.iter()) {
            let pair = (SocketAddr::new(*a, port), SocketAddr::new(*b, port));
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        pairs
    }
}

/// `[[server]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// Host name.
    pub name: String,
    /// First address for the agents' link.
    pub agent_address: IpAddr,
    /// Addresses for the mirrors' data, by priority.
    pub mirror_connect: Vec<IpAddr>,
}

impl Server {
    /// Every address on which the agents may meet, in order: the agent address, then the mirror
    /// connects. An address that appears twice stays, so that the pairs of both servers match.
    #[must_use]
    pub fn all_addresses(&self) -> Vec<IpAddr> {
        std::iter::once(self.agent_address).chain(self.mirror_connect.iter().copied()).collect()
    }
}

/// `[agent]`.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// TCP port between the agents.
    pub port: u16,
    /// Locks and the control socket.
    pub run_dir: PathBuf,
    /// Alert log.
    pub log_dir: PathBuf,
    /// Where NMP1, ... appear.
    pub device_dir: PathBuf,
    /// Control socket.
    pub socket: PathBuf,
    /// Group whose members may use the control socket, too.
    pub control_group: Option<String>,
    /// The shared secret.
    pub secret_file: PathBuf,
    /// How the connections between the servers are protected.
    pub security: Security,
    /// When recovery starts by itself.
    pub auto_recovery: AutoRecovery,
    /// Whether an active side may go on alone.
    pub alone: Alone,
    /// How long a device waits for another agent; zero: for ever.
    pub agent_timeout: Duration,
    /// Bytes at which the alert log is turned over.
    pub alert_log_bytes: u64,
    /// Older alert logs that are kept.
    pub alert_log_keep: u32,
    /// Where the lines of figures go.
    pub figures_dir: PathBuf,
    /// Time of one line; zero: none.
    pub figures_interval: Duration,
    /// Bytes at which a file of figures is turned over.
    pub figures_bytes: u64,
    /// Older files of figures that are kept, of each mirror.
    pub figures_keep: u32,
    /// TCP port of the page of figures; `None`: there is none.
    pub metrics_port: Option<u16>,
    /// Who can reach it.
    pub metrics_address: MetricsAddress,
    /// Datagram socket of the system log.
    pub syslog: PathBuf,
    /// Receiver of mails, if any.
    pub mail_to: Option<String>,
    /// Mail program.
    pub mail_program: PathBuf,
    /// Time limit of one mail.
    pub mail_timeout: Duration,
}

/// Where the page of figures is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricsAddress {
    /// For this server only.
    Loopback,
    /// On the address of the agents' link.
    Agent,
    /// On every address.
    All,
}

/// When a difference is recovered without being asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AutoRecovery {
    /// Whenever the direction is clear.
    Always,
    /// Only while the mirror is active.
    Active,
    /// Never.
    Off,
}

/// What an active side does after a break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alone {
    /// Goes on.
    Free,
    /// Waits for a confirmation.
    Fenced,
}

/// The partitions of a mirror on one server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partitions {
    /// The user's data.
    pub data: PathBuf,
    /// The mirror's own state.
    pub cluster: PathBuf,
}

/// `[[mirror]]`.
#[derive(Clone, Debug)]
pub struct MirrorConfig {
    /// Name, as md1.
    pub name: String,
    /// Number of the device.
    pub nmp: u8,
    /// Partitions on each server, in configuration order.
    pub partitions: [Partitions; 2],
    /// TCP port of the data.
    pub port: u16,
    /// File system.
    pub fs: FileSystem,
    /// Where and how it is mounted; `None` = never (file system `none`).
    pub mount: Option<MountConfig>,
    /// Unmounting.
    pub umount: UmountConfig,
    /// Checking.
    pub fsck: FsckConfig,
    /// Make the file system at the first construction.
    pub initial_mkfs: bool,
    /// Options for mkfs.
    pub mkfs_option: String,
    /// Time limit of mkfs.
    pub mkfs_timeout: Duration,
    /// The server that activates by itself.
    pub activate_at_start: Option<Side>,
    /// How the device is served.
    pub front_end: FrontEnd,
    /// What a disk error does besides failing the device; `None` = nothing.
    pub disk_error: Option<PowerAction>,
    /// A failed data partition of an active side is replaced by the other server's disk.
    pub detach: bool,
    /// What is done when both servers are active.
    pub both_active: BothActive,
    /// Time limits.
    pub timing: Timing,
    /// Budget of marked regions.
    pub hot_regions: u32,
}

/// File systems.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    /// ext4
    Ext4,
    /// ext3
    Ext3,
    /// XFS
    Xfs,
    /// None: raw use.
    None,
}

impl FileSystem {
    /// The name that mount and mkfs know.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Ext3 => "ext3",
            Self::Xfs => "xfs",
            Self::None => "none",
        }
    }
}

/// Mounting.
#[derive(Clone, Debug)]
pub struct MountConfig {
    /// Where.
    pub point: PathBuf,
    /// Options.
    pub option: String,
    /// Time limit of one attempt.
    pub timeout: Duration,
    /// Further attempts.
    pub retry: u32,
}

/// Unmounting.
#[derive(Clone, Debug)]
pub struct UmountConfig {
    /// Time limit of one attempt.
    pub timeout: Duration,
    /// Further attempts.
    pub retry: u32,
    /// Pause between attempts.
    pub interval: Duration,
    /// What is done with processes in the way.
    pub action: UmountAction,
}

/// What is done with processes that keep a file system busy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UmountAction {
    /// They are killed.
    Kill,
    /// Nothing.
    None,
}

/// Checking the file system.
#[derive(Clone, Debug)]
pub struct FsckConfig {
    /// Options.
    pub option: String,
    /// Time limit.
    pub timeout: Duration,
    /// When.
    pub timing: FsckTiming,
    /// With `Interval`: at every so many mounts; 0 = never.
    pub interval: u32,
    /// Check an ext file system that cannot be mounted.
    pub on_mount_failure: bool,
    /// Options for xfs_repair.
    pub xfs_option: String,
    /// Time limit of xfs_repair.
    pub xfs_timeout: Duration,
    /// Repair an xfs file system that cannot be mounted.
    pub xfs_on_mount_failure: bool,
}

/// When fsck runs before a mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FsckTiming {
    /// Never.
    Never,
    /// Always.
    Always,
    /// At every n-th mount.
    Interval,
}

/// How the device is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrontEnd {
    /// The best that the kernel has.
    Auto,
    /// An NBD socket and no block device.
    NbdSocket,
    /// A loop device over the NBD socket.
    Loop,
    /// A device of the kernel's ublk driver.
    Ublk,
    /// A device of the kernel's NBD client.
    Nbd,
}

/// Time limits of a mirror.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// After which a silent peer is lost.
    pub peer: Duration,
    /// Of one connection attempt.
    pub connect: Duration,
    /// Of one disk operation.
    pub disk: Duration,
}
