//! The program of the packages: optimised, stripped, and the same from every directory.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{Release, architecture::Architecture};
use crate::{
    command::{self, ask, workspace},
    cross::Compiler,
};

/// Most bytes of the stripped program. It notices what makes it larger by accident, such as symbols that stay.
const LARGEST: u64 = 16 << 20;

/// Where the sources seem to be, in messages and in the debug file. `traffic-user/build/object_file.rs` says the
/// same in the kernel program.
const SOURCES: &str = "/usr/src/trafctl";

/// A stripped program and its debug file.
pub(super) struct Program {
    /// Without symbols.
    pub(super) stripped: PathBuf,
    pub(super) architecture: Architecture,
    debug: PathBuf,
}

impl Program {
    /// Builds it below a directory of its own: the flags differ from those of other builds.
    pub(super) fn build(work: &Path, architecture: Architecture) -> Result<Self> {
        let target = architecture.target();
        let Compiler { cargo: mut command, mut flags, sysroot } = Compiler::of(architecture)?;
        let mut c_flags = String::new();
        for (from, to) in remaps(&sysroot)? {
            flags += &format!("--remap-path-prefix={from}={to} ");
            c_flags += &format!("-ffile-prefix-map={from}={to} ");
        }
        command
            .args(["build", "--locked", "--profile", "dist", "--package", "traffic-user", "--bin", "trafctl"])
            .args(["--target", target, "--target-dir"])
            .arg(work.join("cargo"))
            .env("RUSTFLAGS", flags)
            .env(format!("CFLAGS_{}", target.replace('-', "_")), c_flags)
            .env("CARGO_INCREMENTAL", "0");
        command::run(&mut command)?;
        Self::given(&work.join("cargo").join(target).join("dist/trafctl"), work)
    }

    /// Splits a program into what runs and what a debugger needs.
    pub(super) fn given(program: &Path, work: &Path) -> Result<Self> {
        if !program.is_file() {
            bail!("cannot package {}: it is not a regular file", program.display());
        }
        let architecture = Architecture::of_program(program)?;
        fs::create_dir_all(work).with_context(|| format!("cannot create {}", work.display()))?;
        let (stripped, debug) = (work.join("trafctl"), work.join("trafctl.debug"));
        let objcopy = |arguments: &[&str], from: &Path, to: &Path| {
            command::run(Command::new(architecture.tool("objcopy")).args(arguments).arg(from).arg(to))
        };
        objcopy(&["--only-keep-debug"], program, &debug)?;
        objcopy(&["--strip-all"], program, &stripped)?;
        let link = format!("--add-gnu-debuglink={}", debug.display());
        command::run(Command::new(architecture.tool("objcopy")).arg(link).arg(&stripped))?;
        Ok(Self { stripped, architecture, debug })
    }

    /// Refuses a program that has become too large. Returns its size in bytes.
    pub(super) fn check_size(&self) -> Result<u64> {
        let size = fs::metadata(&self.stripped)
            .with_context(|| format!("cannot read {}", self.stripped.display()))?
            .len();
        if size > LARGEST {
            bail!("the stripped program has {size} bytes, more than {LARGEST}");
        }
        Ok(size)
    }

    /// The oldest version of the C library that has everything the program uses; none for a program that
    /// contains its own.
    pub(super) fn needed_glibc(&self) -> Result<Option<String>> {
        let mut objdump = Command::new(self.architecture.tool("objdump"));
        let shown = ask(objdump.args(["--private-headers", "--dynamic-syms"]).arg(&self.stripped))
            .context("cannot run objdump on the program")?;
        if !shown.lines().any(|line| line.trim_start().starts_with("INTERP ")) {
            return Ok(None);
        }
        newest_glibc(&shown).context("the program uses no versioned symbol of the C library").map(Some)
    }

    /// Copies the debug file beside the packages.
    pub(super) fn copy_debug_file(&self, output: &Path, release: &Release) -> Result<PathBuf> {
        let to = output.join(format!("trafctl-{}-{}.debug", release.version, self.architecture.rpm()));
        fs::copy(&self.debug, &to).with_context(|| format!("cannot write {}", to.display()))?;
        Ok(to)
    }
}

/// The directories of this machine, and what stands for them in the program. The last that matches wins.
fn remaps(sysroot: &str) -> Result<[(String, &'static str); 3]> {
    let home = env::var("CARGO_HOME").ok();
    let home = home.or_else(|| env::var("HOME").ok().map(|home| format!("{home}/.cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let workspace = workspace().to_str().context("the path of the workspace is not UTF-8")?;
    let maps =
        [(home, "/usr/src/cargo"), (sysroot.to_owned(), "/usr/src/rust"), (workspace.to_owned(), SOURCES)];
    if maps.iter().any(|(from, _)| from.contains(' ')) {
        bail!("the path of the workspace or of cargo contains a space, which RUSTFLAGS cannot hold");
    }
    Ok(maps)
}

/// The newest version in a list of symbols such as `GLIBC_2.34`.
fn newest_glibc(symbols: &str) -> Option<String> {
    let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let (major, minor) = rest[..end].split_once('.')?;
        // A third number does not matter: no such version has symbols of its own that are still in use.
        let minor = minor.split('.').next()?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    versions.max().map(|(major, minor)| format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let symbols =
            "DF *UND* 0 (GLIBC_2.2.5) read\nDF *UND* 0 (GLIBC_2.34) dlsym\nDF *UND* 0 (GLIBC_2.9) x\n";
        assert_eq!(newest_glibc(symbols).as_deref(), Some("2.34"));
        assert_eq!(newest_glibc("DF *UND* 0 (GCC_3.0) _Unwind_Resume\nGLIBC_PRIVATE"), None);
    }
}
