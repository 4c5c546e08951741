//! The thread that has drops counted (`kernel/drops`). The verifier takes up to a second for the program, and
//! minutes on an emulated machine, so this begins when the daemon is ready, and nothing waits for it. The end of the
//! process interrupts it.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    health::Backoff,
    kernel::{
        bpffs::Bpffs,
        drops::{self, Outcome},
        load::Held,
    },
};

/// When a load that failed is repeated: each takes up to a second of CPU time.
const FIRST_RETRY: Duration = Duration::from_secs(10);
const LONGEST_RETRY: Duration = Duration::from_mins(10);
/// How often a load is repeated at once that others overtook.
const OVERTAKEN: usize = 3;

/// The thread, as the event loop sees it.
#[derive(Debug)]
pub(super) struct DropLoader(Sender<bool>);

impl DropLoader {
    /// Starts the thread, which does nothing yet. What it has loaded is added to what the daemon holds.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(bpffs: &Bpffs, held: Held) -> anyhow::Result<Self> {
        let (requests, asked) = mpsc::channel();
        let bpffs = bpffs.clone();
        let mut loader = Loader::new(move |replaces| drops::load(&bpffs, &held, replaces));
        thread::Builder::new()
            .name("drops".to_owned())
            .spawn(move || loader.run(&asked))
            .context("cannot start the thread that has drops counted")?;
        Ok(Self(requests))
    }

    /// Has the thread look whether drops are counted, if they should be.
    pub(super) fn check(&self, enabled: bool) {
        if self.0.send(enabled).is_err() {
            tracing::debug!("the thread that has drops counted has ended");
        }
    }
}

struct Loader<L> {
    load: L,
    /// Whether a program of another version is to be replaced: at the start, but not after a later upgrade.
    replaces: bool,
    retry: Backoff,
    /// What was logged last.
    last: Option<String>,
}

impl<L: FnMut(bool) -> anyhow::Result<Outcome>> Loader<L> {
    const fn new(load: L) -> Self {
        Self { load, replaces: true, retry: Backoff::new(FIRST_RETRY, LONGEST_RETRY), last: None }
    }

    fn run(&mut self, asked: &Receiver<bool>) {
        while let Ok(first) = asked.recv() {
            // Requests that came meanwhile are one, and the last one knows the configuration.
            let enabled = asked.try_iter().last().unwrap_or(first);
            self.check(enabled, Instant::now());
        }
    }

    fn check(&mut self, enabled: bool, now: Instant) {
        if !enabled {
            self.retry.succeeded();
            self.last = None;
            return;
        }
        if self.retry.due().is_some() && !self.retry.is_due(now) {
            return;
        }
        for _ in 0..=OVERTAKEN {
            match (self.load)(self.replaces) {
                Ok(Outcome::Overtaken) => continue,
                Ok(outcome) => {
                    self.replaces = false;
                    self.retry.succeeded();
                    self.note(match outcome {
                        Outcome::Refused(reason) => Some(format!("the kernel refused the program: {reason}")),
                        _ => None,
                    });
                }
                Err(error) => {
                    self.retry.failed(now);
                    self.note(Some(format!("{error:#}")));
                }
            }
            return;
        }
    }

    /// Logs each problem once.
    fn note(&mut self, problem: Option<String>) {
        if let Some(problem) = problem.as_ref().filter(|problem| self.last.as_ref() != Some(problem)) {
            tracing::warn!("drops are not counted: {problem}");
        }
        self.last = problem;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn it_replaces_at_the_start_and_repeats_failures_ever_later() {
        let calls = RefCell::new(Vec::new());
        let results = RefCell::new(vec![
            Ok(Outcome::Counting),
            Ok(Outcome::Refused("no".to_owned())),
            Ok(Outcome::Overtaken),
            Err(anyhow::anyhow!("again")),
            Err(anyhow::anyhow!("once")),
        ]);
        let mut loader = Loader::new(|replaces| {
            calls.borrow_mut().push(replaces);
            results.borrow_mut().pop().unwrap_or(Ok(Outcome::Counting))
        });
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let count = || calls.borrow().len();
        loader.check(false, after(0));
        assert_eq!(count(), 0);
        loader.check(true, after(0));
        loader.check(true, after(9));
        assert_eq!((count(), loader.last.as_deref()), (1, Some("once")));
        loader.check(true, after(10));
        loader.check(true, after(29));
        assert_eq!((count(), loader.last.as_deref()), (2, Some("again")));
        // What others overtook is repeated at once.
        loader.check(true, after(30));
        assert_eq!((count(), loader.last.is_some()), (4, true));
        loader.check(true, after(31));
        assert_eq!(loader.last, None);
        assert_eq!(*calls.borrow(), [true, true, true, true, false]);
        // A switch off and on begins anew.
        results.borrow_mut().push(Err(anyhow::anyhow!("later")));
        loader.check(true, after(32));
        loader.check(true, after(33));
        assert_eq!(count(), 6);
        loader.check(false, after(33));
        loader.check(true, after(33));
        assert_eq!(count(), 7);
    }

    #[test]
    fn what_is_always_overtaken_has_an_end() {
        let mut calls = 0;
        Loader::new(|_| {
            calls += 1;
            Ok(Outcome::Overtaken)
        })
        .check(true, Instant::now());
        assert_eq!(calls, OVERTAKEN + 1);
    }
}
