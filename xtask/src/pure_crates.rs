//! The crates of trafctl that anyone can test: with stable Rust, and without a BPF toolchain or root.
//!
//! They stay so while they depend on nothing that loads programs, talks to the kernel, serves requests or
//! parses command lines. `cargo xtask lint` checks that.

use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::command::cargo;

/// `cargo test` with these as `--package` must work everywhere.
pub const PURE_CRATES: [&str; 5] =
    ["traffic-model", "traffic-classes", "traffic-ledger", "traffic-quota", "traffic-statement"];

/// Names of forbidden crates; a `-` at the end stands for every name that begins so.
const FORBIDDEN: [&str; 11] = [
    "aya",
    "aya-",
    "axum",
    "clap",
    "hyper",
    "netlink-",
    "rtnetlink",
    "tokio",
    "traffic-ebpf",
    "traffic-tests",
    "traffic-user",
];

/// Checks the dependencies of the pure crates, with all features and with those of their tests.
///
/// # Errors
/// When cargo fails or a forbidden crate is among them.
pub fn check() -> Result<()> {
    // `cargo metadata` would show the features that other crates of the workspace turn on.
    let mut command = cargo();
    command.args(["tree", "--locked", "--all-features", "--edges=normal,build,dev", "--target=all"]);
    command.args(["--prefix=none", "--format={p}"]).args(PURE_CRATES.map(|name| format!("--package={name}")));
    let output = command.stderr(Stdio::inherit()).output().context("cannot start `cargo tree`")?;
    if !output.status.success() {
        bail!("`cargo tree` failed ({})", output.status);
    }
    let tree = String::from_utf8(output.stdout).context("cannot read the output of `cargo tree`")?;
    let found = forbidden(&tree)?;
    if !found.is_empty() {
        bail!("{} must not depend on {}", PURE_CRATES.join(", "), found.join(", "));
    }
    eprintln!("{} are free of BPF, network and command-line crates", PURE_CRATES.join(", "));
    Ok(())
}

/// The forbidden crates in the output of `cargo tree`, which has one `name version` in each line.
fn forbidden(tree: &str) -> Result<Vec<&str>> {
    let mut names: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for root in PURE_CRATES {
        if !names.contains(&root) {
            bail!("`cargo tree` does not list {root}");
        }
    }
    names.sort_unstable();
    names.dedup();
    names.retain(|name| {
        FORBIDDEN.iter().any(|pattern| match pattern.strip_suffix('-') {
            Some(_) => name.starts_with(pattern),
            None => name == pattern,
        })
    });
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_with(lines: &str) -> Vec<String> {
        let roots: String = PURE_CRATES.iter().map(|name| format!("{name} v0.1.0 (/here)\n")).collect();
        let tree = roots + lines;
        forbidden(&tree).unwrap().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn each_forbidden_crate_is_found_once() {
        assert_eq!(check_with("serde v1.0.229 (*)\nipnet v2.12.2\nclapboard v1.0.0\n"), [""; 0]);
        for name in ["aya", "aya-obj", "axum", "clap", "netlink-sys", "rtnetlink", "tokio", "traffic-user"] {
            assert_eq!(check_with(&format!("{name} v1.0.0\n{name} v1.0.0 (*)\n")), [name]);
        }
    }

    #[test]
    fn the_pure_crates_depend_on_nothing_forbidden() {
        check().unwrap();
    }

    #[test]
    fn a_tree_without_the_crates_is_an_error() {
        assert!(forbidden("").is_err());
        assert!(forbidden("traffic-model v0.1.0\n").unwrap_err().to_string().contains("traffic-classes"));
    }
}
