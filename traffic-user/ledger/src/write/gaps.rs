//! Gap records: every time span whose sums are incomplete, or are correct only in total.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use traffic_model::local_time::LocalTime;

use crate::error::LedgerError;
use traffic_model::counted;

/// Why a gap exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// Traffic passed before the program was attached. The interface's own statistics give its size.
    BeforeAttach,
    /// No daemon drained for a while. The counters kept counting, so the sum is correct, but all in one
    /// bucket.
    DaemonDown,
    /// Drains were late. As with [`GapReason::DaemonDown`], nothing is lost.
    MissedDrain,
    /// The wall clock was set. Nothing is lost, but some local time exists twice or not at all.
    ClockStepped,
    /// The ledger's disk was full. Nothing is lost.
    DiskFull,
    /// The ledger could not be written for another reason. Nothing is lost.
    LedgerUnwritable,
    /// The class table changed without a drain just before. Traffic of the old table is recorded under the
    /// new one.
    ClassTableMixed,
    /// A counter fell or grew implausibly. What it counted since its last reading is unknown.
    CounterLost,
    /// The maps were replaced within the boot. What the old ones counted after their last reading is lost.
    CountersRenewed,
    /// The node rebooted. What was counted after the last reading is lost.
    Reboot,
    /// The file of an earlier ledger was emptied or removed. Its figures are not in this one.
    LedgerLost,
    /// The node was reverted to an earlier state of its memory, with its counters. What passed around that
    /// moment is lost.
    Reverted,
    /// More was counted on an interface than the kernel's statistics show: packets passed the hook twice, or
    /// another tool put them there. Its size is what was counted too often.
    CountedTwice,
    /// Packets in segments below 48 bytes, a size that only the sender claims. They are in the sums, and nothing is
    /// lost. Its size is that of the packets on the wire and their layer-3 bytes.
    SmallSegments,
    /// Packets passed an attached interface by a path around the hook, or another program took them before it. Its size
    /// is what the kernel's statistics show beyond ours, at the least.
    Bypassed,
    /// What an interface's own statistics held when the first counters of this ledger were created. Nothing
    /// was counted then, so nothing is lost.
    BeforeFirstCounters,
    /// Drops were not counted, or their counters were lost. All traffic is in the sums. What was dropped of it then is
    /// not known, and appears as delivered.
    DropsNotCounted,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 17] = [
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
        Self::LedgerLost,
        Self::Reverted,
        Self::CountedTwice,
        Self::SmallSegments,
        Self::Bypassed,
        Self::BeforeFirstCounters,
        Self::DropsNotCounted,
    ];

    /// The name in the ledger and in output. A released name never changes.
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
            Self::LedgerLost => "ledger_lost",
            Self::Reverted => "reverted",
            Self::CountedTwice => "counted_twice",
            Self::SmallSegments => "small_segments",
            Self::Bypassed => "bypassed",
            Self::BeforeFirstCounters => "before_first_counters",
            Self::DropsNotCounted => "drops_not_counted",
        }
    }

    /// Whether traffic may be missing from the sums. Otherwise only its time or class is uncertain.
    pub const fn loses_traffic(self) -> bool {
        matches!(
            self,
            Self::BeforeAttach
                | Self::CounterLost
                | Self::CountersRenewed
                | Self::Reboot
                | Self::LedgerLost
                | Self::Reverted
                | Self::Bypassed
        )
    }
}

/// Size of a gap in the interface's own units: socket buffers, whose number depends on offloads, and their
/// bytes with the link-layer header. For [`GapReason::SmallSegments`]: packets on the wire and layer-3 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GapSize {
    /// Buffers to the container.
    pub in_skbs: u64,
    /// Bytes of these buffers.
    pub in_skb_bytes: u64,
    /// Buffers from the container.
    pub out_skbs: u64,
    /// Bytes of these buffers.
    pub out_skb_bytes: u64,
}

impl GapSize {
    /// The growth since an earlier total.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            in_skbs: self.in_skbs.saturating_sub(earlier.in_skbs),
            in_skb_bytes: self.in_skb_bytes.saturating_sub(earlier.in_skb_bytes),
            out_skbs: self.out_skbs.saturating_sub(earlier.out_skbs),
            out_skb_bytes: self.out_skb_bytes.saturating_sub(earlier.out_skb_bytes),
        }
    }

    /// The sum with another size.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            in_skbs: self.in_skbs.saturating_add(other.in_skbs),
            in_skb_bytes: self.in_skb_bytes.saturating_add(other.in_skb_bytes),
            out_skbs: self.out_skbs.saturating_add(other.out_skbs),
            out_skb_bytes: self.out_skb_bytes.saturating_add(other.out_skb_bytes),
        }
    }

    /// Each value, but no more than its limit.
    #[must_use]
    pub fn at_most(&self, limit: &Self) -> Self {
        Self {
            in_skbs: self.in_skbs.min(limit.in_skbs),
            in_skb_bytes: self.in_skb_bytes.min(limit.in_skb_bytes),
            out_skbs: self.out_skbs.min(limit.out_skbs),
            out_skb_bytes: self.out_skb_bytes.min(limit.out_skb_bytes),
        }
    }
}

/// A gap record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The node, in a list about several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Start; `None` if unknown.
    pub start: Option<Timestamp>,
    /// End.
    pub end: Timestamp,
    /// Reason.
    pub reason: GapReason,
    /// The affected interface; `None` for the whole node.
    pub interface: Option<String>,
    /// The affected container.
    pub container: Option<String>,
    /// Size, if known.
    pub size: Option<GapSize>,
    /// Explanation for the reader.
    pub detail: Option<String>,
}

/// A gap with less than this is small: it is only counted where others are listed. Bytes in both directions.
pub const SMALL_GAP_BYTES: u64 = 100_000;

impl Gap {
    /// Bytes of both directions that are not in the sums, or are there in doubt; `None` if unknown.
    pub fn doubtful_bytes(&self) -> Option<u64> {
        let too_much = matches!(self.reason, GapReason::CountedTwice | GapReason::SmallSegments);
        if !self.reason.loses_traffic() && !too_much {
            return Some(0);
        }
        self.size.map(|size| size.in_skb_bytes.saturating_add(size.out_skb_bytes))
    }

    /// Whether it lost nothing, or concerns less than [`SMALL_GAP_BYTES`].
    pub fn is_small(&self) -> bool {
        self.doubtful_bytes().is_some_and(|bytes| bytes < SMALL_GAP_BYTES)
    }

    /// The gap in one line, with its times in a zone.
    pub fn text(&self, local_time: &LocalTime) -> String {
        let end = local_time.text(self.end);
        let span = match self.start {
            Some(start) => format!("{} to {end}", local_time.text(start)),
            None => format!("until {end} (start unknown)"),
        };
        let mut line = format!("{span}: {}", self.reason.name());
        if let Some(node) = &self.node {
            line += &format!(", node {node}");
        }
        if let Some(interface) = &self.interface {
            line += &format!(", interface {interface}");
        }
        if let Some(container) = &self.container {
            line += &format!(", container {container}");
        }
        if let Some(size) = &self.size {
            let (unit, basis) = match self.reason {
                GapReason::SmallSegments => ("packet", "layer 3, in the sums too"),
                _ => ("buffer", "with link-layer headers"),
            };
            line += &format!(
                ", in {} in {}, out {} in {} ({basis})",
                counted(size.in_skb_bytes, "byte"),
                counted(size.in_skbs, unit),
                counted(size.out_skb_bytes, "byte"),
                counted(size.out_skbs, unit)
            );
        }
        if let Some(detail) = &self.detail {
            line += &format!(" ({detail})");
        }
        line
    }
}

impl Gap {
    /// A gap of the whole node with unknown size.
    pub fn of_node(reason: GapReason, start: Timestamp, end: Timestamp) -> Self {
        let (start, end) = (Some(start.min(end)), start.max(end));
        Self { node: None, start, end, reason, interface: None, container: None, size: None, detail: None }
    }

    /// Adds an explanation.
    #[must_use]
    pub fn with_detail(mut self, detail: String) -> Self {
        self.detail = Some(detail);
        self
    }
}

/// Columns of a gap that are not part of [`Gap`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GapLinks<'a> {
    /// The container's id in the ledger.
    pub container: Option<i64>,
    /// A unique name for a gap that is recorded only once.
    pub once: Option<&'a str>,
}

/// Inserts a gap. Returns false if its unique name was already recorded.
pub(crate) fn insert(
    conn: &Connection,
    recorded: Timestamp,
    gap: &Gap,
    links: GapLinks<'_>,
) -> Result<bool, LedgerError> {
    let size = |value: fn(&GapSize) -> u64| gap.size.as_ref().map(|size| value(size).cast_signed());
    let rows = conn
        .prepare_cached(
            "INSERT OR IGNORE INTO gap (recorded, start, end, reason, interface, container, in_skbs,
             in_skb_bytes,
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

/// Lets a gap that is recorded only once reach up to this one's end, with its size. Returns false if there is
/// none yet.
pub(crate) fn extend(conn: &Connection, once: &str, gap: &Gap) -> Result<bool, LedgerError> {
    let size = gap.size.unwrap_or_default();
    let rows = conn
        .prepare_cached(
            "UPDATE gap SET end = max(end, ?2), in_skbs = ?3, in_skb_bytes = ?4, out_skbs = ?5, out_skb_bytes = ?6
             WHERE once = ?1",
        )?
        .execute(params![
            once,
            gap.end.as_second(),
            size.in_skbs.cast_signed(),
            size.in_skb_bytes.cast_signed(),
            size.out_skbs.cast_signed(),
            size.out_skb_bytes.cast_signed(),
        ])?;
    Ok(rows == 1)
}

/// The size of a gap that is recorded only once; `None` if there is none yet.
pub(crate) fn size_of(conn: &Connection, once: &str) -> Result<Option<GapSize>, LedgerError> {
    let sql = "SELECT coalesce(in_skbs, 0), coalesce(in_skb_bytes, 0), coalesce(out_skbs, 0),
               coalesce(out_skb_bytes, 0) FROM gap WHERE once = ?1";
    let size = conn.prepare_cached(sql)?.query_row([once], |row| {
        let value = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        Ok(GapSize {
            in_skbs: value(0)?,
            in_skb_bytes: value(1)?,
            out_skbs: value(2)?,
            out_skb_bytes: value(3)?,
        })
    });
    Ok(size.optional()?)
}

/// Records that the figures of an earlier ledger at the same path are gone.
pub(crate) fn insert_lost_ledger(conn: &Connection, now: Timestamp) -> Result<(), LedgerError> {
    let detail = "the file of the earlier ledger was emptied or removed: a new ledger begins here";
    let gap = Gap {
        node: None,
        start: None,
        end: now,
        reason: GapReason::LedgerLost,
        interface: None,
        container: None,
        size: None,
        detail: Some(detail.to_owned()),
    };
    insert(conn, now, &gap, GapLinks::default()).map(drop)
}

/// Ends gaps that a wrong clock let end in the future.
pub(crate) fn end_by(conn: &Connection, now_s: i64) -> Result<(), LedgerError> {
    let sql = "UPDATE gap SET end = ?1 WHERE end > ?1 AND start <= ?1 AND once IS NULL";
    conn.prepare_cached(sql)?.execute([now_s])?;
    Ok(())
}

/// Lists the gaps that overlap a time span, ordered by end; `None` means unlimited. For some containers, these
/// are their own gaps and those of the whole node and of shared interfaces.
pub(crate) fn list(
    conn: &Connection,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    containers: Option<&[i64]>,
) -> Result<Vec<Gap>, LedgerError> {
    let mut statement = conn.prepare_cached(
        "SELECT g.start, g.end, g.reason, g.interface, c.label, g.in_skbs, g.in_skb_bytes, g.out_skbs,
         g.out_skb_bytes,
             g.detail, g.container
         FROM gap g LEFT JOIN container c ON c.id = g.container
         WHERE g.end >= ?1 AND coalesce(g.start, g.end) < ?2 ORDER BY g.end, g.id",
    )?;
    let from_s = from.map_or(i64::MIN, Timestamp::as_second);
    let to_s = to.map_or(i64::MAX, Timestamp::as_second);
    let mut rows = statement.query([from_s, to_s])?;
    let mut gaps = Vec::new();
    while let Some(row) = rows.next()? {
        let gap = gap_of(row)?;
        let asked = match containers {
            None => true,
            Some(asked) => concerns(conn, asked, row.get(10)?, gap.interface.as_deref())?,
        };
        gaps.extend(asked.then_some(gap));
    }
    Ok(gaps)
}

/// Whether a gap belongs to one of the containers, or to the whole node. A gap of an interface may have no
/// container; then the interface's owners decide, and one that ever had another owner is not shown.
fn concerns(
    conn: &Connection,
    asked: &[i64],
    container: Option<i64>,
    interface: Option<&str>,
) -> Result<bool, LedgerError> {
    let Some(interface) = interface.filter(|_| container.is_none()) else {
        return Ok(container.is_none_or(|container| asked.contains(&container)));
    };
    let mut statement = conn.prepare_cached("SELECT container FROM interface WHERE name = ?1")?;
    let owners: Vec<i64> =
        statement.query_map([interface], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(!owners.is_empty() && owners.iter().all(|owner| *owner == 0 || asked.contains(owner)))
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
        node: None,
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
