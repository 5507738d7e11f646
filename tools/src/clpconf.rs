//! The product's own configuration (`clp.conf`, XML), read for what a mirror disk needs, and written
//! as ours. What is not taken over is listed, each with its reason.
//!
//! The file may come from anywhere: its size, the number of its nodes and their depth are bounded, and
//! document types, and with them entities, are refused.

mod md;
mod tree;

use md::Md;
use roxmltree::{Document, Node, ParsingOptions};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Largest file that is read, in bytes.
pub const FILE_MAX: usize = 4 * 1024 * 1024;
/// Most nodes (elements, texts, comments).
const NODES_MAX: u32 = 100_000;
/// Deepest nesting; the product's own files have eight.
const DEPTH_MAX: usize = 64;
/// Most lines of what was not taken over.
const LEFT_MAX: usize = 500;

/// What became of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Converted {
    /// Our configuration.
    pub toml: String,
    /// What was not taken over, one line each: where, and why.
    pub left: Vec<String>,
}

/// Where things are noted that are not taken over.
#[derive(Default)]
struct Left(Vec<String>);

impl Left {
    fn out(&mut self, what: impl std::fmt::Display, why: &str) {
        if self.0.len() < LEFT_MAX {
            // One line each, whatever the file has in its names.
            self.0.push(format!("{what}: {why}").replace(char::is_control, " "));
        }
    }
}

/// One of the two servers.
struct Server {
    name: String,
    priority: u64,
    /// Addresses by device number; those of mirror connects have numbers from 400.
    addresses: BTreeMap<u64, IpAddr>,
    survives: bool,
}

/// Converts the bytes of a `clp.conf`.
///
/// # Errors
/// It is no XML, too large, or not the configuration of two Linux servers with a mirror disk; where
/// and why.
pub fn convert(bytes: &[u8]) -> Result<Converted, String> {
    if bytes.len() > FILE_MAX {
        return Err(format!("longer than {FILE_MAX} bytes"));
    }
    // Whatever encoding it declares: names, paths and numbers are ASCII in all of them.
    let text = String::from_utf8_lossy(bytes);
    shallow(&text)?;
    let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document = Document::parse_with_options(&text, options).map_err(|e| e.to_string())?;
    let root = document.root_element();
    if !root.has_tag_name("root") {
        return Err(format!("the root is <{}>, not <root>: no clp.conf", root.tag_name().name()));
    }
    if tree::text_at(root, "all/serveros").is_some_and(|os| os != "linux") {
        return Err("the servers are not Linux servers (all/serveros)".to_owned());
    }
    let mut left = Left::default();
    let servers = servers(root, &mut left)?;
    let mds = md::all(root, &servers, &mut left)?;
    let connects = connects(&servers, &mds, &mut left)?;
    others(root, &mut left);
    let toml = write(&servers, &connects, &mds, &left);
    Ok(Converted { toml, left: left.0 })
}

/// Nesting is checked before the parser sees it. What is read as the parser does not read it, is
/// nothing that it accepts: it stops there.
fn shallow(text: &str) -> Result<(), String> {
    let (mut depth, mut rest) = (0_usize, text);
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        let Some((tag, after)) = markup(rest) else { return Ok(()) };
        match tag {
            Tag::Opens => depth += 1,
            Tag::Closes => depth = depth.saturating_sub(1),
            Tag::Neither => {}
        }
        if depth > DEPTH_MAX {
            return Err(format!("elements are nested deeper than {DEPTH_MAX}"));
        }
        rest = after;
    }
    Ok(())
}

enum Tag {
    Opens,
    Closes,
    Neither,
}

/// What the markup at the beginning of `text` does, and what comes after it; `None` if it has no end.
fn markup(text: &str) -> Option<(Tag, &str)> {
    for (begin, end) in [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")] {
        if let Some(inside) = text.strip_prefix(begin) {
            return inside.split_once(end).map(|(_, after)| (Tag::Neither, after));
        }
    }
    let end = end_of_tag(text)?;
    let (tag, after) = (&text[..end], &text[end + 1..]);
    let kind = match () {
        () if tag.starts_with("</") => Tag::Closes,
        () if tag.starts_with("<!") || tag.ends_with('/') => Tag::Neither,
        () => Tag::Opens,
    };
    Some((kind, after))
}

/// Where the `>` is that is not part of a quoted value.
fn end_of_tag(text: &str) -> Option<usize> {
    let mut quote = None;
    text.bytes().position(|b| {
        match (quote, b) {
            (None, b'"' | b'\'') => quote = Some(b),
            (Some(q), b) if q == b => quote = None,
            _ => {}
        }
        quote.is_none() && b == b'>'
    })
}

fn servers(root: Node<'_, '_>, left: &mut Left) -> Result<[Server; 2], String> {
    let mut all: Vec<Server> = Vec::new();
    for node in root.children().filter(|n| n.has_tag_name("server")) {
        let name = node.attribute("name").ok_or_else(|| at(node, "a server without a name"))?;
        let mut server = Server {
            name: name.to_owned(),
            priority: tree::number_at(node, "priority").unwrap_or(u64::MAX),
            addresses: BTreeMap::new(),
            survives: tree::text_at(node, "survive") == Some("1"),
        };
        for device in node.children().filter(|n| n.has_tag_name("device")) {
            let id = device.attribute("id").and_then(|id| id.parse().ok());
            let id = id.ok_or_else(|| at(device, "a device without a number"))?;
            let address = tree::text_at(device, "mdc/info").or(tree::text_at(device, "info"));
            match address.and_then(|a| a.parse().ok()) {
                Some(ip) => drop(server.addresses.insert(id, ip)),
                None => left.out(format!("server {name}: device {id}"), "it has no IP address"),
            }
        }
        all.push(server);
    }
    all.sort_by_key(|s| s.priority);
    let count = all.len();
    all.try_into().map_err(|_| format!("{count} servers found; a mirror disk here has 2"))
}

fn at(node: Node<'_, '_>, what: &str) -> String {
    let line = node.document().text_pos_at(node.range().start).row;
    format!("line {line}: {what}")
}

/// The addresses of the mirror connects of both servers, by priority. All mirrors share one list here.
fn connects(
    servers: &[Server; 2],
    mds: &[Md],
    left: &mut Left,
) -> Result<[Vec<IpAddr>; 2], String> {
    let mut wanted: Vec<u64> = Vec::new();
    for md in mds {
        for device in &md.devices {
            if !wanted.contains(device) {
                wanted.push(*device);
            }
        }
        if md.devices != mds[0].devices {
            let why = "all mirrors share one list of mirror connects, in the first one's order";
            left.out(format!("{}: netdev", md.name), why);
        }
    }
    let mut out = [Vec::new(), Vec::new()];
    for device in wanted {
        // Some versions write the number without the 400 that mirror connects begin with.
        let of = |s: &Server| {
            s.addresses.get(&device).or(s.addresses.get(&device.saturating_add(400))).copied()
        };
        match (of(&servers[0]), of(&servers[1])) {
            (Some(a), Some(b)) if out[0].len() < 4 => {
                out[0].push(a);
                out[1].push(b);
            }
            (Some(_), Some(_)) => {
                left.out(format!("mirror connect {device}"), "at most four are used");
            }
            _ => left
                .out(format!("mirror connect {device}"), "not both servers have an address for it"),
        }
    }
    if out[0].is_empty() {
        return Err("no mirror connect has an address on both servers".to_owned());
    }
    Ok(out)
}

/// Everything beside servers and mirror disks is the work of a cluster manager.
fn others(root: Node<'_, '_>, left: &mut Left) {
    const MANAGER: &str = "the work of a cluster manager";
    for node in root.children().filter(Node::is_element) {
        let (tag, name) = (node.tag_name().name(), node.attribute("name").unwrap_or_default());
        match tag {
            "server" | "resource" | "all" | "trekking" | "webmgr" => {}
            "monitor" => monitors(node, left),
            "group" => {
                let why = "which server activates, and what starts after it: the work of a cluster manager, or activate_at_start";
                left.out(format!("group {name}"), why);
            }
            "networkpartition" if !node.children().any(|n| n.is_element()) => {}
            _ => left.out(format!("{tag} {name}").trim_end(), MANAGER),
        }
    }
    let resources = root.children().filter(|n| n.has_tag_name("resource"));
    for node in resources.flat_map(|n| n.children()).filter(Node::is_element) {
        let tag = node.tag_name().name();
        if !matches!(tag, "types" | "md") {
            let name = node.attribute("name").unwrap_or_default();
            left.out(format!("resource {tag} {name}"), MANAGER);
        }
    }
}

fn monitors(node: Node<'_, '_>, left: &mut Left) {
    for monitor in node.children().filter(Node::is_element) {
        let tag = monitor.tag_name().name();
        let name = monitor.attribute("name").unwrap_or_default();
        let object = tree::text_at(monitor, "parameters/object").unwrap_or("MD");
        let why = match tag {
            "types" => continue,
            "mdw" => format!("any monitor can call: clpmdmon --disk {object}"),
            "mdnw" => format!("any monitor can call: clpmdmon --connect {object}"),
            _ => "the work of a cluster manager".to_owned(),
        };
        left.out(format!("monitor {tag} {name}"), &why);
    }
}

/// As TOML writes it.
fn quoted(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

fn write(servers: &[Server; 2], connects: &[Vec<IpAddr>; 2], mds: &[Md], left: &Left) -> String {
    let mut out =
        String::from("# Made by clpmdconv from a clp.conf; the same file on both servers.\n");
    if !left.0.is_empty() {
        out.push_str("#\n# Not taken over:\n");
        for line in &left.0 {
            let _ = writeln!(out, "#   {line}");
        }
    }
    for (server, own) in servers.iter().zip(connects) {
        let list: Vec<_> = own.iter().map(|ip| quoted(&ip.to_string())).collect();
        let _ = writeln!(out, "\n[[server]]\nname = {}", quoted(&server.name));
        if let Some((_, ip)) = server.addresses.iter().find(|(id, _)| **id < 400) {
            let _ = writeln!(out, "agent_address = {}", quoted(&ip.to_string()));
        }
        let _ = writeln!(out, "mirror_connect = [{}]", list.join(", "));
    }
    let survivor = match [servers[0].survives, servers[1].survives] {
        [true, false] => Some(&servers[0].name),
        [false, true] => Some(&servers[1].name),
        _ => None,
    };
    for md in mds {
        md.write(&mut out, survivor.map(String::as_str));
    }
    out
}

#[cfg(test)]
mod tests;
