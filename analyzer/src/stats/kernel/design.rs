//! Statistics of the kernel test and the relabellings that they are compared with.

/// Number of permutations drawn if not all are evaluated.
pub const PERMUTATIONS: u32 = 1_999;

/// Largest number of relabellings of all cases together that is enumerated.
pub const ENUMERATED: u64 = 32_768;

/// Unit that is relabelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relabelling {
    /// Trials of a session, which are independent given the session.
    Trials,
    /// Whole arms of a session only, because its trials share state (a cache, a seed). [`Statistic::Within`] and
    /// [`Statistic::Single`] do not change under a swap and are absent. The test is exact if both arms have as many
    /// trials.
    Sessions,
}

/// Statistic of the kernel test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Statistic {
    /// Each session's own change.
    Within,
    /// A change common to the sessions.
    Cross,
    /// More or less variety.
    Dispersion,
    /// A single trial unlike the others.
    Single,
}

impl Statistic {
    pub(super) const COUNT: usize = 4;

    /// All statistics, in the order of a verdict.
    pub const ALL: [Self; Self::COUNT] = [Self::Within, Self::Cross, Self::Dispersion, Self::Single];

    /// Name in `verdict.json`.
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
