//! Every decoder of foreign bytes, fed with anything. A target takes any bytes and panics if what
//! it feeds breaks a promise; `docs/testing.md` says how they are run.

mod input;
pub mod seeds;
mod targets;

/// One decoder, or one machine made of decoders.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name, for the command line and the folders of its inputs.
    pub name: &'static str,
    /// Feeds it; panics if a promise is broken.
    pub run: fn(&[u8]),
    /// Longest input worth trying, in bytes.
    pub max_len: usize,
    /// Inputs of a run that is the same each time, some three seconds of them.
    pub runs: u32,
}

pub use targets::TARGETS;

/// The target with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}
