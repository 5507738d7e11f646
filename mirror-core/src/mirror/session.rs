//! The open session: both disks take the writes of the active side.

use super::copying::{Copying, kind_of};
use super::link::Link;
use super::target::Target;
use super::{Alone, Loss, Mirror};
use crate::bitmap::Bitmap;
use crate::buf::Buf;
use crate::direction::{Mode, Outcome, Verdict};
use crate::record::Card;
use crate::status::CopyKind;
use crate::units::{Extent, SessionNo};
use crate::wire::{Beat, Message};

/// What this side is in the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Nothing differs but what is in flight.
    Equal,
    /// Copied from.
    Source,
    /// Copied to.
    Target,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: SessionNo,
    pub(super) role: Role,
    pub(super) verdict: Verdict,
    pub(super) beat: Beat,
    pub(super) peer_active: bool,
    /// This side was uninterrupted when it showed its card.
    pub(super) was_uninterrupted: bool,
    pub(super) theirs: Card,
    /// Source: regions that the peer lacks.
    pub(super) dirty: Option<Bitmap>,
    pub(super) copying: Option<Copying>,
    pub(super) target: Option<Target>,
    /// The peer's disk has failed, and it works with this side's.
    pub(super) serves_detached: bool,
}

impl Session {
    pub(super) fn open(
        number: SessionNo,
        role: Role,
        verdict: Verdict,
        (mine, theirs): (&Card, Card),
        constructs: bool,
    ) -> Self {
        let mode = match verdict.outcome {
            Outcome::Copy { mode, .. } => mode,
            Outcome::InSync | Outcome::Refuse => Mode::Difference,
        };
        let kind = if constructs { CopyKind::Initial } else { kind_of(mode) };
        Self {
            number,
            role,
            verdict,
            beat: Beat { active: theirs.active, ..Beat::default() },
            peer_active: theirs.active,
            was_uninterrupted: mine.uninterrupted,
            theirs,
            dirty: None,
            copying: (role == Role::Source).then(|| Copying::new(mode, kind)),
            target: (role == Role::Target).then(|| Target::new(mode, kind)),
            serves_detached: false,
        }
    }

    /// The copy in this session settles a crash: its target stays or becomes whole soon.
    pub(super) fn is_settling(&self) -> bool {
        matches!(self.verdict.outcome, Outcome::Copy { mode: Mode::Settle { complete: true }, .. })
    }

    /// Writes may go to both disks: the target has recorded what it must.
    pub(super) fn is_open(&self) -> bool {
        self.copying.as_ref().is_none_or(Copying::takes_writes)
            && self.target.as_ref().is_none_or(Target::is_ready)
    }
}

impl Mirror {
    pub(super) fn session(&self) -> Option<&Session> {
        match &self.link {
            Link::Session(session) => Some(session),
            _ => None,
        }
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.link {
            Link::Session(session) => Some(session),
            _ => None,
        }
    }

    pub(super) fn session_opened(&mut self) {
        self.loss = None;
        self.alone = Alone::No;
        self.was_active = false;
        self.wants_recovery = false;
        self.rejoins = false;
        self.apart = false;
        if let Some(theirs) = &mut self.last_peer {
            theirs.apart = false; // it has ended there, too
        }
        self.vouched_peer_down = false;
        self.resume.confirm();
        let Some(session) = self.session() else { return };
        match session.role {
            Role::Equal => {
                self.uninterrupted = true;
                // Marks go after a flush of both disks, and there are none.
                self.standby.both_flushed();
                self.resume.settled();
                self.construction_may_have_ended();
            }
            Role::Source => self.begin_as_source(),
            Role::Target => self.send_marks(),
        }
    }

    /// The connection of an open session is gone.
    pub(super) fn session_ended(&mut self, session: &Session) {
        // A source has the latest data whatever becomes of the copy.
        let in_sync = session.role != Role::Target
            || session.target.as_ref().is_some_and(Target::stayed_complete);
        self.loss = Some(Loss { in_sync, active: self.active });
        self.detach_lost();
        // Marks that no write has used are no difference.
        let unwritten = self.hot.session_ended();
        if let Some(marks) = &mut self.meta.marks {
            unwritten.into_iter().for_each(|region| marks.clear(region));
        }
        self.cool = super::app::Cool::default();
        self.standby_lost_peer();
        self.copy_aborted(session);
        self.requests_lost_peer();
    }

    /// Whether a copy to the peer is still owed.
    pub(super) fn has_copy(&self) -> bool {
        self.session().is_some_and(|s| s.copying.is_some())
    }

    /// Whether any region of `extent` differs, or may, between the sides.
    pub(super) fn is_dirty(&self, extent: Extent) -> bool {
        let dirty = self.session().and_then(|s| s.dirty.as_ref());
        dirty.is_some_and(|d| extent.regions().any(|r| d.get(r)))
    }

    pub(super) fn on_session_frame(&mut self, message: Message) {
        match message {
            Message::Write { id, extent, durable, data } => {
                self.on_peer_write(id, extent, durable, data);
            }
            Message::Zero { id, extent, unmap, durable } => {
                self.on_peer_zero(id, extent, unmap, durable);
            }
            Message::Copy { id, extent, data } => self.on_peer_copy(id, extent, data),
            Message::Flush { id } => self.on_peer_flush(id),
            Message::Read { id, extent } => self.on_peer_read(id, extent),
            Message::ReadReply { id, data } => self.on_read_reply(id, data),
            Message::Ack { id, ok } => self.on_ack(id, ok),
            Message::Settled => {}
            Message::Marks { first_region, bits } => self.on_marks(first_region, &bits),
            Message::MarksEnd => self.on_marks_end(),
            Message::CopyStart { toward, all, complete } => {
                self.on_copy_start(toward, all, complete);
            }
            Message::CopyReady => self.on_copy_ready(),
            Message::CopyStop => self.on_copy_stop(),
            Message::Adopt { generation, ancestors, overruled, mirror } => {
                self.on_adopt(generation, ancestors, overruled, mirror);
            }
            Message::Adopted => self.on_adopted(),
            Message::Detach => self.on_detach(),
            Message::Detached => self.on_detached(),
            message => {
                self.protocol_error(&format!("{} in an open session", message.name()));
            }
        }
    }

    fn on_ack(&mut self, id: u64, ok: bool) {
        if !self.op_remote_done(id, ok) && !self.copy_acked(id, ok) {
            self.protocol_error("an ack for nothing that was sent");
        }
    }

    fn on_marks(&mut self, first_region: u32, bits: &Buf) {
        let Some(session) = self.session_mut() else { return };
        let expected = session.copying.as_ref().is_some_and(Copying::awaits_marks);
        let taken = match &mut session.dirty {
            Some(dirty) if expected => dirty.import(first_region, bits).is_ok(),
            _ => false,
        };
        if !taken {
            self.protocol_error("marks that do not fit");
        }
    }
}
