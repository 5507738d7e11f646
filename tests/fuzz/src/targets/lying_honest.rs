//! What a peer says that keeps the rules: the ground on which the input lies. With it an input
//! reaches sessions, both ends of a recovery, and adoptions by saying "go on".

use mirror_core::buf::{Buf, BufMut};
use mirror_core::direction::{Mode, Outcome, judge, next_session};
use mirror_core::record::Card;
use mirror_core::units::{Extent, Generation, Id16, SessionNo, Side};
use mirror_core::wire::{Frame, Message};
use std::collections::VecDeque;

/// Answers that are kept until the input wants them.
const SAYS_MAX: usize = 256;
/// Copies that it sends as a source; the target cannot know what is missing.
const COPIES: u64 = 6;
const COPY_BYTES: u64 = 65_536;

#[derive(Default)]
pub(crate) struct Honest {
    mine: Option<Card>,
    theirs: Option<Card>,
    session: u64,
    says: VecDeque<(u64, Message)>,
    last_op: u64,
    /// The flush after which the copy is given to the mirror.
    last_flush: Option<u64>,
}

impl Honest {
    /// Whatever was said over an earlier connection is void.
    pub(crate) fn connected(&mut self) {
        *self = Self::default();
    }

    /// This card went out, if it is the first one.
    pub(crate) fn showed(&mut self, card: &Card) {
        self.says.retain(|(_, m)| !matches!(m, Message::Card(_)));
        self.mine.get_or_insert_with(|| card.clone());
    }

    /// The next thing to say, with its session.
    pub(crate) fn next(&mut self) -> Option<(u64, Message)> {
        self.says.pop_front()
    }

    fn say(&mut self, session: u64, message: Message) {
        if self.says.len() < SAYS_MAX {
            self.says.push_back((session, message));
        }
    }

    fn say_here(&mut self, message: Message) {
        self.say(self.session, message);
    }

    /// Hears a frame of the mirror. `card` is what it would show if it has shown nothing yet.
    pub(crate) fn hears(&mut self, frame: &Frame, card: impl FnOnce() -> Card) {
        let session = frame.session.0;
        match &frame.message {
            Message::Card(theirs) => {
                self.theirs = Some((**theirs).clone());
                if self.mine.is_none() {
                    self.say(0, Message::Card(Box::new(card())));
                }
            }
            Message::Verdict { row } => self.hears_verdict(*row),
            Message::Offer { session: number } => self.say(0, Message::Accept { session: *number }),
            Message::Accept { session: number } => {
                self.say(0, Message::Opened { session: *number });
                self.opened(*number);
            }
            Message::Opened { session: number } => self.opened(*number),
            Message::MarksEnd => self.begin_copy(),
            Message::CopyReady => self.copy(),
            Message::Ack { id, ok: true } if Some(*id) == self.last_flush => self.give(),
            message => {
                if let Some(answer) = answer_to(message) {
                    self.say(session, answer);
                }
            }
        }
    }

    fn hears_verdict(&mut self, row: u8) {
        self.say(0, Message::Verdict { row });
        let Some((mine, theirs)) = self.mine.as_ref().zip(self.theirs.as_ref()) else { return };
        // The mirror on the first server dials, so that the offer is this side's.
        let offers = theirs.record.side == Side::First;
        let number = next_session(&mine.record, &theirs.record);
        if offers && self.outcome() != Some(Outcome::Refuse) {
            self.say(0, Message::Offer { session: number });
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        let (mine, theirs) = self.mine.as_ref().zip(self.theirs.as_ref())?;
        Some(judge(mine, theirs).outcome)
    }

    /// How this side copies to the mirror, if it does.
    fn source_mode(&self) -> Option<Mode> {
        match self.outcome()? {
            Outcome::Copy { source, mode } if Some(source) == self.side() => Some(mode),
            _ => None,
        }
    }

    fn side(&self) -> Option<Side> {
        self.mine.as_ref().map(|card| card.record.side)
    }

    fn opened(&mut self, number: SessionNo) {
        self.session = number.0;
        let copies = matches!(self.outcome(), Some(Outcome::Copy { .. }));
        if copies && self.source_mode().is_none() {
            self.say_here(Message::MarksEnd);
        }
    }

    fn generation(&self) -> Generation {
        let own = self.mine.as_ref().and_then(|card| card.record.generation);
        own.unwrap_or(Generation::new(5).expect("not zero"))
    }

    fn begin_copy(&mut self) {
        let Some(mode) = self.source_mode() else { return };
        let all = matches!(mode, Mode::Full | Mode::Initial);
        let complete = mode == Mode::Settle { complete: true };
        self.say_here(Message::CopyStart { toward: self.generation(), all, complete });
    }

    fn copy(&mut self) {
        if self.source_mode().is_none() {
            return;
        }
        for n in 0..COPIES {
            self.last_op += 1;
            let extent = Extent::new(n * COPY_BYTES, COPY_BYTES);
            self.say_here(Message::Copy { id: self.last_op, extent, data: payload(COPY_BYTES) });
        }
        self.last_op += 1;
        self.last_flush = Some(self.last_op);
        self.say_here(Message::Flush { id: self.last_op });
    }

    fn give(&mut self) {
        self.last_flush = None;
        let Some(card) = &self.mine else { return };
        let record = card.record.clone();
        let mirror = if record.mirror.is_none() { Id16([0xa0; 16]) } else { record.mirror };
        self.say_here(Message::Adopt {
            generation: self.generation(),
            ancestors: record.ancestors,
            overruled: record.overruled,
            mirror,
        });
    }
}

/// What needs no memory.
fn answer_to(message: &Message) -> Option<Message> {
    Some(match *message {
        Message::Write { id, .. }
        | Message::Zero { id, .. }
        | Message::Flush { id }
        | Message::Copy { id, .. } => Message::Ack { id, ok: true },
        Message::Read { id, extent } => Message::ReadReply { id, data: Some(payload(extent.len)) },
        Message::CopyStart { .. } => Message::CopyReady,
        Message::Adopt { .. } => Message::Adopted,
        Message::ActivateAsk { number } => Message::ActivateGrant { number },
        _ => return None,
    })
}

pub(crate) fn payload(len: u64) -> Buf {
    BufMut::zeroed(usize::try_from(len.min(1 << 20)).expect("small")).freeze()
}
