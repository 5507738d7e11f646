//! What the kernel's block drivers say: ublk's descriptions of requests, the nbd driver's answers
//! over netlink, and what sysfs tells of an nbd device.

use crate::input::Input;
use kmod_shim::nbd::kernel::{found, number_in};
use kmod_shim::ublk::Wanted;
use mirror_agent::host::nbd_devices::Identity;
use mirror_core::io::RequestOp;
use mirror_core::units::Extent;
use std::path::Path;

/// Bytes of the buffer of a tag.
const BUFFER: [u8; 8192] = [0xa5; 8192];

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.u8() & 3 {
        0 => check_identifier(input.rest()),
        1 => check_answer(input.rest()),
        2 => check_device(input.rest()),
        _ => {
            while !input.is_empty() {
                check_request(&input.fixed());
            }
        }
    }
}

fn check_answer(bytes: &[u8]) {
    let Some(end) = number_in(bytes, 7) else { return };
    // What follows the end changes nothing.
    let again = number_in(&[bytes, &[0; 64]].concat(), 7).expect("the end is in it");
    assert_eq!(end.map_err(|e| e.raw_os_error()), again.map_err(|e| e.raw_os_error()));
}

fn check_device(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(4, '/');
    let names = ["pid", "size", "queue/logical_block_size", "backend"];
    let files: Vec<_> = names.iter().zip(&mut parts).collect();
    let file = |name: &str| files.iter().find(|(n, _)| **n == name).map(|(_, t)| (*t).to_owned());
    if let Some(device) = found(3, file) {
        assert!(files.len() == 4 && device.size % 512 == 0);
    }
}

fn check_request(description: &[u8; 24]) {
    let Some(wanted) = Wanted::parse(description, &BUFFER) else { return };
    let len = wanted.extent.len;
    assert!(len % 512 == 0 && wanted.extent.offset % 512 == 0);
    match &wanted.op {
        RequestOp::Read => assert!(len <= 8192, "more than the buffer of the answer"),
        RequestOp::Write(data) => assert_eq!(data.len() as u64, len),
        RequestOp::Zero { .. } => {}
        RequestOp::Flush => assert_eq!(wanted.extent, Extent::default()),
    }
    let moves = matches!(wanted.op, RequestOp::Read | RequestOp::Write(_));
    assert_eq!(u64::from(wanted.reported), if moves { len } else { 0 });
}

fn check_identifier(bytes: &[u8]) {
    let run_dir = Path::new("/run/clpmd");
    let text = String::from_utf8_lossy(bytes);
    for text in [text.clone().into_owned(), format!("clpmd:/run/clpmd:{text}")] {
        let Some(identity) = Identity::parse(&text, run_dir) else { continue };
        let again = Identity::parse(&identity.text(run_dir), run_dir);
        assert_eq!(again, Some(identity), "what is read can be written");
    }
}
