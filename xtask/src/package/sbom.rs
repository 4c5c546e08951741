//! The list of all crates in the program, as CycloneDX 1.5.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;

use super::Release;
use crate::command::{cargo, cargo_metadata};

/// The part of `cargo metadata` that this module uses.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    /// None for the crates of this workspace.
    source: Option<String>,
}

/// Writes the list. Returns its path.
pub(super) fn write(output: &Path, release: &Release) -> Result<PathBuf> {
    let used = used_crates()?;
    let metadata: Metadata = cargo_metadata()?;
    let path = output.join(format!("trafctl-{}.cdx.json", release.version));
    let text = serde_json::to_string_pretty(&document(&metadata, &used, release))?;
    fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// `name version` of each crate that is linked into the program, as cargo's tree lists them.
fn used_crates() -> Result<Vec<String>> {
    let tree = cargo()
        .args(["tree", "--locked", "--package", "traffic-user", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}"])
        .output()
        .context("cannot start `cargo tree`")?;
    if !tree.status.success() {
        bail!("`cargo tree --locked` failed ({})", tree.status);
    }
    let text = String::from_utf8(tree.stdout).context("cargo's tree is not UTF-8")?;
    Ok(parse_tree(&text))
}

/// Reads lines such as `aya v0.14.0 (proc-macro)`.
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

fn document(metadata: &Metadata, used: &[String], release: &Release) -> serde_json::Value {
    let mut crates: Vec<&Crate> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some())
        .filter(|package| used.binary_search(&format!("{} {}", package.name, package.version)).is_ok())
        .collect();
    crates.sort_unstable_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    let components: Vec<_> = crates.into_iter().map(component).collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": format!("pkg:generic/trafctl@{}", release.version),
                "name": "trafctl",
                "version": release.version,
            }
        },
        "components": components,
    })
}

fn component(package: &Crate) -> serde_json::Value {
    let url = format!("pkg:cargo/{}@{}", package.name, package.version.replace('+', "%2B"));
    let mut component = json!({
        "type": "library",
        "bom-ref": url,
        "name": package.name,
        "version": package.version,
        "purl": url,
    });
    if let Some(license) = &package.license {
        // Cargo still accepts a slash for "or".
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    if let Some(repository) = &package.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crates_in_the_program_are_listed() {
        let tree = "traffic-user v0.2.0 (/src)\naya v0.14.0\nserde v1.0.2\nserde v1.0.2 (*)\nderive v2.1.0 (proc-macro)\n";
        let used = parse_tree(tree);
        assert_eq!(used, ["aya 0.14.0", "derive 2.1.0", "serde 1.0.2", "traffic-user 0.2.0"]);
        let package = |name: &str, version: &str, source: Option<&str>| Crate {
            name: name.to_owned(),
            version: version.to_owned(),
            license: Some("MIT/Apache-2.0".to_owned()),
            repository: None,
            source: source.map(str::to_owned),
        };
        let packages = vec![
            package("serde", "1.0.2", Some("registry")),
            package("insta", "1.0.0", Some("registry")),
            package("aya", "0.14.0", Some("registry")),
            package("traffic-user", "0.2.0", None),
        ];
        let release = Release { version: "0.2.0".to_owned(), epoch_s: 1, maintainer: String::new() };
        let document = document(&Metadata { packages }, &used, &release);
        let names: Vec<_> = document["components"].as_array().unwrap().iter().map(|it| &it["purl"]).collect();
        assert_eq!(names, ["pkg:cargo/aya@0.14.0", "pkg:cargo/serde@1.0.2"]);
        assert_eq!(document["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
    }
}
