//! docs/classes.md: every command on the page is run, in its order, with `curl` replaced by samples.
#![expect(clippy::unwrap_used, reason = "a test; clippy does not count helpers as such")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

const PAGE: &str = include_str!("../../docs/classes.md");

/// A registry's list with its true count of records.
const DELEGATED: &str = "2|ripencc|1700000000|2|19830705|20260131|+0100\n\
    ripencc|UA|ipv4|203.0.113.0|256|20100101|allocated|a\n\
    ripencc|DE|ipv4|198.51.100.0|256|20100101|allocated|b\n";

/// Writes what the URL's last part names to the file after `-o`.
const CURL: &str = "#!/bin/sh\nfor word; do url=$word; done\ncp \"$SAMPLES/${url##*/}\" \"$3\"\n";

/// The commands of the page.
fn commands() -> String {
    let blocks = PAGE.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default()).collect()
}

fn run(directory: &Path, script: &str) -> Output {
    let binary = Path::new(env!("CARGO_BIN_EXE_trafctl")).parent().unwrap();
    let tools = directory.join("tools");
    let path = format!("{}:{}:{}", tools.display(), binary.display(), std::env::var("PATH").unwrap());
    Command::new("sh")
        .args(["-euc", script])
        .current_dir(directory)
        .env("PATH", path)
        .env("SAMPLES", directory.join("samples"))
        // Neither the host's configuration nor its counters.
        .env("TRAFCTL_CONFIG", directory.join("trafctl.toml"))
        .env("TRAFCTL_BPFFS", directory.join("bpffs"))
        .env("TRAFCTL_STATE_DIR", directory.join("state"))
        .output()
        .unwrap()
}

fn prepared() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir_all(path("tools")).unwrap();
    fs::create_dir_all(path("samples")).unwrap();
    fs::write(path("trafctl.toml"), "").unwrap();
    fs::write(path("tools/curl"), CURL).unwrap();
    fs::set_permissions(path("tools/curl"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(path("samples/delegated-ripencc-extended-latest"), DELEGATED).unwrap();
    fs::write(path("samples/networks.txt"), "# members\n203.0.113.0/25\n203.0.113.128/25\n2001:db8::/32\n")
        .unwrap();
    directory
}

#[test]
fn every_command_of_the_page_works() {
    let commands = commands();
    assert!(commands.lines().count() > 25, "the page has its commands: {commands}");
    let directory = prepared();
    let output = run(directory.path(), &commands);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("203.0.113.7 is class 2 \"Domestic\""), "{shown}");
    assert!(shown.contains("8.8.8.8 is class 1 \"World\""), "{shown}");
    let file = fs::read_to_string(directory.path().join("work/networks_classes")).unwrap();
    assert!(file.contains("2 203.0.113.0/24\n2 2001:db8::/32\n# trafctl end\n"), "{file}");
}

#[test]
fn a_download_that_is_cut_short_or_empty_changes_nothing() {
    let directory = prepared();
    assert!(run(directory.path(), &commands()).status.success());
    let file = directory.path().join("work/networks_classes");
    let before = fs::read(&file).unwrap();
    for sample in ["", "<!DOCTYPE html>\n<html></html>\n", "203.0.113.0/2x\n", "203.0.113.0"] {
        fs::write(directory.path().join("samples/networks.txt"), sample).unwrap();
        let output = run(directory.path(), "cd work && ./refresh-classes .");
        // One address is a valid list, so that the last sample is converted.
        assert_eq!(output.status.success(), sample == "203.0.113.0", "{sample:?}");
        if sample != "203.0.113.0" {
            assert_eq!(fs::read(&file).unwrap(), before, "{sample:?}");
        }
    }
    // A class file that is cut anywhere inside the converted part is refused.
    let text = String::from_utf8(before.clone()).unwrap();
    for end in text.find("# trafctl begin").unwrap() + 11..before.len() - "# trafctl end\n".len() + 11 {
        fs::write(directory.path().join("work/cut"), &before[..end]).unwrap();
        let output = run(directory.path(), "trafctl classes check work/cut");
        assert_eq!(output.status.code(), Some(2), "{end}");
    }
}
