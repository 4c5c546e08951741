//! What containers have used of their quotas, and what their periods come to.

use std::fmt::Display;

use super::page::{Metric, Page};
use crate::api::quota_rows::QuotaRow;

type Value = fn(&QuotaRow) -> Option<String>;

/// The quotas; nothing where there are none. Labels are the container's id and the name of the quota.
pub(super) fn write(page: &mut Page, rows: &[QuotaRow]) {
    let metrics: [(Metric, Value); 5] = [
        (
            Metric::gauge(
                "trafctl_quota_used_ratio",
                Some("ratio"),
                "The used part of a quota in its present period; 1 is all of it.",
            ),
            |row| Some(ratio(row.used, row.allowance)),
        ),
        (Metric::gauge("trafctl_quota_used_bytes", Some("bytes"), "What is used of an allowance."), |row| {
            (!row.is_rate).then(|| row.used.to_string())
        }),
        (Metric::gauge("trafctl_quota_allowance_bytes", Some("bytes"), "The allowance."), |row| {
            (!row.is_rate).then(|| row.allowance.to_string())
        }),
        (
            Metric::gauge(
                "trafctl_quota_expected_bytes",
                Some("bytes"),
                "What the period comes to at the mean rate of the last seven days.",
            ),
            |row| row.expected.map(|expected| expected.to_string()),
        ),
        (
            Metric::gauge(
                "trafctl_quota_exhaustion_timestamp_seconds",
                Some("seconds"),
                "When the allowance runs out at that rate, if that is within the period.",
            ),
            |row| row.runs_out_s.map(|runs_out_s| runs_out_s.to_string()),
        ),
    ];
    for (metric, value) in metrics {
        let samples: Vec<(&QuotaRow, String)> =
            rows.iter().filter_map(|row| Some((row, value(row)?))).collect();
        if samples.is_empty() {
            continue;
        }
        page.open(metric);
        for (row, value) in samples {
            let labels: [(&str, &dyn Display); 2] = [("container", &row.container), ("quota", &row.quota)];
            page.sample(metric, &labels, value);
        }
    }
}

/// A part with six decimals, rounded down: all of it is never shown before it is.
fn ratio(used: u64, allowance: u64) -> String {
    let millionths = u128::from(used) * 1_000_000 / u128::from(allowance.max(1));
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::metrics::Format;

    #[test]
    fn a_quota_has_its_figures_and_no_more() {
        let volume = QuotaRow {
            container: "101".to_owned(),
            quota: "traffic".to_owned(),
            is_rate: false,
            used: 799_999_999_999,
            allowance: 800_000_000_000,
            expected: Some(950_000_000_007),
            runs_out_s: Some(1_795_000_000),
        };
        let rate = QuotaRow {
            quota: "rate".to_owned(),
            is_rate: true,
            used: 1500,
            allowance: 1000,
            expected: None,
            runs_out_s: None,
            ..volume.clone()
        };
        let mut page = Page { text: String::new(), format: Format::OpenMetrics };
        write(&mut page, &[rate, volume]);
        let samples: Vec<&str> = page.text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "trafctl_quota_used_ratio{container=\"101\",quota=\"rate\"} 1.500000",
                "trafctl_quota_used_ratio{container=\"101\",quota=\"traffic\"} 0.999999",
                "trafctl_quota_used_bytes{container=\"101\",quota=\"traffic\"} 799999999999",
                "trafctl_quota_allowance_bytes{container=\"101\",quota=\"traffic\"} 800000000000",
                "trafctl_quota_expected_bytes{container=\"101\",quota=\"traffic\"} 950000000007",
                "trafctl_quota_exhaustion_timestamp_seconds{container=\"101\",quota=\"traffic\"} 1795000000",
            ]
        );
        let mut page = Page { text: String::new(), format: Format::Text };
        write(&mut page, &[]);
        assert_eq!(page.text, "");
    }
}
