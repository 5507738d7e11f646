//! What the kernel's block drivers say: descriptions, answers, files of sysfs.

/// A description of a request: operation and flags, sectors, first sector.
fn description(op: u32, sectors: u32, start: u64) -> Vec<u8> {
    let mut bytes = [&op.to_ne_bytes()[..], &sectors.to_ne_bytes(), &start.to_ne_bytes()].concat();
    bytes.extend([0; 8]); // the address of a buffer
    bytes
}

/// A message of netlink with the number that the target waits for.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).expect("short");
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0, 0]].concat();
    bytes.extend(7_u32.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub(super) fn answers() -> Vec<Vec<u8>> {
    let requests: Vec<u8> = [0, 1, 2, 3, 5, 13, 1 | 1 << 13, 5 | 1 << 15]
        .iter()
        .flat_map(|op| description(*op, 8, 64))
        .collect();
    let index = [&[1, 0, 0, 0, 8, 0, 1, 0][..], &9_u32.to_ne_bytes()].concat();
    let good = [message(0x1c, &index), message(2, &[0; 20])].concat();
    let refused = message(2, &(-16_i32).to_ne_bytes());
    vec![
        [&[3], &requests[..]].concat(),
        [&[3], &description(1, 1 << 20, u64::MAX / 512)[..]].concat(),
        [&[1], &good[..]].concat(),
        [&[1], &refused[..]].concat(),
        [&[1], &message(2, &i32::MIN.to_ne_bytes())[..]].concat(),
        b"\x0212\n/2048\n/512\n/clpmd:x\n".to_vec(),
        b"\x0212\n/36028797018963968\n/512\n/clpmd:x\n".to_vec(),
        b"\0md1:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a:7:60".to_vec(),
    ]
}
