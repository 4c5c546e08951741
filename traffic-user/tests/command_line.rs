//! The real binary where it needs neither root nor a kernel: usage errors, the form of errors, and the
//! environment.
#![expect(clippy::unwrap_used, reason = "a test; clippy does not count helpers as such")]

use std::process::{Command, Output, Stdio};

/// Runs `trafctl` with every variable of its own set, as on a node whose profile sets them.
fn trafctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trafctl"))
        .args(arguments)
        .env("TRAFCTL_CONFIG", "/nonexistent/trafctl.toml")
        .env("TRAFCTL_BPFFS", "/nonexistent/bpffs")
        .env("TRAFCTL_STATE_DIR", "/nonexistent/state")
        .env_remove("TRAFCTL_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_usage_error_names_only_the_commands_own_arguments() {
    for (arguments, usage) in [
        (&["explode"][..], "Usage: trafctl <COMMAND>\n"),
        (
            &["dump", "--class", "999"],
            "trafctl: invalid value '999' for '--class <N>': class 999 is out of range; write 0 to 254",
        ),
        (&["report", "--class", "x"], "\"x\" is not a class; write 0 to 254"),
        (&["dump", "-4", "-6"], "Usage: trafctl dump [OPTIONS]\n"),
        (&["container", "retire"], "Usage: trafctl container retire [OPTIONS] <ID>\n"),
        (&["classes", "check"], "Usage: trafctl classes check [OPTIONS] <FILE>\n"),
        (&["run", "--nope"], "Usage: trafctl run [OPTIONS]\n"),
    ] {
        let output = trafctl(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(usage), "{arguments:?}: {text}");
        assert!(text.starts_with("trafctl: "), "{arguments:?}: {text}");
        for option in ["--config", "--bpffs", "--state-dir"] {
            assert!(!text.contains(option), "{arguments:?}: {text}");
        }
    }
}

#[test]
fn help_does_not_depend_on_the_environment() {
    for arguments in [&["--help"][..], &["dump", "-h"], &["help", "container", "retire"]] {
        let output = trafctl(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("[env: TRAFCTL_STATE_DIR]"), "{text}");
        assert!(!text.contains("/nonexistent"), "{text}");
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn an_error_is_printed_once_under_the_programs_name() {
    for arguments in [&["dump"][..], &["top"], &["report"], &["detach"]] {
        let output = trafctl(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
        assert!(text.starts_with("trafctl: ") && !text.contains("ERROR"), "{arguments:?}: {text}");
    }
}
