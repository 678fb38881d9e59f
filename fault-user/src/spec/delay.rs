//! How long an operation is held back: shared by the layers.

use std::path::PathBuf;
use std::time::Duration;

use super::source::Located;
use super::trigger::Probability;

/// The operands of `delay`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelaySpec {
    /// The mean delay: 0 up to the layer's longest ([`NET_DELAY_MAX`], [`DISK_HOLD_MAX`]).
    pub mean: Duration,
    /// `jitter J`: half the width (uniform) or the spread (the others) around the mean, with the
    /// same upper limit. With the uniform distribution at most `mean`; with the others a draw
    /// below zero means no delay.
    pub jitter: Option<Duration>,
    /// The shape of the jitter; [`Distribution::Uniform`] when there is no jitter.
    pub distribution: Distribution,
    /// `table FILE`, with jitter and in place of the distribution: a file in the format of netem's (`*.dist` of iproute2). An
    /// absolute path.
    pub table: Option<Located<PathBuf>>,
    /// `correlation C%`, with jitter: how much a delay resembles the one before of the same socket and direction, or thread. The
    /// rank correlation (Spearman's) of the two; the distribution stays what it is.
    pub correlation: Option<Probability>,
    /// `ordered`: jitter never lets one packet overtake another of the same flow. Net only.
    pub ordered: bool,
}

impl DelaySpec {
    /// The same delay for everyone.
    pub fn constant(mean: Duration) -> Self {
        Self {
            mean,
            jitter: None,
            distribution: Distribution::Uniform,
            table: None,
            correlation: None,
            ordered: false,
        }
    }
}

/// The shape of the jitter around the mean, with netem's meaning (tc-netem(8)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Distribution {
    /// Every delay from mean − jitter to mean + jitter alike.
    #[default]
    Uniform,
    /// Bell curve with the jitter as its standard deviation.
    Normal,
    /// Long tail to the right (shape 3), normalised to the mean and the jitter as standard deviation.
    Pareto,
    /// A quarter normal and three quarters Pareto, as netem mixes them.
    ParetoNormal,
}

impl Distribution {
    /// The word for it in a spec.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Normal => "normal",
            Self::Pareto => "pareto",
            Self::ParetoNormal => "paretonormal",
        }
    }
}

/// The longest delay of a packet: an hour.
pub const NET_DELAY_MAX: Duration = Duration::from_secs(3600);

/// The longest a block operation may be held: 60 s, the limit of the parking lot.
pub const DISK_HOLD_MAX: Duration = Duration::from_secs(60);
