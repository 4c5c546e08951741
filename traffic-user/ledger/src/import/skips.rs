//! What was found in PVA's database and is not taken over, counted by reason.

use std::collections::BTreeMap;

use serde::Serialize;

/// Why something is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// A definition of a network counter that is none of the four known ones.
    UnknownCounter,
    /// A definition whose owner is no id of a container.
    BadContainerId,
    /// A definition whose instance is neither empty nor a class of 0 to 254.
    BadClass,
    /// A definition under a number that another one has already.
    DuplicateDefinition,
    /// A sample of a counter that is not defined.
    UndefinedCounter,
    /// A sample whose time is no time of this century.
    BadTime,
    /// A sample whose value is no number.
    NotANumber,
    /// A sample below zero.
    Negative,
    /// A sample above 2^47, which no interface carries between two readings.
    TooLarge,
    /// A second sample of the same counter and time.
    DuplicateSample,
    /// A sample of a time that the ledger itself counts.
    AfterUntil,
    /// A sample that reaches over the begin of the ledger's own counting: part of it is counted already.
    OverBegin,
    /// A sample of a closed period.
    ClosedPeriod,
}

impl SkipReason {
    /// The reason for people: what it is about, and why.
    pub const fn text(self) -> &'static str {
        match self {
            Self::UnknownCounter => "counters that are neither bytes nor packets in or out",
            Self::BadContainerId => "counters whose owner is no id of a container",
            Self::BadClass => "counters whose instance is no class",
            Self::DuplicateDefinition => "definitions under a number that was defined before",
            Self::UndefinedCounter => "samples of counters that are not defined",
            Self::BadTime => "samples whose time is no time of this century",
            Self::NotANumber => "samples whose value is no number",
            Self::Negative => "samples below zero",
            Self::TooLarge => "samples above 2^47",
            Self::DuplicateSample => "samples of a counter and time that were there before",
            Self::AfterUntil => "samples from where this ledger counts itself",
            Self::OverBegin => "samples that reach over the begin of this ledger's own counting",
            Self::ClosedPeriod => "samples of a closed period",
        }
    }
}

/// So many things that were not taken over for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The reason.
    pub reason: SkipReason,
    /// The closed period, where that is the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
    /// How many.
    pub count: u64,
    /// The first one.
    pub first: String,
}

/// The counts while they grow.
#[derive(Debug, Default)]
pub(super) struct Skips(BTreeMap<(SkipReason, Option<String>), (u64, String)>);

impl Skips {
    /// Counts one; `what` is told when it is the first.
    pub fn note(&mut self, reason: SkipReason, what: impl FnOnce() -> String) {
        self.note_many(reason, None, 1, what);
    }

    /// Counts several at once.
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
