//! What containers have used of their quotas, for the metrics. Read from the ledger now and then, never for
//! each request: it takes two reports.

use traffic_ledger::Ledger;
use traffic_quota::Limit;

use crate::{
    queries::{QuotaFiles, quotas::Asker},
    quota_actions,
};

/// The most that are shown: those of which most is used.
const MOST: usize = 10_000;

/// A quota of a container in its present period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRow {
    /// The container's id.
    pub container: String,
    /// Name of the quota.
    pub quota: String,
    /// Whether it is a rate at a percentile, in bits per second, instead of bytes.
    pub is_rate: bool,
    /// What is used.
    pub used: u64,
    /// What may be used; never 0.
    pub allowance: u64,
    /// What the period comes to.
    pub expected: Option<u64>,
    /// When the allowance runs out, in seconds since the Unix epoch.
    pub runs_out_s: Option<i64>,
}

/// What is known of quotas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaFacts {
    /// What is used.
    pub rows: Vec<QuotaRow>,
    /// How many actions failed and are not done.
    pub failed_actions: usize,
    /// Whether the file has actions that run for quotas or alerts.
    pub has_actions: bool,
    /// Whether it has alerts.
    pub has_alerts: bool,
}

/// Reads them, those with the highest share first. Quotas without a limit or a figure have no row.
///
/// # Errors
/// When the file has a mistake, or the ledger cannot be read.
pub fn read(ledger: &Ledger, files: &QuotaFiles) -> anyhow::Result<QuotaFacts> {
    let quotas = files.read()?;
    let has_alerts = !quotas.alerts.is_empty();
    let facts = QuotaFacts {
        rows: Vec::new(),
        failed_actions: quota_actions::failed(ledger, &files.state_dir)?,
        has_actions: has_alerts || quotas.quotas.iter().any(|quota| !quota.actions.is_empty()),
        has_alerts,
    };
    let mut asker = Asker::new(ledger)?;
    let Some(at) = asker.extent().last_reading.filter(|_| !quotas.quotas.is_empty()) else {
        return Ok(facts);
    };
    let mut rows: Vec<QuotaRow> = asker
        .standings(&quotas, at, &(files.ids)())?
        .into_iter()
        .filter_map(|standing| {
            Some(QuotaRow {
                is_rate: matches!(standing.quota.limit, Limit::Rate { .. }),
                used: standing.used.as_ref().ok().copied()?,
                allowance: standing.allowance.filter(|allowance| *allowance > 0)?,
                expected: standing.forecast.map(|forecast| forecast.expected),
                runs_out_s: standing.forecast.and_then(|forecast| forecast.runs_out_s),
                quota: standing.quota.name.clone(),
                container: standing.container,
            })
        })
        .collect();
    let share = |row: &QuotaRow| u128::from(row.used) * 1_000_000 / u128::from(row.allowance);
    rows.sort_by_key(|row| std::cmp::Reverse(share(row)));
    rows.truncate(MOST);
    rows.sort_by(|a, b| (&a.quota, &a.container).cmp(&(&b.quota, &b.container)));
    Ok(QuotaFacts { rows, ..facts })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use traffic_ledger::testing::{NOON, Node, ledger};

    use super::*;

    #[test]
    fn each_quota_of_a_container_is_a_row_with_the_figures_of_quota_show() {
        let mut file = ledger();
        let mut node = Node::balanced(NOON);
        for _ in 0..5 {
            node.traffic("101", 1, [1, 1_000_000, 2, 2_000_000]).traffic("102", 1, [1, 10, 2, 20]);
            node.pass(86_400).drain(&mut file.ledger);
        }
        let quotas = file.dir.path().join("quotas.toml");
        let files = QuotaFiles {
            file: quotas.clone(),
            state_dir: file.dir.path().to_owned(),
            ids: Box::new(|| Box::new(|id| vec![id.to_owned()])),
        };
        assert_eq!(read(&file.ledger, &files).unwrap(), QuotaFacts::default(), "there is no file");
        let text = "[[quota]]\nname = 'traffic'\ndefault = true\nallowance = '30MB'\n\
                    [[quota]]\nname = 'traffic'\ncontainer = '102'\nunlimited = true\n\
                    [[quota]]\nname = 'rate'\ncontainer = '101'\ncommit = '1kbit/s'\nperiod = 'week'\n";
        fs::write(&quotas, text).unwrap();
        let QuotaFacts { rows, has_actions, .. } = read(&file.ledger, &files).unwrap();
        assert!(!has_actions);
        assert_eq!(rows.len(), 2, "{rows:?}");
        let names = |row: &QuotaRow| (row.quota.clone(), row.container.clone(), row.is_rate, row.allowance);
        assert_eq!(names(&rows[0]), ("rate".to_owned(), "101".to_owned(), true, 1000));
        assert_eq!(names(&rows[1]), ("traffic".to_owned(), "101".to_owned(), false, 30_000_000));
        assert_eq!(rows[1].used, 15_000_000);
        // Five days of three megabytes, and fifteen and a half to come.
        assert!(rows[1].expected.unwrap() > 60_000_000 && rows[1].runs_out_s.is_some(), "{rows:?}");
        let act = "[[action]]\nname = 'act'\ncommand = ['/bin/true']\n";
        for (end, expected) in [
            ("", (false, false)),
            ("actions = { '80%' = ['act'] }\n", (true, false)),
            ("[[alert]]\nactions = ['act']\n", (true, true)),
        ] {
            fs::write(&quotas, format!("{act}{text}{end}")).unwrap();
            let facts = read(&file.ledger, &files).unwrap();
            assert_eq!((facts.has_actions, facts.has_alerts), expected, "{end}");
        }
        fs::write(&quotas, "[[quota]]\n").unwrap();
        assert!(read(&file.ledger, &files).unwrap_err().to_string().contains("quotas.toml:1:1: "));
    }
}
