//! What a changed configuration means for an agent that runs: what differs, and whether it may be
//! taken over without a restart. Nothing here touches anything.

use super::model::{Config, MirrorConfig};
use super::said::{Said, Values};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Keys of `[agent]` that a running agent takes over. What is in none of these lists needs a
/// restart, also a key that is added one day.
const AGENT: [&str; 6] =
    ["alert_log_size", "alert_log_keep", "syslog", "mail_to", "mail_program", "mail_timeout"];

/// Keys of `[[mirror]]` that it takes over at any time.
const MIRROR: [&str; 21] = [
    "mount_option",
    "mount_timeout",
    "mount_retry",
    "umount_timeout",
    "umount_retry",
    "umount_interval",
    "umount_action",
    "fsck_option",
    "fsck_timeout",
    "fsck_timing",
    "fsck_interval",
    "fsck_on_mount_failure",
    "xfs_repair_option",
    "xfs_repair_timeout",
    "xfs_repair_on_mount_failure",
    "initial_mkfs",
    "mkfs_option",
    "mkfs_timeout",
    "activate_at_start",
    "disk_error",
    "both_active",
];
/// The server that goes on belongs to `both_active`.
const SURVIVOR: &str = "survivor";
/// The one of `MIRROR` with a value that the driver is given when it opens the mirror, and keeps.
const DISK_ERROR: (&str, &str) = ("disk_error", "\"detach\"");

/// Keys of `[[mirror]]` that it takes over while the mirror is not active on this server.
const WHILE_INACTIVE: [&str; 1] = ["mount_point"];

/// What is known of a mirror when the configuration is reloaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Situation {
    /// It could not be opened: anything may change, it is opened anew.
    Broken,
    /// Its driver does not say: it counts as active.
    Unknown,
    /// Active on this server, on the other one.
    Active {
        /// On this one.
        here: bool,
        /// On the other one; `None` if neither the mirror connect nor its agent tells. It counts as
        /// active then: it may wait for this side to record that it is behind.
        there: Option<bool>,
    },
}

/// One value that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Table, as `[[mirror]] md1`.
    pub table: String,
    /// Key.
    pub key: String,
    /// Value until now, as TOML; `(none)` if absent.
    pub from: String,
    /// Value from now on.
    pub to: String,
}

impl Change {
    /// Whether the driver goes on with or without the other server's disk from now on.
    fn is_of_detach(&self) -> bool {
        let (key, value) = DISK_ERROR;
        self.key == key && [&self.from, &self.to].into_iter().any(|v| v == value)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {} -> {}", self.table, self.key, self.from, self.to)
    }
}

/// What a reload does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Names of mirrors to be opened.
    pub added: Vec<String>,
    /// Names of mirrors to be closed.
    pub removed: Vec<String>,
    /// Names of mirrors that could not be opened and are tried again, whatever changed of them.
    pub again: Vec<String>,
    /// Values to be taken over.
    pub changed: Vec<Change>,
    /// Mirrors that must be inactive on this server until it is done.
    pub idle: BTreeSet<String>,
}

impl Plan {
    /// Whether the file says what it said before.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// Plain sentences, one for each thing that is done.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let added = self.added.iter().map(|name| format!("[[mirror]] {name}: added"));
        let removed = self.removed.iter().map(|name| format!("[[mirror]] {name}: removed"));
        added.chain(removed).chain(self.changed.iter().map(ToString::to_string)).collect()
    }
}

/// Compares the configuration of a running agent with a new one. `situations` has every mirror of
/// the old one.
///
/// # Errors
/// Everything that stands against it, by name. Nothing of it may be taken over then.
pub fn decide(
    old: &Config,
    new: &Config,
    situations: &BTreeMap<String, Situation>,
) -> Result<Plan, Vec<String>> {
    let mut d = Decision { plan: Plan::default(), against: Vec::new() };
    d.servers(&old.said, &new.said);
    for change in differing("[agent]", &old.said.agent, &new.said.agent) {
        let live = AGENT.contains(&change.key.as_str());
        d.judge(change, live);
    }
    d.events(&old.said, &new.said);
    for m in &old.mirrors {
        let situation = situations.get(&m.name).copied().unwrap_or(Situation::Unknown);
        match new.said.mirrors.get(&m.name) {
            None => d.removed(&m.name, situation, old),
            Some(values) if situation == Situation::Broken => {
                d.plan.again.push(m.name.clone());
                d.plan.changed.extend(of_mirror(&m.name, &old.said.mirrors[&m.name], values));
            }
            Some(values) => d.mirror(&m.name, &old.said.mirrors[&m.name], values, situation),
        }
    }
    for m in new.mirrors.iter().filter(|m| old.mirror(&m.name).is_none()) {
        d.added(m, old, new);
    }
    if d.against.is_empty() { Ok(d.plan) } else { Err(d.against) }
}

struct Decision {
    plan: Plan,
    against: Vec<String>,
}

impl Decision {
    fn judge(&mut self, change: Change, live: bool) {
        if live {
            self.plan.changed.push(change);
        } else {
            self.against.push(format!("{change}: takes a restart of the agent"));
        }
    }

    fn servers(&mut self, old: &Said, new: &Said) {
        for (n, (a, b)) in old.servers.iter().zip(&new.servers).enumerate() {
            let table = format!("[[server]] number {}", n + 1);
            for change in differing(&table, a, b) {
                self.judge(change, false);
            }
        }
    }

    fn events(&mut self, old: &Said, new: &Said) {
        let names: BTreeSet<_> = old.events.keys().chain(new.events.keys()).collect();
        let none = Values::new();
        for name in names {
            let of = |said: &Said| said.events.get(name).unwrap_or(&none).clone();
            let changes = differing(&format!("[event.{name}]"), &of(old), &of(new));
            self.plan.changed.extend(changes);
        }
    }

    fn mirror(&mut self, name: &str, old: &Values, new: &Values, situation: Situation) {
        for change in of_mirror(name, old, new) {
            let key = change.key.as_str();
            if !WHILE_INACTIVE.contains(&key) {
                let live = (MIRROR.contains(&key) || key == SURVIVOR) && !change.is_of_detach();
                self.judge(change, live);
            } else if let Situation::Active { here: false, .. } = situation {
                self.plan.idle.insert(name.to_owned());
                self.plan.changed.push(change);
            } else {
                self.against.push(format!("{change}: not while {name} is active here"));
            }
        }
    }

    fn removed(&mut self, name: &str, situation: Situation, old: &Config) {
        let on = match situation {
            Situation::Broken | Situation::Active { here: false, there: Some(false) } => {
                self.plan.idle.insert(name.to_owned());
                self.plan.removed.push(name.to_owned());
                return;
            }
            Situation::Unknown => "may be active: its driver does not answer".to_owned(),
            Situation::Active { here: true, .. } => format!("is active on {}", old.local().name),
            Situation::Active { there: None, .. } => {
                format!("may be active on {}, which does not answer", old.peer().name)
            }
            Situation::Active { .. } => format!("is active on {}", old.peer().name),
        };
        self.against.push(format!("[[mirror]] {name}: {on}, so it cannot be removed"));
    }

    /// A new mirror must not want what one has that goes with the same reload: that one may not be
    /// gone by then.
    fn added(&mut self, m: &MirrorConfig, old: &Config, new: &Config) {
        let gone = |o: &&MirrorConfig| new.mirror(&o.name).is_none();
        let shared = old.mirrors.iter().filter(gone).find(|o| {
            let mine = &m.partitions[old.side.index()];
            let theirs = &o.partitions[old.side.index()];
            let paths = [&theirs.data, &theirs.cluster];
            let partition = paths.contains(&&mine.data) || paths.contains(&&mine.cluster);
            o.nmp == m.nmp || o.port == m.port || partition
        });
        match shared {
            None => self.plan.added.push(m.name.clone()),
            Some(o) => self.against.push(format!(
                "[[mirror]] {}: uses a number, port or partition of {}, which is removed: remove that first, with a reload of its own",
                m.name, o.name
            )),
        }
    }
}

fn of_mirror(name: &str, old: &Values, new: &Values) -> Vec<Change> {
    differing(&format!("[[mirror]] {name}"), old, new)
}

fn differing(table: &str, old: &Values, new: &Values) -> Vec<Change> {
    let none = || "(none)".to_owned();
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let of = |values: &Values, key: &String| values.get(key).cloned().unwrap_or_else(none);
    let all = keys.into_iter().map(|key| Change {
        table: table.to_owned(),
        key: key.clone(),
        from: of(old, key),
        to: of(new, key),
    });
    all.filter(|c| c.from != c.to).collect()
}

#[cfg(test)]
mod tests;
