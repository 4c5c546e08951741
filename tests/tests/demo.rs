//! `cargo xtask demo` when the user interrupts it. What it shows is compared with docs/proof.md by `tests/tests/docs`.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use traffic_tests::{
    check::eventually,
    lab::trafctl_program,
    process::{Process, children, run_ok},
};

/// The longest time from Ctrl-C to the end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shared memory segments of the machine: their ids, and the processes that made them.
fn shared_memory() -> Result<Vec<(String, u32)>> {
    let listed = run_ok(Command::new("ipcs").args(["-m", "-p"]))?;
    let segment = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.nth(1)?.parse().ok()?))
    };
    Ok(listed.lines().filter_map(segment).collect())
}

/// Everything in the process group of a process.
fn group(leader: u32) -> Result<Vec<u32>> {
    let listed = run_ok(Command::new("ps").args(["-eo", "pid=,pgid="]))?;
    let of = |line: &str| -> Option<u32> {
        let (id, group) = line.trim().split_once(' ')?;
        (group.trim().parse() == Ok(leader)).then(|| id.parse().ok())?
    };
    Ok(listed.lines().filter_map(of).collect())
}

/// Interrupts the demonstration after the line with this text, as Ctrl-C on a terminal does.
fn leaves_nothing(options: &[&str], text: &str) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    // Others leave some when they are killed, and the numbers of their processes come again.
    let older = shared_memory()?;
    // PostgreSQL has a user of its own.
    fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(options).env("TMPDIR", temporary.path()).env("TRAFCTL_BIN", trafctl_program()?);
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut demo = Process::spawn(&mut command)?;
    let mut lines = BufReader::new(demo.child().stderr.take().context("stderr")?).lines();
    let mut seen = lines.by_ref().map_while(std::result::Result::ok);
    ensure!(seen.any(|line| line.contains(text)), "no line with {text:?}");
    let [worker] = children(demo.id())[..] else { anyhow::bail!("it is not one process") };
    let running = group(worker)?;
    ensure!(!running.is_empty());
    let leader = Pid::from_raw(i32::try_from(demo.id())?).context("an id")?;
    kill_process_group(leader, Signal::INT)?;
    let status = demo.wait(PATIENCE)?;
    let said: Vec<String> = seen.collect();
    // Further steps may have begun before the signal arrived.
    let said: Vec<_> = said.iter().skip_while(|line| line.starts_with("==> ")).collect();
    ensure!(status.code() == Some(130) && said == ["interrupted"], "{status}: {said:?}");
    // A server's own processes end a moment after it.
    eventually("the processes have ended", || Ok(group(worker)?.is_empty()))?;
    let mut left = shared_memory()?;
    left.retain(|segment| running.contains(&segment.1) && !older.contains(segment));
    ensure!(left.is_empty(), "{left:?}");
    let left: Vec<_> = fs::read_dir(temporary.path())?.collect();
    ensure!(left.is_empty(), "{left:?}");
    let namespaces =
        fs::read_dir("/run/netns")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let of_it = format!("trafctl-lab-{worker}-");
    let left: Vec<_> = namespaces.filter(|name| name.starts_with(&of_it)).collect();
    ensure!(left.is_empty(), "{left:?}");
    ensure!(!fs::read_to_string("/proc/mounts")?.contains(&*temporary.path().to_string_lossy()));
    ensure!(!Path::new(&format!("/proc/{worker}")).exists());
    Ok(())
}

#[test]
fn a_node_leaves_nothing_behind_when_it_is_interrupted() -> Result<()> {
    for text in ["create a host", "trafctl attach", "send TCP"] {
        leaves_nothing(&[], text).context(text)?;
    }
    Ok(())
}

#[test]
fn a_fleet_leaves_nothing_behind_when_it_is_interrupted() -> Result<()> {
    for text in ["create three nodes", "send TCP", "stop PostgreSQL", "start PostgreSQL"] {
        leaves_nothing(&["--fleet"], text).context(text)?;
    }
    Ok(())
}
