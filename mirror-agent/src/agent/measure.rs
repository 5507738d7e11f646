//! Figures of a mirror: what the driver counts, and what only the agent sees of it; a line for each
//! interval; the page for those who collect.

use super::managed::Managed;
use super::{Agent, Entry};
use crate::config::MetricsAddress;
use crate::ctl::Answer;
use crate::figures::csv::{CsvFile, row};
use crate::figures::http::{Http, Source};
use crate::figures::openmetrics::{self, Sample};
use crate::figures::{Figures, Histogram, Level, Taken};
use jiff::{Timestamp, Zoned};
use mirror_core::status::MirrorStatus;
use mirror_core::units::REGION_BYTES;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Pause between two looks at the difference.
const LOOK: Duration = Duration::from_secs(1);
/// A driver that has not given its figures after so long hangs.
const LIMIT: Duration = Duration::from_secs(2);

/// What the agent counts of one mirror.
#[derive(Debug)]
pub(super) struct Measured {
    began: Instant,
    own: Mutex<Own>,
}

#[derive(Debug, Default)]
struct Own {
    umount: Histogram,
    fsck: Histogram,
    difference: Level,
    /// Of the last interval that is over.
    last: Option<Taken>,
}

impl Default for Measured {
    fn default() -> Self {
        Self { began: Instant::now(), own: Mutex::default() }
    }
}

impl Measured {
    fn own(&self) -> MutexGuard<'_, Own> {
        // A panic while it was held leaves a whole value behind.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unmounted(&self, began: Instant) {
        self.own().umount.add(micros(began.elapsed()));
    }

    pub(super) fn checked(&self, began: Instant) {
        self.own().fsck.add(micros(began.elapsed()));
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Bytes that one side has and the other lacks, in whole regions, as far as this side knows.
fn difference(s: &MirrorStatus) -> u64 {
    let regions = s.sides.iter().filter_map(|side| side.marked_regions).map(u64::from);
    (regions.sum::<u64>() * REGION_BYTES).min(s.size)
}

impl Managed {
    /// The figures since the agent began; `None` if the driver does not answer.
    pub(super) async fn figures(&self) -> Option<Taken> {
        self.take(false).await
    }

    async fn take(&self, take_peaks: bool) -> Option<Taken> {
        let asked = timeout(LIMIT, self.driver.figures(take_peaks)).await;
        let mut figures = asked.ok().flatten()?;
        let mut own = self.measured.own();
        figures.umount = own.umount.clone();
        figures.fsck = own.fsck.clone();
        figures.difference = own.difference;
        if take_peaks {
            own.umount.take_peak();
            own.fsck.take_peak();
            own.difference.take_peak();
        }
        drop(own);
        Some(self.taken(figures, self.measured.began.elapsed()))
    }

    fn taken(&self, figures: Box<Figures>, time: Duration) -> Taken {
        Taken {
            mirror: self.config.name.clone(),
            device: self.device.clone(),
            server: self.servers[self.local].clone(),
            at: Timestamp::now().as_second(),
            millis: millis(time),
            figures,
        }
    }

    /// Those of the last interval that is over; before the first is, since the agent began.
    pub(super) async fn last_figures(&self) -> Option<Taken> {
        let last = self.measured.own().last.clone();
        match last {
            Some(last) => Some(last),
            None => self.figures().await,
        }
    }

    async fn look_at_difference(&self) {
        if let Some(status) = self.status().await {
            self.measured.own().difference.set(difference(&status));
        }
    }
}

/// Looks at the difference each second, and ends an interval when it is time, until it is dropped.
pub(super) async fn measure(agent: Arc<Agent>, mirror: Arc<Managed>) {
    let settings = &agent.config.agent;
    let every = settings.figures_interval;
    let file = CsvFile {
        folder: settings.figures_dir.clone(),
        nmp: mirror.config.nmp,
        limit: settings.figures_bytes,
        keep: settings.figures_keep,
    };
    let mut lines = Lines { file, complained: false };
    let mut before = (mirror.measured.began, Figures::default());
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        mirror.look_at_difference().await;
        let passed = before.0.elapsed();
        // The ticks are not to the millisecond.
        if every.is_zero() || passed + LOOK / 2 < every {
            continue;
        }
        let now = Instant::now();
        let Some(all) = mirror.take(true).await else { continue };
        let new = mirror.taken(Box::new(all.figures.since(&before.1)), now - before.0);
        let date = Zoned::now().strftime("%Y/%m/%d %H:%M:%S").to_string();
        lines.add(row(&date, &all.figures, &new)).await;
        mirror.measured.own().last = Some(new);
        before = (now, *all.figures);
    }
}

struct Lines {
    file: CsvFile,
    /// It could not be written: said once until it can.
    complained: bool,
}

impl Lines {
    async fn add(&mut self, line: String) {
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || file.append(&line)).await;
        match written.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
            Ok(()) => self.complained = false,
            Err(e) if !self.complained => {
                self.complained = true;
                tracing::warn!("{}: no figures are written: {e}", self.file.folder.display());
            }
            Err(_) => {}
        }
    }
}

/// Serves the page, if the configuration says so. A mirror matters more than its figures: without
/// the address the agent goes on.
pub(super) async fn serve_page(agent: Arc<Agent>) {
    let settings = &agent.config.agent;
    let Some(port) = settings.metrics_port else { return };
    let ip = match settings.metrics_address {
        MetricsAddress::Loopback => IpAddr::V4(Ipv4Addr::LOCALHOST),
        MetricsAddress::Agent => agent.config.local().agent_address,
        MetricsAddress::All => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let address = SocketAddr::new(ip, port);
    match Http::bind(address).await {
        Ok(http) => {
            tracing::info!("figures are at http://{address}/metrics");
            let source: Source = Arc::new(move || page(Arc::clone(&agent)));
            http.run(source).await;
        }
        Err(e) => tracing::error!("figures are not served: {address}: {e}"),
    }
}

/// All mirrors are asked at once: one that hangs costs the others nothing.
fn page(agent: Arc<Agent>) -> Answer<String> {
    Box::pin(async move {
        let mut asked = JoinSet::new();
        for (n, entry) in agent.entries().into_iter().enumerate() {
            let servers = [0, 1].map(|n: usize| agent.config.servers[n].name.clone());
            asked.spawn(async move { (n, sample(&entry, servers).await) });
        }
        let mut samples = asked.join_all().await;
        samples.sort_unstable_by_key(|(n, _)| *n);
        let samples: Vec<_> = samples.into_iter().map(|(_, sample)| sample).collect();
        openmetrics::page(&samples)
    })
}

async fn sample(entry: &Entry, servers: [String; 2]) -> Sample {
    let (status, taken) = match entry {
        Entry::Open(mirror) => tokio::join!(mirror.status(), mirror.figures()),
        Entry::Broken { .. } => (None, None),
    };
    Sample { mirror: entry.name().to_owned(), servers, taken, status }
}

#[cfg(test)]
mod tests {
    use super::difference;
    use crate::agent::tests::fakes::status;

    #[test]
    fn the_difference_is_what_both_sides_lack_of_each_other() {
        let mut s = status(0);
        assert_eq!(difference(&s), 0);
        s.sides[0].marked_regions = Some(2);
        s.sides[1].marked_regions = Some(1);
        assert_eq!(difference(&s), 3 << 16);
        s.sides[1].marked_regions = None;
        s.size = 100_000;
        assert_eq!(difference(&s), 100_000, "no more than there is");
    }
}
