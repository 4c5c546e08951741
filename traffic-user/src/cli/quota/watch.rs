//! `trafctl quota watch` and `trafctl quota alerts`: looks at the node for `[[alert]]`, and what was found.

use std::{fs::File, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use jiff::{Timestamp, ToSpan as _};
use tokio::signal::unix::{SignalKind, signal};
use traffic_ledger::Ledger;
use traffic_model::local_time::LocalTime;
use traffic_quota::{Alert, ProblemKind, Quotas};

use crate::{
    cli::{Done, Format, Global, output::print},
    drain::ledger_path,
    kernel::load,
    node::status::{
        Detail, Problem, Readings, Sent, gather_with_counters, late_reading, nearly_full, of_gaps,
    },
    quota_actions::{Found, Journal, NodeAlerts, orders_of_alert},
    render::quota_alerts as render,
    state_file, time,
};

/// How often the node is looked at.
const PAUSE: Duration = Duration::from_mins(1);
/// Name of the file that the one process locks that looks.
const LOCK: &str = "node-alerts.lock";
/// For how long a gap is news, in hours.
const NEWS_HOURS: i64 = 24;

/// Look for problems of the node that quotas.toml has alerts for
///
/// Looks once a minute until it is stopped, usually as trafctl-watch.service, and keeps what it finds in
/// node-alerts.json of the state directory. It changes nothing on the node, and needs the daemon for nothing:
/// that the daemon ended is what it is for. `trafctl quota run` sends the alerts.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    systemctl enable --now trafctl-watch trafctl-quota\n  \
    trafctl quota watch --once")]
pub(super) struct WatchOptions {
    /// Look once, and exit
    #[arg(long)]
    once: bool,
}

/// List the problems of the node that actions were run for, and what became of these
///
/// A problem that lasts is listed without an end. Status 1 if there is any.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  trafctl quota alerts\n  trafctl quota alerts --format json")]
pub(super) struct AlertsOptions {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn watch(global: &Global, options: &WatchOptions) -> anyhow::Result<Done> {
    let mut watcher = Watcher::new(global)?;
    if options.once {
        watcher.look(global).await?;
        return Ok(Done::Success);
    }
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    tokio::select! {
        () = watcher.run(global) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(Done::Success)
}

/// What lasts from one look to the next.
struct Watcher {
    known: NodeAlerts,
    /// The last alerts without a mistake.
    alerts: Vec<Alert>,
    sent: Option<Sent>,
    /// What was logged last, so that it is not repeated each minute.
    problem: Option<String>,
    _lock: File,
}

impl Watcher {
    fn new(global: &Global) -> anyhow::Result<Self> {
        let path = global.state_dir.join(LOCK);
        let lock = state_file::try_lock_file(&path)
            .with_context(|| format!("cannot lock {}", path.display()))?
            .with_context(|| {
                format!(
                    "another `trafctl quota watch` looks for {}; stop it first",
                    global.state_dir.display()
                )
            })?;
        // Whatever is there instead of what it was, nobody goes without an alert: some are told again.
        let known = NodeAlerts::read(&global.state_dir).unwrap_or_else(|error| {
            tracing::error!("{error:#}; what lasts is told again");
            None
        });
        let known = known.unwrap_or_default();
        Ok(Self { known, alerts: Vec::new(), sent: None, problem: None, _lock: lock })
    }

    async fn run(&mut self, global: &Global) {
        let mut ticks = tokio::time::interval(PAUSE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let problem = self.look(global).await.err().map(|error| format!("{error:#}"));
            if problem != self.problem
                && let Some(problem) = &problem
            {
                tracing::error!("{problem}");
            }
            self.problem = problem;
        }
    }

    /// Looks once, and keeps what it found.
    async fn look(&mut self, global: &Global) -> anyhow::Result<()> {
        let read = super::read(&global.quota_file());
        let mistake = match read {
            Ok(Some(Ok(Quotas { alerts, .. }))) => {
                self.alerts = alerts;
                None
            }
            Ok(None) => {
                self.alerts = Vec::new();
                None
            }
            Ok(Some(Err(mistakes))) => {
                let first = mistakes.first().map_or_else(String::new, |first| {
                    format!(":{}:{}: {}", first.line, first.column, first.message)
                });
                Some(format!("{}{first}; the alerts from before stay", global.quota_file().display()))
            }
            Err(error) => Some(format!("{error:#}")),
        };
        let now = time::now_or_end();
        let mut found = self.of_node(global, now).await;
        found.extend(mistake.map(|text| lasting(Problem { kind: ProblemKind::Quotas, text })));
        self.known.look(now.as_second(), &found, &self.alerts);
        self.known.write(&global.state_dir).context("cannot keep what was found")
    }

    async fn of_node(&mut self, global: &Global, now: Timestamp) -> Vec<Found> {
        let mut found = Vec::new();
        let config = global.config_to_show().0;
        if self.known.node.is_empty() || !config.node.is_empty() {
            self.known.node.clone_from(&config.node);
        }
        match self.status(global).await {
            Ok((status, sent)) => {
                let late = late_reading(&status, config.drain_interval, now.as_second());
                let mut problems = nearly_full(&status);
                problems.extend(late);
                problems.extend(self.sent.as_ref().map(|before| sent.faulty(before)).unwrap_or_default());
                self.sent = Some(sent);
                let kinds = status.problem_kinds.iter().filter_map(|kind| ProblemKind::of(kind));
                let of_status = kinds.zip(status.problems).map(|(kind, text)| Problem { kind, text });
                found.extend(of_status.chain(problems).map(lasting));
            }
            Err(error) => {
                let text = format!("the state of the node cannot be read: {error:#}");
                found.push(lasting(Problem { kind: ProblemKind::Daemon, text }));
            }
        }
        found.extend(news(&global.state_dir, now));
        found
    }

    async fn status(&self, global: &Global) -> anyhow::Result<(crate::node::status::Status, Sent)> {
        let maps = Arc::new(load::open(&global.pinned())?);
        let mut host = global.host_to_show(global.pinned())?;
        let readings = Readings::begin(&host, &global.state_dir, &maps, Detail::Node)?;
        host.survey(readings.interfaces());
        host.ask_if_needed(readings.interfaces()).await;
        let (status, snapshot) = gather_with_counters(&host, &global.state_dir, &maps, readings)?;
        let sent = Sent::of(&snapshot);
        Ok((status, sent))
    }
}

/// The gaps of the last day. One that cannot be read is a problem that `status` has.
fn news(state_dir: &Path, now: Timestamp) -> Vec<Found> {
    let path = ledger_path(state_dir);
    let from = now.checked_sub(NEWS_HOURS.hours()).ok();
    let Ok(ledger) = Ledger::open_read_only(&path) else { return Vec::new() };
    let gaps = ledger.gaps(from, None).unwrap_or_default();
    let past = |(key, Problem { kind, text })| Found { kind, key, text, is_past: true };
    of_gaps(&gaps, &LocalTime::of(ledger.calendar())).into_iter().map(past).collect()
}

fn lasting(problem: Problem) -> Found {
    Found { kind: problem.kind, key: key(&problem), text: problem.text, is_past: false }
}

/// What a problem is known by. Of some kinds there is one. Of the others, each has the name of something
/// first, or begins with words; figures after that change.
fn key(problem: &Problem) -> String {
    match problem.kind {
        ProblemKind::Interfaces
        | ProblemKind::Figures
        | ProblemKind::Tables
        | ProblemKind::Faults
        | ProblemKind::Owners
        | ProblemKind::Configuration
        | ProblemKind::Other => {
            let text = problem.text.split_once(": ").map_or(problem.text.as_str(), |(name, _)| name);
            let is_word = |word: &&str| !word.starts_with(|c: char| c.is_ascii_digit() || c == '(');
            let words = text.split_whitespace();
            match problem.text.contains(": ") {
                true => text.to_owned(),
                false => words.filter(is_word).take(8).collect::<Vec<_>>().join(" "),
            }
        }
        _ => String::new(),
    }
}

pub(super) fn alerts(global: &Global, options: &AlertsOptions) -> anyhow::Result<Done> {
    let known = NodeAlerts::read(&global.state_dir)?.unwrap_or_default();
    let journal = Journal::read(&global.state_dir)?;
    let rows: Vec<render::Row> = known
        .alerts
        .iter()
        .map(|alert| {
            let runs = orders_of_alert(&known.node, alert).into_iter().map(|order| {
                let run = journal.run(&order.id).cloned();
                (order, run)
            });
            render::Row { alert, runs: runs.collect() }
        })
        .collect();
    print(&render::shown(known.looked_s, &rows, options.format.into())?)?;
    Ok(Done::success_if(known.alerts.iter().all(|alert| alert.over_s.is_some())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_do_not_make_another_problem() {
        let key_of = |kind, text: &str| key(&Problem { kind, text: text.to_owned() });
        let disk = |text| key_of(ProblemKind::Disk, text);
        assert_eq!(disk("only 9.1 MiB are free for"), disk("only 812 KiB are free for"));
        let of = |text| key_of(ProblemKind::Interfaces, text);
        assert_eq!(of("veth101.0: not attached (in)"), "veth101.0");
        assert_ne!(of("veth101.0: not attached (in)"), of("veth102.0: not attached (in)"));
        let of = |text| key_of(ProblemKind::Owners, text);
        assert_eq!(
            of("the program lacks 3 of the containers' addresses (a, ...)"),
            of("the program lacks 4 of the containers' addresses (b, ...)")
        );
        let of = |text| key_of(ProblemKind::Tables, text);
        assert_eq!(of("containers: 950 of 1000 places"), of("containers: 951 of 1000 places"));
        let of = |text| key_of(ProblemKind::Faults, text);
        assert_ne!(of("container 101: 9 of 10 packets"), of("container 102: 9 of 10 packets"));
    }
}
