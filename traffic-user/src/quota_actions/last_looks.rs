//! When somebody last looked for actions to run, and for problems of the node: whether the two services do what
//! `quotas.toml` counts on.
//!
//! The times are those of files in the state directory. `trafctl quota run` sets that of its lock once a minute, and
//! `trafctl quota watch` writes what it finds once a minute.

use std::{fs, path::Path, time::UNIX_EPOCH};

use super::{alerts, journal};

/// How long ago actions may have been looked for, in seconds. It may be by cron, once an hour.
const MOST_RUN_S: i64 = 65 * 60;
/// The same for problems of the node.
const MOST_WATCH_S: i64 = 10 * 60;

/// When somebody last looked, in seconds since the Unix epoch; `None` if nobody did, or if that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastLooks {
    /// For actions to run.
    pub run_s: Option<i64>,
    /// For problems of the node.
    pub watch_s: Option<i64>,
}

impl LastLooks {
    /// What a state directory shows.
    pub fn read(state_dir: &Path) -> Self {
        let changed = |name: &str| {
            let changed = fs::metadata(state_dir.join(name)).and_then(|file| file.modified()).ok()?;
            i64::try_from(changed.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
        };
        Self { run_s: changed(journal::LOCK), watch_s: changed(alerts::FILE) }
    }

    /// What is wrong where the file has actions or alerts.
    pub fn problem(self, (has_actions, has_alerts): (bool, bool), now_s: i64) -> Option<String> {
        // A clock that was set back makes nobody late.
        let is_late =
            |last: Option<i64>, most_s: i64| last.is_none_or(|last| now_s.saturating_sub(last) > most_s);
        let mut late = Vec::new();
        if (has_actions || has_alerts) && is_late(self.run_s, MOST_RUN_S) {
            late.push("nothing runs its actions: start `trafctl quota run` (trafctl-quota.service)");
        }
        if has_alerts && is_late(self.watch_s, MOST_WATCH_S) {
            late.push(
                "nothing looks for the problems of its alerts: start `trafctl quota watch` (trafctl-watch.service)",
            );
        }
        (!late.is_empty()).then(|| late.join(", and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_is_missed_where_it_is_needed() {
        let at = |run_s, watch_s| LastLooks { run_s, watch_s };
        let [both, actions, alerts, none] = [(true, true), (true, false), (false, true), (false, false)];
        let now_s = 1_800_000_000;
        let text = |looks: LastLooks, has| looks.problem(has, now_s).unwrap_or_default();
        let fresh = at(Some(now_s - 3900), Some(now_s - 600));
        assert_eq!([both, actions, alerts, none].map(|has| text(fresh, has)), [""; 4]);
        let no_run = at(Some(now_s - 3901), Some(now_s));
        assert!(text(no_run, actions).contains("trafctl-quota.service"));
        assert!(text(no_run, alerts).contains("trafctl-quota.service"), "alerts are actions, too");
        assert!(!text(no_run, both).contains("trafctl-watch.service"));
        assert_eq!(text(no_run, none), "");
        let no_watch = at(Some(now_s), Some(now_s - 601));
        assert!(text(no_watch, alerts).contains("trafctl-watch.service"));
        assert_eq!(text(no_watch, actions), "");
        assert!(text(LastLooks::default(), both).contains(", and nothing looks"));
        assert_eq!(text(at(Some(now_s + 9000), Some(now_s + 9000)), both), "");
    }

    #[test]
    fn the_times_are_those_of_the_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(LastLooks::read(dir.path()), LastLooks::default());
        for (name, seconds) in [(journal::LOCK, 1_700_000_000), (alerts::FILE, 1_800_000_000)] {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        }
        let read = LastLooks::read(dir.path());
        assert_eq!(read, LastLooks { run_s: Some(1_700_000_000), watch_s: Some(1_800_000_000) });
    }
}
