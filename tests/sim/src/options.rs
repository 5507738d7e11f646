//! What a run may do to the mirrors.

/// Rates are per mille of the operator's and fate's steps.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Steps with faults, before everything is healed and must converge.
    pub steps: u64,
    /// The agent of a server is killed.
    pub kill: u64,
    /// The agent of a server is killed, and its device lives.
    pub survive: u64,
    /// The agent is stopped and leaves its device to the next.
    pub suspend: u64,
    /// Agents that die between an operation and its answer, in 100 000 answers.
    pub unanswered: u64,
    /// An agent starts with a device that is not its own or not of this boot.
    pub claim: u64,
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
    /// Operations on a data partition that fail, in 100 000 (only on one server of a run).
    pub data_error: u64,
    /// Writes to a cluster partition that fail, in 100 000 (only on that server).
    pub meta_error: u64,
    /// Operations that hang over their time limit and land later, in 100 000 (on that server).
    pub hang: u64,
    /// Operations that take up to a second, in 1000.
    pub slow: u64,
    /// A byte of a cluster partition rots before the agent starts.
    pub rot: u64,
    /// The disks of a server are replaced, or its cluster partition is zeroed (on one server).
    pub blank: u64,
    /// Both partitions of a server are restored from an image (on one server).
    pub image: u64,
    /// A second connection comes up beside the first.
    pub overlap: u64,
    /// Connections that were closed still deliver what was under way, in 1000.
    pub ghosts: u64,
    /// The agent is stopped and started in order.
    pub stop: u64,
    /// The cluster manager vouches for a server that is really off.
    pub vouch: u64,
    /// Runs with `alone = "fenced"`, in 1000.
    pub fenced: u64,
    /// Runs in which recovery starts only while active, or never, in 1000.
    pub reluctant: u64,
    /// Runs in which the partitions differ in size, in 1000.
    pub sizes: u64,
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
            survive: 40,
            suspend: 25,
            unanswered: 30,
            claim: 0,
            power: 40,
            cut: 80,
            reset: 80,
            force: 15,
            switch: 300,
            recovery: 60,
            data_error: 0,
            meta_error: 0,
            hang: 0,
            slow: 0,
            rot: 0,
            blank: 0,
            image: 0,
            overlap: 0,
            ghosts: 0,
            stop: 0,
            vouch: 0,
            fenced: 0,
            reluctant: 0,
            sizes: 0,
            watch: None,
            verbose: false,
        }
    }

    /// Every fault there is.
    #[must_use]
    pub const fn everything() -> Self {
        Self {
            claim: 100,
            data_error: 30,
            meta_error: 20,
            hang: 15,
            slow: 3,
            rot: 200,
            blank: 8,
            image: 15,
            overlap: 60,
            ghosts: 300,
            stop: 60,
            vouch: 60,
            fenced: 150,
            reluctant: 200,
            sizes: 300,
            ..Self::all()
        }
    }

    /// The kinds of faults, by the name on the command line.
    pub fn kinds(&mut self) -> [(&'static str, &mut u64); 26] {
        [
            ("kill", &mut self.kill),
            ("survive", &mut self.survive),
            ("suspend", &mut self.suspend),
            ("unanswered", &mut self.unanswered),
            ("claim", &mut self.claim),
            ("power", &mut self.power),
            ("cut", &mut self.cut),
            ("reset", &mut self.reset),
            ("force", &mut self.force),
            ("switch", &mut self.switch),
            ("recovery", &mut self.recovery),
            ("data-error", &mut self.data_error),
            ("meta-error", &mut self.meta_error),
            ("hang", &mut self.hang),
            ("slow", &mut self.slow),
            ("rot", &mut self.rot),
            ("blank", &mut self.blank),
            ("image", &mut self.image),
            ("overlap", &mut self.overlap),
            ("ghosts", &mut self.ghosts),
            ("stop", &mut self.stop),
            ("vouch", &mut self.vouch),
            ("fenced", &mut self.fenced),
            ("reluctant", &mut self.reluctant),
            ("sizes", &mut self.sizes),
            ("steps", &mut self.steps),
        ]
    }
}
