//! The parts of a statement. The names of their fields are those of the document.
//!
//! Amounts are texts of decimal digits, because readers of JSON round large numbers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::log::{Entry, Kind, Proof};

/// The first value of each document: what it is, and the version of its format.
pub(crate) const FORMAT: &str = "trafctl-statement/1";

/// An integer whose text in the document is its decimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exact<T>(pub T);

impl<T: fmt::Display> Serialize for Exact<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr + fmt::Display> Deserialize<'de> for Exact<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // One number has one text: no sign, no zeros before it.
        let number: Option<T> = text.parse().ok().filter(|number: &T| number.to_string() == text);
        number.map(Self).ok_or_else(|| D::Error::custom(format!("{text:?} is no amount")))
    }
}

/// Packets and layer-3 bytes in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(serialize = "T: fmt::Display", deserialize = "T: FromStr + fmt::Display"))]
pub struct Amounts<T> {
    in_packets: Exact<T>,
    in_bytes: Exact<T>,
    out_packets: Exact<T>,
    out_bytes: Exact<T>,
}

/// What was counted.
pub type Counts = Amounts<u64>;
/// What a correction adds, or what there is with all corrections.
pub type SignedCounts = Amounts<i128>;

impl<T: Copy> Amounts<T> {
    /// From packets in, bytes in, packets out and bytes out.
    pub const fn new([in_packets, in_bytes, out_packets, out_bytes]: [T; 4]) -> Self {
        Self {
            in_packets: Exact(in_packets),
            in_bytes: Exact(in_bytes),
            out_packets: Exact(out_packets),
            out_bytes: Exact(out_bytes),
        }
    }

    /// Packets in, bytes in, packets out and bytes out.
    pub const fn values(&self) -> [T; 4] {
        [self.in_packets.0, self.in_bytes.0, self.out_packets.0, self.out_bytes.0]
    }
}

impl SignedCounts {
    /// The sum with others, which cannot overflow: a ledger has 64 bits.
    #[must_use]
    pub fn plus(&self, other: [i128; 4]) -> Self {
        let mut sums = self.values();
        for (sum, other) in sums.iter_mut().zip(other) {
            *sum = sum.saturating_add(other);
        }
        Self::new(sums)
    }
}

/// A billing month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// `YYYY-MM`.
    pub name: String,
    /// Its first moment, in UTC.
    pub start: String,
    /// The first moment after it.
    pub end: String,
    /// When its figures were frozen.
    pub closed: String,
    /// The time zone of the ledger's days.
    pub time_zone: String,
    /// The day of the month on which it begins.
    pub billing_day: u8,
}

/// A row of the closed month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedRow {
    /// The node that counted it.
    pub node: String,
    /// The class.
    pub class: u8,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// SHA-256 of the class table that decided.
    pub class_table: String,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The 95th percentile of the closed month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedRate {
    /// The class; absent for all billed classes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<u8>,
    /// What of a packet is counted: `l3`, `l2` or `l1`.
    pub basis: String,
    /// Bits a second in, out, and of both directions together.
    pub(crate) in_bits: Exact<u64>,
    pub(crate) out_bits: Exact<u64>,
    pub(crate) total_bits: Exact<u64>,
}

impl ClosedRate {
    /// A percentile, in bits a second: in, out, and of both directions together.
    pub const fn new(class: Option<u8>, basis: String, [incoming, outgoing, total]: [u64; 3]) -> Self {
        Self { class, basis, in_bits: Exact(incoming), out_bits: Exact(outgoing), total_bits: Exact(total) }
    }
}

/// What is behind a leaf: the part of a closed month, or a correction, that concerns one container; or a change of the
/// key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// The frozen figures of a container.
    Figures {
        /// The month.
        period: String,
        /// The container's id when the month was closed.
        container: String,
        /// Its number in the ledger, which nothing changes.
        number: i64,
        /// Its rows.
        rows: Vec<ClosedRow>,
        /// Its percentiles.
        rates: Vec<ClosedRate>,
    },
    /// A correction of a closed month.
    Correction {
        /// The month.
        period: String,
        /// The container's id when the month was closed.
        container: String,
        /// Its number in the ledger.
        number: i64,
        /// When it was made.
        made: String,
        /// The class.
        class: u8,
        /// `ipv4` or `ipv6`.
        family: String,
        /// What it adds.
        #[serde(flatten)]
        counts: SignedCounts,
        /// Why it was made.
        reason: String,
    },
    /// A change of the key that signs.
    Key {
        /// What changes, signed.
        note: String,
    },
}

impl Record {
    /// Month and number of the container. A change of the key has neither.
    pub(crate) fn subject(&self) -> (Option<&str>, i64) {
        match self {
            Self::Figures { period, number, .. } | Self::Correction { period, number, .. } => {
                (Some(period), *number)
            }
            Self::Key { .. } => (None, 0),
        }
    }

    /// What its entry is about.
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Figures { .. } => Kind::Period,
            Self::Correction { .. } => Kind::Correction,
            Self::Key { .. } => Kind::Key,
        }
    }
}

/// A record with the proof that the log has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proven {
    pub record: Record,
    pub entry: Entry,
    pub proof: Proof,
}

/// A class table that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassTable {
    /// Its SHA-256.
    pub hash: String,
    /// When it was loaded.
    pub loaded: String,
    /// Number of prefixes.
    pub prefixes: u64,
}

/// What is missing in the month, as far as it concerns the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapLine {
    /// Start; absent if it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// End.
    pub end: String,
    /// The name of the reason.
    pub reason: String,
    /// The interface; absent for the whole node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// How much is missing: buffers and their bytes with the link-layer header; absent if it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Counts>,
}

/// What was dropped behind the place where it was counted, as it was recorded when the statement was made. It is not
/// frozen with the month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Since when drops are recorded. Earlier ones are unknown.
    pub recorded_from: String,
    /// By class and reason.
    pub rows: Vec<DroppedRow>,
}

/// What was dropped of a class for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedRow {
    /// The class.
    pub class: u8,
    /// The name of the group of reasons.
    pub reason: String,
    /// What was dropped, both families together. It is part of what was counted.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What passed the container's interfaces and is in no class, as it was recorded when the statement was made. It is not
/// frozen with the month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRow {
    /// The name of the reason.
    pub reason: String,
    /// What passed.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Known traffic that was sent on the node, and what was counted of it, when the statement was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    /// When it was sent.
    pub time: String,
    /// SHA-256 of the class table that decided, in hexadecimal.
    pub class_table: String,
    /// SHA-256 of the kernel program, in hexadecimal.
    pub program: String,
    /// What was sent.
    pub sent: Counts,
    /// What was counted.
    pub counted: Counts,
    /// Classes and families whose figures differ; 0 if everything was counted exactly.
    pub differing: u32,
}

/// What was counted on a day in all billed classes together, without corrections, as it was recorded when the statement
/// was made. It is not frozen with the month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// `YYYY-MM-DD`, in the period's time zone.
    pub day: String,
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The sum of a class, of both families, with all corrections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// The class. Class 0 is not billed.
    pub class: u8,
    /// Its name when the statement was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What there is to bill.
    #[serde(flatten)]
    pub counts: SignedCounts,
}

/// A whole statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    pub(crate) format: String,
    /// The public key that checks it.
    pub(crate) issuer: String,
    /// The version of trafctl that made it.
    pub trafctl: String,
    /// When it was made.
    pub made: String,
    /// The month.
    pub period: Period,
    /// The container's id now, where it is another one than in the month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_now: Option<String>,
    /// What there is to bill, by class.
    pub sums: Vec<Sum>,
    pub(crate) figures: Proven,
    pub(crate) corrections: Vec<Proven>,
    /// Changes of the key, in the order of the log; absent if there were none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keys: Vec<Proven>,
    /// What is missing.
    pub gaps: Vec<GapLine>,
    /// What was counted on each day with traffic.
    pub days: Vec<Day>,
    /// What was dropped; absent where drops were never recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Dropped>,
    /// What is in no class, by reason; absent if there is nothing, and in statements that are older than it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultRow>,
    /// When known traffic last proved the counters right, and what came of it; absent if that was never done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// The class tables of its rows.
    pub class_tables: Vec<ClassTable>,
    /// The state of the log in which everything is proven: a signed note.
    pub(crate) checkpoint: String,
}

impl Document {
    /// The container's id when the month was closed.
    pub fn container(&self) -> &str {
        match &self.figures.record {
            Record::Figures { container, .. } | Record::Correction { container, .. } => container,
            Record::Key { .. } => "",
        }
    }

    /// The corrections.
    pub fn corrections(&self) -> impl Iterator<Item = &Record> {
        self.corrections.iter().map(|one| &one.record)
    }
}
