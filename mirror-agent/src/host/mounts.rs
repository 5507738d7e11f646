//! The kernel's table of mounts, as this process sees it.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Number of a block device or of an anonymous file system.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DevNo {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
}

impl DevNo {
    /// From the number in `stat`.
    #[must_use]
    pub fn from_stat(dev: u64) -> Self {
        Self { major: nix::sys::stat::major(dev), minor: nix::sys::stat::minor(dev) }
    }

    /// From `major:minor` in decimal.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for DevNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Id of the mount.
    pub id: u32,
    /// Device that holds the file system.
    pub dev: DevNo,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Type of the file system, such as `ext4` or `fuse.nbdfuse`.
    pub kind: String,
    /// What was mounted: a device, or a name that the file system chose.
    pub source: OsString,
}

/// The mounts of this process, in the order in which they cover each other.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn current() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Decodes a mountinfo table; lines that do not follow its format are left out.
#[must_use]
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let dev = DevNo::parse(std::str::from_utf8(fields.nth(1)?).ok()?)?;
    let point = PathBuf::from(unescape(fields.nth(1)?));
    // Any number of optional fields lies between the mount options and the dash.
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(rest.next()?).into_owned();
    let source = unescape(rest.next()?);
    Some(Mount { id, dev, point, kind, source })
}

/// Undoes the octal escapes (`\040` for a blank).
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = |d: u8| (b'0'..=b'7').contains(&d).then(|| u16::from(d - b'0'));
        let code = match rest {
            [b'\\', a, b, c, ..] => octal(*a).zip(octal(*b)).zip(octal(*c)),
            _ => None,
        };
        let code = code.and_then(|((a, b), c)| u8::try_from(a * 64 + b * 8 + c).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &rest[4..] } else { tail };
    }
    OsString::from_vec(bytes)
}

/// The uppermost mount on exactly this path.
#[must_use]
pub fn at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    mounts.iter().rfind(|m| m.point == point)
}

/// Whether no other mount covers this one, so that `umount` of its path takes this one.
#[must_use]
pub fn is_uppermost(mounts: &[Mount], mount: &Mount) -> bool {
    at(mounts, &mount.point).is_some_and(|top| top.id == mount.id)
}

/// Mounts of a device, uppermost last. `names` are the paths under which it may have been
/// mounted: a file system such as btrfs shows a number of its own.
#[must_use]
pub fn of_device<'a>(mounts: &'a [Mount], dev: DevNo, names: &[&Path]) -> Vec<&'a Mount> {
    let is_it = |m: &&Mount| m.dev == dev || names.iter().any(|n| n.as_os_str() == m.source);
    mounts.iter().filter(is_it).collect()
}

/// Mounts below a path, uppermost last, the path itself excluded.
#[must_use]
pub fn below<'a>(mounts: &'a [Mount], point: &Path) -> Vec<&'a Mount> {
    mounts.iter().filter(|m| m.point != point && m.point.starts_with(point)).collect()
}

/// Processes whose mount namespaces, other than this process's own, hold a mount of the device;
/// one for each namespace. Such a copy keeps the device in use after the mount here is gone.
#[must_use]
pub fn other_namespaces_with(dev: DevNo) -> Vec<i32> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let mut seen: Vec<_> = namespace("self").into_iter().collect();
    let mut found = Vec::new();
    for pid in super::holders::processes() {
        let Some(ns) = namespace(&pid.to_string()) else { continue };
        if seen.contains(&ns) {
            continue;
        }
        seen.push(ns);
        let table = std::fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        if parse(&table).iter().any(|m| m.dev == dev) {
            found.push(pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &[u8] = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
41 22 7:3 / /mnt/my\\040disk rw master:2 propagate_from:3 - ext4 /dev/loop3 rw\n\
nonsense\n\
42 22 0:44 / /run/x rw - fuse.nbdfuse clpmd-md1 rw,user_id=0\n\
43 41 7:4 / /mnt/my\\040disk/sub rw - xfs /dev/loop4 rw\n\
44 22 7:5 / /mnt/my\\040disk rw - xfs /dev/NMP2 rw\n";

    #[test]
    fn a_table_is_read_with_optional_fields_and_escapes() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.iter().map(|m| m.id).collect::<Vec<_>>(), [22, 41, 42, 43, 44]);
        assert_eq!(mounts[1].point, Path::new("/mnt/my disk"));
        assert_eq!(mounts[1].dev, DevNo { major: 7, minor: 3 });
        assert_eq!(
            (mounts[2].kind.as_str(), &mounts[2].source),
            ("fuse.nbdfuse", &"clpmd-md1".into())
        );
    }

    #[test]
    fn the_uppermost_mount_wins_and_names_count_as_the_device() {
        let mounts = parse(TABLE);
        assert_eq!(at(&mounts, Path::new("/mnt/my disk")).map(|m| m.id), Some(44));
        let dev = DevNo { major: 7, minor: 99 };
        let ids: Vec<_> =
            of_device(&mounts, dev, &[Path::new("/dev/NMP2")]).iter().map(|m| m.id).collect();
        assert_eq!(ids, [44]);
        let ids: Vec<_> = below(&mounts, Path::new("/mnt/my disk")).iter().map(|m| m.id).collect();
        assert_eq!(ids, [43]);
    }

    #[test]
    fn our_own_table_has_a_root() {
        let mounts = current().expect("proc is mounted");
        assert!(at(&mounts, Path::new("/")).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(table in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&table);
        }

        #[test]
        fn an_escaped_name_comes_back(name in proptest::collection::vec(1_u8..=255, 1..40)) {
            let mut field = Vec::new();
            for b in &name {
                match b {
                    b' ' | b'\t' | b'\n' | b'\\' => field.extend(format!("\\{b:03o}").bytes()),
                    _ => field.push(*b),
                }
            }
            prop_assert_eq!(unescape(&field).into_vec(), name);
        }
    }
}
