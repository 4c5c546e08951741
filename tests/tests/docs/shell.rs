//! A shell on the node in which the commands of a page run one after the other, as a reader types them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use traffic_tests::process::Process;

/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends the output of a command, before its status.
const MARK: u8 = 1;

/// What a command did.
#[derive(Debug)]
pub struct Done {
    /// Its standard output and error, in their order.
    pub output: String,
    /// Its exit status.
    pub status: i32,
}

/// A running shell. It keeps its directory and its variables from command to command.
pub struct Shell {
    // Killed on drop.
    _process: Process,
    input: ChildStdin,
    output: Receiver<u8>,
    /// Where the next command is written, seen from outside.
    script: PathBuf,
    /// The same, seen from the shell.
    seen: &'static str,
}

impl Shell {
    /// Starts a shell with a command that ends in `bash` and its options.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(command: &mut Command, script: PathBuf, seen: &'static str) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = Process::spawn(command)?;
        let input = process.child().stdin.take().context("the shell has no stdin")?;
        let mut stdout = process.child().stdout.take().context("the shell has no stdout")?;
        let (sender, output) = channel();
        // Ends with the shell.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stdout.read(&mut buffer) {
                if buffer[..read].iter().any(|byte| sender.send(*byte).is_err()) {
                    return;
                }
            }
        });
        Ok(Self { _process: process, input, output, script, seen })
    }

    /// Runs a command. `$?` is the status of the one before.
    ///
    /// # Errors
    ///
    /// When the shell ends, or the command does not in time.
    pub fn run(&mut self, command: &str) -> Result<Done> {
        fs::write(&self.script, format!("{command}\n")).context("cannot write the command for the shell")?;
        let line = format!(
            "(exit ${{last:-0}}); . {} </dev/null 2>&1; last=$?; printf '\\{MARK}%s\\n' \"$last\"\n",
            self.seen
        );
        self.input.write_all(line.as_bytes()).with_context(|| format!("the shell ended before {command}"))?;
        let deadline = Instant::now() + PATIENCE;
        let output = self.until(MARK, deadline).with_context(|| format!("in {command}"))?;
        let status = self.until(b'\n', deadline).with_context(|| format!("in {command}"))?;
        let status = status.parse().with_context(|| format!("{command}: the status is {status}"))?;
        Ok(Done { output, status })
    }

    /// The output up to a byte, without it.
    fn until(&self, end: u8, deadline: Instant) -> Result<String> {
        let mut bytes = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(byte) if byte == end => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Ok(byte) => bytes.push(byte),
                Err(reason) => {
                    let what = match reason {
                        RecvTimeoutError::Timeout => "no end in time",
                        RecvTimeoutError::Disconnected => "the shell ended",
                    };
                    bail!("{what}; the output so far: {}", String::from_utf8_lossy(&bytes));
                }
            }
        }
    }
}
