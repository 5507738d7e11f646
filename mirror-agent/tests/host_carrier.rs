//! NBD socket -> block device -> mounted file system, and what is left when parts of it die.

mod support;

use mirror_agent::host::carrier::{Cleared, clear_stale};
use mirror_agent::host::loops::LoopDevice;
use mirror_agent::host::{Carrier, CarrierConfig, FileSystem, FsConfig, HostError, Runner, mounts};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{Disk, Running, eventually, isolated, run, serve, stand_in};

fn config(folder: &Path) -> CarrierConfig {
    CarrierConfig {
        device_dir: folder.to_owned(),
        run_dir: folder.to_owned(),
        close_retries: 1,
        ready_limit: Duration::from_secs(5),
        ..CarrierConfig::new("md1", 1)
    }
}

fn file_system(folder: &Path) -> FileSystem {
    let config = FsConfig::new(folder.join("mnt"), folder.join("md1.fsck"));
    let config = FsConfig { umount_interval: Duration::from_millis(100), ..config };
    FileSystem::new(config, Runner::default())
}

async fn open(folder: &Path, socket: &Path) -> Result<Carrier, HostError> {
    Carrier::open(&config(folder), &Runner::default(), socket, "md1").await
}

fn loop_of(folder: &Path) -> LoopDevice {
    let target = fs::read_link(folder.join("NMP1")).expect("the device name is there");
    LoopDevice::from_path(&target).expect("it leads to a loop device")
}

/// Nothing of the carrier is in the folder, in the mount table or among the loop devices.
fn assert_nothing_left(folder: &Path) {
    let is_ours =
        |name: &str| name.starts_with("md1-") || name == "NMP1" || name.contains("carrier");
    let names = fs::read_dir(folder).expect("folder").flatten().map(|e| e.file_name());
    let left: Vec<_> = names.filter(|n| is_ours(&n.to_string_lossy())).collect();
    assert!(left.is_empty(), "left in the folder: {left:?}");
    let mounts = mounts::current().expect("mount table");
    assert_eq!(mounts::below(&mounts, folder), Vec::<&mounts::Mount>::new());
    let loops = LoopDevice::all().into_iter().filter_map(LoopDevice::backing_file);
    assert_eq!(loops.filter(|f| f.starts_with(folder)).count(), 0, "a loop device is left");
    let pattern = format!("nbdfuse.*{}/", folder.display());
    let found = Command::new("pgrep").args(["-f", &pattern]).output().expect("pgrep runs");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "a process is left");
}

#[test]
fn from_socket_to_file_system_and_back() {
    isolated("from_socket_to_file_system_and_back", |folder| async move {
        let (_server, socket) = serve(&folder, 512).await;
        let mut carrier = open(&folder, &socket).await.expect("opens");
        let device = carrier.device().expect("has a name").to_owned();
        let fs = file_system(&folder);
        fs.make(&device).await.expect("mkfs");
        fs.mount(&device).await.expect("mount");
        fs::write(folder.join("mnt/x"), b"hello").expect("write");
        fs.umount(&device).await.expect("umount");
        fs.mount(&device).await.expect("mount again");
        assert_eq!(fs::read(folder.join("mnt/x")).expect("read"), b"hello");

        let busy = carrier.close().await.expect_err("is mounted");
        assert_eq!(busy.md_code(), 89, "{busy}");
        assert!(busy.to_string().contains("mnt"), "{busy}");
        assert!(device.exists(), "a refused close takes nothing away");

        fs.umount(&device).await.expect("umount");
        carrier.close().await.expect("closes");
        assert_nothing_left(&folder);
        carrier.close().await.expect("a second close has nothing to do");
    });
}

#[test]
fn a_device_that_is_open_keeps_its_name() {
    isolated("a_device_that_is_open_keeps_its_name", |folder| async move {
        let (_server, socket) = serve(&folder, 512).await;
        let mut carrier = open(&folder, &socket).await.expect("opens");
        let device = fs::File::open(folder.join("NMP1")).expect("opens");
        let mut user =
            Running(Command::new("sleep").arg("600").stdin(device).spawn().expect("starts"));
        let error = carrier.close().await.expect_err("is in use");
        assert_eq!(error.md_code(), 89);
        assert!(error.to_string().contains(&format!("{} (sleep)", user.pid())), "{error}");
        fs::File::open(folder.join("NMP1")).expect("still works");
        user.kill();
        carrier.close().await.expect("closes");
        assert_nothing_left(&folder);
    });
}

#[test]
fn blocks_of_4096_bytes_are_passed_on() {
    isolated("blocks_of_4096_bytes_are_passed_on", |folder| async move {
        let (_server, socket) = serve(&folder, 4096).await;
        let config = CarrierConfig { block_size: 4096, ..config(&folder) };
        let opened = Carrier::open(&config, &Runner::default(), &socket, "md1").await;
        let mut carrier = opened.expect("opens");
        let queue = format!("/sys/block/loop{}/queue", loop_of(&folder).0);
        let read = |name: &str| fs::read_to_string(format!("{queue}/{name}")).expect("sysfs");
        assert_eq!(read("logical_block_size").trim(), "4096");
        let direct = format!("/sys/block/loop{}/loop/dio", loop_of(&folder).0);
        assert_eq!(fs::read_to_string(direct).expect("sysfs").trim(), "1");
        carrier.close().await.expect("closes");
        assert_nothing_left(&folder);
    });
}

#[test]
fn without_a_server_nothing_is_left_behind() {
    isolated("without_a_server_nothing_is_left_behind", |folder| async move {
        let error = open(&folder, &folder.join("none.sock")).await.expect_err("no server");
        assert_eq!(error.md_code(), 89, "{error}");
        assert!(error.to_string().contains("nbdfuse"), "{error}");
        assert_nothing_left(&folder);
    });
}

#[test]
fn a_taken_device_name_is_refused_before_anything_is_made() {
    isolated("a_taken_device_name_is_refused_before_anything_is_made", |folder| async move {
        let (_server, socket) = serve(&folder, 512).await;
        let name = folder.join("NMP1");
        let disk = Disk::new(&folder, "other.img", 8);
        symlink(disk.path(), &name).expect("link");
        let error = open(&folder, &socket).await.expect_err("leads to a loop device in use");
        assert!(matches!(error, HostError::NameTaken { .. }), "{error}");
        assert_eq!(fs::read_link(&name).expect("is there"), disk.path());
        assert_eq!(LoopDevice::backed_by(&disk.1), [disk.0]);

        fs::remove_file(&name).expect("is removed");
        drop(disk);
        open(&folder, &socket).await.expect("now it is free").close().await.expect("closes");
    });
}

/// Carrier open, file system mounted, a file written.
async fn mounted(folder: &Path, socket: &Path) -> (Carrier, FileSystem) {
    let carrier = open(folder, socket).await.expect("opens");
    let device = carrier.device().expect("has a name").to_owned();
    let fs = file_system(folder);
    fs.make(&device).await.expect("mkfs");
    fs.mount(&device).await.expect("mount");
    fs::write(folder.join("mnt/x"), b"hello").expect("write");
    (carrier, fs)
}

fn write_and_sync(path: &Path) -> std::io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(&[7_u8; 65_536])?;
    file.sync_all()
}

#[test]
fn a_successor_clears_what_a_dead_agent_left() {
    isolated("a_successor_clears_what_a_dead_agent_left", |folder| async move {
        let (mut server, socket) = serve(&folder, 512).await;
        let (carrier, _) = mounted(&folder, &socket).await;
        let device = loop_of(&folder);
        std::mem::forget(carrier); // the agent dies: nobody closes anything
        server.kill();
        let error = write_and_sync(&folder.join("mnt/y")).expect_err("the disk is gone");
        assert_eq!(error.raw_os_error(), Some(5), "EIO, {error}");

        let cleared = clear_stale(&config(&folder), &Runner::default()).await.expect("clears");
        assert_eq!(cleared.file_systems, [folder.join("mnt")]);
        assert_eq!(cleared.loops, [device.path()]);
        assert!(cleared.fuse && cleared.link, "{cleared:?}");
        assert_nothing_left(&folder);
        let again = clear_stale(&config(&folder), &Runner::default()).await.expect("looks");
        assert_eq!(again, Cleared::default());

        let (_server, socket) = serve(&folder, 512).await;
        open(&folder, &socket).await.expect("opens anew").close().await.expect("closes");
        assert_nothing_left(&folder);
    });
}

#[test]
fn a_successor_need_not_wait_for_a_process_in_the_dead_file_system() {
    let name = "a_successor_need_not_wait_for_a_process_in_the_dead_file_system";
    isolated(name, |folder| async move {
        let (mut server, socket) = serve(&folder, 512).await;
        let (carrier, _) = mounted(&folder, &socket).await;
        let mut user = stand_in(&folder.join("mnt"));
        let device = loop_of(&folder);
        std::mem::forget(carrier);
        server.kill();
        let quick = CarrierConfig { ready_limit: Duration::from_secs(1), ..config(&folder) };
        let cleared = clear_stale(&quick, &Runner::default()).await.expect("clears");
        assert_eq!(cleared.file_systems, [folder.join("mnt")]);
        assert!(cleared.fuse && cleared.link, "{cleared:?}");

        let (_server, socket) = serve(&folder, 512).await;
        let mut next = open(&folder, &socket).await.expect("opens beside the dead one");
        assert!(!user.has_ended(), "clearing up does not kill");
        next.close().await.expect("closes");
        user.kill();
        eventually("the dead loop device goes", || device.backing_file().is_none()).await;
        assert_nothing_left(&folder);
    });
}

#[test]
fn what_is_not_provably_ours_stays() {
    isolated("what_is_not_provably_ours_stays", |folder| async move {
        let (mut server, socket) = serve(&folder, 512).await;
        let (carrier, _) = mounted(&folder, &socket).await;
        let own = loop_of(&folder);
        // Another carrier's folder, and a file system of somebody else.
        fs::create_dir(folder.join("md1-feedfeedfeedfeed")).expect("folder");
        let twin = Disk::new(&folder.join("md1-feedfeedfeedfeed"), "nbd", 16);
        let other = Disk::new(&folder, "other.img", 16);
        let point = folder.join("other");
        fs::create_dir(&point).expect("folder");
        run("mkfs.ext4", &["-q", &other.path().to_string_lossy()]);
        run("mount", &[&other.path().to_string_lossy(), &point.to_string_lossy()]);
        // Somebody mounts over our mount point: taking that one away would be a mistake.
        let covered = folder.join("mnt");
        run("mount", &["-t", "tmpfs", "above", &covered.to_string_lossy()]);
        fs::write(covered.join("theirs"), b"").expect("write");
        std::mem::forget(carrier);
        server.kill();

        let quick = CarrierConfig { ready_limit: Duration::from_secs(1), ..config(&folder) };
        let cleared = clear_stale(&quick, &Runner::default()).await.expect("clears");
        assert!(cleared.file_systems.is_empty() && cleared.loops.is_empty(), "{cleared:?}");
        assert!(covered.join("theirs").exists(), "the mount above stays");
        run("umount", &[&covered.to_string_lossy()]);
        run("umount", &[&covered.to_string_lossy()]);
        eventually("the dead loop device goes", || own.backing_file().is_none()).await;
        for disk in [&twin, &other] {
            assert_eq!(disk.0.backing_file().as_ref(), Some(&disk.1), "is still attached");
        }
        let mounts = mounts::current().expect("mount table");
        assert!(mounts::at(&mounts, &point).is_some(), "is still mounted");
        run("umount", &[&point.to_string_lossy()]);
        drop(twin);
        fs::remove_dir_all(folder.join("md1-feedfeedfeedfeed")).expect("is removed");
    });
}

#[test]
fn a_reused_device_number_proves_nothing() {
    isolated("a_reused_device_number_proves_nothing", |folder| async move {
        let disk = Disk::new(&folder, "other.img", 16);
        let sequence = disk.0.sequence().expect("this kernel counts");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("proc");
        let state = |sequence: u64, boot: &str| {
            let text = format!(
                r#"{{"version":1,"boot_id":"{boot}","folder":"{0}/md1-0","server":{{"pid":{1},"start":1}},
                "device":{{"number":{2},"sequence":{sequence}}},"link":"{0}/NMP1"}}"#,
                folder.display(),
                std::process::id(),
                disk.0.0,
            );
            fs::write(folder.join("md1.carrier"), text).expect("is written");
        };
        for (sequence, boot) in [(sequence + 1, boot.trim()), (sequence, "another-boot")] {
            state(sequence, boot);
            let cleared = clear_stale(&config(&folder), &Runner::default()).await;
            assert_eq!(cleared.expect("clears"), Cleared::default());
            assert_eq!(disk.0.backing_file().as_ref(), Some(&disk.1), "is still attached");
        }
        state(sequence, boot.trim());
        let cleared = clear_stale(&config(&folder), &Runner::default()).await.expect("clears");
        assert_eq!(cleared.loops, [disk.path()], "the recorded device itself is ours");
    });
}

#[test]
fn the_end_of_nbdfuse_is_noticed_and_can_be_cleaned_up() {
    isolated("the_end_of_nbdfuse_is_noticed_and_can_be_cleaned_up", |folder| async move {
        let (_server, socket) = serve(&folder, 512).await;
        let (mut carrier, fs) = mounted(&folder, &socket).await;
        let early = tokio::time::timeout(Duration::from_millis(50), carrier.ended()).await;
        assert!(early.is_err(), "it runs");
        let state = fs::read_to_string(folder.join("md1.carrier")).expect("state file");
        let pid = state.split("\"pid\":").nth(1).and_then(|s| s.split(',').next());
        run("kill", &["-9", pid.expect("is recorded").trim()]);
        let why = tokio::time::timeout(Duration::from_secs(5), carrier.ended()).await;
        assert!(why.expect("is noticed").contains("signal"), "says how");
        let device = carrier.device().expect("has a name").to_owned();
        fs.umount(&device).await.expect("a dead file system can be unmounted");
        carrier.close().await.expect("closes");
        assert_nothing_left(&folder);
    });
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    isolated("a_server_that_never_answers_is_given_up", |folder| async move {
        let socket = folder.join("silent.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("listens");
        let quick = CarrierConfig { ready_limit: Duration::from_secs(1), ..config(&folder) };
        let error = Carrier::open(&quick, &Runner::default(), &socket, "md1").await;
        assert_eq!(error.expect_err("never ready").md_code(), 83);
        assert_nothing_left(&folder);
    });
}
