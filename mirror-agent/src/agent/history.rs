//! What happened to a mirror lately, in plain words, for `clpmdstat --explain`.

use crate::ctl::Past;
use jiff::Timestamp;
use mirror_core::io::Notice;
use mirror_core::status::CopyKind;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Steps that are kept.
const KEPT: usize = 24;
/// Steps that may wait for those who follow them; of more only their number is told.
const NEWS: usize = 64;

/// Kind of the step with which a growth is complete; what was added is copied after it.
pub(super) const GROWN: &str = "grown";
/// Kind of the step with which a growth waits for the other server.
pub(super) const GROWS_LATER: &str = "grows-later";

/// A step under the name of its kind.
pub(super) type News = (&'static str, Past);

/// What waits for those who follow.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The first [`NEWS`] steps.
    pub(super) news: Vec<News>,
    /// How many came after them.
    pub(super) lost: u64,
}

/// The last steps of one mirror, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    steps: Mutex<VecDeque<Past>>,
    waiting: Mutex<Waiting>,
    heard: Notify,
}

impl History {
    /// Adds a step that has no kind of its own; the same one again is counted with the first.
    pub(super) fn note(&self, what: impl Into<String>, rule: Option<&str>) {
        self.happened("note", what, rule);
    }

    /// Adds a step of this kind; the same one again is counted with the first.
    pub(super) fn happened(&self, kind: &'static str, what: impl Into<String>, rule: Option<&str>) {
        let step = Past {
            kind: kind.to_owned(),
            at: Timestamp::now().as_second(),
            what: what.into(),
            rule: rule.map(str::to_owned),
            times: 1,
        };
        self.tell(kind, step.clone());
        // A panic while it was held leaves a whole value behind.
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match steps.back_mut() {
            Some(last) if last.what == step.what && last.rule == step.rule => {
                last.times = last.times.saturating_add(1);
                last.at = step.at;
            }
            _ => steps.push_back(step),
        }
        while steps.len() > KEPT {
            steps.pop_front();
        }
    }

    /// Adds what the driver says.
    pub(super) fn hear(&self, notice: &Notice) {
        let (what, rule) = in_words(notice);
        self.happened(kind_of_notice(notice), what, rule);
    }

    fn tell(&self, kind: &'static str, step: Past) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.news.len() < NEWS {
            waiting.news.push((kind, step));
        } else {
            waiting.lost += 1;
        }
        drop(waiting);
        self.heard.notify_one();
    }

    /// Ready when something has happened since [`History::take_news`]. For one who waits.
    pub(super) async fn news(&self) {
        self.heard.notified().await;
    }

    /// What has happened since the last call.
    pub(super) fn take_news(&self) -> Waiting {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn steps(&self) -> Vec<Past> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

fn in_words(notice: &Notice) -> (String, Option<&str>) {
    match notice {
        Notice::Broke => {
            ("this server went on alone; the other counts as old from then on".into(), None)
        }
        Notice::LinkLost(why) => (format!("contact was lost: {why}"), None),
        Notice::SessionOpened { verdict } => ("contact, and mirroring".into(), Some(verdict)),
        Notice::Parked { verdict } => ("contact, but no mirroring".into(), Some(verdict)),
        Notice::RecoveryStarted { kind, source, .. } => {
            (format!("{} {} began", kind_of(*kind), direction(*source)), None)
        }
        Notice::RecoveryFinished { kind, source } => {
            (format!("{} {} was completed", kind_of(*kind), direction(*source)), None)
        }
        Notice::RecoveryAborted { kind, source, reason } => {
            (format!("{} {} ended early: {reason}", kind_of(*kind), direction(*source)), None)
        }
        Notice::Resumed => ("a new agent took over the device of its predecessor".into(), None),
        Notice::NotResumed { why } => {
            (format!("the predecessor's device was not taken over: {why}"), None)
        }
        Notice::DiskError { cluster_partition, what, offset } => {
            let which = if *cluster_partition { "cluster" } else { "data" };
            (format!("the {which} partition failed a {what} at byte {offset}"), None)
        }
        Notice::Detached => {
            ("this server goes on with the disk of the other, without its own".into(), None)
        }
        Notice::DetachedLost => {
            ("the disk of the other server, the only one left, is out of reach".into(), None)
        }
        Notice::ServesPeer => {
            ("the other server's disk failed; it goes on with the disk of this one".into(), None)
        }
        Notice::BadRecord(why) => (
            format!("the record of this side was not written, since it could not be read: {why}"),
            None,
        ),
        Notice::BothActive => ("both servers are active".into(), None),
        Notice::ErrorRecorded { durable: true } => ("the failure is on record".into(), None),
        Notice::ErrorRecorded { durable: false } => {
            ("the failure could not be recorded".into(), None)
        }
        Notice::Protocol(what) => {
            (format!("the other server did what it must not do: {what}"), None)
        }
    }
}

/// For programs that follow what happens.
const fn kind_of_notice(notice: &Notice) -> &'static str {
    match notice {
        Notice::Broke => "broke",
        Notice::LinkLost(_) => "link-lost",
        Notice::SessionOpened { .. } => "session-opened",
        Notice::Parked { .. } => "parked",
        Notice::RecoveryStarted { .. } => "recovery-started",
        Notice::RecoveryFinished { .. } => "recovery-finished",
        Notice::RecoveryAborted { .. } => "recovery-aborted",
        Notice::Resumed => "resumed",
        Notice::NotResumed { .. } => "not-resumed",
        Notice::DiskError { .. } => "disk-error",
        Notice::ErrorRecorded { .. } => "disk-error-recorded",
        Notice::BadRecord(_) => "bad-record",
        Notice::Detached => "detached",
        Notice::DetachedLost => "detached-lost",
        Notice::ServesPeer => "serves-peer",
        Notice::BothActive => "both-active",
        Notice::Protocol(_) => "protocol-error",
    }
}

const fn kind_of(kind: CopyKind) -> &'static str {
    match kind {
        CopyKind::Full => "a full copy",
        CopyKind::Difference => "a copy of the difference",
        CopyKind::Settle => "the comparison after a crash",
        CopyKind::Initial => "the first copy",
    }
}

const fn direction(source: bool) -> &'static str {
    if source { "to the other server" } else { "from the other server" }
}

#[cfg(test)]
mod tests {
    use super::{History, KEPT, NEWS, Waiting};
    use mirror_core::io::Notice;

    #[test]
    fn a_flapping_link_takes_two_lines_and_old_steps_go() {
        let history = History::default();
        for _ in 0..5 {
            history.hear(&Notice::LinkLost("silent".to_owned()));
        }
        history.hear(&Notice::SessionOpened { verdict: "in-sync" });
        let steps = history.steps();
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[0].times, steps[1].rule.as_deref()), (5, Some("in-sync")));
        for n in 0..100 {
            history.note(format!("step {n}"), None);
        }
        let steps = history.steps();
        assert_eq!(steps.len(), KEPT);
        assert_eq!(steps[KEPT - 1].what, "step 99");
        let Waiting { news, lost } = history.take_news();
        assert_eq!(news.len(), NEWS, "nobody follows, and no more is kept");
        assert_eq!((news[0].0, news[5].0, news[6].0), ("link-lost", "session-opened", "note"));
        assert_eq!(lost, 106 - NEWS as u64);
        let then = history.take_news();
        assert_eq!((then.news.len(), then.lost), (0, 0));
    }
}
