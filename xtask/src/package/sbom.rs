//! The list of all crates in the program, as CycloneDX 1.5.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    Release,
    crates::{self, Crate},
};

/// Writes the list. Returns its path.
pub(super) fn write(output: &Path, release: &Release) -> Result<PathBuf> {
    let crates = crates::of_others()?;
    let path = output.join(format!("trafctl-{}.cdx.json", release.version));
    let text = serde_json::to_string_pretty(&document(&crates, release))?;
    fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn document(crates: &[Crate], release: &Release) -> serde_json::Value {
    let components: Vec<_> = crates.iter().map(component).collect();
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
    if let Some(expression) = package.expression() {
        component["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(repository) = &package.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::crates::tests::package;

    #[test]
    fn each_crate_is_a_component() {
        let crates =
            [package("aya", "0.14.0+b", Some("registry")), package("serde", "1.0.2", Some("registry"))];
        let release = Release { version: "0.2.0".to_owned(), epoch_s: 1, maintainer: String::new() };
        let document = document(&crates, &release);
        let names: Vec<_> = document["components"].as_array().unwrap().iter().map(|it| &it["purl"]).collect();
        assert_eq!(names, ["pkg:cargo/aya@0.14.0%2Bb", "pkg:cargo/serde@1.0.2"]);
        assert_eq!(document["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
    }
}
