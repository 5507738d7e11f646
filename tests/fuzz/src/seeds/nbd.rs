//! Scripts of NBD clients: a negotiation in the target's steps, and requests of every kind.

/// All that is on its way arrives.
const ARRIVE: u8 = 9;
const COLLECT: u8 = 12;
const END_ALL: u8 = 13;

/// A request: how, offset in blocks, length in blocks, command.
fn request(how: u8, offset: u16, length: u8, command: u8) -> Vec<u8> {
    [&[0, how], &offset.to_le_bytes()[..], &[length, command]].concat()
}

pub(super) fn scripts() -> Vec<Vec<u8>> {
    let all: Vec<u8> = (0..8).flat_map(|command| request(0, 8, 16, command)).collect();
    let fua: Vec<u8> = (0..8).flat_map(|command| request(32, 8, 16, command)).collect();
    let long: Vec<u8> = (0..8).flat_map(|command| request(2, 0, 16, command)).collect();
    let outside: Vec<u8> = (0..8).flat_map(|command| request(0, 0xffff, 255, command)).collect();
    let mut seeds: Vec<Vec<u8>> = [&all, &fua, &long, &outside]
        .iter()
        .map(|requests| [&[1][..], requests, &[ARRIVE, END_ALL, COLLECT]].concat())
        .collect();
    for piece in [1, 27, 100] {
        let pieces = [8, piece].repeat(30);
        seeds.push([&[1][..], &request(0, 0, 1, 1), &pieces, &[END_ALL, COLLECT]].concat());
    }
    seeds.push([&[1][..], &long, &[ARRIVE, 0xfe, END_ALL]].concat());
    seeds.push([&[1][..], &long, &[ARRIVE, 0xee, COLLECT]].concat());
    seeds.extend(negotiations());
    seeds
}

fn negotiations() -> Vec<Vec<u8>> {
    let flags = [5, 4, 0, 0, 0, 3];
    let go = [7, 0x20, 0, 0, 0, 3];
    let start = |parts: &[&[u8]]| [&[0], parts.concat().as_slice()].concat();
    vec![
        start(&[&flags, &go, &[ARRIVE, COLLECT], &request(0, 0, 1, 0), &[ARRIVE, END_ALL]]),
        start(&[&flags, &[6, 3, 0, 6, 8, 0, 6, 5, 0, 7, 2, ARRIVE, COLLECT, 6, 2, 0, ARRIVE]]),
        start(&[&flags, &[6, 1, 3, b'm', b'd', b'1', ARRIVE, COLLECT], &request(0, 0, 1, 1)]),
        start(&[&flags, &[6, 1, 2, b'm', b'd', ARRIVE, COLLECT]]),
    ]
}
