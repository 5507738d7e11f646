//! The transmission phase without sockets: framing, bounds, splitting, errors.

mod support;

use kmod_shim::nbd::Export;
use kmod_shim::nbd::connection::{Connection, MAX_REQUESTS, Part};
use kmod_shim::nbd::protocol::{RequestHeader, command, command_flag, error, simple_reply};
use mirror_core::buf::{ALIGN, Buf};
use mirror_core::io::{Request, RequestError, RequestId, RequestOp};
use mirror_core::units::MAX_EXTENT_BYTES;
use proptest::prelude::*;
use std::sync::Arc;
use support::MemoryDisk;

const SIZE: u64 = 48 << 20;

fn negotiated() -> Connection {
    let export = Export { name: "md1".into(), size: SIZE, block: 512 };
    let mut connection = Connection::new(Arc::new(export));
    let mut hello = vec![0, 0, 0, 3];
    hello.extend(b"IHAVEOPT");
    hello.extend([0, 0, 0, 1, 0, 0, 0, 0]); // EXPORT_NAME, empty
    let mut parts = Vec::new();
    assert_eq!(feed(&mut connection, &hello, &mut parts), hello.len());
    assert_eq!(sent(&mut connection).len(), 18 + 10);
    connection
}

/// Hands over `bytes` as far as the connection wants them; how many it took.
fn feed(connection: &mut Connection, bytes: &[u8], parts: &mut Vec<Part>) -> usize {
    feed_in_pieces(connection, bytes, usize::MAX, parts)
}

fn feed_in_pieces(
    connection: &mut Connection,
    bytes: &[u8],
    piece: usize,
    parts: &mut Vec<Part>,
) -> usize {
    let mut taken = 0;
    while taken < bytes.len() {
        let Some((mut buf, range)) = connection.lend() else { break };
        let count = range.len().min(bytes.len() - taken).min(piece);
        assert!(count > 0, "an empty buffer was lent");
        buf[range.start..range.start + count].copy_from_slice(&bytes[taken..taken + count]);
        taken += count;
        connection.received(buf, count);
        connection.advance(parts);
    }
    taken
}

fn sent(connection: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(pieces) = connection.output() {
        pieces.iter().for_each(|p| bytes.extend_from_slice(p));
    }
    bytes
}

fn header(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    RequestHeader { flags, command, cookie, offset, length }.encode().to_vec()
}

fn as_request(part: &Part) -> Request {
    Request { id: RequestId(0), op: part.op.clone(), extent: part.extent, fua: part.fua }
}

/// Answers parts from `disk` until there are none left.
fn work(connection: &mut Connection, parts: &mut Vec<Part>, disk: &mut MemoryDisk) -> usize {
    let mut count = 0;
    while !parts.is_empty() {
        for part in std::mem::take(parts) {
            assert!(part.extent.len <= MAX_EXTENT_BYTES);
            connection.ended(part.id, disk.serve(&as_request(&part)));
            count += 1;
        }
        connection.advance(parts);
    }
    count
}

#[test]
fn a_write_lands_once_in_aligned_memory() {
    let mut c = negotiated();
    let mut parts = Vec::new();
    let payload: Vec<u8> = (0..200_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let payload = &payload[..199_680];
    feed(&mut c, &header(command::WRITE, command_flag::FUA, 7, 1024, 199_680), &mut parts);
    assert!(parts.is_empty());
    feed(&mut c, payload, &mut parts);
    let [part] = parts.as_slice() else { panic!("one part") };
    let RequestOp::Write(data) = &part.op else { panic!("a write") };
    assert_eq!((&data[..], data.as_ptr().align_offset(ALIGN)), (payload, 0));
    assert!(part.fua);
    assert_eq!((part.extent.offset, part.extent.len), (1024, 199_680));
    c.ended(part.id, Ok(None));
    assert_eq!(sent(&mut c), simple_reply(7, 0));
}

#[test]
fn requests_become_what_they_should() {
    let mut c = negotiated();
    let mut parts = Vec::new();
    let mut input = header(command::TRIM, 0, 1, 0, 512);
    input.extend(header(command::WRITE_ZEROES, 0, 2, 512, 512));
    input.extend(header(
        command::WRITE_ZEROES,
        command_flag::NO_HOLE | command_flag::FUA,
        3,
        0,
        512,
    ));
    input.extend(header(command::FLUSH, 0, 4, 0, 0));
    input.extend(header(command::READ, 0, 5, 4096, 1024));
    feed(&mut c, &input, &mut parts);
    let seen: Vec<_> =
        parts.iter().map(|p| (p.op.clone(), p.extent.offset, p.extent.len, p.fua)).collect();
    let expected = [
        (RequestOp::Zero { unmap: true }, 0, 512, false),
        (RequestOp::Zero { unmap: true }, 512, 512, false),
        (RequestOp::Zero { unmap: false }, 0, 512, true),
        (RequestOp::Flush, 0, 0, false),
        (RequestOp::Read, 4096, 1024, false),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn bad_requests_are_refused_and_the_framing_holds() {
    let mut c = negotiated();
    let mut parts = Vec::new();
    let end = SIZE;
    let mut input = Vec::new();
    let mut expected = Vec::new();
    for (cookie, (command, flags, offset, length)) in [
        (command::READ, 0, 1, 512),
        (command::READ, 0, 0, 511),
        (command::READ, 0, end, 512),
        (command::READ, 0, end - 512, 1024),
        (command::READ, 0, u64::MAX - 511, 512),
        (command::READ, 0, 0, 0),
        (command::READ, 0, 0, 33 << 20),
        (command::WRITE, 0, 1, 512),
        (command::WRITE, 0, end, 100_000),
        (command::WRITE, 0, 0, 33 << 20),
        (command::WRITE, 0x40, 0, 512),
        (command::READ, command_flag::NO_HOLE, 0, 512),
        (5, 0, 0, 512),
        (4711, 0, 0, 512),
    ]
    .into_iter()
    .enumerate()
    {
        input.extend(header(command, flags, cookie as u64, offset, length));
        if command == command::WRITE {
            input.extend(vec![0x25; length as usize]);
        }
        expected.extend(simple_reply(cookie as u64, error::EINVAL));
    }
    assert_eq!(feed(&mut c, &input, &mut parts), input.len());
    assert!(parts.is_empty());
    assert_eq!(sent(&mut c), expected);
    feed(&mut c, &header(command::READ, 0, 99, 0, 512), &mut parts);
    assert_eq!(parts.len(), 1, "still in step");
}

#[test]
fn long_requests_are_split_with_few_parts_in_flight_and_answered_once() {
    let mut disk = MemoryDisk::new(usize::try_from(SIZE).unwrap());
    disk.bytes.fill(9);
    let mut c = negotiated();
    let mut parts = Vec::new();
    let mib = 1_u32 << 20;
    feed(&mut c, &header(command::WRITE_ZEROES, 0, 1, 512, 40 * mib), &mut parts);
    assert_eq!(parts.len(), 8);
    assert_eq!(work(&mut c, &mut parts, &mut disk), 40);
    assert_eq!(sent(&mut c), simple_reply(1, 0));
    assert!(disk.bytes[512..512 + (40 << 20)].iter().all(|b| *b == 0));
    assert_eq!((disk.bytes[511], disk.bytes[512 + (40 << 20)]), (9, 9));

    feed(&mut c, &header(command::READ, 0, 2, 0, 20 * mib + 512), &mut parts);
    assert_eq!(work(&mut c, &mut parts, &mut disk), 21);
    let answer = sent(&mut c);
    assert_eq!(answer[..16], simple_reply(2, 0));
    assert!(answer[16..] == disk.bytes[..(20 << 20) + 512]);
}

#[test]
fn a_long_write_waits_for_room_and_arrives_whole() {
    let mut disk = MemoryDisk::new(usize::try_from(SIZE).unwrap());
    let mut c = negotiated();
    let mut parts = Vec::new();
    let length = 20_u32 << 20;
    let payload: Vec<u8> =
        (0..length / 4).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    feed(&mut c, &header(command::WRITE, 0, 3, 4096, length), &mut parts);
    let mut taken = 0;
    let mut rounds = 0;
    while taken < payload.len() {
        taken += feed(&mut c, &payload[taken..], &mut parts);
        assert!(parts.len() <= 8, "{} parts", parts.len());
        for part in std::mem::take(&mut parts) {
            c.ended(part.id, disk.serve(&as_request(&part)));
        }
        c.advance(&mut parts);
        rounds += 1;
    }
    work(&mut c, &mut parts, &mut disk);
    assert!(rounds > 1);
    assert_eq!(sent(&mut c), simple_reply(3, 0));
    assert!(disk.bytes[4096..][..payload.len()] == payload[..]);
}

#[test]
fn one_failed_part_fails_the_request_and_stops_the_rest() {
    let mut c = negotiated();
    let mut parts = Vec::new();
    feed(&mut c, &header(command::TRIM, 0, 1, 0, 40 << 20), &mut parts);
    let first: Vec<Part> = std::mem::take(&mut parts);
    for (i, part) in first.iter().enumerate() {
        assert!(sent(&mut c).is_empty());
        let result = if i == 2 { Err(RequestError::Io) } else { Ok(None) };
        c.ended(part.id, result);
    }
    c.advance(&mut parts);
    assert!(parts.is_empty());
    assert_eq!(sent(&mut c), simple_reply(1, error::EIO));
}

#[test]
fn a_client_waits_when_the_bounds_are_reached() {
    let mut c = negotiated();
    let mut parts = Vec::new();
    let input: Vec<u8> = (0..200).flat_map(|i| header(command::FLUSH, 0, i, 0, 0)).collect();
    feed(&mut c, &input, &mut parts);
    assert_eq!(parts.len(), MAX_REQUESTS);
    assert!(c.lend().is_none());
    // An answer that was not taken for sending still counts.
    c.ended(parts[0].id, Ok(None));
    c.advance(&mut parts);
    assert_eq!(parts.len(), MAX_REQUESTS);
    assert_eq!(sent(&mut c).len(), 16);
    c.advance(&mut parts);
    assert_eq!(parts.len(), MAX_REQUESTS + 1);

    let mut c = negotiated();
    let mut parts = Vec::new();
    let input: Vec<u8> = (0..40).flat_map(|i| header(command::READ, 0, i, 0, 1 << 20)).collect();
    feed(&mut c, &input, &mut parts);
    assert_eq!(parts.len(), 32, "32 MiB of reads");
}

/// The kernel is told of a larger device while it is connected.
#[test]
fn what_was_added_can_be_addressed_by_a_client_that_is_connected() {
    let mut c = negotiated();
    let mut parts = Vec::new();
    let read = |cookie| header(command::READ, 0, cookie, SIZE, 512);
    feed(&mut c, &read(1), &mut parts);
    assert_eq!(sent(&mut c), simple_reply(1, error::EINVAL));
    c.grow(&Arc::new(Export { name: "md1".into(), size: SIZE + 4096, block: 512 }));
    feed(&mut c, &read(2), &mut parts);
    assert!(sent(&mut c).is_empty());
    assert_eq!(parts.len(), 1, "the core has it");
}

#[test]
fn a_failed_device_answers_everything_itself() {
    let mut c = negotiated();
    let mut parts = Vec::new();
    feed(&mut c, &header(command::TRIM, 0, 1, 0, 40 << 20), &mut parts);
    feed(&mut c, &header(command::WRITE, 0, 2, 0, 2048), &mut parts);
    feed(&mut c, &[1; 1024], &mut parts);
    parts.clear();
    c.fail();
    assert_eq!(sent(&mut c), simple_reply(1, error::ESHUTDOWN));
    feed(&mut c, &[1; 1024], &mut parts);
    assert_eq!(sent(&mut c), simple_reply(2, error::ESHUTDOWN));
    feed(&mut c, &header(command::READ, 0, 3, 0, 512), &mut parts);
    assert_eq!(sent(&mut c), simple_reply(3, error::ESHUTDOWN));
    assert!(parts.is_empty());
}

#[test]
fn stopping_answers_what_is_in_flight_and_then_ends() {
    let mut c = negotiated();
    let mut parts = Vec::new();
    feed(&mut c, &header(command::READ, 0, 1, 0, 512), &mut parts);
    feed(&mut c, &header(command::WRITE, 0, 2, 0, 2048), &mut parts);
    c.stop();
    assert!(c.lend().is_none() && !c.is_finished());
    c.ended(parts[0].id, Ok(Some(Buf::copied_from(&[5; 512]))));
    assert!(!c.is_finished());
    let mut expected = simple_reply(2, error::ESHUTDOWN).to_vec();
    expected.extend(simple_reply(1, 0));
    expected.extend([5; 512]);
    assert_eq!(sent(&mut c), expected);
    assert!(c.is_finished());
}

#[test]
fn a_client_that_goes_ends_the_connection_when_the_core_is_done() {
    for input in [header(command::DISC, 0, 0, 0, 0), vec![0xff; 28]] {
        let mut c = negotiated();
        let mut parts = Vec::new();
        feed(&mut c, &header(command::FLUSH, 0, 1, 0, 0), &mut parts);
        feed(&mut c, &input, &mut parts);
        assert!(c.lend().is_none() && !c.is_finished());
        c.ended(parts[0].id, Ok(None));
        assert_eq!(sent(&mut c), simple_reply(1, 0));
        assert!(c.is_finished());
    }
}

/// One request of the property test.
#[derive(Clone, Debug)]
enum Step {
    Write { at: u32, blocks: u32, fill: u8 },
    Zero { at: u32, blocks: u32 },
    Read { at: u32, blocks: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let place = (0_u32..400, 1_u32..300);
    prop_oneof![
        (place.clone(), any::<u8>()).prop_map(|((at, blocks), fill)| Step::Write {
            at,
            blocks,
            fill
        }),
        place.clone().prop_map(|(at, blocks)| Step::Zero { at, blocks }),
        place.prop_map(|(at, blocks)| Step::Read { at, blocks }),
    ]
}

/// The bytes of the client, and those of the server that answer them.
fn expected(steps: &[Step]) -> (Vec<u8>, Vec<u8>) {
    let mut model = vec![0_u8; 1 << 20];
    let (mut input, mut output) = (Vec::new(), Vec::new());
    for (cookie, step) in (0..).zip(steps) {
        output.extend(simple_reply(cookie, 0));
        let (Step::Write { at, blocks, .. }
        | Step::Zero { at, blocks }
        | Step::Read { at, blocks }) = *step;
        let (offset, length) = (at * 512, blocks * 512);
        let range = offset as usize..(offset + length) as usize;
        let command = match step {
            Step::Write { fill, .. } => {
                model[range.clone()].fill(*fill);
                command::WRITE
            }
            Step::Zero { .. } => {
                model[range.clone()].fill(0);
                command::WRITE_ZEROES
            }
            Step::Read { .. } => {
                output.extend(&model[range.clone()]);
                command::READ
            }
        };
        input.extend(header(command, 0, cookie, u64::from(offset), length));
        if let Step::Write { fill, .. } = step {
            input.extend(vec![*fill; range.len()]);
        }
    }
    (input, output)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_fragmentation_gives_the_answers_of_a_plain_disk(
        steps in prop::collection::vec(step(), 1..12),
        pieces in prop::collection::vec(1_usize..100_000, 1..20),
    ) {
        let (input, output) = expected(&steps);
        let mut disk = MemoryDisk::new(usize::try_from(SIZE).unwrap());
        let mut c = negotiated();
        let (mut parts, mut answers, mut taken) = (Vec::new(), Vec::new(), 0);
        for piece in pieces.iter().cycle() {
            let to = (taken + piece).min(input.len());
            taken += feed_in_pieces(&mut c, &input[taken..to], *piece, &mut parts);
            work(&mut c, &mut parts, &mut disk);
            answers.extend(sent(&mut c));
            if taken == input.len() {
                break;
            }
        }
        prop_assert!(answers == output);
    }

    #[test]
    fn garbage_does_no_harm(input in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut c = negotiated();
        let mut parts = Vec::new();
        feed_in_pieces(&mut c, &input, 7, &mut parts);
        prop_assert!(parts.is_empty());
    }
}
