//! The process that the user starts, which has the terminal. It runs the demonstration in another process, with a
//! process group of its own: so Ctrl-C reaches none of the commands and servers there, also not those that clean up.

use std::{
    env,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{ChildStdin, Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
    thread,
};

use anyhow::{Context as _, Result};
use traffic_tests::interrupt;

/// The option that makes a process the one that does the work.
pub(crate) const WORKER: &str = "--worker";

/// What a shell has for a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// The process that does the work; 0 before it is started.
static WORKER_ID: AtomicI32 = AtomicI32::new(0);
static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn pass_on(_signal: libc::c_int) {
    IS_INTERRUPTED.store(true, Ordering::SeqCst);
    end_worker();
}

fn end_worker() {
    let id = WORKER_ID.load(Ordering::SeqCst);
    if id != 0 {
        // SAFETY: `kill` takes plain numbers. The id is that of the child until it is waited for, after which this
        // process ends.
        unsafe { libc::kill(id, libc::SIGTERM) };
    }
}

/// Runs the demonstration with the options of this process, and waits until it has cleaned up.
///
/// # Errors
///
/// When it cannot be started.
pub(crate) fn run(keep: bool) -> Result<ExitCode> {
    interrupt::handle(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP], pass_on)?;
    let mut command = Command::new(env::current_exe().context("cannot find the path of this executable")?);
    command.args(env::args_os().skip(1)).arg(WORKER).process_group(0);
    // It cannot read from the terminal, as its group is not the one in front.
    command.stdin(if keep { Stdio::piped() } else { Stdio::null() });
    let mut worker = command.spawn().context("cannot start the demonstration")?;
    WORKER_ID.store(i32::try_from(worker.id())?, Ordering::SeqCst);
    // A signal may have come before there was a worker.
    if IS_INTERRUPTED.load(Ordering::SeqCst) {
        end_worker();
    }
    if let Some(input) = worker.stdin.take() {
        thread::spawn(move || pass_line(input));
    }
    let status = worker.wait().context("cannot wait for the demonstration")?;
    if IS_INTERRUPTED.load(Ordering::SeqCst) {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Passes one line on. At the end of the input, the worker sees that there is none.
fn pass_line(mut input: ChildStdin) {
    let mut line = String::new();
    if io::stdin().read_line(&mut line).is_ok_and(|read| read > 0) {
        // The worker may have ended.
        let _gone = input.write_all(line.as_bytes());
    }
}
