//! mkfs, fsck, mount and umount against real file systems on loop devices.

mod support;

use mirror_agent::host::filesystem::UmountAction;
use mirror_agent::host::fsck::FsckTiming;
use mirror_agent::host::fsevent::FsEvent;
use mirror_agent::host::{FileSystem, FsConfig, FsKind, HostError, Runner};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Disk, fake, isolated, run, stand_in};

fn config(folder: &Path) -> FsConfig {
    FsConfig {
        umount_interval: Duration::from_millis(100),
        umount_retries: 1,
        mount_retries: 1,
        fsck_timing: FsckTiming::Never,
        ..FsConfig::new(folder.join("mnt"), folder.join("md1.fsck"))
    }
}

fn with(config: FsConfig) -> FileSystem {
    FileSystem::new(config, Runner::default())
}

type Told = Arc<Mutex<Vec<FsEvent>>>;

/// The same, and what it tells.
fn told(fs: FileSystem) -> (FileSystem, Told) {
    let events = Told::default();
    let listener = Arc::clone(&events);
    (fs.told_to(move |e| listener.lock().expect("lock").push(e)), events)
}

fn take(events: &Told) -> Vec<FsEvent> {
    std::mem::take(&mut *events.lock().expect("lock"))
}

#[test]
fn what_is_on_the_device_is_never_overwritten() {
    isolated("what_is_on_the_device_is_never_overwritten", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 64);
        let fs = with(config(&folder));
        fs.make(&disk.path()).await.expect("it is empty");
        let error = fs.make(&disk.path()).await.expect_err("holds ext4 now");
        assert!(matches!(&error, HostError::NotEmpty { found, .. } if found == "ext4"), "{error}");

        let table = Disk::new(&folder, "table.img", 64);
        let file = fs::OpenOptions::new().write(true).open(&table.1).expect("opens");
        file.write_all_at(&[0x83], 446 + 4).expect("partition type");
        file.write_all_at(&[1, 0, 0, 0, 0, 16, 0, 0], 446 + 8).expect("partition extent");
        file.write_all_at(&[0x55, 0xaa], 510).expect("signature");
        file.sync_all().expect("sync");
        let error = fs.make(&table.path()).await.expect_err("holds a partition table");
        assert!(matches!(&error, HostError::NotEmpty { found, .. } if found == "dos"), "{error}");

        let error = fs.make(Path::new("/dev/no-such-disk")).await.expect_err("is not there");
        assert!(matches!(error, HostError::Command(_)), "absence is not emptiness: {error}");
    });
}

#[test]
fn mounting_and_unmounting_know_their_result_codes() {
    isolated("mounting_and_unmounting_know_their_result_codes", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 64);
        let device = disk.path();
        let fs = with(config(&folder));
        fs.make(&device).await.expect("mkfs");
        assert_eq!(fs.umount(&device).await.expect_err("is not mounted").md_code(), 84);
        fs.mount(&device).await.expect("the mount point is made");
        assert!(fs.is_mounted(&device).expect("looks"));
        assert_eq!(fs.mount(&device).await.expect_err("is mounted").md_code(), 80);
        let other = Disk::new(&folder, "other.img", 8);
        assert_eq!(fs.umount(&other.path()).await.expect_err("is another").md_code(), 84);
        assert!(fs.is_mounted(&device).expect("looks"), "it was left alone");
        fs.umount(&device).await.expect("umount");
        assert!(!fs.is_mounted(&device).expect("looks"));

        let blocked = FsConfig { mount_point: folder.join("disk.img/mnt"), ..config(&folder) };
        assert_eq!(with(blocked).mount(&device).await.expect_err("no folder").md_code(), 87);
    });
}

#[test]
fn mount_options_are_passed_on() {
    isolated("mount_options_are_passed_on", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 64);
        let fs = with(FsConfig { mount_options: "ro,noatime".into(), ..config(&folder) });
        fs.make(&disk.path()).await.expect("mkfs");
        fs.mount(&disk.path()).await.expect("mount");
        let error = fs::write(folder.join("mnt/x"), b"x").expect_err("is read-only");
        assert_eq!(error.raw_os_error(), Some(30), "EROFS");
        fs.umount(&disk.path()).await.expect("umount");
    });
}

#[test]
fn a_busy_file_system_is_given_up_with_names_or_emptied() {
    isolated("a_busy_file_system_is_given_up_with_names_or_emptied", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 64);
        let device = disk.path();
        let gentle = FsConfig { umount_action: UmountAction::None, ..config(&folder) };
        let (gentle, events) = told(with(gentle));
        gentle.make(&device).await.expect("mkfs");
        gentle.mount(&device).await.expect("mount");
        let mut user = stand_in(&folder.join("mnt"));
        let error = gentle.umount(&device).await.expect_err("is busy");
        let HostError::Busy { holders, .. } = &error else { panic!("{error}") };
        let found: Vec<_> = holders.iter().map(|h| (h.pid, h.name.as_str(), h.uses)).collect();
        assert_eq!(found, [(user.pid(), "sleep", "working folder")]);
        assert!(!user.has_ended(), "nobody was killed");
        assert_eq!(take(&events), [FsEvent::Failed("umount", "32".to_owned())]);

        let mut bystander = stand_in(&folder);
        with(config(&folder)).umount(&device).await.expect("ends the process");
        assert!(user.has_ended(), "the holder was ended");
        assert!(!bystander.has_ended(), "others were not");
        assert!(!gentle.is_mounted(&device).expect("looks"));
    });
}

#[test]
fn each_way_to_hold_a_file_system_is_found() {
    isolated("each_way_to_hold_a_file_system_is_found", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 64);
        let fs = with(config(&folder));
        fs.make(&disk.path()).await.expect("mkfs");
        fs.mount(&disk.path()).await.expect("mount");
        let point = folder.join("mnt");
        let program = point.join("prog");
        fs::copy("/bin/sleep", &program).expect("copies");
        let start = |command: &mut std::process::Command| {
            support::Running(command.spawn().expect("starts"))
        };
        let file = fs::File::create(point.join("open")).expect("creates");
        let mut open = std::process::Command::new("sleep");
        let opened = start(open.arg("600").stdin(file));
        drop(open);
        let ran = start(std::process::Command::new(&program).arg("600"));
        // It ignores SIGTERM: only SIGKILL ends it.
        let script = "trap '' TERM; echo x >ready; while :; do sleep 0.1; done";
        let stubborn =
            start(std::process::Command::new("sh").args(["-c", script]).current_dir(&point));
        support::eventually("the trap is set", || point.join("ready").exists()).await;
        let dev = disk.0.dev().expect("has a number");
        let found = mirror_agent::host::holders::of(dev);
        let uses = |pid| found.iter().find(|h| h.pid == pid).map(|h| h.uses);
        assert_eq!(uses(opened.pid()), Some("open file"));
        assert_eq!(uses(ran.pid()), Some("program"));
        assert_eq!(uses(stubborn.pid()), Some("working folder"));
        fs.umount(&disk.path()).await.expect("all are ended");
        for mut process in [opened, ran, stubborn] {
            assert!(process.has_ended());
        }
    });
}

#[test]
fn a_file_system_mounted_inside_is_unmounted_first() {
    isolated("a_file_system_mounted_inside_is_unmounted_first", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 64);
        let fs = with(config(&folder));
        fs.make(&disk.path()).await.expect("mkfs");
        fs.mount(&disk.path()).await.expect("mount");
        let inner = folder.join("mnt/inner");
        fs::create_dir(&inner).expect("folder");
        run("mount", &["-t", "tmpfs", "none", &inner.to_string_lossy()]);
        fs.umount(&disk.path()).await.expect("both go");
        assert!(!fs.is_mounted(&disk.path()).expect("looks"));
    });
}

#[test]
fn the_check_runs_at_each_nth_activation() {
    isolated("the_check_runs_at_each_nth_activation", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 64);
        let log = folder.join("log");
        let script = format!("echo \"$@\" >>{}; exec /sbin/e2fsck \"$@\"", log.display());
        let runner = Runner::with_path(fake(&folder, "e2fsck", &script));
        let config = FsConfig { fsck_timing: FsckTiming::Every(3), ..config(&folder) };
        let fs = FileSystem::new(config, runner);
        fs.make(&disk.path()).await.expect("mkfs");
        let mut checks = Vec::new();
        for _ in 0..6 {
            let mut started = false;
            let result = fs.check_if_due(&disk.path(), || started = true).await.expect("checks");
            assert_eq!(result.is_some(), started, "a check is announced");
            fs.mount(&disk.path()).await.expect("mount");
            fs.umount(&disk.path()).await.expect("umount");
            checks.push(fs::read_to_string(&log).map_or(0, |text| text.lines().count()));
        }
        assert_eq!(checks, [0, 0, 1, 1, 1, 2]);
        let line = format!("-y {}\n", disk.path().display());
        assert!(fs::read_to_string(&log).expect("log").starts_with(&line));
    });
}

/// Destroys the primary superblock; the copies elsewhere on the disk stay.
fn damage(disk: &Disk, kind: FsKind) {
    let offset = if kind == FsKind::Xfs { 0 } else { 1024 };
    let device = fs::OpenOptions::new().write(true).open(disk.path()).expect("opens");
    device.write_all_at(&[0_u8; 512], offset).expect("writes");
    device.sync_all().expect("sync");
}

#[test]
fn a_file_system_that_cannot_be_mounted_is_repaired_first() {
    isolated("a_file_system_that_cannot_be_mounted_is_repaired_first", |folder| async move {
        for (kind, name) in [(FsKind::Ext4, "ext4.img"), (FsKind::Xfs, "xfs.img")] {
            let disk = Disk::new(&folder, name, 400);
            let device = disk.path();
            let careful = FsConfig {
                kind,
                fsck_on_mount_failure: false,
                mount_retries: 0,
                ..config(&folder)
            };
            let repairing = FsConfig {
                fsck_on_mount_failure: true,
                xfs_repair_on_mount_failure: true,
                ..careful.clone()
            };
            let (careful, repairing) = (with(careful), with(repairing));
            careful.make(&device).await.expect("mkfs");
            careful.mount(&device).await.expect("mount");
            fs::write(folder.join("mnt/x"), b"kept").expect("write");
            careful.umount(&device).await.expect("umount");
            damage(&disk, kind);
            let (careful, failed) = told(careful);
            let error = careful.mount(&device).await.expect_err("is damaged");
            assert_eq!(error.md_code(), 89, "{error}");
            assert_eq!(take(&failed), [FsEvent::Failed("mount", "32".to_owned())]);
            let (repairing, events) = told(repairing);
            repairing.mount(&device).await.expect("repaired and mounted");
            let (program, options) =
                if kind == FsKind::Xfs { ("xfs_repair", "") } else { ("fsck", "-y") };
            let want = [
                FsEvent::Failed("mount", "32".to_owned()),
                FsEvent::CheckStarted(program, options.to_owned()),
                FsEvent::CheckDone,
            ];
            assert_eq!(take(&events), want);
            assert_eq!(fs::read(folder.join("mnt/x")).expect("read"), b"kept", "{name}");
            careful.umount(&device).await.expect("umount");
        }
    });
}

#[test]
fn a_check_that_leaves_errors_is_an_error() {
    isolated("a_check_that_leaves_errors_is_an_error", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 64);
        let runner = Runner::with_path(fake(&folder, "e2fsck", "exit 4"));
        let always = FsConfig { fsck_timing: FsckTiming::Always, ..config(&folder) };
        with(always.clone()).make(&disk.path()).await.expect("mkfs");
        let (fs, events) = told(FileSystem::new(always.clone(), runner.clone()));
        let error = fs.check_if_due(&disk.path(), || ()).await.expect_err("errors are left");
        assert!(matches!(error, HostError::Fsck { code: 4, .. }), "{error}");
        assert_eq!(error.md_code(), 89);
        let failed = FsEvent::Failed("fsck", "4".to_owned());
        assert_eq!(take(&events), std::slice::from_ref(&failed));

        let timid = FsConfig { fsck_options: vec!["-p".into()], ..always.clone() };
        let (fs, events) = told(FileSystem::new(timid, runner));
        fs.check_if_due(&disk.path(), || ()).await.expect_err("errors are left");
        assert_eq!(take(&events), [failed, FsEvent::Needed("fsck", "-y")]);
    });
}

/// xfs: the log of a file system that cannot be mounted has to be given up by hand.
#[test]
fn an_xfs_log_that_cannot_be_replayed_is_left_to_the_operator() {
    isolated("an_xfs_log_that_cannot_be_replayed_is_left_to_the_operator", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 400);
        let config = FsConfig {
            kind: FsKind::Xfs,
            xfs_repair_on_mount_failure: true,
            mount_retries: 0,
            ..config(&folder)
        };
        with(config.clone()).make(&disk.path()).await.expect("mkfs");
        fake(&folder, "mount", "exit 32");
        let runner = Runner::with_path(fake(&folder, "xfs_repair", "exit 2"));
        let (fs, events) = told(FileSystem::new(config, runner));
        let error = fs.mount(&disk.path()).await.expect_err("the log is dirty");
        assert!(matches!(error, HostError::Fsck { code: 2, .. }), "{error}");
        let want = [
            FsEvent::Failed("mount", "32".to_owned()),
            FsEvent::CheckStarted("xfs_repair", String::new()),
            FsEvent::Failed("xfs_repair", "2".to_owned()),
            FsEvent::Needed("xfs_repair", "-L"),
        ];
        assert_eq!(take(&events), want);
    });
}

/// The first activation of a mirror on which no file system was made yet.
#[test]
fn a_device_without_a_file_system_is_called_so() {
    isolated("a_device_without_a_file_system_is_called_so", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 64);
        let device = disk.path();
        let quick = FsConfig { mount_retries: 0, ..config(&folder) };
        assert!(with(quick.clone()).is_blank(&device).await.expect("looks"));
        let none = "no file system is found on it";
        for careful in [true, false] {
            let fs = with(FsConfig { fsck_on_mount_failure: careful, ..quick.clone() });
            let error = fs.mount(&device).await.expect_err("nothing to mount");
            assert!(error.to_string().contains(none), "{error}");
            assert_eq!(error.md_code(), 89);
        }
        let always = FsConfig { fsck_timing: FsckTiming::Always, ..quick.clone() };
        let error = with(always).check_if_due(&device, || ()).await.expect_err("nothing to check");
        assert!(error.to_string().contains(none), "{error}");
        run("mkfs.ext4", &["-q", &device.to_string_lossy()]);
        let xfs = with(FsConfig { kind: FsKind::Xfs, ..quick.clone() });
        let error = xfs.mount(&device).await.expect_err("another file system").to_string();
        assert!(error.contains("it holds ext4, and the configuration says xfs"), "{error}");
        assert!(!xfs.is_blank(&device).await.expect("looks"));
    });
}

/// Attempts in order, each as often as configured: mount, check, mount again.
#[test]
fn attempts_to_mount_have_their_order_and_number() {
    isolated("attempts_to_mount_have_their_order_and_number", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 64);
        let log = folder.join("log");
        let note = |name: &str, code: i32| {
            let script = format!("echo {name} \"$@\" >>{}; exit {code}", log.display());
            fake(&folder, name, &script)
        };
        note("mount", 32);
        let runner = Runner::with_path(note("e2fsck", 0));
        let config = FsConfig {
            mount_retries: 2,
            mount_options: "rw,noatime".into(),
            fsck_options: vec!["-f".into(), "-y".into()],
            ..config(&folder)
        };
        with(config.clone()).make(&disk.path()).await.expect("mkfs");
        let error = FileSystem::new(config, runner).mount(&disk.path()).await.expect_err("fails");
        assert_eq!(error.md_code(), 89, "{error}");
        let device = disk.path();
        let mount = format!(
            "mount -t ext4 -o rw,noatime {} {}",
            device.display(),
            folder.join("mnt").display()
        );
        let check = format!("e2fsck -f -y {}", device.display());
        let want = [vec![mount; 3], vec![check]].concat();
        let got = fs::read_to_string(&log).expect("log");
        let got: Vec<&str> = got.lines().collect();
        assert_eq!(got[..4], want, "{got:?}");
        assert_eq!(got[4..], want[..3], "and again as often");
    });
}

#[test]
fn a_device_is_unmounted_from_wherever_it_is() {
    isolated("a_device_is_unmounted_from_wherever_it_is", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 64);
        let raw = with(FsConfig { kind: FsKind::None, ..config(&folder) });
        assert!(raw.umount_everywhere(&disk.path()).await.expect("nothing").is_empty());
        with(config(&folder)).make(&disk.path()).await.expect("mkfs");
        let points = [folder.join("one"), folder.join("two")];
        for point in &points {
            fs::create_dir(point).expect("folder");
            run("mount", &[&disk.path().to_string_lossy(), &point.to_string_lossy()]);
        }
        let above = points[1].to_string_lossy();
        run("mount", &["-t", "tmpfs", "above", &above]);
        let error = raw.umount_everywhere(&disk.path()).await.expect_err("one is covered");
        assert!(error.to_string().contains("covered"), "{error}");
        run("umount", &[&above]); // would fail if it had been taken away

        let mut user = stand_in(&points[0]);
        let gone = raw.umount_everywhere(&disk.path()).await.expect("both");
        assert_eq!(gone, [points[1].clone(), points[0].clone()], "the last one first");
        assert!(user.has_ended());
    });
}

#[test]
fn commands_that_hang_are_given_up() {
    isolated("commands_that_hang_are_given_up", |folder| async move {
        let disk = Disk::new(&folder, "disk.img", 64);
        let device = disk.path();
        let quick = FsConfig {
            mount_timeout: Duration::from_millis(300),
            umount_timeout: Duration::from_millis(300),
            fsck_timeout: Duration::from_millis(300),
            mount_retries: 0,
            ..config(&folder)
        };
        with(quick.clone()).make(&device).await.expect("mkfs");
        let begin = Instant::now();
        let slow_mount = Runner::with_path(fake(&folder, "mount", "sleep 600"));
        let fs = FileSystem::new(quick.clone(), slow_mount);
        let error = fs.mount(&device).await.expect_err("hangs");
        assert_eq!(error.md_code(), 83, "{error}");
        assert!(error.to_string().starts_with("Command timeout(mount -t ext4"), "{error}");

        let slow_check = Runner::with_path(fake(&folder, "e2fsck", "sleep 600"));
        let always = FsConfig { fsck_timing: FsckTiming::Always, ..quick.clone() };
        let (fs, events) = told(FileSystem::new(always, slow_check));
        let error = fs.check_if_due(&device, || ()).await;
        assert_eq!(error.expect_err("hangs").md_code(), 83);
        assert_eq!(take(&events), [FsEvent::CheckTimeout]);

        fs::remove_file(folder.join("bin/mount")).expect("is removed");
        with(quick.clone()).mount(&device).await.expect("the real one works");
        let slow_umount = Runner::with_path(fake(&folder, "umount", "sleep 600"));
        let (fs, events) = told(FileSystem::new(quick.clone(), slow_umount));
        let error = fs.umount(&device).await;
        assert_eq!(error.expect_err("hangs").md_code(), 83);
        assert_eq!(take(&events), [FsEvent::UmountTimeout]);
        assert!(begin.elapsed() < Duration::from_secs(20), "took {:?}", begin.elapsed());
        with(quick).umount(&device).await.expect("the real one works");
    });
}
