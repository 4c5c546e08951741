//! What the ledger's commands print when a query cannot be answered. Uses the real binary and a small ledger.
#![expect(clippy::unwrap_used, reason = "a test; clippy does not count helpers as such")]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use traffic_ledger::testing::{File, NOON, Node, ledger};

/// A state directory with a ledger that begins on 2026-11-10 at noon.
fn state_dir() -> File {
    let mut file = ledger();
    let mut node = Node::new(NOON);
    node.traffic("101", 1, [1, 100, 2, 200]).pass(60).drain(&mut file.ledger);
    fs::write(file.dir.path().join("trafctl.toml"), "").unwrap();
    file
}

fn command(mut command: Command, state_dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command
        .args(arguments)
        .env("TRAFCTL_CONFIG", state_dir.join("trafctl.toml"))
        .env("TRAFCTL_STATE_DIR", state_dir)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn trafctl(state_dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    command(Command::new(env!("CARGO_BIN_EXE_trafctl")), state_dir, arguments)
}

/// The single line of an error.
fn refusal(state_dir: &Path, arguments: &[&str]) -> String {
    let (status, stdout, stderr) = trafctl(state_dir, arguments);
    assert_eq!((status, stdout.as_str()), (Some(1), ""), "{arguments:?}: {stderr}");
    stderr.trim_end().to_owned()
}

#[test]
fn a_query_that_cannot_be_answered_says_why() {
    let file = state_dir();
    let path = file.dir.path();
    for (arguments, message) in [
        (
            &["report", "--container", "999"][..],
            "trafctl: no container 999 is known: the ledger has no figures of it; `trafctl report --by total` \
             lists all containers",
        ),
        (
            &["report", "--to", "2026-11-01"],
            "trafctl: the span ends at 2026-11-01T00:00+00:00, before the ledger begins at \
             2026-11-10T12:00+00:00; give a later end",
        ),
        (
            &["top-talkers", "--to", "2026-11-01", "--tz", "Asia/Kolkata"],
            "trafctl: the span ends at 2026-11-01T00:00+05:30, before the ledger begins at \
             2026-11-10T17:30+05:30; give a later end",
        ),
        (
            &["report", "--from", "2026-11-20"],
            "trafctl: the span begins at 2026-11-20T00:00+00:00, after the last reading at \
             2026-11-10T12:01+00:00; give an earlier start",
        ),
        (
            &["report", "--last", "7"],
            "trafctl: cannot use --last: \"7\" has no unit; write numbers with the units s, m, h, d, w, mo, y, \
             such as 30d, 12h or 3mo",
        ),
    ] {
        assert_eq!(refusal(path, arguments), message);
    }
    for command in ["report", "top-talkers", "gaps"] {
        let message = refusal(path, &[command, "--tz", "Europe/Berlino"]);
        assert!(message.contains("\"Europe/Berlino\""), "{message}");
    }
    fs::remove_file(path.join("ledger.sqlite")).unwrap();
    assert!(refusal(path, &["report"]).ends_with("it does not exist; start `trafctl run`, which creates it"));
}

#[test]
fn results_are_on_stdout_and_never_log_lines() {
    let file = state_dir();
    let (status, stdout, stderr) = trafctl(file.dir.path(), &["close"]);
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (Some(0), "no month has been closed yet\n", ""));
    let (status, stdout, stderr) = trafctl(file.dir.path(), &["report", "--format", "csv"]);
    assert_eq!((status, stdout.lines().count()), (Some(0), 2), "{stdout}");
    // cron mails every line on stderr.
    assert_eq!(stderr, "");
    for arguments in [
        &["report", "--format", "json"][..],
        &["top-talkers", "--format", "csv"],
        &["gaps", "--format", "csv"],
    ] {
        let (status, _, stderr) = trafctl(file.dir.path(), arguments);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

/// The command without any capability, so that file modes apply to root as well.
fn without_capabilities() -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--bounding-set=-all", "--inh-caps=-all"]);
    }
    command.arg(env!("CARGO_BIN_EXE_trafctl"));
    command
}

#[test]
fn a_ledger_that_may_not_be_read_is_permission_denied() {
    let file = state_dir();
    let ledger = file.dir.path().join("ledger.sqlite");
    fs::set_permissions(&ledger, fs::Permissions::from_mode(0o000)).unwrap();
    let (status, stdout, stderr) = command(without_capabilities(), file.dir.path(), &["report"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    let expected =
        format!("trafctl: cannot open the ledger {}: permission denied; run as root\n", ledger.display());
    assert_eq!(stderr, expected);
}
