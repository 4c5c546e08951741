//! Asks who owns interfaces, in the background: the platforms on this host, and the identity command.
//!
//! The platforms are looked at when an interface without an owner appears, some more times shortly after that,
//! and with each resync.
//! A platform may know its container only later than the kernel knows its interface: Docker after 0.2 to 8 s.

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::Context as _;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::Instant,
};

use super::Daemon;
use crate::{
    health::Part,
    net::netlink::Netlink,
    ownership::identity_command::Answers,
    platform::survey::{Survey, Surveyor},
};

/// How soon an interface without an owner is looked up again, at first.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How rarely in the end.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// For how long. After that, each resync and each drain looks.
const PATIENCE: Duration = Duration::from_secs(15);

/// How soon a drain looks again, if it follows another look. A container may get a device that no event of this host
/// shows, and the drain after the look records what that carries.
const BETWEEN_DRAINS: Duration = Duration::from_secs(5);

type Looked = (Surveyor, anyhow::Result<Survey>);

/// The looks at the platforms: one at a time.
#[derive(Debug)]
pub(super) struct Surveys {
    netlink: Netlink,
    /// `None` while it is looking.
    idle: Option<Surveyor>,
    running: Option<JoinHandle<Looked>>,
    /// Requested during a look, which may have been too early.
    again: bool,
    retry: Option<Retry>,
    started: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    pause: Duration,
    next: Instant,
    end: Instant,
}

impl Surveys {
    pub fn new(netlink: Netlink) -> Self {
        Self {
            netlink,
            idle: Some(Surveyor::default()),
            running: None,
            again: false,
            retry: None,
            started: None,
        }
    }

    /// An interface appeared whose owner is unknown: looks at once, and again until the owner is known.
    pub fn ask(&mut self) {
        let now = Instant::now();
        self.retry = Some(Retry { pause: FIRST_PAUSE, next: now + FIRST_PAUSE, end: now + PATIENCE });
        self.start();
    }

    /// Looks, or requests another look after the present one.
    pub fn start(&mut self) {
        let Some(mut surveyor) = self.idle.take() else {
            self.again = true;
            return;
        };
        self.started = Some(Instant::now());
        let netlink = self.netlink.clone();
        self.running = Some(spawn_blocking(move || {
            let survey = netlink.interfaces().and_then(|found| surveyor.survey(&netlink, &found));
            (surveyor, survey)
        }));
    }

    /// Looks, unless it did so a moment ago.
    pub fn look_with_drain(&mut self) {
        if self.started.is_none_or(|started| started.elapsed() >= BETWEEN_DRAINS) {
            self.start();
        }
    }

    /// Whether an owner may still be found soon.
    pub const fn is_trying(&self) -> bool {
        self.running.is_some() || self.retry.is_some()
    }

    /// When the next look is due.
    pub fn due(&self) -> Option<Instant> {
        if self.running.is_some() { None } else { self.retry.map(|retry| retry.next) }
    }

    /// Looks again, as planned. `is_waiting`: whether any owner is still unknown.
    pub fn retry(&mut self, is_waiting: bool) {
        let now = Instant::now();
        let Some(retry) = self.retry.filter(|retry| is_waiting && now < retry.end) else {
            self.retry = None;
            return;
        };
        let pause = (retry.pause * 2).min(LONGEST_PAUSE);
        self.retry = Some(Retry { pause, next: now + pause, ..retry });
        self.start();
    }

    /// Waits for the present look. Never returns if there is none.
    ///
    /// # Errors
    /// As [`Surveyor::survey`].
    pub async fn answer(&mut self) -> anyhow::Result<Survey> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let looked = running.await;
        self.running = None;
        let answer = match looked {
            Ok((surveyor, answer)) => {
                self.idle = Some(surveyor);
                answer
            }
            Err(error) => {
                self.idle = Some(Surveyor::default());
                Err(error).context("the look at the platforms failed")
            }
        };
        if std::mem::take(&mut self.again) {
            self.start();
        }
        answer
    }
}

impl Daemon {
    /// Takes the answer of the identity command, or plans to ask again.
    pub(super) fn answered(&mut self, answer: anyhow::Result<Answers>) {
        self.note_asking();
        self.components.note(Part::IdentityCommand, &answer);
        match answer {
            Ok(answers) => {
                self.ask_again.succeeded();
                // If none waits by then, it is not asked, and no further time is planned.
                self.ask_soon.failed(std::time::Instant::now());
                self.mailbox.post(|work| work.answers = Some(answers));
            }
            Err(_) => self.ask_again.failed(std::time::Instant::now()),
        }
        self.mailbox.post(|work| work.resync = true);
    }

    /// Takes a look at the platforms. A failure is a state of the daemon, and the next resync looks again.
    pub(super) fn surveyed(&mut self, survey: anyhow::Result<Survey>) {
        self.note_asking();
        self.components.note(Part::Platforms, &survey);
        if let Ok(survey) = survey {
            self.mailbox.post(|work| work.survey = Some(survey));
        }
    }

    pub(super) fn note_asking(&self) {
        let is_asking = self.asking.is_busy() || self.surveys.is_trying();
        self.mailbox.is_asking.store(is_asking, Ordering::Relaxed);
    }

    /// Asks the identity command, if there is one.
    pub(super) fn ask(&mut self) {
        if let Some(command) = &self.config.identity_command {
            self.asking.start(command, &self.netlink);
            self.note_asking();
        }
    }

    /// Asks again soon, while a container is unknown.
    pub(super) fn ask_soon(&mut self) {
        self.ask_soon.begin();
        if self.mailbox.is_waiting.load(Ordering::Relaxed) {
            self.ask_if_waiting();
        } else if self.config.identity_command.is_some() && Instant::now() < self.ask_soon_until {
            self.ask_soon.failed(std::time::Instant::now());
        }
    }

    pub(super) fn ask_if_waiting(&mut self) {
        if self.mailbox.is_waiting.load(Ordering::Relaxed) && !self.asking.is_busy() {
            self.ask();
        }
    }
}
