//! The device name: a symbolic link to a loop device.

use crate::host::error::HostError;
use crate::host::loops::LoopDevice;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// What is at the place of the device name.
enum Found {
    Nothing,
    /// A link as the carrier makes it.
    LinkTo(LoopDevice),
    Foreign(String),
}

fn look(link: &Path) -> Result<Found, HostError> {
    match fs::symlink_metadata(link) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(HostError::system(format!("device name {}", link.display()))(e)),
        Ok(meta) if !meta.is_symlink() => return Ok(Found::Foreign("not a symbolic link".into())),
        Ok(_) => {}
    }
    let target = fs::read_link(link)
        .map_err(HostError::system(format!("device name {}", link.display())))?;
    Ok(LoopDevice::from_path(&target)
        .map_or_else(|| Found::Foreign(format!("it leads to {}", target.display())), Found::LinkTo))
}

/// Whether the name is free, or a link that a carrier made and that leads to a loop device
/// without a file behind it.
///
/// # Errors
/// [`HostError::NameTaken`] in every other case.
pub(super) fn check_free(link: &Path) -> Result<(), HostError> {
    let taken = |detail: String| HostError::NameTaken { path: link.to_owned(), detail };
    match look(link)? {
        Found::Nothing => Ok(()),
        Found::LinkTo(device) => device.backing_file().map_or(Ok(()), |file| {
            let device = device.path();
            Err(taken(format!("it leads to {}, in use for {}", device.display(), file.display())))
        }),
        Found::Foreign(detail) => Err(taken(detail)),
    }
}

/// Points the name at `device`; whoever opens it meets the old link or the new one.
pub(super) fn point(link: &Path, device: LoopDevice) -> Result<(), HostError> {
    check_free(link)?;
    replace(link, &device.path())
}

/// Makes the name lead to `target`, whatever it was; whoever opens it meets the old or the new.
pub(super) fn replace(link: &Path, target: &Path) -> Result<(), HostError> {
    let make = || {
        let name = link.file_name().unwrap_or_default().to_string_lossy();
        let new = link.with_file_name(format!(".{name}.{}", std::process::id()));
        if let Err(e) = fs::remove_file(&new) {
            if e.kind() != io::ErrorKind::NotFound {
                return Err(e);
            }
        }
        symlink(target, &new)?;
        fs::rename(&new, link)
    };
    make().map_err(HostError::system(format!("device name {}", link.display())))
}

/// Takes the name away if it leads to `device`, or, with `None`, to no device in use. Says
/// whether it did.
pub(super) fn remove(link: &Path, device: Option<LoopDevice>) -> Result<bool, HostError> {
    let ours = match (look(link)?, device) {
        (Found::LinkTo(found), Some(device)) => found == device,
        (Found::LinkTo(found), None) => found.backing_file().is_none(),
        _ => false,
    };
    if ours {
        fs::remove_file(link)
            .map_err(HostError::system(format!("device name {}", link.display())))?;
    }
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of a loop device that is never in use.
    const FREE: LoopDevice = LoopDevice(999_999);

    #[test]
    fn a_name_is_made_replaced_and_removed() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let link = dir.path().join("NMP1");
        point(&link, LoopDevice(888_888)).expect("is free");
        point(&link, FREE).expect("the old one is dead");
        assert_eq!(fs::read_link(&link).expect("is a link"), FREE.path());
        assert!(!remove(&link, Some(LoopDevice(1))).expect("looks"), "leads elsewhere");
        assert!(remove(&link, Some(FREE)).expect("looks"));
        assert_eq!(fs::read_dir(dir.path()).expect("is a folder").count(), 0);
    }

    #[test]
    fn what_the_carrier_did_not_make_is_never_replaced() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = dir.path().join("NMP1");
        fs::write(&file, b"precious").expect("is written");
        let link = dir.path().join("NMP2");
        symlink("/dev/sda", &link).expect("is made");
        for name in [&file, &link] {
            let error = point(name, FREE).expect_err("is refused");
            assert!(matches!(error, HostError::NameTaken { .. }), "{error}");
            assert!(!remove(name, None).expect("looks"));
        }
        assert_eq!(fs::read(&file).expect("is there"), b"precious");
        assert_eq!(fs::read_link(&link).expect("is there"), Path::new("/dev/sda"));
    }
}
