//! Wall clocks that a test sets, by Debian's libfaketime. The monotonic clock stays that of the machine.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;

/// The dynamic linker expands `$LIB` on every architecture.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketime.so.1";

/// Gives a program a clock of its own, in libfaketime's notation: `+8500y`, or `+0 x10000` for one that runs fast.
#[must_use]
pub fn shifted(mut command: Command, clock: &str) -> Command {
    command.env("LD_PRELOAD", LIBRARY).env("FAKETIME", clock).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

/// Gives a program the clock of a file, which [`set`] may set while it runs.
#[must_use]
pub fn of_file(mut command: Command, clock: &Path) -> Command {
    command.env("LD_PRELOAD", LIBRARY).env("FAKETIME_TIMESTAMP_FILE", clock).env("FAKETIME_NO_CACHE", "1");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

/// Sets the clock of a file to a time in Unix seconds, from which it goes on.
///
/// # Errors
///
/// When the file cannot be written.
pub fn set(clock: &Path, unix_s: i64) -> Result<()> {
    let offset = unix_s - seconds_since_1970()?;
    // At once: a program must not see half of it.
    let fresh = clock.with_extension("new");
    fs::write(&fresh, format!("{offset:+}\n"))?;
    Ok(fs::rename(fresh, clock)?)
}

/// The real time.
///
/// # Errors
///
/// When the machine's clock is before 1970.
pub fn seconds_since_1970() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}
