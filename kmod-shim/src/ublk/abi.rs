//! Numbers and layouts of the ublk driver (kernel `include/uapi/linux/ublk_cmd.h`), as bytes:
//! little is needed, and nothing here depends on the headers of the machine that builds it.

/// Admin commands.
pub(crate) mod ctrl {
    pub(crate) const GET_DEV_INFO: u8 = 0x02;
    pub(crate) const ADD_DEV: u8 = 0x04;
    pub(crate) const DEL_DEV: u8 = 0x05;
    pub(crate) const START_DEV: u8 = 0x06;
    pub(crate) const STOP_DEV: u8 = 0x07;
    pub(crate) const SET_PARAMS: u8 = 0x08;
    pub(crate) const GET_PARAMS: u8 = 0x09;
    pub(crate) const START_USER_RECOVERY: u8 = 0x10;
    pub(crate) const END_USER_RECOVERY: u8 = 0x11;
    pub(crate) const GET_FEATURES: u8 = 0x13;
    pub(crate) const UPDATE_SIZE: u8 = 0x15;
}

/// Fetch the next request of a tag.
pub(crate) const IO_FETCH: u8 = 0x20;
/// Answer a request and fetch the next one.
pub(crate) const IO_COMMIT_AND_FETCH: u8 = 0x21;

/// Bytes of `struct ublksrv_ctrl_cmd`.
pub(crate) const CTRL_CMD_BYTES: u32 = 32;
/// Bytes of `struct ublksrv_io_cmd`.
pub(crate) const IO_CMD_BYTES: u32 = 16;
/// Bytes of `struct ublksrv_io_desc`.
pub(crate) const IO_DESC_BYTES: usize = 24;
/// Bytes of `struct ublksrv_ctrl_dev_info`.
pub(crate) const DEV_INFO_BYTES: usize = 64;

/// Bytes that are asked for of `struct ublk_params`; what the driver has beyond is not needed.
pub(crate) const PARAM_BYTES: usize = 128;

/// The device outlives its server, and waits for another one.
pub(crate) const F_USER_RECOVERY: u64 = 1 << 3;
/// What the dead server had not answered is handed to the next one.
pub(crate) const F_USER_RECOVERY_REISSUE: u64 = 1 << 4;

/// The server fetches and stores a request's bytes itself, through the server's end.
pub(crate) const F_USER_COPY: u64 = 1 << 7;
/// The size of a device can change while it is in use.
pub(crate) const F_UPDATE_SIZE: u64 = 1 << 10;
/// The driver registers a request's memory with the ring that fetched it, under a given index.
pub(crate) const F_AUTO_BUF_REG: u64 = 1 << 11;

/// Of an automatic registration: if it fails, the request comes all the same, and says so.
const AUTO_BUF_REG_FALLBACK: u8 = 1 << 0;
/// Where the bytes of the requests begin in the server's end.
const IO_BUF_OFFSET: u64 = 0x8000_0000;
/// Bits of an offset within a request's bytes.
const IO_BUF_BITS: u32 = 25;

/// The request has a durable write.
const IO_F_FUA: u32 = 1 << 13;
/// Write-zeroes must not release space.
const IO_F_NOUNMAP: u32 = 1 << 15;
/// The request's memory could not be registered.
const IO_F_NEED_REG_BUF: u32 = 1 << 17;

const ATTR_VOLATILE_CACHE: u32 = 1 << 2;
const ATTR_FUA: u32 = 1 << 3;
const PARAM_BASIC: u32 = 1 << 0;
const PARAM_DISCARD: u32 = 1 << 1;

const IOC_READ: u32 = 2;
const IOC_WRITE: u32 = 1;

const fn ioc(direction: u32, number: u8, bytes: u32) -> u32 {
    direction << 30 | bytes << 16 | (b'u' as u32) << 8 | number as u32
}

/// The number of an admin command as newer kernels (6.4) want it.
pub(crate) const fn ctrl_op(number: u8) -> u32 {
    match number {
        ctrl::GET_DEV_INFO | ctrl::GET_FEATURES | ctrl::GET_PARAMS => {
            ioc(IOC_READ, number, CTRL_CMD_BYTES)
        }
        _ => ioc(IOC_READ | IOC_WRITE, number, CTRL_CMD_BYTES),
    }
}

/// The number of an I/O command as newer kernels want it.
pub(crate) const fn io_op(number: u8) -> u32 {
    ioc(IOC_READ | IOC_WRITE, number, IO_CMD_BYTES)
}

/// `struct ublksrv_ctrl_cmd`, at the head of the command's space in a large SQE.
pub(crate) fn ctrl_cmd(device: u32, buffer: (u64, u16), data: u64) -> [u8; 80] {
    let mut cmd = [0; 80];
    cmd[0..4].copy_from_slice(&device.to_ne_bytes());
    cmd[4..6].copy_from_slice(&u16::MAX.to_ne_bytes()); // no queue
    cmd[6..8].copy_from_slice(&buffer.1.to_ne_bytes());
    cmd[8..16].copy_from_slice(&buffer.0.to_ne_bytes());
    cmd[16..24].copy_from_slice(&data.to_ne_bytes());
    cmd
}

/// `struct ublksrv_io_cmd` for queue 0.
pub(crate) fn io_cmd(tag: u16, result: i32, buffer: u64) -> [u8; 16] {
    let mut cmd = [0; 16];
    cmd[2..4].copy_from_slice(&tag.to_ne_bytes());
    cmd[4..8].copy_from_slice(&result.to_ne_bytes());
    cmd[8..16].copy_from_slice(&buffer.to_ne_bytes());
    cmd
}

/// `struct ublk_auto_buf_reg`, as the SQE carries it: the memory of the next request gets `index`.
pub(crate) const fn auto_buf_reg(index: u16) -> u64 {
    // Index, flags, and five bytes of zeros, as in memory.
    let index = index.to_ne_bytes();
    u64::from_ne_bytes([index[0], index[1], AUTO_BUF_REG_FALLBACK, 0, 0, 0, 0, 0])
}

/// Where the bytes of the request of `tag` are in the server's end, for queue 0.
pub(crate) const fn io_buf_position(tag: u16) -> u64 {
    IO_BUF_OFFSET + ((tag as u64) << IO_BUF_BITS)
}

/// `struct ublksrv_ctrl_dev_info` of a device with one queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct DevInfo {
    pub(crate) depth: u16,
    pub(crate) state: u16,
    pub(crate) max_io: u32,
    pub(crate) number: u32,
    /// The server's process.
    pub(crate) server: i32,
    pub(crate) flags: u64,
    /// `ublksrv_flags`: the driver keeps it for the server and does not look at it.
    pub(crate) mark: u64,
}

impl DevInfo {
    pub(crate) fn encode(self) -> [u8; DEV_INFO_BYTES] {
        let mut info = [0; DEV_INFO_BYTES];
        info[0..2].copy_from_slice(&1_u16.to_ne_bytes());
        info[2..4].copy_from_slice(&self.depth.to_ne_bytes());
        info[8..12].copy_from_slice(&self.max_io.to_ne_bytes());
        info[12..16].copy_from_slice(&self.number.to_ne_bytes());
        info[24..32].copy_from_slice(&self.flags.to_ne_bytes());
        info[32..40].copy_from_slice(&self.mark.to_ne_bytes());
        info
    }

    pub(crate) fn parse(info: &[u8; DEV_INFO_BYTES]) -> Self {
        let u32_at = |at: usize| u32::from_ne_bytes(array(info, at));
        Self {
            depth: u16::from_ne_bytes(array(info, 2)),
            state: u16::from_ne_bytes(array(info, 4)),
            max_io: u32_at(8),
            number: u32_at(12),
            server: i32::from_ne_bytes(array(info, 16)),
            flags: u64::from_ne_bytes(array(info, 24)),
            mark: u64::from_ne_bytes(array(info, 32)),
        }
    }
}

/// `N` of the bytes, from a place that is within them.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// A buffer for the parameters that the driver is asked for.
pub(crate) fn params_wanted() -> [u8; PARAM_BYTES] {
    let mut p = [0; PARAM_BYTES];
    p[0..4].copy_from_slice(&u32::try_from(PARAM_BYTES).unwrap_or(0).to_ne_bytes());
    p
}

/// Size and logical block size in bytes, as the driver's parameters have them.
pub(crate) fn size_and_block(p: &[u8; PARAM_BYTES]) -> (u64, u32) {
    let sectors = u64::from_ne_bytes(array(p, 24));
    (sectors.saturating_mul(512), 1_u32.checked_shl(u32::from(p[12])).unwrap_or(0))
}

/// `struct ublk_params` with its basic and discard parts.
pub(crate) fn params(size: u64, block: u32, max_io: u32, max_zero: u32) -> Vec<u8> {
    let shift = u8::try_from(block.trailing_zeros()).unwrap_or(9);
    let mut p = Vec::with_capacity(64);
    let mut put = |bytes: &[u8]| p.extend_from_slice(bytes);
    put(&0_u32.to_ne_bytes()); // length, set below
    put(&(PARAM_BASIC | PARAM_DISCARD).to_ne_bytes());
    put(&(ATTR_VOLATILE_CACHE | ATTR_FUA).to_ne_bytes());
    put(&[shift, 12.max(shift), 12.max(shift), shift]); // logical, physical, optimal, minimal
    put(&(max_io / 512).to_ne_bytes());
    put(&0_u32.to_ne_bytes()); // no chunks
    put(&(size / 512).to_ne_bytes());
    put(&0_u64.to_ne_bytes()); // no boundary
    put(&0_u32.to_ne_bytes()); // discard alignment
    put(&block.max(4096).to_ne_bytes());
    put(&(max_zero / 512).to_ne_bytes());
    put(&(max_zero / 512).to_ne_bytes());
    put(&1_u16.to_ne_bytes());
    put(&0_u16.to_ne_bytes());
    let len = u32::try_from(p.len()).unwrap_or(0);
    p[0..4].copy_from_slice(&len.to_ne_bytes());
    p
}

/// What a request wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IoOp {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
    /// Something that this server does not offer.
    Other,
}

/// A request as the driver describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IoDesc {
    pub(crate) op: IoOp,
    pub(crate) fua: bool,
    pub(crate) no_unmap: bool,
    /// Its memory could not be registered, though that was asked for.
    pub(crate) unregistered: bool,
    pub(crate) sectors: u32,
    pub(crate) start: u64,
}

impl IoDesc {
    /// Takes `struct ublksrv_io_desc` apart.
    pub(crate) fn parse(bytes: &[u8; IO_DESC_BYTES]) -> Self {
        let u32_at = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let flags = u32_at(0);
        let start = u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32;
        let op = match flags & 0xff {
            0 => IoOp::Read,
            1 => IoOp::Write,
            2 => IoOp::Flush,
            3 => IoOp::Discard,
            5 => IoOp::WriteZeroes,
            _ => IoOp::Other,
        };
        Self {
            op,
            fua: flags & IO_F_FUA != 0,
            no_unmap: flags & IO_F_NOUNMAP != 0,
            unregistered: flags & IO_F_NEED_REG_BUF != 0,
            sectors: u32_at(4),
            start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel_header() {
        // From the header's macros, computed by a C compiler.
        assert_eq!(ctrl_op(ctrl::ADD_DEV), 0xc020_7504);
        assert_eq!(ctrl_op(ctrl::GET_FEATURES), 0x8020_7513);
        assert_eq!(ctrl_op(ctrl::GET_PARAMS), 0x8020_7509);
        assert_eq!(ctrl_op(ctrl::END_USER_RECOVERY), 0xc020_7511);
        assert_eq!(ctrl_op(ctrl::UPDATE_SIZE), 0xc020_7515);
        assert_eq!(io_op(IO_FETCH), 0xc010_7520);
        assert_eq!(io_op(IO_COMMIT_AND_FETCH), 0xc010_7521);
    }

    #[test]
    fn a_requests_memory_has_the_headers_places() {
        // struct { u16 index; u8 flags; u8 zero; u32 zero }, and the header's offsets.
        assert_eq!(auto_buf_reg(0x0102).to_ne_bytes()[2..], [1, 0, 0, 0, 0, 0]);
        assert_eq!(auto_buf_reg(0x0102).to_ne_bytes()[..2], 0x0102_u16.to_ne_bytes());
        assert_eq!(io_buf_position(0), 0x8000_0000);
        assert_eq!(io_buf_position(3), 0x8600_0000);
    }

    #[test]
    fn parameters_have_the_headers_layout() {
        let p = params(1 << 30, 512, 512 << 10, 1 << 20);
        assert_eq!(p.len(), 60);
        assert_eq!(p[0..4], 60_u32.to_ne_bytes());
        assert_eq!(p[12], 9);
        assert_eq!(p[16..20], 1024_u32.to_ne_bytes());
        assert_eq!(p[24..32], (2_u64 << 20).to_ne_bytes());
    }

    #[test]
    fn parameters_come_back_as_size_and_block() {
        let mut p = params_wanted();
        let set = params(3 << 30, 4096, 512 << 10, 1 << 20);
        p[..set.len()].copy_from_slice(&set);
        assert_eq!(size_and_block(&p), (3 << 30, 4096));
    }

    #[test]
    fn what_a_device_is_has_the_headers_layout() {
        let info = DevInfo {
            depth: 64,
            max_io: 512 << 10,
            number: 1001,
            flags: F_USER_RECOVERY | F_USER_RECOVERY_REISSUE,
            mark: 0x0123_4567_89ab_cdef,
            ..DevInfo::default()
        };
        let mut bytes = info.encode();
        assert_eq!(bytes[24], 0x18);
        bytes[4] = 2;
        bytes[16..20].copy_from_slice(&77_i32.to_ne_bytes());
        assert_eq!(DevInfo::parse(&bytes), DevInfo { state: 2, server: 77, ..info });
    }

    #[test]
    fn a_description_is_taken_apart() {
        let mut bytes = [0; IO_DESC_BYTES];
        bytes[0..4].copy_from_slice(&(5_u32 | 1 << 13 | 1 << 15).to_ne_bytes());
        bytes[4..8].copy_from_slice(&8_u32.to_ne_bytes());
        bytes[8..16].copy_from_slice(&(1_u64 << 33).to_ne_bytes());
        let desc = IoDesc::parse(&bytes);
        assert_eq!((desc.op, desc.sectors, desc.start), (IoOp::WriteZeroes, 8, 1 << 33));
        assert!(desc.fua && desc.no_unmap && !desc.unregistered);
        bytes[0..4].copy_from_slice(&(1_u32 << 17).to_ne_bytes());
        let desc = IoDesc::parse(&bytes);
        assert!(desc.op == IoOp::Read && desc.unregistered);
    }
}
