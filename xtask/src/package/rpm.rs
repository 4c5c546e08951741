//! Packages for distributions with rpm, written by `rpmbuild`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Program,
    contents::{Package, Staging, put, template},
};
use crate::command::run;

/// Builds all packages. Returns their paths.
pub(super) fn build(staging: &Staging<'_>, program: &Program, output: &Path) -> Result<Vec<PathBuf>> {
    Package::ALL.into_iter().map(|package| build_one(package, staging, program, output)).collect()
}

fn build_one(package: Package, staging: &Staging<'_>, program: &Program, output: &Path) -> Result<PathBuf> {
    let root = staging.put(package, program, &format!("rpm-{}", package.name()))?;
    let work = root.with_extension("work");
    let architecture = match package {
        Package::Trafctl => program.architecture.rpm(),
        Package::Virtuozzo => "noarch",
    };
    let spec = work.join(format!("{}.spec", package.name()));
    let text = template(&format!("{}.spec", package.name()), staging.release)?
        .replace("@ROOT@", root.to_str().context("the path of the workspace is not UTF-8")?);
    put(&spec, text.as_bytes(), 0o644)?;
    let define = |name: &str, value: &str| format!("{name} {value}");
    let mut command = Command::new("rpmbuild");
    command
        .env("SOURCE_DATE_EPOCH", staging.release.epoch_s.to_string())
        .args(["-bb", "--quiet", "--target", architecture])
        .args(["--define", &define("_topdir", &work.display().to_string())])
        .args(["--define", &define("_rpmdir", &work.display().to_string())])
        .args(["--define", &define("_buildhost", "trafctl")])
        .args(["--define", "use_source_date_epoch_as_buildtime 1"])
        .args(["--define", "clamp_mtime_to_source_date_epoch 1"])
        .args(["--define", "_build_id_links none"])
        .arg(&spec);
    run(&mut command)?;
    let name = format!("{}-{}-1.{architecture}.rpm", package.name(), staging.release.version);
    let (from, to) = (work.join(architecture).join(&name), output.join(&name));
    fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(to)
}
