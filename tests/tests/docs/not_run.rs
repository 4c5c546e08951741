//! The commands of the pages that no test runs, each with its reason. The list is minimal: an entry that no
//! page needs fails, so that nothing hides behind it.

use anyhow::{Result, ensure};

use crate::commands::of_blocks;
use crate::markdown::{blocks, pages, read};

/// How a command begins, and why it does not run.
const NOT_RUN: &[(&str, &str)] = &[
    ("cargo xtask setup", "installs Debian packages; CI begins with it"),
    ("cargo xtask package", "builds a release; `xtask/src/package` has its tests"),
    ("apt remove", "the test's node has no dpkg; docs/operation.md says what the package does"),
    ("cargo build --release", "CI builds the same program once, not for each test"),
    ("cargo xtask", "takes minutes and builds; CI runs test and prove by themselves"),
    ("tc filter add dev eth0", "an example for a shaper that the reader has; `shaping` tests the mark"),
    ("tcpdump -i eth0", "runs until it is interrupted"),
    ("trafctl store ", "needs a database on another machine; `tests/tests/store.rs` has one"),
    ("trafctl ship ", "as `trafctl store`"),
    ("trafctl report --store", "as `trafctl store`; `tests/tests/store_cli/main.rs` compares each answer"),
    ("trafctl web postgresql:", "as `trafctl store`; `tests/tests/store_cli/web.rs` serves such pages"),
    ("systemctl enable --now trafctl-ship", "as `trafctl store`"),
    (
        "systemctl enable --now trafctl-watch trafctl-quota",
        "the node here has other units; `tests/tests/alerts.rs` starts these",
    ),
    (
        "systemctl enable --now trafctl-quota",
        "the node here has another unit; `tests/tests/quotas/main.rs` starts this one",
    ),
    (
        "systemctl enable --now trafctl-calibrate",
        "as for `trafctl-quota`; `tests/tests/calibrate.rs` starts it",
    ),
    (
        "trafctl reconcile",
        "needs an uplink, and traffic while it measures; `tests/tests/reconcile.rs` compares each figure",
    ),
    ("capinfos", "is in Wireshark's package, which nothing else needs"),
];

/// The demo itself runs: it is the first thing that many see. What `xtask` does around it is left out.
const DEMO: &str = "cargo xtask demo";

/// The options of the demo in a command; `None` if it is none, or waits for a person.
pub fn demo(command: &str) -> Option<&str> {
    let options = command.strip_prefix(DEMO)?.trim();
    ["", "--fleet"].contains(&options).then_some(options)
}

/// Why a command does not run; `None` if it does.
pub fn reason(command: &str) -> Option<&'static str> {
    if demo(command).is_some() {
        return None;
    }
    NOT_RUN.iter().find(|(start, _)| command.starts_with(start)).map(|(_, reason)| *reason)
}

#[test]
fn every_entry_is_needed() -> Result<()> {
    let mut commands = Vec::new();
    for page in pages()? {
        commands.extend(of_blocks(&blocks(&read(&page)?))?);
    }
    for (start, _) in NOT_RUN {
        // The first entry that fits is the one that counts.
        let needs =
            |text: &str| NOT_RUN.iter().find(|(other, _)| text.starts_with(other)).map(|(other, _)| *other);
        let is_needed = commands.iter().any(|command| needs(&command.text) == Some(start));
        ensure!(is_needed, "no page has a command that begins with \"{start}\"; remove the entry");
    }
    Ok(())
}
