//! What `trafctl quota crossings` prints.

use jiff::Timestamp;
use serde::Serialize;
use traffic_ledger::QuotaCrossing;
use traffic_model::{
    calendar::Calendar,
    local_time::LocalTime,
    units::{rate, volume},
};

use crate::{
    quota_actions::{Run, RunState},
    render::{json, ledger::Format, look::printable, rows, with_name},
};

/// A run of an action, and what became of it.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The id that stays.
    pub id: String,
    /// Name of the action.
    pub action: String,
    /// What became of it; `None` if it was not begun.
    pub run: Option<Run>,
}

/// A crossing with its actions.
#[derive(Clone, Debug)]
pub struct Crossed {
    /// The crossing.
    pub crossing: QuotaCrossing,
    /// The actions that it ordered.
    pub actions: Vec<Ran>,
}

/// What is printed.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Whether figures are exact in the table.
    pub exact: bool,
    /// The ledger's calendar.
    pub calendar: &'a Calendar,
    /// In the order in which they were found.
    pub crossed: &'a [Crossed],
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    event: &'static str,
    container: &'a str,
    container_name: Option<&'a str>,
    quota: &'a str,
    period: &'a str,
    start: String,
    end: String,
    threshold_percent: u16,
    /// `bytes` or `bit/s`.
    unit: &'static str,
    used: u64,
    /// Null without a limit.
    allowance: Option<u64>,
    found: String,
    actions: Vec<ActionRow<'a>>,
}

#[derive(Serialize)]
struct ActionRow<'a> {
    id: &'a str,
    action: &'a str,
    state: &'static str,
    attempts: u32,
    /// When it was begun last; null if it was not.
    begun: Option<String>,
    /// Why it failed, or was not run.
    message: Option<&'a str>,
}

fn utc(unix_s: i64) -> String {
    Timestamp::from_second(unix_s).map_or_else(|_| unix_s.to_string(), |time| time.to_string())
}

pub(super) const fn state(run: Option<&Run>) -> &'static str {
    match run {
        None => "waiting",
        Some(run) => match run.state {
            RunState::Begun => "running",
            RunState::Failed => "failed",
            RunState::Done => "done",
            RunState::Dropped => "dropped",
        },
    }
}

fn row(Crossed { crossing, actions }: &Crossed) -> Row<'_> {
    let actions = actions.iter().map(|ran| {
        let run = ran.run.as_ref();
        ActionRow {
            id: &ran.id,
            action: &ran.action,
            state: state(run),
            attempts: run.map_or(0, |run| run.attempts),
            begun: run.filter(|run| run.attempts > 0).map(|run| utc(run.begun_s)),
            message: run.and_then(|run| run.message.as_deref()),
        }
    });
    Row {
        id: &crossing.id,
        event: crossing.change.name(),
        container: &crossing.container,
        container_name: crossing.name.as_deref(),
        quota: &crossing.quota,
        period: &crossing.label,
        start: utc(crossing.span.start_s),
        end: utc(crossing.span.end_s),
        threshold_percent: crossing.percent,
        unit: if crossing.is_rate { "bit/s" } else { "bytes" },
        used: crossing.used,
        allowance: Some(crossing.allowance).filter(|allowance| *allowance > 0),
        found: utc(crossing.made.as_second()),
        actions: actions.collect(),
    }
}

/// The crossings, each action in a line of its own.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn shown(shown: &Shown<'_>, format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::list("crossings", &shown.crossed.iter().map(row).collect::<Vec<_>>());
    }
    if shown.crossed.is_empty() {
        return Ok("no crossings\n".to_owned());
    }
    let local = LocalTime::of(shown.calendar);
    let lines = shown.crossed.iter().flat_map(|crossed| {
        let crossing = &crossed.crossing;
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let used = match (shown.exact, crossing.is_rate) {
            (true, _) => crossing.used.to_string(),
            (false, false) => volume(crossing.used),
            (false, true) => rate(crossing.used as f64),
        };
        let begin = vec![
            local.text(crossing.made),
            with_name(&crossing.container, crossing.name.as_deref()),
            crossing.quota.clone(),
            printable(&crossing.label),
            format!("{}%", crossing.percent),
            crossing.change.name().to_owned(),
            used,
        ];
        let line = move |action: [String; 3]| [begin.clone(), action.to_vec()].concat();
        let mut lines: Vec<Vec<String>> = Vec::new();
        for ran in &crossed.actions {
            let mut became = state(ran.run.as_ref()).to_owned();
            if let Some(message) = ran.run.as_ref().and_then(|run| run.message.as_deref()) {
                became += &format!(": {}", printable(message));
            }
            let attempts = ran.run.as_ref().map_or(0, |run| run.attempts).to_string();
            lines.push(line([ran.action.clone(), attempts, became]));
        }
        if lines.is_empty() {
            lines.push(line(["-", "-", "-"].map(str::to_owned)));
        }
        lines
    });
    Ok(rows(
        &["FOUND", "CONTAINER", "QUOTA", "PERIOD", "AT", "EVENT", "USED", "ACTION", "ATTEMPTS", "STATE"],
        lines,
    ))
}
