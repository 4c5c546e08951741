//! Clocks, the boot's identity, and random numbers: what the kernel says about now.

use std::{fs, io::Read as _};

use anyhow::Context as _;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Wall-clock seconds since the Unix epoch.
pub fn unix_seconds() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

/// A time from a map, where seconds since the Unix epoch stand.
pub fn timestamp(unix_seconds: u64) -> Timestamp {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Nanoseconds since boot on the clock that neither steps nor stops while the machine sleeps.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The kernel's id of this boot.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn boot_id() -> anyhow::Result<[u8; 36]> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    text.trim().as_bytes().try_into().with_context(|| format!("{PATH} holds no UUID: {text:?}"))
}

/// A random number.
///
/// # Errors
/// When there is no `/dev/urandom`.
pub fn random_number() -> anyhow::Result<u64> {
    const PATH: &str = "/dev/urandom";
    let mut bytes = [0; 8];
    fs::File::open(PATH)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .with_context(|| format!("cannot read {PATH}"))?;
    Ok(u64::from_ne_bytes(bytes))
}
