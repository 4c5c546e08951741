//! What `trafctl quota` prints.

use jiff::Timestamp;
use serde::Serialize;
use traffic_model::{
    counted,
    local_time::LocalTime,
    units::{percent, rate, volume},
};
use traffic_quota::{
    Direction, FORECAST_METHOD, FileMistake, FirstPeriod, Limit, PeriodKind, Quota, Quotas, Scope,
};

use crate::{
    queries::quotas::Standing,
    render::{columns, json, ledger::Format, look::printable, rows, with_name},
};

/// The result of `quota check`.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// The file.
    pub file: String,
    /// Whether it exists.
    pub exists: bool,
    /// How many quotas it has, if it has no mistake.
    pub quotas: usize,
    /// Mistakes in it.
    pub mistakes: Vec<FileMistake>,
    /// What does not fit the node.
    pub problems: Vec<String>,
}

/// Mistakes and problems, one on each line.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn checked(checked: &Checked, format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::document(checked);
    }
    let file = &checked.file;
    if !checked.exists {
        return Ok(format!("{file} does not exist, so there are no quotas\n"));
    }
    let mut text = String::new();
    for FileMistake { line, column, message } in &checked.mistakes {
        text += &format!("{file}:{line}:{column}: {message}\n");
    }
    for problem in &checked.problems {
        text += &format!("problem: {problem}\n");
    }
    if text.is_empty() {
        text = format!("{file}: {}, no mistakes\n", quotas(checked.quotas));
    }
    Ok(text)
}

fn quotas(number: usize) -> String {
    counted(number, "quota")
}

/// What `quota list` prints.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The file.
    pub file: &'a str,
    /// What it has.
    pub quotas: &'a Quotas,
    /// For how many containers each quota decides.
    pub containers: &'a [u64],
}

#[derive(Serialize)]
struct ListedDocument<'a> {
    file: &'a str,
    quotas: Vec<ListedRow<'a>>,
}

#[derive(Serialize)]
struct ListedRow<'a> {
    name: &'a str,
    line: usize,
    scope: ScopeField<'a>,
    limit: LimitField,
    direction: Direction,
    /// Null for all that are billed.
    classes: Option<&'a [u8]>,
    period: String,
    /// Null for the ledger's.
    billing_day: Option<u8>,
    /// Null for the ledger's.
    time_zone: Option<&'a str>,
    first_period: FirstPeriod,
    thresholds_percent: &'a [u16],
    containers: u64,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum ScopeField<'a> {
    Container { id: &'a str },
    Tenant { tenant: &'a str },
    Pattern { pattern: &'a str },
    Default,
}

impl<'a> From<&'a Scope> for ScopeField<'a> {
    fn from(scope: &'a Scope) -> Self {
        match scope {
            Scope::Container(id) => Self::Container { id },
            Scope::Tenant(tenant) => Self::Tenant { tenant },
            Scope::Pattern(pattern) => Self::Pattern { pattern: &pattern.0 },
            Scope::Default => Self::Default,
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum LimitField {
    Allowance { bytes: u64 },
    Commit { bits_per_s: u64, percentile: f64 },
    Unlimited,
}

impl LimitField {
    /// A limit with the allowance of a container.
    fn new(limit: Limit, allowance: Option<u64>) -> Self {
        match limit {
            Limit::Volume(bytes) => Self::Allowance { bytes: allowance.unwrap_or(bytes) },
            Limit::Rate { bits_per_s, percentile } => Self::Commit { bits_per_s, percentile },
            Limit::Unlimited => Self::Unlimited,
        }
    }
}

fn classes(quota: &Quota) -> Option<&[u8]> {
    (!quota.classes.is_empty()).then_some(&quota.classes)
}

/// The quotas of a file.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn listed(listed: &Listed<'_>, format: Format) -> anyhow::Result<String> {
    let all = listed.quotas.quotas.iter().zip(listed.containers);
    if format == Format::Json {
        let quotas = all.map(|(quota, containers)| ListedRow {
            name: &quota.name,
            line: quota.line,
            scope: (&quota.scope).into(),
            limit: LimitField::new(quota.limit, None),
            direction: quota.direction,
            classes: classes(quota),
            period: quota.period.text(),
            billing_day: match quota.period.kind {
                PeriodKind::Month(day) => day,
                _ => None,
            },
            time_zone: quota.period.zone.as_deref(),
            first_period: quota.first_period,
            thresholds_percent: &quota.thresholds,
            containers: *containers,
        });
        return json::document(&ListedDocument { file: listed.file, quotas: quotas.collect() });
    }
    if listed.quotas.quotas.is_empty() {
        return Ok(format!("{}: no quotas\n", listed.file));
    }
    let lines = all.map(|(quota, containers)| {
        let classes = quota.classes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        vec![
            quota.name.clone(),
            printable(&quota.scope.text()),
            limit(quota),
            quota.direction.name().to_owned(),
            if classes.is_empty() { "billed".to_owned() } else { classes },
            period(quota),
            quota.thresholds.iter().map(|percent| format!("{percent}%")).collect::<Vec<_>>().join(","),
            containers.to_string(),
            quota.line.to_string(),
        ]
    });
    Ok(rows(
        &["NAME", "FOR", "LIMIT", "DIRECTION", "CLASSES", "PERIOD", "THRESHOLDS", "CONTAINERS", "LINE"],
        lines,
    ))
}

fn limit(quota: &Quota) -> String {
    match quota.limit {
        Limit::Volume(bytes) => volume(bytes),
        Limit::Rate { bits_per_s, percentile } => {
            #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
            let rate = rate(bits_per_s as f64);
            format!("{rate} at {percentile} %")
        }
        Limit::Unlimited => "unlimited".to_owned(),
    }
}

fn period(quota: &Quota) -> String {
    let day = match quota.period.kind {
        PeriodKind::Month(Some(day)) => format!(" from day {day}"),
        _ => String::new(),
    };
    let zone = quota.period.zone.as_ref().map(|zone| format!(", {zone}")).unwrap_or_default();
    format!("{}{day}{zone}", quota.period.text())
}

/// What `quota show` prints.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The file.
    pub file: &'a str,
    /// Exact numbers in the table.
    pub exact: bool,
    /// How many percent are used of all that are shown.
    pub over: Option<u16>,
    /// Time of the last reading.
    pub last_reading: Option<Timestamp>,
    /// The ledger's time zone.
    pub zone: &'a str,
    /// How many actions failed and are not done.
    pub failed_actions: usize,
    /// What is used.
    pub standings: &'a [Standing<'a>],
}

#[derive(Serialize)]
struct ShownDocument<'a> {
    file: &'a str,
    last_reading: Option<Timestamp>,
    forecast_method: &'static str,
    /// Actions that failed and are not done, of all containers.
    failed_actions: usize,
    standings: Vec<ShownRow<'a>>,
}

#[derive(Serialize)]
pub(super) struct ShownRow<'a> {
    container: &'a str,
    name: Option<&'a str>,
    quota: &'a str,
    line: usize,
    scope: ScopeField<'a>,
    direction: Direction,
    /// Null for all that are billed.
    classes: Option<&'a [u8]>,
    period: &'a str,
    start: Timestamp,
    end: Timestamp,
    time_zone: &'a str,
    limit: LimitField,
    /// Of an allowance, or of a period without a limit.
    used_bytes: Option<u64>,
    /// Of a commit.
    used_bits_per_s: Option<u64>,
    used_permille: Option<u64>,
    reached_percent: Vec<u16>,
    expected_bytes: Option<u64>,
    runs_out: Option<Timestamp>,
    problem: Option<&'a str>,
}

/// The time of a reading as quotas show it.
pub fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// What is used of quotas.
///
/// # Errors
/// When an instant is outside the years that can be represented.
pub fn shown(shown: &Shown<'_>, format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        let standings = shown.standings.iter().map(shown_row).collect::<anyhow::Result<_>>()?;
        let Shown { file, last_reading, failed_actions, .. } = *shown;
        return json::document(&ShownDocument {
            file,
            last_reading,
            forecast_method: FORECAST_METHOD,
            failed_actions,
            standings,
        });
    }
    if shown.standings.is_empty() {
        return Ok(match (shown.over, shown.last_reading) {
            (Some(percent), Some(_)) => format!("no quota is used to {percent} %\n"),
            (_, None) => "the ledger has no reading yet\n".to_owned(),
            _ => format!("no container has a quota; quotas are in {}\n", shown.file),
        });
    }
    let lines: Vec<_> = shown.standings.iter().map(|standing| table_row(standing, shown.exact)).collect();
    let mut text = columns(&heading(shown.exact), &(3..7), &lines);
    for standing in shown.standings {
        if let Err(problem) = &standing.used {
            let (container, quota) = (&standing.container, &standing.quota.name);
            text += &format!("problem: {container}, {quota}: {problem}\n");
        }
    }
    if shown.failed_actions > 0 {
        let failed = counted(shown.failed_actions, "action");
        text += &format!("problem: {failed} failed; `trafctl quota crossings --failed` lists what\n");
    }
    if let Some(last) = shown.last_reading {
        text += &format!("last reading: {}\n", LocalTime::named(shown.zone).text(last));
    }
    if shown.standings.iter().any(|standing| standing.forecast.is_some()) {
        text += &format!("expected: {FORECAST_METHOD}\n");
    }
    Ok(text)
}

/// A row of a document.
pub(super) fn shown_row<'a>(standing: &'a Standing<'_>) -> anyhow::Result<ShownRow<'a>> {
    let quota = standing.quota;
    let is_rate = matches!(quota.limit, Limit::Rate { .. });
    let used = standing.used.as_ref().ok().copied();
    let runs_out = standing.forecast.and_then(|forecast| forecast.runs_out_s);
    Ok(ShownRow {
        container: &standing.container,
        name: standing.name.as_deref(),
        quota: &quota.name,
        line: quota.line,
        scope: (&quota.scope).into(),
        direction: quota.direction,
        classes: classes(quota),
        period: &standing.label,
        start: Timestamp::from_second(standing.span.start_s)?,
        end: Timestamp::from_second(standing.span.end_s)?,
        time_zone: &standing.zone,
        limit: LimitField::new(quota.limit, standing.allowance),
        used_bytes: used.filter(|_| !is_rate),
        used_bits_per_s: used.filter(|_| is_rate),
        used_permille: standing.permille(),
        reached_percent: standing.reached(),
        expected_bytes: standing.forecast.map(|forecast| forecast.expected),
        runs_out: runs_out.map(Timestamp::from_second).transpose()?,
        problem: standing.used.as_ref().err().map(String::as_str),
    })
}

/// The date of an instant as text.
fn date_of(text: &str) -> String {
    text.split('T').next().unwrap_or_default().to_owned()
}

/// The heading of a table of [`table_row`]s.
pub(super) fn heading(exact: bool) -> Vec<String> {
    let unit = exact.then_some("UNIT");
    let columns = ["CONTAINER", "QUOTA", "PERIOD", "USED", "OF", "SHARE", "EXPECTED"].into_iter();
    columns.chain(unit).chain(["RUNS OUT", "REACHED"]).map(str::to_owned).collect()
}

/// A row of a table.
pub(super) fn table_row(standing: &Standing<'_>, exact: bool) -> Vec<String> {
    let nothing = || "-".to_owned();
    let is_rate = matches!(standing.quota.limit, Limit::Rate { .. });
    let amount = |value: u64| match (exact, is_rate) {
        (true, _) => value.to_string(),
        (false, false) => volume(value),
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        (false, true) => rate(value as f64),
    };
    let used = standing.used.as_ref().ok().copied();
    let runs_out = match (standing.forecast, used, standing.allowance) {
        (_, Some(used), Some(allowance)) if used >= allowance && !is_rate => "used up".to_owned(),
        (Some(forecast), ..) => forecast
            .runs_out_s
            .and_then(|unix_s| Timestamp::from_second(unix_s).ok())
            .map_or_else(nothing, |time| date_of(&LocalTime::named(&standing.zone).text(time))),
        _ => nothing(),
    };
    let reached: Vec<String> = standing.reached().iter().map(|percent| format!("{percent}%")).collect();
    let mut cells = vec![
        printable(&with_name(&standing.container, standing.name.as_deref())),
        standing.quota.name.clone(),
        standing.label.clone(),
        used.map_or_else(|| "?".to_owned(), amount),
        standing.allowance.map_or_else(|| "unlimited".to_owned(), amount),
        standing.permille().map_or_else(nothing, |permille| percent(permille, used == Some(0))),
        standing.forecast.map_or_else(nothing, |forecast| amount(forecast.expected)),
    ];
    cells.extend(exact.then(|| if is_rate { "bit/s" } else { "bytes" }.to_owned()));
    cells.push(runs_out);
    cells.push(if reached.is_empty() { nothing() } else { reached.join(",") });
    cells
}
