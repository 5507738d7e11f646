//! From an authenticated connection to a session (rules 4 and 8, architecture §4 *Sessions*).
//!
//! ```text
//! dialler (first server)                      acceptor (second server)
//!   drain, freeze, Card  ───────────────────▶
//!                        ◀───────────────────  drain, freeze, Card
//!   judge, Verdict       ◀──────────────────▶  judge, Verdict     (same row, or the end)
//!                        ◀───────────────────  durable *offered n*, Offer
//!   durable *open n*, Accept ───────────────▶
//!                        ◀───────────────────  durable *open n*, Opened
//! ```
//! From the moment a side may have shown its card until the session opens or the connection
//! ends, it completes nothing alone and changes nothing on the card.

use super::Mirror;
use super::link::{Link, Parked};
use super::meta::Then;
use super::session::{Role, Session};
use super::setup::AutoRecovery;
use crate::both_active::are_active;
use crate::direction::{Mode, Outcome, Row, Verdict, judge, next_session};
use crate::io::Notice;
use crate::marks::Marks;
use crate::record::{Card, Record};
use crate::rules::{Rule, holds};
use crate::units::{Generation, Millis, SessionNo};
use crate::wire::{Beat, Message};

/// What is awaited next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Cards and verdicts of both sides.
    Cards,
    /// Acceptor: *offered* becomes durable here.
    Offering,
    /// Acceptor: the dialler's `Accept`.
    Offered,
    /// Dialler: the acceptor's `Offer`.
    AwaitOffer,
    /// *open* becomes durable here.
    Opening,
    /// Dialler: the acceptor's `Opened`.
    AwaitOpened,
}

#[derive(Debug)]
pub(super) struct Agree {
    pub(super) since: Millis,
    mine: Option<Card>,
    theirs: Option<Card>,
    verdict: Option<Verdict>,
    their_row: Option<u8>,
    step: Step,
}

impl Agree {
    pub(super) fn begin(since: Millis) -> Self {
        Self { since, mine: None, theirs: None, verdict: None, their_row: None, step: Step::Cards }
    }

    fn cards(&self) -> Option<(&Card, &Card)> {
        self.mine.as_ref().zip(self.theirs.as_ref())
    }

    fn next_session(&self) -> Option<SessionNo> {
        self.cards().map(|(a, b)| next_session(&a.record, &b.record))
    }
}

/// What the peer holds: a half-copied side holds what is being copied to it.
fn held_generation(record: &Record) -> Option<Generation> {
    match record.inconsistent {
        Some(inconsistent) => Some(inconsistent.toward),
        None => record.generation,
    }
}

/// An operator keeps the two apart, and nobody has asked for a recovery since.
pub(super) fn are_apart(a: &Card, b: &Card) -> bool {
    (a.apart || b.apart) && !a.rejoins && !b.rejoins
}

impl Mirror {
    pub(super) fn card(&self) -> Card {
        Card {
            // Drained, the marks are durable, and count for what they are.
            record: Record { grown_from: 0, ..self.meta.record.clone() },
            active: self.active,
            uninterrupted: self.uninterrupted && !self.device_failed,
            wants_recovery: self.wants_recovery_now(),
            apart: self.apart,
            rejoins: self.rejoins,
            capacity: self.capacity,
            device_block: self.device_block,
            marked: self.meta.marks.as_ref().map_or(0, Marks::count),
        }
    }

    fn wants_recovery_now(&self) -> bool {
        match self.tuning.auto_recovery {
            _ if self.cancelled => false,
            _ if self.wants_recovery => true,
            _ if self.meta.record.is_constructing() => true,
            AutoRecovery::Always => true,
            AutoRecovery::Active => self.active,
            AutoRecovery::Off => false,
        }
    }

    /// Takes the agreement as far as it can go now.
    pub(super) fn agree_on(&mut self) {
        let Link::Agree(agree) = &self.link else { return };
        if agree.mine.is_none() {
            if !self.is_drained() {
                return;
            }
            self.show_card();
        }
        self.judge_cards();
        self.act_on_verdicts();
    }

    fn show_card(&mut self) {
        let card = self.card();
        if let Link::Agree(agree) = &mut self.link {
            agree.mine = Some(card.clone());
        }
        self.send(Message::Card(Box::new(card)));
    }

    fn judge_cards(&mut self) {
        let Link::Agree(agree) = &mut self.link else { return };
        if agree.verdict.is_some() {
            return;
        }
        let Some((mine, theirs)) = agree.cards() else { return };
        let (mine, theirs) = (mine.clone(), theirs.clone());
        let verdict = judge(&mine, &theirs);
        agree.verdict = Some(verdict);
        if self.gives_way(&mine, &theirs) {
            return;
        }
        self.seen_active |= theirs.active;
        self.last_peer = Some(theirs);
        self.last_verdict = Some(verdict);
        self.note_newer_peer(verdict);
        self.note_parting(verdict);
        let owing = verdict.outcome == Outcome::Copy { source: self.side, mode: Mode::Full };
        match self.current() {
            // The debt comes first: with the first number that the peer records, the numbers may
            // no longer show that it was restored.
            Some(conn) if owing && self.opens() => {
                self.record_debt();
                self.meta.persist_then(Then::Owed(conn));
            }
            _ => self.send_verdict(),
        }
    }

    /// The peer has newer data: known from here on, even if no session comes of it.
    fn note_newer_peer(&mut self, verdict: Verdict) {
        let Outcome::Copy { source, mode: Mode::Full | Mode::Difference } = verdict.outcome else {
            return;
        };
        let record = &mut self.meta.record;
        let newer = source != self.side && record.generation.is_some() && !record.behind;
        if newer && holds(Rule::NoteNewer) {
            record.behind = true;
            record.peer_behind = false;
            self.meta.persist();
        }
    }

    /// The operator keeps this side from an active peer, which goes on alone from here on: that is
    /// no break, after which this side could take over.
    fn note_parting(&mut self, verdict: Verdict) {
        let Link::Agree(agree) = &self.link else { return };
        let left = agree.cards().is_some_and(|(mine, theirs)| {
            are_apart(mine, theirs) && theirs.active && !mine.active && !mine.record.behind
        });
        if left && verdict.outcome != Outcome::Refuse {
            self.meta.record.behind = true;
            self.meta.persist();
        }
    }

    pub(super) fn send_verdict(&mut self) {
        let Link::Agree(agree) = &self.link else { return };
        let Some(verdict) = agree.verdict else { return };
        self.send(Message::Verdict { row: verdict.row as u8 });
    }

    /// Whether a session follows from the verdict.
    fn opens(&self) -> bool {
        let Link::Agree(agree) = &self.link else { return false };
        let (Some(verdict), Some((mine, theirs))) = (agree.verdict, agree.cards()) else {
            return false;
        };
        if are_apart(mine, theirs) {
            return false;
        }
        match verdict.outcome {
            Outcome::Refuse => false,
            Outcome::InSync => true,
            Outcome::Copy { mode: Mode::Initial | Mode::Settle { .. }, .. } => true,
            Outcome::Copy { mode: Mode::Full | Mode::Difference, .. } => {
                mine.wants_recovery || theirs.wants_recovery
            }
        }
    }

    fn record_debt(&mut self) {
        self.meta.record.owes_all = true;
        self.meta.record.bases = [None; 2];
    }

    fn act_on_verdicts(&mut self) {
        let Link::Agree(agree) = &self.link else { return };
        if agree.step != Step::Cards {
            return;
        }
        let (Some(verdict), Some(their_row)) = (agree.verdict, agree.their_row) else { return };
        if their_row != verdict.row as u8 {
            self.protocol_error("the two sides judge the same cards differently");
            return;
        }
        self.forget_back_off();
        if self.opens() {
            self.begin_numbering();
        } else {
            self.park();
        }
    }

    fn park(&mut self) {
        let now = self.now.mono;
        let link = std::mem::replace(&mut self.link, Link::fresh(now));
        let Link::Agree(agree) = link else { return };
        let (Some(mine), Some(theirs), Some(verdict)) = (agree.mine, agree.theirs, agree.verdict)
        else {
            return;
        };
        self.resume.confirm();
        self.resume.settled();
        // Whatever is activated here from now on, though without contact and by another process, came
        // after what the peer has shown: a force of the peer that does not know of it has a lower number.
        let shown = theirs.record.known_activation.max(theirs.record.activation);
        let known = self.meta.record.known_activation.max(self.meta.record.activation);
        if shown > known && mine.record.mirror == theirs.record.mirror {
            self.meta.record.known_activation = shown;
            self.meta.persist();
        }
        // It is not off, whoever said so.
        self.vouched_peer_down = false;
        let beat = Beat { active: theirs.active, ..Beat::default() };
        let separated = are_apart(&mine, &theirs);
        // An active target: the other side has gone on without this one.
        let apart = match verdict.row {
            Row::SplitBrain | Row::BothActive => true,
            Row::TargetActive => self.active,
            _ => false,
        };
        if apart && self.meta.record.peer_behind {
            // Whatever it confirmed, it has gone on since.
            self.meta.record.peer_behind = false;
            self.meta.persist();
        }
        self.notice(Notice::Parked { verdict: verdict.row.name() });
        if are_active(verdict.row, &mine, &theirs) {
            self.notice(Notice::BothActive);
        }
        self.link = Link::Parked(Box::new(Parked { mine, theirs, verdict, beat }));
        if apart && self.active && !self.alone_is_permitted() {
            self.shut_device();
            return;
        }
        if !self.alone_is_permitted() {
            self.still_alone(); // what was permitted by a word that has ended needs another
        }
        if separated && self.active {
            self.may_go_alone(); // the break is recorded with the order, not with the next write
        }
    }

    fn begin_numbering(&mut self) {
        let accepts = self.wire.as_ref().is_some_and(|w| !w.dialled);
        let conn = self.current();
        let Link::Agree(agree) = &mut self.link else { return };
        let (Some(number), Some(conn)) = (agree.next_session(), conn) else { return };
        if accepts {
            agree.step = Step::Offering;
            if agree.verdict.is_some_and(|v| v.outcome == Outcome::InSync) {
                // The dialler records first that it is in sync, and may go on from there.
                self.meta.record.peer_behind = false;
            }
            self.meta.record.session = number;
            self.meta.record.session_open = false;
            self.meta.persist_then(Then::Offer(conn));
        } else {
            agree.step = Step::AwaitOffer;
        }
    }

    pub(super) fn send_offer(&mut self) {
        let Link::Agree(agree) = &mut self.link else { return };
        agree.step = Step::Offered;
        let session = self.meta.record.session;
        self.send(Message::Offer { session });
    }

    pub(super) fn send_accept(&mut self) {
        let Link::Agree(agree) = &mut self.link else { return };
        agree.step = Step::AwaitOpened;
        let session = self.meta.record.session;
        self.send(Message::Accept { session });
    }

    pub(super) fn send_opened(&mut self) {
        let session = self.meta.record.session;
        self.send(Message::Opened { session });
        self.enter_session();
    }

    pub(super) fn on_agree_frame(&mut self, message: Message) {
        let Link::Agree(agree) = &mut self.link else { return };
        let number = agree.next_session();
        match (agree.step, message) {
            (Step::Cards, Message::Card(card)) if agree.theirs.is_none() => {
                if card.record.side != self.side.other() {
                    self.protocol_error("a card of the wrong side");
                    return;
                }
                let number = card.record.highest_number();
                if !card.makes_sense() || !self.meta.record.takes_from_peer(number) {
                    self.protocol_error("a card that makes no sense");
                    return;
                }
                agree.theirs = Some(*card);
            }
            (Step::Cards, Message::Verdict { row })
                if agree.theirs.is_some() && agree.their_row.is_none() =>
            {
                agree.their_row = Some(row);
            }
            // The acceptor may be ahead of the dialler, but only as far as our verdict.
            (Step::AwaitOffer, Message::Offer { session }) if Some(session) == number => {
                agree.step = Step::Opening;
                self.record_open(session, Then::Accept);
            }
            (Step::Offered, Message::Accept { session }) if Some(session) == number => {
                agree.step = Step::Opening;
                self.record_open(session, Then::Open);
            }
            (Step::AwaitOpened, Message::Opened { session }) if Some(session) == number => {
                self.enter_session();
            }
            (_, message) => {
                let name = message.name();
                self.protocol_error(&format!("{name} at the wrong time of an agreement"));
            }
        }
    }

    /// Makes the session, and what it means for this side, durable before the first write.
    fn record_open(&mut self, session: SessionNo, then: fn(crate::io::ConnId) -> Then) {
        let Link::Agree(agree) = &self.link else { return };
        let (Some(verdict), Some(theirs)) = (agree.verdict, agree.theirs.clone()) else { return };
        let Some(conn) = self.current() else { return };
        let record = &mut self.meta.record;
        record.session = session;
        record.session_open = true;
        record.clean_stop = false;
        record.active = self.active;
        // A side that restarted under an active peer may lack what its cache lost, until it is whole.
        let target = verdict.source().is_some_and(|source| source != record.side);
        record.peer_active = theirs.active || (target && record.peer_active);
        let both = theirs.record.known_activation.max(theirs.record.activation);
        record.known_activation = record.known_activation.max(record.activation).max(both);
        let (mine, others) = (record.activation, theirs.record.activation);
        if (self.active && mine <= others) || (theirs.active && others <= mine) {
            // The other one was activated apart, perhaps under the same number, and is none of it any
            // more: the numbers are to say which of the two was active last.
            record.known_activation = record.known_activation.next();
            if self.active {
                record.activation = record.known_activation;
            }
        }
        match verdict.outcome {
            Outcome::InSync => self.record_in_sync(),
            Outcome::Copy { source, mode } if source == self.side => {
                self.record_source(mode, &theirs);
            }
            Outcome::Copy { .. } | Outcome::Refuse => {}
        }
        self.meta.persist_then(then(conn));
    }

    pub(super) fn record_in_sync(&mut self) {
        let record = &mut self.meta.record;
        record.bases = [record.generation, None];
        record.break_time = 0;
        record.behind = false;
        record.peer_behind = false;
        record.forced_at = None;
        record.owes_all = false;
    }

    fn record_source(&mut self, mode: Mode, theirs: &Card) {
        if theirs.record.generation.is_some() {
            // One without a history joins with whatever size its last attempt has left to it.
            self.grow_to(theirs.record.size);
        }
        match mode {
            Mode::Initial => self.construct(theirs),
            Mode::Full => self.record_debt(),
            // Its end is recorded with the bases.
            Mode::Difference | Mode::Settle { .. } if self.meta.record.is_constructing() => {}
            Mode::Difference | Mode::Settle { .. } => {
                self.meta.record.bases = [held_generation(&theirs.record), None];
            }
        }
    }

    fn enter_session(&mut self) {
        let now = self.now.mono;
        let link = std::mem::replace(&mut self.link, Link::fresh(now));
        let Link::Agree(agree) = link else { return };
        let (Some(mine), Some(theirs), Some(verdict)) = (agree.mine, agree.theirs, agree.verdict)
        else {
            return;
        };
        let role = match verdict.outcome {
            Outcome::Copy { source, .. } if source == self.side => Role::Source,
            Outcome::Copy { .. } => Role::Target,
            Outcome::InSync | Outcome::Refuse => Role::Equal,
        };
        let number = self.meta.record.session;
        self.notice(Notice::SessionOpened { verdict: verdict.row.name() });
        let constructs = self.construction_with(&mine, &theirs, verdict).is_some();
        let session = Session::open(number, role, verdict, (&mine, theirs), constructs);
        self.link = Link::Session(Box::new(session));
        self.session_opened();
    }
}
