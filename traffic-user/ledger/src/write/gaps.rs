//! Gap records: every stretch of time for which the sums are incomplete, or true only as a whole.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::Serialize;

use crate::error::LedgerError;

/// Why a gap is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// Passed an interface before the program was attached to it; the interface's own statistics tell the size.
    BeforeAttach,
    /// No daemon drained for a while. The counters went on, so the sum is right, but all in one bucket.
    DaemonDown,
    /// Drains did not happen in time. As with [`GapReason::DaemonDown`], nothing is lost.
    MissedDrain,
    /// The wall clock was set. Nothing is lost, but some time exists twice or not at all.
    ClockStepped,
    /// The ledger's disk was full. Nothing is lost.
    DiskFull,
    /// The ledger could not be written for another reason. Nothing is lost.
    LedgerUnwritable,
    /// The class table changed without a drain just before: traffic of the old one is booked under the new one.
    ClassTableMixed,
    /// A counter went backwards or grew beyond all reason. What it had counted since its last reading is unknown.
    CounterLost,
    /// The maps were made anew within the boot. What was counted after the last reading of the old ones is lost.
    CountersRenewed,
    /// The node went down. What was counted after the last reading before it is lost.
    Reboot,
}

impl GapReason {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::BeforeAttach,
        Self::DaemonDown,
        Self::MissedDrain,
        Self::ClockStepped,
        Self::DiskFull,
        Self::LedgerUnwritable,
        Self::ClassTableMixed,
        Self::CounterLost,
        Self::CountersRenewed,
        Self::Reboot,
    ];

    /// The name in the ledger and in output; never changes once released.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeAttach => "before_attach",
            Self::DaemonDown => "daemon_down",
            Self::MissedDrain => "missed_drain",
            Self::ClockStepped => "clock_stepped",
            Self::DiskFull => "disk_full",
            Self::LedgerUnwritable => "ledger_unwritable",
            Self::ClassTableMixed => "class_table_mixed",
            Self::CounterLost => "counter_lost",
            Self::CountersRenewed => "counters_renewed",
            Self::Reboot => "reboot",
        }
    }

    /// True when traffic may be missing from the sums, false when only the time or class of it is uncertain.
    pub const fn loses_traffic(self) -> bool {
        matches!(self, Self::BeforeAttach | Self::CounterLost | Self::CountersRenewed | Self::Reboot)
    }
}

/// Size of a gap in the interface's units: socket buffers, which depend on offloads, and their bytes with the
/// link-layer header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GapSize {
    /// Buffers to the container.
    pub in_skbs: u64,
    /// Their bytes.
    pub in_skb_bytes: u64,
    /// Buffers from the container.
    pub out_skbs: u64,
    /// Their bytes.
    pub out_skb_bytes: u64,
}

impl GapSize {
    /// What came since an earlier total.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            in_skbs: self.in_skbs.saturating_sub(earlier.in_skbs),
            in_skb_bytes: self.in_skb_bytes.saturating_sub(earlier.in_skb_bytes),
            out_skbs: self.out_skbs.saturating_sub(earlier.out_skbs),
            out_skb_bytes: self.out_skb_bytes.saturating_sub(earlier.out_skb_bytes),
        }
    }
}

/// One gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// When it began; `None` where nothing tells.
    pub start: Option<Timestamp>,
    /// When it ended.
    pub end: Timestamp,
    /// Why.
    pub reason: GapReason,
    /// The interface it is about, `None` for the whole node.
    pub interface: Option<String>,
    /// The container it is about.
    pub container: Option<String>,
    /// How much it was, where known.
    pub size: Option<GapSize>,
    /// More for the reader.
    pub detail: Option<String>,
}

impl Gap {
    /// A gap of the whole node and of unknown size.
    pub fn of_node(reason: GapReason, start: Timestamp, end: Timestamp) -> Self {
        let (start, end) = (Some(start.min(end)), start.max(end));
        Self { start, end, reason, interface: None, container: None, size: None, detail: None }
    }

    /// The same with an explanation.
    #[must_use]
    pub fn with_detail(mut self, detail: String) -> Self {
        self.detail = Some(detail);
        self
    }
}

/// What a gap is stored under besides its own fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GapLinks<'a> {
    /// The container's number in the ledger.
    pub container: Option<i64>,
    /// A name under which it is recorded once only.
    pub once: Option<&'a str>,
}

/// Writes a gap; false when it was recorded before.
pub(crate) fn insert(
    conn: &Connection,
    recorded: Timestamp,
    gap: &Gap,
    links: GapLinks<'_>,
) -> Result<bool, LedgerError> {
    let size = |value: fn(&GapSize) -> u64| gap.size.as_ref().map(|size| value(size).cast_signed());
    let rows = conn
        .prepare_cached(
            "INSERT OR IGNORE INTO gap (recorded, start, end, reason, interface, container, in_skbs, in_skb_bytes,
             out_skbs, out_skb_bytes, detail, once) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            recorded.as_second(),
            gap.start.map(Timestamp::as_second),
            gap.end.as_second(),
            gap.reason.name(),
            gap.interface,
            links.container,
            size(|size| size.in_skbs),
            size(|size| size.in_skb_bytes),
            size(|size| size.out_skbs),
            size(|size| size.out_skb_bytes),
            gap.detail,
            links.once,
        ])?;
    Ok(rows == 1)
}

/// The gaps that touch a span of time, in the order of their ends; `None` is unlimited.
pub(crate) fn list(
    conn: &Connection,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> Result<Vec<Gap>, LedgerError> {
    let mut statement = conn.prepare_cached(
        "SELECT g.start, g.end, g.reason, g.interface, c.label, g.in_skbs, g.in_skb_bytes, g.out_skbs, g.out_skb_bytes,
             g.detail
         FROM gap g LEFT JOIN container c ON c.id = g.container
         WHERE g.end >= ?1 AND coalesce(g.start, g.end) < ?2 ORDER BY g.end, g.id",
    )?;
    let from_s = from.map_or(i64::MIN, Timestamp::as_second);
    let to_s = to.map_or(i64::MAX, Timestamp::as_second);
    let gaps = statement.query_map([from_s, to_s], gap_of)?.collect::<Result<_, _>>()?;
    Ok(gaps)
}

fn gap_of(row: &Row<'_>) -> rusqlite::Result<Gap> {
    let time = |seconds| {
        Timestamp::from_second(seconds).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Integer, Box::new(error))
        })
    };
    let name: String = row.get(2)?;
    let value = |at| row.get::<_, Option<i64>>(at).map(|value| value.unwrap_or_default().cast_unsigned());
    let sized = row.get::<_, Option<i64>>(5)?.is_some();
    let size = GapSize {
        in_skbs: value(5)?,
        in_skb_bytes: value(6)?,
        out_skbs: value(7)?,
        out_skb_bytes: value(8)?,
    };
    Ok(Gap {
        start: row.get::<_, Option<i64>>(0)?.map(time).transpose()?,
        end: time(row.get(1)?)?,
        reason: GapReason::ALL.into_iter().find(|reason| reason.name() == name).ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, name.into())
        })?,
        interface: row.get(3)?,
        container: row.get(4)?,
        size: sized.then_some(size),
        detail: row.get(9)?,
    })
}
