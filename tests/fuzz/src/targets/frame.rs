//! One frame of the mirror connect behind its tag: header, payload, body. Two spellings of the
//! input: bytes as they are, and bytes whose checksums were made to fit.

use crate::input::Input;
use mirror_core::buf::Buf;
use mirror_core::wire::codec::{decode, encode};
use mirror_core::wire::header::{HEADER_BYTES, Header, TAG_BYTES};

/// Where the checksum of the header is, after everything that it covers, and that of the payload.
const AT_CRC: usize = HEADER_BYTES - TAG_BYTES - 4;
const AT_PAYLOAD_CRC: usize = AT_CRC - 4;

/// Makes the lengths and checksums of `head` those of `payload`, as far as `how` says.
pub(crate) fn fit(how: u8, head: &mut [u8; HEADER_BYTES], payload: &[u8]) {
    if how & 1 == 0 {
        head[..2].copy_from_slice(&[0xB5, 0x01]);
    }
    if how & 2 == 0 && head[3] & 0x80 != 0 {
        let len = u32::try_from(payload.len()).expect("short");
        head[4..8].copy_from_slice(&len.to_le_bytes());
        let crc = crc32fast::hash(payload);
        head[AT_PAYLOAD_CRC..AT_CRC].copy_from_slice(&crc.to_le_bytes());
    }
    if how & 4 == 0 {
        let crc = crc32fast::hash(&head[..AT_CRC]);
        head[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.u8();
    let mut head: [u8; HEADER_BYTES] = input.fixed();
    let payload = input.rest();
    fit(how, &mut head, payload);
    let Ok(header) = Header::decode(&head) else { return };
    assert!(header.payload_len() <= 1 << 20, "a length that may be allocated");
    let sent = header.encode().expect("what is accepted can be said");
    assert_eq!(sent[..HEADER_BYTES - TAG_BYTES], head[..HEADER_BYTES - TAG_BYTES]);
    let buf = (header.payload_len() > 0).then(|| Buf::copied_from(payload));
    let Ok(frame) = decode(&header, buf) else { return };
    let again = encode(&frame).expect("what is accepted can be said");
    assert_eq!(again.head[..HEADER_BYTES - TAG_BYTES], head[..HEADER_BYTES - TAG_BYTES]);
    assert_eq!(again.payload_bytes(), if header.payload_len() > 0 { payload } else { &[] });
    let _ = format!("{frame:?}");
}
