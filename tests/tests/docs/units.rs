//! Every `ini` block is a unit that systemd understands. Its first line is a comment with its path.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use traffic_tests::check::{output, stderr};

use crate::markdown::{blocks, pages, read};

#[test]
fn every_unit_on_a_page_is_valid() -> Result<()> {
    for page in pages()? {
        let directory = TempDir::new()?;
        let mut units = Vec::new();
        for block in blocks(&read(&page)?).iter().filter(|block| block.language == "ini") {
            let name = block.lines.first().and_then(|line| line.strip_prefix("# /etc/systemd/system/"));
            let name = name.with_context(|| format!("{page}:{}: a unit begins with its path", block.line))?;
            // systemd checks that the program exists.
            let lines = block.lines.iter().map(|line| match line.strip_prefix("ExecStart=") {
                Some(_) => "ExecStart=/bin/true",
                None => line,
            });
            let unit = directory.path().join(name);
            fs::write(&unit, lines.collect::<Vec<_>>().join("\n") + "\n")?;
            units.push(unit);
        }
        if units.is_empty() {
            continue;
        }
        let output = output(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units))?;
        ensure!(output.status.success() && stderr(&output).is_empty(), "{page}: {}", stderr(&output));
    }
    Ok(())
}
