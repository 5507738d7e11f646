//! Several writers past the page cache that read back what they wrote, at once and later, while
//! whatever the scenario wants happens below them.

use crate::bench::{ALIGN, DIRECT};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

const WRITERS: u64 = 4;
/// Blocks of each writer, that nobody else touches.
const BLOCKS: u64 = 192;
const BLOCK: usize = 4096;

/// Where acknowledgements go, and the number of the next one.
struct Acks {
    file: File,
    next: u64,
    begin: Instant,
}

/// Writes and reads until `path`.stop appears; then reads every block once more.
pub(crate) fn verify(path: &str, acks: &str, from: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).custom_flags(DIRECT).open(path)?;
    file.set_len(WRITERS * BLOCKS * BLOCK as u64)?;
    let acks = OpenOptions::new().append(true).open(acks)?;
    let acks = Mutex::new(Acks { file: acks, next: from, begin: Instant::now() });
    let stop = format!("{path}.stop");
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let (file, acks, stop) = (&file, &acks, Path::new(&stop));
                scope.spawn(move || {
                    let mut writer = Writer::new(file, n);
                    writer.run(acks, stop).inspect_err(|e| tell_error(acks, e))
                })
            })
            .collect();
        writers
            .into_iter()
            .try_for_each(|w| w.join().map_err(|_| io::Error::other("a writer died"))?)
    })
}

fn tell_error(acks: &Mutex<Acks>, e: &io::Error) {
    if let Ok(mut acks) = acks.lock() {
        let line = format!("error {} {e}\n", acks.next);
        let _ = acks.file.write_all(line.as_bytes());
    }
}

/// One writer: which generation each of its blocks has.
struct Writer<'a> {
    file: &'a File,
    number: u64,
    generations: Vec<u64>,
    memory: Vec<u8>,
    skip: usize,
    chance: u64,
}

impl<'a> Writer<'a> {
    fn new(file: &'a File, number: u64) -> Self {
        let memory = vec![0; BLOCK + ALIGN];
        let skip = memory.as_ptr().align_offset(ALIGN);
        let generations = vec![0; usize::try_from(BLOCKS).unwrap_or(0)];
        Self { file, number, generations, memory, skip, chance: number * 2 + 1 }
    }

    fn run(&mut self, acks: &Mutex<Acks>, stop: &Path) -> io::Result<()> {
        while !stop.exists() {
            let block = self.any();
            self.write(block)?;
            acknowledge(acks)?;
            let other = self.any();
            self.check(block)?;
            self.check(other)?;
        }
        (0..self.generations.len()).try_for_each(|block| self.check(block))
    }

    fn any(&mut self) -> usize {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        usize::try_from(self.chance % BLOCKS).unwrap_or(0)
    }

    fn place(&self, block: usize) -> u64 {
        (self.number * BLOCKS + block as u64) * BLOCK as u64
    }

    fn write(&mut self, block: usize) -> io::Result<()> {
        self.generations[block] += 1;
        let content = content(self.place(block), self.generations[block]);
        self.memory[self.skip..self.skip + BLOCK].copy_from_slice(&content);
        self.file.write_all_at(&self.memory[self.skip..self.skip + BLOCK], self.place(block))
    }

    fn check(&mut self, block: usize) -> io::Result<()> {
        let place = self.place(block);
        let part = self.skip..self.skip + BLOCK;
        self.file.read_exact_at(&mut self.memory[part.clone()], place)?;
        let generation = self.generations[block];
        // Nothing is known of a block before its first write: an earlier run may have left it.
        if generation > 0 && self.memory[part] != content(place, generation)[..] {
            return Err(io::Error::other(format!("wrong bytes at {place}, write {generation}")));
        }
        Ok(())
    }
}

fn acknowledge(acks: &Mutex<Acks>) -> io::Result<()> {
    let mut acks = acks.lock().map_err(|_| io::Error::other("a writer died"))?;
    let line = format!("{} {}\n", acks.next, acks.begin.elapsed().as_millis());
    acks.next += 1;
    acks.file.write_all(line.as_bytes())
}

/// What the `generation`th write to a place writes.
fn content(place: u64, generation: u64) -> Vec<u8> {
    let mut state = (place.wrapping_add(generation << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(BLOCK);
    while data.len() < BLOCK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data
}
