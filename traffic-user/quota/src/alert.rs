//! Alerts: which problems of the node actions run for. Problems themselves are found by whoever looks at the
//! node.

use std::time::Duration;

/// The kinds of problems. Their names never change once released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// The daemon ended, does not report, or is busy for long.
    Daemon,
    /// Nothing is recorded: the last reading is old, or the ledger refuses to be written or read.
    Drains,
    /// Traffic was lost in a gap.
    Gaps,
    /// The clock jumped.
    Clock,
    /// An interface is not counted, or not as it should be.
    Interfaces,
    /// Counters that contradict each other or the kernel.
    Figures,
    /// The owner of an interface or an address is not known.
    Owners,
    /// A table is nearly full, or full.
    Tables,
    /// The disk of the ledger is nearly full.
    Disk,
    /// The class file is refused, or is not the table in force.
    ClassFile,
    /// The shadow class table that is wanted does not count.
    Shadow,
    /// The configuration has a mistake, or is not in force.
    Configuration,
    /// The file with the quotas has a mistake, or an action fails.
    Quotas,
    /// Much of what a container sends cannot be counted in a class.
    Faults,
    /// Anything else.
    Other,
}

impl ProblemKind {
    /// All kinds, with their names.
    pub const ALL: [(Self, &'static str); 15] = [
        (Self::Daemon, "daemon"),
        (Self::Drains, "drains"),
        (Self::Gaps, "gaps"),
        (Self::Clock, "clock"),
        (Self::Interfaces, "interfaces"),
        (Self::Figures, "figures"),
        (Self::Owners, "owners"),
        (Self::Tables, "tables"),
        (Self::Disk, "disk"),
        (Self::ClassFile, "class_file"),
        (Self::Shadow, "shadow"),
        (Self::Configuration, "configuration"),
        (Self::Quotas, "quotas"),
        (Self::Faults, "faults"),
        (Self::Other, "other"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("other", |(_, name)| name)
    }

    /// The kind of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }
}

/// What runs for problems of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The line of the file on which it begins, from 1.
    pub line: usize,
    /// The kinds of problems.
    pub problems: Vec<ProblemKind>,
    /// The names of its actions; at least one.
    pub actions: Vec<String>,
    /// How long a problem lasts before it counts, and how long it must be away before it is over.
    pub after: Duration,
}
