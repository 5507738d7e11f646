//! What agents and tools read: configuration, control socket, each other, their files.

use mirror_agent::config::params::{Kind, Param, Preset, Section, of};
use mirror_agent::ctl::{MirrorReport, Query, Refused, Reply, Request, Response, VERSION};
use mirror_agent::messages::MdCode;
use mirror_agent::peer::{PeerAnswer, PeerRequest};
use mirror_core::status::{
    Color, CopyKind, LinkStatus, MirrorStatus, Phase, RecoveryStatus, SideStatus,
};
use mirror_core::units::SessionNo;
use serde::Serialize;

pub(super) fn configs() -> Vec<Vec<u8>> {
    let example = include_str!("../../../../examples/two-servers.toml");
    let plain: String = example
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim_end())
        .filter(|line| !line.is_empty())
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut all = vec![plain.clone().into_bytes()];
    for section in [Section::Agent, Section::Mirror, Section::Event] {
        let keys: String = of(section).filter_map(line).collect();
        let text = match section {
            Section::Agent => plain.replace("[agent]\n", &format!("[agent]\n{keys}")),
            Section::Mirror => plain.replace("[[mirror]]\n", &format!("[[mirror]]\n{keys}")),
            _ => format!("{plain}[event.mdadmn-1]\n{keys}"),
        };
        all.push(text.clone().into_bytes());
        // Once more without what would then be there twice.
        let mut seen = std::collections::BTreeSet::new();
        let once = text.lines().filter(|l| match l.split_once(" = ") {
            Some((key, _)) if keys.contains(&format!("{key} = ")) => seen.insert(key.to_owned()),
            _ => true,
        });
        all.push(once.flat_map(|l| [l, "\n"]).collect::<String>().into_bytes());
    }
    all.push(plain.replace("fs = \"ext4\"\nmount_point = \"/mnt/nmp1\"", "fs = \"none\"").into());
    all.retain(|text| text.len() <= 4096);
    all
}

/// A line with the default, or with a value of the kind.
fn line(p: &Param) -> Option<String> {
    Some(match (p.preset, p.kind) {
        (Preset::Int(n), _) => format!("{} = {n}\n", p.key),
        (Preset::Bool(b), _) => format!("{} = {b}\n", p.key),
        (Preset::Text(t), _) => format!("{} = {t:?}\n", p.key),
        (_, Kind::Int { min, .. }) => format!("{} = {min}\n", p.key),
        (_, Kind::Bool) => format!("{} = true\n", p.key),
        (_, Kind::Choice(words)) => format!("{} = {:?}\n", p.key, words.first()?),
        (Preset::Absent, Kind::Text(_)) => format!("{} = \"root\"\n", p.key),
        _ => return None,
    })
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("it can be said")
}

pub(super) fn lines() -> Vec<Vec<u8>> {
    let queries = requests().into_iter().map(|request| json(&Query { version: VERSION, request }));
    let replies =
        responses().into_iter().map(|response| json(&Reply { version: VERSION, response }));
    let newer = json(&Query { version: VERSION + 1, request: Request::Ping });
    queries.chain(replies).chain([newer]).collect()
}

fn requests() -> Vec<Request> {
    let (server, mirror) = ("server1".to_owned(), "md1".to_owned());
    vec![
        Request::Ping,
        Request::List,
        Request::Status { mirror: None },
        Request::Status { mirror: Some(mirror.clone()) },
        Request::Activate { mirror: mirror.clone(), nomount: true, peer_down: false },
        Request::Deactivate { mirror: mirror.clone() },
        Request::Recover { mirror: mirror.clone() },
        Request::Cancel { mirror: mirror.clone() },
        Request::Force { server, mirror: mirror.clone() },
        Request::PeerDown { mirror },
    ]
}

fn responses() -> Vec<Response> {
    let next = "clpmdstat -m md1".to_owned();
    vec![
        Response::Pong { server: "server1".to_owned(), agent: "0.1.0".to_owned() },
        Response::List(vec!["md1".to_owned(), "md2".to_owned()]),
        Response::Status(vec![report()]),
        Response::Done("done".to_owned()),
        Response::Refused(Refused { code: MdCode::ALL[0], message: "no".to_owned(), next }),
        Response::Progress(5),
        Response::Error("what?".to_owned()),
    ]
}

fn side() -> SideStatus {
    SideStatus {
        color: Color::Green,
        active: Some(true),
        last_update: Some(1_700_000_000),
        break_time: None,
        disk_error: Some(false),
        marked_regions: Some(3),
        difference_percent: Some(1),
        generation: Some("0000000000000005".to_owned()),
    }
}

fn report() -> MirrorReport {
    MirrorReport {
        name: "md1".to_owned(),
        device: "/dev/NMP1".to_owned(),
        mount_point: Some("/mnt/nmp1".to_owned()),
        mounted: Some(true),
        servers: ["server1".to_owned(), "server2".to_owned()],
        status: status(),
        peer_by_agent: false,
    }
}

pub(super) fn questions() -> Vec<Vec<u8>> {
    let mirror = || "md1".to_owned();
    let asked = [
        PeerRequest::Ping,
        PeerRequest::Report { mirror: mirror() },
        PeerRequest::IsActive { mirror: mirror() },
        PeerRequest::Force { mirror: mirror() },
        PeerRequest::TellBehind { mirror: mirror(), session: SessionNo(3) },
    ];
    let answered = [
        PeerAnswer::Pong("server2".to_owned()),
        PeerAnswer::Report(Box::new(report())),
        PeerAnswer::Active(true),
        PeerAnswer::Outcome(Response::Done("done".to_owned())),
        PeerAnswer::Behind { session: SessionNo(3) },
        PeerAnswer::Refused("no".to_owned()),
    ];
    let to_server = asked.iter().map(|q| [vec![0], json(q)].concat());
    let to_asker = answered.iter().map(|a| [vec![1], json(a)].concat());
    let stranger = [&[4][..], b"GET / HTTP/1.0\r\n\r\n"].concat();
    let damaged = [vec![2, 8, 0, 1], json(&PeerRequest::Ping)].concat();
    let too_long = [vec![0xf8], json(&PeerRequest::Ping)].concat();
    to_server.chain(to_asker).chain([stranger, damaged, too_long]).collect()
}

pub(super) fn files() -> Vec<Vec<u8>> {
    let state = serde_json::json!({
        "version": 1,
        "boot_id": "4b3a6f2c-0000-4000-8000-000000000000",
        "folder": "/run/clpmd/md1-0123456789abcdef",
        "server": { "pid": 4711, "start": 815 },
        "device": { "number": 3, "sequence": 9 },
        "link": "/dev/NMP1",
    });
    let mut bare = state.clone();
    bare["server"] = serde_json::Value::Null;
    bare["device"] = serde_json::Value::Null;
    let mut elsewhere = state.clone();
    elsewhere["folder"] = "/".into();
    let secret = b"0123456789abcdef \n".to_vec();
    vec![secret, b"short\n".to_vec(), vec![7; 4097], json(&state), json(&bare), json(&elsewhere)]
}

fn status() -> MirrorStatus {
    let recovery = RecoveryStatus {
        source: 0,
        target: 1,
        kind: CopyKind::Full,
        percent: 50,
        used_seconds: 9,
        remain_seconds: Some(9),
        copied_bytes: 1 << 20,
        total_bytes: 2 << 20,
    };
    MirrorStatus {
        phase: Phase::Recovering,
        sides: [side(), SideStatus { color: Color::Yellow, break_time: Some(-1), ..side() }],
        local: 0,
        total_difference_percent: 1,
        recovery: Some(recovery),
        link: LinkStatus::Session,
        session: 3,
        verdict: Some("in-sync".to_owned()),
        size: 1 << 30,
        block: 512,
        separated: false,
        both_active: false,
        needs_force: false,
        constructing: false,
    }
}
