//! Makes, checks, mounts and unmounts the file system of a mirror.

use super::command::{Cmd, CommandError, Exit, Runner};
use super::error::HostError;
use super::fsck::{self, FsckResult, FsckTiming};
use super::fsevent::{FsEvent, Listener, number};
use super::holders;
use super::mounts::{self, DevNo, Mount};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use tokio::time::sleep;

/// Type of the file system on a mirror.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FsKind {
    /// ext2.
    Ext2,
    /// ext3.
    Ext3,
    /// ext4 (default).
    #[default]
    Ext4,
    /// xfs.
    Xfs,
    /// None: nothing is made, checked or mounted; applications use the device itself.
    None,
}

impl FsKind {
    /// Its name in the configuration and for `mount -t`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::None => "none",
        }
    }

    const fn is_ext(self) -> bool {
        matches!(self, Self::Ext2 | Self::Ext3 | Self::Ext4)
    }
}

impl FromStr for FsKind {
    type Err = HostError;
    fn from_str(name: &str) -> Result<Self, HostError> {
        let all = [Self::Ext2, Self::Ext3, Self::Ext4, Self::Xfs, Self::None];
        let found = all.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| HostError::Invalid(format!("file system {name:?}")))
    }
}

/// What to do with a file system that stays busy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UmountAction {
    /// End the processes that use it, then unmount (default).
    #[default]
    Kill,
    /// Give up and name them.
    None,
}

/// How the file system of a mirror is treated. Options are lists of arguments: no shell reads
/// them.
#[derive(Clone, Debug)]
pub struct FsConfig {
    /// Type. Default: ext4.
    pub kind: FsKind,
    /// Mount point, an absolute path; made if it is not there.
    pub mount_point: PathBuf,
    /// Options for `mount -o`. Default: `rw`.
    pub mount_options: String,
    /// Limit of one `mount`. Range 1-999 s, default 120 s.
    pub mount_timeout: Duration,
    /// Further attempts to mount. Range 0-999, default 3.
    pub mount_retries: u32,
    /// Check an ext file system that cannot be mounted, and try again. Default: true.
    pub fsck_on_mount_failure: bool,
    /// Limit of one `umount`. Range 1-999 s, default 300 s.
    pub umount_timeout: Duration,
    /// Further attempts to unmount, before `umount_action`. Range 0-999, default 3.
    pub umount_retries: u32,
    /// Pause between attempts to unmount. Range 0-999 s, default 5 s.
    pub umount_interval: Duration,
    /// What to do when it stays busy. Default: kill.
    pub umount_action: UmountAction,
    /// Options of `e2fsck`. Default: `-y`.
    pub fsck_options: Vec<String>,
    /// Limit of one check. Range 1-9999 s, default 7200 s.
    pub fsck_timeout: Duration,
    /// When an ext file system is checked. Default: every 10th activation.
    pub fsck_timing: FsckTiming,
    /// Options of `xfs_repair`. Default: none.
    pub xfs_repair_options: Vec<String>,
    /// Limit of one `xfs_repair`. Range 1-9999 s, default 7200 s.
    pub xfs_repair_timeout: Duration,
    /// Repair an xfs file system that cannot be mounted, and try again. Default: false.
    pub xfs_repair_on_mount_failure: bool,
    /// Options of `mkfs`. Default: none.
    pub mkfs_options: Vec<String>,
    /// Limit of `mkfs`. Range 1-9999 s, default 7200 s.
    pub mkfs_timeout: Duration,
    /// File that counts the activations between two checks.
    pub fsck_counter: PathBuf,
}

impl FsConfig {
    /// The defaults for a mirror that is mounted on `mount_point` and counts its activations in
    /// `fsck_counter`.
    #[must_use]
    pub fn new(mount_point: impl Into<PathBuf>, fsck_counter: impl Into<PathBuf>) -> Self {
        Self {
            kind: FsKind::default(),
            mount_point: mount_point.into(),
            mount_options: "rw".into(),
            mount_timeout: Duration::from_secs(120),
            mount_retries: 3,
            fsck_on_mount_failure: true,
            umount_timeout: Duration::from_secs(300),
            umount_retries: 3,
            umount_interval: Duration::from_secs(5),
            umount_action: UmountAction::default(),
            fsck_options: vec!["-y".into()],
            fsck_timeout: Duration::from_secs(7200),
            fsck_timing: FsckTiming::default(),
            xfs_repair_options: Vec::new(),
            xfs_repair_timeout: Duration::from_secs(7200),
            xfs_repair_on_mount_failure: false,
            mkfs_options: Vec::new(),
            mkfs_timeout: Duration::from_secs(7200),
            fsck_counter: fsck_counter.into(),
        }
    }
}

/// Pause before another attempt to mount.
const MOUNT_PAUSE: Duration = Duration::from_millis(500);

/// Time that processes have to end after SIGTERM.
const KILL_GRACE: Duration = Duration::from_secs(3);

/// Limit of the look for signatures on the device.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// The file system of one mirror.
#[derive(Clone, Debug)]
pub struct FileSystem {
    config: FsConfig,
    runner: Runner,
    listener: Listener,
}

impl FileSystem {
    /// The file system that `config` describes, worked on with the commands of `runner`.
    #[must_use]
    pub fn new(config: FsConfig, runner: Runner) -> Self {
        Self { config, runner, listener: Listener::default() }
    }

    /// The same, with somebody who is told what happens.
    #[must_use]
    pub fn told_to(self, listener: impl Fn(FsEvent) + Send + Sync + 'static) -> Self {
        Self { listener: Listener::new(listener), ..self }
    }

    /// Makes a new file system on `device`, if there is none and no partition table either.
    ///
    /// # Errors
    /// [`HostError::NotEmpty`] if anything is found; 83 and 89 for the commands.
    pub async fn make(&self, device: &Path) -> Result<(), HostError> {
        if self.config.kind == FsKind::None {
            return Err(HostError::Invalid("mkfs with fs = none".into()));
        }
        if let Some(found) = self.probe(device).await? {
            return Err(HostError::NotEmpty { device: device.to_owned(), found });
        }
        let program = format!("mkfs.{}", self.config.kind.name());
        let command = self.runner.command(&program, self.config.mkfs_timeout);
        command.args(&self.config.mkfs_options).arg(device).run_ok().await?;
        Ok(())
    }

    /// Whether nothing at all is found on the device.
    ///
    /// # Errors
    /// It could not be looked for.
    pub async fn is_blank(&self, device: &Path) -> Result<bool, HostError> {
        Ok(self.probe(device).await?.is_none())
    }

    /// A device that cannot be mounted or checked may simply have no such file system.
    async fn explained(&self, device: &Path, error: HostError) -> HostError {
        // e2fsck says 8 of a device without a superblock, and of one that it cannot work on.
        if !matches!(error, HostError::Command(_) | HostError::Fsck { code: 8, .. }) {
            return error;
        }
        let kind = self.config.kind.name();
        match self.probe(device).await {
            Ok(Some(found)) if found.starts_with(kind) => error,
            Ok(Some(found)) if self.config.kind.is_ext() && found.starts_with("ext") => error,
            Ok(found) => HostError::NoFileSystem { device: device.to_owned(), kind, found },
            Err(_) => error,
        }
    }

    /// What is on the device; `None` only if that was looked for and nothing was found.
    async fn probe(&self, device: &Path) -> Result<Option<String>, HostError> {
        let command = self.runner.command("blkid", PROBE_LIMIT).args(["-p", "-o", "export"]);
        let command = command.arg(device);
        let line = command.line();
        let output = command.run().await?;
        // 2 stands for "nothing found" and for "cannot be opened"; only the latter says why.
        match output.exit {
            Exit::Code(0) => Ok(Some(describe(&output.stdout))),
            Exit::Code(2) if output.stderr.trim().is_empty() => Ok(None),
            Exit::Code(8) => Ok(Some("signatures that contradict each other".into())),
            exit => {
                let detail = output.last_line().to_owned();
                Err(CommandError::Failed { command: line, exit, detail }.into())
            }
        }
    }

    /// Counts an activation and checks the file system if it is due at this one; `started` is
    /// called before the check. `None` = it was not due. To be called once for each activation.
    ///
    /// # Errors
    /// [`HostError::Fsck`] if errors are left; 83 and 89 for the command.
    pub async fn check_if_due(
        &self,
        device: &Path,
        started: impl FnOnce(),
    ) -> Result<Option<FsckResult>, HostError> {
        if !self.config.kind.is_ext() {
            return Ok(None); // xfs is checked on a failed mount only
        }
        let due = fsck::due(self.config.fsck_timing, &self.config.fsck_counter)
            .map_err(HostError::system("fsck counter"))?;
        if !due {
            return Ok(None);
        }
        started();
        self.check(device).await.map(Some)
    }

    async fn check(&self, device: &Path) -> Result<FsckResult, HostError> {
        let (runner, c) = (&self.runner, &self.config);
        let result = if c.kind == FsKind::Xfs {
            fsck::xfs_repair(runner, device, &c.xfs_repair_options, c.xfs_repair_timeout).await
        } else {
            fsck::e2fsck(runner, device, &c.fsck_options, c.fsck_timeout).await
        };
        match result {
            Ok(result) => Ok(result),
            Err(error) => {
                self.tell_failed_check(&error);
                Err(self.explained(device, error).await)
            }
        }
    }

    /// The checking program and its options, in words.
    fn check_command(&self) -> (&'static str, &[String]) {
        match self.config.kind {
            FsKind::Xfs => ("xfs_repair", &self.config.xfs_repair_options),
            _ => ("fsck", &self.config.fsck_options),
        }
    }

    fn tell_failed_check(&self, error: &HostError) {
        let (program, options) = self.check_command();
        match error {
            HostError::Timeout { .. } => self.listener.tell(FsEvent::CheckTimeout),
            HostError::Fsck { code, .. } => {
                self.listener.tell(FsEvent::Failed(program, code.to_string()));
                let yes = options.iter().any(|o| o == "-y");
                match (self.config.kind, code) {
                    (FsKind::Xfs, 2) => self.listener.tell(FsEvent::Needed(program, "-L")),
                    (FsKind::Xfs, _) => {}
                    (_, 4) if !yes => self.listener.tell(FsEvent::Needed(program, "-y")),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Mounts `device`. If that fails, the file system is checked (as configured) and mounted
    /// again. Does nothing for [`FsKind::None`].
    ///
    /// # Errors
    /// 80 if something is mounted there, 87 if the mount point cannot be made, 83 and 89 for the
    /// commands.
    pub async fn mount(&self, device: &Path) -> Result<(), HostError> {
        if self.config.kind == FsKind::None {
            return Ok(());
        }
        let point = self.prepare_mount_point()?;
        match self.mount_with_retries(device, &point).await {
            Err(HostError::Command(why)) if self.checks_on_failure() => {
                tracing::warn!(device = %device.display(), %why, "checking before another mount");
                let (program, options) = self.check_command();
                self.listener.tell(FsEvent::CheckStarted(program, options.join(" ")));
                self.check(device).await?;
                self.listener.tell(FsEvent::CheckDone);
                self.mount_with_retries(device, &point).await
            }
            Err(error) => Err(self.explained(device, error).await),
            Ok(()) => Ok(()),
        }
    }

    fn checks_on_failure(&self) -> bool {
        match self.config.kind {
            FsKind::Xfs => self.config.xfs_repair_on_mount_failure,
            FsKind::None => false,
            _ => self.config.fsck_on_mount_failure,
        }
    }

    fn prepare_mount_point(&self) -> Result<PathBuf, HostError> {
        let path = &self.config.mount_point;
        if !path.is_absolute() {
            return Err(HostError::Invalid(format!("mount point {}", path.display())));
        }
        // Looked up by name first: a dead file system on it would answer with an error.
        if mounted_at(path)?.is_some() {
            return Err(HostError::AlreadyMounted(path.clone()));
        }
        let fail = |source| HostError::MountPoint { path: path.clone(), source };
        fs::create_dir_all(path).map_err(fail)?;
        let real = fs::canonicalize(path).map_err(fail)?;
        if mounted_at(&real)?.is_some() {
            return Err(HostError::AlreadyMounted(path.clone()));
        }
        Ok(real)
    }

    async fn mount_with_retries(&self, device: &Path, point: &Path) -> Result<(), HostError> {
        let mut exit = None;
        let mut result = self.mount_once(device, point, &mut exit).await;
        for _ in 0..self.config.mount_retries {
            if result.is_ok() {
                break;
            }
            sleep(MOUNT_PAUSE).await;
            result = self.mount_once(device, point, &mut exit).await;
        }
        if let (Err(HostError::Command(_)), Some(exit)) = (&result, exit) {
            self.listener.tell(FsEvent::Failed("mount", number(exit)));
        }
        result
    }

    async fn mount_once(
        &self,
        device: &Path,
        point: &Path,
        exit: &mut Option<Exit>,
    ) -> Result<(), HostError> {
        // An attempt that was given up may have come through in the kernel since.
        if mounted_at(point)?.is_some_and(|m| is_of(&m, device)) {
            return Ok(());
        }
        let mut command = self.runner.command("mount", self.config.mount_timeout);
        command = command.args(["-t", self.config.kind.name()]);
        if !self.config.mount_options.is_empty() {
            command = command.arg("-o").arg(&self.config.mount_options);
        }
        run_noting(command.arg(device).arg(point), exit).await?;
        match mounted_at(point)? {
            Some(_) => Ok(()),
            None => Err(HostError::Command("mount: the kernel lists no such mount".into())),
        }
    }

    /// Whether `device` is what is mounted on the mount point.
    ///
    /// # Errors
    /// When the mount table cannot be read.
    pub fn is_mounted(&self, device: &Path) -> Result<bool, HostError> {
        Ok(mounted_at(&self.real_point())?.is_some_and(|m| is_of(&m, device)))
    }

    fn real_point(&self) -> PathBuf {
        fs::canonicalize(&self.config.mount_point).unwrap_or(self.config.mount_point.clone())
    }

    /// Unmounts `device` from the mount point. While it is busy, it is tried again; then the
    /// processes that use it are ended, or named, as configured. Does nothing for
    /// [`FsKind::None`].
    ///
    /// # Errors
    /// 84 if it is not mounted there, [`HostError::Busy`] if it stays busy, 83 if `umount` hangs.
    pub async fn umount(&self, device: &Path) -> Result<(), HostError> {
        if self.config.kind == FsKind::None {
            return Ok(());
        }
        let mount = mounted_at(&self.real_point())?.filter(|m| is_of(m, device));
        let mount = mount.ok_or_else(|| HostError::NotMounted(self.config.mount_point.clone()))?;
        self.umount_mount(&mount).await
    }

    /// Unmounts `device` from wherever it is mounted, by hand too and whatever the configured
    /// type, in the way of [`Self::umount`]. Returns the places; none is no error.
    ///
    /// # Errors
    /// [`HostError::Busy`] if one stays busy, 83 if `umount` hangs.
    pub async fn umount_everywhere(&self, device: &Path) -> Result<Vec<PathBuf>, HostError> {
        let mounts = mounts::current().map_err(HostError::system("mount table"))?;
        let ours: Vec<_> = mounts.into_iter().rev().filter(|m| is_of(m, device)).collect();
        for mount in &ours {
            self.umount_mount(mount).await?;
        }
        Ok(ours.into_iter().map(|m| m.point).collect())
    }

    async fn umount_mount(&self, mount: &Mount) -> Result<(), HostError> {
        let result = match self.umount_with_retries(mount).await {
            Err(error @ (HostError::Command(_) | HostError::Timeout { .. })) => {
                self.umount_busy(mount, error).await
            }
            result => result,
        };
        if let Err(error) = &result {
            self.tell_failed_umount(error);
        }
        result
    }

    async fn umount_with_retries(&self, mount: &Mount) -> Result<(), HostError> {
        let mut result = self.umount_once(mount).await;
        for _ in 0..self.config.umount_retries {
            if result.is_ok() {
                break;
            }
            sleep(self.config.umount_interval).await;
            result = self.umount_once(mount).await;
        }
        result
    }

    fn tell_failed_umount(&self, error: &HostError) {
        match error {
            HostError::Timeout { .. } => self.listener.tell(FsEvent::UmountTimeout),
            HostError::Busy { .. } => {
                // umount has one code for everything that the system refuses.
                self.listener.tell(FsEvent::Failed("umount", "32".to_owned()));
            }
            _ => {}
        }
    }

    async fn umount_once(&self, mount: &Mount) -> Result<(), HostError> {
        let mounts = mounts::current().map_err(HostError::system("mount table"))?;
        if !mounts.iter().any(|m| m.id == mount.id && m.point == mount.point) {
            return Ok(()); // the attempt before came through after all
        }
        if !mounts::is_uppermost(&mounts, mount) {
            let detail = "covered by another mount".to_owned();
            return Err(busy(mount, detail)); // umount takes the uppermost one, which is not ours
        }
        let command = self.runner.command("umount", self.config.umount_timeout);
        command.arg(&mount.point).run_ok().await?;
        Ok(())
    }

    async fn umount_busy(&self, mount: &Mount, why: HostError) -> Result<(), HostError> {
        if self.config.umount_action == UmountAction::Kill {
            let ended = holders::end(mount.dev, KILL_GRACE).await;
            tracing::warn!(point = %mount.point.display(), count = ended.len(), "ended what used it");
            self.umount_below(&mount.point).await;
            return match self.umount_once(mount).await {
                Err(HostError::Command(detail)) => Err(busy(mount, detail)),
                result => result,
            };
        }
        match why {
            HostError::Command(detail) => Err(busy(mount, detail)),
            other => {
                for holder in holders::of(mount.dev) {
                    tracing::warn!(pid = holder.pid, name = %holder.name, uses = holder.uses,
                        "uses the file system that cannot be unmounted");
                }
                Err(other)
            }
        }
    }

    /// File systems mounted inside keep the outer one busy without any process.
    async fn umount_below(&self, point: &Path) {
        let mounts = mounts::current().unwrap_or_default();
        for inner in mounts::below(&mounts, point).into_iter().rev() {
            if let Err(error) = self.umount_once(inner).await {
                tracing::warn!(point = %inner.point.display(), %error, "cannot be unmounted");
            }
        }
    }
}

/// Runs a command that has to succeed, and keeps how it ended.
async fn run_noting(command: Cmd, exit: &mut Option<Exit>) -> Result<(), HostError> {
    match command.run_ok().await {
        Ok(_) => Ok(()),
        Err(error) => {
            *exit = if let CommandError::Failed { exit, .. } = &error { Some(*exit) } else { None };
            Err(error.into())
        }
    }
}

fn busy(mount: &Mount, detail: String) -> HostError {
    let holders = holders::of(mount.dev);
    HostError::Busy { mount_point: mount.point.clone(), detail, holders }
}

fn mounted_at(point: &Path) -> Result<Option<Mount>, HostError> {
    let mounts = mounts::current().map_err(HostError::system("mount table"))?;
    Ok(mounts::at(&mounts, point).cloned())
}

/// Whether a mount is of this device, whatever name it was mounted by.
fn is_of(mount: &Mount, device: &Path) -> bool {
    if mount.source == device.as_os_str() {
        return true;
    }
    let number: io::Result<_> = fs::metadata(device).map(|m| DevNo::from_stat(m.rdev()));
    number.is_ok_and(|dev| dev == mount.dev)
}

/// One line of what `blkid` found.
fn describe(export: &str) -> String {
    let value = |key: &str| export.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
    let kind = value("TYPE").or_else(|| value("PTTYPE"));
    match (kind, value("LABEL")) {
        (Some(kind), Some(label)) => format!("{kind} \"{label}\""),
        (Some(kind), None) => kind.to_owned(),
        (None, _) => "an unknown signature".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_system_names_are_those_of_the_configuration() {
        for kind in [FsKind::Ext2, FsKind::Ext3, FsKind::Ext4, FsKind::Xfs, FsKind::None] {
            assert_eq!(kind.name().parse::<FsKind>().expect("is known"), kind);
        }
        assert_eq!("ntfs".parse::<FsKind>().expect_err("is refused").md_code(), 2);
    }

    #[test]
    fn what_was_found_is_named() {
        assert_eq!(describe("DEVNAME=/dev/x\nLABEL=data\nTYPE=ext4\n"), "ext4 \"data\"");
        assert_eq!(describe("PTTYPE=gpt\n"), "gpt");
        assert_eq!(describe("MINIMUM_IO_SIZE=512\n"), "an unknown signature");
    }

    #[tokio::test]
    async fn without_a_file_system_nothing_is_mounted() {
        let config =
            FsConfig { kind: FsKind::None, ..FsConfig::new("/nowhere/x", "/nowhere/count") };
        let none = FileSystem::new(config, Runner::with_path("/nowhere"));
        none.mount(Path::new("/dev/null")).await.expect("nothing to do");
        none.umount(Path::new("/dev/null")).await.expect("nothing to do");
        assert_eq!(none.make(Path::new("/dev/null")).await.expect_err("is refused").md_code(), 2);
        assert!(!Path::new("/nowhere").exists());
    }
}
