//! Whether the shadow class table that is wanted counts.

use std::path::Path;

use super::{Daemon, DaemonState, report::ShadowStatus};
use crate::{
    class_source::shadow::{Kept, kept},
    kernel::{
        maps::Maps,
        shadow::{self, Shadow},
    },
    time,
};

/// Only these begin one anew.
const NO_DAEMON: &str = "the daemon, or `trafctl classes load`, begins it anew";

/// The state of the shadow class table, and what is wrong with it. One that the daemon is about to begin anew is not
/// wrong.
pub(super) fn gather(
    maps: &Maps,
    state_dir: &Path,
    daemon: &Daemon,
) -> (Option<ShadowStatus>, Option<String>) {
    let (kept, unreadable) = match kept(state_dir) {
        Ok(kept) => (kept, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let found = Shadow::open(maps);
    if kept.is_none() && unreadable.is_none() && matches!(found, Ok(None)) {
        return (None, None);
    }
    let record = found.as_ref().ok().and_then(Option::as_ref).map(Shadow::record);
    let is_other = kept.as_ref().zip(record).is_some_and(|(kept, record)| !kept.is_of(record));
    let name = kept.as_ref().map(Kept::name);
    let name =
        name.map_or_else(|| "shadow class table".to_owned(), |name| format!("shadow class table of {name}"));
    let failed = kept.as_ref().and_then(|kept| kept.failed.clone());
    let (reason, problem) = match (&found, unreadable) {
        (Err(error), _) => {
            let reason = format!("{error:#}");
            (Some(reason.clone()), Some(format!("{name}: {reason}")))
        }
        (_, Some(unreadable)) => (Some(unreadable.clone()), Some(format!("{name}: {unreadable}"))),
        (Ok(Some(_)), None) if is_other => (
            None,
            Some(format!(
                "{name}: another one counts, because the command that began it was interrupted; begin it again by \
                 `trafctl classes shadow FILE`"
            )),
        ),
        (Ok(Some(_)), None) => (None, None),
        (Ok(None), None) => {
            let runs = daemon.state == DaemonState::Running;
            let problem = failed.clone().or_else(|| (!runs).then(|| NO_DAEMON.to_owned()));
            let reason = failed
                .unwrap_or_else(|| if runs { "it is about to begin anew" } else { NO_DAEMON }.to_owned());
            (Some(reason), problem.map(|problem| format!("{name}: it does not count: {problem}")))
        }
    };
    let kept = kept.filter(|_| !is_other);
    let status = ShadowStatus {
        is_known: kept.is_some(),
        in_force: record.is_some(),
        since: record.map(|record| time::timestamp(record.since_unix_s).to_string()),
        begun_anew: kept.as_ref().and_then(|kept| kept.begun_anew.clone()),
        reason,
        file: kept.and_then(|kept| kept.file),
    };
    (Some(status), problem)
}

/// The memory of the maps within maps. One that ends meanwhile has none.
pub(super) fn memory(maps: &Maps) -> Option<(&'static str, u64)> {
    shadow::memory(maps).ok().filter(|bytes| *bytes > 0).map(|bytes| ("shadow class table", bytes))
}
