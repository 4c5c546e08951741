//! What became of each run of an action: a file of lines that is only added to, `quota-actions.jsonl` in the state
//! directory.
//!
//! A line has the whole state of one run as JSON, so the last line of an id decides, and a line that is written twice
//! changes nothing. A line that was cut off by a crash or a full disk costs only itself. What cannot be written now is
//! kept in memory, and written with the next line.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::{files, state_file};

/// Name of the file in the state directory.
const FILE: &str = "quota-actions.jsonl";
/// Name of the file that the one process locks that runs actions.
pub(super) const LOCK: &str = "quota-actions.lock";
/// The most that is read: some hundred thousand runs.
const MOST_BYTES: u64 = 256 << 20;
/// So many lines more than runs are written anew.
const MOST_SPARE_LINES: usize = 1000;
/// How long a finished run is kept, in seconds: longer than anybody restores a ledger.
const KEPT_S: i64 = 800 * 86_400;

/// What became of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It has not run yet, or was begun and nobody saw its end.
    #[default]
    Begun,
    /// Its last attempt failed, and it is tried again.
    Failed,
    /// It reported success.
    Done,
    /// It is not run any more, see the message.
    Dropped,
}

/// A run of an action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What became of it.
    pub state: RunState,
    /// How often it was begun.
    pub attempts: u32,
    /// When it was begun last, in seconds since the Unix epoch.
    pub begun_s: i64,
    /// Why the last attempt failed, or why it was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Run {
    /// Whether it is never begun again.
    pub const fn is_over(&self) -> bool {
        matches!(self.state, RunState::Done | RunState::Dropped)
    }
}

/// Whether a process runs the actions of a state directory. Who may not read there cannot tell, and is not told of
/// a problem.
pub fn is_running(state_dir: &Path) -> bool {
    state_file::is_locked(&state_dir.join(LOCK))
}

#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    #[serde(flatten)]
    run: Run,
}

/// The runs of a state directory.
#[derive(Debug, Default)]
pub struct Journal {
    path: PathBuf,
    runs: BTreeMap<String, Run>,
    /// Lines that could not be used.
    pub damaged: usize,
    /// Whether there was no such file.
    pub is_new: bool,
    /// Bytes of the file after the last write.
    written: u64,
    /// Lines of the file.
    lines: usize,
    /// Ids whose state is not in the file yet.
    unwritten: Vec<String>,
    lock: Option<File>,
}

impl Journal {
    /// Its path in a state directory.
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(FILE)
    }

    /// Reads the journal of a state directory, to look at.
    ///
    /// # Errors
    /// When there is something else than a file of sane size, or it cannot be read.
    pub fn read(state_dir: &Path) -> anyhow::Result<Self> {
        let path = Self::path(state_dir);
        let bytes = state_file::read(&path, MOST_BYTES)?;
        let is_new = bytes.is_none();
        let (runs, damaged, _) = parse(&bytes.unwrap_or_default());
        Ok(Self { path, runs, damaged, is_new, ..Self::default() })
    }

    /// Opens it to run actions. One process does so at a time.
    ///
    /// # Errors
    /// As [`Self::read`], and when another process runs actions, or the directory cannot be written.
    pub fn open(state_dir: &Path, now_s: i64) -> anyhow::Result<Self> {
        let lock = state_dir.join(LOCK);
        let locked =
            state_file::try_lock_file(&lock).with_context(|| format!("cannot lock {}", lock.display()))?;
        let Some(locked) = locked else {
            bail!("another `trafctl quota run` runs the actions of {}; stop it first", state_dir.display());
        };
        let path = state_dir.join(FILE);
        let bytes = state_file::read(&path, MOST_BYTES)?;
        let is_new = bytes.is_none();
        let bytes = bytes.unwrap_or_default();
        let (mut runs, damaged, lines) = parse(&bytes);
        let all = runs.len();
        runs.retain(|_, run| !run.is_over() || now_s.saturating_sub(run.begun_s) < KEPT_S);
        let mut journal = Self {
            path,
            runs,
            damaged,
            is_new,
            written: bytes.len() as u64,
            lines,
            unwritten: Vec::new(),
            lock: Some(locked),
        };
        if journal.has_spare_lines() || all > journal.runs.len() + MOST_SPARE_LINES {
            journal.write_anew()?;
        }
        Ok(journal)
    }

    /// Has the file exist from now on: without it, everything in force would run again.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.is_new) && self.written == 0 { self.write_anew() } else { Ok(()) }
    }

    /// Shows that somebody looks for actions to run (see [`super::LastLooks`]). A failure is of no consequence, but
    /// that nobody seems to look.
    pub fn show_look(&self) {
        if let Some(lock) = &self.lock
            && let Err(error) = lock.set_modified(std::time::SystemTime::now())
        {
            tracing::debug!("cannot set the time of the lock of actions: {error}");
        }
    }

    /// A run; `None` if nothing is known of it.
    pub fn run(&self, id: &str) -> Option<&Run> {
        self.runs.get(id)
    }

    /// Notes what became of a run.
    ///
    /// # Errors
    /// When the file cannot be written. It is noted in memory, and written with the next one.
    pub fn note(&mut self, id: &str, run: Run) -> anyhow::Result<()> {
        self.runs.insert(id.to_owned(), run);
        if !self.unwritten.iter().any(|other| other == id) {
            self.unwritten.push(id.to_owned());
        }
        self.write()
    }

    /// Writes what could not be written before.
    ///
    /// # Errors
    /// When the file still cannot be written.
    pub fn write(&mut self) -> anyhow::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        // Removed, or an older copy: without the other runs, everything would run again after a restart.
        if fs::symlink_metadata(&self.path).map_or(0, |file| file.len()) < self.written {
            return self.write_anew();
        }
        if self.has_spare_lines() {
            return self.write_anew();
        }
        let lines = self.lines(self.unwritten.iter());
        let written = append(&self.path, &lines);
        self.written = written.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.lines += self.unwritten.len();
        self.unwritten.clear();
        Ok(())
    }

    fn has_spare_lines(&self) -> bool {
        self.lines > self.runs.len() + MOST_SPARE_LINES
    }

    fn write_anew(&mut self) -> anyhow::Result<()> {
        let lines = self.lines(self.runs.keys());
        state_file::replace(&self.path, &lines, MOST_BYTES)?;
        (self.written, self.lines) = (lines.len() as u64, self.runs.len());
        self.unwritten.clear();
        Ok(())
    }

    fn lines<'i>(&self, ids: impl Iterator<Item = &'i String>) -> Vec<u8> {
        let mut lines = Vec::new();
        for id in ids {
            if let Some(run) = self.runs.get(id) {
                let line = Line { id: id.clone(), run: run.clone() };
                lines.extend(serde_json::to_vec(&line).unwrap_or_default());
                lines.push(b'\n');
            }
        }
        lines
    }
}

/// The runs of a file, the number of lines that are none, and that of all lines.
fn parse(bytes: &[u8]) -> (BTreeMap<String, Run>, usize, usize) {
    let (mut runs, mut damaged, mut lines) = (BTreeMap::new(), 0, 0);
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        lines += 1;
        match serde_json::from_slice::<Line>(line) {
            Ok(line) => drop(runs.insert(line.id, line.run)),
            Err(_) => damaged += 1,
        }
    }
    (runs, damaged, lines)
}

/// Adds whole lines to a file, which is on the disk afterwards. Returns its length.
fn append(path: &Path, lines: &[u8]) -> io::Result<u64> {
    let mut file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    files::require_regular(&file.metadata()?.file_type())?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    // The rest of a line that was cut off is not the begin of this one.
    let mut bytes = if last == [b'\n'] { Vec::new() } else { vec![b'\n'] };
    bytes.extend_from_slice(lines);
    file.write_all(&bytes)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(state: RunState, attempts: u32) -> Run {
        Run { state, attempts, begun_s: 1000 + i64::from(attempts), message: None }
    }

    fn history(directory: &Path) -> Vec<(String, Run)> {
        let mut journal = Journal::open(directory, 2000).unwrap();
        let mut all = Vec::new();
        for number in 0..6_u32 {
            for state in [RunState::Begun, RunState::Failed, RunState::Begun, RunState::Done] {
                let (id, run) = (format!("l1/traffic/{number}"), run(state, number + 1));
                journal.note(&id, run.clone()).unwrap();
                all.push((id, run));
            }
        }
        all
    }

    #[test]
    fn whatever_a_crash_cuts_off_only_the_last_line_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let all = history(directory.path());
        let path = directory.path().join(FILE);
        let bytes = fs::read(&path).unwrap();
        for length in 0..=bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let whole = bytes[..length].iter().filter(|byte| **byte == b'\n').count();
            let mut expected: BTreeMap<String, Run> = all[..whole].iter().cloned().collect();
            // A line without its newline is whole, or not there.
            if serde_json::from_slice::<Line>(bytes[..length].rsplit(|b| *b == b'\n').next().unwrap()).is_ok()
            {
                expected.insert(all[whole].0.clone(), all[whole].1.clone());
            }
            let mut journal = Journal::open(directory.path(), 2000).unwrap();
            assert_eq!(journal.runs, expected, "{length} bytes");
            // Whoever goes on writes a line of its own.
            journal.note("later", run(RunState::Done, 9)).unwrap();
            expected.insert("later".to_owned(), run(RunState::Done, 9));
            drop(journal);
            assert_eq!(Journal::read(directory.path()).unwrap().runs, expected, "{length} bytes");
        }
    }

    #[test]
    fn one_process_runs_actions_and_others_may_look() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path(), 0).unwrap();
        assert!(journal.is_new);
        journal.note("a", run(RunState::Failed, 3)).unwrap();
        assert!(is_running(directory.path()));
        let error = Journal::open(directory.path(), 0).unwrap_err();
        assert!(error.to_string().contains("another `trafctl quota run`"), "{error}");
        assert_eq!(Journal::read(directory.path()).unwrap().run("a").unwrap().attempts, 3);
        drop(journal);
        assert!(!is_running(directory.path()));
        assert!(!is_running(&directory.path().join("nowhere")));
    }

    #[test]
    fn what_cannot_be_written_is_written_later_and_a_removed_file_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut journal = Journal::open(directory.path(), 0).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(journal.note("a", run(RunState::Done, 1)).is_err());
        assert_eq!(journal.run("a").unwrap().state, RunState::Done);
        fs::remove_dir(&path).unwrap();
        journal.note("b", run(RunState::Begun, 2)).unwrap();
        let read = || Journal::read(directory.path()).unwrap().runs.into_keys().collect::<Vec<_>>();
        assert_eq!(read(), ["a", "b"]);
        fs::remove_file(&path).unwrap();
        journal.note("c", run(RunState::Begun, 2)).unwrap();
        assert_eq!(read(), ["a", "b", "c"]);
        // A link that somebody put there is not followed.
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "x".repeat(10_000)).unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        let _either = journal.note("d", run(RunState::Begun, 2));
        assert_eq!(fs::read(&elsewhere).unwrap().len(), 10_000);
    }

    #[test]
    fn many_lines_are_written_anew_and_old_runs_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut text = String::new();
        for number in 0..3000 {
            text += &format!("{{\"id\":\"a\",\"state\":\"begun\",\"attempts\":{number},\"begun_s\":7}}\n");
        }
        text += "{\"id\":\"old\",\"state\":\"done\",\"attempts\":1,\"begun_s\":7}\ngarbage\n";
        fs::write(&path, &text).unwrap();
        let journal = Journal::open(directory.path(), KEPT_S + 8).unwrap();
        assert_eq!((journal.damaged, journal.runs.len()), (1, 1), "what is not done stays");
        assert_eq!(journal.run("a").unwrap().attempts, 2999);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    }
}
