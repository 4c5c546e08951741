//! How the ledger stands: which months are still to be billed, and what is missing in them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use traffic_model::calendar::Level;

use crate::{
    closing::close::{earliest_open, periods_within},
    error::LedgerError,
    query::query_plan::recorded_range,
    store::Ledger,
    time::borders::Borders,
    write::{clock, gaps},
};

/// A month that is not closed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct OpenMonth {
    /// The billing month as `YYYY-MM`.
    pub name: String,
    /// Start.
    pub start: Timestamp,
    /// End.
    pub end: Timestamp,
    /// Whether it is recorded up to its end, so that it can be closed.
    pub complete: bool,
}

/// The gaps in the months that are not closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct OpenGaps {
    /// How many lost traffic.
    pub losing: usize,
    /// How many of these are of unknown size.
    pub of_unknown_size: usize,
    /// Bytes in both directions that the others lost, with link-layer headers, as the interfaces count them.
    pub bytes: u64,
}

/// How the ledger stands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Standing {
    /// Time of the last reading; `None` without one.
    pub last_reading: Option<Timestamp>,
    /// The months that are not closed, from the oldest with figures to that of the last reading.
    pub open_months: Vec<OpenMonth>,
    /// Gaps in them.
    pub gaps: OpenGaps,
}

impl Ledger {
    /// Which months are not closed, and what is missing in them. It reads no figures, so it takes no longer
    /// with a year of them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn standing(&self) -> Result<Standing, LedgerError> {
        let view = self.conn.unchecked_transaction()?;
        let last_reading = clock::last_reading(&view)?;
        let closed = periods_within(&view, Timestamp::MIN, Timestamp::MAX)?;
        let borders = Borders::new(&view, &self.calendar);
        // From the earliest open month with figures, as they are closed in order, to that of the last reading.
        let (_, recorded) = recorded_range(&view)?;
        let last_s = last_reading.map(Timestamp::as_second);
        let until = last_s.map_or(recorded, |last| recorded.max(last + 1));
        let mut at = earliest_open(&view, until)?.or(last_s);
        let mut open_months = Vec::new();
        while let Some(start_s) = at {
            let (start_s, end_s) = borders.unit(Level::Month, start_s)?;
            let (start, end) = (Timestamp::from_second(start_s)?, Timestamp::from_second(end_s)?);
            at = (end_s < until).then_some(end_s);
            if closed.iter().any(|period| period.start <= start && end <= period.end) {
                continue;
            }
            let complete = last_reading.is_some_and(|last| end <= last);
            open_months.push(OpenMonth { name: borders.label(Level::Month, start_s)?, start, end, complete });
        }
        let mut found = OpenGaps::default();
        if let Some(first) = open_months.first() {
            let gaps = gaps::list(&view, Some(first.start), None, None)?;
            for gap in gaps.iter().filter(|gap| gap.reason.loses_traffic()) {
                found.losing += 1;
                match gap.doubtful_bytes() {
                    Some(bytes) => found.bytes = found.bytes.saturating_add(bytes),
                    None => found.of_unknown_size += 1,
                }
            }
        }
        Ok(Standing { last_reading, open_months, gaps: found })
    }
}
