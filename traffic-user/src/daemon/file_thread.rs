//! The thread that watches files: a file system that does not answer blocks only this thread.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::Context as _;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io,
};

use super::{
    file_watch::{FileWatch, KernelInotify},
    mailbox::Mailbox,
};
use crate::{
    config::Config,
    health::{Components, Part},
};

/// The thread, as the event loop sees it.
#[derive(Debug)]
pub(super) struct FileThread {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The configuration to follow from now on.
    next: Mutex<Option<Config>>,
    /// Wakes the thread.
    wake: OwnedFd,
}

impl FileThread {
    /// Starts to watch the files of a configuration. Changes are posted to the worker.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        config: Config,
        components: Arc<Components>,
        mailbox: Arc<Mailbox>,
    ) -> anyhow::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .context("cannot start the thread that watches files")?;
        let shared = Arc::new(Shared { next: Mutex::new(None), wake });
        let run = {
            let shared = Arc::clone(&shared);
            move || shared.run(&config, &components, &mailbox)
        };
        thread::Builder::new()
            .name("files".to_owned())
            .spawn(run)
            .context("cannot start the thread that watches files")?;
        Ok(Self { shared })
    }

    /// Watches the files of another configuration instead.
    pub(super) fn follow(&self, config: Config) {
        *self.shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(config);
        // It fails only when it was woken so often that the counter is full, so it is awake.
        let _is_awake = io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }
}

impl Shared {
    fn run(&self, config: &Config, components: &Components, mailbox: &Mailbox) {
        let mut watch = FileWatch::new(KernelInotify, config, Instant::now());
        loop {
            // Each attempt is noted, but not each step.
            match watch.take_attempt() {
                Some(Ok(())) => components.works(Part::FileWatch),
                Some(Err(reason)) => components.failed_because(Part::FileWatch, &reason),
                None => {}
            }
            self.wait(&watch);
            if let Some(config) = self.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
                watch.follow(&config, Instant::now());
            }
            let changed = watch.step(Instant::now());
            if !changed.is_empty() {
                mailbox.post(|work| work.files.add(changed));
            }
        }
    }

    /// Waits for an event, another configuration, or the time of the next step.
    fn wait(&self, watch: &FileWatch<KernelInotify>) {
        let timeout = watch.due().map(|due| {
            let left = due.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
        });
        let wake = PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN);
        let mut ready = vec![wake];
        ready.extend(watch.instance().map(|instance| PollFd::from_borrowed_fd(instance, PollFlags::IN)));
        // An interrupted wait is only a step more.
        let _interrupted = poll(&mut ready, timeout.as_ref());
        let _empty = io::read(&self.wake, &mut [0; 8]);
    }
}
