//! `trafctl quota run` and `trafctl quota crossings`: what runs when a threshold is crossed, and what became of it.

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use traffic_ledger::{Ledger, QuotaCrossing};

use crate::{
    cli::{
        Done, Format, Global,
        global::OnThisNode,
        output::{print, print_error},
        terminal,
    },
    queries::known_names,
    quota_actions::{Journal, RunState, Runner, orders},
    render::quota_crossings::{self as render, Crossed, Ran, Shown},
};

/// How many crossings are read at once.
const BATCH: u32 = 10_000;

/// Run the actions of quotas as thresholds are crossed
///
/// Runs until it is stopped, usually as trafctl-quota.service. Each action runs until it reports success by status
/// 0, after failures ever more rarely: at least once for each crossing, under an id that stays. It has none of the
/// daemon's rights, and nothing waits for it.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    systemctl enable --now trafctl-quota\n  \
    trafctl quota run --once")]
pub(super) struct RunOptions {
    /// Run what is due, and exit; status 1 if an action is not done
    #[arg(long)]
    once: bool,
}

/// List the thresholds that were crossed, and what became of their actions
///
/// A threshold is reached, undone by a correction or another allowance, or ends with its period. Each is found
/// once, in the drain that saw it. With --failed, only actions that failed and are not done are listed, and the
/// status is 1 if there are any.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    trafctl quota crossings\n  \
    trafctl quota crossings 101 --format json\n  \
    trafctl quota crossings --failed")]
pub(super) struct CrossingsOptions {
    /// Only these containers, by id or name
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Only actions that failed and are not done
    #[arg(long)]
    failed: bool,
    /// Exact numbers, also on a terminal
    #[arg(long)]
    bytes: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) async fn run(global: &Global, options: &RunOptions) -> anyhow::Result<Done> {
    let mut runner = Runner::new(&global.state_dir, global.quota_file())?;
    if options.once {
        let left = runner.run_once().await;
        if let Some(problem) = runner.problem() {
            anyhow::bail!("cannot run the actions of quotas: {problem}");
        }
        for (id, message) in &left {
            print_error(&anyhow::anyhow!("action {id} is not done: {message}"));
        }
        return Ok(Done::success_if(left.is_empty()));
    }
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    tokio::select! {
        () = runner.run() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(Done::Success)
}

/// All crossings of a ledger.
fn all(ledger: &Ledger) -> anyhow::Result<Vec<QuotaCrossing>> {
    let mut all: Vec<QuotaCrossing> = Vec::new();
    loop {
        let after = all.last().map_or(0, |last| last.sequence);
        let mut next = ledger.quota_crossings(after, BATCH)?;
        if next.is_empty() {
            return Ok(all);
        }
        all.append(&mut next);
    }
}

pub(super) fn crossings(global: &Global, options: &CrossingsOptions) -> anyhow::Result<Done> {
    let ledger = global.ledger()?;
    let journal = Journal::read(&global.state_dir)?;
    let wanted = known_names(&ledger, &options.containers, &OnThisNode::new(global))?;
    let mut crossed: Vec<Crossed> = Vec::new();
    for crossing in all(&ledger)? {
        if !wanted.is_empty() && !wanted.contains(&crossing.container) {
            continue;
        }
        let mut actions: Vec<Ran> = orders(&crossing)
            .map(|order| {
                let run = journal.run(&order.id).cloned();
                Ran { id: order.id, action: order.action, run }
            })
            .collect();
        if options.failed {
            actions.retain(|ran| ran.run.as_ref().is_some_and(|run| run.state == RunState::Failed));
            if actions.is_empty() {
                continue;
            }
        }
        crossed.push(Crossed { crossing, actions });
    }
    let shown = Shown {
        exact: options.bytes || !terminal::is_output(),
        calendar: ledger.calendar(),
        crossed: &crossed,
    };
    print(&render::shown(&shown, options.format.into())?)?;
    Ok(Done::success_if(!options.failed || crossed.is_empty()))
}
