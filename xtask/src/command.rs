//! Runs programs: cargo in the workspace, queries, and long steps whose output is shown only when they fail.

use std::{
    env,
    fs::metadata,
    io::{BufRead, BufReader, pipe},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;

use crate::report::Progress;

/// Selects every crate that is compiled for the host. The kernel program cannot be linked there.
pub const HOST_CRATES: [&str; 3] = ["--workspace", "--exclude", "traffic-ebpf"];

/// Crates whose tests need root.
pub const INTEGRATION_TESTS: [&str; 2] = ["traffic-tests", "traffic-bench"];

/// The cargo that runs this task, in the directory of the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// The parts that a caller needs of what cargo knows about all crates in the lock file.
///
/// # Errors
/// When cargo fails, or its answer lacks such a part.
pub fn cargo_metadata<T: DeserializeOwned>() -> Result<T> {
    let output = cargo()
        .args(["metadata", "--format-version=1", "--locked"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start `cargo metadata`")?;
    if !output.status.success() {
        bail!("`cargo metadata --locked` failed ({})", output.status);
    }
    serde_json::from_slice(&output.stdout).context("cannot parse the output of `cargo metadata`")
}

/// The directory of the workspace.
pub fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The directory of programs built with the development profile.
///
/// # Errors
/// When the path of this program is unknown.
pub fn debug_directory() -> Result<PathBuf> {
    // This program is one of them, so cargo need not be asked for its target directory.
    let this = env::current_exe().context("cannot find the path of this program")?;
    this.parent().map(Path::to_owned).ok_or_else(|| anyhow!("{} has no parent directory", this.display()))
}

/// The directory of programs built with the release profile.
///
/// # Errors
/// When the path of this program is unknown.
pub fn release_directory() -> Result<PathBuf> {
    Ok(debug_directory()?.with_file_name("release"))
}

/// Runs a command with the streams of this process.
///
/// # Errors
/// When it does not start or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let line = display(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Replaces this process by a command, so that its signals and exit status reach the caller.
///
/// # Errors
/// When it does not start.
pub fn become_command(command: &mut Command) -> Result<()> {
    let line = display(command);
    Err(command.exec()).with_context(|| format!("cannot start `{line}`"))
}

/// Runs a command without input. Each line of its output is shown in `progress`; all of it is printed when it
/// fails.
///
/// # Errors
/// When it does not start or fails.
pub fn run_watched(command: &mut Command, progress: &Progress) -> Result<()> {
    let line = display(command);
    // One pipe for both streams keeps their lines in order.
    let (reader, writer) = pipe().context("cannot create a pipe")?;
    command.stdin(Stdio::null()).stderr(writer.try_clone().context("cannot share a pipe")?).stdout(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
    // `command` still holds the writing end, and the reader would never see the end of the output.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut output = String::new();
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).with_context(|| format!("cannot read from `{line}`"))? > 0 {
        let text = String::from_utf8_lossy(&bytes);
        progress.note(text.trim());
        output.push_str(&text);
        bytes.clear();
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
    if !status.success() {
        progress.dump(&output);
        bail!("`{line}` failed ({status}); see its output above");
    }
    Ok(())
}

/// The output of a command, if it exists and succeeds.
pub fn ask(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Whether a program is in `PATH` or in the directories that only root has in `PATH`.
pub fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|directory| directory.join(program).is_file())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // The directory of a process in /proc belongs to its effective user.
    metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Checks that a file can be created, before the work whose results it will hold.
///
/// # Errors
/// When its directory does not exist or the path is a directory.
pub fn require_place_for(file: &Path) -> Result<()> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        bail!("cannot write {}: there is no directory {}", file.display(), directory.display());
    }
    if file.is_dir() {
        bail!("cannot write {}: it is a directory", file.display());
    }
    Ok(())
}

/// The command line, with scripts abbreviated.
fn display(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let arguments = command.get_args().map(|argument| match argument.to_string_lossy() {
        script if script.contains('\n') => "...".into(),
        word => word,
    });
    [program.to_string_lossy()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_a_directory_and_a_name_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        require_place_for(&directory.path().join("new")).unwrap();
        require_place_for(Path::new("new")).unwrap();
        let error = require_place_for(&directory.path().join("none/new")).unwrap_err().to_string();
        assert!(error.contains("there is no directory"), "{error}");
        let error = require_place_for(directory.path()).unwrap_err().to_string();
        assert!(error.contains("it is a directory"), "{error}");
    }
}
