//! Clocks, the boot id and random numbers, as the kernel provides them.
//!
//! Buckets and billing months are `traffic_model::calendar`.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use jiff::Timestamp;
use rustix::{
    rand::{GetRandomFlags, getrandom},
    time::{ClockId, clock_gettime},
};

/// The wall clock.
///
/// # Errors
/// When the clock shows a year after 9999 or before -9999. (`Timestamp::now` would panic.)
pub fn now() -> anyhow::Result<Timestamp> {
    at(SystemTime::now())
}

fn at(wall: SystemTime) -> anyhow::Result<Timestamp> {
    Timestamp::try_from(wall).ok().context(
        "the system clock is outside the years -9999 to 9999; set it. Counting continues in the kernel",
    )
}

/// The wall clock, or the end of the range that it is beyond. For what only shows a time.
pub fn now_or_end() -> Timestamp {
    now().unwrap_or_else(|_| match SystemTime::now() < SystemTime::UNIX_EPOCH {
        true => Timestamp::MIN,
        false => Timestamp::MAX,
    })
}

/// Wall-clock seconds since the Unix epoch; 0 before it.
pub fn unix_seconds() -> u64 {
    u64::try_from(now_or_end().as_second()).unwrap_or(0)
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
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// The time of a CPU that this thread has taken.
pub fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_beyond_the_calendar_is_an_error_and_not_a_panic() {
        let wall = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(at(wall(0)).unwrap(), Timestamp::UNIX_EPOCH);
        assert_eq!(at(wall(1_800_000_000)).unwrap().as_second(), 1_800_000_000);
        assert_eq!(at(SystemTime::UNIX_EPOCH - Duration::from_secs(5)).unwrap().as_second(), -5);
        for seconds in [253_402_300_800, 1 << 40, (1 << 63) - 1] {
            let error = at(wall(seconds)).unwrap_err().to_string();
            assert!(error.contains("outside the years -9999 to 9999; set it"), "{error}");
        }
        assert!(at(SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 40)).is_err());
        for seconds in [0, 1_800_000_000, 1 << 63, u64::MAX] {
            let _either = timestamp(seconds);
        }
    }
}
