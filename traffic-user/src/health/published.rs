//! What the daemon publishes about itself, and how others find out whether it still lives.
//!
//! The record is the target of a symbolic link beside the pins. (The BPF file system holds no regular files.)
//! A disk that is full does not prevent it, and neither a clone nor a restored backup contains it, because it
//! is in the memory of the kernel. It is replaced as a whole. Reading it takes no lock.
//!
//! A record proves nothing by itself, because a killed daemon leaves it. It counts only together with the
//! process it names: the same boot, and a process with the same id that began at the same moment. Where the
//! reader sees other process ids, the age of the record decides. It is renewed every few seconds.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::Component;
use crate::time;

/// Name of the link beside the pins.
const LINK: &str = "daemon";
/// Name under which the next record is written. The BPF file system refuses names with a dot.
const FRESH: &str = "daemon-new";
/// Version of the record.
const VERSION: u32 = 1;
/// Longest target of a symbolic link.
const MOST_BYTES: usize = 4000;
/// A daemon that has published nothing for this long is stopped, or its event loop is blocked.
const SILENCE: Duration = Duration::from_secs(30);

/// What the daemon does at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What it is.
    pub doing: String,
    /// For how long, in seconds.
    pub seconds: u64,
}

/// The daemon as it last described itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRecord {
    version: u32,
    /// Its process id, in its own namespace.
    pub pid: u32,
    /// When the process began, in ticks since boot.
    start_ticks: u64,
    /// The namespace of process ids.
    pid_namespace: String,
    boot_id: String,
    /// When this was written, in milliseconds of a clock that stands while the machine sleeps.
    written_monotonic_ms: u64,
    /// Version of its program.
    pub trafctl_version: String,
    /// When it started.
    pub started: String,
    /// When this was written.
    pub written: String,
    /// Whether it was stopped as a service manager does it. Nothing else is true any more then.
    pub stopped: bool,
    /// Its work at that moment; `None` if it had none.
    pub work: Option<Work>,
    /// When the counters were last written into the ledger.
    pub last_drain: Option<String>,
    /// Drains that failed since it started.
    pub drain_failures: u64,
    /// Its optional parts.
    pub components: Vec<Component>,
}

/// Whether the daemon that wrote a record still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It does, and it reports.
    Alive,
    /// The process exists, but it has not reported for this long.
    Silent(Duration),
    /// It ended without being stopped.
    Dead,
    /// It was stopped.
    Stopped,
}

/// Writes the records of this process.
#[derive(Debug)]
pub struct Publisher {
    root: PathBuf,
    started: String,
    start_ticks: u64,
    pid_namespace: String,
    boot_id: String,
}

/// What changes from one record to the next.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// See [`DaemonRecord::work`].
    pub work: Option<Work>,
    /// See [`DaemonRecord::last_drain`].
    pub last_drain: Option<String>,
    /// See [`DaemonRecord::drain_failures`].
    pub drain_failures: u64,
    /// See [`DaemonRecord::components`].
    pub components: Vec<Component>,
}

impl Publisher {
    /// Publishes beside the pins below `root`.
    ///
    /// # Errors
    /// When `/proc` does not describe this process.
    pub fn new(root: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            root: root.to_owned(),
            started: now(),
            start_ticks: start_ticks(process::id()).context("cannot read the start of this process")?,
            pid_namespace: pid_namespace()?,
            boot_id: boot_id()?,
        })
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// When the link cannot be written.
    pub fn publish(&self, report: Report, stopped: bool) -> io::Result<()> {
        let Report { work, last_drain, drain_failures, components } = report;
        let mut record = DaemonRecord {
            version: VERSION,
            pid: process::id(),
            start_ticks: self.start_ticks,
            pid_namespace: self.pid_namespace.clone(),
            boot_id: self.boot_id.clone(),
            written_monotonic_ms: monotonic_ms(),
            trafctl_version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started.clone(),
            written: now(),
            stopped,
            work,
            last_drain,
            drain_failures,
            components,
        };
        let fresh = self.root.join(FRESH);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(fitted(&mut record)?, &fresh)?;
        fs::rename(&fresh, self.root.join(LINK))
    }

    /// Removes the record.
    pub fn withdraw(&self) {
        for name in [FRESH, LINK] {
            // What is not there need not be removed, and what cannot be removed names a process that ends.
            let _gone = fs::remove_file(self.root.join(name));
        }
    }
}

/// The record as text that fits a link: the longest errors are cut.
fn fitted(record: &mut DaemonRecord) -> io::Result<String> {
    let mut most = 1000;
    loop {
        let text = serde_json::to_string(record)?;
        if text.len() <= MOST_BYTES || most < 20 {
            return Ok(text);
        }
        most /= 2;
        for error in record.components.iter_mut().filter_map(|component| component.last_error.as_mut()) {
            if let Some((end, _)) = error.char_indices().nth(most) {
                error.truncate(end);
                error.push_str(" ...");
            }
        }
    }
}

/// The last record beside the pins below `root`, and whether its daemon lives; `None` if there is none, or
/// one of another version.
pub fn read(root: &Path) -> Option<(DaemonRecord, Liveness)> {
    let text = fs::read_link(root.join(LINK)).ok()?;
    let record: DaemonRecord = serde_json::from_slice(text.as_os_str().as_encoded_bytes()).ok()?;
    (record.version == VERSION).then(|| {
        let liveness = liveness(&record, &Here::now());
        (record, liveness)
    })
}

/// What the reader knows of this machine.
struct Here<'a> {
    boot_id: Option<String>,
    pid_namespace: Option<String>,
    monotonic_ms: u64,
    /// When the process with an id began.
    start_ticks: &'a dyn Fn(u32) -> Option<u64>,
}

impl Here<'_> {
    fn now() -> Self {
        Self {
            boot_id: boot_id().ok(),
            pid_namespace: pid_namespace().ok(),
            monotonic_ms: monotonic_ms(),
            start_ticks: &start_ticks,
        }
    }
}

fn liveness(record: &DaemonRecord, here: &Here<'_>) -> Liveness {
    if record.stopped {
        return Liveness::Stopped;
    }
    if here.boot_id.as_ref() != Some(&record.boot_id) {
        return Liveness::Dead;
    }
    let sees_it = here.pid_namespace.as_ref() == Some(&record.pid_namespace);
    if sees_it && (here.start_ticks)(record.pid) != Some(record.start_ticks) {
        return Liveness::Dead;
    }
    let age = Duration::from_millis(here.monotonic_ms.saturating_sub(record.written_monotonic_ms));
    match age > SILENCE {
        false => Liveness::Alive,
        true => Liveness::Silent(age),
    }
}

fn now() -> String {
    let now = time::now_or_end();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// A suspended machine must not make its daemon look silent, so this clock stands meanwhile.
fn monotonic_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

fn boot_id() -> anyhow::Result<String> {
    Ok(String::from_utf8_lossy(&time::boot_id()?).into_owned())
}

fn pid_namespace() -> anyhow::Result<String> {
    const PATH: &str = "/proc/self/ns/pid";
    let namespace = fs::read_link(PATH).with_context(|| format!("cannot read {PATH}"))?;
    Ok(namespace.to_string_lossy().into_owned())
}

/// Field 22 of `/proc/PID/stat`; `None` if no such process lives. A process that ended and was not collected
/// yet does not live.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets, which may contain anything.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::State;

    fn component(error: &str) -> Component {
        Component {
            name: "api".to_owned(),
            state: State::Failing,
            since: "2026-11-28T12:00:00Z".to_owned(),
            failures: 3,
            last_error: Some(error.to_owned()),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_published() {
        let pins = tempfile::tempdir().unwrap();
        assert!(read(pins.path()).is_none());
        let publisher = Publisher::new(pins.path()).unwrap();
        let work = Some(Work { doing: "draining".to_owned(), seconds: 2 });
        let report = Report {
            work: work.clone(),
            last_drain: Some("2026-11-28T12:01:00Z".to_owned()),
            drain_failures: 7,
            components: vec![component("in use")],
        };
        publisher.publish(report.clone(), false).unwrap();
        let (record, liveness) = read(pins.path()).unwrap();
        assert_eq!(liveness, Liveness::Alive);
        assert_eq!((record.pid, record.work, record.drain_failures), (process::id(), work, 7));
        assert_eq!((record.last_drain, &record.components), (report.last_drain.clone(), &report.components));
        // The next one replaces it, and leaves nothing else behind.
        publisher.publish(report, true).unwrap();
        assert_eq!(read(pins.path()).unwrap().1, Liveness::Stopped);
        assert_eq!(fs::read_dir(pins.path()).unwrap().count(), 1);
        publisher.withdraw();
        assert_eq!(fs::read_dir(pins.path()).unwrap().count(), 0);
    }

    #[test]
    fn long_errors_are_cut_and_the_record_still_fits() {
        let pins = tempfile::tempdir().unwrap();
        let publisher = Publisher::new(pins.path()).unwrap();
        let components = vec![component(&"\u{fc}\"".repeat(5000)); 7];
        publisher.publish(Report { components, ..Report::default() }, false).unwrap();
        let (record, _) = read(pins.path()).unwrap();
        assert_eq!(record.components.len(), 7);
        assert!(record.components[0].last_error.as_ref().unwrap().ends_with(" ..."));
    }

    #[test]
    fn what_a_killed_cloned_or_silent_daemon_left_does_not_look_alive() {
        let pins = tempfile::tempdir().unwrap();
        Publisher::new(pins.path()).unwrap().publish(Report::default(), false).unwrap();
        let (record, _) = read(pins.path()).unwrap();
        let start = record.start_ticks;
        let lives = move |_| Some(start);
        let here = |start_ticks: &'static dyn Fn(u32) -> Option<u64>| Here { start_ticks, ..Here::now() };
        let lives: &'static dyn Fn(u32) -> Option<u64> = Box::leak(Box::new(lives));
        assert_eq!(liveness(&record, &here(lives)), Liveness::Alive);
        assert_eq!(liveness(&record, &here(&|_| None)), Liveness::Dead, "killed");
        assert_eq!(liveness(&record, &here(&|_| Some(1))), Liveness::Dead, "its id went to another process");
        let other_boot = Here { boot_id: Some("another".to_owned()), ..here(lives) };
        assert_eq!(liveness(&record, &other_boot), Liveness::Dead, "another boot, or a clone");
        let later = Here { monotonic_ms: record.written_monotonic_ms + 31_000, ..here(lives) };
        assert_eq!(liveness(&record, &later), Liveness::Silent(Duration::from_secs(31)));
        // From another namespace of process ids, its own is meaningless.
        let outside = Here { pid_namespace: Some("pid:[1]".to_owned()), ..here(&|_| None) };
        assert_eq!(liveness(&record, &outside), Liveness::Alive);
        let outside_later = Here { pid_namespace: None, ..later };
        assert_eq!(liveness(&record, &outside_later), Liveness::Silent(Duration::from_secs(31)));
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        assert!(start_ticks(process::id()).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_ticks(0), None);
        let mut child = process::Command::new("true").spawn().unwrap();
        let ended = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(2));
            start_ticks(child.id()).is_none()
        });
        assert!(ended, "a process that ended but was not collected does not live");
        child.wait().unwrap();
    }
}
