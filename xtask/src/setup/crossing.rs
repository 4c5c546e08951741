//! Rust's standard library for another machine, from Debian's package for that machine. It must have the version
//! of Debian's compiler, which compiles with it. Where rustup's compiler has the library, nothing is fetched.

use std::{fs, os::unix::fs::symlink, process::Command};

use anyhow::{Context, Result};

use super::{State, Step};
use crate::{
    command::run_watched,
    cross::{Library, unpacked_sysroot},
    package::Architecture,
    report::Progress,
};

/// Fetches the package of the other machine with lists and a status of its own, and unpacks it.
/// `$1` the machine's name in Debian.
const FETCH: &str = r#"
set -e
mkdir -p lists/partial cache/archives/partial
: >status
options="-q -o APT::Architecture=$1 -o APT::Architectures=$1 -o APT::Sandbox::User=root -o Acquire::Languages=none
    -o Dir::State=$PWD -o Dir::State::status=$PWD/status -o Dir::Cache=$PWD/cache"
apt-get $options update
version=$(dpkg-query --show --showformat='${Version}' libstd-rust-web-dev)
apt-get $options download "libstd-rust-web-dev=$version"
dpkg -x libstd-rust-web-dev_*.deb unpacked
rm -r lists cache libstd-rust-web-dev_*.deb
"#;

pub(super) struct Crossing(pub(super) Architecture);

impl Step for Crossing {
    fn name(&self) -> &'static str {
        "standard library"
    }

    fn look(&self) -> State {
        match Library::find(self.0) {
            Some(_) => State::Present(self.0.target().to_owned()),
            None => State::Missing(format!("for {}", self.0.target())),
        }
    }

    fn install(&self, progress: &Progress) -> Result<()> {
        let target = self.0.target();
        let sysroot = unpacked_sysroot(self.0);
        // An interrupted run may have left a part of it.
        if sysroot.exists() {
            fs::remove_dir_all(&sysroot).with_context(|| format!("cannot remove {}", sysroot.display()))?;
        }
        let libraries = sysroot.join("lib/rustlib");
        fs::create_dir_all(&libraries).with_context(|| format!("cannot create {}", libraries.display()))?;
        let mut command = Command::new("sh");
        command.args(["-c", FETCH, "fetch", self.0.debian()]).current_dir(&sysroot);
        run_watched(&mut command, progress).with_context(|| {
            format!("cannot fetch Rust's standard library for {target}; try `rustup target add {target}`")
        })?;
        let from = format!("../../unpacked/usr/lib/rustlib/{target}");
        symlink(from, libraries.join(target)).context("cannot link the standard library")
    }
}
