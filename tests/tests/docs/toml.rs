//! Every `toml` block is a configuration without a mistake, also with the lines that are commented out. One that
//! begins with the path of the quotas has quotas.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use traffic_tests::check::{output, stderr};
use traffic_tests::lab::trafctl_program;

use crate::markdown::{Block, blocks, pages, read};

/// How a block of quotas begins.
const QUOTAS: &str = "# /etc/trafctl/quotas.toml\n";

/// What trafctl says about a file with quotas; empty if nothing.
fn complaint_about_quotas(text: &str) -> Result<String> {
    let directory = tempfile::tempdir()?;
    let (file, config) = (directory.path().join("quotas.toml"), directory.path().join("trafctl.toml"));
    std::fs::write(&config, "")?;
    std::fs::write(&file, text)?;
    let mut command = Command::new(trafctl_program()?);
    command.arg("--config").arg(config).arg("--state-dir").arg(directory.path());
    let output = output(command.args(["quota", "check"]).arg(&file))?;
    Ok(if output.status.success() { String::new() } else { String::from_utf8(output.stdout)? })
}

/// What trafctl says about a configuration; empty if nothing. `classes check` reads it and needs no kernel.
fn complaint(text: &str) -> Result<String> {
    if text.starts_with(QUOTAS) {
        return complaint_about_quotas(text);
    }
    let directory = tempfile::tempdir()?;
    let (config, classes) = (directory.path().join("trafctl.toml"), directory.path().join("classes"));
    std::fs::write(&config, text)?;
    std::fs::write(&classes, "1 0.0.0.0/0\n1 ::/0\n")?;
    let mut command = Command::new(trafctl_program()?);
    command.arg("--config").arg(&config).arg("--bpffs").arg(directory.path().join("none"));
    command.arg("--state-dir").arg(directory.path()).args(["classes", "check"]).arg(&classes);
    let output = output(&mut command)?;
    Ok(if output.status.success() { String::new() } else { stderr(&output) })
}

/// The block with every key that is commented out. A comment that is prose begins with a capital or has no `=`.
fn uncommented(block: &Block) -> String {
    let plain = block.lines.iter().map(|line| match line.strip_prefix("# ") {
        Some(rest) if rest.starts_with('[') || rest.contains(" = ") => rest,
        _ => line.as_str(),
    });
    plain.collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn every_configuration_on_a_page_is_valid() -> Result<()> {
    let mut seen = 0;
    for page in pages()? {
        for block in blocks(&read(&page)?).iter().filter(|block| block.language == "toml") {
            seen += 1;
            for text in [block.lines.join("\n") + "\n", uncommented(block)] {
                let complaint = complaint(&text).with_context(|| page.clone())?;
                ensure!(complaint.is_empty(), "{page}:{}: {complaint}\n{text}", block.line);
            }
        }
    }
    ensure!(seen > 3, "only {seen} blocks were found");
    ensure!(complaint("unknown = 1\n")?.contains("unknown"));
    Ok(())
}

/// The keys of a table, as the message about an unknown one lists them.
fn keys(table: &str) -> Result<Vec<String>> {
    let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
    let said = complaint(&format!("{header}no_such_key = 1\n"))?;
    let line = said.lines().find(|line| line.contains("unknown field")).with_context(|| said.clone())?;
    let (_, expected) = line.split_once("expected").with_context(|| line.to_owned())?;
    let expected = expected.split(';').next().unwrap_or_default();
    Ok(expected.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

#[test]
fn every_key_is_on_a_page() -> Result<()> {
    let mut text = String::new();
    for page in ["docs/configuration.md", "docs/ledger.md"] {
        for block in blocks(&read(page)?).iter().filter(|block| block.language == "toml") {
            text += &uncommented(block);
        }
    }
    let is_shown = |table: &str, key: &str| {
        let heads = [format!("{key} = "), format!("[{key}]"), format!("[[{key}]]"), format!("[[{key}.")];
        let nested = format!("[{table}.{key}]");
        text.lines().any(|line| heads.iter().any(|head| line.starts_with(head)) || line.contains(&nested))
    };
    let tables = keys("")?;
    ensure!(tables.iter().any(|table| table == "limits"), "{tables:?}");
    for table in tables {
        // The former name of `[shaping]`.
        if table == "mark" {
            continue;
        }
        ensure!(is_shown("", &table), "no page shows the key {table} of the configuration");
        // A key that is no table has no keys.
        for key in keys(&table).unwrap_or_default() {
            ensure!(is_shown(&table, &key), "no page shows the key {key} under [{table}]");
        }
    }
    Ok(())
}

#[test]
fn every_key_of_quotas_is_on_their_page() -> Result<()> {
    let blocks = blocks(&read("docs/quotas.md")?);
    let block = blocks.iter().find(|block| block.language == "toml").context("no block has quotas")?;
    let said = complaint_about_quotas("[[quota]]\nno_such_key_at_all = 1\n")?;
    let (_, known) = said.split_once("known are ").with_context(|| said.clone())?;
    let keys: Vec<&str> = known.lines().next().unwrap_or_default().split(", ").collect();
    ensure!(keys.contains(&"thresholds"), "{keys:?}");
    for key in keys {
        let is_shown = block.lines.iter().any(|line| line.contains(&format!("{key} = ")));
        ensure!(is_shown, "docs/quotas.md does not show the key {key}");
    }
    Ok(())
}
