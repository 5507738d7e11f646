//! One mirror disk resource.

use super::tree::{number_at, path, text, text_at};
use super::{Left, Server, at, quoted};
use mirror_agent::config::params::{Kind, Section, find};
use roxmltree::Node;
use std::fmt::Write as _;

/// What is said of a mirror disk in our words.
pub(super) struct Md {
    pub(super) name: String,
    /// Devices of its mirror connects, by priority.
    pub(super) devices: Vec<u64>,
    /// Keys and values of `[[mirror]]`, as TOML.
    lines: Vec<(&'static str, String)>,
    /// Where a server has its partitions elsewhere: its name, keys and values.
    on: Vec<(String, Vec<(&'static str, String)>)>,
}

/// Values that are taken as they are: where they are, and our key.
const SAME: [(&str, &str); 16] = [
    ("mount/option", "mount_option"),
    ("mount/timeout", "mount_timeout"),
    ("mount/retry", "mount_retry"),
    ("mount/action", "fsck_on_mount_failure"),
    ("mount/xfsaction", "xfs_repair_on_mount_failure"),
    ("umount/timeout", "umount_timeout"),
    ("umount/retry", "umount_retry"),
    ("umount/interval", "umount_interval"),
    ("umount/action", "umount_action"),
    ("fsck/option", "fsck_option"),
    ("fsck/timeout", "fsck_timeout"),
    ("fsck/interval", "fsck_interval"),
    ("fsck/xfsoption", "xfs_repair_option"),
    ("fsck/xfstimeout", "xfs_repair_timeout"),
    ("mkfs", "initial_mkfs"),
    ("mddriver/port", "port"),
];

/// Places that have no equal here, and why; only said where the value is not the default.
const NO_EQUAL: [(&str, &str, &str); 17] = [
    ("fullcopy", "1", "the first copy is always made"),
    ("fsck/fixopt", "0", "there is no reiserfs here"),
    ("mddriver/hbport", "", "heartbeats go over the connection of the data"),
    ("mddriver/ack2port", "", "answers go over the connection of the data"),
    ("mddriver/sync", "1", "to keep the servers apart for a while: clpmdctrl --break"),
    ("mddriver/syncmode", "1", "THE MIRROR IS SYNCHRONOUS HERE, there is no asynchronous mode"),
    ("mddriver/sendqueuesize", "", "there is no asynchronous mode"),
    ("mddriver/bandlimit", "", "there is no asynchronous mode"),
    ("mddriver/historydir", "", "there is no asynchronous mode"),
    ("mddriver/historymax", "", "there is no asynchronous mode"),
    ("mddriver/compress", "0", "data are not compressed"),
    ("mddriver/crypto", "", "the key of the product is of no use here; see configuration.md"),
    ("mddriver/sendtimeout", "", "see heartbeat_interval and peer_timeout"),
    ("mddriver/connecttimeout", "", "see connect_timeout"),
    ("mddriver/acktimeout", "", "see heartbeat_interval and peer_timeout"),
    ("mddriver/recvnormaltimeout", "", "see heartbeat_interval and peer_timeout"),
    (
        "mddriver/hbinterval",
        "",
        "see heartbeat_interval and peer_timeout: five seconds in all by default",
    ),
];

/// Every mirror disk resource that can be one here.
pub(super) fn all(
    root: Node<'_, '_>,
    servers: &[Server; 2],
    left: &mut Left,
) -> Result<Vec<Md>, String> {
    let resources = root.children().filter(|n| n.has_tag_name("resource"));
    let nodes = resources.flat_map(|n| n.children()).filter(|n| n.has_tag_name("md"));
    let mut out = Vec::new();
    for node in nodes {
        out.extend(one(node, servers, left)?);
    }
    if out.is_empty() {
        return Err("no mirror disk resource (md) that can be one here".to_owned());
    }
    Ok(out)
}

fn one(node: Node<'_, '_>, servers: &[Server; 2], left: &mut Left) -> Result<Option<Md>, String> {
    let name = node.attribute("name").ok_or_else(|| at(node, "an md without a name"))?;
    let values = path(node, "parameters").ok_or_else(|| at(node, "an md without parameters"))?;
    let fs = text_at(values, "fs").unwrap_or("ext4");
    if !matches!(fs, "ext3" | "ext4" | "xfs" | "none") {
        left.out(name, &format!("its file system is {fs}; here are ext4, ext3, xfs and none"));
        return Ok(None);
    }
    let mut md =
        Md { name: name.to_owned(), devices: devices(values), lines: Vec::new(), on: Vec::new() };
    md.line("name", quoted(name));
    if let Some(nmp) = text_at(values, "nmppath").and_then(|p| p.strip_prefix("/dev/NMP")) {
        md.number("nmp", nmp, left);
    }
    md.lines.extend(partitions(values));
    md.line("fs", quoted(fs));
    match text_at(values, "mount/point") {
        Some(point) if fs != "none" => md.line("mount_point", quoted(point)),
        Some(_) => left.out(format!("{name}: mount/point"), "it has no file system"),
        None => {}
    }
    for (place, key) in SAME {
        if let Some(value) = text_at(values, place) {
            md.value(place, key, value, left);
        }
    }
    match text_at(values, "fsck/timing") {
        Some("0") => md.line("fsck_timing", quoted("never")),
        Some("1") => md.line("fsck_timing", quoted("always")),
        _ => {}
    }
    for (place, preset, why) in NO_EQUAL {
        let found = path(values, place).filter(|n| text(*n) != Some(preset));
        if let Some(found) = found.filter(|n| n.has_children()) {
            let value = text(found).map_or(String::new(), |v| format!(" = {v}"));
            left.out(format!("{name}: {place}{value}"), why);
        }
    }
    for limit in ["act", "deact"] {
        if path(node, limit).is_some_and(|n| n.has_children()) {
            left.out(format!("{name}: {limit}"), "each step has its own time limit here");
        }
    }
    for over in node.children().filter(|n| n.has_tag_name("server")) {
        md.over(over, servers, left);
    }
    Ok(Some(md))
}

fn devices(values: Node<'_, '_>) -> Vec<u64> {
    let nets = values.children().filter(|n| n.has_tag_name("netdev"));
    let mut all: Vec<(u64, u64)> = nets
        .filter_map(|n| Some((number_at(n, "priority").unwrap_or(0), number_at(n, "device")?)))
        .collect();
    all.sort_unstable();
    all.into_iter().map(|(_, device)| device).collect()
}

fn partitions(values: Node<'_, '_>) -> Vec<(&'static str, String)> {
    let all = [("diskdev/dppath", "data_partition"), ("diskdev/cppath", "cluster_partition")];
    all.into_iter().filter_map(|(p, key)| Some((key, quoted(text_at(values, p)?)))).collect()
}

impl Md {
    fn line(&mut self, key: &'static str, value: String) {
        self.lines.push((key, value));
    }

    /// A value in our words, if it is one of ours.
    fn value(&mut self, place: &str, key: &'static str, value: &str, left: &mut Left) {
        match find(Section::Mirror, key).map(|p| p.kind) {
            Some(Kind::Int { .. }) => self.number(key, value, left),
            Some(Kind::Bool) if matches!(value, "0" | "1") => {
                self.line(key, (value == "1").to_string());
            }
            Some(Kind::Choice(words)) if words.contains(&value) => self.line(key, quoted(value)),
            Some(Kind::Text(_)) => self.line(key, quoted(value)),
            _ => left.out(format!("{}: {place} = {value}", self.name), "no such value here"),
        }
    }

    fn number(&mut self, key: &'static str, value: &str, left: &mut Left) {
        let Some(Kind::Int { min, max, .. }) = find(Section::Mirror, key).map(|p| p.kind) else {
            return;
        };
        match value.parse::<i64>() {
            Ok(n) if (min..=max).contains(&n) => self.line(key, n.to_string()),
            _ => {
                let why = format!("not from {min} to {max}; the default holds");
                left.out(format!("{}: {key} = {value}", self.name), &why);
            }
        }
    }

    /// What one server has otherwise.
    fn over(&mut self, node: Node<'_, '_>, servers: &[Server; 2], left: &mut Left) {
        let name = node.attribute("name").unwrap_or_default();
        let Some(values) = path(node, "parameters") else { return };
        if !servers.iter().any(|s| s.name == name) {
            left.out(format!("{}: server {name}", self.name), "there is no such server");
            return;
        }
        let partitions = partitions(values);
        let others = values.children().filter(|n| n.is_element() && !n.has_tag_name("diskdev"));
        for other in others {
            let what = format!("{}: server {name}: {}", self.name, other.tag_name().name());
            left.out(what, "only the partitions can differ between the servers");
        }
        if !partitions.is_empty() {
            self.on.push((name.to_owned(), partitions));
        }
    }

    pub(super) fn write(&self, out: &mut String, survivor: Option<&str>) {
        out.push_str("\n[[mirror]]\n");
        let lines = |out: &mut String, lines: &[(&'static str, String)]| {
            for (key, value) in lines {
                let _ = writeln!(out, "{key} = {value}");
            }
        };
        lines(out, &self.lines);
        if let Some(name) = survivor {
            let _ = writeln!(out, "both_active = \"survivor\"\nsurvivor = {}", quoted(name));
        }
        for (server, own) in &self.on {
            let _ = writeln!(out, "[mirror.on.{}]", quoted(server));
            lines(out, own);
        }
    }
}
