//! The capabilities that trafctl needs, and the file mode mask of everything it writes.
//!
//! Three capabilities are enough: CAP_BPF for maps and programs, CAP_NET_ADMIN for hooks and netlink, and
//! CAP_PERFMON for a program that reads the kernel's `sk_buff`. CAP_SYS_ADMIN includes the first and the
//! last.

use anyhow::{Context as _, bail};
use rustix::{
    fs::Mode,
    process::umask,
    thread::{CapabilitySet, capabilities},
};

/// Fails before anything is changed if a needed capability is missing.
///
/// # Errors
/// When a capability is missing. The message names every one.
pub fn require() -> anyhow::Result<()> {
    let missing = missing_of(effective()?);
    if !missing.is_empty() {
        bail!(
            "this process lacks {}; run it as root, or give a service the capabilities in trafctl.service",
            missing.join(" and ")
        );
    }
    Ok(())
}

/// The missing capabilities, as an addition to an error that the kernel caused by a refusal.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    let text = format!("{error:#}");
    if !["Operation not permitted", "Permission denied"].iter().any(|refusal| text.contains(refusal)) {
        return None;
    }
    let missing = missing_of(effective().ok()?);
    (!missing.is_empty()).then(|| format!("this process lacks {}", missing.join(" and ")))
}

/// Tightens the mask so that others cannot read what is written from here on: the ledger and SQLite's files
/// beside it, address lists, pins, backups. These files show who communicated how much.
pub fn tighten_umask() {
    const NOTHING_FOR_OTHERS: Mode = Mode::from_raw_mode(0o027);
    let mask = umask(NOTHING_FOR_OTHERS);
    umask(mask | NOTHING_FOR_OTHERS);
}

fn effective() -> anyhow::Result<CapabilitySet> {
    Ok(capabilities(None).context("cannot read the capabilities of this process")?.effective)
}

fn missing_of(effective: CapabilitySet) -> Vec<&'static str> {
    [
        ("CAP_BPF", CapabilitySet::BPF | CapabilitySet::SYS_ADMIN),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_PERFMON", CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN),
    ]
    .into_iter()
    .filter(|&(_, any_of)| !effective.intersects(any_of))
    .map(|(name, _)| name)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_named() {
        // As `CapEff:` in /proc/self/status shows them.
        let missing = |bits: u64| missing_of(CapabilitySet::from_bits_retain(bits));
        assert_eq!(missing(0x0000_00c0_0000_1000), [""; 0]);
        assert_eq!(missing(0x0000_0000_0020_1000), [""; 0], "CAP_SYS_ADMIN includes two");
        assert_eq!(missing(0x0000_00c0_0000_0000), ["CAP_NET_ADMIN"]);
        assert_eq!(missing(0x0000_0080_0000_1000), ["CAP_PERFMON"]);
        assert_eq!(missing(0), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
    }

    #[test]
    fn the_effective_set_is_that_of_proc() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let bits = u64::from_str_radix(line.trim(), 16).unwrap();
        assert_eq!(effective().unwrap().bits(), bits);
    }

    #[test]
    fn only_a_refusal_causes_a_hint() {
        assert_eq!(hint(&anyhow::anyhow!("no such file")), None);
    }
}
