//! What all parts of the proof share: how thorough to be, where to work, which programs to call.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use traffic_tests::process::run_ok;

/// The circumstances of a run.
#[derive(Debug)]
pub struct Bench {
    /// Only what takes seconds.
    pub quick: bool,
    /// Where packages and images are kept between runs; never in the repository.
    pub cache: PathBuf,
    /// Packages that are unpacked here and not installed, each program behind a script in `bin`.
    pub unpacked: PathBuf,
}

impl Bench {
    /// Says what is being done.
    pub fn say(&self, what: &str) {
        eprintln!("  . {what}");
    }

    /// A program out of the unpacked packages, else that of the machine.
    pub fn program(&self, name: &str) -> PathBuf {
        let ours = self.unpacked.join("bin").join(name);
        if ours.is_file() { ours } else { PathBuf::from(name) }
    }

    /// A directory for one part in the cache.
    ///
    /// # Errors
    ///
    /// When it can't be made.
    pub fn cache_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.cache.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }
}

/// The first line a program prints when asked for its version.
pub fn version(program: impl AsRef<OsStr>, argument: &str) -> String {
    let mut command = Command::new(&program);
    let said = match run_ok(command.arg(argument)) {
        Ok(said) => said,
        Err(error) => format!("unknown: {error:#}"),
    };
    said.lines().next().unwrap_or_default().trim().to_owned()
}

/// The running kernel's release.
///
/// # Errors
///
/// When `/proc` is not there.
pub fn kernel_release() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/osrelease");
    Ok(std::fs::read_to_string(path).context("read the kernel's release")?.trim().to_owned())
}
