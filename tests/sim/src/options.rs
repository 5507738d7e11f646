//! What a run may do to the mirrors.

/// Rates are per mille of the operator's and fate's steps.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Steps with faults, before everything is healed and must converge.
    pub steps: u64,
    /// The agent of a server is killed.
    pub kill: u64,
    /// A server loses power.
    pub power: u64,
    /// The network is cut for a while.
    pub cut: u64,
    /// A connection is reset.
    pub reset: u64,
    /// `--force` by the operator.
    pub force: u64,
    /// `--active` and `--deactive`.
    pub switch: u64,
    /// `--recovery` and `--cancel`.
    pub recovery: u64,
    /// Report every write that lands at this 4 KiB block.
    pub watch: Option<usize>,
    /// Print each event.
    pub verbose: bool,
}

impl Options {
    /// Everything together.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            steps: 120,
            kill: 60,
            power: 40,
            cut: 80,
            reset: 80,
            force: 15,
            switch: 300,
            recovery: 60,
            watch: None,
            verbose: false,
        }
    }
}
