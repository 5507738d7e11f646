//! The table of every message: of the manual (§12.1, §12.2, §12.4.4, §12.5.6, §12.5.7), of the
//! later product where the function exists here, and this project's own.
//!
//! The texts are kept to the letter, with the manual's spelling. Whoever logs, exits or explains
//! takes them from here; `clpmdmsg` and `docs/messages.md` print it.

mod agent;
mod driver;
mod result;
mod search;

pub use search::{filled_in, find};

use super::events::{EventSwitches, Level};
use std::fmt::Write as _;

/// Where a message comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The manual, in this section.
    Manual(&'static str),
    /// Later versions of the product that the manual describes.
    Later,
    /// This project.
    Own,
}

/// Whether anything here gives the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Raised {
    /// The event that it describes.
    Here,
    /// Nothing: the reason.
    Never(&'static str),
    /// Nothing yet: the function that it belongs to is not there.
    NotYet,
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Module type: `mdagent`, `mdadmn`, `liscal` for events; `md`, `mdw`, `mdnw` for results.
    pub module: &'static str,
    /// Number within the module: the event's, or the exit code. The manual prints none for
    /// `liscal`: those are counted in its order, from 1; this project's own begin at 201.
    pub id: u16,
    /// Level.
    pub level: Level,
    /// Text with `%1`, `%2`.
    pub text: &'static str,
    /// Destinations unless the configuration says otherwise; none for results.
    pub to: EventSwitches,
    /// What it means.
    pub meaning: &'static str,
    /// What to do; empty where nothing is to be done.
    pub remedy: &'static str,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether anything here gives it.
    pub raised: Raised,
}

pub(super) const ALERT_SYSLOG: EventSwitches =
    EventSwitches { alert: true, syslog: true, mail: false };
pub(super) const ALL: EventSwitches = EventSwitches { alert: true, syslog: true, mail: true };
pub(super) const SYSLOG: EventSwitches = EventSwitches { alert: false, syslog: true, mail: false };
pub(super) const NOWHERE: EventSwitches =
    EventSwitches { alert: false, syslog: false, mail: false };

const MEMORY: &str =
    "Memory or another resource of the system may be short: `free`, `top`, `dmesg`.";

/// The modules, in the order of the table.
pub const MODULES: [&str; 6] = ["mdagent", "mdadmn", "liscal", "md", "mdw", "mdnw"];

/// Every message.
pub fn all() -> impl Iterator<Item = &'static Message> {
    [agent::ROWS, driver::ROWS, result::ROWS].into_iter().flatten()
}

/// The message of this module with this number.
#[must_use]
pub fn row(module: &str, id: u16) -> Option<&'static Message> {
    all().find(|m| m.id == id && m.module == module)
}

/// The events: what can be given other destinations.
pub fn events() -> impl Iterator<Item = &'static Message> {
    all().filter(|m| m.is_event())
}

/// Default destinations of what `[event.NAME]` names: one message that is given here, or all of
/// `liscal`.
#[must_use]
pub fn destinations(name: &str) -> Option<EventSwitches> {
    if name == "liscal" {
        return Some(SYSLOG);
    }
    events().find(|m| !matches!(m.raised, Raised::Never(_)) && m.name() == name).map(|m| m.to)
}

/// Why the licences' messages are not here.
pub(super) const LICENCE: &str = "there are no licences here";

impl Message {
    /// Its name in the configuration and for `clpmdmsg`: `mdadmn-5`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.module, self.id)
    }

    /// Its text with the arguments filled in.
    #[must_use]
    pub fn fill(&self, arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|&s| s.to_owned()).collect();
        super::events::fill(self.text, &arguments)
    }

    /// Whether it is logged; the others are printed by a command.
    #[must_use]
    pub fn is_event(&self) -> bool {
        matches!(self.module, "mdagent" | "mdadmn" | "liscal")
    }

    /// Where it comes from, and whether it is given here, in words.
    #[must_use]
    pub fn standing(&self) -> String {
        let origin = match self.origin {
            Origin::Manual(section) => format!("manual §{section}"),
            Origin::Later => "later product".to_owned(),
            Origin::Own => "this product's own".to_owned(),
        };
        match self.raised {
            Raised::Here => origin,
            Raised::Never(why) => format!("{origin}; not given here: {why}"),
            Raised::NotYet => format!("{origin}; not given yet"),
        }
    }

    /// Where it goes, in words.
    #[must_use]
    pub fn destinations(&self) -> String {
        let to = [("alert log", self.to.alert), ("syslog", self.to.syslog), ("mail", self.to.mail)];
        let names: Vec<&str> = to.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        if names.is_empty() {
            "exit code and output of the command".to_owned()
        } else {
            names.join(", ")
        }
    }

    /// The page of `clpmdmsg` about it.
    #[must_use]
    pub fn page(&self) -> String {
        let mut out =
            format!("{} {} ({})\n  {}\n", self.module, self.id, self.level.word(), self.text);
        out.push_str(&wrapped("Meaning:", self.meaning));
        let remedy = if self.remedy.is_empty() { "none needed" } else { self.remedy };
        out.push_str(&wrapped("Remedy:", remedy));
        let _ = writeln!(out, "Goes to: {}", self.destinations());
        out.push_str(&wrapped("Source:", &self.standing()));
        out
    }
}

/// Columns of a terminal that `clpmdmsg` fills.
const COLUMNS: usize = 80;
/// Width of the labels.
const LABEL: usize = 9;

/// A label and a text beside it, broken into lines.
fn wrapped(label: &str, text: &str) -> String {
    let mut out = format!("{label:<LABEL$}");
    let mut column = LABEL;
    for (n, word) in text.split_whitespace().enumerate() {
        let width = word.chars().count();
        if n > 0 && column + 1 + width > COLUMNS {
            let _ = write!(out, "\n{:LABEL$}", "");
            column = LABEL;
        } else if n > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out.push('\n');
    out
}

/// The reference of all messages, in Markdown: `docs/messages.md`.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# Messages\n\nEvery message with its meaning and remedy, as `clpmdmsg` prints it: `clpmdmsg mdadmn-5`, or\n\
         any part of a line from a log. Where they go by default, and how to change it:\n\
         [configuration.md](configuration.md#event-names). `%1`, `%2` stand for what varies. The numbers of\n\
         `liscal` are this product's, in the order of the manual's table; its lines bear none.\n",
    );
    for module in MODULES {
        let _ = write!(
            out,
            "\n## `{module}`\n\n| | level | text | meaning | remedy | source |\n|---|---|---|---|---|---|\n"
        );
        for m in all().filter(|m| m.module == module) {
            let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                m.id,
                m.level.word(),
                cell(m.text),
                cell(m.meaning),
                cell(m.remedy),
                cell(&m.standing())
            );
        }
    }
    out
}
