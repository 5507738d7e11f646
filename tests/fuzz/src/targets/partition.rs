//! A whole cluster partition, up to a mirror that has been started from it and asked to serve.

use super::superblock::copy;
use super::{bitmap, lying_peer::CAPACITY};
use crate::input::Input;
use mirror_core::command::Command;
use mirror_core::disk::layout::{Layout, required_bytes};
use mirror_core::disk::superblock::{Loaded, encode, load};
use mirror_core::io::{Action, CommandId, Event};
use mirror_core::marks::Marks;
use mirror_core::mirror::{Mirror, Setup, Tuning};
use mirror_core::record::{NUMBER_MAX, Record};
use mirror_core::units::{Id16, Millis, Now, regions_in};

/// Largest mirror whose bitmap is worth the time, in bytes.
const SIZE_MAX: u64 = 4 << 30;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let a = copy(&mut input);
    let b = if input.flag() { a.clone() } else { copy(&mut input) };
    let Loaded::Valid { record, .. } = load(&a, &b) else { return };
    let len = required_bytes(record.size);
    Layout::new(record.size, len).expect("what is required is enough");
    Layout::new(record.size, len - 1).expect_err("and no less");
    // Whoever writes a good checksum under the very last numbers has a mirror that ends with them.
    let last = NUMBER_MAX - 100..=NUMBER_MAX;
    if record.size > SIZE_MAX || last.contains(&record.highest_number().max(record.seq)) {
        return;
    }
    let regions = regions_in(record.size);
    let mut bitmap = Vec::new();
    for index in 0..mirror_core::disk::layout::blocks_for(regions) {
        bitmap.extend(bitmap::block(&mut input, record.device, index));
    }
    let (marks, _) = Marks::load(record.device, regions, &bitmap);
    let capacity = if input.flag() { record.size } else { CAPACITY };
    start(*record, marks, capacity);
}

fn start(record: Record, marks: Marks, capacity: u64) {
    let now = Now { mono: Millis(1), wall: 1 };
    let marks = (record.size != 0).then_some(marks);
    let seq = record.seq;
    let setup = Setup {
        record,
        fresh: false,
        marks,
        capacity,
        device_block: 512,
        boot: Id16([3; 16]),
        resume: false,
        seed: [5; 32],
        tuning: Tuning::default(),
    };
    let mut mirror = Mirror::new(setup, now);
    let mut events = vec![
        order(4, Command::Shutdown),
        order(3, Command::Deactivate),
        order(2, Command::Force { peer_seen_active: None }),
        order(1, Command::Activate { peer_down: true, peer_seen_active: None }),
        Event::DialFailed,
    ];
    let mut answers = 0;
    while let Some(event) = events.pop() {
        let mut out = Vec::new();
        mirror.handle(now, event, &mut out);
        for action in out {
            match action {
                Action::Data { io, .. } => events.push(Event::DataDone { io, result: Ok(None) }),
                Action::Meta { io, .. } => events.push(Event::MetaDone { io, result: Ok(()) }),
                Action::Reply { .. } => answers += 1,
                _ => {}
            }
        }
        let _ = mirror.status(now);
    }
    assert_eq!(answers, 4);
    assert!(mirror.record().seq >= seq);
    let image = encode(mirror.record());
    assert!(matches!(load(&image, &image), Loaded::Valid { .. }));
}

fn order(id: u64, command: Command) -> Event {
    Event::Command { id: CommandId(id), command }
}
