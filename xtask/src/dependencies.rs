//! Checks licences, sources and versions of all dependencies by the rules in `deny.toml`.
//!
//! `cargo deny` reads the same file and checks more. It is not used here: to compile it takes longer than all
//! other checks together, and this part needs no network.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::{cargo_metadata, workspace};

/// The part of `deny.toml` that this module checks.
#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Named>,
    deny: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    /// `name` or `name@version`, where the version may be a prefix.
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: BTreeSet<String>,
}

/// The part of `cargo metadata` that this module uses.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for the crates of this workspace.
    source: Option<String>,
}

/// Checks every crate in the lock file.
///
/// # Errors
/// When a crate breaks a rule, or `deny.toml` or cargo's output cannot be read.
pub fn check() -> Result<()> {
    let path = workspace().join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let rules: Rules = toml::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))?;
    let metadata: Metadata = cargo_metadata()?;
    let problems = problems(&rules, &metadata.packages);
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        bail!("{} crates break the rules in deny.toml", problems.len());
    }
    eprintln!("{} crates comply with deny.toml", metadata.packages.len());
    Ok(())
}

fn problems(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        let Package { name, version, license, source } = package;
        match license {
            Some(license) if satisfied(license, &rules.licenses.allow) => {}
            Some(license) => problems.push(format!("{name} {version}: licence {license} is not allowed")),
            None => problems.push(format!("{name} {version}: it states no licence")),
        }
        if let Some(source) = source {
            let registry = source.strip_prefix("registry+");
            if !registry.is_some_and(|registry| rules.sources.allow_registry.contains(registry)) {
                problems.push(format!("{name} {version}: its source {source} is not allowed"));
            }
        }
        if rules.bans.deny.iter().any(|banned| banned.name == *name) {
            problems.push(format!("{name} {version}: it is banned"));
        }
        versions.entry(name).or_default().insert(version);
    }
    for (name, versions) in versions.into_iter().filter(|(_, versions)| versions.len() > 1) {
        let unexpected = versions.iter().any(|version| {
            !rules.bans.skip.iter().any(|skip| {
                let rest = skip.name.strip_prefix(name).and_then(|rest| rest.strip_prefix('@'));
                rest.is_some_and(|start| version.starts_with(&format!("{start}.")))
            })
        });
        if unexpected {
            problems.push(format!("{name}: there are several versions, {versions:?}"));
        }
    }
    problems
}

/// Whether the allowed licences satisfy an SPDX expression. `/` is the older form of `OR`.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let value = either(&mut rest, allowed);
    value.unwrap_or(false) && rest.is_empty()
}

fn either(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut value = all(words, allowed)?;
    while words.first() == Some(&"OR") {
        *words = &words[1..];
        value |= all(words, allowed)?;
    }
    Some(value)
}

fn all(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut value = one(words, allowed)?;
    while words.first() == Some(&"AND") {
        *words = &words[1..];
        value &= one(words, allowed)?;
    }
    Some(value)
}

fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let (&first, rest) = words.split_first()?;
    *words = rest;
    if first == "(" {
        let value = either(words, allowed)?;
        *words = words.strip_prefix(&[")"])?;
        return Some(value);
    }
    if words.first() == Some(&"WITH") {
        // An exception only removes conditions, but the rules must name the licence together with it.
        let name = format!("{first} WITH {}", words.get(1)?);
        *words = &words[2..];
        return Some(allowed.contains(&name));
    }
    Some(allowed.contains(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        toml::from_str(
            r#"
            licenses.allow = ["MIT", "Zlib"]
            bans.skip = [{ crate = "two@1" }, { crate = "two@2" }, { crate = "three@1" }]
            bans.deny = [{ crate = "banned" }]
            sources.allow-registry = ["https://here"]
            "#,
        )
        .unwrap()
    }

    fn package(name: &str, version: &str, license: &str, source: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            license: (!license.is_empty()).then(|| license.to_owned()),
            source: (!source.is_empty()).then(|| source.to_owned()),
        }
    }

    #[test]
    fn licence_expressions_are_evaluated() {
        let allowed = rules().licenses.allow;
        for good in
            ["MIT", "MIT/Apache-2.0", "GPL-2.0-only OR MIT", "(GPL-3.0 OR Zlib) AND MIT", "MIT AND Zlib"]
        {
            assert!(satisfied(good, &allowed), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT", "", "MIT WITH x", "MIT MIT", "MIT OR"] {
            assert!(!satisfied(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn each_broken_rule_is_reported() {
        let here = "registry+https://here";
        let check = |packages: &[Package]| problems(&rules(), packages);
        assert_eq!(
            check(&[package("a", "1.0.0", "MIT", here), package("ours", "0.1.0", "MIT", "")]),
            [""; 0]
        );
        assert_eq!(
            check(&[package("two", "1.2.0", "MIT", here), package("two", "2.0.0", "MIT", here)]),
            [""; 0]
        );
        for (packages, problem) in [
            (vec![package("a", "1.0.0", "GPL-3.0", here)], "licence GPL-3.0"),
            (vec![package("a", "1.0.0", "", here)], "states no licence"),
            (vec![package("a", "1.0.0", "MIT", "git+https://here")], "source git+https://here"),
            (vec![package("a", "1.0.0", "MIT", "registry+https://there")], "source registry+https://there"),
            (vec![package("banned", "1.0.0", "MIT", here)], "is banned"),
            (
                vec![package("three", "1.0.0", "MIT", here), package("three", "10.0.0", "MIT", here)],
                "several versions",
            ),
        ] {
            let found = check(&packages);
            assert!(found.len() == 1 && found[0].contains(problem), "{found:?}");
        }
    }
}
