//! What all parts of the proof share: the options of the run, its directories, and programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use traffic_tests::process::run_ok;

/// The options of a run.
#[derive(Debug)]
pub struct Bench {
    /// Only what takes seconds.
    pub quick: bool,
    /// The directory for packages and images, which are kept between runs. It is not in the repository.
    pub cache: PathBuf,
    /// The directory of packages that are unpacked and not installed. Each program has a script in `bin`.
    pub unpacked: PathBuf,
}

impl Bench {
    /// Reports the current step.
    pub fn step(&self, what: &str) {
        eprintln!("  . {what}");
    }

    /// The path of a program: of the unpacked packages if it is there, else the machine's.
    pub fn program(&self, name: &str) -> PathBuf {
        let ours = self.unpacked.join("bin").join(name);
        if ours.is_file() { ours } else { PathBuf::from(name) }
    }

    /// A directory for one part in the cache.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn cache_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.cache.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }
}

/// The first line of a program's output when asked for its version.
pub fn version(program: impl AsRef<OsStr>, argument: &str) -> String {
    let mut command = Command::new(&program);
    let text = match run_ok(command.arg(argument)) {
        Ok(text) => text,
        Err(error) => format!("unknown: {error:#}"),
    };
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// The release of the running kernel.
///
/// # Errors
///
/// When `/proc` is not mounted.
pub fn kernel_release() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/osrelease");
    Ok(std::fs::read_to_string(path).context("read the kernel's release")?.trim().to_owned())
}
