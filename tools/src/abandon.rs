//! `clpmdctrl --abandon`: gives up a device without the agent.

use crate::cli::Common;
use crate::clpmdctrl::confirmed;
use crate::out::Failure;
use mirror_agent::config::{AgentConfig, Config};
use mirror_agent::host::HostError;
use mirror_agent::host::nbd_devices::{self, Found, Identity, device_path};
use mirror_agent::host::survivor::{self, DeviceRecord, Verdict};
use mirror_agent::lock::{Lock, Role};
use mirror_agent::messages::MdCode;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

fn failed(e: &HostError) -> Failure {
    Failure::new(MdCode::Internal, e.to_string())
}

/// What an agent of this server has made for a mirror.
#[derive(Debug)]
enum Kind {
    Ublk(DeviceRecord),
    /// More than one only after an activation that was interrupted.
    Nbd(Vec<(Found, Identity)>),
}

/// A device that can be given up.
#[derive(Debug)]
struct Device {
    link: PathBuf,
    node: PathBuf,
    agent_runs: bool,
    kind: Kind,
}

impl Device {
    fn give_up(&self) -> Result<(), Failure> {
        match &self.kind {
            Kind::Ublk(record) => survivor::give_up(record).map_err(|e| failed(&e)),
            Kind::Nbd(all) => all.iter().try_for_each(|(device, _)| {
                nbd_devices::give_up(device).map_err(|e| {
                    let node = device_path(device.number);
                    Failure::new(MdCode::Internal, format!("{}: {e}", node.display()))
                })
            }),
        }
    }
}

/// Finds the device of `mirror` that an agent of this server has made.
fn find(common: &Common, mirror: &str) -> Result<Device, Failure> {
    let config = Config::load_anywhere(&common.file())?;
    if let Some(device) = find_nbd(&config.agent, mirror)? {
        return Ok(device);
    }
    let record = DeviceRecord::load(&config.agent.run_dir, mirror).map_err(|e| failed(&e))?;
    let none = |why: &str| {
        Failure::new(MdCode::NotMounted, format!("{mirror} has no device to give up here: {why}"))
    };
    let Some(record) = record else { return Err(none("no agent has left one on record")) };
    match survivor::look(&record, true, None).map_err(|e| failed(&e))? {
        Verdict::Gone(why) => Err(none(&why.to_string())),
        Verdict::Adopt | Verdict::Served | Verdict::Discard(_) => Ok(Device {
            link: record.link.clone(),
            node: format!("/dev/ublkb{}", record.number).into(),
            agent_runs: record.server_runs(),
            kind: Kind::Ublk(record),
        }),
    }
}

fn find_nbd(agent: &AgentConfig, mirror: &str) -> Result<Option<Device>, Failure> {
    let failed = |e: io::Error| Failure::new(MdCode::Internal, format!("nbd: {e}"));
    let all = nbd_devices::of_mirror(&agent.run_dir, mirror).map_err(failed)?;
    let Some((first, of)) = all.first() else { return Ok(None) };
    Ok(Some(Device {
        link: agent.device_dir.join(format!("NMP{}", of.nmp)),
        node: device_path(first.number),
        agent_runs: Lock::is_held(&agent.run_dir, Role::Agent).map_err(failed)?,
        kind: Kind::Nbd(all),
    }))
}

/// What it does, for the question.
fn warning(mirror: &str, device: &Device) -> String {
    let mut text = format!(
        "{} ({}) is stopped at once. Whatever uses it gets I/O errors: programs, and the\n\
         file system, which loses what was not synced. The data and the state of {mirror} on the disks\n\
         are not touched.\n",
        device.link.display(),
        device.node.display()
    );
    if device.agent_runs {
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
    let device = find(common, mirror)?;
    if !yes {
        confirm(mirror, &warning(mirror, &device))?;
    }
    device.give_up()?;
    let next = if device.agent_runs {
        format!("clpmdctrl --deactive {mirror}")
    } else {
        "systemctl start clusterpro_md (it clears the mount away)".to_owned()
    };
    let link = device.link.display();
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
