//! Live rates for all listeners from one reading of the counters each second. Nothing is read while nobody
//! listens.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task, time,
};
use traffic_model::Snapshot;

use crate::api::Read;

/// How often the counters are read.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most listeners at a time.
pub(super) const MOST_LISTENERS: usize = 16;

/// Two readings in a row, or why there are none.
pub(super) type Reading = Result<(Arc<Snapshot>, Arc<Snapshot>), String>;

type Sender = watch::Sender<Option<Arc<Reading>>>;

/// Distributes readings.
#[derive(Clone)]
pub(super) struct RateHub {
    read: Arc<Read>,
    interval: Duration,
    places: Arc<Semaphore>,
    /// The sender of the task that reads, while one runs.
    running: Arc<Mutex<Option<Sender>>>,
}

impl fmt::Debug for RateHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateHub").finish_non_exhaustive()
    }
}

/// Receives readings until it is dropped.
pub(super) struct Listener {
    readings: watch::Receiver<Option<Arc<Reading>>>,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next reading; a slow listener misses some. `None` when the hub ended.
    pub(super) async fn next(&mut self) -> Option<Arc<Reading>> {
        loop {
            self.readings.changed().await.ok()?;
            if let Some(reading) = self.readings.borrow_and_update().clone() {
                return Some(reading);
            }
        }
    }
}

impl RateHub {
    pub(super) fn new(read: Arc<Read>) -> Self {
        let places = Arc::new(Semaphore::new(MOST_LISTENERS));
        Self { read, interval: INTERVAL, places, running: Arc::default() }
    }

    /// Listens from now on; `None` if there are too many listeners.
    pub(super) fn listen(&self) -> Option<Listener> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let readings = match &*running {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, readings) = watch::channel(None);
                *running = Some(sender.clone());
                tokio::spawn(self.clone().run(sender));
                readings
            }
        };
        drop(running);
        Some(Listener { readings, _place: place })
    }

    /// Reads until nobody listens.
    async fn run(self, sender: Sender) {
        let mut ticks = time::interval(self.interval);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut earlier: Option<Arc<Snapshot>> = None;
        while !self.ends(&sender) {
            ticks.tick().await;
            let read = Arc::clone(&self.read);
            let later = task::spawn_blocking(move || read()).await.map_err(anyhow::Error::from);
            match later.and_then(|later| later) {
                Ok(later) => {
                    let later = Arc::new(later);
                    if let Some(earlier) = earlier.replace(Arc::clone(&later)) {
                        sender.send_replace(Some(Arc::new(Ok((earlier, later)))));
                    }
                }
                Err(error) => {
                    earlier = None;
                    sender.send_replace(Some(Arc::new(Err(format!("{error:#}")))));
                }
            }
        }
    }

    /// Whether nobody listens. Nobody can begin to listen to a task that ends.
    fn ends(&self, sender: &Sender) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.receiver_count() > 0 {
            return false;
        }
        *running = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use traffic_model::sample;

    use super::*;

    fn hub() -> (RateHub, Arc<AtomicU64>) {
        let readings = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&readings);
        let read = move || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            if number == 2 {
                anyhow::bail!("no maps");
            }
            Ok(Snapshot { boottime_ns: number, ..sample::snapshot() })
        };
        let hub = RateHub::new(Arc::new(read));
        (RateHub { interval: Duration::from_millis(5), ..hub }, readings)
    }

    #[tokio::test]
    async fn all_listeners_share_readings_and_nothing_is_read_for_nobody() {
        let (hub, readings) = hub();
        let (mut one, mut other) = (hub.listen().unwrap(), hub.listen().unwrap());
        let times = |reading: Arc<Reading>| {
            reading.as_ref().as_ref().map(|(a, b)| (a.boottime_ns, b.boottime_ns)).map_err(Clone::clone)
        };
        let (first, same) = tokio::join!(one.next(), other.next());
        assert!(Arc::ptr_eq(&first.clone().unwrap(), &same.unwrap()), "each has a reading of its own");
        assert_eq!(times(first.unwrap()), Ok((0, 1)));
        assert_eq!(times(one.next().await.unwrap()), Err("no maps".to_owned()));
        // After a failure, the first two readings that succeed make the next rates.
        assert_eq!(times(one.next().await.unwrap()), Ok((3, 4)));
        drop((one, other));
        while hub.running.lock().unwrap().is_some() {
            time::sleep(Duration::from_millis(1)).await;
        }
        let read = readings.load(Ordering::Relaxed);
        time::sleep(Duration::from_millis(50)).await;
        assert_eq!(readings.load(Ordering::Relaxed), read, "it reads for nobody");
        let mut next = hub.listen().unwrap();
        next.next().await.unwrap();
        assert_eq!(readings.load(Ordering::Relaxed), read + 2);
    }

    #[tokio::test]
    async fn a_bounded_number_listens() {
        let (hub, _) = hub();
        let mut all: Vec<_> = (0..MOST_LISTENERS).map(|_| hub.listen().unwrap()).collect();
        assert!(hub.listen().is_none());
        all.pop();
        assert!(hub.listen().is_some());
    }
}
