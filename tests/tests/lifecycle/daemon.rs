//! `trafctl run`: following interfaces, dying and coming back.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use traffic_tests::Lab;
use traffic_tests::process::Process;

use crate::node::{PATIENCE, eventually};

/// A running `trafctl run` and what it has said.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    said: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts it; it may not have attached anything yet.
    pub fn spawn(lab: &Lab) -> Result<Self> {
        let mut process = Process::spawn(lab.trafctl(&["run"])?.stdin(Stdio::null()).stderr(Stdio::piped()))?;
        let stderr = process.child().stderr.take().context("its standard error")?;
        let said = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&said);
        // Read as it comes, so that it is never held up by a full pipe; ends with the process.
        std::thread::spawn(move || {
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
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut daemon = Self::spawn(lab)?;
        daemon.ready()?;
        Ok(daemon)
    }

    /// Waits until it has attached what there is.
    pub fn ready(&mut self) -> Result<()> {
        self.says("following interfaces")
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        self.said.lock().map(|said| said.clone()).unwrap_or_default()
    }

    /// Waits until it has said something.
    pub fn says(&mut self, text: &str) -> Result<()> {
        eventually(text, || {
            if let Some(status) = self.process.child().try_wait()? {
                anyhow::bail!("the daemon ended ({status}): {}", self.said());
            }
            Ok(self.said().contains(text))
        })
        .with_context(|| self.said())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Kills it as a crash or the kernel's memory killer would.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.process.wait(PATIENCE).map(drop)
    }

    /// Ends it as a service manager does: it must say that all is well.
    pub fn end(self) -> Result<()> {
        let said = Arc::clone(&self.said);
        let status = self.process.terminate(PATIENCE)?;
        let said = said.lock().map(|said| said.clone()).unwrap_or_default();
        ensure!(status.code() == Some(0), "{status}: {said}");
        ensure!(!said.contains("ERROR"), "{said}");
        Ok(())
    }
}
