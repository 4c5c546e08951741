//! `trafctl run` as a service manager sees it: started, awaited, signalled, killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::Lab;
use crate::check::{PATIENCE, eventually};
use crate::process::Process;

/// A running `trafctl run` and what it has said.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    said: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts it; it may not have attached anything yet.
    ///
    /// # Errors
    ///
    /// When it ends or does not come to that in time, with what it said.
    pub fn spawn(lab: &Lab) -> Result<Self> {
        Self::spawn_with(&mut lab.trafctl(&["run"])?)
    }

    /// Starts it by a command line of one's own.
    ///
    /// # Errors
    ///
    /// When it ends or does not come to that in time, with what it said.
    pub fn spawn_with(command: &mut Command) -> Result<Self> {
        let mut process =
            Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let stderr = process.child().stderr.take().context("its standard error")?;
        let said = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&said);
        // Read as it comes, so that it is never held up by a full pipe; ends with the process.
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
                if let Ok(mut said) = to.lock() {
                    *said += &line;
                    *said += "\n";
                }
            }
        });
        Ok(Self { process, said })
    }

    /// Starts it and waits until it has attached what there is.
    ///
    /// # Errors
    ///
    /// When it ends or does not come to that in time, with what it said.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut daemon = Self::spawn(lab)?;
        daemon.ready()?;
        Ok(daemon)
    }

    /// Waits until it has attached what there is.
    ///
    /// # Errors
    ///
    /// When it ends or does not come to that in time, with what it said.
    pub fn ready(&mut self) -> Result<()> {
        self.says("following interfaces")
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        self.said.lock().map(|said| said.clone()).unwrap_or_default()
    }

    /// Waits until it has said something.
    ///
    /// # Errors
    ///
    /// When it ends or does not come to that in time, with what it said.
    pub fn says(&mut self, text: &str) -> Result<()> {
        eventually(text, || {
            if let Some(status) = self.process.child().try_wait()? {
                bail!("the daemon ended ({status}): {}", self.said());
            }
            Ok(self.said().contains(text))
        })
        .with_context(|| self.said())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// When it ends or does not come to that in time, with what it said.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it ends or does not come to that in time, with what it said.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.process.wait(PATIENCE)
    }

    /// The process id: that of `trafctl` itself.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it as a crash or the kernel's memory killer would.
    ///
    /// # Errors
    ///
    /// When it ends or does not come to that in time, with what it said.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.process.wait(PATIENCE).map(drop)
    }

    /// Ends it as a service manager does: it must say that all is well.
    ///
    /// # Errors
    ///
    /// When it ends or does not come to that in time, with what it said.
    pub fn end(self) -> Result<()> {
        let said = Arc::clone(&self.said);
        self.end_after_errors()?;
        let said = said.lock().map(|said| said.clone()).unwrap_or_default();
        ensure!(!said.contains("ERROR"), "{said}");
        Ok(())
    }

    /// Ends it as a service manager does, where a test has given it cause to complain.
    ///
    /// # Errors
    ///
    /// When it ends or does not come to that in time, with what it said.
    pub fn end_after_errors(self) -> Result<()> {
        let status = self.process.terminate(PATIENCE)?;
        ensure!(status.code() == Some(0), "{status}");
        Ok(())
    }
}
