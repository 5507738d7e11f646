//! The alert log: a file that is turned over at a size, with a number of older ones kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Where the alert log is, and how much of it is kept.
#[derive(Clone, Debug)]
pub struct AlertLog {
    /// The file; `<file>.1` is the one before it, `<file>.2` the one before that.
    pub path: PathBuf,
    /// Size in bytes at which it is turned over.
    pub limit: u64,
    /// Older files that are kept.
    pub keep: u32,
}

impl AlertLog {
    /// Adds a line with its time. The folder is made if it is not there.
    pub(super) fn append(&self, line: &str) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = self.open()?;
        if file.metadata()?.len() >= self.limit {
            self.turn_over()?;
            file = self.open()?;
        }
        let stamp = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S");
        file.write_all(format!("{stamp} {line}\n").as_bytes())
    }

    /// Makes what was added durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.open()?.sync_data()
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)
    }

    fn turn_over(&self) -> io::Result<()> {
        if self.keep == 0 {
            return fs::remove_file(&self.path);
        }
        for n in (1..self.keep).rev() {
            match fs::rename(older(&self.path, n), older(&self.path, n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(&self.path, older(&self.path, 1))
    }
}

fn older(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::{AlertLog, older};
    use std::fs;

    #[test]
    fn the_alert_log_is_turned_over_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().expect("folder");
        for keep in [0, 1, 3] {
            let path = dir.path().join(format!("{keep}/alert.log"));
            let log = AlertLog { path: path.clone(), limit: 1, keep };
            for n in 0..6 {
                log.append(&format!("line {n}")).expect("written");
            }
            assert!(fs::read_to_string(&path).expect("current").ends_with("line 5\n"));
            for n in 1..=keep {
                let text = fs::read_to_string(older(&path, n)).expect("kept");
                assert!(text.ends_with(&format!("line {}\n", 5 - n)), "{n}: {text}");
            }
            assert!(!older(&path, keep + 1).exists(), "no more than {keep}");
        }
    }
}
