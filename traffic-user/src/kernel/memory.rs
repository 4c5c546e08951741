//! Memory for maps: whether there is enough, and the limit on locked memory of old kernels.

use std::fs;

use anyhow::{Context as _, bail};
use aya::util::KernelVersion;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use traffic_common::{ClassBlock, FaultCounters, InterfaceCounters, blocks_of};

use crate::{config::Limits, kernel::sys};

/// Refuses limits for which the machine does not have the memory. Otherwise the kernel would use up what
/// there is, and its OOM killer would end some other process.
///
/// # Errors
/// When the maps would take more than is available. The error names both amounts.
pub fn check(limits: &Limits) -> anyhow::Result<()> {
    check_for(limits, sys::possible_cpus()?, available()?)
}

fn check_for(limits: &Limits, cpus: usize, available: u64) -> anyhow::Result<()> {
    let each_cpu = u64::from(limits.containers)
        * u64::from(blocks_of(limits.classes))
        * size_of::<ClassBlock>() as u64
        + u64::from(limits.interfaces) * (size_of::<InterfaceCounters>() + size_of::<FaultCounters>()) as u64;
    // Two more copies: the bases of slots that had an owner before, and what an earlier set has counted.
    let needed = each_cpu.saturating_mul(cpus as u64 + 2);
    if needed > available {
        bail!(
            "the counters would take {} MiB ({} for each of {cpus} possible CPUs and two more), and {} MiB \
             of memory are available; lower [limits] in the configuration",
            needed >> 20,
            each_cpu >> 20,
            available >> 20
        );
    }
    Ok(())
}

/// Returns the bytes that the kernel reports as available without swapping.
///
/// # Errors
/// When `/proc/meminfo` does not report them.
pub fn available() -> anyhow::Result<u64> {
    const PATH: &str = "/proc/meminfo";
    let text = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let kib: u64 =
        kib.and_then(|kib| kib.parse().ok()).with_context(|| format!("{PATH} has no MemAvailable"))?;
    Ok(kib << 10)
}

/// Raises the limit on locked memory, to which kernels before 5.11 charge maps. Later kernels charge a cgroup
/// instead, and this does nothing. If the limit cannot be raised, a warning names it, since the kernel may
/// then refuse maps.
pub fn lift_limit() {
    const CHARGED_TO_CGROUP_SINCE: u32 = 5 << 16 | 11 << 8;
    if KernelVersion::current().is_ok_and(|version| version.code() >= CHARGED_TO_CGROUP_SINCE) {
        return;
    }
    let unlimited = Rlimit { current: None, maximum: None };
    let limit = getrlimit(Resource::Memlock);
    if limit != unlimited && setrlimit(Resource::Memlock, unlimited).is_err() {
        tracing::warn!(
            "cannot raise the limit on locked memory ({} bytes), and this kernel charges maps to it; run \
             `ulimit -l unlimited` as root first, or set LimitMEMLOCK=infinity",
            limit.current.unwrap_or(u64::MAX)
        );
    }
}

/// Raises the limit on open files to at least this, for the parts of a class table. If the limit cannot be
/// raised that far, creating a part fails with an error that says so.
pub fn lift_file_limit(files: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= files) {
        return;
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(files));
    let within = Rlimit { current: Some(limit.maximum.map_or(files, |maximum| maximum.min(files))), ..limit };
    if setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum }).is_err()
        && setrlimit(Resource::Nofile, within).is_err()
    {
        tracing::debug!("cannot raise the limit on open files to {files}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_beyond_the_machines_memory_are_refused_with_figures() {
        let limits = Limits { containers: 1000, interfaces: 2000, classes: 16, addresses: 1 };
        // 1,024,000 bytes of classes and 1,216,000 of interfaces on each CPU.
        let needed = 10 * (1000 * 16 * 64 + 2000 * 608);
        assert!(check_for(&limits, 8, needed).is_ok());
        let error = check_for(&limits, 8, needed - 1).unwrap_err().to_string();
        assert!(error.contains("21 MiB (2 for each of 8 possible CPUs and two more)"), "{error}");
        assert!(available().unwrap() > 1 << 20);
    }
}
