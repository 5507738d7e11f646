//! The first phase of a connection (fixed newstyle), as a machine without I/O.

use super::Export;
use super::protocol::{
    self as p, GREETING_MAGIC, OPTION_HEADER, OPTION_MAGIC, OPTION_REPLY_MAGIC, take_u16, take_u32,
    take_u64,
};
use mirror_core::units::MAX_EXTENT_BYTES;

/// Longest option that is looked at; the protocol limits names to 4096 bytes.
const MAX_OPTION: u32 = 8192;
const PREFERRED_BLOCK: u32 = 4096;

/// Where the negotiation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It goes on when more bytes have come.
    NeedMore,
    /// The client chose the export; what follows are requests.
    Done,
    /// The connection ends once the output is sent.
    Close,
}

enum State {
    ClientFlags,
    Options,
    /// Bytes of an option that is too long are skipped.
    Skipping(u32),
    Ended(Progress),
}

/// The negotiation with one client.
pub struct Negotiation {
    state: State,
    no_zeroes: bool,
}

impl Negotiation {
    /// A new one; its greeting is appended to `output`.
    #[must_use]
    pub fn new(output: &mut Vec<u8>) -> Self {
        output.extend(GREETING_MAGIC.to_be_bytes());
        output.extend(OPTION_MAGIC.to_be_bytes());
        let flags = p::handshake::FIXED_NEWSTYLE | p::handshake::NO_ZEROES;
        output.extend(flags.to_be_bytes());
        Self { state: State::ClientFlags, no_zeroes: false }
    }

    /// Consumes from the front of `input` and appends answers to `output`. Stops at the end of
    /// the negotiation: what is left in `input` then belongs to the next phase.
    pub fn feed(&mut self, input: &mut &[u8], output: &mut Vec<u8>, export: &Export) -> Progress {
        loop {
            let before = input.len();
            match self.state {
                State::ClientFlags => self.client_flags(input),
                State::Skipping(left) => self.skip(left, input),
                State::Options => self.option(input, output, export),
                State::Ended(progress) => return progress,
            }
            if before == input.len() && !matches!(self.state, State::Ended(_)) {
                return Progress::NeedMore;
            }
        }
    }

    fn client_flags(&mut self, input: &mut &[u8]) {
        let known = u32::from(p::handshake::FIXED_NEWSTYLE | p::handshake::NO_ZEROES);
        if let Some(flags) = take_u32(input) {
            self.no_zeroes = flags & u32::from(p::handshake::NO_ZEROES) != 0;
            self.state = match flags & !known {
                0 => State::Options,
                _ => State::Ended(Progress::Close),
            };
        }
    }

    fn skip(&mut self, left: u32, input: &mut &[u8]) {
        let here = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        *input = &input[here..];
        let left = left - u32::try_from(here).unwrap_or(left);
        self.state = if left == 0 { State::Options } else { State::Skipping(left) };
    }

    fn option(&mut self, input: &mut &[u8], output: &mut Vec<u8>, export: &Export) {
        if input.len() < OPTION_HEADER {
            return;
        }
        let mut rest = *input;
        let (Some(magic), Some(option), Some(length)) =
            (take_u64(&mut rest), take_u32(&mut rest), take_u32(&mut rest))
        else {
            return;
        };
        if magic != OPTION_MAGIC {
            self.state = State::Ended(Progress::Close);
        } else if length > MAX_OPTION {
            *input = rest;
            self.too_long(option, length, output);
        } else if let Some((data, rest)) = rest.split_at_checked(length as usize) {
            *input = rest;
            self.answer(option, data, output, export);
        }
    }

    fn too_long(&mut self, option: u32, length: u32, output: &mut Vec<u8>) {
        if option == p::option::EXPORT_NAME {
            self.state = State::Ended(Progress::Close);
        } else {
            answer(output, option, p::reply::ERR_TOO_BIG, &[]);
            self.state = State::Skipping(length);
        }
    }

    fn answer(&mut self, option: u32, data: &[u8], output: &mut Vec<u8>, export: &Export) {
        match option {
            p::option::EXPORT_NAME => self.export_name(data, output, export),
            p::option::ABORT => {
                answer(output, option, p::reply::ACK, &[]);
                self.state = State::Ended(Progress::Close);
            }
            p::option::LIST => list(data, output, export),
            p::option::INFO => {
                describe(option, data, output, export);
            }
            p::option::GO => {
                if describe(option, data, output, export) {
                    self.state = State::Ended(Progress::Done);
                }
            }
            _ => answer(output, option, p::reply::ERR_UNSUP, &[]),
        }
    }

    fn export_name(&mut self, name: &[u8], output: &mut Vec<u8>, export: &Export) {
        if !is_served(name, export) {
            self.state = State::Ended(Progress::Close); // the option has no error answer
            return;
        }
        output.extend(export.size.to_be_bytes());
        output.extend(p::transmission::SERVED.to_be_bytes());
        if !self.no_zeroes {
            output.extend([0; 124]);
        }
        self.state = State::Ended(Progress::Done);
    }
}

fn is_served(name: &[u8], export: &Export) -> bool {
    name.is_empty() || name == export.name.as_bytes()
}

/// One answer to an option.
fn answer(output: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    output.extend(OPTION_REPLY_MAGIC.to_be_bytes());
    output.extend(option.to_be_bytes());
    output.extend(kind.to_be_bytes());
    let length = u32::try_from(data.len()).expect("answers are short");
    output.extend(length.to_be_bytes());
    output.extend(data);
}

fn list(data: &[u8], output: &mut Vec<u8>, export: &Export) {
    if !data.is_empty() {
        return answer(output, p::option::LIST, p::reply::ERR_INVALID, &[]);
    }
    let name = export.name.as_bytes();
    let length = u32::try_from(name.len()).expect("names are short");
    let entry = [&length.to_be_bytes(), name].concat();
    answer(output, p::option::LIST, p::reply::SERVER, &entry);
    answer(output, p::option::LIST, p::reply::ACK, &[]);
}

/// The name that an INFO or GO asks for and the kinds of information that it wants.
fn parse_info(mut data: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let length = usize::try_from(take_u32(&mut data)?).ok()?;
    let (name, mut rest) = data.split_at_checked(length)?;
    let count = take_u16(&mut rest)?;
    if rest.len() != usize::from(count) * 2 {
        return None;
    }
    let wanted = std::iter::from_fn(|| take_u16(&mut rest)).collect();
    Some((name, wanted))
}

/// Answers INFO or GO; whether the export was found.
fn describe(option: u32, data: &[u8], output: &mut Vec<u8>, export: &Export) -> bool {
    let Some((name, wanted)) = parse_info(data) else {
        answer(output, option, p::reply::ERR_INVALID, &[]);
        return false;
    };
    if !is_served(name, export) {
        answer(output, option, p::reply::ERR_UNKNOWN, &[]);
        return false;
    }
    let mut inform = |kind: u16, parts: &[&[u8]]| {
        let data = [&kind.to_be_bytes(), parts.concat().as_slice()].concat();
        answer(output, option, p::reply::INFO, &data);
    };
    inform(p::info::EXPORT, &[&export.size.to_be_bytes(), &p::transmission::SERVED.to_be_bytes()]);
    // Sent unasked, too: a client that ignores it only gets EINVAL for misaligned requests.
    let longest = u32::try_from(MAX_EXTENT_BYTES).expect("1 MiB");
    inform(
        p::info::BLOCK_SIZE,
        &[
            &export.block.to_be_bytes(),
            &PREFERRED_BLOCK.max(export.block).to_be_bytes(),
            &longest.to_be_bytes(),
        ],
    );
    if wanted.contains(&p::info::NAME) {
        inform(p::info::NAME, &[export.name.as_bytes()]);
    }
    answer(output, option, p::reply::ACK, &[]);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn export() -> Export {
        Export { name: "md1".into(), size: 1 << 20, block: 512 }
    }

    fn option(number: u32, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        [&OPTION_MAGIC.to_be_bytes()[..], &number.to_be_bytes(), &length.to_be_bytes(), data]
            .concat()
    }

    fn info_request(number: u32, name: &str, wanted: &[u16]) -> Vec<u8> {
        let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
        data.extend(name.as_bytes());
        data.extend(u16::try_from(wanted.len()).unwrap().to_be_bytes());
        data.extend(wanted.iter().flat_map(|w| w.to_be_bytes()));
        option(number, &data)
    }

    /// Feeds `input` in pieces; returns the end, the output after the greeting and what is left.
    fn run(input: &[u8], pieces: &[usize]) -> (Progress, Vec<u8>, Vec<u8>) {
        let mut output = Vec::new();
        let mut machine = Negotiation::new(&mut output);
        assert_eq!(output.len(), 18);
        output.clear();
        let mut sizes = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
        let (mut held, mut rest) = (Vec::new(), input);
        loop {
            let (piece, after) = rest.split_at(sizes.next().unwrap().max(1).min(rest.len()));
            rest = after;
            held.extend(piece);
            let mut unread = held.as_slice();
            let progress = machine.feed(&mut unread, &mut output, &export());
            held = unread.to_vec();
            if progress != Progress::NeedMore || rest.is_empty() {
                held.extend(rest);
                return (progress, output, held);
            }
        }
    }

    /// Types of the answers in `output`, with their data.
    fn answers(mut output: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
        let mut found = Vec::new();
        while let Some(magic) = take_u64(&mut output) {
            assert_eq!(magic, OPTION_REPLY_MAGIC);
            let option = take_u32(&mut output).unwrap();
            let kind = take_u32(&mut output).unwrap();
            let length = take_u32(&mut output).unwrap() as usize;
            found.push((option, kind, output[..length].to_vec()));
            output = &output[length..];
        }
        found
    }

    const FLAGS: [u8; 4] = [0, 0, 0, 3];

    fn with_flags(options: &[Vec<u8>]) -> Vec<u8> {
        [FLAGS.to_vec(), options.concat()].concat()
    }

    #[test]
    fn go_describes_the_export_and_ends() {
        for name in ["", "md1"] {
            let mut input = with_flags(&[info_request(p::option::GO, name, &[1, 3])]);
            input.extend(b"requests");
            let (progress, output, rest) = run(&input, &[]);
            assert_eq!((progress, rest.as_slice()), (Progress::Done, b"requests".as_slice()));
            let kinds: Vec<_> =
                answers(&output).into_iter().map(|(_, kind, data)| (kind, data)).collect();
            let size = [&[0, 0][..], &(1_u64 << 20).to_be_bytes(), &[0x01, 0x6d]].concat();
            let blocks = [0, 3, 0, 0, 2, 0, 0, 0, 16, 0, 0, 16, 0, 0].to_vec();
            let expected = [
                (p::reply::INFO, size),
                (p::reply::INFO, blocks),
                (p::reply::INFO, b"\0\x01md1".to_vec()),
                (p::reply::ACK, vec![]),
            ];
            assert_eq!(kinds, expected);
        }
    }

    #[test]
    fn the_old_option_has_padding_unless_declined() {
        for (flags, length) in [([0, 0, 0, 1], 134), ([0, 0, 0, 3], 10)] {
            let input = [flags.to_vec(), option(p::option::EXPORT_NAME, b"md1")].concat();
            let (progress, output, _) = run(&input, &[]);
            assert_eq!((progress, output.len()), (Progress::Done, length));
            assert_eq!(output[..8], (1_u64 << 20).to_be_bytes());
        }
        let input = with_flags(&[option(p::option::EXPORT_NAME, b"other")]);
        assert_eq!(run(&input, &[]).0, Progress::Close);
    }

    #[test]
    fn what_is_refused_leaves_the_negotiation_open() {
        let long = vec![7; 9000];
        let input = with_flags(&[
            option(p::option::STRUCTURED_REPLY, &[]),
            option(p::option::STARTTLS, &[]),
            option(4711, b"what"),
            info_request(p::option::GO, "other", &[]),
            option(p::option::INFO, b"junk"),
            option(p::option::LIST, b"junk"),
            option(p::option::INFO, &long),
            option(p::option::LIST, &[]),
            info_request(p::option::INFO, "md1", &[]),
            option(p::option::ABORT, &[]),
        ]);
        let (progress, output, _) = run(&input, &[]);
        assert_eq!(progress, Progress::Close);
        let kinds: Vec<_> = answers(&output).into_iter().map(|(_, kind, _)| kind).collect();
        use p::reply as r;
        let expected = [
            r::ERR_UNSUP,
            r::ERR_UNSUP,
            r::ERR_UNSUP,
            r::ERR_UNKNOWN,
            r::ERR_INVALID,
            r::ERR_INVALID,
            r::ERR_TOO_BIG,
            r::SERVER,
            r::ACK,
            r::INFO,
            r::INFO,
            r::ACK,
            r::ACK,
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn unknown_client_flags_and_wrong_magic_end_it() {
        assert_eq!(run(&[0, 0, 0, 4], &[]).0, Progress::Close);
        assert_eq!(run(&[FLAGS.as_slice(), &[9; 16]].concat(), &[]).0, Progress::Close);
    }

    proptest! {
        #[test]
        fn fragmentation_changes_nothing(pieces in prop::collection::vec(1_usize..40, 0..60)) {
            let input = with_flags(&[
                option(p::option::STRUCTURED_REPLY, &[]),
                option(p::option::INFO, &[0; 8200]),
                option(p::option::LIST, &[]),
                info_request(p::option::GO, "md1", &[3, 1]),
                b"tail".to_vec(),
            ]);
            prop_assert_eq!(run(&input, &pieces), run(&input, &[]));
        }

        #[test]
        fn garbage_does_no_harm(input in prop::collection::vec(any::<u8>(), 0..200)) {
            let (_, output, _) = run(&[FLAGS.as_slice(), &input].concat(), &[3, 5]);
            prop_assert!(output.len() < 200);
        }
    }
}
