//! Waits for an flock(2) in the kernel's queue, with an end.
//!
//! The kernel serves waiters in their order and wakes only the next one. Polling would be neither fair nor
//! cheap when a thousand start hooks wait. But flock(2) has no timeout, so a thread of its own waits in it.
//! When the caller gives up, the thread stays, and the next attempt takes it over: a process has at most one
//! such thread for each file.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

/// Device and inode of a file.
type FileId = (u64, u64);

/// Threads whose callers gave up.
static LEFT: Mutex<Vec<(FileId, Arc<Waiter>)>> = Mutex::new(Vec::new());

/// What a waiting thread and its caller share.
#[derive(Debug, Default)]
struct Waiter {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a caller waits for the lock.
    is_wanted: bool,
    has_ended: bool,
    outcome: Option<io::Result<File>>,
}

/// Locks the file; `None` when others hold it until the deadline.
///
/// # Errors
/// When the kernel refuses, or no thread can be started.
pub(super) fn lock(file: File, deadline: Instant) -> io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => return Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => {}
        Err(std::fs::TryLockError::Error(error)) => return Err(error),
    }
    if Instant::now() >= deadline {
        return Ok(None);
    }
    let metadata = file.metadata()?;
    let id = (metadata.dev(), metadata.ino());
    let waiter = match taken_over(id) {
        Some(waiter) => waiter,
        None => start(file)?,
    };
    waiter.wait(id, deadline)
}

/// The thread that already waits for this file, if it still does.
fn taken_over(id: FileId) -> Option<Arc<Waiter>> {
    let mut left = all_left();
    let at = left.iter().position(|(waits_for, _)| *waits_for == id)?;
    let (_, waiter) = left.swap_remove(at);
    let mut state = waiter.state();
    if state.has_ended {
        return None;
    }
    state.is_wanted = true;
    drop(state);
    Some(waiter)
}

fn start(file: File) -> io::Result<Arc<Waiter>> {
    let waiter = Arc::new(Waiter::default());
    waiter.state().is_wanted = true;
    let for_thread = Arc::clone(&waiter);
    thread::Builder::new().name("lock".to_owned()).spawn(move || {
        let outcome = file.lock().map(|()| file);
        let mut state = for_thread.state();
        state.has_ended = true;
        // Otherwise the lock is released here and now.
        if state.is_wanted {
            state.outcome = Some(outcome);
            for_thread.ended.notify_one();
        }
    })?;
    Ok(waiter)
}

impl Waiter {
    fn wait(self: Arc<Self>, id: FileId, deadline: Instant) -> io::Result<Option<File>> {
        let mut state = self.state();
        while !state.has_ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.is_wanted = false;
                drop(state);
                all_left().push((id, self));
                return Ok(None);
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.outcome.take().transpose()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn all_left() -> MutexGuard<'static, Vec<(FileId, Arc<Waiter>)>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}
