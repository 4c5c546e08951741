//! The rounds of `trafctl ship`: each store gets what changed, then comes a pause, longer after a failure.
//!
//! A round opens the ledger and the connection anew, so that a file that was replaced, a server that restarted and a
//! new password need no restart here. What is shipped next, and what is refused, is in `traffic_store`.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::Timestamp;
use traffic_ledger::Ledger;
use traffic_store::{AnyStore, Node, Shipped, Shipper, Target};

use crate::{
    config::{Config, IdScope},
    drain::machine_id,
};

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// The longest time before the first round: 1,000 nodes that start at once do not come at once.
const LONGEST_START: Duration = Duration::from_secs(10);
/// Time between two lines about a long backlog.
const LINES: Duration = Duration::from_secs(10);

/// What is shipped, and to where.
#[derive(Debug)]
pub struct Shipping {
    ledger: PathBuf,
    machine: Option<String>,
    node: Node,
    interval: Duration,
    /// The stores, with their passwords.
    pub targets: Vec<Target>,
}

impl Shipping {
    /// Of a ledger, which need not exist yet.
    pub fn new(ledger: PathBuf, config: &Config, targets: Vec<Target>) -> Self {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            ledger,
            machine: machine_id(),
            node: Node {
                name: config.node.clone(),
                version,
                kernel,
                has_cluster_ids: config.id_scope == IdScope::Cluster,
            },
            interval: config.ship.interval,
            targets,
        }
    }

    /// The ledger, for reading.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn ledger(&self) -> anyhow::Result<Ledger> {
        Ledger::open_read_only(&self.ledger)
            .with_context(|| format!("cannot open the ledger {}", self.ledger.display()))
    }

    /// The shipper of an open ledger.
    pub fn shipper<'a>(&'a self, ledger: &'a Ledger) -> Shipper<'a> {
        Shipper { ledger, machine: self.machine.as_deref(), node: &self.node }
    }

    /// Ships everything that changed to one store.
    ///
    /// # Errors
    /// When the ledger cannot be read or is refused, or the store is away. What it took before stays.
    pub async fn round(&self, target: &Target) -> anyhow::Result<Shipped> {
        let ledger = self.ledger()?;
        let mut store = AnyStore::connect(target).await?;
        let mut next_line = Instant::now() + LINES;
        let mut on_step = |shipped: Shipped, left: usize| {
            if left > 0 && Instant::now() >= next_line {
                next_line = Instant::now() + LINES;
                tracing::info!("{}: shipped {} rows, {left} parts are left", target.name(), shipped.rows);
            }
        };
        Ok(self.shipper(&ledger).ship(&mut store, &mut on_step).await?)
    }

    /// Ships to all stores until it is dropped. Each has its own pauses: one that is away delays no other.
    pub async fn run(&self) {
        let mut due: Vec<(Instant, u32)> = self
            .targets
            .iter()
            .map(|_| (Instant::now() + jitter(LONGEST_START.min(self.interval)), 0))
            .collect();
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

    async fn follow(&self, target: &Target, first: Instant, failures: &mut u32) {
        tokio::time::sleep_until(first.into()).await;
        let name = target.name();
        loop {
            match self.round(target).await {
                Ok(shipped) => {
                    if *failures > 0 {
                        tracing::info!("{name}: shipping again, {} rows", shipped.rows);
                    }
                    tracing::debug!("{name}: shipped {} rows in {} parts", shipped.rows, shipped.parts);
                    *failures = 0;
                }
                Err(error) => {
                    tracing::error!("cannot ship to {name}: {error:#}");
                    *failures = failures.saturating_add(1);
                }
            }
            tokio::time::sleep(pause(self.interval, *failures)).await;
        }
    }
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
