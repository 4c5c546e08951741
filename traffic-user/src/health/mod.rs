//! The state of the daemon and of its optional parts, as the daemon publishes it and others read it.
//!
//! A part that fails never stops counting. It has a state, a number of retries and a last error, which are
//! logged once per change and shown by `trafctl status`, the API and the metrics. `published` carries them to
//! other processes, `backoff` plans the retries.

mod backoff;
mod published;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::time;

pub use backoff::Backoff;
pub use published::{DaemonRecord, Liveness, Publisher, Report, Work, read};

/// A part of the daemon that counting does not depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The socket of the API.
    Api,
    /// The configuration file at the start or the last reload.
    Configuration,
    /// Watching files; without it they are compared regularly.
    FileWatch,
    /// The class file.
    ClassFile,
    /// Who owns which interface and address: the containers' files and the address file.
    Owners,
    /// Comparing all interfaces with what is attached.
    Resync,
    /// The identity command.
    IdentityCommand,
    /// Looking for the platforms on this host and their containers.
    Platforms,
    /// The ledger.
    Ledger,
    /// Moving the ledger's log into its main file after each drain.
    LedgerCheckpoint,
    /// The log lines of the kernel program.
    ProgramLog,
    /// The rules of the ledger's time zone.
    TimeZone,
    /// The file with the quotas, and their crossings.
    Quotas,
}

impl Part {
    /// Its name in documents and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Configuration => "configuration",
            Self::FileWatch => "file_watch",
            Self::ClassFile => "class_file",
            Self::Owners => "owners",
            Self::Resync => "resync",
            Self::IdentityCommand => "identity_command",
            Self::Platforms => "platforms",
            Self::Ledger => "ledger",
            Self::LedgerCheckpoint => "ledger_checkpoint",
            Self::ProgramLog => "program_log",
            Self::TimeZone => "time_zone",
            Self::Quotas => "quotas",
        }
    }

    /// What continues while it fails, for the log.
    const fn meanwhile(self) -> &'static str {
        match self {
            Self::Api => "counting continues without the API, and trafctl tries again",
            Self::Configuration => "everything stays as it was until a reload succeeds",
            Self::FileWatch => "the files are compared every few seconds instead, and trafctl tries again",
            Self::ClassFile => "the table in force stays in force",
            Self::Owners => "what was known stays in force, and trafctl tries again",
            Self::Resync => "what is attached is counted, new interfaces may not be, and trafctl tries again",
            Self::IdentityCommand => "trafctl will retry, and interfaces with a known owner are counted",
            Self::Platforms => "what was known stays in force, and trafctl tries again",
            Self::Ledger => {
                "counting continues without the ledger, and every drain tries again. Nothing counted meanwhile \
                 is lost"
            }
            Self::LedgerCheckpoint => {
                "drains continue, nothing is lost, and each of them tries again to move the log"
            }
            Self::ProgramLog => "counting continues without log lines for faults",
            Self::TimeZone => "counting continues, and trafctl looks for the zone at each drain",
            Self::Quotas => "counting and drains continue, and trafctl tries again after each drain",
        }
    }
}

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It works.
    Ok,
    /// It does not, and is retried.
    Failing,
    /// The configuration does not ask for it.
    Disabled,
}

/// A part as documents show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: State,
    /// Since when.
    pub since: String,
    /// Attempts that failed since it last worked, the first one included.
    pub failures: u64,
    /// Why the last attempt failed; `null` while it works.
    pub last_error: Option<String>,
}

#[derive(Debug)]
struct Entry {
    state: State,
    since: Timestamp,
    failures: u64,
    last_error: Option<String>,
}

/// All parts of the daemon. Shared between its threads.
#[derive(Debug, Default)]
pub struct Components {
    parts: Mutex<BTreeMap<Part, Entry>>,
    /// Interfaces that look like a container's and are not counted.
    uncounted: AtomicU64,
}

impl Components {
    /// Notes that a part works. Logs it if the part failed before.
    pub fn works(&self, part: Part) {
        if self.set(part, State::Ok, None) {
            tracing::info!("{} works again", part.name());
        }
    }

    /// Notes how many interfaces look like a container's and are not counted.
    pub fn set_uncounted(&self, interfaces: usize) {
        self.uncounted.store(interfaces as u64, Ordering::Relaxed);
    }

    /// How many interfaces looked like a container's and were not counted when all were last compared.
    pub fn uncounted(&self) -> u64 {
        self.uncounted.load(Ordering::Relaxed)
    }

    /// Notes that the configuration does not ask for a part.
    pub fn disabled(&self, part: Part) {
        self.set(part, State::Disabled, None);
    }

    /// Notes a failed attempt. Logs it unless it failed for the same reason before.
    pub fn failed(&self, part: Part, error: &anyhow::Error) {
        self.failed_because(part, &format!("{error:#}"));
    }

    /// As [`Self::failed`], with the reason in words.
    pub fn failed_because(&self, part: Part, reason: &str) {
        if self.set(part, State::Failing, Some(reason)) {
            // After a reason of several lines, it would read as part of the last one.
            let end = if reason.contains('\n') { "\n  " } else { "; " };
            match part {
                Part::FileWatch | Part::IdentityCommand => {
                    tracing::warn!("{reason}{end}{}", part.meanwhile());
                }
                _ => tracing::error!("{reason}{end}{}", part.meanwhile()),
            }
        }
    }

    /// As [`Self::failed_because`], for a reason that was logged already.
    pub fn set_failed(&self, part: Part, reason: &str) {
        self.set(part, State::Failing, Some(reason));
    }

    /// Notes how an attempt ended.
    pub fn note<T>(&self, part: Part, attempt: &anyhow::Result<T>) {
        match attempt {
            Ok(_) => self.works(part),
            Err(error) => self.failed(part, error),
        }
    }

    /// Whether a part fails.
    pub fn is_failing(&self, part: Part) -> bool {
        let entries = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&part).is_some_and(|entry| entry.state == State::Failing)
    }

    /// All parts that were noted so far.
    pub fn read(&self) -> Vec<Component> {
        let entries = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let component = |(part, entry): (&Part, &Entry)| Component {
            name: part.name().to_owned(),
            state: entry.state,
            // Whole seconds, as everywhere in documents.
            since: Timestamp::from_second(entry.since.as_second()).unwrap_or(entry.since).to_string(),
            failures: entry.failures,
            last_error: entry.last_error.clone(),
        };
        entries.iter().map(component).collect()
    }

    /// Returns whether the change is worth a line in the log: a failure with a new reason, or its end.
    fn set(&self, part: Part, state: State, error: Option<&str>) -> bool {
        let mut entries = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let now = time::now_or_end();
        let entry = entries.entry(part).or_insert(Entry { state, since: now, failures: 0, last_error: None });
        let was_failing = entry.state == State::Failing && entry.last_error.is_some();
        let is_news = match state {
            State::Failing => entry.last_error.as_deref() != error,
            State::Ok => was_failing,
            State::Disabled => false,
        };
        if entry.state != state {
            entry.since = now;
        }
        entry.state = state;
        entry.failures = if state == State::Failing { entry.failures + 1 } else { 0 };
        entry.last_error = error.map(str::to_owned);
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_logged_once_per_change_and_counts_its_failures() {
        let components = Components::default();
        components.works(Part::Ledger);
        assert!(!components.set(Part::Ledger, State::Ok, None), "it worked before");
        assert!(components.set(Part::Api, State::Failing, Some("the port is in use")), "news");
        assert!(!components.set(Part::Api, State::Failing, Some("the port is in use")), "the same again");
        assert!(components.set(Part::Api, State::Failing, Some("permission denied")), "another reason");
        components.disabled(Part::IdentityCommand);
        assert!(components.is_failing(Part::Api) && !components.is_failing(Part::Ledger));
        let parts = components.read();
        let shown: Vec<_> = parts
            .iter()
            .map(|part| (part.name.as_str(), part.state, part.failures, part.last_error.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [
                ("api", State::Failing, 3, Some("permission denied")),
                ("identity_command", State::Disabled, 0, None),
                ("ledger", State::Ok, 0, None),
            ]
        );
        assert!(components.set(Part::Api, State::Ok, None), "it works again");
        let api = &components.read()[0];
        assert_eq!((api.state, api.failures, &api.last_error), (State::Ok, 0, &None));
    }
}
