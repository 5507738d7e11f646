//! Units and identities as types, so that a byte offset, a region number and a generation can
//! never be taken for each other.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes in one region: the grain of marks and of recovery (64 KiB).
pub const REGION_BYTES: u64 = 64 * 1024;

/// Largest extent of one request, frame or copy, in bytes (1 MiB). Longer requests are split by
/// the front end.
pub const MAX_EXTENT_BYTES: u64 = 1024 * 1024;

/// Largest size of a mirror, in bytes (one region below 256 TiB: the number of regions, too, fits in
/// 32 bits).
pub const MAX_MIRROR_BYTES: u64 = (256 << 40) - REGION_BYTES;

/// A run of bytes of the mirror: `[offset, offset + len)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Extent {
    /// First byte, counted from the start of the data partition.
    pub offset: u64,
    /// Length in bytes; 0 only for requests that have no extent (flush).
    pub len: u64,
}

impl Extent {
    /// An extent of `len` bytes from `offset`.
    #[must_use]
    pub const fn new(offset: u64, len: u64) -> Self {
        Self { offset, len }
    }

    /// First byte after the extent; saturates, so a hostile extent cannot wrap.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }

    /// Whether the two extents share a byte. An empty extent shares none.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.len != 0 && other.len != 0 && self.offset < other.end() && other.offset < self.end()
    }

    /// The regions that the extent touches, first to last, as a half-open range.
    #[must_use]
    pub fn regions(self) -> std::ops::Range<u32> {
        if self.len == 0 {
            return 0..0;
        }
        let first = self.offset / REGION_BYTES;
        let last = (self.end() - 1) / REGION_BYTES;
        region_number(first)..region_number(last + 1)
    }

    /// Whether the extent is within a mirror of `size` bytes, aligned to `block` bytes, not empty
    /// and not longer than [`MAX_EXTENT_BYTES`].
    #[must_use]
    pub fn is_valid_for(self, size: u64, block: u32) -> bool {
        let block = u64::from(block.max(1));
        self.len != 0
            && self.len <= MAX_EXTENT_BYTES
            && self.offset % block == 0
            && self.len % block == 0
            && self.offset.checked_add(self.len).is_some_and(|end| end <= size)
    }
}

fn region_number(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// How many regions a mirror of `size` bytes has (the last one may be partial).
#[must_use]
pub fn regions_in(size: u64) -> u32 {
    region_number(size.div_ceil(REGION_BYTES))
}

/// The bytes of region `number` in a mirror of `size` bytes.
#[must_use]
pub fn region_extent(number: u32, size: u64) -> Extent {
    let offset = u64::from(number) * REGION_BYTES;
    Extent::new(offset, REGION_BYTES.min(size.saturating_sub(offset)))
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
        )]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
    };
}

number!(
    /// Number of a session between the two servers; 0 = there has been none.
    SessionNo
);
number!(
    /// Number of an activation, counted over both servers; 0 = never activated.
    ActivationNo
);

/// A generation of the data: a random number that is never 0. Two sides of one generation have
/// the same history of writes that completed alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(std::num::NonZeroU64);

impl Generation {
    /// The generation with this number, or `None` for 0, which stands for *no history*.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        match std::num::NonZeroU64::new(number) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "G{:016x}", self.0)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Random 16-byte identity of a mirror, a device or a boot. All zero = not set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Id16(pub [u8; 16]);

impl Id16 {
    /// Not set.
    pub const NONE: Self = Self([0; 16]);

    /// Whether it is not set.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl fmt::Debug for Id16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Which of the two servers, by their order in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Side {
    /// The first server of the configuration.
    First,
    /// The second server of the configuration.
    Second,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// 0 or 1.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
}

/// Monotonic time in milliseconds since an arbitrary start; never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// This time plus `ms` milliseconds.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; 0 if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The time handed in with every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Monotonic clock: all time limits.
    pub mono: Millis,
    /// Wall clock in seconds since 1970 UTC: only shown to operators, never decided upon.
    pub wall: i64,
}
