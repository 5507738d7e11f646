//! A mirror that is alone: activated, written to in several places, broken from its peer, closed.

use mirror_core::buf::Buf;
use mirror_core::command::Command;
use mirror_core::disk::layout::{BITMAP, required_bytes};
use mirror_core::disk::superblock;
use mirror_core::io::{Action, CommandId, DataOp, Event, IoId, Request, RequestId, RequestOp};
use mirror_core::marks::Marks;
use mirror_core::mirror::{Mirror, Setup, Tuning};
use mirror_core::record::Record;
use mirror_core::units::{Extent, Generation, Id16, Millis, Now, SessionNo, Side, regions_in};
use std::collections::VecDeque;

/// Two bitmap blocks and a bit.
const SIZE: u64 = 5 << 30;

/// A write to the cluster partition under way.
pub(crate) struct Write {
    io: IoId,
    pub(crate) offset: usize,
    pub(crate) bytes: Buf,
}

pub(crate) struct History {
    mirror: Mirror,
    now: u64,
    image: Vec<u8>,
    under_way: VecDeque<Write>,
    durable: Record,
    todo: VecDeque<Event>,
    /// Regions that an application's write was let through to, so that their marks are promised.
    promised: Vec<u32>,
    both: bool,
}

fn record() -> Record {
    let mut record = Record::blank(Id16([4; 16]), Side::First);
    record.mirror = Id16([9; 16]);
    record.size = SIZE;
    record.block = 512;
    record.generation = Generation::new(1);
    record.bases = [record.generation, None];
    record.session = SessionNo(10);
    record.seq = 7;
    record
}

fn write(id: u64, offset: u64) -> Event {
    let (op, extent) = (RequestOp::Write(Buf::copied_from(&[1; 4096])), Extent::new(offset, 4096));
    Event::Request(Request { id: RequestId(id), op, extent, fua: false })
}

fn order(id: u64, command: Command) -> Event {
    Event::Command { id: CommandId(id), command }
}

fn events() -> VecDeque<Event> {
    let mut events =
        VecDeque::from([order(1, Command::Activate { peer_down: true, peer_seen_active: None })]);
    // Near and far, so that blocks of the bitmap are written while a record is.
    events.extend([0, 1 << 20, 3 << 30, (3 << 30) + (1 << 20)].map(|at| write(at + 10, at)));
    events.push_back(Event::Timer);
    events.extend([2 << 20, 4 << 30].map(|at| write(at + 11, at)));
    events.push_back(order(2, Command::Deactivate));
    events.push_back(order(3, Command::Force { peer_seen_active: None }));
    events.push_back(order(4, Command::Shutdown));
    events
}

impl History {
    pub(crate) fn begin() -> Self {
        let record = record();
        let mut image = vec![0; usize::try_from(required_bytes(SIZE)).expect("small")];
        for offset in [0, 64 << 10] {
            image[offset..offset + 4096].copy_from_slice(&superblock::encode(&record));
        }
        let mut marks = Marks::blank(regions_in(SIZE), record.device);
        while let Some(w) = marks.next_write() {
            let at = usize::try_from(w.offset).expect("small");
            image[at..at + w.bytes.len()].copy_from_slice(&w.bytes);
            marks.write_done(w.block, true);
        }
        let bitmap = usize::try_from(BITMAP).expect("small");
        let (marks, damaged) = Marks::load(record.device, regions_in(SIZE), &image[bitmap..]);
        assert_eq!(damaged, 0);
        let setup = Setup {
            record: record.clone(),
            fresh: false,
            marks: Some(marks),
            capacity: SIZE,
            device_block: 512,
            boot: Id16([3; 16]),
            resume: false,
            seed: [5; 32],
            tuning: Tuning::default(),
        };
        Self {
            mirror: Mirror::new(setup, Now::default()),
            now: 0,
            image,
            under_way: VecDeque::new(),
            durable: record,
            todo: events(),
            promised: Vec::new(),
            both: false,
        }
    }

    pub(crate) fn image(&self) -> &[u8] {
        &self.image
    }

    pub(crate) fn under_way(&self) -> impl Iterator<Item = &Write> {
        self.under_way.iter()
    }

    /// The record that is durable, and the one that is being written.
    pub(crate) fn records(&self) -> Vec<Record> {
        let coming = self.under_way.iter().filter(|w| w.offset < 128 << 10);
        let coming = coming.map(|w| match superblock::load(&w.bytes, &w.bytes) {
            superblock::Loaded::Valid { record, .. } => *record,
            other => panic!("{other:?}"),
        });
        std::iter::once(self.durable.clone()).chain(coming).collect()
    }

    pub(crate) fn promised(&self) -> impl Iterator<Item = u32> + '_ {
        self.promised.iter().copied()
    }

    pub(crate) fn saw_both(&self) -> bool {
        self.both
    }

    /// Goes on until something is under way; false at the end.
    pub(crate) fn step(&mut self) -> bool {
        // Requests come while something is under way, commands one after the other.
        if !self.under_way.is_empty() && self.todo.front().is_some_and(is_request) {
            self.next();
        }
        while self.under_way.is_empty() && !self.todo.is_empty() {
            self.next();
        }
        let record = self.under_way.iter().any(|w| w.offset < 128 << 10);
        self.both |= record && self.under_way.iter().any(|w| w.offset >= 128 << 10);
        !self.under_way.is_empty()
    }

    fn next(&mut self) {
        if let Some(event) = self.todo.pop_front() {
            self.handle(event);
        }
    }

    /// The oldest write under way has ended well.
    pub(crate) fn land(&mut self) {
        let Some(write) = self.under_way.pop_front() else { return };
        self.image[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
        if write.offset == 64 << 10 {
            if let superblock::Loaded::Valid { record, .. } =
                superblock::load(&write.bytes, &write.bytes)
            {
                self.durable = *record;
            }
        }
        self.handle(Event::MetaDone { io: write.io, result: Ok(()) });
    }

    fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.now += 5000;
            let now = Now { mono: Millis(self.now), wall: 1 };
            let mut out = Vec::new();
            self.mirror.handle(now, event, &mut out);
            for action in out {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Meta { io, offset, bytes } => {
                let offset = usize::try_from(offset).expect("small");
                self.under_way.push_back(Write { io, offset, bytes });
                None
            }
            Action::Data { io, op, extent } => {
                if matches!(op, DataOp::Write { .. }) {
                    self.promised.extend(extent.regions());
                }
                Some(Event::DataDone { io, result: Ok(None) })
            }
            Action::Dial => Some(Event::DialFailed),
            _ => None,
        }
    }
}

fn is_request(event: &Event) -> bool {
    matches!(event, Event::Request(_) | Event::Timer)
}
