//! From the file to [`Config`], with the checks that concern more than one value.

use super::mistakes::{ConfigError, Fault, Load, Mistakes, Noted};
use super::model::{
    AgentConfig, Alone, AutoRecovery, Config, FileSystem, FrontEnd, FsckConfig, FsckTiming,
    MetricsAddress, MirrorConfig, MountConfig, Partitions, Server, Timing, UmountAction,
    UmountConfig,
};
use super::names::Names;
use super::params::Section;
use super::place::{Spot, line_of};
use super::read::Reader;
use super::said::Said;
use crate::host::power::PowerAction;
use crate::messages::{EventSwitches, table};
use mirror_core::both_active::BothActive;
use mirror_core::units::Side;
use mirror_core::wire::Security;
use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeTable;
use toml::{Table, Value};

/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

impl Config {
    /// Reads and checks `file`. This server is `server` if given, else the one that bears the
    /// host's name.
    ///
    /// # Errors
    /// Anything that cannot be used: every mistake, with file, line, key, value and what is allowed.
    pub fn load(file: &Path, server: Option<&str>) -> Result<Self, ConfigError> {
        let text = read_file(file)?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self::parse(file, &text, server, host.trim())
    }

    /// Reads and checks `file` without asking which server this is: for tools that only need what
    /// holds on both. The result is seen from the first server.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn load_anywhere(file: &Path) -> Result<Self, ConfigError> {
        Self::parse_anywhere(file, &read_file(file)?)
    }

    /// As [`Config::load_anywhere`], from a text.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn parse_anywhere(file: &Path, text: &str) -> Result<Self, ConfigError> {
        build(file, text, |_, _| Ok(Side::First))
    }

    /// As [`Config::load`], from a text and a host name.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn parse(
        file: &Path,
        text: &str,
        server: Option<&str>,
        host: &str,
    ) -> Result<Self, ConfigError> {
        build(file, text, |m, servers| this_side(m, servers, server, host))
    }
}

fn build(
    file: &Path,
    text: &str,
    side: impl Fn(&Mistakes<'_>, &[Server; 2]) -> Load<Side>,
) -> Result<Config, ConfigError> {
    let m = Mistakes::of(file);
    let read = read(&m, text, side);
    match (m.into_error(text), read) {
        (None, Ok(config)) => Ok(config),
        (Some(e), _) => Err(e),
        (None, Err(Noted)) => unreachable!("nothing fails without a mistake that is noted"),
    }
}

/// Goes on after each mistake with whatever does not depend on it.
fn read(
    m: &Mistakes<'_>,
    text: &str,
    side: impl Fn(&Mistakes<'_>, &[Server; 2]) -> Load<Side>,
) -> Load<Config> {
    let root = toml(m, text)?;
    known_tables(m, &root);
    let servers = servers(m, &root);
    let side = servers.as_ref().map_err(|e| *e).and_then(|s| side(m, s));
    let agent = agent(m, &root);
    let mirrors = mirrors(m, &root, &Names::of(servers.as_ref().ok(), &root));
    let events = events(m, &root);
    let (servers, side, agent) = (servers?, side?, agent?);
    let (mirrors, events) = (mirrors?, events?);
    unique(m, &agent, &mirrors);
    if !m.is_empty() {
        return Err(Noted);
    }
    let said = Said::of(&root, &servers, &agent, &mirrors, &events);
    Ok(Config { file: m.file.to_owned(), servers, side, agent, mirrors, events, said })
}

/// The text as TOML; everything that keeps it from being that.
fn toml(m: &Mistakes<'_>, text: &str) -> Load<Table> {
    let (_, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for e in errors {
            let line = e.span().and_then(|span| line_of(text, span.start));
            m.on_line(line, format!("not TOML: {}", e.message()));
        }
        return Err(Noted);
    }
    text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().and_then(|span| line_of(text, span.start));
        m.on_line(line, e.message())
    })
}

fn read_file(file: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    let read = std::fs::File::open(file)
        .and_then(|f| f.take(FILE_MAX + 1).read_to_string(&mut text))
        .map_err(|e| ConfigError::whole(file, format!("cannot be read: {e}")))?;
    if u64::try_from(read).is_ok_and(|n| n <= FILE_MAX) {
        Ok(text)
    } else {
        Err(ConfigError::whole(file, format!("longer than {FILE_MAX} bytes")))
    }
}

fn known_tables(m: &Mistakes<'_>, root: &Table) {
    const KNOWN: [&str; 4] = ["server", "agent", "mirror", "event"];
    for k in root.keys().filter(|k| !KNOWN.contains(&k.as_str())) {
        let what =
            format!("{k}: unknown table; known: [[server]], [agent], [[mirror]], [event.NAME]");
        m.at(Spot::root(k), Fault::File, what);
    }
}

/// The tables under `key`, which must be an array of tables (or absent).
fn array<'a>(m: &Mistakes<'_>, root: &'a Table, key: &str) -> Load<Vec<&'a Table>> {
    let wrong =
        || m.at(Spot::root(key), Fault::File, format!("{key}: must be written as [[{key}]]"));
    match root.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(a)) => a.iter().map(|v| v.as_table().ok_or_else(wrong)).collect(),
        Some(_) => Err(wrong()),
    }
}

/// The sub-tables of the table under `key`, by name.
fn named<'a>(
    m: &Mistakes<'_>,
    (spot, table): (Spot, &'a Table),
    key: &str,
    form: &str,
) -> Load<Vec<(&'a str, &'a Table)>> {
    let wrong = || m.at(spot.clone(), Fault::File, format!("{key}: must be written as {form}"));
    let Some(value) = table.get(key) else { return Ok(Vec::new()) };
    let table = value.as_table().ok_or_else(wrong)?;
    table.iter().map(|(k, v)| Ok((k.as_str(), v.as_table().ok_or_else(wrong)?))).collect()
}

fn servers(m: &Mistakes<'_>, root: &Table) -> Load<[Server; 2]> {
    let tables = array(m, root, "server")?;
    let count = tables.len();
    if count != 2 {
        m.whole(Fault::ServerName, format!("[[server]]: {count} found; must be 2"));
    }
    let all: Vec<_> = tables.iter().enumerate().map(|(i, t)| one_server(m, i, t)).collect();
    let all: Vec<Server> = all.into_iter().collect::<Load<_>>()?;
    let pair: [Server; 2] = all.try_into().map_err(|_| Noted)?;
    fitting(m, &pair)?;
    Ok(pair)
}

/// What two servers must not, and must, have in common.
fn fitting(m: &Mistakes<'_>, [a, b]: &[Server; 2]) -> Load<()> {
    let second = Spot::root("server").nth(1);
    let mut fits = Ok(());
    if a.name == b.name {
        let what =
            format!("[[server]]: name = {:?}: both servers have it; names must differ", a.name);
        fits = Err(m.at(second.key("name"), Fault::ServerName, what));
    }
    if a.mirror_connect.len() != b.mirror_connect.len() {
        let what = format!(
            "[[server]]: mirror_connect: {} has {} addresses, {} has {}; they are paired, so the numbers must be equal",
            a.name,
            a.mirror_connect.len(),
            b.name,
            b.mirror_connect.len()
        );
        m.at(second.key("mirror_connect"), Fault::Address, what);
    }
    if let Some(shared) = a.all_addresses().iter().find(|x| b.all_addresses().contains(x)) {
        let what = format!("[[server]]: {shared}: both servers have this address");
        m.at(second, Fault::Address, what);
    }
    fits
}

fn one_server(m: &Mistakes<'_>, index: usize, table: &Table) -> Load<Server> {
    let place = match table.get("name").and_then(Value::as_str) {
        Some(name) => format!("[[server]] {name}"),
        None => format!("[[server]] number {}", index + 1),
    };
    let r = Reader::new(m, Section::Server, place, Spot::root("server").nth(index), table, &[]);
    let name = r.text("name")?;
    let mirror_connect = r.addresses("mirror_connect")?;
    let first = mirror_connect[0]; // the table requires the list and forbids an empty one
    let agent_address = r.addresses("agent_address")?.first().copied().unwrap_or(first);
    Ok(Server { name, agent_address, mirror_connect })
}

fn this_side(
    m: &Mistakes<'_>,
    servers: &[Server; 2],
    given: Option<&str>,
    host: &str,
) -> Load<Side> {
    let short = host.split('.').next().unwrap_or(host);
    let names = format!("{}, {}", servers[0].name, servers[1].name);
    let candidates = match given {
        Some(name) => vec![name],
        None => vec![host, short],
    };
    let found = candidates.iter().find_map(|c| servers.iter().position(|s| s.name == *c));
    match (found, given) {
        (Some(0), _) => Ok(Side::First),
        (Some(_), _) => Ok(Side::Second),
        (None, Some(name)) => {
            let what = format!("--server {name}: no such [[server]]; there are: {names}");
            Err(m.whole(Fault::ServerName, what))
        }
        (None, None) => {
            let what = format!(
                "this host is called {host:?}, and no [[server]] is; there are: {names}; say which with --server NAME"
            );
            Err(m.whole(Fault::ServerName, what))
        }
    }
}

fn agent(m: &Mistakes<'_>, root: &Table) -> Load<AgentConfig> {
    let empty = Table::new();
    let table = match root.get("agent") {
        None => &empty,
        Some(v) => v.as_table().ok_or_else(|| {
            m.at(Spot::root("agent"), Fault::File, "agent: must be written as [agent]")
        })?,
    };
    let r = Reader::new(m, Section::Agent, "[agent]", Spot::root("agent"), table, &[]);
    let run_dir = r.path("run_dir")?;
    let socket = r.text_opt("socket")?.map_or_else(|| run_dir.join("ctl.sock"), PathBuf::from);
    let log_dir = r.path("log_dir")?;
    let figures_dir =
        r.text_opt("figures_dir")?.map_or_else(|| log_dir.join("perf"), PathBuf::from);
    Ok(AgentConfig {
        port: r.int("port")?,
        socket,
        run_dir,
        log_dir,
        figures_dir,
        figures_interval: seconds(&r, "figures_interval")?,
        figures_bytes: r.int::<u64>("figures_size")? * 1024,
        figures_keep: r.int("figures_keep")?,
        metrics_port: metrics_port(&r)?,
        metrics_address: match r.text("metrics_address")?.as_str() {
            "agent" => MetricsAddress::Agent,
            "all" => MetricsAddress::All,
            _ => MetricsAddress::Loopback,
        },
        device_dir: r.path("device_dir")?,
        control_group: r.text_opt("control_group")?,
        secret_file: r.path("secret_file")?,
        security: match r.text("security")?.as_str() {
            "authenticated" => Security::Authenticated,
            _ => Security::Encrypted,
        },
        auto_recovery: match r.text("auto_recovery")?.as_str() {
            "active" => AutoRecovery::Active,
            "off" => AutoRecovery::Off,
            _ => AutoRecovery::Always,
        },
        alone: if r.text("alone")? == "fenced" { Alone::Fenced } else { Alone::Free },
        agent_timeout: seconds(&r, "agent_timeout")?,
        alert_log_bytes: r.int::<u64>("alert_log_size")? * 1024,
        alert_log_keep: r.int("alert_log_keep")?,
        syslog: r.path("syslog")?,
        mail_to: r.text_opt("mail_to")?,
        mail_program: r.path("mail_program")?,
        mail_timeout: seconds(&r, "mail_timeout")?,
    })
}

fn metrics_port(r: &Reader<'_>) -> Load<Option<u16>> {
    Ok(r.int_opt("metrics_port")?.and_then(|port| u16::try_from(port).ok()))
}

fn mirrors(m: &Mistakes<'_>, root: &Table, names: &Names<'_>) -> Load<Vec<MirrorConfig>> {
    let tables = array(m, root, "mirror")?;
    if tables.is_empty() {
        return Err(m.whole(Fault::File, "[[mirror]]: none found; at least 1 is needed"));
    }
    let all: Vec<_> = tables.iter().enumerate().map(|(i, t)| one_mirror(m, i, t, names)).collect();
    all.into_iter().collect()
}

fn one_mirror(
    m: &Mistakes<'_>,
    index: usize,
    table: &Table,
    names: &Names<'_>,
) -> Load<MirrorConfig> {
    let place = match table.get("name").and_then(Value::as_str) {
        Some(name) => format!("[[mirror]] {name}"),
        None => format!("[[mirror]] number {}", index + 1),
    };
    let r = Reader::new(m, Section::Mirror, place, Spot::root("mirror").nth(index), table, &["on"]);
    let name = r.text("name");
    let nmp = name.as_ref().map_err(|e| *e).and_then(|name| nmp_number(&r, name));
    let fs = file_system(&r.text("fs")?);
    // Each of these has its own mistakes; all are to be found.
    let (partitions, mount, timing) = (partitions(&r, table, names), mount(&r, fs), timing(&r));
    let (front_end, both_active) = (front_end(&r, fs), both_active(&r, names));
    let activate_at_start = activate_at_start(&r, names);
    let (name, nmp) = (name?, nmp?);
    let port = r.int_opt("port")?.unwrap_or(29050 + i64::from(nmp));
    Ok(MirrorConfig {
        partitions: partitions?,
        port: u16::try_from(port).expect("the range of the table, or 29050 + 255"),
        mount: mount?,
        umount: umount(&r)?,
        fsck: fsck(&r)?,
        initial_mkfs: r.bool("initial_mkfs")?,
        mkfs_option: r.text("mkfs_option")?,
        mkfs_timeout: seconds(&r, "mkfs_timeout")?,
        activate_at_start: activate_at_start?,
        front_end: front_end?,
        disk_error: match r.text("disk_error")?.as_str() {
            "reset" => Some(PowerAction::Reset),
            "panic" => Some(PowerAction::Panic),
            _ => None,
        },
        detach: r.text("disk_error")? == "detach",
        both_active: both_active?,
        timing: timing?,
        hot_regions: r.int("hot_regions")?,
        name,
        nmp,
        fs,
    })
}

fn both_active(r: &Reader<'_>, names: &Names<'_>) -> Load<BothActive> {
    let rule = r.text("both_active")?;
    match (rule.as_str(), r.text_opt("survivor")?) {
        ("survivor", Some(name)) => names
            .side(r, "survivor", &name)
            .map(|s| s.map_or(BothActive::GoOn, BothActive::Survivor)),
        ("survivor", None) => {
            let what = "missing; both_active = \"survivor\" needs it";
            Err(r.bad("survivor", Fault::File, what))
        }
        (_, Some(_)) if r.is_good("both_active") => {
            let what = "only with both_active = \"survivor\"; leave it out";
            Err(r.bad("survivor", Fault::File, what))
        }
        ("stop-both", _) => Ok(BothActive::StopBoth),
        _ => Ok(BothActive::GoOn),
    }
}

fn nmp_number(r: &Reader<'_>, name: &str) -> Load<u8> {
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let number = match r.int_opt("nmp")? {
        Some(n) => u8::try_from(n).ok(),
        None => digits.parse().ok().filter(|n| *n > 0),
    };
    number.ok_or_else(|| {
        r.bad("nmp", Fault::File, "missing, and the name does not end in a number from 1 to 255")
    })
}

fn file_system(word: &str) -> FileSystem {
    match word {
        "ext3" => FileSystem::Ext3,
        "xfs" => FileSystem::Xfs,
        "none" => FileSystem::None,
        _ => FileSystem::Ext4,
    }
}

/// A socket alone cannot be mounted.
fn front_end(r: &Reader<'_>, fs: FileSystem) -> Load<FrontEnd> {
    match r.text("front_end")?.as_str() {
        "nbd-socket" if fs != FileSystem::None && r.is_good("fs") => {
            Err(r.bad("front_end", Fault::File, "a socket cannot be mounted: fs must be \"none\""))
        }
        "nbd-socket" => Ok(FrontEnd::NbdSocket),
        "loop" => Ok(FrontEnd::Loop),
        "ublk" => Ok(FrontEnd::Ublk),
        "nbd" => Ok(FrontEnd::Nbd),
        _ => Ok(FrontEnd::Auto),
    }
}

fn partitions(r: &Reader<'_>, table: &Table, names: &Names<'_>) -> Load<[Partitions; 2]> {
    let m = r.mistakes;
    let on = named(m, (r.spot.key("on"), table), "on", "[mirror.on.SERVER]")?;
    for (name, _) in on.iter().filter(|(n, _)| !names.have(n)) {
        let what = format!("{}: [mirror.on.{name}]: {}", r.place, names.no_such());
        m.at(r.spot.key("on").key(name), Fault::ServerName, what);
    }
    let empty = Table::new();
    let over = |server: &str| {
        let own = on.iter().find(|(n, _)| *n == server).map_or(&empty, |(_, t)| t);
        let place = format!("{} on {server}", r.place);
        Reader::new(m, Section::MirrorOn, place, r.spot.key("on").key(server), own, &[])
    };
    let Some([a, b]) = names.known() else {
        on.iter().for_each(|(name, _)| drop(over(name)));
        return Err(Noted);
    };
    let (a, b) = (one_sides(r, &over(a)), one_sides(r, &over(b)));
    Ok([a?, b?])
}

/// The partitions on one server: `over` goes before what is said for both.
fn one_sides(r: &Reader<'_>, over: &Reader<'_>) -> Load<Partitions> {
    let path = |key: &str| -> Load<PathBuf> {
        let found = over.text_opt(key)?.or(r.text_opt(key)?).map(PathBuf::from);
        match found {
            Some(path) => Ok(path),
            None if over.is_good(key) && r.is_good(key) => {
                Err(over.bad(key, Fault::File, "missing; must be: absolute path"))
            }
            None => Err(Noted),
        }
    };
    let (data, cluster) = (path("data_partition"), path("cluster_partition"));
    Ok(Partitions { data: data?, cluster: cluster? })
}

fn mount(r: &Reader<'_>, fs: FileSystem) -> Load<Option<MountConfig>> {
    let point = r.text_opt("mount_point")?.map(PathBuf::from);
    let point = match (fs, point) {
        _ if !(r.is_good("fs") && r.is_good("mount_point")) => return Err(Noted),
        (FileSystem::None, None) => return Ok(None),
        (FileSystem::None, Some(_)) => {
            let what = "not used with fs = \"none\": leave it out";
            return Err(r.bad("mount_point", Fault::File, what));
        }
        (_, Some(point)) => point,
        (_, None) => {
            let what = "missing; must be: absolute path (or fs = \"none\")";
            return Err(r.bad("mount_point", Fault::File, what));
        }
    };
    Ok(Some(MountConfig {
        point,
        option: r.text("mount_option")?,
        timeout: seconds(r, "mount_timeout")?,
        retry: r.int("mount_retry")?,
    }))
}

fn umount(r: &Reader<'_>) -> Load<UmountConfig> {
    Ok(UmountConfig {
        timeout: seconds(r, "umount_timeout")?,
        retry: r.int("umount_retry")?,
        interval: seconds(r, "umount_interval")?,
        action: if r.text("umount_action")? == "none" {
            UmountAction::None
        } else {
            UmountAction::Kill
        },
    })
}

fn fsck(r: &Reader<'_>) -> Load<FsckConfig> {
    Ok(FsckConfig {
        option: r.text("fsck_option")?,
        timeout: seconds(r, "fsck_timeout")?,
        timing: match r.text("fsck_timing")?.as_str() {
            "never" => FsckTiming::Never,
            "always" => FsckTiming::Always,
            _ => FsckTiming::Interval,
        },
        interval: r.int("fsck_interval")?,
        on_mount_failure: r.bool("fsck_on_mount_failure")?,
        xfs_option: r.text("xfs_repair_option")?,
        xfs_timeout: seconds(r, "xfs_repair_timeout")?,
        xfs_on_mount_failure: r.bool("xfs_repair_on_mount_failure")?,
    })
}

fn seconds(r: &Reader<'_>, key: &str) -> Load<Duration> {
    Ok(Duration::from_secs(r.int(key)?))
}

fn timing(r: &Reader<'_>) -> Load<Timing> {
    let millis = |key: &str| -> Load<Duration> { Ok(Duration::from_millis(r.int(key)?)) };
    let t = Timing {
        heartbeat: millis("heartbeat_interval")?,
        peer: millis("peer_timeout")?,
        connect: millis("connect_timeout")?,
        disk: seconds(r, "disk_timeout")?,
    };
    let both = r.is_good("peer_timeout") && r.is_good("heartbeat_interval");
    if both && t.peer < 2 * t.heartbeat {
        let what = format!(
            "must be at least twice heartbeat_interval, which is {} ms",
            t.heartbeat.as_millis()
        );
        return Err(r.bad("peer_timeout", Fault::File, &what));
    }
    Ok(t)
}

fn activate_at_start(r: &Reader<'_>, names: &Names<'_>) -> Load<Option<Side>> {
    match r.text_opt("activate_at_start")? {
        None => Ok(None),
        Some(name) => names.side(r, "activate_at_start", &name),
    }
}

/// Names, device numbers, ports, mount points and partitions each belong to one mirror.
fn unique(m: &Mistakes<'_>, agent: &AgentConfig, mirrors: &[MirrorConfig]) {
    let mut seen: HashMap<String, String> = HashMap::new();
    let mut claim = |what: String, who: &str, spot: Spot| {
        let Some(other) = seen.insert(what.clone(), who.to_owned()) else { return true };
        let what = format!("{what}: used by {other} and by {who}; it must be used once");
        m.at(spot, Fault::File, what);
        false
    };
    claim(format!("port = {}", agent.port), "[agent]", Spot::root("agent").key("port"));
    if let Some(port) = agent.metrics_port {
        let spot = Spot::root("agent").key("metrics_port");
        claim(format!("port = {port}"), "[agent] (metrics)", spot);
    }
    for (index, md) in mirrors.iter().enumerate() {
        let spot = Spot::root("mirror").nth(index);
        let who = format!("[[mirror]] {}", md.name);
        // The number may come from the name, and the port from the number.
        let _ = claim(format!("name = {:?}", md.name), &who, spot.key("name"))
            && claim(format!("nmp = {}", md.nmp), &who, spot.key("nmp"))
            && claim(format!("port = {}", md.port), &who, spot.key("port"));
        if let Some(mount) = &md.mount {
            claim(format!("mount_point = {:?}", mount.point), &who, spot.key("mount_point"));
        }
        for (side, p) in md.partitions.iter().enumerate() {
            let server = if side == 0 { "first" } else { "second" };
            claim(
                format!("partition {:?} of the {server} server", p.data),
                &format!("{who} (data)"),
                spot.key("data_partition"),
            );
            claim(
                format!("partition {:?} of the {server} server", p.cluster),
                &format!("{who} (cluster)"),
                spot.key("cluster_partition"),
            );
        }
    }
}

fn events(m: &Mistakes<'_>, root: &Table) -> Load<BTreeMap<String, EventSwitches>> {
    let mut out = BTreeMap::new();
    for (name, table) in named(m, (Spot::root("event"), root), "event", "[event.NAME]")? {
        let spot = Spot::root("event").key(name);
        let Some(preset) = table::destinations(name) else {
            let what = format!(
                "[event.{name}]: no such event; they are called as mdadmn-5, and liscal stands for all of the driver's"
            );
            m.at(spot, Fault::File, what);
            continue;
        };
        let r = Reader::new(m, Section::Event, format!("[event.{name}]"), spot, table, &[]);
        let switch =
            |key: &str, given: bool| -> Load<bool> { Ok(r.bool_opt(key)?.unwrap_or(given)) };
        let to = EventSwitches {
            alert: switch("alert", preset.alert)?,
            syslog: switch("syslog", preset.syslog)?,
            mail: switch("mail", preset.mail)?,
        };
        out.insert(name.to_owned(), to);
    }
    Ok(out)
}
