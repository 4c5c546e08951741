//! Shows every second that the event loop runs: publishes the daemon's state, and feeds the service manager's
//! watchdog.
//!
//! The watchdog is fed only while the worker makes progress as well. A daemon whose worker is stuck neither
//! attaches nor drains, and a new process may help. Nothing is lost by a restart, because the kernel counts.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::{Interval, MissedTickBehavior};

use super::{
    mailbox::Mailbox,
    service_manager::{Message, tell},
};
use crate::{
    api::drain_health::DrainHealth,
    health::{Components, Part, Publisher, Report, Work},
};

/// Time between two beats.
const INTERVAL: Duration = Duration::from_secs(1);
/// No single piece of work takes this long. Waiting for another command's lock ends sooner, too.
const STUCK: Duration = Duration::from_mins(2);

/// Publishes the state of the daemon.
pub(super) struct Heartbeat {
    publisher: Option<Publisher>,
    components: Arc<Components>,
    mailbox: Arc<Mailbox>,
    /// Unknown until the worker has started.
    drains: Option<Arc<DrainHealth>>,
    timer: Interval,
    stuck: Duration,
    said_stuck: bool,
    said_failure: bool,
}

impl Heartbeat {
    /// Begins to publish beside the pins below `root`. Needs a tokio runtime.
    pub(super) fn start(root: &Path, components: Arc<Components>, mailbox: Arc<Mailbox>) -> Self {
        let mut timer = tokio::time::interval(INTERVAL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let publisher = Publisher::new(root)
            .inspect_err(|error| tracing::warn!("cannot publish the state of the daemon: {error:#}"))
            .ok();
        Self {
            publisher,
            components,
            mailbox,
            drains: None,
            timer,
            stuck: STUCK,
            said_stuck: false,
            said_failure: false,
        }
    }

    /// The worker has started, and these are its drains.
    pub(super) fn started(&mut self, drains: Option<Arc<DrainHealth>>) {
        self.drains = drains;
    }

    /// Waits for the time of the next beat.
    pub(super) async fn due(&mut self) {
        self.timer.tick().await;
    }

    /// Publishes the state, and feeds the watchdog if the worker makes progress.
    pub(super) fn beat(&mut self) {
        let work = self.mailbox.worker.now();
        match work.filter(|(_, time)| *time > self.stuck) {
            None => {
                self.said_stuck = false;
                tell(Message::Watchdog);
            }
            Some((doing, time)) if !self.said_stuck => {
                self.said_stuck = true;
                tracing::error!(
                    "{doing} has taken {} s, which is too long: the watchdog is no longer fed",
                    time.as_secs()
                );
            }
            Some(_) => {}
        }
        // A file system that does not answer delays only the classes.
        let slow = self.mailbox.loader.now().filter(|(_, time)| *time > self.stuck);
        if let Some((doing, time)) = slow
            && !self.components.is_failing(Part::ClassFile)
        {
            let reason = format!("{doing} has taken {} s so far", time.as_secs());
            self.components.failed_because(Part::ClassFile, &reason);
        }
        self.publish(false);
    }

    /// Publishes that the daemon was stopped.
    pub(super) fn stopped(&mut self) {
        self.publish(true);
    }

    /// Leaves no trace of a daemon that did not start.
    pub(super) fn withdraw(&mut self) {
        if let Some(publisher) = self.publisher.take() {
            publisher.withdraw();
        }
    }

    fn publish(&mut self, stopped: bool) {
        let drains = self.drains.as_ref().map(|drains| drains.read()).unwrap_or_default();
        let report = Report {
            work: self
                .mailbox
                .worker
                .now()
                .map(|(doing, time)| Work { doing: doing.to_owned(), seconds: time.as_secs() }),
            last_drain: drains.last_success.map(|time| time.to_string()),
            drain_failures: drains.failures,
            components: self.components.read(),
        };
        let Some(publisher) = &self.publisher else { return };
        match publisher.publish(report, stopped) {
            Ok(()) => self.said_failure = false,
            Err(error) if !std::mem::replace(&mut self.said_failure, true) => {
                tracing::debug!("cannot publish the state of the daemon: {error}");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixDatagram, thread};

    use super::*;
    use crate::health;

    /// A service manager sees each message. The variable is the process's, so there is one test.
    #[test]
    fn the_watchdog_is_fed_until_the_worker_is_stuck() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        // SAFETY: no other thread of this test reads or writes the environment.
        unsafe { std::env::set_var("NOTIFY_SOCKET", &path) };
        let said = || {
            let mut buffer = [0; 256];
            manager
                .recv(&mut buffer)
                .map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
                .ok()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _context = runtime.enter();
        let (components, mailbox) = (Arc::new(Components::default()), Arc::new(Mailbox::default()));
        let mut heart = Heartbeat::start(directory.path(), Arc::clone(&components), Arc::clone(&mailbox));
        heart.stuck = Duration::from_millis(20);
        heart.beat();
        assert_eq!(said().as_deref(), Some("WATCHDOG=1\n"));

        let work = mailbox.worker.begin("draining");
        components.failed_because(Part::Api, "in use");
        thread::sleep(Duration::from_millis(40));
        heart.beat();
        assert_eq!(said(), None, "a daemon whose worker is stuck looks healthy");
        let (record, _) = health::read(directory.path()).unwrap();
        assert_eq!(record.work.map(|work| work.doing).as_deref(), Some("draining"));
        assert_eq!(record.components[0].last_error.as_deref(), Some("in use"));

        drop(work);
        heart.beat();
        assert_eq!(said().as_deref(), Some("WATCHDOG=1\n"), "it goes on");
        heart.stopped();
        assert_eq!(health::read(directory.path()).unwrap().1, health::Liveness::Stopped);
    }
}
