//! `trafctl run` as a service manager uses it: start, wait until ready, signal, kill.
//!
//! The daemon reacts to events and, as a safety net, also lists everything every ten seconds. A test that
//! waits that long cannot distinguish the two, so the daemon of a test runs without the listings unless the
//! test asks for them.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::Lab;
use crate::check::{PATIENCE, eventually};
use crate::process::Process;

/// How often the daemon lists all interfaces and reads all container files without an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resync {
    /// Never: only events have an effect.
    Off,
    /// At this interval.
    Every(Duration),
    /// As on a node: every ten seconds.
    AsShipped,
}

impl Resync {
    fn configure(self, command: &mut Command) {
        let value = match self {
            Self::Off => "off".to_owned(),
            Self::Every(interval) => format!("{}ms", interval.as_millis()),
            Self::AsShipped => return,
        };
        command.env("TRAFCTL_TEST_RESYNC", value);
    }
}

/// A running `trafctl run` and its log.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    log: Arc<Mutex<String>>,
    /// Ends when the log is complete.
    reader: JoinHandle<()>,
}

impl Daemon {
    /// Starts the daemon without resync and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it ends early or is not ready in time; the error contains its log.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_with(lab, Resync::Off)
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Errors
    ///
    /// See [`Daemon::start`].
    pub fn start_with(lab: &Lab, resync: Resync) -> Result<Self> {
        let mut daemon = Self::spawn(&mut lab.trafctl(&["run"])?, resync)?;
        if let Err(error) = daemon.ready() {
            // Killed, it could leave a switch of the kernel set that it uses while it attaches.
            let _ = daemon.stop_after_errors();
            return Err(error);
        }
        Ok(daemon)
    }

    /// Starts a command that ends in `trafctl run` and its options. Does not wait.
    ///
    /// # Errors
    ///
    /// When the command cannot be started.
    pub fn spawn(command: &mut Command, resync: Resync) -> Result<Self> {
        resync.configure(command);
        // `settled` waits for a debug line.
        command.arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::spawn(command)?;
        let stderr = process.child().stderr.take().context("take the daemon's stderr")?;
        let log = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&log);
        // Reads all the time, so that a full pipe never blocks the daemon. Ends with the process.
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
                if let Ok(mut log) = to.lock() {
                    *log += &line;
                    *log += "\n";
                }
            }
        });
        Ok(Self { process, log, reader })
    }

    /// Waits until the daemon has attached every interface that exists.
    ///
    /// # Errors
    ///
    /// See [`Daemon::start`].
    pub fn ready(&mut self) -> Result<()> {
        self.logs("following interfaces")
    }

    /// Waits until the start is complete. The daemon reads all files once more after it is ready, and lists
    /// all interfaces with them. A test of events must wait for that, or the listing may do what the event
    /// should.
    ///
    /// # Errors
    ///
    /// See [`Daemon::start`].
    pub fn settled(&mut self) -> Result<()> {
        self.logs("changed files were read")
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }

    /// Waits until the log contains a text.
    ///
    /// # Errors
    ///
    /// When the daemon ends or the text does not appear in time; the error contains the log.
    pub fn logs(&mut self, text: &str) -> Result<()> {
        eventually(text, || {
            // Both before the log is searched, so that the last line of a daemon that ends is not overlooked.
            let is_complete = self.reader.is_finished();
            let ended = self.process.child().try_wait()?;
            match ended {
                _ if self.log().contains(text) => Ok(true),
                Some(status) if is_complete => bail!("the daemon ended ({status})"),
                _ => Ok(false),
            }
        })
        .with_context(|| self.log())
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// When the process has already been reaped.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits until the process ends.
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.process.wait(PATIENCE)
    }

    /// The process id of the command that was started.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills the daemon, as the kernel does when memory runs out.
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.process.wait(PATIENCE).map(drop)
    }

    /// Stops the daemon as a service manager does, and checks that it logged no error.
    ///
    /// # Errors
    ///
    /// When it does not end in time or with status 0, or its log contains an error.
    pub fn stop(self) -> Result<()> {
        let log = Arc::clone(&self.log);
        self.stop_after_errors()?;
        let log = log.lock().map(|log| log.clone()).unwrap_or_default();
        ensure!(!log.contains("ERROR"), "{log}");
        Ok(())
    }

    /// Stops the daemon of a test that provoked errors.
    ///
    /// # Errors
    ///
    /// When it does not end in time or with status 0.
    pub fn stop_after_errors(self) -> Result<()> {
        let status = self.process.terminate(PATIENCE)?;
        ensure!(status.code() == Some(0), "{status}");
        Ok(())
    }
}
