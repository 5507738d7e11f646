//! The example loads; every parameter is honoured; every mistake is named; the page is current.

use super::params::{Kind, PARAMS, Preset, Section, manual};
use super::{Config, ConfigError, Fault, FileSystem, FrontEnd, MetricsAddress, UmountAction};
use mirror_core::units::Side;
use proptest::prelude::*;
use std::path::Path;
use std::time::Duration;

const EXAMPLE: &str = include_str!("../../../examples/two-servers.toml");

/// One, two and ten mirrors: the examples are what their names say, on both servers.
#[test]
fn the_examples_load_as_they_are() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples"));
    let want = [("two-servers.toml", 1), ("two-mirrors.toml", 2), ("ten-mirrors.toml", 10)];
    for (name, mirrors) in want {
        for server in ["server1", "server2"] {
            let config = Config::load(&folder.join(name), Some(server));
            let config = config.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(config.mirrors.len(), mirrors, "{name}");
            let numbers: Vec<usize> = config.mirrors.iter().map(|m| usize::from(m.nmp)).collect();
            assert_eq!(numbers, (1..=mirrors).collect::<Vec<_>>(), "{name}");
        }
    }
    let files = std::fs::read_dir(folder).expect("examples").flatten();
    let count = files.filter(|f| f.path().extension().is_some_and(|e| e == "toml")).count();
    assert_eq!(count, want.len(), "every example is checked");
}

const BASE: &str = r#"
[[server]]
name = "a"
mirror_connect = ["10.0.0.1"]
[[server]]
name = "b"
mirror_connect = ["10.0.0.2"]
[[mirror]]
name = "md1"
data_partition = "/dev/d1"
cluster_partition = "/dev/c1"
mount_point = "/mnt/1"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("x.toml"), text, Some("a"), "elsewhere")
}

fn problem(text: &str) -> String {
    parse(text).expect_err("must be refused").to_string()
}

#[test]
fn the_example_loads_for_both_servers() {
    let file = Path::new("two-servers.toml");
    let one = Config::parse(file, EXAMPLE, None, "server1").expect("example");
    let two = Config::parse(file, EXAMPLE, None, "server2.example.org").expect("example");
    assert_eq!((one.side, two.side), (Side::First, Side::Second));
    assert_eq!(one.mirrors[0].partitions[0].data, Path::new("/dev/sdb2"));
    assert_eq!(one.mirrors[0].partitions[1].data, Path::new("/dev/sdc2"));
    let pairs: Vec<String> = two.agent_pairs().iter().map(|(a, b)| format!("{a}-{b}")).collect();
    assert_eq!(pairs, ["192.168.0.2:29004-192.168.0.1:29004", "10.0.0.2:29004-10.0.0.1:29004"]);
}

#[test]
fn defaults_are_those_of_the_table() {
    let c = parse(BASE).expect("base");
    let m = c.mirror("md1").expect("md1");
    assert_eq!((m.nmp, m.port, m.fs), (1, 29051, FileSystem::Ext4));
    assert_eq!(m.front_end, FrontEnd::Auto);
    assert_eq!(m.umount.action, UmountAction::Kill);
    assert_eq!(m.timing.peer, Duration::from_secs(5));
    assert_eq!(c.agent.socket, Path::new("/run/clpmd/ctl.sock"));
    assert_eq!((c.agent.alert_log_bytes, c.agent.alert_log_keep), (1024 * 1024, 5));
    assert_eq!(c.agent.mail_timeout, Duration::from_secs(30));
    assert!(!m.initial_mkfs && m.activate_at_start.is_none());
}

/// Every number: both ends of its range load, one beyond each end is refused by name.
#[test]
fn every_range_is_enforced_at_its_ends() {
    for p in PARAMS {
        let Kind::Int { min, max, .. } = p.kind else { continue };
        for (n, good) in [(min, true), (max, true), (min - 1, false), (max + 1, false)] {
            let text = with(p.section, &format!("{} = {n}", p.key));
            match parse(&text) {
                Ok(_) => assert!(good, "{} = {n} was accepted", p.key),
                Err(e) if good => {
                    // Only a rule between two values may refuse an allowed number.
                    assert!(e.to_string().contains("heartbeat_interval"), "{e}");
                }
                Err(e) => {
                    let e = e.to_string();
                    assert!(e.contains(p.key) && e.contains(&format!("= {n}")), "{e}");
                    assert!(e.contains(&format!("{min} to {max}")), "{e}");
                }
            }
        }
    }
}

/// A wrong type is refused for every parameter, with file, key and what is allowed.
#[test]
fn every_type_is_enforced() {
    for p in PARAMS {
        let wrong = if matches!(p.kind, Kind::Bool) { "1" } else { "true" };
        let text = match (p.section, p.key) {
            (Section::Server, "name" | "mirror_connect") | (Section::Mirror, "name") => continue,
            _ => with(p.section, &format!("{} = {wrong}", p.key)),
        };
        let e = problem(&text);
        assert!(e.starts_with("x.toml: ") && e.contains(&format!("{} = {wrong}", p.key)), "{e}");
        assert!(e.contains("must be: "), "{e}");
    }
}

/// The base file with one more line in a section (replacing the line of that key).
fn with(section: Section, line: &str) -> String {
    let key = line.split(' ').next().expect("a key");
    let base: String = BASE
        .lines()
        .filter(|l| !(section == Section::Mirror && l.starts_with(&format!("{key} ="))))
        .map(|l| format!("{l}\n"))
        .collect();
    match section {
        Section::Mirror => format!("{base}{line}\n"),
        Section::Server => base.replacen("name = \"b\"\n", &format!("name = \"b\"\n{line}\n"), 1),
        Section::Agent => format!("{base}[agent]\n{line}\n"),
        Section::MirrorOn => format!("{base}[mirror.on.a]\n{line}\n"),
        Section::Event => format!("{base}[event.mdadmn-5]\n{line}\n"),
    }
}

#[test]
fn unknown_keys_and_tables_are_named() {
    for section in Section::ALL {
        let e = problem(&with(section, "colour = 1"));
        assert!(e.contains("colour = 1: unknown key; known: "), "{e}");
    }
    assert!(problem(&format!("{BASE}[surprise]\n")).contains("surprise: unknown table"));
    assert!(problem(&format!("{BASE}[event.mdadmn-8]\nmail = true\n")).contains("mdadmn-8"));
    assert!(
        problem(&format!("{BASE}[mirror.on.c]\n")).contains("no such [[server]]; there are: a, b")
    );
}

fn second(lines: &str) -> String {
    format!(
        "{BASE}[[mirror]]\nname = \"md2\"\ndata_partition = \"/dev/d2\"\ncluster_partition = \"/dev/c2\"\nmount_point = \"/mnt/2\"\n{lines}"
    )
}

/// A link makes one partition of two names.
#[test]
fn two_names_of_one_partition_are_found() {
    let dir = tempfile::tempdir().expect("folder");
    let at = |name: &str| dir.path().join(name);
    let text = BASE
        .replace("/dev/d1", at("d1").to_str().expect("path"))
        .replace("/dev/c1", at("c1").to_str().expect("path"));
    let config = parse(&text).expect("base");
    assert_eq!(config.check_partitions(), Ok(()), "what is not there is no one's double");
    std::fs::write(at("d1"), "x").expect("file");
    std::os::unix::fs::symlink(at("d1"), at("c1")).expect("link");
    let e = config.check_partitions().expect_err("the same").to_string();
    assert!(e.contains("cluster_partition") && e.contains("the same partition as"), "{e}");
    std::fs::remove_file(at("c1")).expect("remove");
    std::fs::write(at("c1"), "x").expect("file");
    assert_eq!(config.check_partitions(), Ok(()));
}

/// Regions are counted in 32 bits. Before anything is made of it, and not by using a part of it.
#[test]
fn a_data_partition_beyond_any_mirror_is_found() {
    use mirror_core::units::MAX_MIRROR_BYTES;
    // A file system that takes a sparse file of this size.
    let dir = tempfile::tempdir_in("/dev/shm").expect("folder");
    let path = dir.path().join("d1");
    let file = std::fs::File::create(&path).expect("file");
    let config = parse(&BASE.replace("/dev/d1", path.to_str().expect("path"))).expect("base");
    file.set_len(MAX_MIRROR_BYTES).expect("a large file");
    assert_eq!(config.check_partitions(), Ok(()));
    file.set_len(MAX_MIRROR_BYTES + 512).expect("a larger file");
    let e = config.check_partitions().expect_err("too large").to_string();
    assert!(e.contains("data_partition") && e.contains("281474976645632 bytes"), "{e}");
    assert!(e.contains("at most 281474976645120"), "{e}");
}

#[test]
fn what_belongs_to_one_mirror_is_used_once() {
    assert_eq!(parse(&second("")).expect("two mirrors").mirrors.len(), 2);
    let cases = [
        ("name = \"md2\"", "name = \"md1\"", "name = \"md1\""),
        ("/dev/d2", "/dev/d1", "/dev/d1"),
        ("/dev/d2", "/dev/c1", "/dev/c1"),
        ("/dev/d2", "/dev/c2", "/dev/c2"),
        ("/mnt/2", "/mnt/1", "/mnt/1"),
    ];
    for (from, to, named) in cases {
        let e = problem(&second("").replace(from, to));
        assert!(e.contains(named) && e.contains("used once"), "{e}");
    }
    assert!(problem(&second("port = 29051\n")).contains("port = 29051: used by [[mirror]] md1"));
    assert!(problem(&second("port = 29004\n")).contains("used by [agent]"));
    assert!(problem(&second("nmp = 1\n")).contains("nmp = 1: used by"));
}

#[test]
fn rules_between_values() {
    assert!(
        problem(&with(Section::Mirror, "front_end = \"nbd-socket\"")).contains("cannot be mounted")
    );
    let e = problem(&with(Section::Mirror, "peer_timeout = 1500"));
    assert!(e.contains("peer_timeout = 1500") && e.contains("1000 ms"), "{e}");
    assert!(problem(&with(Section::Mirror, "fs = \"none\"")).contains("leave it out"));
    assert!(
        problem(&BASE.replace("mount_point = \"/mnt/1\"\n", "")).contains("mount_point: missing")
    );
    assert!(
        problem(&BASE.replace("data_partition = \"/dev/d1\"\n", ""))
            .contains("md1 on a: data_partition")
    );
    assert!(problem(&BASE.replace("md1", "data")).contains("nmp: missing"));
    assert!(
        problem(&with(Section::Mirror, "activate_at_start = \"c\"")).contains("no such [[server]]")
    );
}

#[test]
fn servers_and_addresses() {
    let fault = |text: &str| parse(text).expect_err("refused").fault();
    assert_eq!(fault(&BASE.replace("10.0.0.2", "10.0.0.300")), Fault::Address);
    assert_eq!(fault(&BASE.replace("10.0.0.2", "0.0.0.0")), Fault::Address);
    assert_eq!(fault(&BASE.replace("10.0.0.2", "10.0.0.1")), Fault::Address);
    assert_eq!(
        fault(&BASE.replace("[\"10.0.0.2\"]", "[\"10.0.0.2\", \"10.1.0.2\"]")),
        Fault::Address
    );
    assert_eq!(fault(&BASE.replace("\"b\"", "\"a\"")), Fault::ServerName);
    let none = Config::parse(Path::new("x.toml"), BASE, None, "elsewhere").expect_err("refused");
    assert_eq!(none.fault(), Fault::ServerName);
    assert!(
        none.to_string().contains("\"elsewhere\"") && none.to_string().contains("--server NAME")
    );
    let named = Config::parse(Path::new("x.toml"), BASE, Some("c"), "a").expect_err("refused");
    assert!(named.to_string().contains("--server c: no such"), "{named}");
    assert!(
        problem("[[server]]\nname = \"a\"\nmirror_connect = [\"10.0.0.1\"]\n")
            .contains("1 found; must be 2")
    );
    assert!(problem(BASE.split("[[mirror]]").next().expect("head")).contains("[[mirror]]: none"));
}

#[test]
fn event_switches_override_the_table_one_by_one() {
    let c = parse(&format!("{BASE}[event.mdadmn-5]\nmail = false\n")).expect("events");
    let s = c.events["mdadmn-5"];
    assert!(s.alert && s.syslog && !s.mail);
    for name in ["liscal", "liscal-80", "mdadmn-36"] {
        let c = parse(&format!("{BASE}[event.{name}]\nmail = true\n")).expect(name);
        assert!(c.events[name].mail && c.events[name].syslog, "{name}");
    }
    assert!(problem(&format!("{BASE}[event.liscal-3]\n")).contains("no such event"));
    assert!(problem(&format!("{BASE}[event.md-81]\n")).contains("no such event"));
}

#[test]
fn broken_toml_and_a_missing_file_are_errors() {
    assert!(problem("[[server]").contains("x.toml: "));
    let e = Config::load(Path::new("/nonexistent/x.toml"), None).expect_err("missing");
    assert!(e.to_string().contains("/nonexistent/x.toml: cannot be read"), "{e}");
}

/// The table is sound in itself: a default lies within its own range.
#[test]
fn defaults_fit_their_ranges() {
    for p in PARAMS {
        match (p.kind, p.preset) {
            (Kind::Int { min, max, .. }, Preset::Int(n)) => {
                assert!((min..=max).contains(&n), "{}", p.key);
            }
            (Kind::Choice(words), Preset::Text(t)) => assert!(words.contains(&t), "{}", p.key),
            (Kind::Path, Preset::Text(t)) => assert!(t.starts_with('/'), "{}", p.key),
            _ => {}
        }
        assert!(p.help.ends_with('.'), "{}: the help is a sentence", p.key);
    }
}

/// `UPDATE_DOCS=1 cargo test` writes the page; otherwise it must be what is printed.
#[test]
fn the_manual_page_is_current() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(file, manual()).expect("write the page");
    }
    let page = std::fs::read_to_string(file).expect("docs/configuration.md");
    assert!(
        page == manual(),
        "docs/configuration.md is stale: run UPDATE_DOCS=1 cargo test -p mirror-agent"
    );
}

proptest! {
    /// No text makes the loader panic, and every refusal names the file.
    #[test]
    fn any_text_is_loaded_or_refused(at in 0..BASE.len(), cut in 0..40usize, add in "\\PC{0,12}") {
        let floor = |n: usize| (0..=n.min(BASE.len())).rev().find(|i| BASE.is_char_boundary(*i));
        let (from, to) = (floor(at).unwrap_or(0), floor(at + cut).unwrap_or(0));
        let text = format!("{}{add}{}", &BASE[..from], &BASE[to..]);
        if let Err(e) = parse(&text) {
            prop_assert!(e.to_string().starts_with("x.toml: "));
        }
    }

    /// A number is taken exactly if it is in its range, whatever the parameter.
    #[test]
    fn any_number_is_judged_by_the_table(which in any::<proptest::sample::Index>(), n: i64) {
        let numbers: Vec<_> =
            PARAMS.iter().filter(|p| matches!(p.kind, Kind::Int { .. })).collect();
        let p = numbers[which.index(numbers.len())];
        let Kind::Int { min, max, .. } = p.kind else { unreachable!("filtered") };
        let refused = parse(&with(p.section, &format!("{} = {n}", p.key))).is_err();
        if !(min..=max).contains(&n) {
            prop_assert!(refused, "{} = {n}", p.key);
        }
    }
}

#[test]
fn what_a_disk_error_and_two_active_servers_do() {
    use crate::host::power::PowerAction;
    use mirror_core::both_active::BothActive;
    use mirror_core::units::Side;
    let of = |more: &str| {
        let c = Config::parse(Path::new("x.toml"), &format!("{BASE}{more}\n"), Some("a"), "");
        let m = c.expect("configuration").mirrors.remove(0);
        (m.disk_error, m.both_active)
    };
    assert_eq!(of(""), (None, BothActive::GoOn));
    assert_eq!(of("disk_error = \"stop-io\""), (None, BothActive::GoOn));
    assert_eq!(of("disk_error = \"reset\"").0, Some(PowerAction::Reset));
    assert_eq!(of("disk_error = \"panic\"").0, Some(PowerAction::Panic));
    assert_eq!(of("both_active = \"stop-both\"").1, BothActive::StopBoth);
    let survivor = |name| format!("both_active = \"survivor\"\nsurvivor = \"{name}\"");
    assert_eq!(of(&survivor("b")).1, BothActive::Survivor(Side::Second));
    let wrong = |more: &str| problem(&format!("{BASE}{more}\n"));
    assert!(wrong(&survivor("c")).contains("survivor = \"c\": no such [[server]]"));
    assert!(wrong("both_active = \"survivor\"").contains("survivor: missing"));
    assert!(wrong("survivor = \"a\"").contains("only with both_active"));
    assert!(wrong("disk_error = \"ignore\"").contains("stop-io, reset, panic, detach"));
    let detach = Config::parse(
        Path::new("x.toml"),
        &format!("{BASE}disk_error = \"detach\"\n"),
        Some("a"),
        "",
    );
    let mirror = detach.expect("configuration").mirrors.remove(0);
    assert_eq!((mirror.disk_error, mirror.detach), (None, true));
}

/// Each mistake is said with the line that has to be changed.
#[test]
fn a_mistake_names_its_line() {
    let second = "[[mirror]]\nname = \"md2\"\nmount_point = \"/mnt/2\"\n";
    let text =
        format!("{BASE}{second}data_partition = \"/dev/d2\"\ncluster_partition = \"/dev/c2\"\n");
    parse(&text).expect("two mirrors");
    for (old, new) in [
        ("name = \"md2\"", "name = \"md1\""),
        ("mount_point = \"/mnt/2\"", "mount_point = \"/mnt/1\""),
        ("mount_point = \"/mnt/2\"", "mount_pont = \"/mnt/2\""),
        ("data_partition = \"/dev/d2\"", "data_partition = \"d2\""),
        ("data_partition = \"/dev/d2\"", "data_partition = \"/dev/c1\""),
        ("[[mirror]]\nname = \"md2\"", "[mirors]\nname = \"md2\""),
        (
            "cluster_partition = \"/dev/c2\"",
            "cluster_partition = \"/dev/c2\"\n[agent]\nport = 29051",
        ),
    ] {
        let bad = text.replacen(old, new, 1);
        let e = parse(&bad).expect_err("must be refused");
        let first = text.lines().zip(bad.lines()).position(|(a, b)| a != b).map(|n| n + 1);
        let Some(line) = first.or(e.mistakes[0].line) else { panic!("no line: {e}") };
        assert!(e.mistakes.iter().any(|m| m.line == Some(line)), "{e}");
        assert!(e.to_string().contains(&format!("x.toml: line {line}: ")), "{e}");
    }
    // A key that is missing is missing in the table that begins there.
    let e = parse(&text.replacen("data_partition = \"/dev/d2\"\n", "", 1)).expect_err("missing");
    let begins = text.lines().position(|l| l == "name = \"md2\"");
    assert_eq!(e.mistakes[0].line, begins, "{e}");
}

/// All that is wrong is told at once: file, line and key of each, and nothing that only follows
/// from something else that is told.
#[test]
fn every_mistake_is_told_at_once() {
    let text = r#"[[server]]
name = "a"
mirror_connect = ["10.0.0.300"]
[[server]]
name = "b"
mirror_connect = ["10.0.0.2"]
colour = "red"
[agent]
port = 0
alert_log_keep = "five"
[[mirror]]
name = "md1"
data_partition = "d1"
cluster_partition = "/dev/c1"
fs = "btrfs"
survivor = "a"
activate_at_start = "c"
[[mirror]]
nmp = 2
data_partition = "/dev/d2"
mount_point = "/mnt/2"
peer_timeout = 600
[mirror.on.c]
data_partition = "/dev/d3"
[event.md-81]
mail = true
"#;
    let e = parse(text).expect_err("refused");
    let told: Vec<_> = e.mistakes.iter().map(|m| (m.line, m.field.as_deref())).collect();
    let want = [
        (3, "server[0].mirror_connect"),
        (7, "server[1].colour"),
        (9, "agent.port"),
        (10, "agent.alert_log_keep"),
        (13, "mirror[0].data_partition"),
        (15, "mirror[0].fs"),
        (16, "mirror[0].survivor"),
        (17, "mirror[0].activate_at_start"),
        (18, "mirror[1].name"),
        (23, "mirror[1].on.a.cluster_partition"),
        (23, "mirror[1].on.b.cluster_partition"),
        (22, "mirror[1].peer_timeout"),
        (23, "mirror[1].on.c"),
        (25, "event.md-81"),
    ];
    let mut told: Vec<_> = told.iter().map(|(l, f)| (l.unwrap_or(0), f.unwrap_or(""))).collect();
    let mut want = want.to_vec();
    told.sort_unstable();
    want.sort_unstable();
    assert_eq!(told, want, "{e}");
    assert_eq!(e.to_string().lines().count(), want.len());
    assert!(e.to_string().lines().all(|l| l.starts_with("x.toml: line ")), "{e}");
    let json = serde_json::to_value(&e.mistakes[0]).expect("encodes");
    assert_eq!((json["line"].as_u64(), json["fault"].as_str()), (Some(3), Some("address")));
}

#[test]
fn what_is_no_toml_is_told_line_by_line() {
    let e =
        parse(&BASE.replace("name = \"b\"", "name = ").replace("md1\"", "md1")).expect_err("no");
    let lines: Vec<_> = e.mistakes.iter().map(|m| m.line).collect();
    assert!(lines.contains(&Some(6)) && lines.contains(&Some(9)), "{e}");
    assert!(parse(&format!("{BASE}mount_point = \"/x\"\n")).is_err(), "said twice");
}

/// However many there are, what is told is bounded.
#[test]
fn mistakes_beyond_a_hundred_are_counted() {
    let many: String = (0..250).map(|n| format!("key{n} = 1\n")).collect();
    let e = parse(&format!("{BASE}{many}")).expect_err("refused");
    assert_eq!((e.mistakes.len(), e.more), (100, 150));
    assert!(e.to_string().ends_with("x.toml: and 150 more"), "{e}");
    let long = "é".repeat(200_000);
    let e = parse(&BASE.replace("md1", &long)).expect_err("refused");
    assert!(e.to_string().len() < 10_000, "however long a value is");
}

#[test]
fn figures_are_kept_and_no_port_is_open_by_default() {
    let c = parse(BASE).expect("good");
    assert_eq!(c.agent.figures_dir, c.agent.log_dir.join("perf"));
    assert_eq!(c.agent.figures_interval.as_secs(), 60);
    assert_eq!((c.agent.metrics_port, c.agent.metrics_address), (None, MetricsAddress::Loopback));
    let c = parse(&with(Section::Agent, "metrics_port = 9101\nmetrics_address = \"agent\""))
        .expect("good");
    assert_eq!(
        (c.agent.metrics_port, c.agent.metrics_address),
        (Some(9101), MetricsAddress::Agent)
    );
    let both = problem(&with(Section::Agent, "port = 9101\nmetrics_port = 9101"));
    assert!(both.contains("port = 9101: used by [agent] and by [agent] (metrics)"), "{both}");
}
