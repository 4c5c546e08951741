//! What is wrong, with the kind that alerts and scripts know it by.

use traffic_quota::ProblemKind;

use crate::health::Part;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub kind: ProblemKind,
    /// What is wrong, and what to do.
    pub text: String,
}

/// Problems of one kind.
pub(super) fn of_kind(
    kind: ProblemKind,
    texts: impl IntoIterator<Item = String>,
) -> impl Iterator<Item = Problem> {
    texts.into_iter().map(move |text| Problem { kind, text })
}

/// The kind of what a part of the daemon complains about.
pub(super) fn kind_of_part(name: &str) -> ProblemKind {
    let is = |part: Part| part.name() == name;
    match () {
        () if is(Part::Configuration) => ProblemKind::Configuration,
        () if is(Part::ClassFile) => ProblemKind::ClassFile,
        () if is(Part::Owners) || is(Part::IdentityCommand) || is(Part::Platforms) => ProblemKind::Owners,
        () if is(Part::Resync) => ProblemKind::Interfaces,
        () if is(Part::Ledger) || is(Part::LedgerCheckpoint) => ProblemKind::Drains,
        () if is(Part::Quotas) => ProblemKind::Quotas,
        () => ProblemKind::Other,
    }
}
