//! rustfmt and clippy, which are not part of rustup's minimal profile.

use std::process::Command;

use anyhow::Result;

use super::{State, Step};
use crate::{
    command::{ask, cargo, run_watched},
    report::Progress,
};

/// `(rustup component, cargo subcommand)`
const COMPONENTS: [(&str, &str); 2] = [("rustfmt", "fmt"), ("clippy", "clippy")];

pub(super) struct Components;

fn missing() -> Vec<&'static str> {
    COMPONENTS
        .iter()
        .filter(|(_, subcommand)| ask(cargo().args([subcommand, "--version"])).is_none())
        .map(|(component, _)| *component)
        .collect()
}

impl Step for Components {
    fn name(&self) -> &'static str {
        "rustfmt, clippy"
    }

    fn look(&self) -> State {
        let missing = missing();
        if missing.is_empty() {
            return State::Present("both".to_owned());
        }
        State::Missing(missing.join(" "))
    }

    fn install(&self, progress: &Progress) -> Result<()> {
        let mut command = Command::new("rustup");
        run_watched(command.args(["component", "add"]).args(missing()), progress)
    }
}
