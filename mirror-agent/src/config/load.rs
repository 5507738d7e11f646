//! From the file to [`Config`], with the checks that concern more than one value.

use super::model::{
    AgentConfig, Alone, AutoRecovery, Config, FileSystem, FrontEnd, FsckConfig, FsckTiming,
    MirrorConfig, MountConfig, Partitions, Server, Timing, UmountAction, UmountConfig,
};
use super::params::Section;
use super::place::Spot;
use super::read::{ConfigError, Fault, Reader};
use crate::host::power::PowerAction;
use crate::messages::{EventSwitches, table};
use mirror_core::both_active::BothActive;
use mirror_core::units::Side;
use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::{Table, Value};

/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

type Load<T> = Result<T, ConfigError>;

impl Config {
    /// Reads and checks `file`. This server is `server` if given, else the one that bears the
    /// host's name.
    ///
    /// # Errors
    /// Anything that cannot be used, with file, key, value and what is allowed.
    pub fn load(file: &Path, server: Option<&str>) -> Load<Self> {
        let text = read_file(file)?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self::parse(file, &text, server, host.trim())
    }

    /// Reads and checks `file` without asking which server this is: for tools that only need what
    /// holds on both. The result is seen from the first server.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn load_anywhere(file: &Path) -> Load<Self> {
        let text = read_file(file)?;
        build(file, &text, |_| Ok(Side::First)).map_err(|e| e.with_line(&text))
    }

    /// As [`Config::load`], from a text and a host name.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn parse(file: &Path, text: &str, server: Option<&str>, host: &str) -> Load<Self> {
        build(file, text, |servers| this_side(file, servers, server, host))
            .map_err(|e| e.with_line(text))
    }
}

fn build(file: &Path, text: &str, side: impl Fn(&[Server; 2]) -> Load<Side>) -> Load<Config> {
    let root: Table = text.parse().map_err(|e: toml::de::Error| {
        ConfigError::new(file, Fault::File, e.to_string().trim_end().to_owned())
    })?;
    known_tables(file, &root)?;
    let servers = servers(file, &root)?;
    let side = side(&servers)?;
    let agent = agent(file, &root)?;
    let mirrors = mirrors(file, &root, &servers)?;
    unique(file, &agent, &mirrors)?;
    let events = events(file, &root)?;
    Ok(Config { file: file.to_owned(), servers, side, agent, mirrors, events })
}

fn read_file(file: &Path) -> Load<String> {
    let mut text = String::new();
    let read = std::fs::File::open(file)
        .and_then(|f| f.take(FILE_MAX + 1).read_to_string(&mut text))
        .map_err(|e| ConfigError::new(file, Fault::File, format!("cannot be read: {e}")))?;
    if u64::try_from(read).is_ok_and(|n| n <= FILE_MAX) {
        Ok(text)
    } else {
        Err(ConfigError::new(file, Fault::File, format!("longer than {FILE_MAX} bytes")))
    }
}

fn known_tables(file: &Path, root: &Table) -> Load<()> {
    const KNOWN: [&str; 4] = ["server", "agent", "mirror", "event"];
    match root.keys().find(|k| !KNOWN.contains(&k.as_str())) {
        None => Ok(()),
        Some(k) => {
            let what =
                format!("{k}: unknown table; known: [[server]], [agent], [[mirror]], [event.NAME]");
            Err(ConfigError::new(file, Fault::File, what).at(Spot::root(k)))
        }
    }
}

/// The tables under `key`, which must be an array of tables (or absent).
fn array<'a>(file: &Path, root: &'a Table, key: &str) -> Load<Vec<&'a Table>> {
    let wrong = || {
        ConfigError::new(file, Fault::File, format!("{key}: must be written as [[{key}]]"))
            .at(Spot::root(key))
    };
    match root.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(a)) => a.iter().map(|v| v.as_table().ok_or_else(wrong)).collect(),
        Some(_) => Err(wrong()),
    }
}

/// The sub-tables of the table under `key`, by name.
fn named<'a>(
    file: &Path,
    table: &'a Table,
    key: &str,
    form: &str,
) -> Load<Vec<(&'a str, &'a Table)>> {
    let wrong = || ConfigError::new(file, Fault::File, format!("{key}: must be written as {form}"));
    let Some(value) = table.get(key) else { return Ok(Vec::new()) };
    let table = value.as_table().ok_or_else(wrong)?;
    table.iter().map(|(k, v)| Ok((k.as_str(), v.as_table().ok_or_else(wrong)?))).collect()
}

fn servers(file: &Path, root: &Table) -> Load<[Server; 2]> {
    let tables = array(file, root, "server")?;
    let all: Vec<Server> =
        tables.iter().enumerate().map(|(i, t)| one_server(file, i, t)).collect::<Load<_>>()?;
    let count = all.len();
    let [a, b]: [Server; 2] = all.try_into().map_err(|_| {
        let what = format!("[[server]]: {count} found; must be 2");
        ConfigError::new(file, Fault::ServerName, what)
    })?;
    if a.name == b.name {
        let what =
            format!("[[server]]: name = {:?}: both servers have it; names must differ", a.name);
        let spot = Spot::root("server").nth(1).key("name");
        return Err(ConfigError::new(file, Fault::ServerName, what).at(spot));
    }
    if a.mirror_connect.len() != b.mirror_connect.len() {
        let what = format!(
            "[[server]]: mirror_connect: {} has {} addresses, {} has {}; they are paired, so the numbers must be equal",
            a.name,
            a.mirror_connect.len(),
            b.name,
            b.mirror_connect.len()
        );
        let spot = Spot::root("server").nth(1).key("mirror_connect");
        return Err(ConfigError::new(file, Fault::Address, what).at(spot));
    }
    if let Some(shared) = a.all_addresses().iter().find(|x| b.all_addresses().contains(x)) {
        let what = format!("[[server]]: {shared}: both servers have this address");
        return Err(ConfigError::new(file, Fault::Address, what).at(Spot::root("server").nth(1)));
    }
    Ok([a, b])
}

fn one_server(file: &Path, index: usize, table: &Table) -> Load<Server> {
    let place = match table.get("name").and_then(Value::as_str) {
        Some(name) => format!("[[server]] {name}"),
        None => format!("[[server]] number {}", index + 1),
    };
    let r = Reader::new(file, Section::Server, place, Spot::root("server").nth(index), table, &[])?;
    let name = r.text("name")?;
    let mirror_connect = r.addresses("mirror_connect")?;
    let first = mirror_connect[0]; // the table requires the list and forbids an empty one
    let agent_address = r.addresses("agent_address")?.first().copied().unwrap_or(first);
    Ok(Server { name, agent_address, mirror_connect })
}

fn this_side(file: &Path, servers: &[Server; 2], given: Option<&str>, host: &str) -> Load<Side> {
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
            Err(ConfigError::new(file, Fault::ServerName, what))
        }
        (None, None) => {
            let what = format!(
                "this host is called {host:?}, and no [[server]] is; there are: {names}; say which with --server NAME"
            );
            Err(ConfigError::new(file, Fault::ServerName, what))
        }
    }
}

fn agent(file: &Path, root: &Table) -> Load<AgentConfig> {
    let empty = Table::new();
    let table = match root.get("agent") {
        None => &empty,
        Some(v) => v.as_table().ok_or_else(|| {
            ConfigError::new(file, Fault::File, "agent: must be written as [agent]")
        })?,
    };
    let r = Reader::new(file, Section::Agent, "[agent]", Spot::root("agent"), table, &[])?;
    let run_dir = r.path("run_dir")?;
    let socket = r.text_opt("socket")?.map_or_else(|| run_dir.join("ctl.sock"), PathBuf::from);
    Ok(AgentConfig {
        port: r.int("port")?,
        socket,
        run_dir,
        log_dir: r.path("log_dir")?,
        device_dir: r.path("device_dir")?,
        secret_file: r.path("secret_file")?,
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

fn mirrors(file: &Path, root: &Table, servers: &[Server; 2]) -> Load<Vec<MirrorConfig>> {
    let tables = array(file, root, "mirror")?;
    if tables.is_empty() {
        return Err(ConfigError::new(
            file,
            Fault::File,
            "[[mirror]]: none found; at least 1 is needed",
        ));
    }
    tables.iter().enumerate().map(|(i, t)| one_mirror(file, i, t, servers)).collect()
}

fn one_mirror(
    file: &Path,
    index: usize,
    table: &Table,
    servers: &[Server; 2],
) -> Load<MirrorConfig> {
    let place = match table.get("name").and_then(Value::as_str) {
        Some(name) => format!("[[mirror]] {name}"),
        None => format!("[[mirror]] number {}", index + 1),
    };
    let r = Reader::new(
        file,
        Section::Mirror,
        place.clone(),
        Spot::root("mirror").nth(index),
        table,
        &["on"],
    )?;
    let name = r.text("name")?;
    let nmp = nmp_number(&r, &name)?;
    let port = r.int_opt("port")?.unwrap_or(29050 + i64::from(nmp));
    let fs = file_system(&r.text("fs")?);
    Ok(MirrorConfig {
        partitions: partitions(&r, &place, table, servers)?,
        port: u16::try_from(port).expect("the range of the table, or 29050 + 255"),
        mount: mount(&r, fs)?,
        umount: umount(&r)?,
        fsck: fsck(&r)?,
        initial_mkfs: r.bool("initial_mkfs")?,
        mkfs_option: r.text("mkfs_option")?,
        mkfs_timeout: seconds(&r, "mkfs_timeout")?,
        activate_at_start: activate_at_start(&r, servers)?,
        front_end: front_end(&r, fs)?,
        disk_error: match r.text("disk_error")?.as_str() {
            "reset" => Some(PowerAction::Reset),
            "panic" => Some(PowerAction::Panic),
            _ => None,
        },
        detach: r.text("disk_error")? == "detach",
        both_active: both_active(&r, servers)?,
        timing: timing(&r)?,
        hot_regions: r.int("hot_regions")?,
        name,
        nmp,
        fs,
    })
}

fn both_active(r: &Reader<'_>, servers: &[Server; 2]) -> Load<BothActive> {
    let rule = r.text("both_active")?;
    let survivor = match (rule.as_str(), r.text_opt("survivor")?) {
        ("survivor", Some(name)) => name,
        ("survivor", None) => {
            return Err(r.bad(
                "survivor",
                Fault::File,
                "missing; both_active = \"survivor\" needs it",
            ));
        }
        (_, Some(_)) => {
            let what = "only with both_active = \"survivor\"; leave it out";
            return Err(r.bad("survivor", Fault::File, what));
        }
        ("stop-both", None) => return Ok(BothActive::StopBoth),
        _ => return Ok(BothActive::GoOn),
    };
    let is_it = |side: &Side| servers[side.index()].name == survivor;
    match [Side::First, Side::Second].into_iter().find(is_it) {
        Some(side) => Ok(BothActive::Survivor(side)),
        None => {
            let what =
                format!("no such [[server]]; there are: {}, {}", servers[0].name, servers[1].name);
            Err(r.bad("survivor", Fault::ServerName, &what))
        }
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
        "nbd-socket" if fs != FileSystem::None => {
            Err(r.bad("front_end", Fault::File, "a socket cannot be mounted: fs must be \"none\""))
        }
        "nbd-socket" => Ok(FrontEnd::NbdSocket),
        "loop" => Ok(FrontEnd::Loop),
        "ublk" => Ok(FrontEnd::Ublk),
        "nbd" => Ok(FrontEnd::Nbd),
        _ => Ok(FrontEnd::Auto),
    }
}

fn partitions(
    r: &Reader<'_>,
    place: &str,
    table: &Table,
    servers: &[Server; 2],
) -> Load<[Partitions; 2]> {
    let on = named(r.file, table, "on", "[mirror.on.SERVER]")?;
    if let Some((name, _)) = on.iter().find(|(n, _)| servers.iter().all(|s| s.name != *n)) {
        let what = format!(
            "{place}: [mirror.on.{name}]: no such [[server]]; there are: {}, {}",
            servers[0].name, servers[1].name
        );
        let spot = r.spot.key("on").key(name);
        return Err(ConfigError::new(r.file, Fault::ServerName, what).at(spot));
    }
    let of = |server: &Server| -> Load<Partitions> {
        let empty = Table::new();
        let own = on.iter().find(|(n, _)| *n == server.name).map_or(&empty, |(_, t)| t);
        let place = format!("{place} on {}", server.name);
        let spot = r.spot.key("on").key(&server.name);
        let over = Reader::new(r.file, Section::MirrorOn, place, spot, own, &[])?;
        let path = |key: &str| -> Load<PathBuf> {
            let found = over.text_opt(key)?.or(r.text_opt(key)?).map(PathBuf::from);
            found.ok_or_else(|| over.bad(key, Fault::File, "missing; must be: absolute path"))
        };
        Ok(Partitions { data: path("data_partition")?, cluster: path("cluster_partition")? })
    };
    Ok([of(&servers[0])?, of(&servers[1])?])
}

fn mount(r: &Reader<'_>, fs: FileSystem) -> Load<Option<MountConfig>> {
    let point = r.text_opt("mount_point")?.map(PathBuf::from);
    let point = match (fs, point) {
        (FileSystem::None, None) => return Ok(None),
        (FileSystem::None, Some(_)) => {
            return Err(r.bad(
                "mount_point",
                Fault::File,
                "not used with fs = \"none\": leave it out",
            ));
        }
        (_, Some(point)) => point,
        (_, None) => {
            return Err(r.bad(
                "mount_point",
                Fault::File,
                "missing; must be: absolute path (or fs = \"none\")",
            ));
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
    if t.peer < 2 * t.heartbeat {
        let what = format!(
            "must be at least twice heartbeat_interval, which is {} ms",
            t.heartbeat.as_millis()
        );
        return Err(r.bad("peer_timeout", Fault::File, &what));
    }
    Ok(t)
}

fn activate_at_start(r: &Reader<'_>, servers: &[Server; 2]) -> Load<Option<Side>> {
    let Some(name) = r.text_opt("activate_at_start")? else { return Ok(None) };
    match servers.iter().position(|s| s.name == name) {
        Some(0) => Ok(Some(Side::First)),
        Some(_) => Ok(Some(Side::Second)),
        None => {
            let what =
                format!("no such [[server]]; there are: {}, {}", servers[0].name, servers[1].name);
            Err(r.bad("activate_at_start", Fault::ServerName, &what))
        }
    }
}

/// Names, device numbers, ports, mount points and partitions each belong to one mirror.
fn unique(file: &Path, agent: &AgentConfig, mirrors: &[MirrorConfig]) -> Load<()> {
    let mut seen: HashMap<String, String> = HashMap::new();
    let mut claim =
        |what: String, who: &str, spot: Spot| match seen.insert(what.clone(), who.to_owned()) {
            None => Ok(()),
            Some(other) => {
                let what = format!("{what}: used by {other} and by {who}; it must be used once");
                Err(ConfigError::new(file, Fault::File, what).at(spot))
            }
        };
    claim(format!("port = {}", agent.port), "[agent]", Spot::root("agent").key("port"))?;
    for (index, m) in mirrors.iter().enumerate() {
        let spot = Spot::root("mirror").nth(index);
        let who = format!("[[mirror]] {}", m.name);
        claim(format!("name = {:?}", m.name), &who, spot.key("name"))?;
        claim(format!("nmp = {}", m.nmp), &who, spot.key("nmp"))?;
        claim(format!("port = {}", m.port), &who, spot.key("port"))?;
        if let Some(mount) = &m.mount {
            claim(format!("mount_point = {:?}", mount.point), &who, spot.key("mount_point"))?;
        }
        for (side, p) in m.partitions.iter().enumerate() {
            let server = if side == 0 { "first" } else { "second" };
            claim(
                format!("partition {:?} of the {server} server", p.data),
                &format!("{who} (data)"),
                spot.key("data_partition"),
            )?;
            claim(
                format!("partition {:?} of the {server} server", p.cluster),
                &format!("{who} (cluster)"),
                spot.key("cluster_partition"),
            )?;
        }
    }
    Ok(())
}

fn events(file: &Path, root: &Table) -> Load<BTreeMap<String, EventSwitches>> {
    let mut out = BTreeMap::new();
    for (name, table) in named(file, root, "event", "[event.NAME]")? {
        let spot = Spot::root("event").key(name);
        let preset = table::destinations(name).ok_or_else(|| {
            let what = format!(
                "[event.{name}]: no such event; they are called as mdadmn-5, and liscal stands for all of the driver's"
            );
            ConfigError::new(file, Fault::File, what).at(spot.clone())
        })?;
        let r = Reader::new(file, Section::Event, format!("[event.{name}]"), spot, table, &[])?;
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
