//! What an import skips, counted by reason.

use std::collections::BTreeMap;

use serde::Serialize;

/// Why a definition or sample is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// A definition of an unknown network counter.
    UnknownCounter,
    /// A definition whose owner is not a container id.
    BadContainerId,
    /// A definition whose instance is neither empty nor a class from 0 to 254.
    BadClass,
    /// A second definition under the same number.
    DuplicateDefinition,
    /// A sample of an undefined counter.
    UndefinedCounter,
    /// A sample whose time is not between 2000 and 2100.
    BadTime,
    /// A sample whose value is not a number.
    NotANumber,
    /// A negative sample.
    Negative,
    /// A sample above 2^47, which no interface carries between two readings.
    TooLarge,
    /// A second sample of the same counter and time.
    DuplicateSample,
    /// A sample from the time that the ledger counts itself.
    AfterUntil,
    /// A sample that spans the start of the ledger's own counting, which counted part of it already.
    OverBegin,
    /// A sample in a closed period.
    ClosedPeriod,
}

impl SkipReason {
    /// Describes the skipped items for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::UnknownCounter => "counters that are neither bytes nor packets in or out",
            Self::BadContainerId => "counters whose owner is not a container id",
            Self::BadClass => "counters whose instance is not a class",
            Self::DuplicateDefinition => "repeated definitions of a counter",
            Self::UndefinedCounter => "samples of undefined counters",
            Self::BadTime => "samples whose time is not between 2000 and 2100",
            Self::NotANumber => "samples whose value is not a number",
            Self::Negative => "negative samples",
            Self::TooLarge => "samples above 2^47",
            Self::DuplicateSample => "repeated samples of a counter and time",
            Self::AfterUntil => "samples from the time that this ledger counts itself",
            Self::OverBegin => "samples that span the start of this ledger's own counting",
            Self::ClosedPeriod => "samples in the closed period",
        }
    }
}

/// Number of items skipped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The reason.
    pub reason: SkipReason,
    /// The closed period, if that is the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
    /// Number of items.
    pub count: u64,
    /// The first item.
    pub first: String,
}

/// Counts skipped items by reason.
#[derive(Debug, Default)]
pub(super) struct Skips(BTreeMap<(SkipReason, Option<String>), (u64, String)>);

impl Skips {
    /// Counts one item. `what` describes it and is called for the first item of a reason.
    pub fn note(&mut self, reason: SkipReason, what: impl FnOnce() -> String) {
        self.note_many(reason, None, 1, what);
    }

    /// Counts several items.
    pub fn note_many(
        &mut self,
        reason: SkipReason,
        period: Option<&str>,
        count: u64,
        what: impl FnOnce() -> String,
    ) {
        if count == 0 {
            return;
        }
        let entry = self.0.entry((reason, period.map(str::to_owned))).or_insert_with(|| (0, what()));
        entry.0 += count;
    }

    pub fn into_list(self) -> Vec<Skipped> {
        self.0
            .into_iter()
            .map(|((reason, period), (count, first))| Skipped { reason, period, count, first })
            .collect()
    }
}
