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
    /// `--break`.
    pub separate: u64,
    /// Operations on a data partition that fail, in 100 000 (only on one server of a run).
    pub data_error: u64,
    /// Runs with `disk_error = "detach"`, in 1000.
    pub detach: u64,
    /// Partitions are made larger, and the mirror after them.
    pub grow: u64,
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
    /// Runs in which regions are marked ahead of the writes, in 1000.
    pub ahead: u64,
    /// Runs in which the partitions differ in size, in 1000.
    pub sizes: u64,
    /// A cut of the network that stops one direction only, in 1000.
    pub oneway: u64,
    /// A cut that leaves the agents' own network alone, or strikes only that, in 1000.
    pub paths: u64,
    /// A reset that only one end notices, in 1000.
    pub half_open: u64,
    /// Something strikes within half a millisecond of a message or record that decides, in 1000.
    pub moment: u64,
    /// Runs whose frames pass through the codec as bytes, in 1000.
    pub bytes: u64,
    /// Frames in which a bit is flipped on the way, in 100 000 (in those runs).
    pub flip: u64,
    /// Blocks that were being written when the power went and are left half old, half new, in 1000.
    pub torn: u64,
    /// Writes that land early and a second time at their end, in 1000.
    pub twice: u64,
    /// Reads of a data partition that fail, in 100 000 (on the server with the bad disk).
    pub read_error: u64,
    /// Writes to a cluster partition that hang over their time limit, in 100 000 (on that server).
    pub meta_hang: u64,
    /// The clock of a server jumps forward.
    pub clock: u64,
    /// The operator says something out of place.
    pub wrong: u64,
    /// The operator says several things at once.
    pub burst: u64,
    /// Runs in which the logical block sizes of the partitions differ, in 1000.
    pub blocks: u64,
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
            separate: 10,
            data_error: 0,
            detach: 0,
            grow: 0,
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
            ahead: 0,
            sizes: 0,
            oneway: 0,
            paths: 0,
            half_open: 0,
            moment: 0,
            bytes: 0,
            flip: 0,
            torn: 0,
            twice: 0,
            read_error: 0,
            meta_hang: 0,
            clock: 0,
            wrong: 0,
            burst: 0,
            blocks: 0,
            watch: None,
            verbose: false,
        }
    }

    /// No fault at all.
    #[must_use]
    pub fn none() -> Self {
        let mut options = Self::all();
        let kinds = options.kinds().into_iter().filter(|(name, _)| *name != "steps");
        kinds.for_each(|(_, rate)| *rate = 0);
        options
    }

    /// Every fault there is.
    #[must_use]
    pub const fn everything() -> Self {
        Self {
            claim: 100,
            data_error: 30,
            detach: 500,
            grow: 20,
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
            ahead: 300,
            sizes: 300,
            oneway: 300,
            paths: 300,
            half_open: 300,
            moment: 30,
            bytes: 100,
            flip: 30,
            torn: 200,
            twice: 50,
            read_error: 100,
            meta_hang: 10,
            clock: 10,
            wrong: 20,
            burst: 20,
            blocks: 200,
            ..Self::all()
        }
    }

    /// The kinds of faults, by the name on the command line.
    pub fn kinds(&mut self) -> [(&'static str, &mut u64); 44] {
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
            ("separate", &mut self.separate),
            ("data-error", &mut self.data_error),
            ("detach", &mut self.detach),
            ("grow", &mut self.grow),
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
            ("ahead", &mut self.ahead),
            ("sizes", &mut self.sizes),
            ("oneway", &mut self.oneway),
            ("paths", &mut self.paths),
            ("half-open", &mut self.half_open),
            ("moment", &mut self.moment),
            ("bytes", &mut self.bytes),
            ("flip", &mut self.flip),
            ("torn", &mut self.torn),
            ("twice", &mut self.twice),
            ("read-error", &mut self.read_error),
            ("meta-hang", &mut self.meta_hang),
            ("clock", &mut self.clock),
            ("wrong", &mut self.wrong),
            ("burst", &mut self.burst),
            ("blocks", &mut self.blocks),
            ("steps", &mut self.steps),
        ]
    }
}
