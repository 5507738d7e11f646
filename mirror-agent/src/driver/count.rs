//! Counts what passes through the loop: requests and their answers, writes and their acks.
//!
//! Times are those of the rounds of the loop, so that no operation costs a look at the clock. What
//! is under way stands in maps that keep their memory.

use crate::figures::{Figures, Kind};
use mirror_core::io::{Action, Event, Notice, Request, RequestError, RequestId, RequestOp};
use mirror_core::wire::{Frame, Message};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// For numbers that this process gave out in order: nobody else chooses them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, n: u64) {
        // 2^64 divided by the golden ratio: neighbours end up far apart.
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A map by such numbers.
pub(super) type ById<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

#[derive(Clone, Copy, Debug)]
struct Begun {
    kind: Kind,
    bytes: u64,
    at: u64,
}

/// See the module. Times are microseconds of the loop's clock.
#[derive(Default)]
pub(super) struct Count {
    pub(super) figures: Box<Figures>,
    requests: ById<RequestId, Begun>,
    /// Writes sent to the peer, and blocks of a recovery with their bytes.
    writes: ById<u64, u64>,
    copies: ById<u64, (u64, u64)>,
    beat: Option<u64>,
    in_session: bool,
}

fn kind_of(request: &Request) -> Kind {
    match request.op {
        RequestOp::Read => Kind::Read,
        RequestOp::Write(_) => Kind::Write,
        RequestOp::Zero { .. } => Kind::Zero,
        RequestOp::Flush => Kind::Flush,
    }
}

impl Count {
    /// An event is about to be handled.
    pub(super) fn event(&mut self, event: &Event, now: u64) {
        match event {
            Event::Request(request) => {
                let begun = Begun { kind: kind_of(request), bytes: request.extent.len, at: now };
                self.requests.insert(request.id, begun);
                self.figures.request_queue.set(self.requests.len() as u64);
            }
            Event::Frame { frame, .. } => self.frame(&frame.message, now),
            Event::PeerReady { .. } | Event::PeerGone { .. } => self.forget_peer(),
            _ => {}
        }
    }

    /// Writes that the peer has not answered.
    pub(super) fn sent_writes(&self) -> usize {
        self.writes.len()
    }

    fn frame(&mut self, message: &Message, now: u64) {
        match message {
            Message::Ack { id, ok } => {
                if let Some(at) = self.writes.remove(id) {
                    self.figures.sync_ack.add(now.saturating_sub(at));
                } else if let Some((at, bytes)) = self.copies.remove(id) {
                    self.figures.recovery_ack.add(now.saturating_sub(at));
                    self.figures.recovery_sent_bytes += if *ok { bytes } else { 0 };
                }
            }
            Message::Copy { extent, .. } => self.figures.recovery_received_bytes += extent.len,
            Message::Beat(_) => {
                if let Some(before) = self.beat.replace(now) {
                    self.figures.heartbeat_gap.add(now.saturating_sub(before));
                }
            }
            _ => {}
        }
    }

    /// An action is about to be carried out.
    pub(super) fn action(&mut self, action: &Action, now: u64) {
        match action {
            Action::Complete { id, result } => {
                self.answered(*id, result.as_ref().map(|_| ()).map_err(|e| *e), now);
            }
            Action::Send { frame: Frame { message, .. }, .. } => match message {
                Message::Write { id, .. } | Message::Zero { id, .. } => {
                    self.writes.insert(*id, now);
                }
                Message::Copy { id, extent, .. } => {
                    self.copies.insert(*id, (now, extent.len));
                }
                _ => {}
            },
            Action::Close { .. } => self.forget_peer(),
            Action::Notice(notice) => self.notice(notice),
            _ => {}
        }
    }

    fn answered(&mut self, id: RequestId, result: Result<(), RequestError>, now: u64) {
        let Some(Begun { kind, bytes, at }) = self.requests.remove(&id) else { return };
        self.figures.request_queue.set(self.requests.len() as u64);
        let took = now.saturating_sub(at);
        match result {
            Ok(()) => self.figures.device.of(kind).add(bytes, took),
            Err(_) => self.figures.device.of(kind).errors += 1,
        }
        if result.is_ok() && self.in_session && matches!(kind, Kind::Write | Kind::Zero) {
            self.figures.sync.add(took);
        }
    }

    fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::SessionOpened { .. } => {
                self.in_session = true;
                self.figures.sessions += 1;
            }
            Notice::LinkLost(_) => self.in_session = false,
            Notice::Broke => self.figures.breaks += 1,
            Notice::RecoveryStarted { .. } => self.figures.recoveries += 1,
            _ => {}
        }
    }

    /// The connection is another one, or none.
    fn forget_peer(&mut self) {
        self.writes.clear();
        self.copies.clear();
        self.beat = None;
    }

    /// The front end is another one; its requests are numbered anew.
    pub(super) fn forget_requests(&mut self) {
        self.requests.clear();
        self.figures.request_queue.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::Count;
    use mirror_core::buf::Buf;
    use mirror_core::io::{
        Action, ConnId, Event, Notice, Request, RequestError, RequestId, RequestOp,
    };
    use mirror_core::units::{Extent, SessionNo};
    use mirror_core::wire::{Beat, Frame, Message};

    const CONN: ConnId = ConnId(1);

    fn frame(message: Message) -> Frame {
        Frame { session: SessionNo(1), settled: 0, message }
    }

    fn write(id: u64) -> Event {
        let op = RequestOp::Write(Buf::copied_from(&[0; 512]));
        Event::Request(Request { id: RequestId(id), op, extent: Extent::new(0, 512), fua: false })
    }

    fn sent(id: u64) -> Action {
        let (extent, data) = (Extent::new(0, 512), Buf::copied_from(&[0; 512]));
        let message = Message::Write { id, extent, durable: false, data };
        Action::Send { conn: CONN, frame: frame(message) }
    }

    fn done(id: u64, result: Result<Option<Buf>, RequestError>) -> Action {
        Action::Complete { id: RequestId(id), result }
    }

    fn came(message: Message) -> Event {
        Event::Frame { conn: CONN, frame: frame(message) }
    }

    #[test]
    fn a_mirrored_write_is_counted_on_its_way() {
        let mut count = Count::default();
        count.action(&Action::Notice(Notice::SessionOpened { verdict: "in-sync" }), 0);
        count.event(&write(1), 100);
        count.event(&write(2), 110);
        count.action(&sent(7), 120);
        count.event(&came(Message::Ack { id: 7, ok: true }), 420);
        count.action(&done(1, Ok(None)), 500);
        count.action(&done(2, Err(RequestError::Io)), 510);
        let f = &count.figures;
        assert_eq!((f.device.write.bytes, f.device.write.errors), (512, 1));
        assert_eq!((f.device.write.time.count, f.device.write.time.max_us), (1, 400));
        assert_eq!((f.sync.count, f.sync_ack.last_us), (1, 300));
        assert_eq!((f.request_queue.now, f.request_queue.max, f.sessions), (0, 2, 1));
    }

    #[test]
    fn alone_nothing_counts_as_mirrored_and_old_acks_as_nothing() {
        let mut count = Count::default();
        count.action(&sent(7), 1);
        count.event(&Event::PeerGone { conn: CONN }, 2);
        count.action(&Action::Notice(Notice::LinkLost("gone".to_owned())), 2);
        count.action(&Action::Notice(Notice::Broke), 2);
        count.event(&came(Message::Ack { id: 7, ok: true }), 3);
        count.event(&write(1), 4);
        count.action(&done(1, Ok(None)), 9);
        let f = &count.figures;
        assert_eq!((f.sync.count, f.sync_ack.count, f.breaks), (0, 0, 1));
        assert_eq!(f.device.write.time.last_us, 5);
    }

    #[test]
    fn a_recovery_and_heartbeats_are_counted() {
        let mut count = Count::default();
        let copy = |id| Message::Copy {
            id,
            extent: Extent::new(0, 1 << 16),
            data: Buf::copied_from(&[0; 1 << 16]),
        };
        count.action(&Action::Send { conn: CONN, frame: frame(copy(3)) }, 10);
        count.action(&Action::Send { conn: CONN, frame: frame(copy(4)) }, 10);
        count.event(&came(Message::Ack { id: 3, ok: true }), 30);
        count.event(&came(Message::Ack { id: 4, ok: false }), 40);
        count.event(&came(copy(9)), 50);
        for at in [1000, 2500] {
            count.event(&came(Message::Beat(Beat::default())), at);
        }
        let f = &count.figures;
        assert_eq!((f.recovery_ack.count, f.recovery_ack.max_us), (2, 30));
        assert_eq!((f.recovery_sent_bytes, f.recovery_received_bytes), (1 << 16, 1 << 16));
        assert_eq!((f.heartbeat_gap.count, f.heartbeat_gap.last_us), (1, 1500));
    }

    #[test]
    fn what_a_front_end_left_behind_is_forgotten() {
        let mut count = Count::default();
        count.event(&write(1), 1);
        count.forget_requests();
        count.action(&done(1, Ok(None)), 5);
        assert_eq!(
            (count.figures.request_queue.now, count.figures.device.write.time.count),
            (0, 0)
        );
    }

    /// What counting one mirrored write costs: `cargo test --release -p mirror-agent --lib --
    /// --ignored --nocapture what_counting_costs`.
    #[test]
    #[ignore = "a measurement"]
    fn what_counting_costs() {
        const DEPTH: u64 = 32;
        const ROUNDS: u64 = 200_000;
        let mut count = Count::default();
        count.action(&Action::Notice(Notice::SessionOpened { verdict: "in-sync" }), 0);
        let all: Vec<_> = (0..DEPTH)
            .map(|id| {
                let ack = came(Message::Ack { id, ok: true });
                (write(id), sent(id), ack, done(id, Ok(None)))
            })
            .collect();
        let began = std::time::Instant::now();
        for round in 0..ROUNDS {
            let now = round * 100;
            all.iter().for_each(|(request, sent, ..)| {
                count.event(request, now);
                count.action(sent, now);
            });
            all.iter().for_each(|(_, _, ack, done)| {
                count.event(ack, now + 40);
                count.action(done, now + 50);
            });
        }
        let writes = ROUNDS * DEPTH;
        assert_eq!(count.figures.sync.count, writes);
        let nanos = began.elapsed().as_nanos() / u128::from(writes);
        println!("counting one mirrored write takes {nanos} ns");
    }
}
