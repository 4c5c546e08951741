//! What this process may do: the capabilities that counting takes, a word about those it lacks, and whom its files are
//! for.
//!
//! Three are enough for everything: CAP_BPF for maps and programs, CAP_NET_ADMIN for hooks and netlink, CAP_PERFMON for
//! a program that reads the kernel's `sk_buff`. CAP_SYS_ADMIN stands for the first and the last as well.

use std::fs;

use anyhow::{Context as _, bail};
use rustix::{fs::Mode, process::umask};

/// Bits of `linux/capability.h`.
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// Refuses to begin without what is needed in the end.
///
/// # Errors
/// InterfaceRules every capability that is missing.
pub fn require() -> anyhow::Result<()> {
    let missing = missing_of(effective()?);
    if !missing.is_empty() {
        bail!(
            "this needs {}, which this process lacks: run it as root, or give a service what trafctl.service has",
            missing.join(" and ")
        );
    }
    Ok(())
}

/// What to say besides an error that came of a refusal by the kernel, when a capability is missing.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    let text = format!("{error:#}");
    if !["Operation not permitted", "Permission denied"].iter().any(|refusal| text.contains(refusal)) {
        return None;
    }
    let missing = missing_of(effective().ok()?);
    (!missing.is_empty()).then(|| format!("this process lacks {}", missing.join(" and ")))
}

/// Whatever is written from here on (the ledger with what SQLite keeps beside it, addresses, pins, backups) says who
/// talked how much: it is for owner and group at most, also where the shell's mask is laxer.
pub fn tighten_umask() {
    const NOTHING_FOR_OTHERS: Mode = Mode::from_raw_mode(0o027);
    let mask = umask(NOTHING_FOR_OTHERS);
    umask(mask | NOTHING_FOR_OTHERS);
}

fn effective() -> anyhow::Result<u64> {
    let path = "/proc/self/status";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    parse(&text).with_context(|| format!("{path} tells no capabilities"))
}

fn parse(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

fn missing_of(capabilities: u64) -> Vec<&'static str> {
    [
        ("CAP_BPF", CAP_BPF | CAP_SYS_ADMIN),
        ("CAP_NET_ADMIN", CAP_NET_ADMIN),
        ("CAP_PERFMON", CAP_PERFMON | CAP_SYS_ADMIN),
    ]
    .into_iter()
    .filter(|&(_, any_of)| capabilities & any_of == 0)
    .map(|(name, _)| name)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_named() {
        let set = |line: &str| missing_of(parse(&format!("Name:\tx\n{line}\n")).unwrap());
        assert_eq!(set("CapEff:\t000000c000001000"), [""; 0]);
        assert_eq!(set("CapEff:\t0000000000201000"), [""; 0], "CAP_SYS_ADMIN stands for two");
        assert_eq!(set("CapEff:\t000000c000000000"), ["CAP_NET_ADMIN"]);
        assert_eq!(set("CapEff:\t0000008000001000"), ["CAP_PERFMON"]);
        assert_eq!(set("CapEff:\t0000000000000000"), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(parse("CapPrm:\t1\n"), None);
    }

    #[test]
    fn only_a_refusal_asks_for_a_hint() {
        assert_eq!(hint(&anyhow::anyhow!("no such file")), None);
    }
}
