//! What a device that an earlier agent has left is to be treated as. No I/O here.

use super::record::DeviceRecord;
use kmod_shim::ublk::{DeviceInfo, DeviceState};
use std::fmt;

/// What is known when a record is found.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What the earlier agent wrote down.
    pub record: &'a DeviceRecord,
    /// This boot.
    pub boot: &'a str,
    /// What the driver says of the recorded number; `None`: no such device.
    pub device: Option<DeviceInfo>,
    /// The recorded server still runs.
    pub server_runs: bool,
    /// The mirror is in the configuration of the agent that asks.
    pub configured: bool,
    /// Size and block size of the mirror in bytes, if they are known yet.
    pub mirror: Option<(u64, u32)>,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is ours and can be served again.
    Adopt,
    /// Its server still runs.
    Served,
    /// It is ours, but not to be served again: it is stopped and removed.
    Discard(Why),
    /// There is no device of ours any more: only traces on the host are left.
    Gone(Why),
}

/// Why a device is not served again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Another boot of the server.
    OtherBoot,
    /// The driver knows no such device.
    NoDevice,
    /// The number is somebody else's device now.
    Foreign,
    /// This kernel's devices go with their server.
    CannotSurvive,
    /// The device had not started, or is being stopped.
    NotStarted,
    /// The mirror is not in the configuration any more.
    NotConfigured,
    /// Size or block size are not those of the mirror.
    OtherSize,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherBoot => "it was made before the last start of this server",
            Self::NoDevice => "it is gone",
            Self::Foreign => "its number belongs to another device now",
            Self::CannotSurvive => "this kernel's ublk devices do not outlive their agent",
            Self::NotStarted => "it had not started, or was just being stopped",
            Self::NotConfigured => "its mirror is not in the configuration any more",
            Self::OtherSize => "its size or block size is not the mirror's",
        })
    }
}

/// Decides what becomes of a recorded device.
#[must_use]
pub fn judge(facts: &Facts<'_>) -> Verdict {
    let record = facts.record;
    if record.boot_id != facts.boot {
        return Verdict::Gone(Why::OtherBoot);
    }
    let Some(device) = facts.device else { return Verdict::Gone(Why::NoDevice) };
    if device.mark != record.mark {
        return Verdict::Gone(Why::Foreign);
    }
    if facts.server_runs {
        return Verdict::Served;
    }
    if !device.survives {
        return Verdict::Discard(Why::CannotSurvive);
    }
    if !matches!(device.state, DeviceState::Quiesced | DeviceState::Live) {
        return Verdict::Discard(Why::NotStarted);
    }
    if !facts.configured {
        return Verdict::Discard(Why::NotConfigured);
    }
    let own = (device.size, device.block);
    // The mirror may have grown since, which its device has not, whatever its record says.
    let fits = |(size, block)| own.0 <= size && own.1 == block;
    if !fits((record.size, record.block)) || !facts.mirror.is_none_or(fits) {
        return Verdict::Discard(Why::OtherSize);
    }
    Verdict::Adopt
}

/// Whether users of a recorded device may be waiting for a server. One that has been taken over,
/// but not to the end, counts.
#[must_use]
pub fn waits(facts: &Facts<'_>) -> bool {
    let ours = |d: &DeviceInfo| facts.record.boot_id == facts.boot && d.mark == facts.record.mark;
    facts.device.filter(ours).is_some_and(|device| match device.state {
        DeviceState::Quiesced => true,
        DeviceState::Live => !facts.server_runs && device.survives,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> DeviceRecord {
        let mut record = DeviceRecord::sample();
        (record.mark, record.size, record.block) = (7, 1 << 30, 512);
        record
    }

    fn device() -> DeviceInfo {
        DeviceInfo {
            number: 1001,
            state: DeviceState::Quiesced,
            mark: 7,
            survives: true,
            server: -1,
            size: 1 << 30,
            block: 512,
            depth: 64,
            max_io: 1 << 19,
        }
    }

    fn with(change: impl FnOnce(&mut Facts<'_>)) -> Verdict {
        changed(change, judge)
    }

    fn changed<T>(change: impl FnOnce(&mut Facts<'_>), ask: impl FnOnce(&Facts<'_>) -> T) -> T {
        let record = record();
        let mut facts = Facts {
            record: &record,
            boot: &record.boot_id,
            device: Some(device()),
            server_runs: false,
            configured: true,
            mirror: Some((1 << 30, 512)),
        };
        change(&mut facts);
        ask(&facts)
    }

    fn device_with(change: impl FnOnce(&mut DeviceInfo)) -> Verdict {
        let mut device = device();
        change(&mut device);
        with(|f| f.device = Some(device))
    }

    #[test]
    fn our_own_device_that_waits_is_served_again() {
        assert_eq!(with(|_| {}), Verdict::Adopt);
        assert_eq!(with(|f| f.mirror = None), Verdict::Adopt);
        // Older kernels notice the death of a server late.
        assert_eq!(device_with(|d| d.state = DeviceState::Live), Verdict::Adopt);
        // It was just to grow.
        assert_eq!(device_with(|d| d.size -= 512), Verdict::Adopt);
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        assert_eq!(with(|f| f.boot = "another"), Verdict::Gone(Why::OtherBoot));
        assert_eq!(with(|f| f.device = None), Verdict::Gone(Why::NoDevice));
        assert_eq!(device_with(|d| d.mark = 8), Verdict::Gone(Why::Foreign));
    }

    #[test]
    fn a_server_that_runs_is_not_pushed_aside() {
        assert_eq!(with(|f| f.server_runs = true), Verdict::Served);
        assert_eq!(
            with(|f| {
                f.server_runs = true;
                f.configured = false;
            }),
            Verdict::Served
        );
    }

    #[test]
    fn ours_that_cannot_be_served_again_goes() {
        let discard = Verdict::Discard;
        assert_eq!(device_with(|d| d.survives = false), discard(Why::CannotSurvive));
        for state in [DeviceState::Dead, DeviceState::Failing, DeviceState::Other(9)] {
            assert_eq!(device_with(|d| d.state = state), discard(Why::NotStarted));
        }
        assert_eq!(with(|f| f.configured = false), discard(Why::NotConfigured));
        assert_eq!(device_with(|d| d.size += 512), discard(Why::OtherSize));
        assert_eq!(device_with(|d| d.block = 4096), discard(Why::OtherSize));
        assert_eq!(with(|f| f.mirror = Some((1 << 20, 512))), discard(Why::OtherSize));
    }

    #[test]
    fn who_waits_for_a_server() {
        let waits_with = |state, server_runs, mark| {
            let device = DeviceInfo { state, mark, ..device() };
            let change = |f: &mut Facts<'_>| {
                (f.device, f.server_runs) = (Some(device), server_runs);
            };
            changed(change, waits)
        };
        assert!(waits_with(DeviceState::Quiesced, false, 7));
        // An agent that has begun to take over and hangs.
        assert!(waits_with(DeviceState::Quiesced, true, 7));
        assert!(waits_with(DeviceState::Live, false, 7));
        assert!(!waits_with(DeviceState::Live, true, 7));
        assert!(!waits_with(DeviceState::Dead, false, 7));
        assert!(!waits_with(DeviceState::Quiesced, false, 8));
        assert!(!changed(|f| f.boot = "another", waits));
        assert!(!changed(|f| f.device = None, waits));
    }
}
