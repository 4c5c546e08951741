//! What containers have used of their quotas, and what their periods come to.

use std::fmt::Display;

use super::page::{Metric, Page};
use crate::{
    api::quota_rows::{QuotaFacts, QuotaRow},
    quota_actions::LastLooks,
};

type Value = fn(&QuotaRow) -> Option<String>;

/// The quotas and their services; nothing where there are none. Labels are the container's id and the name of the
/// quota.
pub(super) fn write(page: &mut Page, facts: Option<&QuotaFacts>, last_looks: LastLooks) {
    let known = |value: &dyn Fn(&QuotaFacts) -> Option<String>| facts.and_then(value);
    let values = [
        (
            "trafctl_quota_actions_failed",
            None,
            "Actions of quotas that failed and are not done.",
            known(&|facts| facts.has_actions.then(|| facts.failed_actions.to_string())),
        ),
        (
            "trafctl_quota_run_timestamp_seconds",
            Some("seconds"),
            "When actions of quotas were last looked for, to within a minute; zero for never.",
            known(&|facts| facts.has_actions.then(|| last_looks.run_s.unwrap_or(0).to_string())),
        ),
        (
            "trafctl_quota_watch_timestamp_seconds",
            Some("seconds"),
            "When problems of the node were last looked for, for alerts; zero for never.",
            known(&|facts| facts.has_alerts.then(|| last_looks.watch_s.unwrap_or(0).to_string())),
        ),
    ];
    for (name, unit, help, value) in values {
        if let Some(value) = value {
            let metric = Metric::gauge(name, unit, help);
            page.open(metric);
            page.sample(metric, &[], value);
        }
    }
    of_containers(page, facts.map_or(&[], |facts| &facts.rows));
}

fn of_containers(page: &mut Page, rows: &[QuotaRow]) {
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
        let facts =
            QuotaFacts { rows: vec![rate, volume], failed_actions: 3, has_actions: true, has_alerts: true };
        write(&mut page, Some(&facts), LastLooks { run_s: Some(7), watch_s: Some(8) });
        let samples: Vec<&str> = page.text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "trafctl_quota_actions_failed 3",
                "trafctl_quota_run_timestamp_seconds 7",
                "trafctl_quota_watch_timestamp_seconds 8",
                "trafctl_quota_used_ratio{container=\"101\",quota=\"rate\"} 1.500000",
                "trafctl_quota_used_ratio{container=\"101\",quota=\"traffic\"} 0.999999",
                "trafctl_quota_used_bytes{container=\"101\",quota=\"traffic\"} 799999999999",
                "trafctl_quota_allowance_bytes{container=\"101\",quota=\"traffic\"} 800000000000",
                "trafctl_quota_expected_bytes{container=\"101\",quota=\"traffic\"} 950000000007",
                "trafctl_quota_exhaustion_timestamp_seconds{container=\"101\",quota=\"traffic\"} 1795000000",
            ]
        );
        let mut page = Page { text: String::new(), format: Format::Text };
        // Files of services that nobody needs any more say nothing.
        write(&mut page, Some(&QuotaFacts::default()), LastLooks { run_s: Some(7), watch_s: Some(8) });
        write(&mut page, None, LastLooks::default());
        assert_eq!(page.text, "");
    }
}
