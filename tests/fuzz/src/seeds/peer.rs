//! Scripts for the mirror with the lying peer: agreements that come to a session, and what may
//! follow. A step is a byte that chooses it and the bytes that it reads.

/// The next connection.
const CONNECT: [u8; 1] = [27];
/// An honest agreement with the mirror's own card, unchanged.
const AGREE: [u8; 4] = [29, 0, 0, 2];
/// The disks answer all.
const SETTLE: [u8; 1] = [18];
/// An honest answer to the oldest question.
const ANSWER: [u8; 2] = [31, 0];
/// Disks and peer go on, as far as they come.
const CONVERSE: [u8; 2] = [19, 250];
/// One round of it.
const ROUND: [u8; 2] = [19, 1];
const LOSE: [u8; 1] = [30];
const READ: [u8; 5] = [20, 0, 0, 0, 7];
const WRITE: [u8; 5] = [20, 1, 16, 0, 7];
const FLUSH: [u8; 5] = [20, 3, 0, 0, 0];
const ACTIVATE: [u8; 3] = [23, 0, 0];
const VOUCHED: [u8; 3] = [23, 15, 0];
const DEACTIVATE: [u8; 3] = [23, 6, 0];
const FORCE: [u8; 3] = [23, 10, 0];
const STOP: [u8; 3] = [23, 14, 0];
const SECOND: [u8; 2] = [25, 25];

/// First or second server; blank, constructed and in sync, behind, or the latest.
const STARTS: [[u8; 2]; 8] =
    [[0, 0], [1, 0], [0, 1], [1, 1], [0, 3], [1, 0x23], [0, 0x13], [1, 0x4b]];

fn frame(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[0, kind], rest].concat()
}

/// A card with `change` made to the mirror's own, in an agreement that is else honest.
fn agree_with(change: &[u8]) -> Vec<u8> {
    [&[29, 0, 1], change, &[2]].concat()
}

fn agree_with_two(one: &[u8], two: &[u8]) -> Vec<u8> {
    [&[29, 0, 2], one, two, &[2]].concat()
}

pub(super) fn scripts() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for start in STARTS {
        let session = [&start[..], &CONNECT, &AGREE, &ANSWER, &SETTLE, &ANSWER, &SETTLE].concat();
        all.push(session.clone());
        all.push([&session[..], &active()].concat());
        all.push([&session[..], &standby()].concat());
        all.push([&session[..], &LOSE, &VOUCHED, &WRITE, &SECOND, &SETTLE, &STOP].concat());
        all.push([&start[..], &FORCE, &SETTLE, &CONNECT, &AGREE, &ANSWER].concat());
    }
    for start in STARTS {
        all.extend(recoveries(&start));
    }
    all.extend(lies());
    all.extend(found());
    all
}

fn active() -> Vec<u8> {
    let answers = [ANSWER; 4].concat();
    [
        &ACTIVATE[..],
        &ANSWER,
        &SETTLE,
        &ANSWER,
        &WRITE,
        &READ,
        &FLUSH,
        &SETTLE,
        &answers,
        &DEACTIVATE,
        &SETTLE,
        &answers,
        &SETTLE,
        &STOP,
        &STOP,
    ]
    .concat()
}

/// Whole recoveries in both directions, after a time alone, a force, or a fresh start, and the same
/// with one lie in them.
fn recoveries(start: &[u8]) -> Vec<Vec<u8>> {
    let whole = [start, &AGREE, &CONVERSE].concat();
    let alone = [&whole[..], &ACTIVATE, &CONVERSE, &WRITE, &CONVERSE, &LOSE, &WRITE, &SECOND];
    let alone = [&alone.concat()[..], &SECOND, &SECOND, &SETTLE].concat();
    let back = [&alone[..], &agree_with(&[6, 2])].concat();
    let forced = [start, &FORCE, &SETTLE, &SECOND, &agree_with(&[6, 3]), &CONVERSE].concat();
    // A peer that has gone on from what this side has, and one that was forced.
    let newer = [start, &agree_with_two(&[6, 0x3a], &[8, 1, 2]), &CONVERSE].concat();
    let over = [start, &agree_with_two(&[6, 0x3a], &[9, 1, 2]), &CONVERSE].concat();
    let mut all = vec![whole, forced, newer.clone(), over];
    all.push([&back[..], &CONVERSE, &STOP].concat());
    for rounds in [2, 4, 7, 9, 11] {
        let part = [&newer[..newer.len() - 2], &ROUND.repeat(rounds)].concat();
        all.push([&part[..], &[31, 200, 0, 0, 0, 0], &CONVERSE].concat());
        all.push([&part[..], &LOSE, &AGREE, &CONVERSE].concat());
        let part = [&back[..], &ROUND.repeat(rounds)].concat();
        all.push([&part[..], &[31, 200, 1, 1, 1, 1], &CONVERSE].concat());
        all.push([&part[..], &LOSE, &FORCE, &SETTLE, &AGREE, &CONVERSE].concat());
    }
    all
}

/// What a source sends: the copy, and writes beside it.
fn standby() -> Vec<u8> {
    [
        frame(7, &[7, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        SETTLE.to_vec(),
        frame(12, &[1, 0, 0, 7, 8, 0]),
        frame(15, &[1, 32, 0, 7, 8]),
        frame(13, &[1, 64, 0, 7, 8, 1, 1]),
        frame(19, &[8, 1, 64, 0, 7]),
        frame(14, &[8]),
        SETTLE.to_vec(),
        frame(10, &[7, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa0]),
        SETTLE.to_vec(),
    ]
    .concat()
}

/// Cards that no mirror has: numbers at their end, sizes and blocks that do not exist.
fn lies() -> Vec<Vec<u8>> {
    let changes: [&[u8]; 8] =
        [&[12, 5], &[14, 5], &[15, 5], &[4, 5], &[5, 2], &[5, 10], &[10, 1, 5], &[11, 5]];
    STARTS
        .iter()
        .flat_map(|start| {
            changes.map(|c| [&start[..], &agree_with(c), &ACTIVATE, &SETTLE, &FORCE].concat())
        })
        .collect()
}

/// What broke a promise once. They are kept as files in `regressions`, too.
fn found() -> Vec<Vec<u8>> {
    let asked_too_high = frame(22, &[5]);
    vec![
        [&[0, 1][..], &STOP, &SETTLE, &STOP].concat(),
        [&[1, 1][..], &CONNECT, &AGREE, &SETTLE, &asked_too_high, &SETTLE, &LOSE, &VOUCHED]
            .concat(),
    ]
}
