//! Commands whose failure is an error with all their output, and children that end with their guard.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Runs a command to its end and returns its stdout.
///
/// # Errors
///
/// When it does not start or does not succeed. The error contains the command line and all output.
pub fn run_ok(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", line(command)))?;
    finish(command, output.status, &output.stdout, &output.stderr)
}

/// Runs a command to its end with a text as its stdin; see [`run_ok`].
///
/// # Errors
///
/// See [`run_ok`].
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ends before it has read everything gives the reason on stderr, which is more useful
        // than EPIPE.
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {}", line(command)))?;
    finish(command, output.status, &output.stdout, &output.stderr)
}

fn finish(command: &Command, status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Result<String> {
    if !status.success() {
        bail!(
            "{} failed ({status})\n{}{}",
            line(command),
            String::from_utf8_lossy(stdout),
            String::from_utf8_lossy(stderr)
        );
    }
    Ok(String::from_utf8_lossy(stdout).into_owned())
}

/// The command line for messages.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The children of a process; empty when it has ended.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let listed =
        std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// A child process that is killed and reaped on drop, so that a failed test leaves no process behind.
#[derive(Debug)]
pub struct Process {
    child: Child,
    line: String,
}

impl Process {
    /// Starts a command with the standard streams that the caller has set.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let line = line(command);
        let child = command.spawn().with_context(|| format!("cannot start {line}"))?;
        Ok(Self { child, line })
    }

    /// The process, for its streams.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// When the process has already been reaped.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("invalid process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.line))
    }

    /// Waits for the end of the process, at most for `limit`.
    ///
    /// # Errors
    ///
    /// When it still runs after that time.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} is still running after {limit:?}", self.line);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends SIGTERM, as a service manager does, and waits for the end.
    ///
    /// # Errors
    ///
    /// See [`Process::wait`].
    pub fn terminate(mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have been reaped already; then both calls do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
