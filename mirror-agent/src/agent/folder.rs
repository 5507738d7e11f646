//! The folder of the control socket: who may pass it. The agent changes its own folder only, never
//! one that was there for others (`run_dir = "/run"`).

use crate::config::{AgentConfig, RUN_DIR};
use crate::ctl::Access;
use nix::unistd::{Gid, geteuid};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

/// The mode of a folder that a group may pass.
const PASSABLE: u32 = 0o710;
const CLOSED: u32 = 0o700;

/// Who may use the control socket: members of the group need a way through its folder, which they
/// cannot read. `made`: the agent has just made its run folder.
pub(super) fn prepare(agent: &AgentConfig, made: bool) -> Result<Access, String> {
    let access = Access::of(agent.control_group.as_deref())?;
    let folder = agent.socket.parent().unwrap_or(&agent.run_dir);
    let own = folder == agent.run_dir && (made || folder == Path::new(RUN_DIR));
    let failed = |e: io::Error| format!("{}: {e}", folder.display());
    match access {
        Access::Owner if own => close(folder).map_err(failed)?,
        Access::Owner => {}
        Access::Group(group) if own => open(folder, group).map_err(failed)?,
        Access::Group(group) => {
            if !lets_pass(folder, group).map_err(failed)? {
                let group = agent.control_group.as_deref().unwrap_or_default();
                let at = folder.display();
                return Err(format!(
                    "[agent]: control_group = {group:?}: the group has no way through {at}, which the agent has not made and does not change; give it one: chgrp {group} {at} && chmod {PASSABLE:o} {at}"
                ));
            }
        }
    }
    Ok(access)
}

fn open(folder: &Path, group: Gid) -> io::Result<()> {
    is_ours(folder)?;
    chown(folder, None, Some(group.as_raw()))?;
    fs::set_permissions(folder, Permissions::from_mode(PASSABLE))
}

/// Takes back what [`open`] gave at an earlier start; any other mode is somebody's choice.
fn close(folder: &Path) -> io::Result<()> {
    if fs::metadata(folder)?.mode() & 0o7777 == PASSABLE {
        is_ours(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(CLOSED))?;
    }
    Ok(())
}

/// A link under the agent's name leads to a folder that is not its own.
fn is_ours(folder: &Path) -> io::Result<()> {
    let m = fs::symlink_metadata(folder)?;
    if m.is_dir() && m.uid() == geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::other("it is not a folder of the agent's own user"))
}

/// To members of the folder's group only the group's bits apply, even if all others may pass.
fn lets_pass(folder: &Path, group: Gid) -> io::Result<bool> {
    let m = fs::metadata(folder)?;
    let needed = if m.gid() == group.as_raw() { 0o010 } else { 0o001 };
    Ok(m.mode() & needed != 0)
}

#[cfg(test)]
mod tests {
    use super::prepare;
    use crate::config::{AgentConfig, Config};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    /// With the group of this process, which it may give to its files.
    fn agent(run_dir: &Path, group: bool) -> AgentConfig {
        let name = nix::unistd::Group::from_gid(nix::unistd::getegid());
        let name = name.expect("groups").expect("a name").name;
        let line = if group { format!("control_group = {name:?}\n") } else { String::new() };
        let text = format!(
            "[[server]]\nname = \"a\"\nmirror_connect = [\"127.0.0.1\"]\n\
             [[server]]\nname = \"b\"\nmirror_connect = [\"127.0.0.2\"]\n\
             [agent]\nrun_dir = {run_dir:?}\n{line}\
             [[mirror]]\nname = \"md1\"\nfs = \"none\"\ndata_partition = \"/d1\"\n\
             cluster_partition = \"/c1\"\n"
        );
        Config::parse(Path::new("x.toml"), &text, Some("a"), "").expect("configuration").agent
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o7777
    }

    #[test]
    fn its_own_folder_is_opened_and_closed_again() {
        let dir = tempfile::tempdir().expect("folder");
        let run = dir.path().join("run");
        fs::create_dir(&run).expect("made");
        prepare(&agent(&run, true), true).expect("opened");
        assert_eq!(mode(&run), 0o710);
        // At the next start it is there already, and as it must be.
        prepare(&agent(&run, true), false).expect("open");
        prepare(&agent(&run, false), true).expect("closed");
        assert_eq!(mode(&run), 0o700);
    }

    /// Such as /run or somebody's home folder.
    #[test]
    fn a_folder_of_others_is_never_changed() {
        let dir = tempfile::tempdir().expect("folder");
        for (set, passable) in [
            (0o755, true),
            (0o1777, true),
            (0o711, true),
            (0o750, true),
            (0o700, false),
            (0o701, false),
        ] {
            fs::set_permissions(dir.path(), Permissions::from_mode(set)).expect("set");
            match prepare(&agent(dir.path(), true), false) {
                Ok(_) => assert!(passable, "{set:o}"),
                Err(what) => {
                    assert!(!passable, "{set:o}: {what}");
                    assert!(what.contains("no way through"), "{what}");
                    assert!(what.contains("&& chmod 710 "), "{what}");
                }
            }
            prepare(&agent(dir.path(), false), false).expect("nothing to do");
            assert_eq!(mode(dir.path()), set);
        }
        fs::set_permissions(dir.path(), Permissions::from_mode(0o710)).expect("set");
        prepare(&agent(dir.path(), false), false).expect("nothing to do");
        assert_eq!(mode(dir.path()), 0o710);
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().expect("folder");
        let (theirs, run) = (dir.path().join("theirs"), dir.path().join("run"));
        fs::create_dir(&theirs).expect("made");
        fs::set_permissions(&theirs, Permissions::from_mode(0o700)).expect("set");
        std::os::unix::fs::symlink(&theirs, &run).expect("linked");
        assert!(prepare(&agent(&run, true), true).is_err());
        assert_eq!(mode(&theirs), 0o700);
    }
}
