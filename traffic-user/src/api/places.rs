//! The places for connections: a bounded number, so that a local process cannot use up the daemon's file
//! descriptors, and always one for the next client.
//!
//! When all places are taken, the connection that has been without a request for longest is closed. So
//! whoever keeps connections open, with half a request or without reading the answer, closes its own first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, task::AbortHandle};

/// All places.
#[derive(Clone, Debug)]
pub(super) struct Places {
    most: usize,
    taken: Arc<Mutex<Taken>>,
    /// Wakes whoever waits for a place.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Orders connections by when they last did something.
    clock: u64,
    by_id: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    /// When it was accepted or last answered.
    idle_since: u64,
    /// Requests that are being answered.
    requests: u32,
    task: Option<AbortHandle>,
}

impl Taken {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn oldest_idle(&self) -> Option<u64> {
        let idle = self.by_id.iter().filter(|(_, connection)| connection.requests == 0);
        idle.min_by_key(|(_, connection)| connection.idle_since).map(|(id, _)| *id)
    }
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Arc::default(), changed: Arc::default() }
    }

    /// Nothing panics while it holds the mutex, so its content is whole.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a place is free or can be freed. Requests are answered within a bounded time.
    pub(super) async fn available(&self) {
        loop {
            let changed = self.changed.notified();
            {
                let taken = self.taken();
                if taken.by_id.len() < self.most || taken.oldest_idle().is_some() {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Takes a place. If all are taken, closes the connection that has been idle for longest.
    pub(super) fn take(&self) -> Place {
        let mut taken = self.taken();
        if taken.by_id.len() >= self.most
            && let Some(id) = taken.oldest_idle()
            && let Some(closed) = taken.by_id.remove(&id)
            && let Some(task) = closed.task
        {
            task.abort();
        }
        let id = taken.tick();
        taken.by_id.insert(id, Connection { idle_since: id, requests: 0, task: None });
        drop(taken);
        Place { id, places: self.clone() }
    }

    /// Notes the task of a connection, by which it can be closed.
    pub(super) fn set_task(&self, id: u64, task: AbortHandle) {
        if let Some(connection) = self.taken().by_id.get_mut(&id) {
            connection.task = Some(task);
        }
    }
}

/// One connection's place, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    places: Places,
}

impl Place {
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// Marks a request that is being answered, until the result is dropped.
    pub(super) fn answering(&self) -> Answering {
        if let Some(connection) = self.places.taken().by_id.get_mut(&self.id) {
            connection.requests += 1;
        }
        Answering { id: self.id, places: self.places.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().by_id.remove(&self.id);
        self.places.changed.notify_one();
    }
}

/// A request that is being answered: its connection is not closed for another one.
#[derive(Debug)]
pub(super) struct Answering {
    id: u64,
    places: Places,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        let now = taken.tick();
        if let Some(connection) = taken.by_id.get_mut(&self.id) {
            connection.requests -= 1;
            connection.idle_since = now;
        }
        drop(taken);
        self.places.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future as _, pin::pin, task::Context, task::Waker};

    use super::*;

    fn is_available(places: &Places) -> bool {
        pin!(places.available()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn ids(places: &Places) -> Vec<u64> {
        let mut ids: Vec<_> = places.taken().by_id.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn the_connection_that_was_idle_longest_makes_room() {
        let places = Places::new(3);
        let [first, second, third] = std::array::from_fn(|_| places.take());
        // The first asked last, and the second is being answered.
        drop(first.answering());
        let answering = second.answering();
        let fourth = places.take();
        assert_eq!(ids(&places), [first.id(), second.id(), fourth.id()]);
        // The place of a closed connection is not freed twice.
        drop(third);
        assert_eq!(ids(&places).len(), 3);
        let fifth = places.take();
        assert_eq!(ids(&places), [second.id(), fourth.id(), fifth.id()]);
        drop(answering);
    }

    #[test]
    fn while_all_are_answered_a_new_connection_waits() {
        let places = Places::new(2);
        let (first, second) = (places.take(), places.take());
        assert!(is_available(&places), "an idle one can be closed");
        let (_one, other) = (first.answering(), second.answering());
        assert!(!is_available(&places));
        drop(other);
        assert!(is_available(&places));
    }
}
