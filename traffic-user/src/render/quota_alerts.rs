//! What `trafctl quota alerts` prints.

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    quota_actions::{NodeAlert, Order, Run},
    render::{json, ledger::Format, look::printable, quota_crossings::state, rows},
};

/// An alert with its runs.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The alert.
    pub alert: &'a NodeAlert,
    /// The runs that it ordered, and what became of them.
    pub runs: Vec<(Order, Option<Run>)>,
}

#[derive(Serialize)]
struct Document<'a> {
    /// When the node was looked at last; null if nobody has looked.
    looked: Option<String>,
    alerts: Vec<AlertRow<'a>>,
}

#[derive(Serialize)]
struct AlertRow<'a> {
    id: &'a str,
    /// The kind of its problems.
    problem: &'a str,
    problems: &'a [String],
    count: usize,
    since: String,
    told: String,
    /// Null while one of them lasts.
    over: Option<String>,
    actions: Vec<ActionRow<'a>>,
}

#[derive(Serialize)]
struct ActionRow<'a> {
    id: &'a str,
    event: &'static str,
    action: &'a str,
    state: &'static str,
    attempts: u32,
    message: Option<&'a str>,
}

fn utc(unix_s: i64) -> String {
    Timestamp::from_second(unix_s).map_or_else(|_| unix_s.to_string(), |time| time.to_string())
}

fn document<'a>(Row { alert, runs }: &'a Row<'_>) -> AlertRow<'a> {
    let actions = runs.iter().map(|(order, run)| ActionRow {
        id: &order.id,
        event: order.event().name(),
        action: &order.action,
        state: state(run.as_ref()),
        attempts: run.as_ref().map_or(0, |run| run.attempts),
        message: run.as_ref().and_then(|run| run.message.as_deref()),
    });
    AlertRow {
        id: &alert.id,
        problem: &alert.kind,
        problems: &alert.problems,
        count: alert.count,
        since: utc(alert.since_s),
        told: utc(alert.told_s),
        over: alert.over_s.map(utc),
        actions: actions.collect(),
    }
}

/// The alerts, each run in a line of its own.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn shown(looked_s: i64, alerts: &[Row<'_>], format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        let looked = Some(looked_s).filter(|looked_s| *looked_s > 0).map(utc);
        return json::document(&Document { looked, alerts: alerts.iter().map(document).collect() });
    }
    if looked_s == 0 {
        return Ok("nobody has looked yet; start `trafctl quota watch` (trafctl-watch.service)\n".to_owned());
    }
    if alerts.is_empty() {
        return Ok("no alerts\n".to_owned());
    }
    let lines = alerts.iter().flat_map(|row| {
        let shown = document(row);
        let first = printable(row.alert.problems.first().map_or("", String::as_str));
        let more = shown.count.saturating_sub(1);
        let text = if more == 0 { first } else { format!("{first} (and {more} more)") };
        let line = |action: &str, state: String, text: &str| {
            let over = shown.over.clone().unwrap_or_else(|| "-".to_owned());
            let fields = [shown.told.clone(), over, shown.problem.to_owned()];
            [&fields[..], &[action.to_owned(), state, text.to_owned()]].concat()
        };
        let mut lines: Vec<Vec<String>> = Vec::new();
        for action in &shown.actions {
            let became = match action.message {
                Some(message) => format!("{} {}: {}", action.event, action.state, printable(message)),
                None => format!("{} {}", action.event, action.state),
            };
            // The text once: it may be long.
            lines.push(line(action.action, became, if lines.is_empty() { &text } else { "" }));
        }
        if lines.is_empty() {
            lines.push(line("-", "-".to_owned(), &text));
        }
        lines
    });
    Ok(rows(&["TOLD", "OVER", "PROBLEM", "ACTION", "STATE", "TEXT"], lines))
}
