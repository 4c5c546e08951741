//! Packets that pass or end while process 1 is interrupted.
//!
//! The kernels of some virtual machines run no tracing program while the current process is number 1, so the drop
//! and path programs miss what interrupts of it send or drop. The kernel's own tracing sees these packets: it tells
//! such a miss from a fault of the programs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{namespace::PREFIX, process::run_ok};

/// Where the kernel's tracing is.
pub(crate) const INSTANCES: &str = "/sys/kernel/tracing/instances";
/// The tracepoints of which a program may miss something.
const EVENTS: [&str; 2] = ["net/net_dev_start_xmit", "skb/kfree_skb"];

/// Notes the packets of the whole machine that are sent or dropped in interrupts of process 1.
#[derive(Debug)]
pub struct InitWitness {
    instance: PathBuf,
}

impl InitWitness {
    /// Begins to note.
    ///
    /// # Errors
    /// When the kernel has no tracing, or a file of it cannot be written.
    pub fn start(name: &str) -> Result<Self> {
        if !Path::new(INSTANCES).exists() {
            run_ok(Command::new("mount").args(["-t", "tracefs", "tracefs", "/sys/kernel/tracing"]))?;
        }
        let instance = Path::new(INSTANCES).join(format!("{PREFIX}-{}-{name}", std::process::id()));
        fs::create_dir(&instance).with_context(|| format!("cannot create {}", instance.display()))?;
        let witness = Self { instance };
        let threads = threads()?;
        let filter = threads.iter().map(|id| format!("common_pid=={id}")).collect::<Vec<_>>().join("||");
        for event in EVENTS {
            witness.write(&format!("events/{event}/filter"), &filter)?;
            witness.write(&format!("events/{event}/enable"), "1")?;
        }
        Ok(witness)
    }

    /// How many packets there were.
    ///
    /// # Errors
    /// When the trace cannot be read.
    pub fn packets(&self) -> Result<usize> {
        let path = self.instance.join("trace");
        let trace = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(trace.lines().filter(|line| !line.starts_with('#')).count())
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.instance.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for InitWitness {
    fn drop(&mut self) {
        // A drop cannot report an error, and the next run sweeps.
        let _ = fs::remove_dir(&self.instance);
    }
}

/// The threads of process 1.
fn threads() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc/1/task").context("cannot list the threads of process 1")?;
    let ids: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    ensure!(!ids.is_empty(), "process 1 has no threads");
    Ok(ids)
}
