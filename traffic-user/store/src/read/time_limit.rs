//! How long the server may take for a report.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::store::StoreError;

/// The longest wait for one answer.
const READ_TIME: Duration = Duration::from_mins(5);

/// The bounds of a report: of each answer, and of all of them if somebody waits for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimit {
    until: Option<Instant>,
}

impl TimeLimit {
    /// `until`: the end of the whole report.
    pub const fn new(until: Option<Instant>) -> Self {
        Self { until }
    }

    /// What is left for the next answer.
    pub fn left(self) -> Duration {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        left.map_or(READ_TIME, |left| left.min(READ_TIME))
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn within<T>(self, answer: impl Future<Output = T>) -> Result<T, StoreError> {
        timeout(self.left(), answer).await.map_err(|_| self.too_long())
    }

    /// The error of an answer that took too long.
    pub fn too_long(self) -> StoreError {
        let given = if self.until.is_some() {
            "in time".to_owned()
        } else {
            format!("within {} minutes", READ_TIME.as_secs() / 60)
        };
        StoreError::Away(format!(
            "the store gave no answer {given}; ask for a shorter span, longer steps or one node"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{Reported, Target, open_ledger};

    #[test]
    fn a_server_that_does_not_answer_ends_a_report_in_time() {
        // Nobody accepts: connections are made, and nothing comes.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for url in [
            format!("postgresql://reader@{address}/traffic?sslmode=disable"),
            format!("clickhouse+http://reader@{address}/traffic"),
        ] {
            let target = Target::parse(&url).unwrap();
            let begun = Instant::now();
            let until = Some(begun + Duration::from_millis(300));
            let error = open_ledger(&target, &Reported { until, ..Reported::default() }).unwrap_err();
            assert!(error.to_string().contains("no answer in time"), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
    }
}
