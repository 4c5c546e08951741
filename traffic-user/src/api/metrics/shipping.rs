//! How far the stores of `[ship] to` are.

use std::fmt::Display;

use jiff::Timestamp;

use super::page::{Metric, Page};
use crate::shipping::{ShipState, StoreState};

type Value = fn(&StoreState, i64) -> String;

/// The stores that something ships to; nothing where nothing does. The label is the URL without options, which has no
/// password.
pub(super) fn write(page: &mut Page, state: Option<&ShipState>, now: Timestamp) {
    let Some(state) = state.filter(|state| !state.stores.is_empty()) else { return };
    let metrics: [(Metric, Value); 5] = [
        (
            Metric::gauge(
                "trafctl_ship_lag_seconds",
                Some("seconds"),
                "Time since the last reading of the counters that the store has; infinite before the first.",
            ),
            |store, now_ms| match store.reading_ms {
                Some(reading_ms) => seconds(now_ms.saturating_sub(reading_ms).max(0)),
                None => "+Inf".to_owned(),
            },
        ),
        (Metric::counter("trafctl_ship_rows", None, "Rows that were shipped."), |store, _| {
            store.rows.to_string()
        }),
        (Metric::counter("trafctl_ship_failures", None, "Rounds of shipping that failed."), |store, _| {
            store.failures.to_string()
        }),
        (
            Metric::gauge(
                "trafctl_ship_verified_until_timestamp_seconds",
                Some("seconds"),
                "End of the last day up to which store and ledger were found equal; zero for none.",
            ),
            |store, _| store.compared.as_ref().map_or(0, |compared| compared.until_s).to_string(),
        ),
        (
            Metric::gauge(
                "trafctl_ship_differing_days",
                None,
                "Days that differ in store and ledger, as of the last comparison.",
            ),
            |store, _| store.compared.as_ref().map_or(0, |compared| compared.differing.len()).to_string(),
        ),
    ];
    for (metric, value) in metrics {
        page.open(metric);
        for (name, store) in &state.stores {
            let labels: [(&str, &dyn Display); 1] = [("store", name)];
            page.sample(metric, &labels, value(store, now.as_millisecond()));
            if metric.is_counter()
                && let Ok(since) = Timestamp::from_second(store.since_s)
            {
                page.created(metric, &labels, since);
            }
        }
    }
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::metrics::Format, shipping::Compared};

    #[test]
    fn each_store_has_its_figures() {
        let known = StoreState {
            since_s: 1000,
            rows: 70,
            failures: 3,
            reading_ms: Some(1_999_500),
            compared: Some(Compared {
                until_s: 1800,
                differing: vec!["1970-01-01".to_owned(), "gap".to_owned()],
                ..Compared::default()
            }),
            ..StoreState::default()
        };
        let mut state = ShipState::default();
        state.stores.insert("postgresql://a@b/c".to_owned(), known);
        state.stores.insert("x".to_owned(), StoreState { since_s: 5, ..StoreState::default() });
        let mut page = Page { text: String::new(), format: Format::OpenMetrics };
        write(&mut page, Some(&state), Timestamp::from_second(2000).unwrap());
        let samples: Vec<&str> = page.text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "trafctl_ship_lag_seconds{store=\"postgresql://a@b/c\"} 0.500",
                "trafctl_ship_lag_seconds{store=\"x\"} +Inf",
                "trafctl_ship_rows_total{store=\"postgresql://a@b/c\"} 70",
                "trafctl_ship_rows_created{store=\"postgresql://a@b/c\"} 1000.000",
                "trafctl_ship_rows_total{store=\"x\"} 0",
                "trafctl_ship_rows_created{store=\"x\"} 5.000",
                "trafctl_ship_failures_total{store=\"postgresql://a@b/c\"} 3",
                "trafctl_ship_failures_created{store=\"postgresql://a@b/c\"} 1000.000",
                "trafctl_ship_failures_total{store=\"x\"} 0",
                "trafctl_ship_failures_created{store=\"x\"} 5.000",
                "trafctl_ship_verified_until_timestamp_seconds{store=\"postgresql://a@b/c\"} 1800",
                "trafctl_ship_verified_until_timestamp_seconds{store=\"x\"} 0",
                "trafctl_ship_differing_days{store=\"postgresql://a@b/c\"} 2",
                "trafctl_ship_differing_days{store=\"x\"} 0",
            ]
        );
        for nothing in [None, Some(&ShipState::default())] {
            let mut page = Page { text: String::new(), format: Format::OpenMetrics };
            write(&mut page, nothing, Timestamp::UNIX_EPOCH);
            assert_eq!(page.text, "");
        }
    }
}
