//! Problems of the node over time: which of them last, which of those are told, and when they are over.
//!
//! `trafctl quota watch` looks, and keeps what it found in `node-alerts.json` of the state directory, so that
//! a restart tells nothing twice. `trafctl quota run` reads the file, and runs the actions. Problems of one
//! kind that appear together are one alert: a thousand interfaces that are not attached are one mail.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::{Deserialize, Serialize};
use traffic_quota::{Alert, ProblemKind};

use crate::state_file;

/// Name of the file in the state directory.
pub(super) const FILE: &str = "node-alerts.json";
/// The most that is read, in bytes.
const MOST_BYTES: u64 = 16 << 20;
/// Version of the file.
const VERSION: u32 = 1;
/// How many alerts that are over are kept.
const MOST_OVER: usize = 1000;
/// How many problems an alert lists.
const MOST_LISTED: usize = 20;
/// How many problems are followed at once.
const MOST_FOLLOWED: usize = 10_000;

/// A problem that a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its kind.
    pub kind: ProblemKind,
    /// What it is known by from one look to the next. Figures in its text may change.
    pub key: String,
    /// The problem as a sentence.
    pub text: String,
    /// Whether it is over as soon as it is told: it happened, and does not last.
    pub is_past: bool,
}

/// A problem that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Followed {
    kind: String,
    key: String,
    text: String,
    /// When it was found first, in seconds since the Unix epoch.
    since_s: i64,
    /// Since when it is away; `None` while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    away_s: Option<i64>,
    /// The alert that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alert: Option<String>,
}

/// Problems of one kind that appeared together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAlert {
    /// The id that stays.
    pub id: String,
    /// The kind of its problems.
    pub kind: String,
    /// The problems, as far as they are listed.
    pub problems: Vec<String>,
    /// How many there are.
    pub count: usize,
    /// When the first was found, in seconds since the Unix epoch.
    pub since_s: i64,
    /// When it was told.
    pub told_s: i64,
    /// When the last was over; `None` until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_s: Option<i64>,
    /// Whether nobody is told of its end: it happened, and did not last.
    #[serde(default)]
    pub is_past: bool,
    /// The names of the actions.
    pub actions: Vec<String>,
}

/// All that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAlerts {
    version: u32,
    /// The name of the node.
    #[serde(default)]
    pub node: String,
    /// When the node was looked at last, in seconds since the Unix epoch.
    pub looked_s: i64,
    followed: Vec<Followed>,
    /// The alerts, in their order.
    pub alerts: Vec<NodeAlert>,
}

impl NodeAlerts {
    /// What a state directory has; `None` if nobody has looked yet.
    ///
    /// # Errors
    /// When the file cannot be read, or is another one.
    pub fn read(state_dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = state_dir.join(FILE);
        let Some(bytes) = state_file::read(&path, MOST_BYTES)? else { return Ok(None) };
        let known: Self = serde_json::from_slice(&bytes)
            .map_err(|error| anyhow::anyhow!("{} is damaged ({error}); remove it", path.display()))?;
        anyhow::ensure!(
            known.version == VERSION,
            "{} has version {}, and {VERSION} is known; remove it",
            path.display(),
            known.version
        );
        Ok(Some(known))
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, state_dir: &Path) -> anyhow::Result<()> {
        self.version = VERSION;
        state_file::replace(&state_dir.join(FILE), &serde_json::to_vec(self)?, MOST_BYTES)
    }

    /// Whether the file may have changed since it was read: its size and the times of its last change.
    pub fn stamp(state_dir: &Path) -> Option<(u64, i64, i64, u64)> {
        use std::os::unix::fs::MetadataExt as _;
        let file = std::fs::metadata(state_dir.join(FILE)).ok()?;
        Some((file.len(), file.mtime(), file.mtime_nsec(), file.ino()))
    }

    /// Takes a look: what was found, at which time, with the alerts of the file.
    pub fn look(&mut self, now_s: i64, found: &[Found], alerts: &[Alert]) {
        self.looked_s = now_s;
        self.follow(now_s, found);
        let after_s = |kind: &str| {
            let of_kind = alerts.iter().filter(|alert| has(alert, kind));
            of_kind.map(|alert| i64::try_from(alert.after.as_secs()).unwrap_or(i64::MAX)).min()
        };
        self.followed.retain(|one| {
            let away_s = one.away_s.map(|away_s| now_s.saturating_sub(away_s));
            away_s.is_none_or(|away_s| one.alert.is_some() && away_s < after_s(&one.kind).unwrap_or(0))
        });
        self.tell(now_s, found, alerts, &after_s);
        for alert in self.alerts.iter_mut().filter(|alert| alert.over_s.is_none()) {
            if alert.is_past || self.followed.iter().all(|one| one.alert.as_ref() != Some(&alert.id)) {
                alert.over_s = Some(now_s);
            }
        }
        let over = self.alerts.iter().filter(|alert| alert.over_s.is_some()).count();
        let mut spare = over.saturating_sub(MOST_OVER);
        self.alerts.retain(|alert| {
            let is_spare = alert.over_s.is_some() && spare > 0;
            spare -= usize::from(is_spare);
            !is_spare
        });
    }

    fn follow(&mut self, now_s: i64, found: &[Found]) {
        let key_of = |one: &Found| (one.kind.name().to_owned(), one.key.clone());
        let mut missing: BTreeMap<_, &Found> =
            found.iter().take(MOST_FOLLOWED).map(|one| (key_of(one), one)).collect();
        for one in &mut self.followed {
            // A clock that was set back has nothing to wait for.
            one.since_s = one.since_s.min(now_s);
            match missing.remove(&(one.kind.clone(), one.key.clone())) {
                Some(found) => {
                    one.text.clone_from(&found.text);
                    one.away_s = None;
                }
                None => one.away_s = Some(one.away_s.unwrap_or(now_s).min(now_s)),
            }
        }
        self.followed.extend(missing.into_values().map(|found| Followed {
            kind: found.kind.name().to_owned(),
            key: found.key.clone(),
            text: found.text.clone(),
            since_s: now_s,
            away_s: None,
            alert: None,
        }));
    }

    /// Makes alerts of what has lasted.
    fn tell(&mut self, now_s: i64, found: &[Found], alerts: &[Alert], after_s: &dyn Fn(&str) -> Option<i64>) {
        let is_past = |one: &Followed| {
            found.iter().any(|found| found.is_past && found.kind.name() == one.kind && found.key == one.key)
        };
        for (_, kind) in ProblemKind::ALL {
            let Some(after_s) = after_s(kind) else { continue };
            for past in [false, true] {
                let lasts = |one: &&mut Followed| {
                    let is_ripe = is_past(one) || now_s.saturating_sub(one.since_s) >= after_s;
                    one.kind == kind
                        && one.alert.is_none()
                        && one.away_s.is_none()
                        && is_ripe
                        && is_past(one) == past
                };
                let mut new: Vec<&mut Followed> = self.followed.iter_mut().filter(lasts).collect();
                let Some(since_s) = new.iter().map(|one| one.since_s).min() else { continue };
                let mut id = format!("{kind}/{now_s}{}", if past { "/past" } else { "" });
                // A clock that was set back may show the time of an earlier alert.
                while self.alerts.iter().any(|alert| alert.id == id) {
                    id.push('+');
                }
                let names: BTreeSet<&String> =
                    alerts.iter().filter(|alert| has(alert, kind)).flat_map(|alert| &alert.actions).collect();
                let problems = new.iter().take(MOST_LISTED).map(|one| one.text.clone()).collect();
                let count = new.len();
                new.iter_mut().for_each(|one| one.alert = Some(id.clone()));
                self.alerts.push(NodeAlert {
                    id,
                    kind: kind.to_owned(),
                    problems,
                    count,
                    since_s,
                    told_s: now_s,
                    over_s: None,
                    is_past: past,
                    actions: names.into_iter().cloned().collect(),
                });
            }
        }
    }
}

fn has(alert: &Alert, kind: &str) -> bool {
    alert.problems.iter().any(|of| of.name() == kind)
}

#[cfg(test)]
#[path = "alerts_tests.rs"]
mod tests;
