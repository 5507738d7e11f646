//! What happens to the mirrors, one after the other, for those who follow it
//! (`clpmdstat --events`).
//!
//! The last [`KEPT`] changes are kept; a follower asks for what came after the one that it has seen
//! last, and waits for a while if there is none. Whoever is too slow is told how many it missed.

use super::history::Waiting;
use super::managed::Managed;
use crate::ctl::{Change, Changes as Told, MirrorState};
use jiff::Timestamp;
use mirror_core::status::MirrorStatus;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Changes that are kept.
const KEPT: usize = 512;
/// Changes in one answer, which must not get too long.
const TOLD: usize = 64;
/// A follower is answered after this time, also if nothing has happened.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks at a mirror of which nothing is heard.
const LOOK: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Changes {
    ring: Mutex<Ring>,
    /// Number of the next change.
    next: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    next: u64,
    kept: VecDeque<Change>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { ring: Mutex::default(), next: watch::Sender::new(0) }
    }
}

impl Changes {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A panic while it was held leaves a whole value behind.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a change; its number is given here.
    pub(super) fn add(&self, change: Change) {
        let mut ring = self.ring();
        let seq = ring.next;
        ring.next += 1;
        ring.kept.push_back(Change { seq, ..change });
        while ring.kept.len() > KEPT {
            ring.kept.pop_front();
        }
        self.next.send_replace(ring.next);
    }

    /// Number of the next change.
    pub(super) fn next(&self) -> u64 {
        self.ring().next
    }

    /// The changes from number `from` on; of one mirror, if it is named. Waits for one if there is
    /// none yet.
    pub(super) async fn news(&self, from: u64, mirror: Option<&str>) -> Told {
        self.news_within(PATIENCE, from, mirror).await
    }

    async fn news_within(&self, patience: Duration, from: u64, mirror: Option<&str>) -> Told {
        let mut next = self.next.subscribe();
        // Without a change within the time, there is none to tell.
        let _ = timeout(patience, next.wait_for(|n| *n > from)).await;
        self.told(from, mirror)
    }

    fn told(&self, from: u64, mirror: Option<&str>) -> Told {
        let ring = self.ring();
        let oldest = ring.kept.front().map_or(ring.next, |c| c.seq);
        let lost = oldest.saturating_sub(from);
        let new: Vec<Change> =
            ring.kept.iter().filter(|c| c.seq >= from).take(TOLD).cloned().collect();
        let next = new.last().map_or(from.max(oldest), |c| c.seq + 1);
        let is_wanted = |c: &Change| mirror.is_none_or(|name| c.mirror == name);
        Told { next, lost, changes: new.into_iter().filter(is_wanted).collect() }
    }
}

/// The part of a state whose changes are told.
pub(super) fn state_of(s: &MirrorStatus) -> MirrorState {
    let [a, b] = &s.sides;
    MirrorState {
        phase: s.phase,
        link: s.link,
        colors: [a.color, b.color],
        active: [a.active, b.active],
        disk_error: [a.disk_error, b.disk_error],
        verdict: s.verdict.clone(),
        separated: s.separated,
        both_active: s.both_active,
        needs_force: s.needs_force,
    }
}

impl Managed {
    /// A change of this mirror, as of now.
    pub(super) fn change(&self, event: &str, text: String, state: Option<MirrorState>) -> Change {
        Change {
            seq: 0,
            at: Timestamp::now().as_second(),
            server: self.servers[self.local].clone(),
            mirror: self.config.name.clone(),
            event: event.to_owned(),
            text,
            rule: None,
            state,
        }
    }
}

/// Tells every change of a mirror, until it is dropped: what was heard of it with the state that it
/// led to, and the state alone when nothing was heard.
pub(super) async fn watch(changes: Arc<Changes>, mirror: Arc<Managed>) {
    let mut last = mirror.status().await.as_ref().map(state_of);
    loop {
        let _ = timeout(LOOK, mirror.history.news()).await; // both are a reason to look
        let state = mirror.status().await.as_ref().map(state_of);
        let Waiting { news, lost } = mirror.history.take_news();
        if news.is_empty() && state != last {
            let (event, text) = match &state {
                Some(_) => ("state", "the state has changed"),
                None => ("silent", "the driver does not answer"),
            };
            changes.add(mirror.change(event, text.to_owned(), state.clone()));
        }
        for (event, past) in news {
            let change = mirror.change(event, past.what, state.clone());
            changes.add(Change { at: past.at, rule: past.rule, ..change });
        }
        if lost > 0 {
            let what = format!("{lost} further changes came too fast to be told");
            changes.add(mirror.change("lost", what, state.clone()));
            changes.add(mirror.change("now", "how it stands".to_owned(), state.clone()));
        }
        last = state;
    }
}

#[cfg(test)]
mod tests {
    use super::{Changes, KEPT, TOLD};
    use crate::ctl::Change;

    fn change(mirror: &str, text: &str) -> Change {
        let [server, event] = ["a", "state"].map(str::to_owned);
        let (mirror, text) = (mirror.to_owned(), text.to_owned());
        Change { seq: 0, at: 0, server, mirror, event, text, rule: None, state: None }
    }

    #[tokio::test]
    async fn a_follower_gets_each_change_once_and_in_order() {
        let changes = Changes::default();
        for n in 0..TOLD + 3 {
            changes.add(change("md1", &n.to_string()));
        }
        let first = changes.news(0, None).await;
        assert_eq!((first.lost, first.next), (0, TOLD as u64));
        let then = changes.news(first.next, None).await;
        let texts: Vec<_> = first.changes.iter().chain(&then.changes).map(|c| &c.text).collect();
        assert_eq!(
            texts,
            (0..TOLD + 3).map(|n| n.to_string()).collect::<Vec<_>>().iter().collect::<Vec<_>>()
        );
        assert_eq!(then.next, changes.next());
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_how_much_it_missed() {
        let changes = Changes::default();
        for n in 0..KEPT + 10 {
            changes.add(change("md1", &n.to_string()));
        }
        let told = changes.news(4, None).await;
        assert_eq!((told.lost, told.changes[0].text.as_str()), (6, "10"));
    }

    #[tokio::test]
    async fn of_one_mirror_only_its_changes_are_told() {
        let changes = Changes::default();
        changes.add(change("md1", "one"));
        changes.add(change("md2", "two"));
        let told = changes.news(0, Some("md2")).await;
        assert_eq!(told.changes.iter().map(|c| c.text.as_str()).collect::<Vec<_>>(), ["two"]);
        assert_eq!(told.next, 2, "the others are passed over");
    }

    #[tokio::test]
    async fn a_follower_waits_for_a_change_but_not_for_ever() {
        let changes = std::sync::Arc::new(Changes::default());
        let none = changes.news_within(std::time::Duration::from_millis(5), 0, None).await;
        assert!(none.changes.is_empty() && none.next == 0);
        let waiting = {
            let changes = changes.clone();
            tokio::spawn(async move { changes.news(0, None).await })
        };
        tokio::task::yield_now().await;
        changes.add(change("md1", "at last"));
        assert_eq!(waiting.await.expect("ends").changes[0].text, "at last");
    }
}
