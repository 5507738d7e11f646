//! Requests of the tools and of the other agent, mapped to commands of the drivers.

use super::managed::{How, Managed};
use super::{Agent, Entry, changes, history, report};
use crate::config::{FileSystem, FrontEnd, MirrorConfig};
use crate::ctl::{Answer, Change, Changes, Refused, Request, Response, Service, Story};
use crate::messages::{Event, MdCode, Operation, later};
use crate::monitor::Monitored;
use crate::peer::{ASK_LIMIT, PeerAnswer, PeerError, PeerRequest, PeerService};
use mirror_core::command::{Command, Done};
use mirror_core::units::SessionNo;
use std::sync::Arc;
use std::time::Duration;

/// The agent as the tools see it.
pub(super) struct Control(pub(super) Arc<Agent>);

impl Service for Control {
    fn call(&self, request: Request) -> Answer<Response> {
        let agent = Arc::clone(&self.0);
        Box::pin(async move { agent.control(request).await.unwrap_or_else(Response::Refused) })
    }
}

/// The agent as the other agent sees it.
pub(super) struct FromPeer(pub(super) Arc<Agent>);

impl PeerService for FromPeer {
    fn call(&self, request: PeerRequest) -> Answer<PeerAnswer> {
        let agent = Arc::clone(&self.0);
        Box::pin(async move {
            agent.answer_peer(request).await.unwrap_or_else(|r| PeerAnswer::Refused(r.message))
        })
    }
}

/// The sentence for a command that was done.
fn sentence(done: Done, mirror: &str) -> String {
    let follow = format!("follow it with: clpmdstat --mirror {mirror} --watch");
    match done {
        Done::Activated => format!("{mirror} is active."),
        Done::Deactivated => format!("{mirror} is not active any more."),
        Done::RecoveryStarted => format!("The recovery of {mirror} has started; {follow}"),
        Done::NothingToRecover => format!("{mirror} has no difference to recover."),
        Done::RecoveryCancelled => {
            format!(
                "The recovery of {mirror} was stopped; what was copied stays copied. Until it is taken up again the other server cannot take over, though it gets all new writes: clpmdctrl --recovery {mirror}"
            )
        }
        Done::Separated => format!(
            "The servers of {mirror} are kept apart from now on, and the standby gets nothing more; to end it: clpmdctrl --recovery {mirror}"
        ),
        Done::Rejoining => format!(
            "The servers of {mirror} are not kept apart any more; what differs is recovered as soon as they are in contact: clpmdctrl --rwait {mirror}"
        ),
        Done::ForcedWithCopy => {
            format!(
                "This server's data is the latest of {mirror} now, and all of it is being copied; {follow}"
            )
        }
        Done::ForcedAlone => format!(
            "This server's data is the latest of {mirror} now; the other server's counts as old from now on."
        ),
        Done::Grown(size) => format!("{mirror} has {size} bytes now."),
        Done::Noted | Done::Stopped => format!("{mirror}: recorded."),
    }
}

/// What is left to do once the mirror has grown. `kept`: why the open device keeps its size, if it does.
fn after_growth(
    config: &MirrorConfig,
    device: &str,
    (active, kept): (bool, Option<&str>),
) -> String {
    let name = &config.name;
    let copied =
        "What was added is being copied; until that is over the other server is half copied.";
    let reopen = match (active, kept) {
        (false, _) => Some(format!("clpmdctrl --active {name}")),
        (true, None) => None,
        (true, Some(_)) if config.front_end == FrontEnd::NbdSocket => {
            Some("clients see the new size when they connect anew".to_owned())
        }
        (true, Some(why)) => Some(format!(
            "the open device keeps its size ({why}): clpmdctrl --deactive {name}, clpmdctrl --active {name}"
        )),
    };
    let fs = match config.fs {
        FileSystem::None => None,
        FileSystem::Xfs => {
            let point = config.mount.as_ref().map(|m| m.point.display().to_string());
            Some(format!("xfs_growfs {}", point.unwrap_or_default()))
        }
        _ => Some(format!("resize2fs {device}")),
    };
    let next: Vec<_> = [reopen, fs].into_iter().flatten().collect();
    match next.as_slice() {
        [] => format!("{copied} So is {device}: it has the new size."),
        next => format!("{copied} Next: {}", next.join(", then ")),
    }
}

fn no_mirror(name: &str) -> Refused {
    Refused {
        code: MdCode::NoMirror,
        message: MdCode::NoMirror.fill(&[name]),
        next: "clpmdstat -l".to_owned(),
    }
}

/// Ranges that are named in a story; an answer has room for them.
const RANGES: usize = 64;

impl Agent {
    /// What `clpmdstat --explain` tells. The other server is asked over the agents' link.
    async fn story(&self, mirror: &Managed) -> Result<Story, Refused> {
        let report = report::complete(mirror).await?;
        let request = PeerRequest::Marked { mirror: mirror.config.name.clone() };
        let theirs = match self.peer.ask(request).await {
            Ok(PeerAnswer::Marked(marked)) => Some(marked),
            _ => None,
        };
        let ours = mirror.driver.marked(RANGES).await;
        let marked = if mirror.local == 0 { [ours, theirs] } else { [theirs, ours] };
        Ok(Story { report, past: mirror.history.steps(), marked })
    }

    async fn control(&self, request: Request) -> Result<Response, Refused> {
        match request {
            Request::Ping => Ok(Response::Pong {
                server: self.config.local().name.clone(),
                agent: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            Request::List => {
                Ok(Response::List(self.entries().iter().map(|e| e.name().to_owned()).collect()))
            }
            Request::Status { mirror } => self.reports(mirror.as_deref()).await,
            Request::Explain { mirror } => {
                let story = self.story(self.managed(&mirror)?.as_ref()).await?;
                Ok(Response::Story(Box::new(story)))
            }
            Request::Monitor { mirror } => self.monitored(&mirror).await,
            Request::Figures { mirror, last } => self.figures(&mirror, last).await,
            Request::Events { mirror, from } => self.follow(mirror.as_deref(), from).await,
            Request::Activate { mirror, nomount, peer_down } => {
                let how = How { nomount, peer_down, ..How::default() };
                self.activate(self.managed(&mirror)?.as_ref(), how).await.map(Response::Done)
            }
            Request::Deactivate { mirror } => {
                self.managed(&mirror)?.deactivate().await.map(Response::Done)
            }
            Request::Recover { mirror } => {
                self.command(&mirror, Operation::Recover, Command::Recover).await
            }
            Request::Cancel { mirror } => {
                self.command(&mirror, Operation::Cancel, Command::CancelRecovery).await
            }
            Request::Separate { mirror } => {
                self.command(&mirror, Operation::Separate, Command::Separate).await
            }
            Request::Resize { mirror } => self.resize(&mirror).await,
            Request::PeerDown { mirror } => {
                self.command(&mirror, Operation::Activate, Command::PeerDown).await
            }
            Request::Force { server, mirror } => self.force(&server, &mirror).await,
            Request::Reload => self.reloads.ask().await.map(Response::Done),
        }
    }

    async fn command(&self, name: &str, op: Operation, c: Command) -> Result<Response, Refused> {
        let mirror = self.managed(name)?;
        let done = mirror.command(op, c).await?;
        if done == Done::Separated {
            mirror.events.log(Event::later(later::ISOLATED, &[&mirror.config.name]));
            let what = "an operator ordered the servers to be kept apart";
            mirror.history.happened("separated", what, None);
        }
        Ok(Response::Done(sentence(done, name)))
    }

    async fn resize(&self, name: &str) -> Result<Response, Refused> {
        let mirror = self.managed(name)?;
        let size = || async { mirror.status().await.map(|s| s.size) };
        let before = size().await;
        let done = match mirror.command(Operation::Resize, Command::Resize).await {
            Ok(done) => done,
            Err(refused) => {
                if size().await > before {
                    let what = "the mirror is larger on record here; the other server follows when they are in contact";
                    mirror.history.happened(history::GROWS_LATER, what, None);
                }
                return Err(refused);
            }
        };
        mirror.events.log(Event::later(later::EXTENDED, &[&mirror.device]));
        mirror.history.happened(history::GROWN, "the mirror has grown", None);
        let active = mirror.is_active().await == Some(true);
        let kept = match done {
            Done::Grown(size) => mirror.grow_device(size).await,
            _ => None,
        };
        let next = after_growth(&mirror.config, &mirror.device, (active, kept.as_deref()));
        Ok(Response::Done(format!("{} {next}", sentence(done, name))))
    }

    /// The mirror of this name, if it is there and could be opened.
    pub(super) fn managed(&self, name: &str) -> Result<Arc<Managed>, Refused> {
        match self.entry(name) {
            Some(Entry::Open(mirror)) => Ok(mirror),
            Some(Entry::Broken { name, error, .. }) => {
                Err(Refused::plain(error.code, format!("{name} could not be opened: {error}")))
            }
            None => Err(no_mirror(name)),
        }
    }

    async fn figures(&self, name: &str, last: bool) -> Result<Response, Refused> {
        let mirror = self.managed(name)?;
        let taken = if last { mirror.last_figures().await } else { mirror.figures().await };
        Ok(Response::Figures(Box::new(taken.ok_or_else(|| mirror.silent())?)))
    }

    /// What happened from number `from` on; without it, how things stand.
    async fn follow(&self, name: Option<&str>, from: Option<u64>) -> Result<Response, Refused> {
        if let Some(name) = name.filter(|n| self.entry(n).is_none()) {
            return Err(no_mirror(name));
        }
        let next = self.changes.next();
        let Some(from) = from.filter(|from| *from <= next) else {
            let changes = self.stand(name).await;
            return Ok(Response::Changes(Changes { next, lost: 0, changes }));
        };
        let Ok(_place) = self.followers.try_acquire() else {
            let what = "too many programs follow the events already";
            return Err(Refused::plain(MdCode::Failed, MdCode::Failed.fill(&[what])));
        };
        Ok(Response::Changes(self.changes.news(from, name).await))
    }

    async fn stand(&self, name: Option<&str>) -> Vec<Change> {
        let mut all = Vec::new();
        for entry in self.entries().iter().filter(|e| name.is_none_or(|n| e.name() == n)) {
            let Entry::Open(mirror) = entry else { continue };
            let state = mirror.status().await.as_ref().map(changes::state_of);
            all.push(mirror.change("now", "how it stands".to_owned(), state));
        }
        all
    }

    async fn monitored(&self, name: &str) -> Result<Response, Refused> {
        let state = match self.entry(name) {
            Some(Entry::Open(mirror)) => report::monitored(&mirror).await,
            Some(Entry::Broken { peer, .. }) => Monitored { report: None, peer: peer.driver() },
            None => return Err(no_mirror(name)),
        };
        Ok(Response::Monitor(Box::new(state)))
    }

    async fn reports(&self, name: Option<&str>) -> Result<Response, Refused> {
        if let Some(name) = name {
            return Ok(Response::Status(vec![
                report::complete(self.managed(name)?.as_ref()).await?,
            ]));
        }
        let mut all = Vec::new();
        for mirror in self.open_mirrors() {
            all.push(report::complete(&mirror).await?);
        }
        Ok(Response::Status(all))
    }

    /// What the other agent says about serving the mirror; not asked while the mirror connect
    /// works, which knows it better.
    pub(super) async fn peer_seen_active(&self, mirror: &Managed, limit: Duration) -> Option<bool> {
        if mirror.in_session().await {
            return None;
        }
        let request = PeerRequest::IsActive { mirror: mirror.config.name.clone() };
        match self.peer.ask_within(request, limit).await {
            Ok(PeerAnswer::Active(active)) => Some(active),
            _ => None,
        }
    }

    /// Routes `--force` to the server that is named.
    async fn force(&self, server: &str, name: &str) -> Result<Response, Refused> {
        if self.entry(name).is_none() {
            return Err(no_mirror(name));
        }
        match self.config.side_of(server) {
            Some(side) if side == self.config.side => {
                self.force_here(self.managed(name)?.as_ref()).await
            }
            Some(_) => self.force_there(server, name).await,
            None => {
                let [a, b] = &self.config.servers;
                let message =
                    format!("There is no server {server}; there are: {}, {}.", a.name, b.name);
                Err(Refused::plain(MdCode::BadOptions, message))
            }
        }
    }

    async fn force_here(&self, mirror: &Managed) -> Result<Response, Refused> {
        let peer_seen_active = self.peer_seen_active(mirror, ASK_LIMIT).await;
        let done = mirror.command(Operation::Force, Command::Force { peer_seen_active }).await?;
        let what = "an operator declared this server's data to be the latest";
        mirror.history.happened("forced", what, None);
        mirror.note_forced(done == Done::ForcedWithCopy);
        Ok(Response::Done(sentence(done, &mirror.config.name)))
    }

    async fn force_there(&self, server: &str, name: &str) -> Result<Response, Refused> {
        let local = &self.config.local().name;
        let failed =
            |message: String, next: String| Refused { code: MdCode::Failed, message, next };
        match self.peer.ask(PeerRequest::Force { mirror: name.to_owned() }).await {
            Ok(PeerAnswer::Outcome(Response::Done(text))) => {
                Ok(Response::Done(format!("{server}: {text}")))
            }
            Ok(PeerAnswer::Outcome(Response::Refused(r))) => {
                Err(Refused { message: format!("{server}: {}", r.message), ..r })
            }
            Ok(other) => Err(failed(
                format!("{server} answered something unexpected: {other:?}"),
                format!("clpmdstat --mirror {name}"),
            )),
            Err(PeerError::Unreachable(why)) => Err(failed(
                format!(
                    "{server} cannot be reached, so it cannot be declared the latest; nothing was done. ({why})"
                ),
                format!(
                    "start {server}; only if it is lost and {local} is to be the latest: clpmdctrl --force {local} {name}"
                ),
            )),
            Err(e @ PeerError::NoAnswer(_)) => Err(failed(
                format!("whether {name} was forced on {server} is not known: {e}"),
                format!("on {server}: clpmdstat --mirror {name}"),
            )),
        }
    }

    async fn answer_peer(&self, request: PeerRequest) -> Result<PeerAnswer, Refused> {
        match request {
            PeerRequest::Ping => Ok(PeerAnswer::Pong(self.config.local().name.clone())),
            PeerRequest::Report { mirror } => Ok(PeerAnswer::Report(Box::new(
                report::own(self.managed(&mirror)?.as_ref()).await?,
            ))),
            PeerRequest::Marked { mirror } => {
                let mirror = self.managed(&mirror)?;
                let marked = mirror.driver.marked(RANGES).await;
                marked.map(PeerAnswer::Marked).ok_or_else(|| mirror.silent())
            }
            // Who does not have it, serves it not: the other may remove it, too.
            PeerRequest::IsActive { mirror } if self.entry(&mirror).is_none() => {
                Ok(PeerAnswer::Active(false))
            }
            PeerRequest::IsActive { mirror } => {
                let mirror = self.managed(&mirror)?;
                let active = mirror.is_active().await;
                active.map(PeerAnswer::Active).ok_or_else(|| mirror.silent())
            }
            PeerRequest::Force { mirror } => {
                let outcome = match self.managed(&mirror) {
                    Ok(m) => self.force_here(&m).await,
                    Err(refused) => Err(refused),
                };
                Ok(PeerAnswer::Outcome(outcome.unwrap_or_else(Response::Refused)))
            }
            PeerRequest::TellBehind { mirror, session } => self.told_behind(&mirror, session).await,
        }
    }

    async fn told_behind(&self, name: &str, session: SessionNo) -> Result<PeerAnswer, Refused> {
        let command = Command::ToldBehind { session };
        match self.managed(name)?.driver.command(command).await {
            // Only what is durable is confirmed.
            Ok(Done::Noted) => Ok(PeerAnswer::Behind { session }),
            Ok(other) => Ok(PeerAnswer::Refused(format!("unexpected: {other:?}"))),
            Err(refusal) => Ok(PeerAnswer::Refused(refusal.to_string())),
        }
    }
}
