//! What goes on by itself: events of the drivers, telling the peer that it is behind, the other
//! agent's view, activation at start, and what follows the first construction.

use super::managed::{How, Managed};
use super::parts::DriverEvent;
use super::peer_view::{PeerView, Said};
use super::{Agent, changes, emergency, measure};
use crate::messages::{Event, driver, events_of, later};
use crate::peer::{PeerAnswer, PeerRequest};
use mirror_core::command::Command;
use mirror_core::io::Notice;
use mirror_core::status::{Color, CopyKind, LinkStatus, MirrorStatus, Phase};
use mirror_core::units::{SessionNo, Side};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

/// Pause between two looks at a mirror, or two attempts to tell the peer something.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts everything that goes on by itself for one mirror; it ends when `tasks` is dropped.
pub(super) async fn start(
    agent: &Arc<Agent>,
    mirror: &Arc<Managed>,
    events: mpsc::Receiver<DriverEvent>,
    tasks: &mut JoinSet<()>,
) {
    tasks.spawn(driver_events(Arc::clone(agent), Arc::clone(mirror), events));
    tasks.spawn(watch_peer(Arc::clone(agent), Arc::clone(mirror)));
    tasks.spawn(changes::watch(Arc::clone(&agent.changes), Arc::clone(mirror)));
    tasks.spawn(measure::measure(Arc::clone(agent), Arc::clone(mirror)));
    // The first look is now: a construction that is still to come must not be missed.
    let named = mirror.settings().activate_at_start == Some(agent.config.side);
    if named && look(mirror).await != AtStart::Leave {
        tasks.spawn(activate_at_start(Arc::clone(agent), Arc::clone(mirror)));
    }
}

async fn driver_events(
    agent: Arc<Agent>,
    mirror: Arc<Managed>,
    mut events: mpsc::Receiver<DriverEvent>,
) {
    // Dropped with this task, and its tasks with it.
    let mut own = JoinSet::new();
    let mut telling: Option<AbortHandle> = None;
    let mut giving_way: Option<AbortHandle> = None;
    while let Some(event) = events.recv().await {
        while own.try_join_next().is_some() {}
        match event {
            DriverEvent::Notice(notice) => {
                mirror.history.hear(&notice);
                for e in events_of(&notice, mirror.config.nmp, &mirror.device) {
                    agent.events.log(e);
                }
                if let Notice::ErrorRecorded { durable } = notice {
                    let (agent, mirror) = (Arc::clone(&agent), Arc::clone(&mirror));
                    own.spawn(emergency::disk_error(agent, mirror, durable));
                }
                let gives_way = giving_way.as_ref().is_some_and(|task| !task.is_finished());
                if notice == Notice::BothActive && !gives_way {
                    let task = emergency::both_active(Arc::clone(&agent), Arc::clone(&mirror));
                    giving_way = Some(own.spawn(task));
                }
                if let Notice::RecoveryFinished { source: true, .. } = notice {
                    mirror.copy_ended();
                }
                if let Notice::RecoveryFinished { kind: CopyKind::Initial, source } = notice {
                    own.spawn(after_construction(Arc::clone(&agent), Arc::clone(&mirror), source));
                }
            }
            DriverEvent::DeviceFailed => {
                let what = "the device fails all requests since then";
                mirror.history.happened("device-failed", what, None);
                agent.events.log(Event::driver(driver::FAILED, mirror.config.nmp, &[]));
                let failed = Arc::clone(&mirror);
                own.spawn(async move {
                    let what = if failed.device_failed().await {
                        "clpmdstat --mirror"
                    } else {
                        "clpmdctrl --deactive"
                    };
                    tracing::error!("Next: {what} {}", failed.config.name);
                });
            }
            DriverEvent::Grown(size) => {
                let mirror = Arc::clone(&mirror);
                own.spawn(async move { drop(mirror.grow_device(size).await) });
            }
            DriverEvent::FrontEnd(what) => {
                agent.events.log(Event::driver(driver::FRONT_END, mirror.config.nmp, &[&what]));
            }
            DriverEvent::Ended(why) => {
                agent.events.log(Event::driver(driver::ENDED, mirror.config.nmp, &[&why]));
                tracing::error!("Next: systemctl start clusterpro_md");
                agent.died.notify_one();
            }
            DriverEvent::TellPeerBehind(session) => {
                if let Some(older) = telling.take() {
                    older.abort();
                }
                let task = tell_behind(Arc::clone(&agent), Arc::clone(&mirror), session);
                telling = Some(own.spawn(task));
            }
        }
    }
}

/// Tells the peer until it has confirmed, or a session shows that it need not know. That session
/// may have the number that the peer is told of, if it was only offered until then; telling it
/// once more would end it.
async fn tell_behind(agent: Arc<Agent>, mirror: Arc<Managed>, session: SessionNo) {
    let mut said = String::new();
    loop {
        let request = PeerRequest::TellBehind { mirror: mirror.config.name.clone(), session };
        match agent.peer.ask(request).await {
            Ok(PeerAnswer::Behind { session: s }) if s == session => {
                let confirmed = Command::PeerConfirmedBehind { session };
                if let Err(refusal) = mirror.driver.command(confirmed).await {
                    tracing::info!("{}: confirmation not needed: {refusal}", mirror.config.name);
                }
                return;
            }
            Ok(other) => {
                let why = format!("{other:?}");
                if why != said {
                    tracing::warn!("{}: not confirmed: {why}", mirror.config.name);
                }
                said = why;
            }
            Err(e) => tracing::debug!("{}: {e}", mirror.config.name),
        }
        sleep(PAUSE).await;
        if mirror.in_session().await {
            return;
        }
    }
}

/// Keeps what the other agent says of the mirror while there is no session.
async fn watch_peer(agent: Arc<Agent>, mirror: Arc<Managed>) {
    loop {
        if mirror.in_session().await {
            mirror.peer.forget();
        } else {
            mirror.peer.asking();
            mirror.peer.set(ask_for_view(&agent, &mirror.config.name).await);
        }
        sleep(PAUSE).await;
    }
}

async fn ask_for_view(agent: &Agent, mirror: &str) -> Said {
    match agent.peer.ask(PeerRequest::Report { mirror: mirror.to_owned() }).await {
        Ok(PeerAnswer::Report(theirs)) => Said::Report(theirs),
        Ok(_) => Said::Abnormal,
        Err(_) => Said::Nothing,
    }
}

/// Keeps what the other agent says of a mirror that could not be opened here, for the monitors.
pub(super) async fn watch_peer_of_broken(agent: Arc<Agent>, name: String, view: Arc<PeerView>) {
    loop {
        view.set(ask_for_view(&agent, &name).await);
        sleep(PAUSE).await;
    }
}

/// What [`activate_at_start`] makes of a state.
#[derive(PartialEq, Eq, Debug)]
enum AtStart {
    Wait,
    Activate,
    /// Not its business any more.
    Leave,
}

async fn look(mirror: &Managed) -> AtStart {
    mirror.status().await.map_or(AtStart::Wait, |s| at_start(&s))
}

fn at_start(s: &MirrorStatus) -> AtStart {
    let (local, peer) = (s.local.min(1), 1 - s.local.min(1));
    if s.phase == Phase::NoConstruction || s.constructing {
        return AtStart::Leave; // what follows the construction activates
    }
    if s.sides.iter().any(|side| side.active == Some(true)) {
        return AtStart::Leave;
    }
    let settled = s.phase == Phase::Normal && s.link == LinkStatus::Session;
    let idle = s.sides[peer].active == Some(false) && s.sides[local].color == Color::Green;
    if settled && idle { AtStart::Activate } else { AtStart::Wait }
}

/// Activates once, when in contact with an inactive, settled peer that is not newer. Whoever
/// activates the mirror before, on either side, ends this.
async fn activate_at_start(agent: Arc<Agent>, mirror: Arc<Managed>) {
    loop {
        match look(&mirror).await {
            AtStart::Leave => return,
            AtStart::Activate => return activate(&agent, &mirror, How::default()).await,
            AtStart::Wait => sleep(PAUSE).await,
        }
    }
}

async fn activate(agent: &Agent, mirror: &Managed, how: How) {
    match agent.activate_unasked(mirror, how).await {
        Ok(text) => tracing::info!("{text}"),
        Err(r) => tracing::error!("{} Next: {}", r.message, r.next),
    }
}

/// After the first construction: the named server activates, and makes the file system first if
/// the configuration says so. With no server named, the source makes it and closes the device
/// again, and the next command is said.
async fn after_construction(agent: Arc<Agent>, mirror: Arc<Managed>, source: bool) {
    let make_fs = mirror.settings().initial_mkfs;
    if source && !make_fs && mirror.has_fs() {
        agent.events.log(Event::later(later::MKFS_LEFT_OUT, &[]));
    }
    match mirror.settings().activate_at_start {
        Some(side) if side == agent.config.side => {
            activate(&agent, &mirror, How { make_fs, ..How::default() }).await;
        }
        Some(_) => {}
        None if source && make_fs => {
            let how = How { make_fs, nomount: true, ..How::default() };
            match agent.make_first_fs(&mirror, how).await {
                Ok(_) => say_next(&agent, &mirror),
                Err(r) => tracing::error!("{} Next: {}", r.message, r.next),
            }
        }
        None if source => say_next(&agent, &mirror),
        None => {}
    }
}

fn say_next(agent: &Agent, mirror: &Managed) {
    let name = &mirror.config.name;
    let server = &agent.config.servers[Side::First.index()].name;
    tracing::info!(
        "{name} is constructed. Next, on the server that is to use it ({server}): clpmdctrl --active {name}"
    );
}

#[cfg(test)]
mod tests {
    use super::{AtStart, at_start};
    use crate::agent::tests::fakes::status;
    use mirror_core::status::{Color, LinkStatus, Phase};

    #[test]
    fn at_start_only_a_settled_pair_is_activated() {
        assert_eq!(at_start(&status(0)), AtStart::Activate);
        let changed = |change: &dyn Fn(&mut mirror_core::status::MirrorStatus)| {
            let mut s = status(0);
            change(&mut s);
            at_start(&s)
        };
        assert_eq!(changed(&|s| s.link = LinkStatus::Down), AtStart::Wait);
        assert_eq!(changed(&|s| s.link = LinkStatus::Parked), AtStart::Wait);
        assert_eq!(changed(&|s| s.phase = Phase::Abnormal), AtStart::Wait);
        assert_eq!(changed(&|s| s.phase = Phase::Recovering), AtStart::Wait);
        assert_eq!(changed(&|s| s.sides[0].color = Color::Red), AtStart::Wait);
        assert_eq!(changed(&|s| s.sides[1].active = None), AtStart::Wait);
        assert_eq!(changed(&|s| s.sides[1].active = Some(true)), AtStart::Leave);
        assert_eq!(changed(&|s| s.sides[0].active = Some(true)), AtStart::Leave);
        assert_eq!(changed(&|s| s.phase = Phase::NoConstruction), AtStart::Leave);
        assert_eq!(changed(&|s| s.constructing = true), AtStart::Leave);
    }
}
