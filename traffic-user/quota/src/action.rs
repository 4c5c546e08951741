//! Actions: what runs when a threshold is reached, and which of them run now, until they report success.
//!
//! An action is marked as begun before it is started, and as done after it has reported success. Whoever is
//! killed in between leaves it begun, and it runs again under the same id. Of a container, the runs of one
//! action follow the order of the crossings, so that a lift never overtakes the throttle before it. No
//! container waits for another, and no action for another one.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use crate::{crossing::Change, url::Url};

/// Seconds until the first retry, and the most between two. A failure is doubled each time.
const FIRST_RETRY_S: i64 = 10;
const LONGEST_RETRY_S: i64 = 3600;

/// An action of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// The line of the file on which it begins, from 1.
    pub line: usize,
    /// What it does.
    pub means: Means,
    /// How long it may take.
    pub timeout: Duration,
}

/// What an action does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// Runs programs.
    Command {
        /// The program that runs when a threshold is reached, and its arguments; never empty.
        command: Vec<String>,
        /// The program that runs when the threshold is no longer reached, or the period ends; empty for none.
        lift: Vec<String>,
        /// How often `command` runs again in between; never without.
        again: Option<Duration>,
    },
    /// Sends the document to a server.
    Webhook {
        /// Where to.
        url: Url,
        /// What it is signed with; not signed without.
        secret: Option<Secret>,
        /// The authorities of the server's certificate; those of the system without.
        ca_file: Option<PathBuf>,
        /// The events that are sent.
        events: Vec<Change>,
    },
    /// Sends a mail by the node's own `sendmail`.
    Mail {
        /// The recipients; at least one.
        to: Vec<String>,
        /// The sender; the mail system's own without.
        from: Option<String>,
        /// The program.
        sendmail: PathBuf,
        /// The events that are sent.
        events: Vec<Change>,
    },
}

impl Means {
    /// Whether it does anything about an event.
    pub fn is_for(&self, event: Change) -> bool {
        match self {
            Self::Command { lift, .. } => event == Change::Reached || !lift.is_empty(),
            Self::Webhook { events, .. } | Self::Mail { events, .. } => events.contains(&event),
        }
    }
}

/// Where a secret is. It is never in the file with the quotas itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// In a credential of the unit, by its name.
    Credential(String),
}

/// A run of an action that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its place in the order of crossings.
    pub sequence: i64,
    /// Whose it is: the runs of one subject wait for each other.
    pub subject: String,
    /// How often it was begun.
    pub attempts: u32,
    /// When it was begun last, in seconds since the Unix epoch.
    pub begun_s: i64,
}

impl Pending {
    /// How long after its last begin it may run again.
    fn retry_s(&self) -> i64 {
        match self.attempts {
            0 => 0,
            attempts => (FIRST_RETRY_S << (attempts - 1).min(16)).min(LONGEST_RETRY_S),
        }
    }

    /// Whether it may run. A clock that was set back does not hold it up for longer than a retry.
    fn is_due(&self, now_s: i64) -> bool {
        let since_s = now_s.saturating_sub(self.begun_s);
        since_s >= self.retry_s() || since_s < 0
    }
}

/// What to begin now, in its order: of each subject the first that is not done, if it is due and no run of
/// the subject is going on.
pub fn due<'p>(pending: &'p [Pending], running: &BTreeSet<String>, now_s: i64) -> Vec<&'p Pending> {
    let mut ordered: Vec<&Pending> = pending.iter().collect();
    ordered.sort_by_key(|action| action.sequence);
    let mut subjects: BTreeSet<&str> = BTreeSet::new();
    ordered.retain(|action| subjects.insert(&action.subject));
    ordered.retain(|action| !running.contains(&action.subject) && action.is_due(now_s));
    ordered
}

#[cfg(test)]
#[path = "action_tests.rs"]
mod tests;
