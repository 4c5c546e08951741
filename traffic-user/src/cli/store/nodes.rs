//! `trafctl store nodes`: how far each node has shipped.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use traffic_model::{
    calendar::FIVE_MINUTES_S,
    units::{DurationRange, InvalidAmount, format_duration},
};
use traffic_store::NodeState;

use super::{Passwords, target_of};
use crate::{
    cli::{Done, Global, print},
    queries::SheetFormat,
    render::{json, rows as table},
};

#[derive(Debug, Args)]
pub struct Options {
    /// The database: `postgresql://USER@HOST/DATABASE`, or `clickhouse+https://USER@HOST/DATABASE`
    #[arg(value_name = "URL")]
    url: String,
    /// The longest lag of a node that is not behind
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = max_lag)]
    max_lag: Duration,
    #[command(flatten)]
    passwords: Passwords,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: SheetFormat,
}

fn max_lag(text: &str) -> Result<Duration, InvalidAmount> {
    const RANGE: DurationRange =
        DurationRange { shortest: Duration::from_secs(1), longest: Duration::from_hours(24 * 366) };
    RANGE.parse(text)
}

/// A node of the store.
#[derive(Serialize)]
struct ShownNode {
    node: String,
    ledger: String,
    version: String,
    kernel: String,
    /// Start of the last five minutes that arrived.
    last_bucket: Option<Timestamp>,
    /// The last reading of its counters that the store knows of; null of an older trafctl.
    last_reading: Option<Timestamp>,
    /// Seconds since that; null if nothing arrived.
    lag_s: Option<i64>,
    /// Gaps that lost traffic, in months that are not closed.
    open_gaps: i64,
    /// Whether the lag is longer than `--max-lag`, or nothing arrived.
    is_behind: bool,
}

impl ShownNode {
    fn new(state: NodeState, now: i64, max_lag: Duration) -> anyhow::Result<Self> {
        // A node with an older trafctl does not say when it read its counters.
        let last = state.last_reading.or(state.last_bucket.map(|bucket| bucket + FIVE_MINUTES_S));
        let lag_s = last.map(|last| (now - last).max(0));
        let time = |second: Option<i64>| second.map(Timestamp::from_second).transpose();
        Ok(Self {
            last_bucket: time(state.last_bucket)?,
            last_reading: time(state.last_reading)?,
            lag_s,
            open_gaps: state.open_gaps,
            is_behind: lag_s.is_none_or(|lag| lag.unsigned_abs() > max_lag.as_secs()),
            node: state.node,
            ledger: state.ledger,
            version: state.version,
            kernel: state.kernel,
        })
    }

    fn fields(&self, is_csv: bool) -> Vec<String> {
        let time = |time: Option<Timestamp>| time.map_or_else(String::new, |time| time.to_string());
        let lag = match (self.lag_s, is_csv) {
            (Some(lag), true) => lag.to_string(),
            (Some(lag), false) => format_duration(Duration::from_secs(lag.unsigned_abs())),
            (None, _) => String::new(),
        };
        let mut fields = vec![self.node.clone(), time(self.last_bucket), lag, self.version.clone()];
        fields.push(self.open_gaps.to_string());
        fields.push(if is_csv { self.is_behind.to_string() } else { yes(self.is_behind).to_owned() });
        if is_csv {
            fields.extend([self.kernel.clone(), time(self.last_reading), self.ledger.clone()]);
        }
        fields
    }
}

const fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

pub(super) async fn run(global: &Global, of: &Options) -> anyhow::Result<Done> {
    let target = target_of(global, &of.url, &of.passwords)?;
    let found = target.nodes().await.with_context(|| format!("cannot use the store {}", target.name()))?;
    let now = crate::time::now()?.as_second();
    let nodes: Vec<ShownNode> = found
        .into_iter()
        .map(|state| ShownNode::new(state, now, of.max_lag))
        .collect::<anyhow::Result<_>>()?;
    let has_csv = of.format == SheetFormat::Csv;
    let rows = || nodes.iter().map(|node| node.fields(has_csv));
    print(&match of.format {
        SheetFormat::Json => json::list("nodes", &nodes)?,
        SheetFormat::Csv => csv_of(rows())?,
        SheetFormat::Table if nodes.is_empty() => "the store has no nodes yet\n".to_owned(),
        SheetFormat::Table => {
            table(&["NODE", "LAST BUCKET", "LAG", "VERSION", "OPEN GAPS", "BEHIND"], rows())
        }
    })?;
    Ok(Done::success_if(nodes.iter().all(|node| !node.is_behind)))
}

fn csv_of(rows: impl Iterator<Item = Vec<String>>) -> anyhow::Result<String> {
    let columns = [
        "node",
        "last_bucket",
        "lag_s",
        "version",
        "open_gaps",
        "is_behind",
        "kernel",
        "last_reading",
        "ledger",
    ];
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns)?;
    for row in rows {
        writer.write_record(row)?;
    }
    Ok(String::from_utf8(writer.into_inner().context("cannot format the nodes")?)?)
}
