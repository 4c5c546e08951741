//! Packages for Debian, written by `dpkg-deb`.

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
use crate::command::{ask, run};

/// Scripts that dpkg runs.
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// Why lintian finds a program that contains the C library.
const STATIC: &str = "# It runs where the C library is older than that of the machine that built it.
trafctl: statically-linked-binary [usr/sbin/trafctl]
";

/// Builds all packages. Returns their paths.
pub(super) fn build(staging: &Staging<'_>, program: &Program, output: &Path) -> Result<Vec<PathBuf>> {
    Package::ALL.into_iter().map(|package| build_one(package, staging, program, output)).collect()
}

fn build_one(package: Package, staging: &Staging<'_>, program: &Program, output: &Path) -> Result<PathBuf> {
    let root = staging.put(package, program, &format!("deb-{}", package.name()))?;
    if package == Package::Trafctl {
        fs::remove_dir_all(root.join("etc")).context("cannot remove the configuration from the package")?;
    }
    let library = program.needed_glibc()?;
    if package == Package::Trafctl && library.is_none() {
        put(&root.join("usr/share/lintian/overrides/trafctl"), STATIC.as_bytes(), 0o644)?;
        staging.fix_metadata(&root)?;
    }
    let control = root.join("DEBIAN");
    let architecture = match package {
        Package::Trafctl => program.architecture.debian(),
        Package::Virtuozzo => "all",
    };
    let size = installed_kib(&root)?;
    let library = library.map(|version| format!("libc6 (>= {version}), libgcc-s1, "));
    let text = template(&format!("{}.control", package.name()), staging.release)?
        .replace("@ARCHITECTURE@", architecture)
        .replace("@INSTALLED_SIZE@", &size.to_string())
        .replace("@LIBRARY@", &library.unwrap_or_default());
    put(&control.join("md5sums"), md5_sums(&root)?.as_bytes(), 0o644)?;
    put(&control.join("control"), text.as_bytes(), 0o644)?;
    if package == Package::Trafctl {
        for script in SCRIPTS {
            let text = template(&format!("deb.{script}"), staging.release)?;
            put(&control.join(script), text.as_bytes(), 0o755)?;
        }
    }
    staging.fix_metadata(&control)?;
    let file = output.join(format!("{}_{}_{architecture}.deb", package.name(), staging.release.version));
    run(Command::new("dpkg-deb")
        .env("SOURCE_DATE_EPOCH", staging.release.epoch_s.to_string())
        .args(["--root-owner-group", "-Zxz", "--build"])
        .arg(&root)
        .arg(&file))?;
    Ok(file)
}

/// The room that the files take, in KiB.
fn installed_kib(root: &Path) -> Result<u64> {
    let text =
        ask(Command::new("du").args(["--summarize", "--apparent-size", "--block-size=1024"]).arg(root))
            .context("cannot run du")?;
    let number = text.split_whitespace().next().unwrap_or_default();
    number.parse().with_context(|| format!("du answered {text:?}"))
}

/// Sums of all files, as dpkg keeps them for `dpkg --verify`.
fn md5_sums(root: &Path) -> Result<String> {
    let list = ask(Command::new("find").current_dir(root).args(["usr", "-type", "f"]))
        .context("cannot list the files of the package")?;
    let mut files: Vec<_> = list.lines().collect();
    files.sort_unstable();
    let sums = ask(Command::new("md5sum").current_dir(root).args(&files)).context("cannot run md5sum")?;
    Ok(sums + "\n")
}
