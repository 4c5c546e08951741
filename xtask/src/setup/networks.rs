//! The lists of networks by country that the lookup tests use.
//!
//! The Debian package that contains them depends on a daemon, so only its files are unpacked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{State, Step};
use crate::{
    command::{run_watched, workspace},
    report::Progress,
};

const PACKAGE: &str = "tor-geoipdb";

/// The files of the package, below the directory where it is unpacked or installed.
const FILES: [&str; 2] = ["usr/share/tor/geoip", "usr/share/tor/geoip6"];

pub(super) struct Networks;

impl Networks {
    fn unpacked() -> PathBuf {
        workspace().join("target/geoip")
    }
}

impl Step for Networks {
    fn name(&self) -> &'static str {
        "lists of networks"
    }

    fn look(&self) -> State {
        let unpacked = Self::unpacked();
        let there = [unpacked.as_path(), Path::new("/")]
            .into_iter()
            .find(|root| FILES.iter().all(|file| root.join(file).is_file()));
        match there {
            Some(root) => State::Present(format!("in {}", root.display())),
            None => State::Missing(format!("the files of {PACKAGE}")),
        }
    }

    fn install(&self, progress: &Progress) -> Result<()> {
        let directory = Self::unpacked();
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        // The version is part of the file name.
        let script = format!(
            "apt-get -q update && rm -f {PACKAGE}_*.deb && apt-get -q download {PACKAGE} && dpkg -x {PACKAGE}_*.deb ."
        );
        run_watched(Command::new("sh").args(["-c", &script]).current_dir(&directory), progress).with_context(
            || format!("cannot fetch {PACKAGE}; its files can also be unpacked into {}", directory.display()),
        )
    }
}
