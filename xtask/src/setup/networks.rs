//! The lists of networks that the lookup tests compare with: which addresses belong to which country.
//!
//! They come in a package of Debian's that would bring a daemon along; only its files are wanted.

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

/// Where the package's files lie once it is unpacked, or installed.
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
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        // Its name has the version in it.
        let script = format!(
            "apt-get -q update && rm -f {PACKAGE}_*.deb && apt-get -q download {PACKAGE} && dpkg -x {PACKAGE}_*.deb ."
        );
        run_watched(Command::new("sh").args(["-c", &script]).current_dir(&directory), progress).with_context(
            || format!("fetching {PACKAGE}; its files may also be put into {}", directory.display()),
        )
    }
}
