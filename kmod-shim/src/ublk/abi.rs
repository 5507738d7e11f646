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
    pub(crate) const GET_FEATURES: u8 = 0x13;
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

/// The device has no server.
pub(crate) const STATE_DEAD: u16 = 0;

/// The request has a durable write.
const IO_F_FUA: u32 = 1 << 13;
/// Write-zeroes must not release space.
const IO_F_NOUNMAP: u32 = 1 << 15;

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
        ctrl::GET_DEV_INFO | ctrl::GET_FEATURES => ioc(IOC_READ, number, CTRL_CMD_BYTES),
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

/// `struct ublksrv_ctrl_dev_info` of a device with one queue.
pub(crate) fn dev_info(device: u32, depth: u16, max_io: u32) -> [u8; DEV_INFO_BYTES] {
    let mut info = [0; DEV_INFO_BYTES];
    info[0..2].copy_from_slice(&1_u16.to_ne_bytes());
    info[2..4].copy_from_slice(&depth.to_ne_bytes());
    info[8..12].copy_from_slice(&max_io.to_ne_bytes());
    info[12..16].copy_from_slice(&device.to_ne_bytes());
    info
}

/// The state in a `struct ublksrv_ctrl_dev_info`.
pub(crate) fn state_of(info: &[u8; DEV_INFO_BYTES]) -> u16 {
    u16::from_ne_bytes([info[4], info[5]])
}

/// The server's process in a `struct ublksrv_ctrl_dev_info`.
pub(crate) fn server_of(info: &[u8; DEV_INFO_BYTES]) -> i32 {
    i32::from_ne_bytes([info[16], info[17], info[18], info[19]])
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
        assert_eq!(io_op(IO_FETCH), 0xc010_7520);
        assert_eq!(io_op(IO_COMMIT_AND_FETCH), 0xc010_7521);
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
    fn a_description_is_taken_apart() {
        let mut bytes = [0; IO_DESC_BYTES];
        bytes[0..4].copy_from_slice(&(5_u32 | 1 << 13 | 1 << 15).to_ne_bytes());
        bytes[4..8].copy_from_slice(&8_u32.to_ne_bytes());
        bytes[8..16].copy_from_slice(&(1_u64 << 33).to_ne_bytes());
        let desc = IoDesc::parse(&bytes);
        assert_eq!((desc.op, desc.sectors, desc.start), (IoOp::WriteZeroes, 8, 1 << 33));
        assert!(desc.fua && desc.no_unmap);
    }
}
