//! Statistics of the kernel test and the relabellings that they are compared with.

/// Permutations drawn where not all are taken.
pub const PERMUTATIONS: u32 = 1_999;

/// Up to this many relabellings of all cases together are all taken.
pub const ENUMERATED: u64 = 32_768;

/// What may be relabelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relabelling {
    /// Trials of a session: they are independent of each other given the session.
    Trials,
    /// Whole arms of a session only: its trials share state (a cache, a seed). [`Statistic::Within`] and
    /// [`Statistic::Single`] are then the same both ways and absent. Exact where both arms have as many trials.
    Sessions,
}

/// Which change is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Statistic {
    /// Each session's own change.
    Within,
    /// A change that the sessions have in common.
    Cross,
    /// More or less variety.
    Dispersion,
    /// A single trial unlike the others.
    Single,
}

impl Statistic {
    pub(super) const COUNT: usize = 4;

    /// All of them, in the order in which they are told.
    pub const ALL: [Self; Self::COUNT] = [Self::Within, Self::Cross, Self::Dispersion, Self::Single];

    /// The word as it is stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    pub(super) fn place(self) -> usize {
        match self {
            Self::Within => 0,
            Self::Cross => 1,
            Self::Dispersion => 2,
            Self::Single => 3,
        }
    }
}
