//! The names of both servers, for what refers to them.

use super::mistakes::{Fault, Load};
use super::model::Server;
use super::read::Reader;
use mirror_core::units::Side;
use toml::Table;

/// The names, if they can be relied upon: while there is a mistake in the servers themselves, a
/// name that seems not to be there is no further mistake.
pub(super) struct Names<'a>(Option<[&'a str; 2]>);

impl<'a> Names<'a> {
    /// Of the servers, or, if those have mistakes elsewhere, of two tables with two names.
    pub(super) fn of(servers: Option<&'a [Server; 2]>, root: &'a Table) -> Self {
        if let Some([a, b]) = servers {
            return Self(Some([&a.name, &b.name]));
        }
        let tables = root.get("server").and_then(|v| v.as_array());
        let names = tables.map(|all| all.iter().filter_map(|t| t.get("name")?.as_str()));
        match names.map(Iterator::collect::<Vec<_>>).as_deref() {
            Some([a, b]) if a != b => Self(Some([a, b])),
            _ => Self(None),
        }
    }

    pub(super) fn known(&self) -> Option<[&'a str; 2]> {
        self.0
    }

    /// Whether one of them is called so, or may be.
    pub(super) fn have(&self, name: &str) -> bool {
        self.0.is_none_or(|pair| pair.contains(&name))
    }

    pub(super) fn no_such(&self) -> String {
        let [a, b] = self.0.unwrap_or_default();
        format!("no such [[server]]; there are: {a}, {b}")
    }

    /// The server that `key` names; `None` while that cannot be told.
    pub(super) fn side(&self, r: &Reader<'_>, key: &str, name: &str) -> Load<Option<Side>> {
        let Some([a, b]) = self.0 else { return Ok(None) };
        match name {
            _ if name == a => Ok(Some(Side::First)),
            _ if name == b => Ok(Some(Side::Second)),
            _ => Err(r.bad(key, Fault::ServerName, &self.no_such())),
        }
    }
}
