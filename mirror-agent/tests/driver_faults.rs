//! Injected faults: errors, delays, and operations that end after they were given up.
#![cfg(feature = "fault-injection")]
#![allow(clippy::unwrap_used)] // helpers of tests

mod rig;

use mirror_core::buf::Buf;
use mirror_core::io::{Action, DataOp, Event, IoFailure, IoId};
use mirror_core::units::Extent;
use nix::libc;
use rig::{Rig, Setup};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// The control file, when this process is the one with faults; else runs `test` in such a process.
fn control(test: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MIRROR_FAULTS") {
        return Some(path.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env("MIRROR_FAULTS", folder.path().join("faults"))
        .status();
    assert!(status.unwrap().success());
    None
}

fn write() -> DataOp {
    DataOp::Write { data: Buf::copied_from(&[7; 4096]), durable: false }
}

#[test]
fn errors_hit_the_kind_and_partition_that_they_name() {
    let name = "errors_hit_the_kind_and_partition_that_they_name";
    let Some(control) = control(name) else { return };
    let mut rig = Rig::new(Setup::default());
    let failed = Err(IoFailure::Errno(libc::EIO));
    for (kind, results) in [
        ("write", [failed.clone(), Ok(None), Ok(None)]),
        ("flush", [Ok(None), failed.clone(), Ok(None)]),
        ("none", [Ok(None), Ok(None), Ok(None)]),
    ] {
        std::fs::write(&control, format!("{} {kind} fail\n", rig.data.display())).unwrap();
        let zero = DataOp::Zero { unmap: false, durable: false };
        assert_eq!(rig.data(write(), 0, 4096), results[0]);
        assert_eq!(rig.data(zero, 0, 4096), results[0]);
        assert_eq!(rig.data(DataOp::Flush, 0, 0), results[1]);
        assert!(rig.data(DataOp::Read, 0, 4096).is_ok());
    }
    std::fs::write(&control, format!("{} write fail\n", rig.cluster.display())).unwrap();
    assert_eq!(rig.data(write(), 0, 4096), Ok(None));
    rig.act([Action::Meta { io: IoId(99), offset: 0, bytes: Buf::copied_from(&[1; 4096]) }]);
    let Event::MetaDone { io: IoId(99), result } = rig.next() else { panic!("no end") };
    assert_eq!(result, Err(IoFailure::Errno(libc::EIO)));
}

#[test]
fn an_operation_over_its_limit_fails_and_its_end_is_still_told() {
    let Some(control) = control("an_operation_over_its_limit_fails_and_its_end_is_still_told")
    else {
        return;
    };
    let rig = Rig::new(Setup { disk_limit: Duration::from_millis(200), ..Setup::default() });
    std::fs::write(&control, format!("{} write delay 600\n", rig.data.display())).unwrap();
    let begun = Instant::now();
    let extent = Extent::new(0, 4096);
    rig.act([
        Action::Data { io: IoId(1), op: write(), extent },
        Action::Data { io: IoId(2), op: DataOp::Read, extent },
    ]);
    let mut results = Vec::new();
    for _ in 0..3 {
        match rig.next() {
            Event::DataDone { io, result } => {
                results.push((io.0, result.map(|_| ()), begun.elapsed().as_millis()));
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    let [read, given_up, late] = results.as_slice() else { panic!("three") };
    assert_eq!((read.0, &read.1), (2, &Ok(())));
    assert_eq!((given_up.0, &given_up.1), (1, &Err(IoFailure::TimedOut)));
    assert!(given_up.2 >= 200 && given_up.2 < 600, "{}", given_up.2);
    assert_eq!((late.0, &late.1), (1, &Ok(())));
    assert!(late.2 >= 600, "{}", late.2);
    assert_eq!(std::fs::read(&rig.data).unwrap()[..4096], [7; 4096]);
    let figures = rig.driver().handle.figures(false).blocking_recv().unwrap();
    let written = &figures.disk.write;
    assert_eq!((written.time.count, written.errors), (0, 1), "it has failed, once");
}
