//! Results of commands: activation and deactivation (`md`, §12.4.4), the monitors of the mirror
//! disk (`mdw`, §12.5.6) and of the mirror connect (`mdnw`, §12.5.7).

use super::{MEMORY, Message, NOWHERE, Origin, Raised};
use crate::messages::events::Level;

const fn result(
    (module, section): (&'static str, &'static str),
    id: u16,
    text: &'static str,
    meaning: &'static str,
    remedy: &'static str,
) -> Message {
    Message {
        module,
        id,
        level: Level::Error,
        text,
        to: NOWHERE,
        meaning,
        remedy,
        origin: Origin::Manual(section),
        raised: Raised::Here,
    }
}

const MD: (&str, &str) = ("md", "12.4.4");
const MDW: (&str, &str) = ("mdw", "12.5.6");
const MDNW: (&str, &str) = ("mdnw", "12.5.7");

const NO_AGENT: &str = "Need to start mirror agent at first.";
const NO_AGENT_MEANS: &str = "The mirror agent does not run on this server.";
const NO_AGENT_DO: &str = "`systemctl status clusterpro_md`, `systemctl start clusterpro_md`.";
const OPTIONS: &str = "Options or parameters are invalid.";
const OPTIONS_MEANS: &str = "The command was called with options or names that it does not take.";
const OPTIONS_DO: &str = "`--help`; check the configuration of the cluster manager that calls it.";
const CONFIG: &str = "Getting of config was failed.";
const CONFIG_MEANS: &str = "The configuration file is not there or cannot be used.";
const CONFIG_DO: &str = "`clpmdagent --check` names file, line and value.";
const INTERNAL: &str = "Internal error[status=%1]";
const INTERNAL_MEANS: &str = "Something that should not happen; %1 says what.";
const MONITOR: &str = "Monitor config error.(%1)";
const MONITOR_DO: &str =
    "Correct the name in the cluster manager's settings; `clpmdstat -l` lists the mirror disks.";

pub(super) static ROWS: &[Message] = &[
    result(MD, 1, NO_AGENT, NO_AGENT_MEANS, NO_AGENT_DO),
    result(MD, 2, OPTIONS, OPTIONS_MEANS, OPTIONS_DO),
    result(MD, 4, CONFIG, CONFIG_MEANS, CONFIG_DO),
    result(MD, 30, INTERNAL, INTERNAL_MEANS, MEMORY),
    result(
        MD,
        77,
        "Mirror disk was not in config.(%1)",
        "The configuration has no mirror disk of this name.",
        "`clpmdstat -l` lists them.",
    ),
    result(
        MD,
        79,
        "Failed to get cluster partition information.",
        "The cluster partition cannot be read, its state is not valid, or the mirror was never constructed.",
        "See that the partition is there and that the system sees the disk; the message says which of them it is.",
    ),
    result(
        MD,
        80,
        "Mount point was already mounted.(%1)",
        "Something is mounted on the mount point, or the mirror disk is active here already.",
        "Do not mount on the mount point by hand; `clpmdstat --active MD`.",
    ),
    result(
        MD,
        81,
        "The local server has not the latest data.(%1)",
        "This server does not hold the latest data, or cannot know that it does.",
        "A mirror recovery is needed; the command says the one safe next step.",
    ),
    result(
        MD,
        82,
        "Failed to set cluster partition information.",
        "The cluster partition cannot be written, or a disk of this server has failed.",
        "See that the partition is there and that the system sees the disk; replace a disk that failed.",
    ),
    result(
        MD,
        83,
        "Command timeout(%1, timeout=%2)",
        "A command of the system (mount, umount, fsck, xfs_repair, mkfs) did not end within its limit and was ended.",
        "Raise mount_timeout, umount_timeout or fsck_timeout, and see why it takes so long.",
    ),
    result(
        MD,
        84,
        "Mount point was not mounted. (%1)",
        "The mirror disk is not mounted, or not active, on this server.",
        "Do not unmount by hand: `clpmdctrl --deactive MD` does it.",
    ),
    result(
        MD,
        87,
        "Creating of mount point was failed. (%1)",
        "The mount point is not there and cannot be made.",
        "Check mount_point in the configuration, and make the folder.",
    ),
    result(
        MD,
        89,
        "Command failed. (%1)",
        "A command of the system failed or is not there, or the request was refused for a reason that has no code of its own.",
        "See that mount, umount, fsck (e2fsck, xfs_repair) are installed; the message says what happened and what to do.",
    ),
    result(MDW, 1, NO_AGENT, NO_AGENT_MEANS, NO_AGENT_DO),
    result(MDW, 2, OPTIONS, OPTIONS_MEANS, OPTIONS_DO),
    result(MDW, 4, CONFIG, CONFIG_MEANS, CONFIG_DO),
    result(
        MDW,
        5,
        MONITOR,
        "The monitor names a mirror disk that is not in the configuration.",
        MONITOR_DO,
    ),
    result(MDW, 30, INTERNAL, INTERNAL_MEANS, MEMORY),
    result(
        MDW,
        51,
        "Remote driver status is unknown.",
        "The state of the other server cannot be had, neither over the mirror connect nor from its agent.",
        "Check the other server's agent, the mirror connect, and the addresses in the configuration.",
    ),
    result(
        MDW,
        52,
        "Remote driver is abnormal.",
        "The other server's agent runs, but its driver of this mirror disk does not.",
        "See its journal; correct the cause and restart its agent.",
    ),
    result(
        MDW,
        53,
        "Local driver is abnormal.",
        "The agent runs, but its driver of this mirror disk does not: it could not be opened, or does not answer.",
        "See the journal; correct the cause and restart the agent.",
    ),
    result(
        MDW,
        54,
        "Both drivers are abnormal.",
        "The driver of this mirror disk runs on neither server.",
        "See both journals; correct the causes and restart both agents.",
    ),
    result(
        MDW,
        58,
        "Local mirror disk status is unknown or not constructed.(%1)",
        "The mirror disk was never constructed, or its state here cannot be told.",
        "Start the agent on both servers: the initial construction runs by itself.",
    ),
    result(
        MDW,
        63,
        "Local mirror disk is abnormal. (%1)",
        "This server does not hold the latest data, or its disk failed.",
        "A mirror recovery is needed: `clpmdstat --mirror MD`.",
    ),
    result(
        MDW,
        64,
        "Remote mirror disk is abnormal.(%1)",
        "The other server does not hold the latest data, or its disk failed.",
        "A mirror recovery is needed: `clpmdstat --mirror MD`.",
    ),
    result(
        MDW,
        65,
        "Both mirror disks are abnormal.(%1)",
        "Neither server can be told to hold the latest data.",
        "A forced mirror recovery is needed: `clpmdctrl --force SERVER MD`, after comparing both.",
    ),
    result(
        MDW,
        66,
        "Mirror disk was activated on both servers.(%1)",
        "Both servers have the mirror disk active: they have gone, or will go, apart.",
        "Stop the applications and deactivate it on the server whose data is given up.",
    ),
    result(
        MDW,
        100,
        "The recovery is in progress. (%1)",
        "A mirror recovery or the initial construction runs.",
        "Wait for its end: `clpmdstat --mirror MD --watch`.",
    ),
    result(MDNW, 1, NO_AGENT, NO_AGENT_MEANS, NO_AGENT_DO),
    result(MDNW, 2, OPTIONS, OPTIONS_MEANS, OPTIONS_DO),
    result(MDNW, 4, CONFIG, CONFIG_MEANS, CONFIG_DO),
    result(
        MDNW,
        5,
        MONITOR,
        "The monitor names a mirror disk that is not in the configuration.",
        MONITOR_DO,
    ),
    result(MDNW, 30, INTERNAL, INTERNAL_MEANS, MEMORY),
    result(
        MDNW,
        31,
        "Network was interrupted",
        "The mirror connect is cut: the drivers of the two servers are not connected.",
        "Check the cable, the interface, the addresses, and the other server's agent.",
    ),
];
