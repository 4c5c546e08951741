//! The crates of others that are linked into the program.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::{cargo, cargo_metadata};

/// The part of `cargo metadata` that this module uses.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
}

/// A crate, as `cargo metadata` describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Crate {
    pub name: String,
    pub version: String,
    /// The licences, as an SPDX expression or nearly so.
    pub license: Option<String>,
    pub repository: Option<String>,
    /// None for the crates of this workspace.
    pub source: Option<String>,
    /// Its `Cargo.toml`.
    pub manifest_path: PathBuf,
}

impl Crate {
    /// The licences as an SPDX expression. Cargo still accepts a slash for "or".
    pub(super) fn expression(&self) -> Option<String> {
        self.license.as_ref().map(|license| license.replace('/', " OR "))
    }
}

/// All crates in the program but those of this workspace, sorted.
///
/// # Errors
/// When cargo does not list them.
pub(super) fn of_others() -> Result<Vec<Crate>> {
    let tree = cargo()
        .args(["tree", "--locked", "--package", "traffic-user", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}"])
        .output()
        .context("cannot start `cargo tree`")?;
    if !tree.status.success() {
        bail!("`cargo tree --locked` failed ({})", tree.status);
    }
    let text = String::from_utf8(tree.stdout).context("cargo's tree is not UTF-8")?;
    let metadata: Metadata = cargo_metadata()?;
    Ok(chosen(metadata.packages, &parse_tree(&text)))
}

/// `name version` of each crate, from lines such as `aya v0.14.0 (proc-macro)`.
fn parse_tree(text: &str) -> Vec<String> {
    let mut crates: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
            Some(format!("{name} {version}"))
        })
        .collect();
    crates.sort_unstable();
    crates.dedup();
    crates
}

fn chosen(all: Vec<Crate>, used: &[String]) -> Vec<Crate> {
    let is_used = |package: &Crate| {
        package.source.is_some()
            && used.binary_search(&format!("{} {}", package.name, package.version)).is_ok()
    };
    let mut crates: Vec<Crate> = all.into_iter().filter(is_used).collect();
    crates.sort_unstable_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    crates
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn package(name: &str, version: &str, source: Option<&str>) -> Crate {
        Crate {
            name: name.to_owned(),
            version: version.to_owned(),
            license: Some("MIT/Apache-2.0".to_owned()),
            repository: None,
            source: source.map(str::to_owned),
            manifest_path: PathBuf::from("/nowhere/Cargo.toml"),
        }
    }

    #[test]
    fn only_crates_of_others_in_the_program_are_chosen() {
        let tree = "traffic-user v0.2.0 (/src)\naya v0.14.0\nserde v1.0.2\nserde v1.0.2 (*)\nderive v2.1.0 (proc-macro)\n";
        let used = parse_tree(tree);
        assert_eq!(used, ["aya 0.14.0", "derive 2.1.0", "serde 1.0.2", "traffic-user 0.2.0"]);
        let all = vec![
            package("serde", "1.0.2", Some("registry")),
            package("serde", "1.0.3", Some("registry")),
            package("insta", "1.0.0", Some("registry")),
            package("aya", "0.14.0", Some("registry")),
            package("traffic-user", "0.2.0", None),
        ];
        let chosen = chosen(all, &used);
        let names: Vec<_> = chosen.iter().map(|one| format!("{} {}", one.name, one.version)).collect();
        assert_eq!(names, ["aya 0.14.0", "serde 1.0.2"]);
    }
}
