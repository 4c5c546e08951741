//! What a fuzzer is without its engine: the check, run on the files named. For looking at a finding with a plain compiler.

use std::{env, fs, io};

/// Runs the check on each file named on the command line. It panics where something does not hold.
///
/// # Errors
/// When a file can't be read.
pub fn run(check: fn(&[u8])) -> io::Result<()> {
    for path in env::args_os().skip(1) {
        eprintln!("{}", path.display());
        check(&fs::read(&path)?);
    }
    Ok(())
}
