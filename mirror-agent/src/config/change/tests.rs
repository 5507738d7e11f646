//! What a running agent takes over, and what it refuses by name.

use super::{Plan, Situation, decide};
use crate::config::Config;
use crate::config::params::{Kind, PARAMS, Section};
use std::collections::BTreeMap;
use std::path::Path;

const BASE: &str = r#"
[[server]]
name = "a"
mirror_connect = ["10.0.0.1"]
[[server]]
name = "b"
mirror_connect = ["10.0.0.2"]
[agent]
[[mirror]]
name = "md1"
data_partition = "/dev/d1"
cluster_partition = "/dev/c1"
mount_point = "/mnt/1"
"#;
const MD2: &str = "[[mirror]]\nname = \"md2\"\ndata_partition = \"/dev/d2\"\ncluster_partition = \"/dev/c2\"\nfs = \"none\"\n";
const IDLE: Situation = Situation::Active { here: false, there: Some(false) };
const HERE: Situation = Situation::Active { here: true, there: Some(false) };
const THERE: Situation = Situation::Active { here: false, there: Some(true) };
const UNSEEN: Situation = Situation::Active { here: false, there: None };

fn config(text: &str) -> Config {
    Config::parse(Path::new("x.toml"), text, Some("a"), "").expect("configuration")
}

/// All mirrors of the old one are in this situation.
fn of(old: &str, new: &str, situation: Situation) -> Result<Plan, Vec<String>> {
    let (old, new) = (config(old), config(new));
    let all: BTreeMap<_, _> = old.mirrors.iter().map(|m| (m.name.clone(), situation)).collect();
    decide(&old, &new, &all)
}

fn said(old: &str, new: &str, situation: Situation) -> Vec<String> {
    of(old, new, situation).expect("allowed").sentences()
}

fn against(old: &str, new: &str, situation: Situation) -> String {
    of(old, new, situation).expect_err("refused").join("\n")
}

#[test]
fn what_says_the_same_is_no_change() {
    assert!(of(BASE, BASE, HERE).expect("allowed").is_empty());
    // Defaults and derived values that are spelled out, another order, comments.
    let spelled = BASE
        .replace(
            "[agent]",
            "# nothing new\n[agent]\nsocket = \"/run/clpmd/ctl.sock\"\nport = 29004",
        )
        .replace("fs = ", "")
        + "nmp = 1\nport = 29051\nfs = \"ext4\"\n[mirror.on.b]\ndata_partition = \"/dev/d1\"\n";
    assert!(of(BASE, &spelled, HERE).expect("allowed").is_empty());
    let (ab, md1) = (format!("{BASE}{MD2}"), BASE.find("[[mirror]]").expect("md1"));
    let ba = format!("{}{MD2}{}", &BASE[..md1], &BASE[md1..]);
    assert!(of(&ab, &ba, HERE).expect("allowed").is_empty());
}

#[test]
fn mirrors_are_added_and_removed() {
    let two = format!("{BASE}{MD2}");
    assert_eq!(said(BASE, &two, HERE), ["[[mirror]] md2: added"]);
    assert_eq!(said(&two, BASE, IDLE), ["[[mirror]] md2: removed"]);
    assert_eq!(said(&two, BASE, Situation::Broken), ["[[mirror]] md2: removed"]);
    assert!(of(&two, BASE, IDLE).expect("allowed").idle.contains("md2"));
}

#[test]
fn an_active_mirror_is_not_removed() {
    let two = format!("{BASE}{MD2}");
    let name = "[[mirror]] md2: ";
    assert_eq!(against(&two, BASE, HERE), format!("{name}is active on a, so it cannot be removed"));
    assert_eq!(
        against(&two, BASE, THERE),
        format!("{name}is active on b, so it cannot be removed")
    );
    assert_eq!(
        against(&two, BASE, UNSEEN),
        format!("{name}may be active on b, which does not answer, so it cannot be removed")
    );
    assert!(against(&two, BASE, Situation::Unknown).starts_with(&format!("{name}may be active")));
}

/// A mirror under a new name would open the partitions that the old one has.
#[test]
fn a_new_mirror_does_not_take_what_a_removed_one_has() {
    let two = format!("{BASE}{MD2}");
    for renamed in [
        two.replace("md2", "md3").replace("d2\"", "d3\"").replace("fs =", "nmp = 2\nfs ="),
        two.replace("md2", "md3").replace("/dev/c2", "/dev/c3"),
        two.replace("md2", "md3")
            .replace("/dev/d2", "/dev/c2")
            .replace("_partition = \"/dev/c2\"\nfs", "_partition = \"/dev/x\"\nfs"),
        two.replace("md2", "md3")
            .replace("/2\"", "/3\"")
            .replace("2\"\n", "3\"\n")
            .replace("fs =", "port = 29052\nfs ="),
    ] {
        let text = against(&two, &renamed, IDLE);
        assert!(
            text.starts_with("[[mirror]] md3: uses a number, port or partition of md2"),
            "{text}"
        );
    }
}

#[test]
fn one_refusal_refuses_everything_and_all_are_named() {
    let new = BASE.replace("[agent]", "[agent]\nport = 1\nmail_to = \"root\"")
        + "hot_regions = 99\n"
        + MD2;
    let text = against(BASE, &new, IDLE);
    assert_eq!(
        text,
        "[agent]: port: 29004 -> 1: takes a restart of the agent\n\
         [[mirror]] md1: hot_regions: 65536 -> 99: takes a restart of the agent"
    );
}

#[test]
fn a_mount_point_changes_while_the_mirror_is_inactive_here() {
    let new = BASE.replace("/mnt/1", "/mnt/x");
    let plan = of(BASE, &new, THERE).expect("allowed");
    assert_eq!(plan.sentences(), ["[[mirror]] md1: mount_point: \"/mnt/1\" -> \"/mnt/x\""]);
    assert!(plan.idle.contains("md1"));
    assert!(against(BASE, &new, HERE).ends_with("not while md1 is active here"));
    assert!(against(BASE, &new, Situation::Unknown).contains("mount_point"));
}

/// The driver is told at its start whether the other server's disk may serve.
#[test]
fn detach_takes_a_restart_and_the_other_disk_errors_do_not() {
    let with = |value: &str| format!("{BASE}disk_error = \"{value}\"\n");
    for other in ["stop-io", "reset", "panic"] {
        for (old, new) in [(other, "detach"), ("detach", other)] {
            let refused = format!(
                "[[mirror]] md1: disk_error: \"{old}\" -> \"{new}\": takes a restart of the agent"
            );
            assert_eq!(against(&with(old), &with(new), IDLE), refused);
        }
    }
    assert!(against(BASE, &with("detach"), HERE).contains("takes a restart"));
    assert_eq!(said(&with("reset"), &with("panic"), HERE).len(), 1);
}

#[test]
fn a_mirror_that_could_not_be_opened_may_change_in_any_way() {
    let new = BASE.replace("/dev/d1", "/dev/other") + "hot_regions = 99\n";
    let plan = of(BASE, &new, Situation::Broken).expect("allowed");
    assert_eq!(plan.again, ["md1"]);
    let name = "[[mirror]] md1: ";
    assert_eq!(
        plan.sentences(),
        [
            format!("{name}data_partition on a: \"/dev/d1\" -> \"/dev/other\""),
            format!("{name}data_partition on b: \"/dev/d1\" -> \"/dev/other\""),
            format!("{name}hot_regions: 65536 -> 99"),
        ]
    );
}

#[test]
fn destinations_of_messages_change_at_any_time() {
    let new = format!("{BASE}[event.mdadmn-5]\nmail = false\n");
    let lines = said(BASE, &new, HERE);
    assert!(lines.contains(&"[event.mdadmn-5]: mail: (none) -> false".to_owned()), "{lines:?}");
    assert!(!said(&new, BASE, HERE).is_empty());
}

/// Every key of the table that is changed by itself is either said or refused, by its name.
#[test]
fn every_key_is_said_or_refused_by_name() {
    let mut live = 0;
    for p in PARAMS {
        let value = match p.kind {
            Kind::Int { max, .. } => max.min(400).to_string(),
            Kind::Bool => match p.preset {
                crate::config::params::Preset::Bool(b) => (!b).to_string(),
                _ => "false".to_owned(),
            },
            Kind::Choice(words) => {
                let is_preset =
                    |w: &str| matches!(p.preset, crate::config::params::Preset::Text(t) if t == w);
                let other = |w: &&&str| !is_preset(w);
                format!("{:?}", words.iter().find(other).expect("a word"))
            }
            Kind::Text(_) => "\"other\"".to_owned(),
            Kind::Path => "\"/other\"".to_owned(),
            Kind::Name => "\"b\"".to_owned(),
            Kind::Address => "\"10.9.9.9\"".to_owned(),
            Kind::Addresses => "[\"10.9.9.9\"]".to_owned(),
        };
        let line = format!("{} = {value}\n", p.key);
        let without = |text: &str| -> String {
            let begins = format!("{} =", p.key);
            text.lines().filter(|l| !l.starts_with(&begins)).map(|l| format!("{l}\n")).collect()
        };
        let new = match (p.section, p.key) {
            (_, "name" | "fs") => continue, // another mirror; another mount point
            (_, "heartbeat_interval") => format!("{BASE}heartbeat_interval = 900\n"),
            (_, "survivor") => format!("{BASE}both_active = \"survivor\"\n{line}"),
            (_, "both_active") => format!("{BASE}both_active = \"stop-both\"\n"),
            (_, "front_end") => format!("{BASE}front_end = \"loop\"\n"),
            (_, "peer_timeout") => format!("{BASE}peer_timeout = 4000\n"),
            (Section::Server, "mirror_connect") => BASE.replace("10.0.0.1", "10.9.9.9"),
            (Section::Server, _) => {
                BASE.replacen("name = \"a\"\n", &format!("name = \"a\"\n{line}"), 1)
            }
            (Section::Agent, _) => BASE.replace("[agent]\n", &format!("[agent]\n{line}")),
            (Section::Mirror, _) => without(BASE) + &line,
            (Section::MirrorOn, _) => format!("{BASE}[mirror.on.a]\n{line}"),
            (Section::Event, _) => format!("{BASE}[event.mdadmn-5]\n{line}"),
        };
        let text = match of(BASE, &new, IDLE) {
            Ok(plan) => {
                live += 1;
                plan.sentences().join("\n")
            }
            Err(all) => all.join("\n"),
        };
        assert!(text.contains(p.key), "{}: {text:?}", p.key);
    }
    assert!(live >= 30, "{live} keys are taken over");
}
