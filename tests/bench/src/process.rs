//! Measures the time of other programs.

use std::{
    io::{self, Read as _},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use traffic_tests::process::{Process, run_ok};

/// The time of a program.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Elapsed time in seconds.
    pub wall: f64,
    /// CPU time in seconds, of the program and of the kernel for it.
    pub cpu: f64,
}

/// Runs a program to its end and discards its output.
pub fn timed(command: &mut Command) -> Result<Taken> {
    timed_ending(command, &[0])
}

/// The same for a program that may end with any of these statuses.
pub fn timed_ending(command: &mut Command, statuses: &[i32]) -> Result<Taken> {
    let cpu_before = children_cpu()?;
    let start = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    let wall = start.elapsed().as_secs_f64();
    if !status.code().is_some_and(|code| statuses.contains(&code)) {
        // Repeated to get its output for the error.
        run_ok(command)?;
        bail!("{command:?} failed ({status}), and succeeded when it was repeated");
    }
    Ok(Taken { wall, cpu: children_cpu()? - cpu_before })
}

/// CPU time in seconds of all children that have ended.
fn children_cpu() -> Result<f64> {
    // SAFETY: the structure has only integers, which may be zero.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes only within the structure.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error()).context("getrusage");
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

/// A program that was watched.
#[derive(Debug)]
pub struct Watched {
    /// Its time.
    pub taken: Taken,
    /// The most memory that it had at any time, in MB.
    pub peak_mb: f64,
    /// What it wrote.
    pub stdout: String,
}

/// How often the memory of a program is looked at. The kernel keeps the peak, so only the end must not be missed.
const LOOK: Duration = Duration::from_millis(20);

/// Runs a program to its end, and watches its memory. What it writes must be short.
pub fn watched(command: &mut Command) -> Result<Watched> {
    let cpu_before = children_cpu()?;
    let start = Instant::now();
    let mut process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let (id, mut peak_mb) = (process.id(), 0.0);
    let status = loop {
        // Of a process that is ending, nothing is known.
        peak_mb = peak_memory_mb(id).unwrap_or(0.0_f64).max(peak_mb);
        if let Some(status) = process.child().try_wait()? {
            break status;
        }
        sleep(LOOK);
    };
    let wall = start.elapsed().as_secs_f64();
    let mut stdout = String::new();
    process.child().stdout.take().context("its standard output")?.read_to_string(&mut stdout)?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(Watched { taken: Taken { wall, cpu: children_cpu()? - cpu_before }, peak_mb, stdout })
}

/// The most memory that a process has had, in MB.
fn peak_memory_mb(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// The CPU time of a running process in seconds, with that of the kernel for it.
pub fn cpu(process: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).context("the process has ended")?;
    let after_name = text.rsplit_once(") ").context("no name in the statistics of a process")?.1;
    let field = |at: usize| after_name.split(' ').nth(at).and_then(|ticks| ticks.parse::<f64>().ok());
    // User and system time, in ticks of which a second has 100.
    Ok((field(11).unwrap_or_default() + field(12).unwrap_or_default()) / 100.0)
}
