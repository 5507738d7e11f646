//! Every mistake of a configuration: they are collected while it is read, and told all at once.

use super::place::Spot;
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::{Path, PathBuf};

/// Mistakes that are told; more are counted.
const TOLD_MAX: usize = 100;
/// Longest text of one, in bytes: names and values of any length may be in it.
const WHAT_MAX: usize = 2048;

/// What kind of mistake, as far as message `mdagent` 2 tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// An address.
    Address,
    /// The name of a server.
    ServerName,
    /// Anything else in the file.
    File,
}

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Mistake {
    /// Kind of mistake.
    pub fault: Fault,
    /// The line in the file, from 1, if the mistake is at one: that of the key, or of the table in
    /// which it is missing.
    pub line: Option<usize>,
    /// The key, as `mirror[0].peer_timeout`, counted from 0; absent for the file as a whole.
    pub field: Option<String>,
    /// Table, key, value and what is allowed.
    pub what: String,
}

/// A configuration that cannot be used. Prints as one line for each mistake, which names the file,
/// the line, the table, the key, the value and what is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong, in the order of the lines; never empty.
    pub mistakes: Vec<Mistake>,
    /// Mistakes beyond those.
    pub more: usize,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for (n, mistake) in self.mistakes.iter().enumerate() {
            let begin = if n == 0 { "" } else { "\n" };
            write!(f, "{begin}{file}: ")?;
            if let Some(line) = mistake.line {
                write!(f, "line {line}: ")?;
            }
            f.write_str(&mistake.what)?;
        }
        match self.more {
            0 => Ok(()),
            n => write!(f, "\n{file}: and {n} more"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// A mistake of the file as a whole.
    pub(super) fn whole(file: &Path, what: impl Into<String>) -> Self {
        let mistake = Mistake { fault: Fault::File, line: None, field: None, what: what.into() };
        Self { file: file.to_owned(), mistakes: vec![mistake], more: 0 }
    }

    /// The kind of the first mistake.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.mistakes.first().map_or(Fault::File, |m| m.fault)
    }
}

fn bounded(mut what: String) -> String {
    if what.len() > WHAT_MAX {
        let end = (0..WHAT_MAX).rev().find(|n| what.is_char_boundary(*n)).unwrap_or(0);
        what.truncate(end);
        what.push_str(" ...");
    }
    what
}

/// Says that something could not be read, and that the mistake has been noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Noted;

/// Something that was read, or a mistake that was noted.
pub(super) type Load<T> = Result<T, Noted>;

/// The mistakes of one file, so far.
pub(super) struct Mistakes<'a> {
    pub(super) file: &'a Path,
    found: RefCell<Vec<(Mistake, Option<Spot>)>>,
    more: Cell<usize>,
}

impl<'a> Mistakes<'a> {
    pub(super) fn of(file: &'a Path) -> Self {
        Self { file, found: RefCell::default(), more: Cell::new(0) }
    }

    /// Notes a mistake of the file as a whole.
    pub(super) fn whole(&self, fault: Fault, what: impl Into<String>) -> Noted {
        self.note(fault, what.into(), None, None)
    }

    /// Notes a mistake on a line that is known.
    pub(super) fn on_line(&self, line: Option<usize>, what: impl Into<String>) -> Noted {
        self.note(Fault::File, what.into(), line, None)
    }

    /// Notes a mistake at `spot`. Only the first at a place counts: what follows from it is none.
    pub(super) fn at(&self, spot: Spot, fault: Fault, what: impl Into<String>) -> Noted {
        if self.found.borrow().iter().any(|(_, s)| s.as_ref() == Some(&spot)) {
            return Noted;
        }
        self.note(fault, what.into(), None, Some(spot))
    }

    fn note(&self, fault: Fault, what: String, line: Option<usize>, spot: Option<Spot>) -> Noted {
        let mut found = self.found.borrow_mut();
        if found.len() < TOLD_MAX {
            let what = bounded(what);
            let field = spot.as_ref().map(|s| bounded(s.to_string()));
            found.push((Mistake { fault, line, field, what }, spot));
        } else {
            self.more.set(self.more.get() + 1);
        }
        Noted
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// What was noted, with the lines in `text`. `None` if there is nothing.
    pub(super) fn into_error(self, text: &str) -> Option<ConfigError> {
        let (mut mistakes, spots): (Vec<_>, Vec<_>) = self.found.into_inner().into_iter().unzip();
        let lines = Spot::lines(&spots, text);
        for (mistake, line) in mistakes.iter_mut().zip(lines) {
            mistake.line = mistake.line.or(line);
        }
        mistakes.sort_by_key(|m| m.line);
        let more = self.more.get();
        (!mistakes.is_empty()).then(|| ConfigError { file: self.file.to_owned(), mistakes, more })
    }
}
