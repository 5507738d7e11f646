//! What goes wrong when a mirror is opened, and while it connects, is told.

use super::host::event_of;
use super::nbd::Left;
use super::{net_event, not_listening, start, state};
use crate::config::Config;
use crate::driver::{ListenError, ListenStep, NetNote, Partition};
use crate::host::fsevent::FsEvent;
use crate::messages::{AlertLog, EventLog, EventSwitches, Sinks};
use crate::secret::Secret;
use mirror_core::disk::layout::{BITMAP, SUPERBLOCK_A, SUPERBLOCK_B};
use mirror_core::disk::superblock;
use mirror_core::record::Record;
use mirror_core::units::{Id16, Side};
use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

fn file(folder: &Path, name: &str, size: u64) -> File {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(name));
    let file = file.expect("file");
    file.set_len(size).expect("size");
    file
}

#[test]
fn a_port_that_is_taken_is_told() {
    let dir = tempfile::tempdir().expect("folder");
    let at = dir.path();
    file(at, "data", 8 << 20);
    file(at, "cluster", 1 << 20);
    fs::write(at.join("secret"), [7; 32]).expect("secret");
    fs::set_permissions(at.join("secret"), fs::Permissions::from_mode(0o600)).expect("mode");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("address").port();
    let text = format!(
        "[[server]]\nname = \"a\"\nmirror_connect = [\"127.0.0.1\"]\n\
         [[server]]\nname = \"b\"\nmirror_connect = [\"127.0.0.2\"]\n\
         [[mirror]]\nname = \"md1\"\nport = {port}\nfs = \"none\"\n\
         data_partition = \"{0}/data\"\ncluster_partition = \"{0}/cluster\"\n",
        at.display()
    );
    let config = Config::parse(Path::new("x.toml"), &text, Some("a"), "").expect("configuration");
    let secret = Secret::load(&at.join("secret")).expect("secret");
    let alert = AlertLog { path: at.join("alert.log"), limit: 1 << 20, keep: 0 };
    let to = EventSwitches { alert: true, syslog: false, mail: false };
    let switches = [("liscal".to_owned(), to)].into();
    let sinks = Sinks { alert: Some(alert), switches, ..Sinks::default() };
    let (events, thread) = EventLog::start(sinks).expect("thread");
    let failed = start(&config, &config.mirrors[0], (&secret, &events), &Left::default());
    assert!(failed.is_err(), "the port is taken");
    drop(events);
    thread.join().expect("delivered");
    let log = fs::read_to_string(at.join("alert.log")).expect("alert log");
    let want = format!("NMP1 socket binding failed(127.0.0.1:{port}: Address already in use");
    assert!(log.contains(&want), "{log}");
}

#[test]
fn each_step_and_note_has_its_message() {
    let text = |step| {
        let source = io::Error::from_raw_os_error(24);
        let address = "127.0.0.1:1".parse().expect("address");
        not_listening(&ListenError { step, address, source }, 1).text()
    };
    let why = "127.0.0.1:1: Too many open files (os error 24)";
    assert_eq!(text(ListenStep::Socket), format!("creating socket failed({why})."));
    assert_eq!(text(ListenStep::Listen), format!("NMP1 socket listening failed({why})."));
    let text = |note| net_event(&note, 1).text();
    let why = || "why".to_owned();
    assert_eq!(text(NetNote::ConnectFailed(why())), "NMP1 connection failed(why).");
    assert_eq!(text(NetNote::NoNetwork), "can not find a using network.");
    assert_eq!(text(NetNote::AcceptFailed(why())), "NMP1 accept failed(why).");
    assert_eq!(text(NetNote::Refused(why())), "NMP1 deciding connection type failed(why)");
    assert_eq!(text(NetNote::NoFrame), "NMP1 receive wrong magic data.");
}

#[test]
fn what_happens_to_commands_has_its_message() {
    let text = |e: &FsEvent| event_of(e, "/dev/NMP1").text();
    let started = FsEvent::CheckStarted("fsck", "-y".to_owned());
    assert_eq!(text(&started), "fsck of /dev/NMP1 with -y option has started.");
    assert_eq!(text(&FsEvent::CheckDone), "Disk has cleaned by fsck.(Device: /dev/NMP1)");
    let failed = FsEvent::Failed("mount", "32".to_owned());
    assert_eq!(text(&failed), "mount of /dev/NMP1 failed(ret=32).");
    assert_eq!(
        text(&FsEvent::Needed("xfs_repair", "-L")),
        "Executing xfs_repair of /dev/NMP1 with -L option is necessary. Execute the command manually."
    );
    assert_eq!(
        text(&FsEvent::UmountTimeout),
        "umount timeout. Make sure that the length of Unmount Timeout is appropriate. (Device:/dev/NMP1)"
    );
    assert_eq!(
        text(&FsEvent::CheckTimeout),
        "fsck timeout. Make sure that the length of Fsck Timeout is appropriate. (Device:/dev/NMP1)"
    );
}

/// What `load` tells of a cluster partition that is cut off at `len` after it was opened.
fn told_of(len: u64, write: impl FnOnce(&File)) -> Vec<String> {
    let dir = tempfile::tempdir().expect("folder");
    file(dir.path(), "data", 8 << 20);
    let cut = file(dir.path(), "cluster", 1 << 20);
    write(&cut);
    let open = |name: &str| Partition::open(&dir.path().join(name), Duration::ZERO).expect("opens");
    let (data, cluster) = (open("data"), open("cluster"));
    cut.set_len(len).expect("cut");
    let told = RefCell::default();
    let note = |message, more: &[&str]| {
        let event = crate::messages::Event::driver(message, 1, more);
        Vec::push(&mut told.borrow_mut(), event.text());
    };
    // Whether it can be used all the same is tested elsewhere.
    let _ = state::load(&data, &cluster, Side::First, &note);
    told.into_inner()
}

#[test]
fn a_state_that_cannot_be_read_is_told() {
    let told = told_of(SUPERBLOCK_A, |_| ());
    assert_eq!(told, ["read disk error flag I/O error."; 2]);
    let told = told_of(BITMAP, |cluster| {
        let mut record = Record::blank(Id16([1; 16]), Side::First);
        record.size = 8 << 20;
        record.block = 512;
        let bytes = superblock::encode(&record);
        for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
            cluster.write_all_at(&bytes, at).expect("superblock");
        }
    });
    assert!(told.iter().any(|t| t.starts_with("NMP1 read bitmap from CP error(")), "{told:?}");
}
