//! From the driver's description of a request to what the core is asked for.

use super::abi::{IO_DESC_BYTES, IoDesc, IoOp};
use mirror_core::buf::Buf;
use mirror_core::io::RequestOp;
use mirror_core::units::Extent;

const SECTOR: u64 = 512;

/// What the core is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// What to do; a write has a copy of its bytes.
    pub op: RequestOp,
    /// Where, in bytes; empty for a flush. Not checked against the mirror: that is the core's.
    pub extent: Extent,
    /// Durable before the answer.
    pub fua: bool,
    /// Bytes that a success reports to the driver.
    pub reported: u32,
}

impl Wanted {
    /// What the bytes of a `struct ublksrv_io_desc` ask for, with the request's buffer; `None` for
    /// what cannot be done: another operation, data that is longer than its buffer, a length that
    /// cannot be reported.
    #[must_use]
    pub fn parse(description: &[u8; IO_DESC_BYTES], buffer: &[u8]) -> Option<Self> {
        wanted(IoDesc::parse(description), buffer.len(), |len| {
            buffer.get(..len).map(Buf::copied_from)
        })
    }
}

/// See [`Wanted::parse`]; a request has room for `room` bytes, of which `fetch` copies the first.
pub(super) fn wanted(
    desc: IoDesc,
    room: usize,
    fetch: impl FnOnce(usize) -> Option<Buf>,
) -> Option<Wanted> {
    let bytes = u64::from(desc.sectors) * SECTOR;
    let len = usize::try_from(bytes).ok()?;
    // What lies behind the end of the buffer would be missing in a read that is reported whole.
    let data = || (len <= room).then_some(len);
    let (op, moved) = match desc.op {
        IoOp::Read => (RequestOp::Read, data()?),
        // The one private copy: what the application has in its memory it may change.
        IoOp::Write => (RequestOp::Write(fetch(data()?)?), len),
        IoOp::Flush => (RequestOp::Flush, 0),
        IoOp::Discard => (RequestOp::Zero { unmap: true }, 0),
        IoOp::WriteZeroes => (RequestOp::Zero { unmap: !desc.no_unmap }, 0),
        IoOp::Other => return None,
    };
    let whole = Extent::new(desc.start.checked_mul(SECTOR)?, bytes);
    let extent = if op == RequestOp::Flush { Extent::default() } else { whole };
    Some(Wanted { op, extent, fua: desc.fua, reported: u32::try_from(moved).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(op: u32, sectors: u32, start: u64) -> [u8; IO_DESC_BYTES] {
        let mut bytes = [0; IO_DESC_BYTES];
        bytes[0..4].copy_from_slice(&op.to_ne_bytes());
        bytes[4..8].copy_from_slice(&sectors.to_ne_bytes());
        bytes[8..16].copy_from_slice(&start.to_ne_bytes());
        bytes
    }

    fn parse(op: u32, sectors: u32, start: u64) -> Option<Wanted> {
        Wanted::parse(&describe(op, sectors, start), &[7; 4096])
    }

    #[test]
    fn each_operation_becomes_what_it_should() {
        let at = Extent::new(1024, 4096);
        let is = |op, reported| Some(Wanted { op, extent: at, fua: false, reported });
        assert_eq!(parse(0, 8, 2), is(RequestOp::Read, 4096));
        assert_eq!(parse(1, 8, 2), is(RequestOp::Write(Buf::copied_from(&[7; 4096])), 4096));
        assert_eq!(parse(3, 8, 2), is(RequestOp::Zero { unmap: true }, 0));
        assert_eq!(parse(5, 8, 2), is(RequestOp::Zero { unmap: true }, 0));
        assert_eq!(parse(5 | 1 << 15, 8, 2), is(RequestOp::Zero { unmap: false }, 0));
        let flush = parse(2 | 1 << 13, 8, 2).expect("a flush");
        assert_eq!((flush.op, flush.extent), (RequestOp::Flush, Extent::default()));
        assert!(flush.fua);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        assert_eq!(parse(0, 9, 0), None, "a read beyond its buffer would be cut");
        assert_eq!(parse(1, 9, 0), None, "a write beyond its buffer");
        assert_eq!(parse(13, 8, 0), None, "a zone operation");
        assert_eq!(parse(0, 8, u64::MAX / 512 + 1), None, "no such place");
        assert!(parse(3, 1 << 20, 0).is_some(), "a discard moves no data");
    }
}
