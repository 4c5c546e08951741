//! Clocks, the boot id and random numbers, as the kernel provides them.
//!
//! Buckets and billing months are `traffic_model::calendar`.

use std::fs;

use anyhow::Context as _;
use jiff::Timestamp;
use rustix::{
    rand::{GetRandomFlags, getrandom},
    time::{ClockId, clock_gettime},
};

/// Wall-clock seconds since the Unix epoch.
pub fn unix_seconds() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

/// A time in a map, which is in seconds since the Unix epoch.
pub fn timestamp(unix_seconds: u64) -> Timestamp {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Nanoseconds since boot (`CLOCK_BOOTTIME`). This clock neither steps nor stops while the machine sleeps.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The kernel's id of this boot, a UUID in text.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn boot_id() -> anyhow::Result<[u8; 36]> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    text.trim().as_bytes().try_into().with_context(|| format!("{PATH} contains no UUID: {text:?}"))
}

/// A random number from the kernel's generator.
///
/// # Errors
/// When the kernel returns none.
pub fn random_number() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    // Up to 256 bytes are never returned in part.
    getrandom(&mut bytes, GetRandomFlags::empty()).context("cannot read random bytes from the kernel")?;
    Ok(u64::from_ne_bytes(bytes))
}
