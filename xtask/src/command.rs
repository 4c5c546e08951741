//! Starting programs: cargo in the workspace, quick questions, and long steps whose output is shown only if they fail.

use std::{
    env,
    fs::metadata,
    io::{BufRead, BufReader, pipe},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::report::Progress;

/// Every crate that is compiled for the host: all but the kernel program, which cannot be linked there.
pub const HOST_CRATES: [&str; 3] = ["--workspace", "--exclude", "traffic-ebpf"];

/// The crates whose tests need root.
pub const INTEGRATION_TESTS: [&str; 2] = ["traffic-tests", "traffic-bench"];

/// The cargo that runs this task, in the workspace's directory.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// The workspace's directory, wherever in it the task was started.
pub fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where cargo leaves the programs of the development profile.
pub fn debug_directory() -> Result<PathBuf> {
    // This program is one of them, which spares asking cargo for its target directory and parsing the answer.
    let this = env::current_exe().context("finding the path of this program")?;
    this.parent().map(Path::to_owned).ok_or_else(|| anyhow!("{} is in no directory", this.display()))
}

/// Where cargo leaves the programs of the release profile: beside those of the development profile.
pub fn release_directory() -> Result<PathBuf> {
    Ok(debug_directory()?.with_file_name("release"))
}

/// Runs a command that speaks for itself.
pub fn run(command: &mut Command) -> Result<()> {
    let line = display(command);
    let status = command.status().with_context(|| format!("starting `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Becomes a command that speaks for itself: signals and exit status are then between it and whoever waits.
pub fn become_command(command: &mut Command) -> Result<()> {
    let line = display(command);
    Err(command.exec()).with_context(|| format!("starting `{line}`"))
}

/// Runs a command without input, its output going to `progress`, and to the terminal in full when it fails.
pub fn run_watched(command: &mut Command, progress: &Progress) -> Result<()> {
    let line = display(command);
    // One pipe for both, so that the lines stay in the order they were written.
    let (reader, writer) = pipe().context("making a pipe")?;
    command.stdin(Stdio::null()).stderr(writer.try_clone().context("sharing a pipe")?).stdout(writer);
    let mut child = command.spawn().with_context(|| format!("starting `{line}`"))?;
    // `command` still holds the pipe's writing end: while it does, the reading end never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut output = String::new();
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).with_context(|| format!("reading from `{line}`"))? > 0 {
        let text = String::from_utf8_lossy(&bytes);
        progress.note(text.trim());
        output.push_str(&text);
        bytes.clear();
    }
    let status = child.wait().with_context(|| format!("waiting for `{line}`"))?;
    if !status.success() {
        progress.dump(&output);
        bail!("`{line}` failed ({status}); its output is above");
    }
    Ok(())
}

/// What a command prints, if it exists and succeeds.
pub fn ask(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Whether a program is in `PATH` or where only root's `PATH` leads.
pub fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|directory| directory.join(program).is_file())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // A process' own directory in /proc belongs to its effective user.
    metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// A command as one would type it, scripts left out.
fn display(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let arguments = command.get_args().map(|argument| match argument.to_string_lossy() {
        script if script.contains('\n') => "...".into(),
        word => word,
    });
    [program.to_string_lossy()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}
