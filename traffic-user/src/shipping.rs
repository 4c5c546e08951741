//! The rounds of `trafctl ship`: each store gets what changed, then comes a pause, longer after a failure.
//!
//! A round opens the ledger and the connection anew, so that a file that was replaced, a server that restarted and a
//! new password need no restart here. What is shipped next, and what is refused, is in `traffic_store`. Once a day, the
//! store is compared with the ledger.
//!
//! - `state`: what became of it, for metrics and `trafctl status`.
//! - `daily`: when what is compared. `required`: what stays in the ledger until it was.

mod daily;
mod required;
mod state;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use tokio::sync::Notify;
use traffic_ledger::Ledger;
use traffic_store::{
    AnyStore, BatchSize, Node, PasswordFile, Shipped, Shipper, Target, Verified, verify_days,
};

use crate::{
    config::{Config, IdScope},
    drain::{ledger_path, machine_id},
    time::now_or_end,
};

pub use required::{Held, held, hold};
pub use state::{Compared, ShipState, StoreState};

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// The longest time before the first round: 1,000 nodes that start at once do not come at once.
const LONGEST_START: Duration = Duration::from_secs(10);
/// How often a single round is tried to a store that gets something each time.
const MOST_ROUNDS: u32 = 100;
/// Time between two lines about a long backlog.
const LINES: Duration = Duration::from_secs(10);

/// What is shipped, and to where.
#[derive(Debug)]
pub struct Shipping {
    state_dir: PathBuf,
    ledger: PathBuf,
    /// What becomes of it, if that is not written to the state directory.
    own_state: Option<Mutex<ShipState>>,
    /// Whether the log has it that this fails.
    state_fails: AtomicBool,
    machine: Option<String>,
    node: Node,
    interval: Duration,
    /// The stores.
    pub targets: Vec<Target>,
    /// Where their passwords are.
    passwords: Vec<PasswordFile>,
    /// How large the batches of each store may be, by its name.
    sizes: Mutex<BTreeMap<String, Arc<BatchSize>>>,
}

impl Shipping {
    /// Of the ledger of a state directory, which need not exist yet. `keeps_state`: what becomes of it is written there,
    /// and not only known to this process.
    pub fn new(
        state_dir: &Path,
        config: &Config,
        (targets, passwords): (Vec<Target>, Vec<PasswordFile>),
        keeps_state: bool,
    ) -> Self {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            state_dir: state_dir.to_owned(),
            ledger: ledger_path(state_dir),
            own_state: (!keeps_state).then(Mutex::default),
            state_fails: AtomicBool::new(false),
            machine: machine_id(),
            node: Node {
                name: config.node.clone(),
                version,
                kernel,
                has_cluster_ids: config.id_scope == IdScope::Cluster,
            },
            interval: config.ship.interval,
            targets,
            passwords,
            sizes: Mutex::default(),
        }
    }

    /// Connects to a store, with the password that its file has now.
    ///
    /// # Errors
    /// When the file cannot be read, or the store is away or lets nobody in.
    pub async fn connect(&self, target: &Target) -> anyhow::Result<AnyStore> {
        let target = target.clone().with_password(&self.passwords);
        let target = target.map_err(|reason| anyhow!("cannot read the password file {reason}"))?;
        Ok(AnyStore::connect(&target).await?)
    }

    /// The ledger, for reading.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn ledger(&self) -> anyhow::Result<Ledger> {
        Ledger::open_read_only(&self.ledger)
            .with_context(|| format!("cannot open the ledger {}", self.ledger.display()))
    }

    /// The shipper of an open ledger to a store.
    pub fn shipper<'a>(&'a self, ledger: &'a Ledger, target: &Target) -> Shipper<'a> {
        Shipper { ledger, machine: self.machine.as_deref(), node: &self.node, size: self.batch_size(target) }
    }

    /// How large the batches of a store may be. A process begins where the last one ended.
    fn batch_size(&self, target: &Target) -> Arc<BatchSize> {
        let noted = || {
            let known = ShipState::read(&self.state_dir).ok().filter(|_| self.own_state.is_none());
            let halvings =
                known.and_then(|known| known.stores.get(target.name()).map(|store| store.batch_halvings));
            Arc::new(BatchSize::halved(halvings.unwrap_or_default()))
        };
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sizes.entry(target.name().to_owned()).or_insert_with(noted))
    }

    /// Ships everything that changed to one store.
    ///
    /// # Errors
    /// When the ledger cannot be read or is refused, or the store is away. What it took before stays.
    pub async fn round(&self, target: &Target) -> anyhow::Result<Shipped> {
        let mut all = Shipped::default();
        for round in 1.. {
            let halvings = self.batch_size(target).halvings();
            let (shipped, result) = self.try_round(target).await;
            all.parts += shipped.parts;
            all.rows += shipped.rows;
            let Err(error) = result else { break };
            // Where the state directory does not have the size of batches, the next process would begin anew.
            let gets_on = shipped.rows > 0 || self.batch_size(target).halvings() > halvings;
            if self.own_state.is_none() || !gets_on || round == MOST_ROUNDS {
                return Err(error);
            }
            tracing::warn!("{}: {error:#}; trying again with smaller batches", target.name());
        }
        Ok(all)
    }

    /// The same, also with what was shipped before a failure.
    async fn try_round(&self, target: &Target) -> (Shipped, anyhow::Result<()>) {
        let mut sent = Sent::default();
        let result = self.send(target, &mut sent).await;
        let error = result.as_ref().err().map(|error| format!("{error:#}"));
        let batch_halvings = self.batch_size(target).halvings();
        self.note(target.name(), &sent.ledger, |store| {
            store.batch_halvings = batch_halvings;
            store.rows = store.rows.saturating_add(sent.shipped.rows);
            match &error {
                Some(_) => store.failures = store.failures.saturating_add(1),
                None => {
                    store.shipped_s = Some(now_or_end().as_second());
                    store.reading_ms = sent.reading_ms;
                }
            }
            store.error = error;
        });
        (sent.shipped, result)
    }

    async fn send(&self, target: &Target, sent: &mut Sent) -> anyhow::Result<()> {
        let ledger = self.ledger()?;
        sent.ledger = ledger.shipping_identity()?.ledger;
        // Before it is shipped: what is noted as shipped is.
        sent.reading_ms = ledger.shipped_extent()?.last_reading_ms;
        let mut store = self.connect(target).await?;
        let mut next_line = Instant::now() + LINES;
        let mut on_step = |shipped: Shipped, left: usize| {
            sent.shipped = shipped;
            if left > 0 && Instant::now() >= next_line {
                next_line = Instant::now() + LINES;
                tracing::info!("{}: shipped {} rows, {left} parts are left", target.name(), shipped.rows);
            }
        };
        sent.shipped = self.shipper(&ledger, target).ship(&mut store, &mut on_step).await?;
        Ok(())
    }

    /// Changes what is noted about a store. Nothing fails because of it.
    fn note(&self, store: &str, ledger: &str, change: impl FnOnce(&mut StoreState)) {
        let (of, now_s) = ((store, ledger), now_or_end().as_second());
        if let Some(own) = &self.own_state {
            own.lock().unwrap_or_else(PoisonError::into_inner).change(of, now_s, change);
            return;
        }
        match state::change(&self.state_dir, of, now_s, change) {
            Ok(()) => self.state_fails.store(false, Ordering::Relaxed),
            Err(error) if !self.state_fails.swap(true, Ordering::Relaxed) => {
                tracing::warn!("metrics and `trafctl status` will not know what is shipped: {error:#}");
            }
            Err(_) => {}
        }
    }

    /// What is noted about a store.
    fn noted(&self, store: &str, ledger: &str) -> anyhow::Result<StoreState> {
        Ok(match &self.own_state {
            Some(own) => own.lock().unwrap_or_else(PoisonError::into_inner).of((store, ledger)),
            None => ShipState::read(&self.state_dir)?.of((store, ledger)),
        })
    }

    /// Notes a comparison of everything that a store has with the ledger, as somebody asked for.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn note_comparison(&self, target: &Target, verified: &Verified) -> anyhow::Result<()> {
        let ledger = self.ledger()?;
        let found = daily::found(&ledger, verified, daily::end(&ledger, now_or_end().as_second())?)?;
        self.note(target.name(), &ledger.shipping_identity()?.ledger, |store| {
            store.compared = Some(found.after(store.compared.as_ref()));
        });
        Ok(())
    }

    /// Compares a store with the ledger, if it is time for that.
    async fn compare_if_due(&self, target: &Target) -> anyhow::Result<()> {
        let name = target.name();
        let now_s = now_or_end().as_second();
        let ledger = self.ledger()?;
        let id = ledger.shipping_identity()?.ledger;
        let noted = self.noted(name, &id)?;
        if !daily::is_due(&noted, now_s, daily::offset_s(&id, name)) {
            return Ok(());
        }
        let result = self.compare_now(target, &ledger, (noted, now_s)).await;
        let (found, error) = match result {
            Ok(found) => (Some(found), None),
            Err(error) => (None, Some(error)),
        };
        self.note(name, &id, |store| {
            store.compare_tried_s = now_s;
            store.compare_error = error.as_ref().map(|error| format!("{error:#}"));
            if let Some(found) = found {
                store.compared = Some(found.after(store.compared.as_ref()));
            }
        });
        error.map_or(Ok(()), Err)
    }

    async fn compare_now(
        &self,
        target: &Target,
        ledger: &Ledger,
        (noted, now_s): (StoreState, i64),
    ) -> anyhow::Result<daily::Found> {
        let name = target.name();
        let until = daily::end(ledger, now_s)?;
        let scope = daily::scope(noted.compared.as_ref(), ledger, until)?;
        let mut store = self.connect(target).await?;
        let verified = verify_days(&self.shipper(ledger, target), &mut store, scope).await?;
        let found = daily::found(ledger, &verified, until)?;
        let compared = found.clone().after(noted.compared.as_ref());
        if compared.differing.is_empty() {
            tracing::info!("{name}: equal to the ledger, {} parts of {} days", verified.parts, verified.days);
        } else {
            let to = self.own_state.as_ref().map_or_else(String::new, |_| format!(" --to {name}"));
            tracing::error!(
                "{name} differs from the ledger: {}; `trafctl ship verify{to}` lists what, `--repair` ships it again",
                compared.differing_text()
            );
        }
        Ok(found)
    }

    /// Ships to all stores until it is dropped. Each has its own pauses: one that is away delays no other.
    pub async fn run(&self) {
        let mut due: Vec<(Instant, u32)> = self
            .targets
            .iter()
            .map(|_| (Instant::now() + jitter(LONGEST_START.min(self.interval)), 0))
            .collect();
        if self.own_state.is_none() {
            let names: Vec<&str> = self.targets.iter().map(Target::name).collect();
            if let Err(error) = state::keep_only(&self.state_dir, &names) {
                tracing::warn!("{error:#}");
            }
        }
        let mut running: Vec<_> = Vec::new();
        for (target, (first, failures)) in self.targets.iter().zip(&mut due) {
            running.push(Box::pin(self.follow(target, *first, failures)));
        }
        // None of them ends.
        std::future::poll_fn(|context| {
            for one in &mut running {
                let _endless = one.as_mut().poll(context);
            }
            std::task::Poll::<()>::Pending
        })
        .await;
    }

    /// Ships to one store, and compares it, each without waiting for the other.
    async fn follow(&self, target: &Target, first: Instant, failures: &mut u32) {
        let shipped = Notify::new();
        tokio::join!(self.ship(target, first, failures, &shipped), self.compare(target, &shipped));
    }

    /// Compares a store once a day, after everything has arrived.
    async fn compare(&self, target: &Target, shipped: &Notify) {
        loop {
            shipped.notified().await;
            if let Err(error) = self.compare_if_due(target).await {
                tracing::error!(
                    "cannot compare {} with the ledger: {error:#}; tomorrow again",
                    target.name()
                );
            }
        }
    }

    async fn ship(&self, target: &Target, first: Instant, failures: &mut u32, shipped_all: &Notify) {
        tokio::time::sleep_until(first.into()).await;
        let name = target.name();
        loop {
            match self.try_round(target).await {
                (shipped, Ok(())) => {
                    if *failures > 0 {
                        tracing::info!("{name}: shipping again, {} rows", shipped.rows);
                    }
                    tracing::debug!("{name}: shipped {} rows in {} parts", shipped.rows, shipped.parts);
                    *failures = 0;
                    shipped_all.notify_one();
                }
                (shipped, Err(error)) => {
                    tracing::error!("cannot ship to {name}: {error:#}");
                    // Over a link that ends again and again, a backlog needs many rounds.
                    *failures = if shipped.rows > 0 { 1 } else { failures.saturating_add(1) };
                }
            }
            tokio::time::sleep(pause(self.interval, *failures)).await;
        }
    }
}

/// What a round has sent.
#[derive(Debug, Default)]
struct Sent {
    ledger: String,
    shipped: Shipped,
    reading_ms: Option<i64>,
}

/// How long to wait: the interval, and after failures ever longer, so that a server that returns is not overrun.
fn pause(interval: Duration, failures: u32) -> Duration {
    let longer = interval.saturating_mul(1 << failures.min(16));
    let most = LONGEST_PAUSE.max(interval);
    let pause = longer.min(most);
    // Some tenths more or less, so that nodes do not stay in step.
    pause.mul_f64(0.9) + jitter(pause.mul_f64(0.2))
}

/// A random time up to `most`.
fn jitter(most: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without random numbers there is no jitter, which is no failure.
    let _length = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    most.mul_f64(f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX))
}

/// A part in words: its time in UTC, or its table and number.
pub fn part_text(name: &str, number: i64) -> String {
    match (name, Timestamp::from_second(number)) {
        ("5min", Ok(start)) => format!("five minutes of {start}"),
        ("day", Ok(start)) => format!("the day of {start}"),
        _ => format!("{name} {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_failures_up_to_a_limit() {
        let minute = Duration::from_mins(1);
        let near = |pause: Duration, expected: Duration| {
            assert!(
                pause >= expected.mul_f64(0.89) && pause <= expected.mul_f64(1.11),
                "{pause:?} {expected:?}"
            );
        };
        near(pause(minute, 0), minute);
        near(pause(minute, 1), 2 * minute);
        near(pause(minute, 3), LONGEST_PAUSE);
        near(pause(minute, u32::MAX), LONGEST_PAUSE);
        near(pause(60 * minute, 9), 60 * minute);
    }

    #[test]
    fn parts_are_named_by_their_time() {
        assert_eq!(part_text("5min", 1_794_312_000), "five minutes of 2026-11-10T12:00:00Z");
        assert_eq!(part_text("gap", 7), "gap 7");
    }
}
