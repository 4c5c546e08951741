//! A fuzzer without its engine: runs the check on the named files. For examining a finding with a plain
//! compiler.

use std::{env, fs, io};

/// Runs the check on each file named on the command line. Panics if a property is violated.
///
/// # Errors
/// When a file cannot be read.
pub fn run(check: fn(&[u8])) -> io::Result<()> {
    for path in env::args_os().skip(1) {
        eprintln!("{}", path.display());
        check(&fs::read(&path)?);
    }
    Ok(())
}
