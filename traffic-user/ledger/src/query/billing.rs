//! What is billed: the counted figures of a row, the corrections of its closed periods, and their sum.
//!
//! A correction is in the row of its container, class and family whose step contains its whole period. In
//! shorter steps, or where the span holds only a part of the period, it is in no row. Class 0 is not billed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    closing::{
        adjust::PeriodAdjustment,
        correction::{Adjustment, Signed},
    },
    figures::{Basis, Figures, Volume},
    query::query_plan::{LineKey, Plan},
};

/// Packets and bytes to add, or to subtract if negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SignedVolume {
    /// Packets.
    pub packets: i64,
    /// Bytes, on the report's basis.
    pub bytes: i64,
}

impl SignedVolume {
    const fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn of(volume: Volume) -> Self {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        Self { packets: signed(volume.packets), bytes: signed(volume.bytes) }
    }
}

/// Signed volumes of both directions. A row about a single direction omits the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SignedFigures {
    /// Traffic to the container.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub incoming: Option<SignedVolume>,
    /// Traffic from the container.
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<SignedVolume>,
    /// The sum of the directions that are present.
    pub total: SignedVolume,
}

impl SignedFigures {
    fn new(incoming: Option<SignedVolume>, outgoing: Option<SignedVolume>) -> Self {
        let total = incoming.unwrap_or_default().add(outgoing.unwrap_or_default());
        Self { incoming, outgoing, total }
    }

    /// Converts signed packets and layer-3 bytes.
    fn from_sums(sums: Signed, basis: Basis) -> Self {
        let volume = |packets: i64, l3_bytes: i64| {
            let overhead = basis.overhead().cast_signed();
            let bytes = l3_bytes.saturating_add(packets.saturating_mul(overhead));
            Some(SignedVolume { packets, bytes })
        };
        Self::new(volume(sums[0], sums[1]), volume(sums[2], sums[3]))
    }

    /// Whether no direction has packets or bytes.
    pub fn is_zero(&self) -> bool {
        let zero = SignedVolume::default();
        [self.incoming, self.outgoing].into_iter().flatten().all(|volume| volume == zero)
            && self.total == zero
    }

    fn add_figures(&self, figures: &Figures) -> Self {
        let sum = |signed: Option<SignedVolume>, volume: Option<Volume>| {
            volume.map(|volume| signed.unwrap_or_default().add(SignedVolume::of(volume)))
        };
        Self::new(sum(self.incoming, figures.incoming), sum(self.outgoing, figures.outgoing))
    }
}

/// What a row is billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Billing {
    /// The counted figures. In a closed month they are frozen.
    pub billed: Figures,
    /// Sum of the corrections.
    pub corrected: SignedFigures,
    /// What to bill: both together.
    pub to_bill: SignedFigures,
}

impl Billing {
    /// Adds corrections to counted figures.
    pub(crate) fn new(billed: Figures, corrections: Signed, basis: Basis) -> Self {
        let corrected = SignedFigures::from_sums(corrections, basis);
        Self { billed, corrected, to_bill: corrected.add_figures(&billed) }
    }

    /// The part of one direction.
    pub(crate) fn only(self, incoming: bool) -> Self {
        let signed = |figures: SignedFigures| {
            if incoming {
                SignedFigures::new(figures.incoming, None)
            } else {
                SignedFigures::new(None, figures.outgoing)
            }
        };
        Self {
            billed: self.billed.only(incoming),
            corrected: signed(self.corrected),
            to_bill: signed(self.to_bill),
        }
    }
}

/// A correction in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedAdjustment {
    /// The correction.
    #[serde(flatten)]
    pub adjustment: Adjustment,
    /// Whether it is in `corrected` and `to_bill` of a row. It is not where the steps are shorter than its
    /// month, or where the span holds only a part of the month.
    pub in_rows: bool,
}

/// Corrections by row, and all of them with where they are.
pub(crate) struct Assigned {
    pub by_line: BTreeMap<LineKey, Signed>,
    pub all: Vec<ReportedAdjustment>,
}

/// Assigns corrections to the rows of a report.
pub(crate) fn assign(plan: &Plan<'_>, adjustments: &[PeriodAdjustment]) -> Assigned {
    let mut assigned = Assigned { by_line: BTreeMap::new(), all: Vec::with_capacity(adjustments.len()) };
    for PeriodAdjustment { container, span, adjustment } in adjustments {
        let split = plan.query.split;
        let step = plan.step_of_period(*span).filter(|_| adjustment.class != 0);
        if let Some(step) = step {
            let class = split.class.then_some(adjustment.class);
            let family = split.family.then_some(adjustment.family);
            let sums = assigned.by_line.entry((step, *container, class, family, true)).or_default();
            *sums = add(*sums, adjustment.signed());
        }
        let reported = ReportedAdjustment { adjustment: adjustment.clone(), in_rows: step.is_some() };
        assigned.all.push(reported);
    }
    assigned
}

/// Adds two sums.
pub(crate) fn add(a: Signed, b: Signed) -> Signed {
    [0, 1, 2, 3].map(|at| a[at].saturating_add(b[at]))
}
