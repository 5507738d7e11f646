//! Reading one table of the file under the control of the table of parameters.

use super::doc::allowed;
use super::params::{Kind, Param, Preset, Section, find, of};
use super::place::Spot;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// What kind of mistake, as far as message `mdagent` 2 tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// An address.
    Address,
    /// The name of a server.
    ServerName,
    /// Anything else in the file.
    File,
}

/// A configuration that cannot be used. Prints as one line that names the file, the line, the table,
/// the key, the value and what is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Kind of mistake.
    pub fault: Fault,
    /// Table, key, value and what is wrong.
    pub what: String,
    /// The line in the file, from 1, if the mistake is at one.
    pub line: Option<usize>,
    spot: Option<Spot>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// A mistake in the file as a whole.
    pub(super) fn new(file: &Path, fault: Fault, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), fault, what: what.into(), line: None, spot: None }
    }

    /// The same, with where it is in the file.
    pub(super) fn at(mut self, spot: Spot) -> Self {
        self.spot = Some(spot);
        self
    }

    /// The same, with its line in `text`.
    pub(super) fn with_line(mut self, text: &str) -> Self {
        self.line = self.spot.as_ref().and_then(|s| s.line(text));
        self
    }
}

/// One table, with its place for messages. Every getter looks its key up in the table of
/// parameters; asking for a key that is not there is a mistake of the program.
pub(super) struct Reader<'a> {
    pub(super) file: &'a Path,
    section: Section,
    /// How the place is called in messages, as `[[mirror]] md1`.
    place: String,
    /// Where it is in the file.
    pub(super) spot: Spot,
    table: &'a Table,
}

type Read<T> = Result<T, ConfigError>;

impl<'a> Reader<'a> {
    /// Checks that every key is known (except `nested` ones, which other readers take) and that
    /// every value is allowed.
    pub(super) fn new(
        file: &'a Path,
        section: Section,
        place: impl Into<String>,
        spot: Spot,
        table: &'a Table,
        nested: &[&str],
    ) -> Read<Self> {
        let r = Self { file, section, place: place.into(), spot, table };
        for (key, value) in table.iter().filter(|(k, _)| !nested.contains(&k.as_str())) {
            match find(section, key) {
                None => return Err(r.unknown(key, value)),
                Some(p) => r.check(p, value)?,
            }
        }
        Ok(r)
    }

    fn unknown(&self, key: &str, value: &Value) -> ConfigError {
        let known: Vec<_> = of(self.section).map(|p| p.key).collect();
        self.error(
            key,
            Some(value),
            Fault::File,
            &format!("unknown key; known: {}", known.join(", ")),
        )
    }

    fn error(&self, key: &str, value: Option<&Value>, fault: Fault, what: &str) -> ConfigError {
        let value = value.map_or(String::new(), |v| format!(" = {v}"));
        ConfigError::new(self.file, fault, format!("{}: {key}{value}: {what}", self.place))
            .at(self.spot.key(key))
    }

    /// A mistake in the value of `key`, found after reading.
    pub(super) fn bad(&self, key: &str, fault: Fault, what: &str) -> ConfigError {
        self.error(key, self.table.get(key), fault, what)
    }

    fn check(&self, p: &Param, value: &Value) -> Read<()> {
        let fault = match p.kind {
            Kind::Address | Kind::Addresses => Fault::Address,
            _ => Fault::File,
        };
        if fits(p.kind, value) {
            return Ok(());
        }
        Err(self.error(p.key, Some(value), fault, &format!("must be: {}", allowed(p.kind))))
    }

    fn value(&self, key: &str) -> Read<(&'static Param, Option<&'a Value>)> {
        let p = find(self.section, key).expect("every key that is read is in the table");
        let value = self.table.get(key);
        if value.is_none() && p.preset == Preset::Required {
            let what = format!("missing; must be: {}", allowed(p.kind));
            return Err(self.error(key, None, Fault::File, &what));
        }
        Ok((p, value))
    }

    /// A number, or its default; `None` when the default is derived.
    pub(super) fn int_opt(&self, key: &str) -> Read<Option<i64>> {
        let (p, value) = self.value(key)?;
        Ok(value.and_then(Value::as_integer).or(match p.preset {
            Preset::Int(n) => Some(n),
            _ => None,
        }))
    }

    /// A number that has a default.
    pub(super) fn int<T: TryFrom<i64>>(&self, key: &str) -> Read<T> {
        let n = self.int_opt(key)?.and_then(|n| T::try_from(n).ok());
        Ok(n.expect("the table gives a default and a range that fits the type"))
    }

    /// A text, or its default; `None` when there is none or it is derived.
    pub(super) fn text_opt(&self, key: &str) -> Read<Option<String>> {
        let (p, value) = self.value(key)?;
        Ok(value.and_then(Value::as_str).map(str::to_owned).or(match p.preset {
            Preset::Text(t) => Some(t.to_owned()),
            _ => None,
        }))
    }

    /// A text that has a default or is required.
    pub(super) fn text(&self, key: &str) -> Read<String> {
        Ok(self.text_opt(key)?.expect("required, or the table gives a default"))
    }

    /// A path that has a default.
    pub(super) fn path(&self, key: &str) -> Read<PathBuf> {
        Ok(self.text(key)?.into())
    }

    /// A switch that is there, or its default; `None` when that is derived.
    pub(super) fn bool_opt(&self, key: &str) -> Read<Option<bool>> {
        let (p, value) = self.value(key)?;
        Ok(value.and_then(Value::as_bool).or(match p.preset {
            Preset::Bool(b) => Some(b),
            _ => None,
        }))
    }

    /// A switch that has a default.
    pub(super) fn bool(&self, key: &str) -> Read<bool> {
        Ok(self.bool_opt(key)?.expect("the table gives a default"))
    }

    /// The addresses under `key`, one or a list; empty if absent.
    pub(super) fn addresses(&self, key: &str) -> Read<Vec<IpAddr>> {
        let (_, value) = self.value(key)?;
        Ok(value.map(|v| address_list(v).unwrap_or_default()).unwrap_or_default())
    }
}

fn fits(kind: Kind, value: &Value) -> bool {
    match kind {
        Kind::Int { min, max, .. } => value.as_integer().is_some_and(|n| (min..=max).contains(&n)),
        Kind::Bool => value.is_bool(),
        Kind::Choice(words) => value.as_str().is_some_and(|s| words.contains(&s)),
        Kind::Text(_) => value.as_str().is_some_and(|s| !s.contains(char::is_control)),
        Kind::Name => value.as_str().is_some_and(is_name),
        Kind::Path => value.as_str().is_some_and(is_path),
        Kind::Address => value.is_str() && address_list(value).is_some(),
        Kind::Addresses => value
            .as_array()
            .is_some_and(|a| (1..=4).contains(&a.len()) && address_list(value).is_some()),
    }
}

fn is_name(s: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    s.len() <= 31
        && s.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && s.bytes().all(inner)
}

fn is_path(s: &str) -> bool {
    s.starts_with('/') && !s.contains(char::is_control) && s.len() < 4096
}

fn address_list(value: &Value) -> Option<Vec<IpAddr>> {
    match value {
        Value::String(s) => Some(vec![usable_address(s)?]),
        Value::Array(a) => a.iter().map(|v| usable_address(v.as_str()?)).collect(),
        _ => None,
    }
}

/// An address that one host can be reached at.
fn usable_address(s: &str) -> Option<IpAddr> {
    let address: IpAddr = s.parse().ok()?;
    (!address.is_unspecified() && !address.is_multicast()).then_some(address)
}
