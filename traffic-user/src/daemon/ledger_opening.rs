//! Opens the ledger on a thread of its own, so that a migration, the audit of a restored copy or a slow disk holds
//! up neither interfaces nor the lock on the pinned state.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use traffic_ledger::{MigrationProgress, OnProgress};

use crate::drain::Drainer;

/// How long the first attempt waits for a ledger that opens as usual.
const USUAL: Duration = Duration::from_secs(5);
/// How long every other attempt waits: start hooks may wait for the lock that it holds.
const PATIENCE: Duration = Duration::from_millis(300);
/// Time between two looks at the progress.
const LOOK: Duration = Duration::from_millis(50);
/// Time between two log lines about the progress.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A ledger that is being opened.
pub(super) struct Opening {
    result: Receiver<anyhow::Result<Drainer>>,
    step: Arc<Mutex<Option<MigrationProgress>>>,
    is_late: bool,
}

impl Opening {
    /// Starts the thread. It ends with the process at the latest: an interrupted migration begins again.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        open: impl FnOnce(&OnProgress) -> anyhow::Result<Drainer> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let step = Arc::new(Mutex::new(None));
        let (sender, result) = mpsc::channel();
        let noted = Arc::clone(&step);
        let run = move || {
            let last_logged = Mutex::new(None::<Instant>);
            let progress: OnProgress = Arc::new(move |now: MigrationProgress| {
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                let mut last = last_logged.lock().unwrap_or_else(PoisonError::into_inner);
                if last.is_none_or(|last| last.elapsed() >= LOG_EVERY) {
                    *last = Some(Instant::now());
                    tracing::info!("{now}");
                }
            });
            drop(sender.send(open(&progress)));
        };
        thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(run)
            .context("cannot start the thread that opens the ledger")?;
        Ok(Self { result, step, is_late: false })
    }

    /// Waits for a moment. `None` if it is still being opened.
    pub(super) fn result(&mut self) -> Option<anyhow::Result<Drainer>> {
        let started = Instant::now();
        loop {
            match self.result.recv_timeout(LOOK) {
                Ok(result) => return Some(result),
                Err(RecvTimeoutError::Disconnected) => {
                    return Some(Err(anyhow::anyhow!("the thread that opens the ledger ended")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let patience = if self.is_late || self.step().is_some() { PATIENCE } else { USUAL };
            if started.elapsed() >= patience {
                self.is_late = true;
                return None;
            }
        }
    }

    /// What it is doing.
    pub(super) fn text(&self) -> String {
        match self.step() {
            // Each new text is a line in the log.
            Some(MigrationProgress::Copying { done, total }) => {
                let tenth = (total / 10).max(1);
                MigrationProgress::Copying { done: done / tenth * tenth, total }.to_string()
            }
            Some(step) => step.to_string(),
            None => "it is still being opened".to_owned(),
        }
    }

    fn step(&self) -> Option<MigrationProgress> {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_migration_holds_up_nobody() {
        let (finish, wait) = mpsc::channel::<()>();
        let mut opening = Opening::start(move |progress| {
            progress(MigrationProgress::Copying { done: 30, total: 200 });
            let _closed = wait.recv();
            anyhow::bail!("the end")
        })
        .unwrap();
        for _ in 0..2 {
            let started = Instant::now();
            assert!(opening.result().is_none());
            assert!(started.elapsed() < Duration::from_secs(4));
            assert_eq!(opening.text(), "copying the ledger before its migration: 10 %");
        }
        finish.send(()).unwrap();
        let error = std::iter::repeat_with(|| opening.result()).flatten().next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the end");
    }
}
