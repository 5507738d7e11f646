//! `clpmdctrl --abandon`: gives up a device without the agent.

use crate::cli::Common;
use crate::clpmdctrl::confirmed;
use crate::out::Failure;
use mirror_agent::config::Config;
use mirror_agent::host::HostError;
use mirror_agent::host::survivor::{self, DeviceRecord, Verdict};
use mirror_agent::messages::MdCode;
use std::io::{self, IsTerminal as _, Write as _};

fn failed(e: &HostError) -> Failure {
    Failure::new(MdCode::Internal, e.to_string())
}

/// Finds the device of `mirror` that an agent of this server has made.
fn find(common: &Common, mirror: &str) -> Result<DeviceRecord, Failure> {
    let config = Config::load_anywhere(&common.file())?;
    let record = DeviceRecord::load(&config.agent.run_dir, mirror).map_err(|e| failed(&e))?;
    let none = |why: &str| {
        Failure::new(MdCode::NotMounted, format!("{mirror} has no device to give up here: {why}"))
    };
    let Some(record) = record else { return Err(none("no agent has left one on record")) };
    match survivor::look(&record, true, None).map_err(|e| failed(&e))? {
        Verdict::Gone(why) => Err(none(&why.to_string())),
        Verdict::Adopt | Verdict::Served | Verdict::Discard(_) => Ok(record),
    }
}

/// What it does, for the question.
#[must_use]
pub fn warning(record: &DeviceRecord, agent_runs: bool) -> String {
    let DeviceRecord { mirror, number, .. } = record;
    let mut text = format!(
        "{} (/dev/ublkb{number}) is stopped at once. Whatever uses it gets I/O errors: programs, and the\n\
         file system, which loses what was not synced. The data and the state of {mirror} on the disks\n\
         are not touched.\n",
        record.link.display()
    );
    if agent_runs {
        text +=
            &format!("Its agent runs; the way in good order is: clpmdctrl --deactive {mirror}\n");
    }
    text
}

/// Runs the command.
///
/// # Errors
/// There is no such device, nobody said yes, or the kernel refuses.
pub fn run(common: &Common, mirror: &str, yes: bool) -> Result<(), Failure> {
    let record = find(common, mirror)?;
    let agent_runs = record.server_runs();
    if !yes {
        confirm(mirror, &warning(&record, agent_runs))?;
    }
    survivor::give_up(&record).map_err(|e| failed(&e))?;
    let next = if agent_runs {
        format!("clpmdctrl --deactive {mirror}")
    } else {
        "systemctl start clusterpro_md (it clears the mount away)".to_owned()
    };
    let link = record.link.display();
    Ok(writeln!(io::stdout().lock(), "{link} was stopped.\nNext: {next}")?)
}

fn confirm(mirror: &str, warning: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        let what = format!("{warning}This is not a terminal: nothing was done.");
        return Err(Failure::new(MdCode::BadOptions, what)
            .next(format!("clpmdctrl --abandon {mirror} --yes")));
    }
    if confirmed(warning, &mut io::stdin().lock(), &mut io::stderr().lock())? {
        Ok(())
    } else {
        Err(Failure::new(MdCode::Failed, "Nothing was done."))
    }
}
