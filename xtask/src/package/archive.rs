//! A tar archive of the same files, for every other distribution.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{
    Program,
    contents::{Package, Staging},
};
use crate::command::run;

/// Builds the archive. Returns its path.
pub(super) fn build(staging: &Staging<'_>, program: &Program, output: &Path) -> Result<PathBuf> {
    let name = format!("trafctl-{}-{}", staging.release.version, program.architecture.rpm());
    let root = staging.put(Package::Trafctl, program, &name)?;
    let file = output.join(format!("{name}.tar.gz"));
    run(Command::new("tar")
        .args(["--create", "--use-compress-program=gzip -9 --no-name", "--sort=name", "--format=gnu"])
        .args(["--owner=root:0", "--group=root:0"])
        .arg("--file")
        .arg(&file)
        .arg("--directory")
        .arg(root.parent().unwrap_or(&root))
        .arg(&name))?;
    Ok(file)
}
