//! A quota as checked.

use serde::Serialize;

use crate::{period::Period, scope::Scope, usage::Used};

/// What a container may use in a period.
#[derive(Clone, Debug, PartialEq)]
pub struct Quota {
    /// Its name. Of several quotas of one name, a container has one.
    pub name: String,
    /// The line of the file on which it begins, from 1.
    pub line: usize,
    /// Which containers it is for.
    pub scope: Scope,
    /// How much they may use.
    pub limit: Limit,
    /// What counts.
    pub direction: Direction,
    /// The classes that count; empty for all that are billed.
    pub classes: Vec<u8>,
    /// The period.
    pub period: Period,
    /// What a container may use in the period in which it was first seen.
    pub first_period: FirstPeriod,
    /// Percent of the limit at which attention is due, in ascending order.
    pub thresholds: Vec<u16>,
    /// The names of the actions that run when a threshold is reached.
    pub actions: Vec<(u16, Vec<String>)>,
}

/// How much a container may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Bytes in each period; never 0.
    Volume(u64),
    /// A rate at a percentile of the five-minute rates of each period.
    Rate {
        /// Bits per second; never 0.
        bits_per_s: u64,
        /// The percentile, above 0 and at most 100.
        percentile: f64,
    },
    /// As much as it likes.
    Unlimited,
}

/// What counts against a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Traffic to the container.
    In,
    /// Traffic from the container.
    Out,
    /// Both together.
    #[default]
    Sum,
    /// The direction that has more in the period.
    Larger,
}

impl Direction {
    /// All directions, with their names in the file and in output.
    pub const ALL: [(Self, &'static str); 4] =
        [(Self::In, "in"), (Self::Out, "out"), (Self::Sum, "sum"), (Self::Larger, "larger")];

    /// The name in the file and in output.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(direction, _)| *direction == self).map_or("", |(_, name)| name)
    }

    /// What of both directions counts.
    pub fn of(self, used: Used) -> u64 {
        match self {
            Self::In => used.incoming,
            Self::Out => used.outgoing,
            Self::Sum => used.together.unwrap_or_else(|| used.incoming.saturating_add(used.outgoing)),
            Self::Larger => used.incoming.max(used.outgoing),
        }
    }
}

/// What a container may use in the period in which it was first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FirstPeriod {
    /// The whole allowance.
    #[default]
    Whole,
    /// The part of it that the rest of the period is of the whole period.
    Share,
}
