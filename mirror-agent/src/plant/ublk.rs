//! The ublk device of one mirror: its number, its record in the run folder, and the successor's
//! way to it.

use crate::host::command::Runner;
use crate::host::error::HostError;
use crate::host::survivor::{self, DeviceRecord, Verdict, Wanted};
use crate::host::watchdog;
use kmod_shim::ublk::{self, DeviceState, UblkSpec};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For the driver to be done with a server that has died; older kernels look every five seconds.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(30);
/// For an earlier agent to end.
const END_LIMIT: Duration = Duration::from_secs(60);
const END_PAUSE: Duration = Duration::from_millis(50);
/// For one unmount.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(30);

/// What the places of all mirrors have in common.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) run_dir: PathBuf,
    /// The configuration file.
    pub(super) config: PathBuf,
    /// How long the device waits for another agent; zero: for ever.
    pub(super) patience: Duration,
}

/// Where a mirror's device is, or will be.
#[derive(Debug)]
pub(super) struct Place {
    settings: Settings,
    mirror: String,
    nmp: u32,
    link: PathBuf,
    record: Mutex<Option<DeviceRecord>>,
}

impl Place {
    pub(super) fn new(
        settings: Settings,
        mirror: &str,
        nmp: u32,
        link: PathBuf,
        survivor: Option<DeviceRecord>,
    ) -> Self {
        let record = Mutex::new(survivor);
        Self { settings, mirror: mirror.to_owned(), nmp, link, record }
    }

    /// Readies the device for a front end: takes over what an earlier agent has left, or writes
    /// down what is to be made. Waits for the kernel.
    pub(super) fn prepare(&self, size: u64, block: u32) -> Result<UblkSpec, HostError> {
        let survivor = self.lock().take();
        let take_over = survivor.is_some();
        let record = match survivor {
            Some(record) => self.take_over(record)?,
            None => self.plan(size, block)?,
        };
        record.save(&self.settings.run_dir)?;
        watchdog::ensure(&self.settings.run_dir, &self.settings.config);
        let spec = UblkSpec { number: record.number, mark: record.mark, take_over };
        *self.lock() = Some(record);
        Ok(spec)
    }

    fn plan(&self, size: u64, block: u32) -> Result<DeviceRecord, HostError> {
        let number = survivor::free_number(self.nmp)?;
        let wanted = Wanted {
            mirror: self.mirror.clone(),
            nmp: self.nmp,
            link: self.link.clone(),
            size,
            block,
            patience: self.settings.patience,
        };
        DeviceRecord::new(wanted, number).map_err(HostError::system("device record"))
    }

    fn take_over(&self, record: DeviceRecord) -> Result<DeviceRecord, HostError> {
        let failed = HostError::system(format!("takeover of ublk device {}", record.number));
        ublk::begin_takeover(record.number, TAKEOVER_LIMIT).map_err(failed)?;
        say_if_other(&record);
        Ok(record.now_ours(self.settings.patience))
    }

    /// Makes the device larger for all who have it open.
    pub(super) fn grow(&self, size: u64) -> Result<(), HostError> {
        let failed = HostError::system("ublk device");
        let mut guard = self.lock();
        let record = guard
            .as_mut()
            .ok_or_else(|| HostError::Command("there is no ublk device".to_owned()))?;
        // The record is never smaller than the device: a larger one would not be taken over.
        if ublk::grows().unwrap_or(false) && record.size < size {
            record.size = size;
            record.save(&self.settings.run_dir)?;
        }
        ublk::grow(record.number, size).map_err(failed)
    }

    /// What was left is not taken over.
    pub(super) fn drop_record(&self) {
        *self.lock() = None;
    }

    /// The front end was closed: forgets the device if it is really gone, or is just going: of that
    /// the driver does not say much, and nobody can do more for it.
    pub(super) fn closed(&self) {
        let Some(record) = self.lock().take() else { return };
        if matches!(ublk::state(record.number), Ok(Some((mark, DeviceState::Live))) if mark == record.mark)
        {
            let _ = record.forget(&self.settings.run_dir); // the next device's takes its place
            return;
        }
        match survivor::look(&record, true, None) {
            Ok(Verdict::Gone(_)) => {
                if let Err(e) = record.forget(&self.settings.run_dir) {
                    tracing::warn!("{e}");
                }
            }
            other => tracing::warn!("{}: ublk device {}: {other:?}", self.mirror, record.number),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<DeviceRecord>> {
        // A panic while it was held leaves a whole value behind.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device keeps the queue that it was made with.
fn say_if_other(record: &DeviceRecord) {
    let Ok(Some(device)) = ublk::inspect(record.number) else { return };
    let (is, new) = ((device.depth, device.max_io), (ublk::DEPTH, ublk::MAX_IO));
    if is != new {
        tracing::info!(
            "{}: its device keeps a queue of {} requests of up to {} bytes; one made anew has {} of {}",
            record.mirror,
            is.0,
            is.1,
            new.0,
            new.1
        );
    }
}

/// The device that an earlier agent has left of `mirror`, if it may be served again. Waits for an
/// agent that is just ending; takes down what may not be served.
pub(super) async fn find(
    settings: &Settings,
    mirror: &str,
    runner: &Runner,
) -> Result<Option<DeviceRecord>, HostError> {
    let Some(record) = DeviceRecord::load(&settings.run_dir, mirror)? else { return Ok(None) };
    let record = Arc::new(record);
    match settled(Arc::clone(&record), true).await? {
        Verdict::Adopt => Ok(Some(Arc::unwrap_or_clone(record))),
        Verdict::Served => Err(still_served(&record)),
        verdict => take_down(settings, &record, verdict, runner).await.map(|()| None),
    }
}

fn still_served(record: &DeviceRecord) -> HostError {
    HostError::Command(format!(
        "ublk device {} of {} is still served by process {}",
        record.number,
        record.mirror,
        record.server.map_or(0, |p| p.pid)
    ))
}

/// The verdict once the earlier agent has ended.
async fn settled(record: Arc<DeviceRecord>, configured: bool) -> Result<Verdict, HostError> {
    blocking(move || {
        let end = Instant::now() + END_LIMIT;
        loop {
            match survivor::look(&record, configured, None)? {
                Verdict::Served if Instant::now() < end => std::thread::sleep(END_PAUSE),
                verdict => return Ok(verdict),
            }
        }
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> Result<T, HostError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|e| HostError::system("thread")(std::io::Error::other(e)))?
}

/// Takes down what is left of a device, and says so.
pub(super) async fn take_down(
    settings: &Settings,
    record: &DeviceRecord,
    verdict: Verdict,
    runner: &Runner,
) -> Result<(), HostError> {
    let name = record.link.display();
    if let Verdict::Gone(why) | Verdict::Discard(why) = verdict {
        tracing::warn!(
            "{}: the device of an earlier agent is not served again: {why}",
            record.mirror
        );
    }
    let unmounted =
        survivor::take_down(record, verdict, &settings.run_dir, runner, UNMOUNT_LIMIT).await?;
    for point in unmounted {
        tracing::error!("{}: unmounted, {name} is not served any more", point.display());
    }
    Ok(())
}

/// Takes down the devices of mirrors that are not in the configuration any more.
pub(super) async fn sweep(settings: &Settings, configured: &[&str], runner: &Runner) {
    let records = match DeviceRecord::all(&settings.run_dir) {
        Ok(records) => records,
        Err(e) => return tracing::error!("{e}"),
    };
    for record in records {
        let swept = match record {
            Ok(r) if configured.contains(&r.mirror.as_str()) => continue,
            Ok(record) => sweep_one(settings, record, runner).await,
            Err(e) => Err(e),
        };
        if let Err(e) = swept {
            tracing::error!("what an earlier agent has left cannot be cleared: {e}");
        }
    }
}

async fn sweep_one(
    settings: &Settings,
    record: DeviceRecord,
    runner: &Runner,
) -> Result<(), HostError> {
    let record = Arc::new(record);
    match settled(Arc::clone(&record), false).await? {
        Verdict::Served => Err(still_served(&record)),
        verdict => take_down(settings, &record, verdict, runner).await,
    }
}
