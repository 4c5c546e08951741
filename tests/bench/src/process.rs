//! Timing other programs.

use std::{
    io,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use traffic_tests::process::run_ok;

/// What a program took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// From start to end, in seconds.
    pub wall: f64,
    /// On a CPU, its own and the kernel's for it, in seconds.
    pub cpu: f64,
}

/// Runs a program to its end, its output thrown away.
pub fn timed(command: &mut Command) -> Result<Taken> {
    let cpu_before = children_cpu()?;
    let start = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    let wall = start.elapsed().as_secs_f64();
    if !status.success() {
        // Once more, for what it has to say.
        run_ok(command)?;
        bail!("{command:?} failed ({status}), and succeeded when it was repeated");
    }
    Ok(Taken { wall, cpu: children_cpu()? - cpu_before })
}

/// CPU time of the children that have ended, in seconds.
fn children_cpu() -> Result<f64> {
    // SAFETY: plain integers, of which zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to the structure and no further.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error()).context("getrusage");
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}
