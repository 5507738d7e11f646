//! Reading one table of the file under the control of the table of parameters.

use super::doc::allowed;
use super::mistakes::{Fault, Load, Mistakes, Noted};
use super::params::{Kind, Param, Preset, Section, find, of};
use super::place::Spot;
use std::net::IpAddr;
use std::path::PathBuf;
use toml::{Table, Value};

/// One table, with its place for messages. Every getter looks its key up in the table of
/// parameters; asking for a key that is not there is a mistake of the program. A value that is not
/// allowed has been noted and reads as if the key was absent.
pub(super) struct Reader<'a> {
    pub(super) mistakes: &'a Mistakes<'a>,
    section: Section,
    /// How the place is called in messages, as `[[mirror]] md1`.
    pub(super) place: String,
    /// Where it is in the file.
    pub(super) spot: Spot,
    table: &'a Table,
}

impl<'a> Reader<'a> {
    /// Notes every key that is unknown (except `nested` ones, which other readers take), every value
    /// that is not allowed, and every required key that is missing.
    pub(super) fn new(
        mistakes: &'a Mistakes<'a>,
        section: Section,
        place: impl Into<String>,
        spot: Spot,
        table: &'a Table,
        nested: &[&str],
    ) -> Self {
        let r = Self { mistakes, section, place: place.into(), spot, table };
        for (key, value) in table.iter().filter(|(k, _)| !nested.contains(&k.as_str())) {
            match find(section, key) {
                None => r.unknown(key, value),
                Some(p) => r.check(p, value),
            };
        }
        for p in of(section).filter(|p| p.preset == Preset::Required) {
            if !table.contains_key(p.key) {
                let what = format!("missing; must be: {}", allowed(p.kind));
                r.error(p.key, None, Fault::File, &what);
            }
        }
        r
    }

    fn unknown(&self, key: &str, value: &Value) {
        let known: Vec<_> = of(self.section).map(|p| p.key).collect();
        let what = format!("unknown key; known: {}", known.join(", "));
        self.error(key, Some(value), Fault::File, &what);
    }

    fn error(&self, key: &str, value: Option<&Value>, fault: Fault, what: &str) -> Noted {
        let value = value.map_or(String::new(), |v| format!(" = {v}"));
        let what = format!("{}: {key}{value}: {what}", self.place);
        self.mistakes.at(self.spot.key(key), fault, what)
    }

    /// Notes a mistake in the value of `key` that shows only beside others.
    pub(super) fn bad(&self, key: &str, fault: Fault, what: &str) -> Noted {
        self.error(key, self.table.get(key), fault, what)
    }

    /// Whether `key` is absent or has a value that is allowed: rules between values are for these.
    pub(super) fn is_good(&self, key: &str) -> bool {
        let p = find(self.section, key).expect("every key that is read is in the table");
        self.table.get(key).is_none_or(|v| fits(p.kind, v))
    }

    fn check(&self, p: &Param, value: &Value) {
        let fault = match p.kind {
            Kind::Address | Kind::Addresses => Fault::Address,
            _ => Fault::File,
        };
        if !fits(p.kind, value) {
            self.error(p.key, Some(value), fault, &format!("must be: {}", allowed(p.kind)));
        }
    }

    fn value(&self, key: &str) -> Load<(&'static Param, Option<&'a Value>)> {
        let p = find(self.section, key).expect("every key that is read is in the table");
        match self.table.get(key).filter(|v| fits(p.kind, v)) {
            None if p.preset == Preset::Required => Err(Noted),
            value => Ok((p, value)),
        }
    }

    /// A number, or its default; `None` when the default is derived.
    pub(super) fn int_opt(&self, key: &str) -> Load<Option<i64>> {
        let (p, value) = self.value(key)?;
        Ok(value.and_then(Value::as_integer).or(match p.preset {
            Preset::Int(n) => Some(n),
            _ => None,
        }))
    }

    /// A number that has a default.
    pub(super) fn int<T: TryFrom<i64>>(&self, key: &str) -> Load<T> {
        let n = self.int_opt(key)?.and_then(|n| T::try_from(n).ok());
        Ok(n.expect("the table gives a default and a range that fits the type"))
    }

    /// A text, or its default; `None` when there is none or it is derived.
    pub(super) fn text_opt(&self, key: &str) -> Load<Option<String>> {
        let (p, value) = self.value(key)?;
        Ok(value.and_then(Value::as_str).map(str::to_owned).or(match p.preset {
            Preset::Text(t) => Some(t.to_owned()),
            _ => None,
        }))
    }

    /// A text that has a default or is required.
    pub(super) fn text(&self, key: &str) -> Load<String> {
        Ok(self.text_opt(key)?.expect("required, or the table gives a default"))
    }

    /// A path that has a default.
    pub(super) fn path(&self, key: &str) -> Load<PathBuf> {
        Ok(self.text(key)?.into())
    }

    /// A switch that is there, or its default; `None` when that is derived.
    pub(super) fn bool_opt(&self, key: &str) -> Load<Option<bool>> {
        let (p, value) = self.value(key)?;
        Ok(value.and_then(Value::as_bool).or(match p.preset {
            Preset::Bool(b) => Some(b),
            _ => None,
        }))
    }

    /// A switch that has a default.
    pub(super) fn bool(&self, key: &str) -> Load<bool> {
        Ok(self.bool_opt(key)?.expect("the table gives a default"))
    }

    /// The addresses under `key`, one or a list; empty if absent.
    pub(super) fn addresses(&self, key: &str) -> Load<Vec<IpAddr>> {
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
