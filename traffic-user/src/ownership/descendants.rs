//! Ends a command together with everything it started.
//!
//! A process can leave the command's process group and session, and lose its parents. So this process adopts
//! orphans: whatever the command started stays below this process, and becomes its child when the parents in
//! between end. Killing the children, again and again until there are none, therefore reaches all of them. Only
//! children are killed, because the id of a child that was not collected cannot belong to another process.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper, waitpid,
};

/// How long killed processes may take to end.
const PATIENCE: Duration = Duration::from_millis(800);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(1);

/// A command and everything it starts, and nothing else: this process has no other children. Its drop kills
/// them.
#[derive(Debug)]
pub(super) struct Family {
    /// The command itself, which is not collected here; its owner does that.
    first: Option<Pid>,
    /// The process group of the command.
    group: Option<Pid>,
    is_ended: bool,
}

impl Family {
    /// Adopts orphans from here on. Where the kernel refuses that, only the process group is killed.
    pub fn adopting() -> Self {
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            tracing::debug!("cannot adopt orphans of the identity command: {error}");
        }
        Self { first: None, group: None, is_ended: false }
    }

    /// The command runs, as the leader of its process group.
    pub fn began(&mut self, pid: Option<u32>) {
        self.first = pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
        self.group = self.first;
    }

    /// The command ended and was collected, so its id may go to another process.
    pub fn first_has_ended(&mut self) {
        self.first = None;
        self.group = None;
    }

    /// Kills everything that is left. Returns how many processes did not end.
    pub fn end(mut self) -> usize {
        self.kill_all()
    }

    fn kill_all(&mut self) -> usize {
        if std::mem::replace(&mut self.is_ended, true) {
            return 0;
        }
        if let Some(group) = self.group {
            // It fails when the group has no process any more, which is what is wanted.
            let _gone = kill_process_group(group, Signal::KILL);
        }
        let deadline = Instant::now() + PATIENCE;
        let mut quiet_rounds = 0;
        loop {
            let left = self.kill_children();
            // A list that is read while processes end may lack one of them.
            quiet_rounds = if left == 0 { quiet_rounds + 1 } else { 0 };
            if quiet_rounds == 2 || Instant::now() >= deadline {
                return left;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Kills and collects the present children. Returns how many of them live.
    fn kill_children(&self) -> usize {
        let mut left = 0;
        for pid in children() {
            // They may end by themselves first.
            let _gone = kill_process(pid, Signal::KILL);
            let has_ended = if Some(pid) == self.first {
                is_zombie(pid)
            } else {
                !matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None))
            };
            left += usize::from(!has_ended);
        }
        left
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// The children of this process, those of all its threads.
fn children() -> Vec<Pid> {
    let mut found = Vec::new();
    for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(pids) => found.extend(pids.split_ascii_whitespace().filter_map(parse)),
            // The thread has ended, or the kernel has no such file.
            Err(_) if thread.path().exists() => return children_in_proc(),
            Err(_) => {}
        }
    }
    found
}

/// The same from the list of all processes.
fn children_in_proc() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| parse(entry.file_name().to_str()?))
        .filter(|&pid| stat(pid).is_some_and(|(_, parent)| parent == own))
        .collect()
}

fn parse(pid: &str) -> Option<Pid> {
    Pid::from_raw(pid.parse().ok()?)
}

fn is_zombie(pid: Pid) -> bool {
    stat(pid).is_none_or(|(state, _)| state == "Z")
}

/// The state and the parent of a process.
fn stat(pid: Pid) -> Option<(String, String)> {
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name in brackets may contain anything.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = String::from_utf8_lossy(&stat[end + 1..]).into_owned();
    let mut fields = rest.split_ascii_whitespace().map(str::to_owned);
    Some((fields.next()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn both_lists_have_the_children() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(children().contains(&pid) && children_in_proc().contains(&pid));
        assert!(!is_zombie(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children_in_proc().contains(&pid));
        assert!(is_zombie(pid));
    }
}
