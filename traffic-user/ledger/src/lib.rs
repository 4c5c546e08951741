//! The ledger: from live counters to figures that can be billed and defended.
//!
//! It knows no kernel and no command line: [`Snapshot`](traffic_model::Snapshot)s go in, plain data comes out.
//!
//! - pure arithmetic: `difference` (readings to traffic), `clock` and `timeline` (when it was, and what is missing),
//!   `bucket` (five minutes to billing months), `percentile`;
//! - the file: `schema`, `migrate`, `log`, `names`, `readings`, `past`, `drain`, `store`, `gaps`, `rollup`, `units`;
//! - the way out: `plan` (what is asked), `query` (which rows answer best), `report`, `interfaces` and `balance` (from `collected`), `top`, `render`, `close`, `adjust`, `booked` and `audit`;
//! - from before: `import` of PVA's database.

mod closing;
mod error;
mod figures;
mod ids;
mod import;
mod migrate;
mod query;
mod schema;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod time;
mod wal_guard;
mod write;

pub use closing::adjust::{Adjusted, Adjustment, AdjustmentRequest, ChainEntry, Corrected};
pub use closing::audit::Audit;
pub use closing::close::ClosedPeriod;
pub use error::LedgerError;
pub use figures::{Basis, Figures, Volume};
pub use import::{PvaImport, PvaImported, PvaProgress, SkipReason};
pub use query::balance::{Balance, BalanceRow};
pub use query::interfaces::{FaultRow, InterfaceReport, InterfaceRow};
pub use query::percentile_report::Rates;
pub use query::query_plan::{By, PartStep, ReportQuery, Split};
pub use query::report::{Report, ReportRow};
pub use query::top::{Top, TopQuery, TopRow};
pub use store::{Ledger, LedgerConfig};
pub use time::reading_checks::{DrainContext, DrainTrigger};
pub use wal_guard::{FileIdentity, set_aside_anothers as set_aside_anothers_log};
pub use write::drain::DrainOutcome;
pub use write::gaps::{Gap, GapReason, GapSize};
pub use write::rollup::Maintenance;
