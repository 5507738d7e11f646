//! The manual page of the configuration, printed from the table of parameters.

use super::params::{Kind, Param, Preset, Section, of};
use crate::messages::table::{self, Raised};
use std::fmt::Write as _;

const HEAD: &str = "\
# The configuration file

One TOML file, the same on both servers: `/etc/clpmd/clpmd.toml`, or the one named by `--config` or
by the variable `CLPMD_CONFIG`. Two `[[server]]` tables; their order decides ties. Unknown keys are
errors. This page is printed by `clpmdagent --config-help`.
";

/// The whole page.
pub(super) fn page() -> String {
    let mut out = String::from(HEAD);
    for section in Section::ALL {
        out.push_str(&section_page(section));
    }
    out.push_str(&event_names());
    out
}

fn section_page(section: Section) -> String {
    let mut out = format!(
        "\n## `{}`\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
        section.heading()
    );
    for p in of(section) {
        out.push_str(&row(p));
    }
    out
}

fn row(p: &Param) -> String {
    format!("| `{}` | {} | {} | {} |\n", p.key, allowed(p.kind), preset(p), p.help)
}

/// What values a kind takes, for the page and for error messages.
#[must_use]
pub(super) fn allowed(kind: Kind) -> String {
    match kind {
        Kind::Int { min, max, unit } => format!("{min} to {max} {unit}").trim_end().to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Choice(words) => words.join(", "),
        Kind::Text(what) => what.to_owned(),
        Kind::Name => "name of letters, digits, `-`, `_`, `.`; at most 31 bytes".to_owned(),
        Kind::Path => "absolute path".to_owned(),
        Kind::Address => "IP address".to_owned(),
        Kind::Addresses => "list of 1 to 4 IP addresses".to_owned(),
    }
}

fn preset(p: &Param) -> String {
    match p.preset {
        Preset::Required => "(required)".to_owned(),
        Preset::Absent => "(none)".to_owned(),
        Preset::Int(n) => n.to_string(),
        Preset::Bool(b) => b.to_string(),
        Preset::Text("") => "(empty)".to_owned(),
        Preset::Text(t) => format!("`{t}`"),
        Preset::Derived(how) => how.to_owned(),
    }
}

fn event_names() -> String {
    let mut out = String::from(
        "\n## Event names\n\nWith meaning and remedy: [messages.md](messages.md), `clpmdmsg NAME`. `liscal` stands for all of the\n\
         driver's messages that are not named themselves.\n\n\
         | `[event.NAME]` | level | alert | syslog | mail | text |\n|---|---|---|---|---|---|\n",
    );
    for m in table::events().filter(|m| m.raised == Raised::Here) {
        let yes = |b: bool| if b { "yes" } else { "no" };
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} | {} |",
            m.name(),
            m.level.word(),
            yes(m.to.alert),
            yes(m.to.syslog),
            yes(m.to.mail),
            m.text
        );
    }
    out
}
