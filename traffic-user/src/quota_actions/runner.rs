//! Which runs begin when: reads new crossings from the ledger, and begins what is due by the journal.

mod in_force;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use tokio::task::JoinSet;
use traffic_https::Client;
use traffic_ledger::Ledger;
use traffic_quota::{Action, Means, Pending, Quotas, due};

use self::in_force::{Repeats, in_force, is_in_force};
use super::{
    NodeAlerts, Order,
    attempt::carry_out,
    journal::{Journal, Run, RunState},
    order::Cause,
    orders, orders_of_alert,
};
use crate::{drain::ledger_path, files, time};

/// How often the ledger is looked at. A look costs three calls of the kernel while it stays the same.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is shown that somebody looks.
const SHOWN_EVERY: Duration = Duration::from_mins(1);
/// How many runs of one action go on at once: a server that does not answer keeps no other action waiting.
const MOST_OF_ACTION: usize = 8;
/// How many runs go on at once.
const MOST_RUNNING: usize = 64;
/// How many crossings are read at once.
const BATCH: u32 = 1000;

/// The end of a run.
type Ended = (Order, Result<(), String>);

/// Runs actions.
#[derive(Debug)]
pub struct Runner {
    state_dir: PathBuf,
    ledger: PathBuf,
    /// The file with the quotas and their actions.
    file: PathBuf,
    journal: Journal,
    node: String,
    /// The state of the ledger that was read last.
    revision: Option<String>,
    /// The last crossing that was read, with its id: another one in its place is another ledger.
    read_to: Option<(i64, String)>,
    /// The file with the alerts that was read last.
    alerts_stamp: Option<(u64, i64, i64, u64)>,
    /// The node that it is about.
    alerts_node: String,
    /// The last actions without a mistake.
    quotas: Quotas,
    /// What is not done, in the order of crossings.
    pending: Vec<Order>,
    /// What is done and may be repeated.
    repeats: Repeats,
    running: JoinSet<Ended>,
    /// Whose runs are going on.
    subjects: BTreeSet<String>,
    /// How many runs of each action are going on.
    of_action: BTreeMap<String, usize>,
    client: Arc<Client>,
    /// When it was shown last that somebody looks.
    shown: Option<Instant>,
    /// What was logged last, so that it is not repeated each second.
    problem: Option<String>,
}

impl Runner {
    /// For a state directory, and the file with the quotas.
    ///
    /// # Errors
    /// When another process runs the actions of this directory, or its journal cannot be read.
    pub fn new(state_dir: &Path, file: PathBuf) -> anyhow::Result<Self> {
        let journal = Journal::open(state_dir, now_s())?;
        if journal.damaged > 0 {
            tracing::warn!(
                "{} lines of the journal of actions cannot be read and are ignored",
                journal.damaged
            );
        }
        Ok(Self {
            state_dir: state_dir.to_owned(),
            ledger: ledger_path(state_dir),
            file,
            journal,
            node: String::new(),
            revision: None,
            read_to: None,
            alerts_stamp: None,
            alerts_node: String::new(),
            quotas: Quotas::default(),
            pending: Vec::new(),
            repeats: Repeats::default(),
            running: JoinSet::new(),
            subjects: BTreeSet::new(),
            of_action: BTreeMap::new(),
            client: Arc::default(),
            shown: None,
            problem: None,
        })
    }

    /// Runs actions until it is dropped, which ends the programs that run. They run again at the next start.
    pub async fn run(&mut self) {
        loop {
            self.step();
            self.wait().await;
        }
    }

    /// Runs everything that is due until nothing is. Returns the runs that are not done, with why.
    pub async fn run_once(&mut self) -> Vec<(String, String)> {
        loop {
            let begun = self.step();
            if begun == 0 && self.running.is_empty() {
                break;
            }
            self.wait().await;
        }
        let left = self.pending.iter().map(|order| {
            let message = self.journal.run(&order.id).and_then(|run| run.message.clone());
            let message = message.or_else(|| self.problem.clone());
            (order.id.clone(), message.unwrap_or_else(|| "it waits for another run".to_owned()))
        });
        left.collect()
    }

    /// Why nothing can be run now, if nothing can.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    async fn wait(&mut self) {
        tokio::select! {
            Some(ended) = self.running.join_next() => {
                // A task that panicked has no result: its run stays begun, and is tried again.
                if let Ok((order, result)) = ended {
                    self.end(&order, result);
                }
            }
            () = tokio::time::sleep(PAUSE) => {}
        }
    }

    /// Reads what is new and begins what is due. Returns how many runs were begun or are over.
    fn step(&mut self) -> usize {
        if self.shown.is_none_or(|shown| shown.elapsed() >= SHOWN_EVERY) {
            self.journal.show_look();
            self.shown = Some(Instant::now());
        }
        let written = self.journal.write();
        // What is told of a node waits neither for its ledger nor for its disk: these may be the problem.
        let told = self.read_alerts().and_then(|()| self.begin_due(true));
        let begun = written
            .and_then(|()| self.read_crossings())
            .and_then(|()| Ok(self.begin_due(false)? + self.begin_again()?));
        let sum = told.as_ref().unwrap_or(&0) + begun.as_ref().unwrap_or(&0);
        match told.and(begun) {
            Ok(_) => {
                if self.problem.take().is_some() {
                    tracing::info!("actions of quotas run again");
                }
            }
            Err(error) => {
                let problem = format!("{error:#}");
                if self.problem.as_ref() != Some(&problem) {
                    tracing::error!("cannot run the actions of quotas: {problem}");
                    self.problem = Some(problem);
                }
            }
        }
        sum
    }

    /// Reads the problems of the node that `trafctl quota watch` has found.
    fn read_alerts(&mut self) -> anyhow::Result<()> {
        let stamp = NodeAlerts::stamp(&self.state_dir);
        if self.alerts_stamp == stamp {
            return Ok(());
        }
        let known = NodeAlerts::read(&self.state_dir)?.unwrap_or_default();
        // The journal stays new while the ledger cannot be read.
        let is_first = self.journal.is_new && self.alerts_stamp.is_none();
        for order in known.alerts.iter().flat_map(|alert| orders_of_alert(&known.node, alert)) {
            let is_over = self.journal.run(&order.id).is_some_and(Run::is_over);
            let lasts = matches!(&order.cause, Cause::Alert(alert, _) if alert.over_s.is_none());
            if is_first && !is_over && !lasts {
                self.drop_order(&order, "it was over before actions ran here first");
            } else if !is_over && self.pending.iter().all(|known| known.id != order.id) {
                self.pending.push(order);
            }
        }
        (self.alerts_node, self.alerts_stamp) = (known.node, stamp);
        Ok(())
    }

    fn open(&self) -> anyhow::Result<Ledger> {
        Ledger::open_read_only(&self.ledger)
            .with_context(|| format!("cannot open the ledger {}", self.ledger.display()))
    }

    fn read_crossings(&mut self) -> anyhow::Result<()> {
        let revision = traffic_ledger::revision(&self.ledger)
            .with_context(|| format!("cannot look at the ledger {}", self.ledger.display()))?;
        if self.revision.as_ref() == Some(&revision) {
            return Ok(());
        }
        let ledger = self.open()?;
        if let Some((sequence, id)) = &self.read_to
            && ledger.quota_crossing_id(*sequence)?.as_ref() != Some(id)
        {
            tracing::info!("the ledger is another one than before; reading all its crossings");
            self.read_to = None;
            self.pending.retain(Order::is_of_node);
            self.repeats.clear();
        }
        self.node = ledger.node()?.unwrap_or_default();
        loop {
            let after = self.read_to.as_ref().map_or(0, |(sequence, _)| *sequence);
            let crossings = ledger.quota_crossings(after, BATCH)?;
            let Some(last) = crossings.last() else { break };
            let read_to = (last.sequence, last.id.clone());
            for order in crossings.iter().flat_map(orders) {
                let is_over = self.journal.run(&order.id).is_some_and(Run::is_over);
                if self.journal.is_new && !is_over && !is_in_force(&ledger, &order)? {
                    self.drop_order(&order, "it was over before actions ran here first");
                } else if !is_over && self.pending.iter().all(|known| known.id != order.id) {
                    self.pending.push(order);
                } else if self.journal.run(&order.id).is_some_and(|run| run.state == RunState::Done) {
                    self.repeats.take(&order);
                }
            }
            self.read_to = Some(read_to);
        }
        self.journal.begin()?;
        self.revision = Some(revision);
        Ok(())
    }

    /// Begins what is due of the node's alerts, or of all crossings.
    fn begin_due(&mut self, of_node: bool) -> anyhow::Result<usize> {
        let now_s = now_s();
        let rows: Vec<Pending> = self
            .pending
            .iter()
            .filter(|order| order.is_of_node() == of_node)
            .map(|order| {
                let run = self.journal.run(&order.id).cloned().unwrap_or_default();
                // Nobody saw the end of one that was only begun: whoever ran it was killed.
                let attempts = if run.state == RunState::Failed { run.attempts } else { 0 };
                let (sequence, subject) = (order.sequence(), order.subject());
                Pending { sequence, subject, attempts, begun_s: run.begun_s }
            })
            .collect();
        let due: Vec<(i64, String)> = due(&rows, &self.subjects, now_s)
            .into_iter()
            .map(|row| (row.sequence, row.subject.clone()))
            .collect();
        if due.is_empty() || self.running.len() >= MOST_RUNNING {
            return Ok(0);
        }
        let read = self.read_quotas();
        // A mistake in the file keeps nobody from being told of the node.
        if !of_node || self.quotas == Quotas::default() {
            read?;
        }
        let ledger = if of_node { None } else { Some(self.open()?) };
        let mut begun = 0;
        for (sequence, subject) in due {
            if self.running.len() >= MOST_RUNNING {
                break;
            }
            let of_it = |order: &&Order| order.sequence() == sequence && order.subject() == subject;
            let Some(order) = self.pending.iter().find(of_it).cloned() else { continue };
            if self.of_action.get(&order.action).is_some_and(|runs| *runs >= MOST_OF_ACTION) {
                continue;
            }
            begun += 1;
            match self.quotas.actions.iter().find(|action| action.name == order.action).cloned() {
                Some(action) => self.begin(ledger.as_ref(), &order, &action, now_s)?,
                None => self.drop_order(&order, "the file with the quotas has no such action any more"),
            }
        }
        Ok(begun)
    }

    fn read_quotas(&mut self) -> anyhow::Result<()> {
        let text = files::read_text(&self.file, files::MOST_CONFIG_BYTES)
            .with_context(|| format!("cannot read the quotas {}", self.file.display()))?;
        self.quotas = Quotas::parse(&text).map_err(|mistakes| match mistakes.first() {
            Some(first) => {
                anyhow!("{}:{}:{}: {}", self.file.display(), first.line, first.column, first.message)
            }
            None => anyhow!("{} has a mistake", self.file.display()),
        })?;
        Ok(())
    }

    fn begin(
        &mut self,
        ledger: Option<&Ledger>,
        order: &Order,
        action: &Action,
        now_s: i64,
    ) -> anyhow::Result<()> {
        if !action.means.is_for(order.event()) {
            let why = match action.means {
                Means::Command { .. } => "the action has no `lift`",
                _ => "the action is not for this event",
            };
            self.drop_order(order, why);
            return Ok(());
        }
        // What is told is told. What is done stays in force as long as anything needs it.
        if matches!(action.means, Means::Command { .. })
            && order.is_lift()
            && let (Cause::Crossing(crossing), Some(ledger)) = (&order.cause, ledger)
            && let Some((quota, percent, _)) = in_force(ledger, crossing, &order.action)?
        {
            self.drop_order(order, &format!("it stays in force for quota {quota} at {percent} %"));
            return Ok(());
        }
        let mut run = self.journal.run(&order.id).cloned().unwrap_or_default();
        run.attempts = run.attempts.saturating_add(1);
        (run.begun_s, run.state) = (now_s, RunState::Begun);
        let attempts = run.attempts;
        self.note(&order.id, run);
        tracing::info!("running {} for {} ({})", action.name, order.whom(), order.id);
        self.start(order, action.clone(), attempts);
        Ok(())
    }

    fn start(&mut self, order: &Order, action: Action, attempt: u32) {
        let node = if order.is_of_node() { &self.alerts_node } else { &self.node };
        let (node, document) = (node.clone(), order.document(node, attempt));
        self.subjects.insert(order.subject());
        *self.of_action.entry(order.action.clone()).or_default() += 1;
        let (order, client) = (order.clone(), Arc::clone(&self.client));
        self.running.spawn(async move {
            let result = carry_out(&order, &action, document, (&node, &client)).await;
            (order, result)
        });
    }

    fn end(&mut self, order: &Order, result: Result<(), String>) {
        self.subjects.remove(&order.subject());
        if let Some(runs) = self.of_action.get_mut(&order.action) {
            *runs = runs.saturating_sub(1);
        }
        let mut run = self.journal.run(&order.id).cloned().unwrap_or_default();
        let is_repeated = run.state == RunState::Done;
        match result {
            Ok(()) => {
                (run.state, run.message) = (RunState::Done, None);
                if is_repeated {
                    run.begun_s = now_s();
                }
                self.repeats.take(order);
                self.pending.retain(|other| other.id != order.id);
            }
            Err(message) => {
                if is_repeated {
                    // From now on it is tried as one that never succeeded.
                    (run.attempts, run.begun_s) = (1, now_s());
                    self.repeats.forget(order);
                    self.pending.push(order.clone());
                }
                tracing::warn!(
                    "action {} for {} has failed {} times: {message}",
                    order.action,
                    order.whom(),
                    run.attempts
                );
                (run.state, run.message) = (RunState::Failed, Some(message));
            }
        }
        self.note(&order.id, run);
    }

    /// Notes that a run is not needed.
    fn drop_order(&mut self, order: &Order, why: &str) {
        self.pending.retain(|other| other.id != order.id);
        let mut run = self.journal.run(&order.id).cloned().unwrap_or_default();
        (run.state, run.message, run.begun_s) = (RunState::Dropped, Some(why.to_owned()), now_s());
        self.note(&order.id, run);
    }

    /// Notes a run in the journal. If the disk is full, it is noted in memory, and no other run begins until
    /// the journal can be written: what nobody noted would run once more after a restart.
    fn note(&mut self, id: &str, run: Run) {
        if let Err(error) = self.journal.note(id, run) {
            tracing::warn!("{error:#}; it is noted in memory, and tried again");
        }
    }
}

fn now_s() -> i64 {
    time::now_or_end().as_second()
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
