//! What holds for every parameter, whether the file says it or the defaults do: two configurations
//! are compared by it, key by key.

use super::model::{AgentConfig, MirrorConfig, Server};
use super::params::{Param, Preset, Section, of};
use crate::messages::EventSwitches;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// The values of one table, by key.
pub(super) type Values = BTreeMap<String, String>;

/// The values of every table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Said {
    /// Of the servers, in configuration order.
    pub(super) servers: Vec<Values>,
    pub(super) agent: Values,
    /// Of each mirror, by name.
    pub(super) mirrors: BTreeMap<String, Values>,
    /// Of each `[event.NAME]`.
    pub(super) events: BTreeMap<String, Values>,
}

impl Said {
    /// Of a file without mistakes.
    pub(super) fn of(
        root: &Table,
        servers: &[Server; 2],
        agent: &AgentConfig,
        mirrors: &[MirrorConfig],
        events: &BTreeMap<String, EventSwitches>,
    ) -> Self {
        let empty = Table::new();
        let own = root.get("agent").and_then(Value::as_table).unwrap_or(&empty);
        let mut of_agent = values(Section::Agent, own);
        of_agent.insert("socket".into(), text(agent.socket.display()));
        let mirrors = mirrors.iter().zip(tables(root, "mirror"));
        let event = |to: &EventSwitches| {
            let switches = [("alert", to.alert), ("syslog", to.syslog), ("mail", to.mail)];
            switches.into_iter().map(|(k, v)| (k.to_owned(), v.to_string())).collect()
        };
        Self {
            servers: servers.iter().zip(tables(root, "server")).map(server).collect(),
            agent: of_agent,
            mirrors: mirrors.map(|(m, t)| (m.name.clone(), mirror(m, t, servers))).collect(),
            events: events.iter().map(|(name, to)| (name.clone(), event(to))).collect(),
        }
    }
}

fn tables<'a>(root: &'a Table, key: &str) -> impl Iterator<Item = &'a Table> {
    let array = root.get(key).and_then(Value::as_array).into_iter();
    array.flatten().filter_map(Value::as_table)
}

fn server((server, table): (&Server, &Table)) -> Values {
    let mut out = values(Section::Server, table);
    out.insert("agent_address".into(), text(server.agent_address));
    out
}

fn mirror(mirror: &MirrorConfig, table: &Table, servers: &[Server; 2]) -> Values {
    let mut out = values(Section::Mirror, table);
    out.insert("nmp".into(), mirror.nmp.to_string());
    out.insert("port".into(), mirror.port.to_string());
    for key in ["data_partition", "cluster_partition"] {
        out.remove(key);
    }
    for (server, p) in servers.iter().zip(&mirror.partitions) {
        out.insert(format!("data_partition on {}", server.name), text(p.data.display()));
        out.insert(format!("cluster_partition on {}", server.name), text(p.cluster.display()));
    }
    out
}

fn values(section: Section, table: &Table) -> Values {
    of(section).map(|p| (p.key.to_owned(), value(p, table.get(p.key)))).collect()
}

fn value(p: &Param, given: Option<&Value>) -> String {
    match (given, p.preset) {
        (Some(value), _) => value.to_string(),
        (None, Preset::Int(n)) => n.to_string(),
        (None, Preset::Bool(b)) => b.to_string(),
        (None, Preset::Text(t)) => text(t),
        (None, Preset::Required | Preset::Absent | Preset::Derived(_)) => "(none)".to_owned(),
    }
}

/// As TOML writes it.
fn text(value: impl std::fmt::Display) -> String {
    Value::String(format!("{value}")).to_string()
}
