//! `mdagent` and `mdadmn`: §12.1, and the later product's numbers from 20 on.

use super::{ALERT_SYSLOG, ALL, LICENCE, Message, Origin, Raised};
use crate::messages::events::Level::{self, Error, Info, Warning};

const fn agent(
    id: u16,
    level: Level,
    text: &'static str,
    meaning: &'static str,
    remedy: &'static str,
) -> Message {
    let origin = Origin::Manual("12.1");
    Message {
        module: "mdagent",
        id,
        level,
        text,
        to: ALERT_SYSLOG,
        meaning,
        remedy,
        origin,
        raised: Raised::Here,
    }
}

const fn admin(
    id: u16,
    level: Level,
    text: &'static str,
    meaning: &'static str,
    remedy: &'static str,
) -> Message {
    Message { module: "mdadmn", ..agent(id, level, text, meaning, remedy) }
}

const fn mailed(message: Message) -> Message {
    Message { to: ALL, ..message }
}

const fn licence(id: u16, level: Level, text: &'static str) -> Message {
    Message {
        raised: Raised::Never(LICENCE),
        ..admin(id, level, text, "About licences of an option.", "")
    }
}

const fn later(message: Message) -> Message {
    Message { origin: Origin::Later, ..message }
}

const fn never(message: Message, why: &'static str) -> Message {
    Message { raised: Raised::Never(why), ..later(message) }
}

const SIZES: &str = "both servers agree on one size when the mirror is constructed";
const HYBRID: &str = "a cluster partition that fails is reported as liscal 93";

const RECOVERY_REMEDY: &str = "By the reason. 1) A recovery runs already: wait for its end, then ask again. \
     2) The server to be copied to has the mirror disk active: deactivate it there. \
     3) The direction cannot be judged: `clpmdstat --mirror MD`, then `clpmdctrl --force SERVER MD`. \
     4) The server to be copied from is abnormal or out of reach: see the state of its agent and the mirror connect.";

pub(super) static ROWS: &[Message] = &[
    agent(1, Info, "Agent has started successfully.", "The mirror agent has started.", ""),
    agent(
        2,
        Error,
        "Failed to start agent.%1",
        "The mirror agent could not be started. %1 is one of: 1) Agent is running. 2) Command clpmdinit is running. \
         3) Command clpmdchng is running. 4) IP address in config file is wrong. 5) Server name in config file is wrong. \
         6) There is an error in config file. 7) Failed to initialize socket server.",
        "By the reason. 1) It runs already. 2, 3) Wait for the end of that command, then start again. \
         4, 5, 6) Correct the configuration: `clpmdagent --check`. 7) A port or the control socket is taken, or memory \
         is short: the journal has the details.",
    ),
    agent(3, Info, "Stop agent successfully.", "The mirror agent has stopped in good order.", ""),
    agent(
        4,
        Error,
        "Stop agent abnormally.",
        "The mirror agent did not stop cleanly: a mirror disk could not be closed, or a driver ended by itself.",
        "See the messages before it; end what uses the device. The next start clears up and settles the difference.",
    ),
    Message {
        origin: Origin::Later,
        ..agent(
            5,
            Warning,
            "Failed to load the resource(%1). Check if the Cluster Partition or Data Partition is OK.",
            "The mirror disk %1 could not be opened at the start of the agent. The others run.",
            "The journal says why: a partition is not there, in use, too small, or its state is not valid. Correct it and restart the agent.",
        )
    },
    admin(
        1,
        Error,
        "Failed to activate mirror disk.%1(Device:%2)",
        "%2 could not be activated. %1 is one of: 1) Failed to open I/O port. 2) The local server hasn't the latest data. \
         3) Communication to the remote server failed. 4) The remote server is active. 5) The local server was already active. \
         6) Mount operation failed.",
        "By the reason. 1) The device could not be made: check the configuration and the journal. 2) A mirror recovery is needed. \
         3) Check the mirror connect and the other server's agent. 4, 5) It is active already: `clpmdstat --active MD`. \
         6) Check the mount point, the mount options and the file system.",
    ),
    admin(
        2,
        Info,
        "Fsck has been started.(Device: %1)",
        "The file system check of %1 has begun.",
        "",
    ),
    admin(
        3,
        Info,
        "Disk has cleaned by fsck.(Device: %1)",
        "The file system check of %1 has succeeded.",
        "",
    ),
    admin(
        4,
        Error,
        "Failed to deactivate mirror disk.%1(Device:%2)",
        "%2 could not be deactivated. %1 is one of: 1) The mirror disk was already deactivated. 2) Umount operation failed.",
        "By the reason. 1) It is not active here: `clpmdstat --active MD`. 2) The file system is busy: end the processes that \
         the command names, then deactivate again.",
    ),
    mailed(admin(
        5,
        Error,
        "Building of switch mirror disk finished abnormally.%1(Device:%2)",
        "The mirror recovery of %2 failed. %1 is one of: 1) The recovery is in progress. 2) The destination server is active. \
         3) Can not judge the recovery direction. 4) The source server is abnormal.",
        RECOVERY_REMEDY,
    )),
    admin(
        6,
        Info,
        "Building of switch mirror disk has finished successfully.(Device: %1)",
        "The mirror recovery of %1 has succeeded: both disks hold the same data.",
        "",
    ),
    admin(
        7,
        Info,
        "Recovery mode is %1.",
        "What the recovery copies: NORMAL: all; FAST: the difference.",
        "",
    ),
    licence(8, Info, "The number of license is %1. (%2)"),
    licence(9, Info, "Period of trial is till %1. (%2)"),
    licence(10, Error, "The license is unknown. (%1)"),
    licence(11, Error, "The license is invalid. (%1)"),
    licence(12, Error, "The license is not registered. (%1)"),
    licence(13, Warning, "The license is insufficient. The number of insufficient is %1. (%2)"),
    licence(14, Error, "The license of trial expired by %1. (%2)"),
    licence(15, Error, "The license of trial is valid from %1. (%2)"),
    admin(
        16,
        Info,
        "Initial recovery of mirror disk started.(Device:%1)",
        "The initial mirror construction of %1 has begun.",
        "",
    ),
    admin(17, Info, "Recovery started.(Device: %1)", "The mirror recovery of %1 has begun.", ""),
    admin(
        18,
        Info,
        "Initial recovery of mirror disk has finished successfully.(Device:%1)",
        "The initial mirror construction of %1 has succeeded.",
        "",
    ),
    mailed(admin(
        19,
        Error,
        "Initial recovery of mirror disk finished abnormally.%1(Device:%2)",
        "The initial mirror construction of %2 failed. %1 is one of: 1) The recovery is in progress. 2) The destination server is \
         active. 3) Can not judge the recovery direction. 4) The source server is abnormal.",
        RECOVERY_REMEDY,
    )),
    never(
        admin(
            20,
            Info,
            "Initial mirror recovery was not executed following the configuration. (Device:%1)",
            "The first copy was left out, as configured.",
            "",
        ),
        "the first copy is always made",
    ),
    later(admin(
        21,
        Info,
        "Mirror partition mkfs was executed. (Device:%1)",
        "The file system of %1 was made after the first construction (initial_mkfs = true).",
        "",
    )),
    later(admin(
        22,
        Info,
        "Mirror partition mkfs was not executed following the configuration.",
        "After the first construction no file system was made (initial_mkfs = false).",
        "If there is none yet: `clpmdctrl --active -nomount MD`, mkfs on the device, `clpmdctrl --deactive MD`.",
    )),
    never(
        admin(
            23,
            Info,
            "Forced mirror recovery was canceled. Execute the command \"clpmdctrl --force\" to resume the mirror recovery. (Device:%1)",
            "A forced recovery was stopped.",
            "`clpmdctrl --recovery MD` takes it up again.",
        ),
        "a recovery that was stopped is reported as 44, forced or not, and `clpmdctrl --recovery` takes it up",
    ),
    never(
        admin(
            24,
            Warning,
            "One of the servers is active. but the NMP size of mirror disks are not the same. (Device:%1)",
            "The servers disagree about the size of the mirror.",
            "",
        ),
        SIZES,
    ),
    never(
        admin(
            25,
            Info,
            "The NMP sizes of both servers' disks has been successfully synchronized.",
            "The servers have agreed on the size of the mirror.",
            "",
        ),
        SIZES,
    ),
    never(
        admin(
            28,
            Error,
            "Mirror recovery data has been successfully synchronized. NMP size synchronization has failed.",
            "The servers have not agreed on the size of the mirror.",
            "",
        ),
        SIZES,
    ),
    never(
        admin(
            30,
            Error,
            "The license information was removed after the cluster was started.",
            "About licences.",
            "",
        ),
        LICENCE,
    ),
    later(admin(
        31,
        Error,
        "Failed to isolate the mirror. %1(Device:%2)",
        "The mirror could not be separated on purpose.",
        "See the reason; `clpmdstat --mirror MD`.",
    )),
    later(admin(
        32,
        Error,
        "Forced activation of the mirror failed. %1 (Device:%2)",
        "An activation with the operator's word that the other server is off (--peer-down) was refused or failed.",
        "The command says why, and what to do next.",
    )),
    later(admin(
        33,
        Error,
        "Forced recovery of the mirror failed. %1(Device:%2)",
        "clpmdctrl --force was refused for a reason that message 5 does not have.",
        "The command says why, and what to do next.",
    )),
    later(admin(
        34,
        Info,
        "Isolating the mirror %1 completed successfully.",
        "The mirror was separated on purpose.",
        "",
    )),
    later(admin(
        35,
        Info,
        "Mirror force active of %1 was completed successfully.",
        "%1 was activated on the operator's word that the other server is off and wrote nothing alone (--peer-down).",
        "Keep the other server off, or let it recover; if it did write alone, a split brain follows.",
    )),
    later(admin(
        36,
        Info,
        "Forced recovery of the mirror %1 completed successfully.",
        "This server's data was declared the latest (clpmdctrl --force), and what that asked for is done: at once where the \
         other server is out of reach, else at the end of the copy.",
        "",
    )),
    later(admin(
        37,
        Error,
        "%1 of %2 failed(ret=%3).",
        "An external command of activation or deactivation failed: %1 on %2 ended with %3.",
        "fsck: 4 errors left, 8 no usable file system or device, 16 wrong options, 32 cancelled, 128 and more killed. \
         xfs_repair: 1 not repaired, 2 log to be replayed first. mount, umount: the command's own text is in the answer of clpmdctrl.",
    )),
    later(admin(
        38,
        Warning,
        "Executing %1 of %2 with %3 option is necessary. Execute the command manually.",
        "The check could not repair the file system with the options that are configured.",
        "`clpmdctrl --active -nomount MD`, run the command with that option on the device, `clpmdctrl --deactive MD`. xfs_repair -L \
         throws away what is in the log: back up the data partition first.",
    )),
    later(admin(
        39,
        Info,
        "%1 of %2 with %3 option has started.",
        "A file system that could not be mounted is being checked.",
        "",
    )),
    never(
        admin(
            40,
            Info,
            "Failed to write to cluster partition of hybrid disk(%1).",
            "Hybrid disks.",
            "",
        ),
        HYBRID,
    ),
    never(
        admin(
            41,
            Info,
            "Timeout in writing to cluster partition of hybrid disk(%1).",
            "Hybrid disks.",
            "",
        ),
        HYBRID,
    ),
    never(
        admin(
            42,
            Info,
            "Failed to read from cluster partition of hybrid disk(%1).",
            "Hybrid disks.",
            "",
        ),
        HYBRID,
    ),
    never(
        admin(
            43,
            Info,
            "Timeout in reading from cluster partition of hybrid disk(%1).",
            "Hybrid disks.",
            "",
        ),
        HYBRID,
    ),
    later(admin(
        44,
        Info,
        "Mirror recovery of %1 was canceled.",
        "The recovery was stopped: by the operator on one of the servers, or (seen from the target) because the source could \
         not go on, which the source reports as 5. What was copied stays copied.",
        "`clpmdctrl --recovery MD` takes it up where it was.",
    )),
    later(admin(
        45,
        Info,
        "Failed to cancel mirror recovery of %1.",
        "No recovery ran that could be stopped, or it was just beginning or ending.",
        "`clpmdstat --mirror MD`; ask again in a moment.",
    )),
    later(admin(
        46,
        Error,
        "umount timeout. Make sure that the length of Unmount Timeout is appropriate. (Device:%1)",
        "An unmount of %1 did not end within umount_timeout: much to be written back, or a disk that hangs.",
        "Raise umount_timeout, and TimeoutStopSec of the service with it; look at the disks.",
    )),
    later(admin(
        47,
        Error,
        "fsck timeout. Make sure that the length of Fsck Timeout is appropriate. (Device:%1)",
        "The check of %1 did not end within fsck_timeout (xfs: xfs_repair_timeout).",
        "Raise the limit, or check by hand: `clpmdctrl --active -nomount MD`.",
    )),
    later(admin(
        50,
        Info,
        "Extension of mirror disk %1 was succeeded.",
        "The mirror has grown while in use.",
        "",
    )),
    later(admin(
        51,
        Error,
        "Failed to extend mirror disk %1.",
        "The mirror could not be made larger.",
        "Both data partitions must be larger first; the command says what is missing.",
    )),
];
