//! `clpmdstat --events`: one line for each change, until interrupted.
//!
//! An agent that goes is no end: it says so, waits for the next, and goes on with how things stand
//! then. What happens in between is in the log of events.

use crate::cli::Common;
use crate::layout::time;
use crate::out::Failure;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use mirror_agent::ctl::{Change, Changes, Client, ClientError, MirrorState, Request, Response};
use mirror_agent::messages::MdCode;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::time::Duration;

/// Pause between two attempts to reach an agent that is gone.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows what happens, to `mirror` or to all of them. It only ends when nobody reads any more.
///
/// # Errors
/// No agent runs when it begins, it refused, or the output failed.
pub fn run(
    common: &Common,
    client: Client,
    mirror: Option<&str>,
    as_json: bool,
) -> Result<(), Failure> {
    let mut client = client;
    loop {
        match follow(&mut client, mirror, as_json) {
            Err(Lost::Agent(e)) => own("agent-gone", &e.to_string(), as_json)?,
            Err(Lost::Other(failure)) => return Err(failure),
            Ok(never) => match never {},
        }
        client = loop {
            std::thread::sleep(PAUSE);
            // Also a configuration that is just being replaced is worth another look.
            if let Ok(client) = common.connect() {
                break client;
            }
        };
        own("agent-back", "the agent runs again", as_json)?;
    }
}

enum Lost {
    Agent(ClientError),
    Other(Failure),
}

impl From<Failure> for Lost {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

/// Follows one agent as long as it is there. Whoever was too slow is told how many lines are missing,
/// and how things stand.
fn follow(
    client: &mut Client,
    mirror: Option<&str>,
    as_json: bool,
) -> Result<std::convert::Infallible, Lost> {
    let mut from = None;
    loop {
        let told = next(client, mirror, from)?;
        if told.lost > 0 {
            let what = format!("{} changes were not told in time", told.lost);
            own("lost", &what, as_json)?;
        }
        for change in &told.changes {
            say(&line(change, as_json))?;
        }
        if told.lost > 0 {
            // What was missed may have been the last word of some mirror.
            for change in &next(client, mirror, None)?.changes {
                say(&line(change, as_json))?;
            }
        }
        from = Some(told.next);
    }
}

fn next(client: &mut Client, mirror: Option<&str>, from: Option<u64>) -> Result<Changes, Lost> {
    let request = Request::Events { mirror: mirror.map(str::to_owned), from };
    match client.ask(request, |_| {}).map_err(Lost::Agent)? {
        Response::Changes(changes) => Ok(changes),
        Response::Refused(refused) => Err(Lost::Other(Failure::Md(refused))),
        Response::Error(what) => {
            let what = MdCode::Internal.fill(&[&what]);
            Err(Lost::Other(Failure::new(MdCode::Internal, what)))
        }
        _ => Err(Lost::Other(crate::cli::unexpected())),
    }
}

/// Something about the stream itself.
fn own(event: &str, what: &str, as_json: bool) -> Result<(), Failure> {
    let at = Timestamp::now();
    say(&if as_json {
        json!({ "time": at.to_string(), "event": event, "text": what }).to_string()
    } else {
        format!("{} - {event}: {what}", time(Some(at.as_second()), &TimeZone::system()))
    })
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// One change, without its newline.
#[must_use]
pub fn line(change: &Change, as_json: bool) -> String {
    if as_json { json_of(change).to_string() } else { text_of(change, &TimeZone::system()) }
}

fn json_of(change: &Change) -> Value {
    let at = Timestamp::from_second(change.at).unwrap_or(Timestamp::UNIX_EPOCH);
    json!({
        "time": at.to_string(),
        "seq": change.seq,
        "server": change.server,
        "mirror": change.mirror,
        "event": change.event,
        "text": change.text,
        "rule": change.rule,
        "state": change.state,
    })
}

fn text_of(change: &Change, zone: &TimeZone) -> String {
    let rule = change.rule.as_ref().map(|r| format!(" [{r}]")).unwrap_or_default();
    let state = change.state.as_ref().map_or_else(|| "no state".to_owned(), in_words);
    let Change { mirror, event, text, .. } = change;
    format!("{} {mirror} {event}: {text}{rule} ({state})", time(Some(change.at), zone))
}

/// The words are those of `--json`.
fn in_words(state: &MirrorState) -> String {
    let word = |v: Value| v.as_str().unwrap_or("--").to_owned();
    let active = |a: Option<bool>| match a {
        Some(true) => "active",
        Some(false) => "inactive",
        None => "--",
    };
    format!(
        "{}, link {}, {} {}, {} {}",
        word(json!(state.phase)),
        word(json!(state.link)),
        word(json!(state.colors[0])),
        word(json!(state.colors[1])),
        active(state.active[0]),
        active(state.active[1]),
    )
}

#[cfg(test)]
mod tests {
    use super::{json_of, text_of};
    use jiff::tz::TimeZone;
    use mirror_agent::ctl::{Change, MirrorState};
    use mirror_core::status::{Color, LinkStatus, Phase};

    fn change() -> Change {
        Change {
            seq: 4,
            at: 1_767_323_045,
            server: "server1".to_owned(),
            mirror: "md1".to_owned(),
            event: "link-lost".to_owned(),
            text: "contact was lost: silent".to_owned(),
            rule: Some("in-sync".to_owned()),
            state: Some(MirrorState {
                phase: Phase::Abnormal,
                link: LinkStatus::Down,
                colors: [Color::Green, Color::Gray],
                active: [Some(true), None],
                disk_error: [Some(false), None],
                verdict: None,
                separated: false,
                both_active: false,
                needs_force: false,
            }),
        }
    }

    #[test]
    fn a_change_is_one_line_with_the_state_that_it_led_to() {
        assert_eq!(
            text_of(&change(), &TimeZone::UTC),
            "2026/01/02 03:04:05 md1 link-lost: contact was lost: silent [in-sync] \
             (abnormal, link down, GREEN GRAY, active --)"
        );
        let json = json_of(&change());
        assert_eq!(json["time"], "2026-01-02T03:04:05Z");
        assert_eq!(json["event"], "link-lost");
        assert_eq!(json["state"]["colors"], serde_json::json!(["GREEN", "GRAY"]));
        assert!(!json.to_string().contains('\n'));
    }
}
