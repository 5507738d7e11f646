//! The programs themselves, against an agent that is made up.

use mirror_agent::ctl::{
    Access, Answer, Change, Changes, CtlServer, MirrorReport, Refused, Request, Response, Service,
};
use mirror_agent::host::power::{Marked, ResetMark};
use mirror_agent::lock::{Lock, Role};
use mirror_agent::messages::MdCode;
use mirror_agent::monitor::{Monitored, PeerDriver};
use mirror_core::status::{Color, LinkStatus, MirrorStatus, Phase, SideStatus};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// A folder with a configuration whose partitions are files.
struct Lab {
    dir: tempfile::TempDir,
    config: PathBuf,
}

const BLANK: usize = 2 * 1024 * 1024;

fn lab() -> Lab {
    let dir = tempfile::tempdir().expect("folder");
    let at = dir.path().display();
    let mut text = format!(
        "[[server]]\nname = \"server1\"\nmirror_connect = [\"127.0.0.1\"]\n\
         [[server]]\nname = \"server2\"\nmirror_connect = [\"127.0.0.2\"]\n\
         [agent]\nrun_dir = \"{at}/run\"\nlog_dir = \"{at}/log\"\n"
    );
    for md in ["md1", "md2"] {
        text += &format!("[[mirror]]\nname = \"{md}\"\nfs = \"none\"\n");
        for server in ["server1", "server2"] {
            text += &format!(
                "[mirror.on.{server}]\ndata_partition = \"{at}/{md}-{server}-data\"\n\
                 cluster_partition = \"{at}/{md}-{server}-cp\"\n"
            );
            for part in ["data", "cp"] {
                let file = dir.path().join(format!("{md}-{server}-{part}"));
                fs::write(file, vec![0x5a; BLANK]).expect("partition");
            }
        }
    }
    let config = dir.path().join("clpmd.toml");
    fs::write(&config, text).expect("configuration");
    fs::create_dir(dir.path().join("run")).expect("run");
    Lab { dir, config }
}

impl Lab {
    fn run(&self, line: &str) -> Output {
        let mut words = line.split(' ');
        let program = words.next().expect("a program");
        Command::new(bin(program))
            .args(words)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .output()
            .expect("runs")
    }

    fn blank(&self, name: &str) -> bool {
        let bytes = fs::read(self.dir.path().join(name)).expect("partition");
        assert_eq!(bytes.len(), BLANK);
        bytes.iter().all(|b| *b == 0)
    }
}

fn bin(program: &str) -> &'static Path {
    Path::new(match program {
        "clpmdstat" => env!("CARGO_BIN_EXE_clpmdstat"),
        "clpmdctrl" => env!("CARGO_BIN_EXE_clpmdctrl"),
        "clpmdinit" => env!("CARGO_BIN_EXE_clpmdinit"),
        "clpmdchng" => env!("CARGO_BIN_EXE_clpmdchng"),
        "clpmdchnng" => env!("CARGO_BIN_EXE_clpmdchnng"),
        "clpmdmon" => env!("CARGO_BIN_EXE_clpmdmon"),
        "clpmdmsg" => env!("CARGO_BIN_EXE_clpmdmsg"),
        "clpmdsecret" => env!("CARGO_BIN_EXE_clpmdsecret"),
        other => panic!("{other}"),
    })
}

fn code(o: &Output) -> i32 {
    o.status.code().expect("an exit code")
}

fn out(o: &Output) -> String {
    String::from_utf8_lossy(&o.stdout).into_owned()
}

fn err(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

/// Those of an agent that does not have the first three any more.
fn changes(from: Option<u64>) -> Changes {
    let change = |seq, event: &str| Change {
        seq,
        at: 0,
        server: "server1".to_owned(),
        mirror: "md1".to_owned(),
        event: event.to_owned(),
        text: String::new(),
        rule: None,
        state: None,
    };
    match from {
        None => Changes { next: 0, lost: 0, changes: vec![change(0, "now")] },
        Some(0) => Changes { next: 4, lost: 3, changes: vec![change(3, "broke")] },
        Some(from) => Changes { next: from + 1, lost: 0, changes: vec![change(from, "note")] },
    }
}

/// Knows md1 and md2; refuses to activate; notes what it was asked.
struct Fake {
    asked: Mutex<Vec<Request>>,
    names: Mutex<Vec<String>>,
    /// When the mirror broke.
    broke: Mutex<Option<i64>>,
    /// Changes the state that the monitors are given.
    change: Mutex<fn(&mut Monitored)>,
}

impl Service for Fake {
    fn call(&self, request: Request) -> Answer<Response> {
        self.asked.lock().expect("lock").push(request.clone());
        let answer = match request {
            Request::List => Response::List(self.names.lock().expect("lock").clone()),
            Request::Status { mirror: Some(m) } if m.starts_with("md") => {
                let mut r = report(&m);
                if let Some(at) = *self.broke.lock().expect("lock") {
                    r.status.phase = Phase::Abnormal;
                    r.status.sides[0].break_time = Some(at);
                }
                Response::Status(vec![r])
            }
            Request::Monitor { mirror } if mirror == "md1" => {
                let mut state = Monitored { report: Some(report("md1")), peer: PeerDriver::Runs };
                self.change.lock().expect("lock")(&mut state);
                Response::Monitor(Box::new(state))
            }
            Request::Monitor { .. } => {
                Response::Refused(Refused::plain(MdCode::NoMirror, "no such mirror"))
            }
            Request::Activate { .. } => Response::Refused(Refused {
                code: MdCode::NotLatest,
                message: "why".to_owned(),
                next: "clpmdctrl --recovery md1".to_owned(),
            }),
            Request::Status { .. } => {
                Response::Refused(Refused::plain(MdCode::NoMirror, "no such mirror"))
            }
            Request::Events { from, .. } => Response::Changes(changes(from)),
            other => Response::Done(format!("done: {other:?}")),
        };
        Box::pin(async move { answer })
    }
}

fn report(name: &str) -> MirrorReport {
    let side = || SideStatus {
        color: Color::Green,
        active: Some(false),
        last_update: None,
        break_time: None,
        disk_error: Some(false),
        marked_regions: Some(0),
        difference_percent: None,
        generation: None,
    };
    MirrorReport {
        name: name.to_owned(),
        device: "/dev/NMP1".to_owned(),
        mount_point: None,
        mounted: None,
        servers: ["server1".to_owned(), "server2".to_owned()],
        status: MirrorStatus {
            phase: Phase::Normal,
            sides: [side(), side()],
            local: 0,
            total_difference_percent: 0,
            recovery: None,
            link: LinkStatus::Session,
            session: 1,
            verdict: None,
            block: 512,
            size: 1 << 30,
            separated: false,
            both_active: false,
            needs_force: false,
            constructing: false,
        },
        peer_by_agent: false,
    }
}

fn with_agent(lab: &Lab) -> (Arc<Fake>, tokio::runtime::Runtime) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("runtime");
    let fake = Arc::new(Fake {
        asked: Mutex::default(),
        names: Mutex::new(vec!["md1".to_owned(), "md2".to_owned()]),
        broke: Mutex::default(),
        change: Mutex::new(|_| ()),
    });
    let socket = lab.dir.path().join("run/ctl.sock");
    let server = runtime.block_on(async { CtlServer::bind(&socket, Access::Owner) }).expect("bind");
    runtime.spawn(server.run(fake.clone()));
    (fake, runtime)
}

#[test]
fn states_are_shown_and_the_code_is_0() {
    let lab = lab();
    let _agent = with_agent(&lab);
    let one = lab.run("clpmdstat --mirror md1");
    assert_eq!(code(&one), 0, "{}", err(&one));
    assert!(
        out(&one)
            .starts_with("Mirror Status: Normal\n\nmd1             server1         server2\n-")
    );
    assert_eq!(out(&lab.run("clpmdstat -m md1")), out(&one));
    let all = out(&lab.run("clpmdstat"));
    assert!(all.contains("\n\nMirror Status: Normal\n\nmd2  "), "{all}");
    assert_eq!(out(&lab.run("clpmdstat -l")), "<md1>\n<md2>\n");
    assert!(out(&lab.run("clpmdstat -a md1")).contains("Active Status   Inactive        Inactive"));
    let json: MirrorReport =
        serde_json::from_slice(&lab.run("clpmdstat -m md1 --json").stdout).expect("one object");
    assert_eq!(json, report("md1"));
    let all: Vec<MirrorReport> =
        serde_json::from_slice(&lab.run("clpmdstat --json").stdout).expect("an array");
    assert_eq!(all.len(), 2);
}

#[test]
fn one_broken_mirror_does_not_hide_the_others() {
    let lab = lab();
    let (fake, _runtime) = with_agent(&lab);
    *fake.names.lock().expect("lock") = vec!["broken".to_owned(), "md1".to_owned()];
    let shown = lab.run("clpmdstat");
    assert_eq!(code(&shown), 0);
    assert!(out(&shown).contains("md1  ") && err(&shown).contains("no such mirror"));
    *fake.names.lock().expect("lock") = vec!["broken".to_owned()];
    assert_eq!(code(&lab.run("clpmdstat")), 77, "nothing could be shown");
}

/// Times are local, whichever way the time zone is said.
#[test]
fn times_are_local() {
    let lab = lab();
    let (fake, _runtime) = with_agent(&lab);
    *fake.broke.lock().expect("lock") = Some(1_078_389_005);
    let mut zones = vec![("JST-9", "2004/03/04 17:30:05"), ("UTC", "2004/03/04 08:30:05")];
    if Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists() {
        zones.push(("Asia/Tokyo", "2004/03/04 17:30:05"));
    }
    for (zone, want) in zones {
        let shown = Command::new(bin("clpmdstat"))
            .args(["-m", "md1", "--config"])
            .arg(&lab.config)
            .env("TZ", zone)
            .output()
            .expect("runs");
        let text = out(&shown);
        assert!(text.contains(&format!("\nBreak Time          {want}  --\n")), "{zone}: {text}");
    }
}

#[test]
fn errors_have_their_codes() {
    let lab = lab();
    let none = lab.run("clpmdstat --mirror md1");
    assert_eq!(code(&none), 1);
    assert!(err(&none).contains("Need to start mirror agent at first."), "{}", err(&none));
    let _agent = with_agent(&lab);
    assert_eq!(code(&lab.run("clpmdstat --mirror other")), 77);
    assert_eq!(code(&lab.run("clpmdstat --mirror")), 2);
    assert_eq!(code(&lab.run("clpmdctrl --active --deactive md1")), 2);
    assert_eq!(code(&lab.run("clpmdctrl --force md1")), 2);
    let refused = lab.run("clpmdctrl --active md1");
    assert_eq!(code(&refused), 81);
    assert_eq!(err(&refused), "clpmdctrl: why\nNext: clpmdctrl --recovery md1\n");
    fs::write(&lab.config, "[agent]\nport = 0\n").expect("configuration");
    let broken = lab.run("clpmdstat");
    assert_eq!(code(&broken), 4);
    assert!(err(&broken).contains("Getting of config was failed."), "{}", err(&broken));
}

#[test]
fn force_without_a_terminal_needs_yes() {
    let lab = lab();
    let (fake, _runtime) = with_agent(&lab);
    let asked = lab.run("clpmdctrl --force server1 md1");
    assert_eq!(code(&asked), 2);
    assert!(err(&asked).contains("depends on the servers' clocks"), "{}", err(&asked));
    assert!(err(&asked).contains("Next: clpmdctrl --force server1 md1 --yes"));
    assert!(fake.asked.lock().expect("lock").is_empty(), "nothing was asked of the agent");
    assert_eq!(code(&lab.run("clpmdctrl --force server1 md1 --yes")), 0);
    let want = Request::Force { server: "server1".to_owned(), mirror: "md1".to_owned() };
    assert_eq!(*fake.asked.lock().expect("lock"), [want]);
}

#[test]
fn a_closed_output_is_no_error() {
    let lab = lab();
    let _agent = with_agent(&lab);
    let (reader, writer) = nix::unistd::pipe().expect("pipe");
    drop(reader);
    let status = Command::new(bin("clpmdstat"))
        .arg("--config")
        .arg(&lab.config)
        .stdout(writer)
        .status()
        .expect("runs");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn help_teaches_and_names_the_codes() {
    for program in ["clpmdstat", "clpmdctrl", "clpmdinit", "clpmdchng", "clpmdchnng"] {
        let help = Command::new(bin(program)).arg("--help").output().expect("runs");
        assert_eq!(code(&help), 0);
        let text = out(&help);
        assert!(text.contains("Example") && text.contains("Exit codes:"), "{program}: {text}");
        for c in MdCode::ALL {
            assert!(text.contains(&format!("\n  {} ", c.number())), "{program} lacks {c}");
        }
    }
}

#[test]
fn clpmdinit_blanks_its_own_cluster_partition_only() {
    let lab = lab();
    let done = lab.run("clpmdinit --create force md1 --server server2");
    assert_eq!(code(&done), 0, "{}", err(&done));
    assert!(lab.blank("md1-server2-cp"));
    for other in ["md1-server2-data", "md1-server1-cp", "md2-server2-cp"] {
        assert!(!lab.blank(other), "{other}");
    }
    assert!(out(&done).contains("Next: "));
    assert_eq!(code(&lab.run("clpmdinit --create force md9 --server server2")), 77);
    assert_eq!(code(&lab.run("clpmdinit md1 --server server2")), 2);
    assert_eq!(code(&lab.run("clpmdinit --create gently md1 --server server2")), 2);
    assert_eq!(code(&lab.run("clpmdinit --create force md1")), 4, "which server is this?");
    fs::remove_file(lab.dir.path().join("md1-server2-cp")).expect("remove");
    assert_eq!(code(&lab.run("clpmdinit --create force md1 --server server2")), 82);
}

/// A cluster partition that is somebody's data under another name is not touched.
#[test]
fn data_under_another_name_is_not_overwritten() {
    let lab = lab();
    let cp = lab.dir.path().join("md1-server1-cp");
    fs::remove_file(&cp).expect("remove");
    std::os::unix::fs::symlink(lab.dir.path().join("md2-server1-data"), &cp).expect("link");
    let line = format!("clpmdchng --execute {} --server server1", cp.display());
    for line in ["clpmdinit --create force md1 --server server1", line.as_str()] {
        let refused = lab.run(line);
        assert_eq!(code(&refused), 4);
        assert!(err(&refused).contains("the same partition as"), "{}", err(&refused));
    }
    assert!(!lab.blank("md2-server1-data"));
}

/// Without a terminal, only what changes is written, and nothing of a terminal's codes.
#[test]
fn watching_shows_what_changes() {
    let lab = lab();
    let (fake, _runtime) = with_agent(&lab);
    let mut child = Command::new(bin("clpmdstat"))
        .args(["-m", "md1", "--watch", "--config"])
        .arg(&lab.config)
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut lines = BufReader::new(child.stdout.take().expect("output")).lines();
    let mut next = |word: &str| {
        let seen: Vec<_> =
            lines.by_ref().map(|l| l.expect("a line")).take_while(|l| !l.contains(word)).collect();
        assert!(seen.iter().all(|l| !l.contains('\x1b')), "{seen:?}");
        seen.iter().filter(|l| l.contains("Mirror Status")).count()
    };
    assert_eq!(next("Mirror Status: Normal"), 0);
    *fake.broke.lock().expect("lock") = Some(1);
    assert_eq!(next("Mirror Status: Abnormal"), 0, "the same state is not repeated");
    child.kill().expect("ended");
    child.wait().expect("gone");
}

#[test]
fn clpmdchng_blanks_what_lies_on_the_disk() {
    let lab = lab();
    let disk = lab.dir.path().join("md2-server1-cp");
    for program in ["clpmdchng", "clpmdchnng"] {
        fs::write(&disk, vec![0x5a; BLANK]).expect("partition");
        let done = lab.run(&format!("{program} --execute {} --server server1", disk.display()));
        assert_eq!(code(&done), 0, "{}", err(&done));
        assert!(lab.blank("md2-server1-cp") && !lab.blank("md1-server1-cp"));
        assert!(out(&done).contains("clpmdctrl --recovery md2"), "{}", out(&done));
    }
    let none = lab.run("clpmdchng --execute /dev/null --server server1");
    assert_eq!(code(&none), 77, "{}", err(&none));
    assert_eq!(code(&lab.run("clpmdchng --execute /nonexistent --server server1")), 2);
}

/// A new disk is one for which the server may be reset again.
#[test]
fn a_new_disk_takes_the_mark_of_a_reset_away() {
    let lab = lab();
    let mark = |md| ResetMark::of(&lab.dir.path().join("log"), md);
    for line in [
        format!(
            "clpmdchng --execute {} --server server1",
            lab.dir.path().join("md1-server1-cp").display()
        ),
        "clpmdinit --create force md1 --server server1".to_owned(),
    ] {
        for md in ["md1", "md2"] {
            let _ = mark(md).set("its disk failed");
        }
        assert_eq!(mark("md1").set(""), Marked::Before);
        assert_eq!(code(&lab.run(&line)), 0, "{line}");
        assert_eq!(mark("md1").set(""), Marked::New, "{line}");
        assert_eq!(mark("md2").set(""), Marked::Before, "not on that disk");
    }
}

#[test]
fn they_and_the_agent_exclude_each_other() {
    let lab = lab();
    let run = lab.dir.path().join("run");
    for role in [Role::Agent, Role::Init, Role::Chng] {
        let held = Lock::take(&run, role).expect("free");
        let init = lab.run("clpmdinit --create force md1 --server server1");
        assert_eq!(code(&init), 89);
        assert!(err(&init).contains(&role.to_string()), "{}", err(&init));
        let disk = lab.dir.path().join("md1-server1-cp");
        let chng = lab.run(&format!("clpmdchng --execute {} --server server1", disk.display()));
        assert_eq!(code(&chng), 89);
        drop(held);
    }
    assert!(!lab.blank("md1-server1-cp"));
}

/// One look: the code and the text of the table, for every state.
#[test]
fn the_monitors_end_with_the_codes_and_texts_of_the_manual() {
    fn local(state: &mut Monitored) -> &mut MirrorStatus {
        &mut state.report.as_mut().expect("a state").status
    }
    fn colors(state: &mut Monitored, colors: [Color; 2]) {
        for (side, color) in local(state).sides.iter_mut().zip(colors) {
            side.color = color;
        }
    }
    let lab = lab();
    let (fake, _runtime) = with_agent(&lab);
    type Case = (&'static str, fn(&mut Monitored), i32, &'static str);
    let cases: [Case; 14] = [
        ("disk", |_| (), 0, "Normal."),
        ("disk", |s| s.peer = PeerDriver::Unknown, 51, "Remote driver status is unknown."),
        ("disk", |s| s.peer = PeerDriver::Abnormal, 52, "Remote driver is abnormal."),
        ("disk", |s| s.report = None, 53, "Local driver is abnormal."),
        (
            "disk",
            |s| (s.report, s.peer) = (None, PeerDriver::Abnormal),
            54,
            "Both drivers are abnormal.",
        ),
        (
            "disk",
            |s| local(s).phase = Phase::NoConstruction,
            58,
            "Local mirror disk status is unknown or not constructed.(md1)",
        ),
        (
            "disk",
            |s| colors(s, [Color::Red, Color::Green]),
            63,
            "Local mirror disk is abnormal. (md1)",
        ),
        (
            "disk",
            |s| colors(s, [Color::Green, Color::Red]),
            64,
            "Remote mirror disk is abnormal.(md1)",
        ),
        (
            "disk",
            |s| colors(s, [Color::Red, Color::Red]),
            65,
            "Both mirror disks are abnormal.(md1)",
        ),
        (
            "disk",
            |s| local(s).both_active = true,
            66,
            "Mirror disk was activated on both servers.(md1)",
        ),
        ("disk", |s| local(s).phase = Phase::Recovering, 100, "The recovery is in progress. (md1)"),
        ("connect", |_| (), 0, "Normal."),
        ("connect", |s| local(s).link = LinkStatus::Down, 31, "Network was interrupted"),
        (
            "connect",
            |s| s.report = None,
            30,
            "Internal error[status=the local driver does not run]",
        ),
    ];
    for (monitor, change, want, text) in cases {
        *fake.change.lock().expect("lock") = change;
        let looked = lab.run(&format!("clpmdmon --{monitor} md1"));
        assert_eq!((code(&looked), out(&looked).as_str()), (want, format!("{text}\n").as_str()));
        let json = lab.run(&format!("clpmdmon --{monitor} md1 --json"));
        assert_eq!(code(&json), want);
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("an object");
        assert_eq!((json["code"].as_i64(), json["text"].as_str()), (Some(want.into()), Some(text)));
    }
}

#[test]
fn the_monitors_say_what_keeps_them_from_looking() {
    let lab = lab();
    for monitor in ["disk", "connect"] {
        let look = |line: &str| {
            let looked = lab.run(&format!("clpmdmon {line}"));
            (code(&looked), out(&looked))
        };
        let said = |code, text: &str| (code, format!("{text}\n"));
        let no_agent = said(1, "Need to start mirror agent at first.");
        assert_eq!(look(&format!("--{monitor} md1")), no_agent);
        assert_eq!(look(&format!("--{monitor} md7")), said(5, "Monitor config error.(md7)"));
        let invalid = said(2, "Options or parameters are invalid.");
        assert_eq!(look(&format!("--{monitor}")), invalid);
        assert_eq!(look(&format!("--{monitor} md1 --surprise")), invalid);
        assert_eq!(look("--disk md1 --connect md1"), invalid, "one exit code for two");
        let absent = Command::new(bin("clpmdmon"))
            .args([&format!("--{monitor}"), "md1", "--config", "/no/such/file"])
            .output()
            .expect("runs");
        let text = "Getting of config was failed.\n".to_owned();
        assert_eq!((code(&absent), out(&absent)), (4, text));
    }
    // An agent that takes the connection and never answers.
    let _silent = std::os::unix::net::UnixListener::bind(lab.dir.path().join("run/ctl.sock"))
        .expect("the socket");
    let begun = std::time::Instant::now();
    let hung = lab.run("clpmdmon --disk md1 --timeout 1");
    assert_eq!(code(&hung), 30);
    assert!(out(&hung).starts_with("Internal error[status="), "{}", out(&hung));
    assert!(begun.elapsed().as_secs() < 20, "it gives up");
}

/// It stays up, also while the agent is away, and writes a line for each change only.
#[test]
fn a_monitor_that_stays_up_tells_each_change_once() {
    let lab = lab();
    let mut child = Command::new(bin("clpmdmon"))
        .args(["--disk", "md1", "--connect", "md1", "--watch", "--json", "--config"])
        .arg(&lab.config)
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut lines = BufReader::new(child.stdout.take().expect("output")).lines();
    let mut next = || {
        let line = lines.next().expect("a line").expect("text");
        let json: serde_json::Value = serde_json::from_str(&line).expect("an object");
        (json["monitor"].as_str().expect("a monitor").to_owned(), json["code"].as_i64())
    };
    let both = |code| [("mdw".to_owned(), Some(code)), ("mdnw".to_owned(), Some(code))];
    assert_eq!([next(), next()], both(1), "without an agent");
    let (fake, runtime) = with_agent(&lab);
    assert_eq!([next(), next()], both(0), "with one");
    *fake.change.lock().expect("lock") = |s| {
        s.report.as_mut().expect("a state").status.link = LinkStatus::Down;
    };
    assert_eq!(next(), ("mdnw".to_owned(), Some(31)), "only what has changed");
    drop(runtime);
    fs::remove_file(lab.dir.path().join("run/ctl.sock")).ok();
    assert_eq!([next(), next()], both(1), "gone again");
    child.kill().expect("ends");
    child.wait().expect("ended");
}

/// Whoever was too slow is told how many lines are missing, and how things stand then.
#[test]
fn a_follower_that_missed_something_is_told_and_looks_again() {
    let lab = lab();
    let (_fake, _runtime) = with_agent(&lab);
    let mut child = Command::new(bin("clpmdstat"))
        .args(["--events", "md1", "--json", "--config"])
        .arg(&lab.config)
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let lines = BufReader::new(child.stdout.take().expect("output")).lines();
    let told: Vec<_> = lines
        .take(6)
        .map(|line| {
            let json: serde_json::Value =
                serde_json::from_str(&line.expect("text")).expect("an object");
            (json["event"].as_str().expect("an event").to_owned(), json["seq"].as_u64())
        })
        .collect();
    child.kill().expect("ends");
    child.wait().expect("ended");
    let of = |event: &str, seq| (event.to_owned(), seq);
    assert_eq!(
        told,
        [
            of("now", Some(0)),
            of("lost", None),
            of("broke", Some(3)),
            of("now", Some(0)),
            of("note", Some(4)),
            of("note", Some(5)),
        ]
    );
}

#[test]
fn messages_are_explained_by_name_and_by_text() {
    let run = |args: &[&str]| Command::new(bin("clpmdmsg")).args(args).output().expect("runs");
    let one = out(&run(&["mdadmn-5"]));
    assert!(one.starts_with("mdadmn 5 (error)\n  Building of switch mirror disk"), "{one}");
    for part in ["\nMeaning: ", "\nRemedy:  ", "\nGoes to: alert log, syslog, mail\n"] {
        assert!(one.contains(part), "{one}");
    }
    assert_eq!(out(&run(&["mdadmn:5"])), one);
    assert_eq!(out(&run(&["mdadmn", "5"])), one);
    let line = "CLUSTERPRO: <type: liscal> NMP1 open I/O port OK";
    assert!(out(&run(&[line])).starts_with("liscal 80 (information)\n"));
    assert!(out(&run(&["last activated on mars"])).is_empty());
    let absent = run(&["mdadmn-999"]);
    assert_eq!(code(&absent), 2);
    assert!(err(&absent).contains("Next: clpmdmsg --list"), "{}", err(&absent));
    let list = out(&run(&["--list"]));
    assert!(list.lines().count() > 180 && list.contains("md-81"), "{list}");
    let json: serde_json::Value =
        serde_json::from_slice(&run(&["mdw", "--json"]).stdout).expect("an array");
    assert_eq!(json.as_array().map(Vec::len), Some(15));
    assert_eq!(json[0]["remedy"].as_str().map(str::is_empty), Some(false));
    assert_eq!(code(&run(&["--help"])), 0);
}

/// The text of the manual for wrong options stands before what is wrong with them.
#[test]
fn wrong_options_are_said_with_the_text_of_the_manual() {
    let lab = lab();
    for line in ["clpmdctrl --active", "clpmdstat --surprise", "clpmdinit md1", "clpmdchng"] {
        let wrong = lab.run(line);
        assert_eq!(code(&wrong), 2, "{line}");
        let said = err(&wrong);
        assert!(said.starts_with("Options or parameters are invalid.\nerror: "), "{line}: {said}");
    }
}

#[test]
fn ways_to_look_exclude_each_other() {
    let lab = lab();
    for line in [
        "clpmdstat --perf md1 --watch",
        "clpmdstat --perf --events",
        "clpmdstat --interval 5",
        "clpmdstat --connect md1 --json",
        "clpmdstat --detail md1 --active md1",
        "clpmdstat --perf md1 --interval 0",
    ] {
        let o = lab.run(line);
        assert_eq!(code(&o), 2, "{line}: {}", err(&o));
    }
    assert_eq!(
        code(&lab.run("clpmdstat --events")),
        1,
        "without an agent there is nothing to follow"
    );
}

#[test]
fn a_secret_is_made_where_the_configuration_says_and_never_printed() {
    let lab = lab();
    let file = lab.dir.path().join("secret");
    let text = fs::read_to_string(&lab.config).expect("configuration");
    let with =
        text.replace("[agent]\n", &format!("[agent]\nsecret_file = \"{}\"\n", file.display()));
    fs::write(&lab.config, with).expect("configuration");
    let made = lab.run("clpmdsecret");
    assert_eq!(code(&made), 0, "{}", err(&made));
    let secret = fs::read_to_string(&file).expect("there");
    let again = lab.run("clpmdsecret");
    assert_eq!(code(&again), 89);
    assert!(err(&again).contains("--force"), "{}", err(&again));
    assert_eq!(fs::read_to_string(&file).expect("there"), secret);
    let said = [out(&made), err(&made), out(&again), err(&again)].concat();
    assert!(said.contains(&format!("{} is made", file.display())), "{said}");
    assert!(!said.contains(secret.trim()), "{said}");
}
