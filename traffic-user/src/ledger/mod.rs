//! The ledger: from live counters to figures that can be billed and defended.
//!
//! It knows no kernel and no command line: [`Snapshot`](crate::snapshot::Snapshot)s go in, plain data comes out.
//!
//! - pure arithmetic: `difference` (readings to traffic), `clock` and `timeline` (when it was, and what is missing),
//!   `bucket` (five minutes to billing months), `percentile`;
//! - the file: `schema`, `migrate`, `log`, `names`, `readings`, `past`, `drain`, `store`, `gaps`, `rollup`, `units`;
//! - the way out: `plan` (what is asked), `query` (which rows answer best), `report`, `interfaces` and `balance` (from `collected`), `top`, `render`, `close`, `adjust`, `booked` and `audit`;
//! - from before: `import` of PVA's database.

mod adjust;
mod audit;
mod balance;
mod booked;
mod bucket;
mod clock;
mod close;
mod collected;
mod difference;
mod drain;
mod error;
mod figures;
mod gaps;
mod import;
mod interfaces;
mod log;
mod migrate;
mod names;
mod past;
mod percentile;
mod plan;
mod query;
mod rates;
mod readings;
pub mod render;
mod report;
mod rollup;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod timeline;
mod top;
mod units;

pub use adjust::{Adjusted, Adjustment, AdjustmentRequest, ChainEntry, Corrected};
pub use audit::Audit;
pub use balance::{Balance, BalanceRow};
pub use bucket::{Calendar, FIVE_MINUTES_S, Level, Retention};
pub use close::ClosedPeriod;
pub use drain::DrainOutcome;
pub use error::LedgerError;
pub use figures::{Basis, Figures, Volume};
pub use gaps::{Gap, GapReason, GapSize};
pub use import::{PvaImport, PvaImported, PvaProgress, SkipReason};
pub use interfaces::{FaultRow, InterfaceReport, InterfaceRow};
pub use log::{FileIdentity, set_aside_anothers as set_aside_anothers_log};
pub use plan::{By, PartStep, ReportQuery, Split};
pub use rates::Rates;
pub use report::{Report, ReportRow};
pub use rollup::Maintenance;
pub use store::{Ledger, LedgerConfig};
pub use timeline::{DrainContext, DrainTrigger};
pub use top::{Top, TopQuery, TopRow};
