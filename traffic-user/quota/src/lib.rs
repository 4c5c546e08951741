//! Quotas: what a container may use in a period, how much of that it has used, and what the period comes to.
//!
//! Pure: figures go in as plain numbers, and no clock is read. The binary's `queries/quotas` asks the ledger
//! for the figures, `cli/quota` has the commands, and `render/quota` formats what is returned.
//!
//! - `file`: `quotas.toml`. Every line is checked; a file with a mistake yields no quota at all.
//! - [`edit`]: changes of the file that keep its comments.
//! - `values`: the notations of its values.
//! - `quota`: a quota as checked.
//! - `scope`: which containers a quota is for, and which of several decides.
//! - `tenant`: customers with several containers, who share an allowance.
//! - `period`: where a period begins and ends.
//! - `usage`: the used part of an allowance, and the thresholds that it has reached.
//! - `crossing`: thresholds that are newly reached, or no longer, exactly once.
//! - `lookout`: when to look at counters between drains, so that a threshold is found early.
//! - `action`: what runs for a threshold, and which of it runs now, until it reports success.
//! - `url`: addresses that webhooks are sent to.
//! - `alert`: which problems of the node actions run for.
//! - `forecast`: what a period comes to, and when the allowance runs out.

mod action;
mod alert;
mod crossing;
pub mod edit;
mod file;
mod forecast;
mod lookout;
mod period;
mod quota;
mod scope;
mod tenant;
mod url;
mod usage;
mod values;

pub use action::{Action, Means, Pending, Secret, due};
pub use alert::{Alert, ProblemKind};
pub use crossing::{Change, Crossing, Look, Subject, Track};
pub use file::{ACTION_KEYS, ALERT_KEYS, FileMistake, KEYS, Quotas, TENANT_KEYS};
pub use forecast::{Forecast, METHOD as FORECAST_METHOD, Recent, forecast};
pub use lookout::{BYTES_PER_S, Counted, Found, Lookout, SHORTEST as SHORTEST_LOOK, Sum, Taken};
pub use period::{Period, PeriodKind, Span, WrongZone, zone_of};
pub use quota::{Direction, FirstPeriod, Limit, Quota};
pub use scope::{Container, NamePattern, Scope};
pub use tenant::Assignment;
pub use url::Url;
pub use usage::{Used, allowance_in, permille, reached};
pub use values::percent as parse_percent;
