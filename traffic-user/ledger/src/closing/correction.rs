//! What a correction of a closed period is made of, and what it changes.

use jiff::Timestamp;
use serde::Serialize;
use traffic_common::Family;

/// A correction of a closed period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adjustment {
    /// Name of the period.
    pub period: String,
    /// When it was made.
    pub made: Timestamp,
    /// Label of the container when the period was closed.
    pub container: String,
    /// The class.
    pub class: u8,
    /// 0 for IPv4, 1 for IPv6.
    pub family: u8,
    /// Packets in and out to add, or to subtract if negative.
    pub packets: [i64; 2],
    /// Layer-3 bytes in and out to add, or to subtract if negative.
    pub bytes: [i64; 2],
    /// Reason.
    pub reason: String,
}

impl Adjustment {
    /// Packets in, bytes in, packets out, bytes out.
    pub(crate) fn signed(&self) -> Signed {
        [self.packets[0], self.bytes[0], self.packets[1], self.bytes[1]]
    }
}

/// A request for a correction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdjustmentRequest {
    /// The closed month as `YYYY-MM`.
    pub period: String,
    /// Id or label of the container in the closed period.
    pub container: String,
    /// The class.
    pub class: u8,
    /// The family; `None` for the one that the frozen rows have.
    pub family: Option<Family>,
    /// Packets in and out to add, or to subtract if negative.
    pub packets: [i64; 2],
    /// Layer-3 bytes in and out to add, or to subtract if negative.
    pub bytes: [i64; 2],
    /// Reason.
    pub reason: String,
    /// When it is made.
    pub made: Timestamp,
}

/// Signed packets in, bytes in, packets out, bytes out.
pub type Signed = [i64; 4];

/// A correction and its effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adjusted {
    /// The correction.
    pub adjustment: Adjustment,
    /// The container's current label, if it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_now: Option<String>,
    /// The frozen figures of this container, class and family.
    pub frozen: Signed,
    /// Sum of the earlier corrections.
    pub corrected_before: Signed,
    /// The figures to bill, including this correction.
    pub to_bill: Signed,
    /// What the operator should know before confirming.
    pub remarks: Vec<String>,
    /// Its entry in the chain, once it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chained: Option<ChainEntry>,
}

/// An entry of the chain of closed periods and corrections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainEntry {
    /// Number of the entry.
    pub seq: i64,
    /// SHA-256 of the entry and the chain before it, in hexadecimal.
    pub hash: String,
}

/// Frozen figures of a container and class with all their corrections, both families together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Corrected {
    /// Name of the closed period.
    pub period: String,
    /// Label of the container when the period was closed.
    pub container: String,
    /// The container's current label, if it is another one. The old id may have a new owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_now: Option<String>,
    /// The class.
    pub class: u8,
    /// The frozen figures.
    pub frozen: Signed,
    /// Sum of the corrections.
    pub corrections: Signed,
    /// The figures to bill.
    pub to_bill: Signed,
}
