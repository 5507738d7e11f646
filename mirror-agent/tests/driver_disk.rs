//! The driver's partitions, orders, front end and idleness, over temporary files.
#![allow(clippy::unwrap_used)] // helpers of tests

mod rig;

use kmod_shim::nbd::Export;
use kmod_shim::nbd::protocol::{command, error};
use mirror_agent::driver::{FrontEndSpec, OpenError, Partition, Report, now};
use mirror_agent::figures::Traffic;
use mirror_core::buf::Buf;
use mirror_core::io::{Action, DataOp, Event, IoFailure, IoId, Notice};
use mirror_core::units::SessionNo;
use nix::libc;
use rig::client::Client;
use rig::{DATA_SIZE, LIMIT, Rig, Setup, partition};
use std::time::{Duration, Instant};

fn pattern(len: usize) -> Buf {
    let bytes: Vec<u8> = (1..=251_u8).cycle().take(len).collect();
    Buf::copied_from(&bytes)
}

fn write(data: &Buf, durable: bool) -> DataOp {
    DataOp::Write { data: data.clone(), durable }
}

#[test]
fn what_is_written_is_there_and_is_read_back() {
    let mut rig = Rig::new(Setup::default());
    for (offset, len, durable) in [(4096, 1 << 20, false), (3 << 20, 8192, true)] {
        let data = pattern(len);
        assert_eq!(rig.data(write(&data, durable), offset, len as u64), Ok(None));
        assert_eq!(rig.data(DataOp::Flush, 0, 0), Ok(None));
        let file = std::fs::read(&rig.data).unwrap();
        assert!(file[usize::try_from(offset).unwrap()..][..len] == data[..]);
        assert_eq!(rig.data(DataOp::Read, offset, len as u64), Ok(Some(data)));
    }
}

/// Of both partitions, with the bytes of those that ended well, and the rest as errors.
#[test]
fn each_operation_is_counted_once() {
    let mut rig = Rig::new(Setup::default());
    let data = pattern(8192);
    assert_eq!(rig.data(write(&data, false), 0, 8192), Ok(None));
    assert_eq!(rig.data(write(&data, true), 8192, 8192), Ok(None));
    assert!(rig.data(DataOp::Read, 0, 4096).is_ok());
    assert_eq!(rig.data(DataOp::Zero { unmap: false, durable: true }, 0, 65_536), Ok(None));
    assert_eq!(rig.data(DataOp::Flush, 0, 0), Ok(None));
    assert!(rig.data(DataOp::Read, 100, 4096).is_err());
    rig.act([Action::Meta { io: IoId(99), offset: 0, bytes: pattern(4096) }]);
    let Event::MetaDone { result: Ok(()), .. } = rig.next() else { panic!("written") };
    let figures = rig.driver().handle.figures(false).blocking_recv().unwrap();
    let of = |t: &Traffic| (t.time.count, t.bytes, t.errors);
    assert_eq!(of(&figures.disk.write), (2, 16_384, 0));
    assert_eq!(of(&figures.disk.read), (1, 4096, 1));
    assert_eq!(of(&figures.disk.zero), (1, 65_536, 0));
    assert_eq!(of(&figures.disk.flush), (1, 0, 0));
    assert_eq!(of(&figures.cluster), (1, 4096, 0));
}

#[test]
fn zeroed_ranges_read_as_zeros_and_their_neighbours_stay() {
    let mut rig = Rig::new(Setup::default());
    let data = pattern(1 << 20);
    for (unmap, durable) in [(false, false), (false, true), (true, false), (true, true)] {
        assert_eq!(rig.data(write(&data, false), 0, 1 << 20), Ok(None));
        let zero = DataOp::Zero { unmap, durable };
        assert_eq!(rig.data(zero, 65_536, 131_072), Ok(None));
        let mut expected = data.to_vec();
        expected[65_536..196_608].fill(0);
        assert!(rig.data(DataOp::Read, 0, 1 << 20).unwrap().unwrap()[..] == expected[..]);
    }
    assert_eq!(std::fs::metadata(&rig.data).unwrap().len(), DATA_SIZE);
}

#[test]
fn what_direct_io_cannot_do_never_reaches_the_disk() {
    let mut rig = Rig::new(Setup::default());
    let data = pattern(4096);
    for (op, offset, len) in [
        (DataOp::Read, 100, 4096),
        (DataOp::Read, 0, 100),
        (DataOp::Read, 0, 0),
        (DataOp::Read, 0, 2 << 20),
        (DataOp::Read, DATA_SIZE, 4096),
        (write(&data, false), DATA_SIZE - 4096, 8192),
        (write(&data, false), 0, 8192),
        (write(&data, false), u64::MAX - 4095, 4096),
        (DataOp::Zero { unmap: false, durable: false }, 1, 4096),
    ] {
        let result = rig.data(op.clone(), offset, len);
        assert_eq!(result, Err(IoFailure::Errno(libc::EINVAL)), "{op:?} {offset} {len}");
    }
}

#[test]
fn the_cluster_partition_takes_blocks() {
    let rig = Rig::new(Setup::default());
    rig.act([Action::Meta { io: IoId(7), offset: 8192, bytes: pattern(4096) }]);
    let Event::MetaDone { io: IoId(7), result: Ok(()) } = rig.next() else { panic!("no end") };
    assert_eq!(std::fs::read(&rig.cluster).unwrap()[8192..12_288], pattern(4096)[..]);
}

#[test]
fn many_operations_at_once_all_end() {
    let rig = Rig::new(Setup::default());
    let data = pattern(4096);
    let extent = |i: u64| mirror_core::units::Extent::new(i * 4096, 4096);
    rig.act((0..1000).map(|i| Action::Data {
        io: IoId(i),
        op: write(&data, false),
        extent: extent(i),
    }));
    let mut ended: Vec<_> = (0..1000)
        .map(|_| match rig.next() {
            Event::DataDone { io, result: Ok(None) } => io,
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, (0..1000).map(IoId).collect::<Vec<_>>());
}

#[test]
fn a_partition_has_one_user_until_its_driver_has_stopped() {
    let mut rig = Rig::new(Setup::default());
    for path in [&rig.data, &rig.cluster] {
        let again = Partition::open(path, Duration::from_millis(100));
        assert!(matches!(again, Err(OpenError::InUse { .. })), "{again:?}");
    }
    assert_eq!(rig.stop(), Report::Ended(Ok(())));
    Partition::open(&rig.data, LIMIT).unwrap();
    Partition::open(&rig.cluster, LIMIT).unwrap();
}

#[test]
fn a_partition_can_be_read_and_written_before_the_driver_runs() {
    let folder = tempfile::tempdir().unwrap();
    let opened = rig::open(&partition(folder.path(), "p", 65_536));
    assert_eq!(opened.size(), 65_536);
    opened.write(8192, &pattern(4096)).unwrap();
    assert_eq!(opened.read(8192, 4096).unwrap(), pattern(4096));
    assert!(opened.read(65_536, 4096).is_err());
}

#[test]
fn timers_orders_and_reports_arrive() {
    let mut rig = Rig::new(Setup::default());
    let due = now().mono.plus(50);
    rig.script.lock().unwrap().deadline = Some(due);
    rig.act([]);
    let Event::Timer = rig.next() else { panic!("no timer") };
    assert!(now().mono >= due);
    let status = rig.driver().handle.status().blocking_recv().unwrap();
    assert_eq!(status.session, 4711);
    rig.act([
        Action::Notice(Notice::Broke),
        Action::TellPeerBehind { session: SessionNo(3) },
        Action::FailDevice,
    ]);
    let reports = &mut rig.driver.as_mut().unwrap().reports;
    let mut told: Vec<_> = (0..3).map(|_| reports.blocking_recv().unwrap()).collect();
    told.sort_by_key(|r| format!("{r:?}"));
    let expected = [
        Report::DeviceFailed,
        Report::Notice(Notice::Broke),
        Report::TellPeerBehind { session: SessionNo(3) },
    ];
    assert_eq!(told, expected);
}

/// How often the driver's thread has gone to sleep so far.
fn sleeps() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let idle = tasks.filter_map(|t| std::fs::read_to_string(t.unwrap().path().join("status")).ok());
    idle.filter(|s| s.starts_with("Name:\tmirror-idle"))
        .flat_map(|s| s.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|l| l.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
        .sum()
}

#[test]
fn an_idle_driver_sleeps() {
    let setup = Setup { listen: vec![rig::free_address()], name: "idle", ..Setup::default() };
    let rig = Rig::new(setup);
    rig.act([]);
    std::thread::sleep(Duration::from_millis(200)); // the act's own wake-ups
    let before = sleeps();
    assert!(before > 0);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sleeps(), before);
}

#[test]
fn applications_reach_the_disk_through_the_front_end() {
    let rig = Rig::new(Setup::default());
    let path = rig.folder.path().join("nbd.sock");
    let export = Export { name: "md1".into(), size: DATA_SIZE, block: 512 };
    let spec = FrontEndSpec::NbdSocket { path: path.clone(), export };
    let handle = &rig.driver().handle;
    handle.open_front_end(spec.clone()).blocking_recv().unwrap().unwrap();
    let again = handle.open_front_end(spec.clone()).blocking_recv().unwrap();
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);

    let mut client = Client::connect(&path);
    let data = pattern(3 << 20);
    assert_eq!(client.write(512, &data), 0);
    assert!(client.read(512, 3 << 20).unwrap() == data[..]);
    assert!(std::fs::read(&rig.data).unwrap()[512..][..3 << 20] == data[..]);

    handle.close_front_end().blocking_recv().unwrap();
    assert!(!path.exists() && client.is_closed());
    handle.close_front_end().blocking_recv().unwrap();
    handle.open_front_end(spec).blocking_recv().unwrap().unwrap();
    rig.act([Action::FailDevice]);
    let mut client = Client::connect(&path);
    assert_eq!(client.read(0, 512), Err(error::ESHUTDOWN));
}

#[test]
fn a_client_that_takes_no_answers_cannot_hold_the_front_end_open() {
    let rig = Rig::new(Setup::default());
    let path = rig.folder.path().join("nbd.sock");
    let export = Export { name: "md1".into(), size: DATA_SIZE, block: 512 };
    let handle = &rig.driver().handle;
    let spec = FrontEndSpec::NbdSocket { path: path.clone(), export };
    handle.open_front_end(spec).blocking_recv().unwrap().unwrap();
    let mut client = Client::connect(&path);
    (0..8).for_each(|_| client.ask(command::READ, 0, 1 << 20, &[]));
    let begun = Instant::now();
    handle.close_front_end().blocking_recv().unwrap();
    assert!(begun.elapsed() < LIMIT);
}
