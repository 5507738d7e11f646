//! Switches that drop rules of the mirror, so that the simulator can show that it would notice.
//!
//! Without the cargo feature `mutations`, [`holds`] is a constant and nothing of this is left in
//! the program. With it, [`drop_rules`] drops some for the calling thread: one, or a rule together
//! with the one that covers for it.

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// A rule that can be dropped, by what it demands.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Rule {
            $($(#[$doc])* $variant,)*
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name on the simulator's command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

rules! {
    /// A write waits for the durable marks of its regions.
    IntentFirst = "intent-first";
    /// A mark goes after a flush that began when its last write had ended.
    ClearLate = "clear-late";
    /// A mark stays while a write to its region is in flight.
    ClearIdle = "clear-idle";
    /// A region whose clearing is queued or in flight is unmarked.
    QueuedClear = "queued-clear";
    /// Marks of an earlier session are cleared by a copy only.
    DirtyAtStart = "dirty-at-start";
    /// The record of going alone is durable before anything completes alone.
    BreakRecord = "break-record";
    /// A peer that was offered the generation may hold it.
    MayHold = "may-hold";
    /// A flush over what the peer has not flushed needs the record of going alone.
    FlushAlone = "flush-alone";
    /// So does a flush over what a dead peer or process wrote on both disks.
    FlushInherited = "flush-inherited";
    /// The target is durably inconsistent before the first block lands.
    InconsistentFirst = "inconsistent-first";
    /// Marks of copied regions go after both disks have flushed.
    FlushCopied = "flush-copied";
    /// Once told to adopt, the target is not known to be behind.
    ToldMayHold = "told-may-hold";
    /// A side that has shown its card completes nothing alone.
    CardFreezes = "card-freezes";
    /// No session opens over operations of an older one.
    Drain = "drain";
    /// A flush means both disks.
    FlushBoth = "flush-both";
    /// A durable write is durable on both disks.
    FuaBoth = "fua-both";
    /// The bytes written here are the very bytes sent.
    OneCopy = "one-copy";
    /// A discard leaves zeros on both disks. (Upheld by the driver of `mirror-agent`, and by the
    /// simulator in its place.)
    DiscardZeroes = "discard-zeroes";
    /// Overlapping operations go one after the other.
    Overlap = "overlap";
    /// A read waits for an overlapping write.
    ReadsWait = "reads-wait";
    /// Settling goes out from the active side.
    SettleActive = "settle-active";
    /// Settling goes out from the only uninterrupted side.
    SettleUninterrupted = "settle-uninterrupted";
    /// A side that left a write undecided does not count as uninterrupted.
    Undecided = "undecided";
    /// Settling goes out from the side activated last.
    SettleActivation = "settle-activation";
    /// An interrupted target of settling is half copied meanwhile.
    SettleIncomplete = "settle-incomplete";
    /// A half-copied or behind side is no source.
    AbnormalSource = "abnormal-source";
    /// A half-copied or behind side is not activated without contact.
    AbnormalActive = "abnormal-active";
    /// A side that has seen a newer peer knows that it is behind.
    NoteNewer = "note-newer";
    /// A side that has gone on alone, or is being forced, does not confirm that it is behind.
    ToldApart = "told-apart";
    /// A standby that stops before its peer records that it is behind.
    StopBehind = "stop-behind";
    /// The peer grants an activation.
    Grant = "grant";
    /// An activation without contact leaves out the number that the peer may have granted unheard.
    SkipGranted = "skip-granted";
    /// An activation that was granted may begin after a force without contact.
    GrantUnsure = "grant-unsure";
    /// The activation is durable before the first request.
    ActivationFirst = "activation-first";
    /// A side that restarted while its peer was active is not activated without contact.
    PeerWasActive = "peer-was-active";
    /// A side that was active when it went down is not activated without contact.
    WasActive = "was-active";
    /// Two sides that went apart are a split brain.
    SplitBrain = "split-brain";
    /// Two active sides open no session.
    BothActive = "both-active";
    /// Frames of another session are refused.
    SessionFrames = "session-frames";
    /// Frames of a connection that was given up are dropped.
    ConnFrames = "conn-frames";
    /// A record counts once both copies are written.
    TwoCopies = "two-copies";
    /// A bad copy of the record is repaired before anything else is written.
    RepairFirst = "repair-first";
    /// A bitmap block that does not verify is all dirty.
    DamagedDirty = "damaged-dirty";
    /// Session numbers that cannot both be true mean a restored side.
    Restored = "restored";
    /// The difference is copied only if the marks reach back to what the target holds.
    ReachBack = "reach-back";
    /// Nothing is copied onto a blank side from one that cannot know that it is the latest.
    BlankUnsure = "blank-unsure";
    /// A forced side owes everything.
    ForceOwes = "force-owes";
    /// A force does not outweigh a side that was activated since.
    ForceSince = "force-since";
    /// A force without contact outweighs what the other side was activated as before.
    ForceUnseen = "force-unseen";
    /// What is declared the truth is flushed first.
    ForceFlushes = "force-flushes";
    /// A disk error is remembered.
    ErrorKept = "error-kept";
    /// A write or a flush that fails, fails the device.
    ErrorFails = "error-fails";
    /// A cluster partition that fails, or hangs over its limit, fails the device.
    MetaFails = "meta-fails";
    /// A side whose disk failed has recorded that before it works with the peer's.
    DetachSelf = "detach-self";
    /// Nothing completes on the peer's disk alone before the peer has recorded that it does.
    DetachPeer = "detach-peer";
    /// A side whose disk failed reads from the peer's.
    DetachReads = "detach-reads";
    /// What a mirror has grown by counts as different from the moment of the record on.
    GrownDirty = "grown-dirty";
    /// A side that copies what the mirror has grown by is half copied meanwhile.
    GrownIncomplete = "grown-incomplete";
    /// The device grows when both sides have recorded it.
    GrownBoth = "grown-both";
    /// A block of the source that cannot be read ends the recovery.
    UnreadableEnds = "unreadable-ends";
    /// Writes do not wait for the copies of a recovery.
    LiveCredit = "live-credit";
    /// A bad sector is read from the peer only where nothing is dirty.
    CleanPeerRead = "clean-peer-read";
    /// An agent starts when the last operation of its predecessor has ended. (Upheld by the lock of
    /// `mirror-agent`, and by the simulator in its place.)
    Lock = "lock";
    /// A device that is alive under the boot of its activation is served: that is no activation.
    Resumes = "resumes";
    /// A device that is alive is served only if the record says *active*.
    ResumeActive = "resume-active";
    /// A device that is alive is served only under the boot of its activation.
    ResumeBoot = "resume-boot";
    /// A resumed side gives way to a peer that took over.
    ResumeYields = "resume-yields";
    /// A read on a resumed side waits for contact, and for what an earlier agent had under way.
    ResumeReads = "resume-reads";
    /// A target whose settling has stopped knows itself behind before the source shows what it may lack.
    StoppedBehind = "stopped-behind";
    /// The first flush of a resumed side covers what an earlier agent acknowledged.
    ResumeUnflushed = "resume-unflushed";
    /// `alone = "fenced"` waits for a word on the peer.
    Fenced = "fenced";
    /// With `alone = "fenced"` nothing is recorded of going alone before that word.
    WordFirst = "word-first";
}

#[cfg(feature = "mutations")]
mod switch {
    use super::Rule;
    use std::cell::Cell;

    thread_local! {
        /// One bit for each rule.
        static DROPPED: Cell<u128> = const { Cell::new(0) };
    }

    const _: () = assert!(Rule::ALL.len() <= 128, "one bit for each rule");

    const fn bit(rule: Rule) -> u128 {
        1 << rule as u32
    }

    /// Drops `rules`, and no others, for the calling thread, from now on.
    pub fn drop_rules(rules: &[Rule]) {
        DROPPED.set(rules.iter().fold(0, |all, rule| all | bit(*rule)));
    }

    /// Whether `rule` is in force.
    #[must_use]
    pub fn holds(rule: Rule) -> bool {
        DROPPED.get() & bit(rule) == 0
    }
}

#[cfg(feature = "mutations")]
pub use switch::{drop_rules, holds};

/// Whether `rule` is in force: always.
#[cfg(not(feature = "mutations"))]
#[must_use]
pub const fn holds(_rule: Rule) -> bool {
    true
}

/// Whether rules can be dropped in this build.
pub const CAN_DROP: bool = cfg!(feature = "mutations");
