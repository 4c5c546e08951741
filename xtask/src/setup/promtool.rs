//! promtool and Prometheus, with which the tests check the metrics. Their package also starts a monitoring
//! server, so only these programs are unpacked.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{State, Step};
use crate::{
    command::{is_installed, run_watched, workspace},
    report::Progress,
};

const PACKAGE: &str = "prometheus";
const PROGRAMS: [&str; 2] = ["promtool", "prometheus"];

pub(super) struct Promtool;

impl Promtool {
    fn directory() -> PathBuf {
        workspace().join("target/promtool")
    }
}

impl Step for Promtool {
    fn name(&self) -> &'static str {
        "promtool"
    }

    fn look(&self) -> State {
        let unpacked = PROGRAMS.map(|program| Self::directory().join(program));
        if unpacked.iter().all(|program| program.is_file()) {
            return State::Present(Self::directory().display().to_string());
        }
        if PROGRAMS.iter().all(|program| is_installed(program)) {
            return State::Present("in PATH".to_owned());
        }
        State::Missing(format!("promtool and prometheus from {PACKAGE} (19 MB)"))
    }

    fn install(&self, progress: &Progress) -> Result<()> {
        let directory = Self::directory();
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        // The version is part of the file name. The programs are moved into place last, so that they are never
        // incomplete there.
        let script = format!(
            "apt-get -q update && rm -rf {PACKAGE}_*.deb root && \
             apt-get -q -o APT::Sandbox::User=root download {PACKAGE} && dpkg -x {PACKAGE}_*.deb root && \
             mv root/usr/bin/promtool root/usr/bin/prometheus . && rm -rf {PACKAGE}_*.deb root"
        );
        run_watched(Command::new("sh").args(["-c", &script]).current_dir(&directory), progress).with_context(
            || format!("cannot fetch {PACKAGE}; promtool can also be copied into {}", directory.display()),
        )
    }
}
