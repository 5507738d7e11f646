//! Who may use the control socket. Its mode keeps others out already; who comes in all the same,
//! through a descriptor that was handed on or a mode that somebody changed, is looked at again.

#![allow(unsafe_code)]

use nix::libc;
use nix::unistd::{Gid, Group, geteuid};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use tokio::net::UnixStream;

/// Groups of a process for which there is room at once; those of one with more are asked again.
const GROUPS: usize = 64;

/// Who may give commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Root and the agent's own user.
    Owner,
    /// The members of this group, too.
    Group(Gid),
}

impl Access {
    /// What the setting `control_group` means on this host.
    ///
    /// # Errors
    /// There is no such group; for the operator.
    pub fn of(group: Option<&str>) -> Result<Self, String> {
        let Some(name) = group else { return Ok(Self::Owner) };
        let failed = |what: String| format!("[agent]: control_group = {name:?}: {what}");
        match Group::from_name(name) {
            Ok(Some(group)) => Ok(Self::Group(group.gid)),
            Ok(None) => Err(failed(format!(
                "there is no such group; make it with: groupadd --system {name}"
            ))),
            Err(e) => Err(failed(format!("cannot be looked up: {e}"))),
        }
    }

    /// Gives the socket at `path` its group and mode.
    pub(super) fn set_on(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Owner => fs::set_permissions(path, Permissions::from_mode(0o600)),
            Self::Group(group) => {
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
                chown(path, None, Some(group.as_raw()))?;
                fs::set_permissions(path, Permissions::from_mode(0o660))
            }
        }
    }

    /// Whether whoever made this connection may; if not, who it is.
    pub(super) fn check(self, stream: &UnixStream) -> Result<(), String> {
        let peer = stream.peer_cred().map_err(|e| format!("an unknown user ({e})"))?;
        let groups = match self {
            Self::Owner => Vec::new(),
            Self::Group(_) => groups_of(stream.as_fd()).unwrap_or_default(),
        };
        match self.allows(peer.uid(), peer.gid(), &groups) {
            true => Ok(()),
            false => Err(format!("user {}", peer.uid())),
        }
    }

    fn allows(self, user: u32, group: u32, groups: &[u32]) -> bool {
        let owner = user == 0 || user == geteuid().as_raw();
        let member = match self {
            Self::Owner => false,
            Self::Group(g) => group == g.as_raw() || groups.contains(&g.as_raw()),
        };
        owner || member
    }
}

/// The further groups of the process that made the connection, as they were then.
fn groups_of(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; GROUPS];
    match peer_groups(socket, &mut groups) {
        Err(e) if e.raw_os_error() == Some(libc::ERANGE) => peer_groups(socket, &mut groups)?,
        result => result?,
    }
    Ok(groups)
}

/// Fills `groups` and gives it the length that was or is needed.
fn peer_groups(socket: BorrowedFd<'_>, groups: &mut Vec<u32>) -> io::Result<()> {
    let size = size_of::<u32>();
    let mut len = libc::socklen_t::try_from(groups.len() * size).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `len` bytes into `groups`, which has them, and into `len`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    let error = io::Error::last_os_error();
    groups.resize(len as usize / size, 0);
    if result == 0 { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_owner_and_members_may() {
        let own = geteuid().as_raw();
        let group = Access::Group(Gid::from_raw(700));
        for (access, user, first, others, may) in [
            (Access::Owner, 0, 0, &[][..], true),
            (Access::Owner, own, 5, &[], true),
            (Access::Owner, 1234, 700, &[700], false),
            (group, 0, 0, &[], true),
            (group, 1234, 700, &[], true),
            (group, 1234, 5, &[6, 700, 7], true),
            (group, 1234, 5, &[6, 70, 7], false),
            (group, 700, 0, &[0], false),
        ] {
            assert_eq!(
                access.allows(user, first, others),
                may,
                "{access:?} {user} {first} {others:?}"
            );
        }
    }

    #[tokio::test]
    async fn the_groups_of_a_peer_are_the_kernels_word() {
        let (here, _there) = UnixStream::pair().expect("a pair");
        let mut own: Vec<u32> =
            nix::unistd::getgroups().expect("groups").iter().map(|g| g.as_raw()).collect();
        let mut groups = groups_of(here.as_fd()).expect("groups");
        own.sort_unstable();
        groups.sort_unstable();
        assert_eq!(groups, own);
        let mut none = Vec::new();
        if !own.is_empty() {
            let short = peer_groups(here.as_fd(), &mut none).expect_err("no room");
            assert_eq!(short.raw_os_error(), Some(libc::ERANGE));
            assert_eq!(none.len(), own.len(), "the length that is needed");
        }
        assert_eq!(Access::Owner.check(&here), Ok(()));
    }

    #[test]
    fn a_group_must_be_there() {
        assert_eq!(Access::of(None), Ok(Access::Owner));
        assert_eq!(Access::of(Some("root")), Ok(Access::Group(Gid::from_raw(0))));
        let none = Access::of(Some("no-such-group-here")).expect_err("not there");
        assert!(none.ends_with("groupadd --system no-such-group-here"), "{none}");
    }

    #[test]
    fn a_group_gets_the_socket_and_nobody_else() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("s");
        let mode = |access: Access| {
            fs::write(&path, "").expect("file");
            access.set_on(&path).expect("set");
            fs::metadata(&path).expect("there").permissions().mode() & 0o7777
        };
        assert_eq!(mode(Access::Owner), 0o600);
        assert_eq!(mode(Access::Group(nix::unistd::getegid())), 0o660);
    }
}
