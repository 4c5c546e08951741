//! A value that is expensive to compute: at most one thread computes it at a time, and the result serves all
//! requests for a while.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{sync::Semaphore, task};

/// A value, and when it was computed.
type Computed<T> = Option<(Instant, Arc<T>)>;
type Compute<T> = dyn Fn() -> anyhow::Result<T> + Send + Sync;

/// The value. Clones share it.
pub(super) struct Cached<T> {
    compute: Arc<Compute<T>>,
    place: Arc<Semaphore>,
    value: Arc<Mutex<Computed<T>>>,
}

impl<T> Clone for Cached<T> {
    fn clone(&self) -> Self {
        Self {
            compute: Arc::clone(&self.compute),
            place: Arc::clone(&self.place),
            value: Arc::clone(&self.value),
        }
    }
}

impl<T> fmt::Debug for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Cached<T> {
    pub(super) fn new(compute: impl Fn() -> anyhow::Result<T> + Send + Sync + 'static) -> Self {
        Self { compute: Arc::new(compute), place: Arc::new(Semaphore::new(1)), value: Arc::default() }
    }

    /// The value, no older than this.
    ///
    /// # Errors
    /// When computing it fails.
    pub(super) async fn get(&self, most_age: Duration) -> anyhow::Result<Arc<T>> {
        if let Some(value) = self.fresh(most_age) {
            return Ok(value);
        }
        let place = Arc::clone(&self.place).acquire_owned().await?;
        // Another request may have computed it meanwhile.
        if let Some(value) = self.fresh(most_age) {
            return Ok(value);
        }
        let this = self.clone();
        let work = task::spawn_blocking(move || {
            // Held until the work is done, even if the client has gone.
            let _place = place;
            let value = Arc::new((this.compute)()?);
            *this.value() = Some((Instant::now(), Arc::clone(&value)));
            Ok(value)
        });
        work.await.context("the thread that reads it ended")?
    }

    /// The value as last computed, without waiting. One older than `most_age` is computed again for the next
    /// request, and one older than `most_known` is not known any more.
    pub(super) fn known(&self, most_age: Duration, most_known: Duration) -> Option<Arc<T>> {
        if self.fresh(most_age).is_none() {
            let this = self.clone();
            // Whoever needs the value gets the error.
            tokio::spawn(async move { drop(this.get(most_age).await) });
        }
        self.fresh(most_known)
    }

    fn fresh(&self, most_age: Duration) -> Option<Arc<T>> {
        let value = self.value();
        value.as_ref().filter(|(since, _)| since.elapsed() < most_age).map(|(_, value)| Arc::clone(value))
    }

    fn value(&self) -> std::sync::MutexGuard<'_, Computed<T>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn it_is_computed_once_for_all_until_it_is_too_old() {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let cached = Cached::new(move || Ok(counted.fetch_add(1, Ordering::Relaxed)));
        let hour = Duration::from_secs(3600);
        let (one, other) = tokio::join!(cached.get(hour), cached.get(hour));
        assert_eq!((*one.unwrap(), *other.unwrap()), (0, 0));
        assert_eq!(*cached.get(Duration::ZERO).await.unwrap(), 1);
        let failing: Cached<()> = Cached::new(|| anyhow::bail!("no maps"));
        assert_eq!(failing.get(hour).await.unwrap_err().to_string(), "no maps");
    }
}
