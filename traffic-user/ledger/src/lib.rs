//! The ledger: turns readings of live counters into figures that can be billed and defended.
//!
//! It owns the SQLite file. [`Snapshot`](traffic_model::Snapshot)s go in and plain data comes out; it knows
//! neither the kernel nor the command line. The binary's `drain` and `daemon/ledger_handle` feed it, and
//! `render/ledger` formats what it returns.
//!
//! - `time`: which bucket, hour, day and month a reading belongs to, and what its clocks say.
//! - `write`: differences between readings, last readings, gaps, rollups, control totals.
//! - `days`: finished days as columns, and the reader of both forms of rows.
//! - `query`: reports, balances, percentiles, top talkers.
//! - `closing`: closed months, corrections, audits.
//! - `outbox`: what changed last when, and the rows to ship to a store.
//! - `encoding`, `digest`: hashes of rows, by which changes from outside are found.
//! - `import`: history from PVA's database.
//! - `schema`, `migrate`, `migration`, `store`, `ids`, `identity`, `wal_guard`, `read_only`, `revision`, `backup`: the
//!   file itself.

mod backup;
mod closing;
mod days;
mod descriptors;
mod digest;
mod encoding;
mod error;
mod figures;
mod file_state;
mod identity;
mod ids;
mod import;
mod migrate;
mod migration;
mod outbox;
mod query;
mod read_only;
mod revision;
mod schema;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod time;
mod wal_guard;
mod write;

pub use closing::adjust::PeriodAdjustment;
pub use closing::audit::Audit;
pub use closing::close::ClosedPeriod;
pub use closing::correction::{Adjusted, Adjustment, AdjustmentRequest, ChainEntry, Corrected, Signed};
pub use closing::delivered::DeliveredClass;
pub use closing::frozen::{Frozen, FrozenContainer, FrozenEntry, FrozenRate, FrozenRow};
pub use closing::preview::{ClosePreview, RetirePreview};
pub use error::LedgerError;
pub use figures::{Basis, Figures, Volume, permille_shares};
pub use file_state::FileState;
pub use import::{PvaImport, PvaImported, PvaProgress, SkipReason};
pub use migration::{MigrationProgress, OnProgress};
pub use outbox::{
    changes::{Changes, Identity},
    parts::{Cell, Content},
    sizes::ContentSize,
    tables::{DROPPED_TABLE, Kept, ShippedTable, TABLES},
};
pub use query::balance::{Balance, BalanceRow};
pub use query::billing::{Billing, ReportedAdjustment, SignedFigures, SignedVolume};
pub use query::drop_report::{Delivery, DropReason, DropReport, DropRow};
pub use query::facts::{Extent, KnownClassTable, KnownContainer};
pub use query::interfaces::{FaultRow, InterfaceReport, InterfaceRow};
pub use query::limits::QueryLimits;
pub use query::months::{Month, Months};
pub use query::node_sums::NodeSums;
pub use query::overview::{Overview, OverviewQuery, TopSeries};
pub use query::percentile_report::Rates;
pub use query::query_plan::{By, LineKey, PartStep, ReportQuery, Split};
pub use query::report::{ClassFigures, Report, ReportRow, Step};
pub use query::running::{Estimate, RunningStep};
pub use query::series::{ClassSeries, Series, SeriesPercentile, SeriesQuery};
pub use query::standing::{OpenGaps, OpenMonth, Standing};
pub use query::stored::{
    CountedOrDropped, InterfaceSums, Ranking, ShippedExtent, StepRank, StoredContainer, StoredLedger,
    StoredQuery, StoredRows, bits_per_second,
};
pub use query::top::{Top, TopQuery, TopRow};
pub use revision::{file_bytes, revision};
pub use store::{Ledger, LedgerConfig};
pub use time::borders::KeptBorders;
pub use time::reading_checks::{DrainContext, DrainTrigger};
pub use wal_guard::set_aside_anothers as set_aside_anothers_log;
pub use write::attribution::{Attribution, PendingOwner};
pub use write::calibrations::CalibrationRecord;
pub use write::drain::DrainOutcome;
pub use write::gaps::{Gap, GapReason, GapSize, SMALL_GAP_BYTES};
pub use write::names::{ContainerName, ContainerNames};
pub use write::owner_changes::OwnerChange;
pub use write::quotas::{PastTrack, QuotaCrossing, QuotaLook, QuotaState};
pub use write::retention::{HeldRows, VerifiedRows};
pub use write::rollup::Maintenance;
