//! One run of an action's program: a document on its standard input, a bare environment, and an end.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time,
};
use traffic_model::units::format_duration;

/// How much of what it prints on its standard error is kept, in bytes.
const MOST_KEPT: usize = 1000;
/// How long its output is read after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Runs a program. It has succeeded if its status is 0. What it leaves behind in its process group is killed.
///
/// # Errors
/// Why it did not succeed, as a sentence: it cannot be started, failed, or took too long.
pub async fn run(
    words: &[String],
    timeout: Duration,
    document: &[u8],
    environment: &[(&'static str, String)],
) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else { return Err("it has no program".to_owned()) };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A process group of its own, so that its children can be killed with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let (mut stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let document = document.to_vec();
    // A program need not read it, and may not read it to its end.
    let writing = tokio::spawn(async move {
        if let Some(stdin) = &mut stdin {
            let _unread = stdin.write_all(&document).await;
        }
    });
    let reading = tokio::spawn(first_bytes(stderr));
    let ended = time::timeout(timeout, child.wait()).await;
    drop(group);
    writing.abort();
    let said = time::timeout(LAST_WORDS, reading).await;
    let said = said.ok().and_then(Result::ok).unwrap_or_default();
    match ended {
        Err(_) => {
            let _killed = child.wait().await;
            Err(format!(
                "{program} took longer than {}; raise `timeout` of the action",
                format_duration(timeout)
            ))
        }
        Ok(Err(error)) => Err(format!("cannot wait for {program}: {error}")),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            let text = String::from_utf8_lossy(&said);
            let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message");
            Err(format!("{program} failed ({status}): {}", line.trim()))
        }
    }
}

/// The processes of a run, which end with it, also where nobody waits for it any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // There is none if all of it has ended.
            let _ended = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads to the end, so that nobody waits for a full pipe, and keeps the first bytes.
async fn first_bytes(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return kept };
    let mut buffer = [0; 4096];
    while let Ok(length) = pipe.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        let room = MOST_KEPT.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(&buffer[..room]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Instant};

    use super::*;

    fn outcome(script: &str, timeout: Duration, document: &[u8]) -> Result<(), String> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&words, timeout, document, &[("TRAFCTL_EVENT", "reached".to_owned())]))
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn a_program_has_the_document_and_a_bare_environment() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("out");
        let script = format!("{{ cat; env; pwd; }} >{}", file.display());
        outcome(&script, LONG, b"{\"id\":7}\n").unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let mut lines: Vec<&str> =
            text.lines().filter(|line| !line.starts_with("_=") && !line.starts_with("SHLVL=")).collect();
        lines.sort_unstable();
        assert_eq!(lines, ["/", "PWD=/", "TRAFCTL_EVENT=reached", "{\"id\":7}"]);
    }

    #[test]
    fn every_failure_has_its_reason() {
        let failed = |script: &str, timeout| outcome(script, timeout, b"x").unwrap_err();
        assert_eq!(
            failed("echo; echo no such container >&2; exit 3", LONG),
            "/bin/sh failed (exit status: 3): no such container"
        );
        assert_eq!(failed("kill -9 $$", LONG), "/bin/sh failed (signal: 9 (SIGKILL)): no message");
        assert!(
            failed("sleep 600", Duration::from_millis(50)).contains("took longer than 50ms; raise `timeout`")
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let none = runtime.block_on(run(&["/nonexistent/x".to_owned()], LONG, b"", &[])).unwrap_err();
        assert!(none.starts_with("cannot start /nonexistent/x: No such file"), "{none}");
    }

    #[test]
    fn neither_a_long_document_nor_long_output_nor_children_hold_it_up() {
        let begun = Instant::now();
        let large = vec![b'x'; 4 << 20];
        // It reads nothing.
        outcome("exit 0", LONG, &large).unwrap();
        // It prints more than a pipe holds, and reads all.
        outcome("cat >/dev/null; head -c 1000000 /dev/zero >&2; exit 0", LONG, &large).unwrap();
        // A child holds the pipe and ignores signals.
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!(
            "(trap '' TERM HUP; echo $$ >{0}; exec sleep 600) & while ! [ -s {0} ]; do :; done",
            file.display()
        );
        outcome(&script, LONG, b"").unwrap();
        assert!(begun.elapsed() < LONG);
    }
}
