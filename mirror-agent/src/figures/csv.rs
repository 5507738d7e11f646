//! One line for each interval, in the columns of the later product, in a file that is turned over
//! at a size.
//!
//! *Total* and *Max* are since the agent began, *Total2*, *Max2* and *Avg* of the interval, *Cur*
//! and *Last* the latest. Bytes and bytes a second, seconds, requests. What has not happened is 0.

use super::{Figures, Histogram, Taken};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The names of the columns.
pub const COLUMNS: [&str; 38] = [
    "Date",
    "Write, Total",
    "Write, Avg",
    "Read, Total",
    "Read, Avg",
    "Local Disk Write, Total",
    "Local Disk Write, Avg",
    "Local Disk Read, Total",
    "Local Disk Read, Avg",
    "Send, Total",
    "Send, Avg",
    "Compress Ratio",
    "Sync Time, Max",
    "Sync Time, Avg",
    "Sync Ack Time, Max",
    "Sync Ack Time, Cur",
    "Recovery Ack Time, Max",
    "Recovery Ack Time, Max2",
    "Recovery Ack Time, Cur",
    "Sync Diff, Max",
    "Sync Diff, Cur",
    "Send Queue, Max",
    "Send Queue, Max2",
    "Send Queue, Cur",
    "Request Queue, Max",
    "Request Queue, Max2",
    "Request Queue, Cur",
    "MDC HB Time, Max",
    "MDC HB Time, Max2",
    "MDC HB Time, Cur",
    "Local-Write Waiting Recovery-Read Time, Total",
    "Local-Write Waiting Recovery-Read Time, Total2",
    "Recovery-Read Waiting Local-Write Time, Total",
    "Recovery-Read Waiting Local-Write Time, Total2",
    "Unmount Time, Max",
    "Unmount Time, Last",
    "Fsck Time, Max",
    "Fsck Time, Last",
];

/// Nothing is compressed: what is sent is all of it.
const COMPRESS_RATIO: &str = "100";

/// The line of one interval: the figures since the agent began, and those of the interval.
#[must_use]
pub fn row(date: &str, all: &Figures, new: &Taken) -> String {
    let (of, millis) = (&new.figures, new.millis.max(1));
    let total = |n: u64| n.to_string();
    let rate = |n: u64| decimal(u128::from(n) * 1000 * 100 / u128::from(millis), 2);
    let max = |h: &Histogram| seconds(h.max_us);
    let max2 = |h: &Histogram| seconds(h.peak_us);
    let cur = |h: &Histogram| seconds(h.last_us);
    let millis_of = |ms: u64| seconds(ms.saturating_mul(1000));
    let cells = [
        date.to_owned(),
        total(all.device.write.bytes),
        rate(of.device.write.bytes),
        total(all.device.read.bytes),
        rate(of.device.read.bytes),
        total(all.disk.write.bytes),
        rate(of.disk.write.bytes),
        total(all.disk.read.bytes),
        rate(of.disk.read.bytes),
        total(all.sent_bytes),
        rate(of.sent_bytes),
        COMPRESS_RATIO.to_owned(),
        max(&all.sync),
        seconds(of.sync.mean_us()),
        max(&all.sync_ack),
        cur(&all.sync_ack),
        max(&all.recovery_ack),
        max2(&of.recovery_ack),
        cur(&all.recovery_ack),
        total(all.difference.max),
        total(all.difference.now),
        total(all.send_queue.max),
        total(of.send_queue.peak),
        total(all.send_queue.now),
        total(all.request_queue.max),
        total(of.request_queue.peak),
        total(all.request_queue.now),
        max(&all.round_trip),
        max2(&of.round_trip),
        cur(&all.round_trip),
        millis_of(all.waits.write_ms),
        millis_of(of.waits.write_ms),
        millis_of(all.waits.copy_ms),
        millis_of(of.waits.copy_ms),
        max(&all.umount),
        cur(&all.umount),
        max(&all.fsck),
        cur(&all.fsck),
    ];
    quoted(&cells)
}

fn quoted(cells: &[impl AsRef<str>]) -> String {
    let mut line = String::new();
    for (at, cell) in cells.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(line, "{comma}\"{}\"", cell.as_ref());
    }
    line.push('\n');
    line
}

/// Microseconds as seconds.
#[must_use]
pub(super) fn seconds(us: u64) -> String {
    decimal(u128::from(us), 6)
}

fn decimal(value: u128, places: u32) -> String {
    let one = 10_u128.pow(places);
    format!("{}.{:0width$}", value / one, value % one, width = places as usize)
}

/// Where the lines of one mirror go, and how much of them is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CsvFile {
    /// The folder. It is made if it is not there.
    pub folder: PathBuf,
    /// Number of the device: the file is nmp1.cur, the one before it nmp1.pre1, and so on.
    pub nmp: u8,
    /// Size in bytes at which it is turned over.
    pub limit: u64,
    /// Older files that are kept.
    pub keep: u32,
}

impl CsvFile {
    /// Adds a line.
    ///
    /// # Errors
    /// The file cannot be made, turned over or written.
    pub fn append(&self, line: &str) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let path = self.path();
        let mut file = open(&path)?;
        let mut size = file.metadata()?.len();
        if size > 0 && size + line.len() as u64 > self.limit {
            self.turn_over()?;
            file = open(&path)?;
            size = 0;
        }
        let head = if size == 0 { quoted(&COLUMNS) } else { String::new() };
        file.write_all(format!("{head}{line}").as_bytes())
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("nmp{}.cur", self.nmp))
    }

    fn older(&self, n: u32) -> PathBuf {
        self.folder.join(format!("nmp{}.pre{n}", self.nmp))
    }

    fn turn_over(&self) -> io::Result<()> {
        if self.keep == 0 {
            return fs::remove_file(self.path());
        }
        for n in (1..self.keep).rev() {
            match fs::rename(self.older(n), self.older(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(self.path(), self.older(1))
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, CsvFile, row};
    use crate::figures::{Figures, Taken};
    use std::fs;

    fn cells(line: &str) -> Vec<&str> {
        line.trim_end().trim_matches('"').split("\",\"").collect()
    }

    fn taken(figures: Figures) -> Taken {
        let names = ["md1", "/dev/NMP1", "server1"].map(str::to_owned);
        let [mirror, device, server] = names;
        Taken { mirror, device, server, at: 0, millis: 2000, figures: Box::new(figures) }
    }

    #[test]
    fn a_line_has_the_columns_of_the_product_in_their_order() {
        let mut all = Figures::default();
        all.device.write.add(1000, 50);
        let mut before = all.clone();
        before.take_peaks();
        all.take_peaks();
        all.device.write.add(3000, 250);
        all.sync.add(250);
        all.round_trip.add(3_000_000);
        all.request_queue.set(4);
        all.request_queue.set(1);
        all.waits.write_ms = 1500;
        all.umount.add(20);
        let line = row("2026/01/02 03:04:05", &all, &taken(all.since(&before)));
        let found = cells(&line);
        assert_eq!(found.len(), COLUMNS.len());
        let at = |name| found[COLUMNS.iter().position(|c| *c == name).expect(name)];
        assert_eq!(found[..3], ["2026/01/02 03:04:05", "4000", "1500.00"]);
        assert_eq!((COLUMNS[28], found[28]), ("MDC HB Time, Max2", "3.000000"));
        assert_eq!(at("Sync Time, Avg"), "0.000250");
        assert_eq!(
            [at("Request Queue, Max"), at("Request Queue, Max2"), at("Request Queue, Cur")],
            ["4", "4", "1"]
        );
        assert_eq!(at("Local-Write Waiting Recovery-Read Time, Total2"), "1.500000");
        assert_eq!((at("Unmount Time, Last"), at("Fsck Time, Max")), ("0.000020", "0.000000"));
    }

    #[test]
    fn a_file_is_turned_over_and_each_begins_with_the_names() {
        let dir = tempfile::tempdir().expect("folder");
        for keep in [0, 1, 3] {
            let folder = dir.path().join(keep.to_string());
            let file = CsvFile { folder, nmp: 7, limit: 2048, keep };
            let line = format!("\"{}\"\n", "x".repeat(300));
            for _ in 0..40 {
                file.append(&line).expect("written");
            }
            let mut names: Vec<_> = fs::read_dir(&file.folder)
                .expect("listed")
                .map(|e| e.expect("entry").path())
                .collect();
            names.sort();
            assert_eq!(names.len(), 1 + keep as usize, "{names:?}");
            for name in &names {
                let text = fs::read_to_string(name).expect("read");
                assert!(text.len() <= 2048 && text.starts_with("\"Date\",\"Write, Total\""));
            }
        }
    }
}
