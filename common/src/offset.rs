//! Positions in a partition's log, and the epochs of its leaders.

use std::fmt;
use std::ops::{Add, Sub};

use bincode::{Decode, Encode};

/// Position of a record in its partition, counted from 0; ranges of offsets are half-open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Offset(i64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);

    /// Names an offset.
    ///
    /// # Panics
    ///
    /// Panics if `value` is negative; parse what comes from outside with [`Offset::checked`].
    #[must_use]
    pub fn new(value: i64) -> Self {
        assert!(value >= 0, "offset {value} is negative");
        Self(value)
    }

    /// Names an offset that came from outside; `None` if it is negative.
    #[must_use]
    pub fn checked(value: i64) -> Option<Self> {
        (value >= 0).then_some(Self(value))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }

    /// The offset `records` further on, as far as offsets go.
    #[must_use]
    pub fn saturating_add(self, records: i64) -> Self {
        Self(self.0.saturating_add(records).max(0))
    }
}

impl Add<i64> for Offset {
    type Output = Self;
    fn add(self, records: i64) -> Self {
        Self::new(self.0 + records)
    }
}

impl Sub for Offset {
    type Output = i64;
    fn sub(self, other: Self) -> i64 {
        self.0 - other.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reign of one leader of a partition, strictly increasing (KIP-101).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct LeaderEpoch(pub i32);

impl LeaderEpoch {
    /// The reign after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
