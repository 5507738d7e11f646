//! The fixed header of every frame: 64 bytes, little-endian (`docs/protocol.md`).
//!
//! One length field serves extent and payload, because no message has both at different lengths:
//! for a message with an extent it is the extent's length, and a payload, if the message carries
//! one, has that same length.

use super::error::FrameError;
use crate::units::{Extent, MAX_EXTENT_BYTES, MAX_MIRROR_BYTES};
use std::ops::Range;

/// Bytes of a frame header, tag included.
pub const HEADER_BYTES: usize = 64;

/// Bytes of the tag at the end of the header.
pub const TAG_BYTES: usize = 16;

/// Largest payload of a data frame (`Write`, `Copy`, `ReadReply`) in bytes: one extent.
pub const MAX_DATA_BYTES: u32 = 1024 * 1024;

/// Largest body of `Card`, `Beat` and `Adopt` in bytes.
pub const MAX_BODY_BYTES: u32 = 4096;

/// Largest bit string of one `Marks` frame in bytes: the marks of 32 GiB.
pub const MAX_MARKS_BYTES: u32 = 64 * 1024;

/// Flag: as many payload bytes as the length field says follow the header.
pub const FLAG_PAYLOAD: u8 = 0x80;

/// Flag, reserved: the payload is encrypted and the tag is the cipher's.
pub const FLAG_ENCRYPTED: u8 = 0x40;

/// `Write`, `Zero`: durable before the ack.
pub const FLAG_DURABLE: u8 = 0x01;
/// `Zero`: space may be released.
pub const FLAG_UNMAP: u8 = 0x02;
/// `CopyStart`: everything is copied.
pub const FLAG_ALL: u8 = 0x01;
/// `CopyStart`: the target stays complete.
pub const FLAG_COMPLETE: u8 = 0x02;
/// `Ack`: the operation succeeded.
pub const FLAG_OK: u8 = 0x01;
/// `Bye`: drained and flushed.
pub const FLAG_CLEAN: u8 = 0x01;

/// First two bytes of every frame; the second is the layout of the header.
pub const MAGIC: [u8; 2] = [0xB5, 0x01];

const AT_MAGIC: Range<usize> = 0..2;
const AT_KIND: usize = 2;
const AT_FLAGS: usize = 3;
const AT_LENGTH: Range<usize> = 4..8;
const AT_SESSION: Range<usize> = 8..16;
const AT_SETTLED: Range<usize> = 16..24;
const AT_ID: Range<usize> = 24..32;
const AT_OFFSET: Range<usize> = 32..40;
const AT_PAYLOAD_CRC: Range<usize> = 40..44;
const AT_HEADER_CRC: Range<usize> = 44..48;
/// The tag covers everything before it.
pub(super) const AT_TAG: Range<usize> = 48..64;

const _: () = {
    assert!(AT_MAGIC.end == AT_KIND && AT_KIND + 1 == AT_FLAGS && AT_FLAGS + 1 == AT_LENGTH.start);
    assert!(AT_LENGTH.end == AT_SESSION.start && AT_SESSION.end == AT_SETTLED.start);
    assert!(AT_SETTLED.end == AT_ID.start && AT_ID.end == AT_OFFSET.start);
    assert!(AT_OFFSET.end == AT_PAYLOAD_CRC.start && AT_PAYLOAD_CRC.end == AT_HEADER_CRC.start);
    assert!(AT_HEADER_CRC.end == AT_TAG.start && AT_TAG.end == HEADER_BYTES);
    assert!(AT_TAG.end - AT_TAG.start == TAG_BYTES);
    assert!(MAX_DATA_BYTES as u64 == MAX_EXTENT_BYTES);
};

macro_rules! kinds {
    ($($name:ident = $number:literal,)*) => {
        /// The messages by number. A number is never given to another message.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        #[allow(missing_docs)] // each is documented at `Message`
        pub enum Kind {
            $($name = $number,)*
        }

        impl Kind {
            /// Every message of this version.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The message with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    Card = 1,
    Verdict = 2,
    Offer = 3,
    Accept = 4,
    Opened = 5,
    Marks = 6,
    MarksEnd = 7,
    CopyStart = 8,
    CopyReady = 9,
    CopyStop = 10,
    Adopt = 11,
    Adopted = 12,
    Write = 16,
    Zero = 17,
    Flush = 18,
    Copy = 19,
    Ack = 20,
    Settled = 21,
    Read = 22,
    ReadReply = 23,
    Beat = 32,
    ActivateAsk = 33,
    ActivateGrant = 34,
    ActivateRefuse = 35,
    Deactivated = 36,
    Again = 37,
    Bye = 38,
    Detach = 39,
    Detached = 40,
}

/// Whether a message has a payload, and the largest one in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PayloadRule {
    Never,
    Always(u32),
    Maybe(u32),
}

/// Which header fields a message uses; the others must be 0.
#[derive(Clone, Copy, Debug)]
struct Shape {
    flags: u8,
    id: bool,
    extent: bool,
    payload: PayloadRule,
}

const BARE: Shape = Shape { flags: 0, id: false, extent: false, payload: PayloadRule::Never };
const NUMBER: Shape = Shape { id: true, ..BARE };

impl Kind {
    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    const fn shape(self) -> Shape {
        use PayloadRule::{Always, Maybe};
        let data = Shape { extent: true, payload: Always(MAX_DATA_BYTES), ..NUMBER };
        match self {
            Self::Card | Self::Adopt | Self::Beat => {
                Shape { payload: Always(MAX_BODY_BYTES), ..BARE }
            }
            Self::Verdict | Self::Offer | Self::Accept | Self::Opened | Self::Flush => NUMBER,
            Self::ActivateAsk | Self::ActivateGrant | Self::ActivateRefuse => NUMBER,
            Self::Marks => Shape { payload: Always(MAX_MARKS_BYTES), ..NUMBER },
            Self::CopyStart => Shape { flags: FLAG_ALL | FLAG_COMPLETE, ..NUMBER },
            Self::Write => Shape { flags: FLAG_DURABLE, ..data },
            Self::Zero => {
                Shape { flags: FLAG_DURABLE | FLAG_UNMAP, payload: PayloadRule::Never, ..data }
            }
            Self::Copy => data,
            Self::Ack => Shape { flags: FLAG_OK, ..NUMBER },
            Self::Read => Shape { extent: true, ..NUMBER },
            Self::ReadReply => Shape { payload: Maybe(MAX_DATA_BYTES), ..NUMBER },
            Self::Bye => Shape { flags: FLAG_CLEAN, ..BARE },
            Self::MarksEnd | Self::CopyReady | Self::CopyStop | Self::Adopted => BARE,
            Self::Settled | Self::Deactivated | Self::Again => BARE,
            Self::Detach | Self::Detached => BARE,
        }
    }
}

/// A header that keeps the rules of its message. The tag is not part of it: it belongs to the
/// place in the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Message.
    pub kind: Kind,
    /// `FLAG_*`.
    pub flags: u8,
    /// Bytes of the extent, or of the payload where the message has no extent.
    pub length: u32,
    /// Session, or 0.
    pub session: u64,
    /// Highest settled id (ack2).
    pub settled: u64,
    /// Id, or the one number that the message carries.
    pub id: u64,
    /// First byte of the extent.
    pub offset: u64,
    /// CRC-32 of the payload; 0 without one.
    pub payload_crc: u32,
}

impl Header {
    /// The bytes with their checksum, the tag still zero.
    ///
    /// # Errors
    /// The header breaks a rule of its message.
    pub fn encode(&self) -> Result<[u8; HEADER_BYTES], FrameError> {
        self.check()?;
        let mut bytes = [0; HEADER_BYTES];
        bytes[AT_MAGIC].copy_from_slice(&MAGIC);
        bytes[AT_KIND] = self.kind.number();
        bytes[AT_FLAGS] = self.flags;
        bytes[AT_LENGTH].copy_from_slice(&self.length.to_le_bytes());
        bytes[AT_SESSION].copy_from_slice(&self.session.to_le_bytes());
        bytes[AT_SETTLED].copy_from_slice(&self.settled.to_le_bytes());
        bytes[AT_ID].copy_from_slice(&self.id.to_le_bytes());
        bytes[AT_OFFSET].copy_from_slice(&self.offset.to_le_bytes());
        bytes[AT_PAYLOAD_CRC].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..AT_HEADER_CRC.start]);
        bytes[AT_HEADER_CRC].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    /// Reads a header. What it says about lengths is within the limits afterwards, so the payload
    /// may be allocated; the tag is not looked at.
    ///
    /// # Errors
    /// Damaged, unknown, or against a rule of its message.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let magic = array(bytes, AT_MAGIC);
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let stated = u32::from_le_bytes(array(bytes, AT_HEADER_CRC));
        let computed = crc32fast::hash(&bytes[..AT_HEADER_CRC.start]);
        if stated != computed {
            return Err(FrameError::HeaderCrc { stated, computed });
        }
        let number = bytes[AT_KIND];
        let header = Self {
            kind: Kind::from_number(number).ok_or(FrameError::UnknownKind(number))?,
            flags: bytes[AT_FLAGS],
            length: u32::from_le_bytes(array(bytes, AT_LENGTH)),
            session: u64::from_le_bytes(array(bytes, AT_SESSION)),
            settled: u64::from_le_bytes(array(bytes, AT_SETTLED)),
            id: u64::from_le_bytes(array(bytes, AT_ID)),
            offset: u64::from_le_bytes(array(bytes, AT_OFFSET)),
            payload_crc: u32::from_le_bytes(array(bytes, AT_PAYLOAD_CRC)),
        };
        header.check()?;
        Ok(header)
    }

    /// Payload bytes that follow the header.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        if self.flags & FLAG_PAYLOAD == 0 { 0 } else { self.length as usize }
    }

    /// The extent, for messages that have one.
    #[must_use]
    pub const fn extent(&self) -> Extent {
        Extent::new(self.offset, self.length as u64)
    }

    fn check(&self) -> Result<(), FrameError> {
        let shape = self.kind.shape();
        self.check_flags(&shape)?;
        self.check_payload(&shape)?;
        self.check_extent(&shape)?;
        if !shape.id && self.id != 0 {
            return Err(FrameError::StrayId { kind: self.kind, id: self.id });
        }
        Ok(())
    }

    fn check_flags(&self, shape: &Shape) -> Result<(), FrameError> {
        let kind = self.kind;
        if self.flags & FLAG_ENCRYPTED != 0 {
            return Err(FrameError::Encrypted(kind));
        }
        match self.flags & !(shape.flags | FLAG_PAYLOAD) {
            0 => Ok(()),
            bits => Err(FrameError::ReservedFlags { kind, bits }),
        }
    }

    fn check_payload(&self, shape: &Shape) -> Result<(), FrameError> {
        let kind = self.kind;
        match (self.flags & FLAG_PAYLOAD != 0, shape.payload) {
            (false, PayloadRule::Always(_)) => Err(FrameError::PayloadMissing(kind)),
            (true, PayloadRule::Never) => Err(FrameError::PayloadUnexpected(kind)),
            (true, PayloadRule::Always(max) | PayloadRule::Maybe(max)) => self.check_length(max),
            // Nothing to sum up: anything but 0 would be a second spelling of the same frame.
            (false, _) if self.payload_crc != 0 => {
                Err(FrameError::PayloadCrc { kind, stated: self.payload_crc, computed: 0 })
            }
            (false, _) => Ok(()),
        }
    }

    fn check_length(&self, max: u32) -> Result<(), FrameError> {
        let (kind, length) = (self.kind, u64::from(self.length));
        match self.length {
            0 => Err(FrameError::PayloadEmpty(kind)),
            n if n > max => Err(FrameError::PayloadTooLong { kind, length, max }),
            _ => Ok(()),
        }
    }

    fn check_extent(&self, shape: &Shape) -> Result<(), FrameError> {
        let (kind, offset, length) = (self.kind, self.offset, self.length);
        if shape.extent {
            return check_extent(kind, self.extent());
        }
        if offset != 0 {
            return Err(FrameError::StrayOffset { kind, offset });
        }
        if self.payload_len() == 0 && length != 0 {
            return Err(FrameError::StrayLength { kind, length });
        }
        Ok(())
    }
}

/// The limits of an extent on the wire. Alignment and the size of this very mirror are for the
/// receiver of the frame to check.
pub(super) fn check_extent(kind: Kind, extent: Extent) -> Result<(), FrameError> {
    if extent.len == 0 {
        return Err(FrameError::ExtentEmpty(kind));
    }
    if extent.len > MAX_EXTENT_BYTES {
        return Err(FrameError::ExtentTooLong { kind, length: extent.len });
    }
    if extent.end() > MAX_MIRROR_BYTES {
        return Err(FrameError::ExtentBeyondEnd { kind, offset: extent.offset });
    }
    Ok(())
}

/// The bytes of one field. `range` must have the length of the field.
pub(super) fn array<const N: usize>(bytes: &[u8], range: Range<usize>) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[range]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(kind: Kind) -> Header {
        Header {
            kind,
            flags: 0,
            length: 0,
            session: 7,
            settled: 3,
            id: 0,
            offset: 0,
            payload_crc: 0,
        }
    }

    fn write(offset: u64, length: u32) -> Header {
        Header { flags: FLAG_PAYLOAD, length, offset, ..bare(Kind::Write) }
    }

    /// Writes the fields without the checks, as a faulty peer would.
    fn raw(header: &Header) -> [u8; HEADER_BYTES] {
        let mut bytes = bare(Kind::Settled).encode().unwrap();
        bytes[AT_KIND] = header.kind.number();
        bytes[AT_FLAGS] = header.flags;
        bytes[AT_LENGTH].copy_from_slice(&header.length.to_le_bytes());
        bytes[AT_ID].copy_from_slice(&header.id.to_le_bytes());
        bytes[AT_OFFSET].copy_from_slice(&header.offset.to_le_bytes());
        bytes[AT_PAYLOAD_CRC].copy_from_slice(&header.payload_crc.to_le_bytes());
        fix_crc(&mut bytes);
        bytes
    }

    fn fix_crc(bytes: &mut [u8; HEADER_BYTES]) {
        let crc = crc32fast::hash(&bytes[..AT_HEADER_CRC.start]);
        bytes[AT_HEADER_CRC].copy_from_slice(&crc.to_le_bytes());
    }

    /// The rule holds in both directions.
    fn refused(header: Header, error: FrameError) {
        assert_eq!(header.encode(), Err(error));
        assert_eq!(Header::decode(&raw(&header)), Err(error));
    }

    #[test]
    fn numbers_are_unique_and_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind.number()), Some(*kind));
        }
        assert_eq!((0..=255).filter_map(Kind::from_number).count(), Kind::ALL.len());
        assert_eq!(Kind::from_number(0), None);
    }

    #[test]
    fn damage_is_told_from_nonsense() {
        let good = write(4096, 512).encode().unwrap();
        let mut bytes = good;
        bytes[0] ^= 1;
        assert!(matches!(Header::decode(&bytes), Err(FrameError::Magic(_))));
        let mut bytes = good;
        bytes[9] ^= 1;
        assert!(matches!(Header::decode(&bytes), Err(FrameError::HeaderCrc { .. })));
        let mut bytes = good;
        bytes[AT_KIND] = 200;
        fix_crc(&mut bytes);
        assert_eq!(Header::decode(&bytes), Err(FrameError::UnknownKind(200)));
    }

    #[test]
    fn limits_hold_in_both_directions() {
        use FrameError as E;
        let kind = Kind::Write;
        let mib = MAX_DATA_BYTES;
        assert!(write(0, mib).encode().is_ok());
        assert!(write(MAX_MIRROR_BYTES - u64::from(mib), mib).encode().is_ok());
        refused(write(0, 0), E::PayloadEmpty(kind));
        let length = u64::from(mib) + 1;
        refused(write(0, mib + 1), E::PayloadTooLong { kind, length, max: mib });
        let offset = MAX_MIRROR_BYTES - 511;
        refused(write(offset, 512), E::ExtentBeyondEnd { kind, offset });
        refused(write(u64::MAX, 512), E::ExtentBeyondEnd { kind, offset: u64::MAX });
        refused(Header { flags: 0, ..write(0, 512) }, E::PayloadMissing(kind));
        refused(Header { flags: FLAG_PAYLOAD | 0x42, ..write(0, 1) }, E::Encrypted(kind));
        let flags = FLAG_PAYLOAD | FLAG_UNMAP;
        refused(Header { flags, ..write(0, 1) }, E::ReservedFlags { kind, bits: FLAG_UNMAP });
    }

    #[test]
    fn limits_of_messages_without_data() {
        use FrameError as E;
        let kind = Kind::Zero;
        refused(bare(kind), E::ExtentEmpty(kind));
        let length = MAX_DATA_BYTES + 1;
        let too_long = E::ExtentTooLong { kind, length: u64::from(length) };
        refused(Header { length, ..bare(kind) }, too_long);
        let zero = Header { length: 512, ..bare(kind) };
        refused(Header { flags: FLAG_PAYLOAD, ..zero }, E::PayloadUnexpected(kind));
        let crc = E::PayloadCrc { kind, stated: 9, computed: 0 };
        refused(Header { payload_crc: 9, ..zero }, crc);
        let kind = Kind::CopyReady;
        refused(Header { id: 1, ..bare(kind) }, E::StrayId { kind, id: 1 });
        refused(Header { offset: 1, ..bare(kind) }, E::StrayOffset { kind, offset: 1 });
        refused(Header { length: 1, ..bare(kind) }, E::StrayLength { kind, length: 1 });
        for (kind, max) in [(Kind::Card, MAX_BODY_BYTES), (Kind::Marks, MAX_MARKS_BYTES)] {
            let length = max + 1;
            let header = Header { flags: FLAG_PAYLOAD, length, ..bare(kind) };
            refused(header, E::PayloadTooLong { kind, length: u64::from(length), max });
        }
    }
}
