//! Runs the commands of each page and compares their output.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use traffic_tests::process::run_ok;

use crate::commands::{self, of_blocks};
use crate::expected::first_difference;
use crate::markdown::{blocks, pages, read, repository};
use crate::node::{Begin, Node};
use crate::not_run;
use crate::shell::Shell;

/// In the last line of a preview of something that cannot be undone. Its status is 1, which is no failure.
const PREVIEW: &str = "repeat the command with --yes to ";

/// The pages with commands. Each has a test below.
const PAGES: [&str; 19] = [
    "README.md",
    "docs/api.md",
    "docs/billing.md",
    "docs/calibration.md",
    "docs/classes.md",
    "docs/coming-from-virtuozzo.md",
    "docs/configuration.md",
    "docs/drops.md",
    "docs/faults-and-gaps.md",
    "docs/ledger-hashes.md",
    "docs/ledger.md",
    "docs/operation.md",
    "docs/performance.md",
    "docs/proof.md",
    "docs/quotas.md",
    "docs/reconcile.md",
    "docs/statement.md",
    "docs/store.md",
    "docs/why-figures-differ.md",
];

#[test]
fn every_page_with_commands_has_a_test() -> Result<()> {
    let mut found = Vec::new();
    for page in pages()? {
        if !of_blocks(&blocks(&read(&page)?)).with_context(|| page.clone())?.is_empty() {
            found.push(page);
        }
    }
    ensure!(found == PAGES, "pages with commands: {found:?}");
    let source = include_str!("pages.rs");
    for page in PAGES {
        ensure!(source.contains(&format!("works(\"{page}\"")), "no test runs {page}");
    }
    Ok(())
}

/// Runs all commands of a page. The error has the page, the line, and the difference.
fn works(page: &str, begin: Begin) -> Result<()> {
    let text = read(page)?;
    let commands = of_blocks(&blocks(&text)).with_context(|| page.to_owned())?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut runs: Vec<_> =
        commands.iter().filter(|command| not_run::reason(&command.text).is_none()).collect();
    if runs.is_empty() {
        return Ok(());
    }
    let node = Node::new(page, begin)?;
    let mut shell = node.shell(begin)?;
    let mut problems = Vec::new();
    // From the end of the page, so that a new output moves no line that is still to come.
    let mut outputs = Vec::new();
    for (index, command) in runs.iter().enumerate() {
        let shows_status = runs.get(index + 1).is_some_and(|next| next.text.trim() == "echo $?");
        node.before(page, &command.text)?;
        let output = run(&mut shell, command, shows_status);
        match output.with_context(|| format!("{page}:{}: {}", command.line, command.text)) {
            Ok(output) => outputs.push(output),
            Err(error) => {
                // What follows may need what this command did not do.
                problems.push(format!("{error:#}"));
                break;
            }
        }
    }
    runs.truncate(outputs.len());
    for (command, output) in runs.iter().zip(&outputs).rev() {
        let Some((at, shown)) = &command.output else { continue };
        let real: Vec<&str> = output.lines().collect();
        let Some(difference) = first_difference(shown, &real, command.figures_vary)? else { continue };
        let line = at + difference;
        let shown_line = shown.get(difference).map_or("(nothing)", String::as_str);
        problems
            .push(format!("{page}:{line}: `{}` shows {shown_line:?}, but prints:\n{output}", command.text));
        let indent = lines[command.line - 1].len() - lines[command.line - 1].trim_start().len();
        let fresh = with_what_is_left_out(shown, &real);
        let fresh = fresh.iter().map(|line| format!("{}{line}", " ".repeat(indent)).trim_end().to_owned());
        lines.splice(at - 1..at - 1 + shown.len(), fresh);
    }
    if problems.is_empty() {
        return Ok(());
    }
    if std::env::var_os("TRAFCTL_DOCS").is_some_and(|value| value == "write") {
        let path = repository().join(page);
        fs::write(&path, lines.join("\n") + "\n").with_context(|| format!("cannot write {page}"))?;
    }
    bail!("{}\nTRAFCTL_DOCS=write writes these outputs into the page", problems.join("\n"))
}

/// A new output for a page. Where the page leaves lines out (`...`), they stay out: as many lines as before are
/// kept at the beginning and at the end.
fn with_what_is_left_out<'a>(shown: &[String], real: &[&'a str]) -> Vec<&'a str> {
    let Some(before) = shown.iter().position(|line| line == "...") else { return real.to_vec() };
    let after = shown.len() - before - 1;
    if before + after > real.len() {
        return real.to_vec();
    }
    [&real[..before], &["..."], &real[real.len() - after..]].concat()
}

/// Runs one command and returns its output. It must succeed, be a preview, or be followed by its status.
fn run(shell: &mut Shell, command: &commands::Command, shows_status: bool) -> Result<String> {
    if let Some(options) = not_run::demo(&command.text) {
        let demo = env!("CARGO_BIN_EXE_demo");
        return run_ok(Command::new("sh").args(["-c", "\"$0\" $1 2>&1", demo, options]));
    }
    let done = shell.run(&command.text)?;
    let is_preview =
        done.status == 1 && done.output.lines().last().is_some_and(|line| line.contains(PREVIEW));
    ensure!(
        done.status == 0 || is_preview || shows_status,
        "ended with status {}:\n{}",
        done.status,
        done.output
    );
    Ok(done.output)
}

#[test]
fn readme() -> Result<()> {
    works("README.md", Begin { fresh: true, ..Begin::default() })
}

#[test]
fn api() -> Result<()> {
    works("docs/api.md", Begin { history: true, ..Begin::default() })
}

#[test]
fn billing() -> Result<()> {
    works("docs/billing.md", Begin { history: true, ..Begin::default() })
}

#[test]
fn classes() -> Result<()> {
    works("docs/classes.md", Begin { fresh: true, ..Begin::default() })
}

#[test]
fn coming_from_virtuozzo() -> Result<()> {
    works("docs/coming-from-virtuozzo.md", Begin::default())
}

#[test]
fn configuration() -> Result<()> {
    works("docs/configuration.md", Begin::default())
}

#[test]
fn drops() -> Result<()> {
    works("docs/drops.md", Begin::default())
}

#[test]
fn faults_and_gaps() -> Result<()> {
    works("docs/faults-and-gaps.md", Begin::default())
}

#[test]
fn ledger_hashes() -> Result<()> {
    works("docs/ledger-hashes.md", Begin { history: true, ..Begin::default() })
}

#[test]
fn ledger() -> Result<()> {
    works("docs/ledger.md", Begin { history: true, ..Begin::default() })
}

#[test]
fn operation() -> Result<()> {
    works("docs/operation.md", Begin::default())
}

#[test]
fn performance() -> Result<()> {
    works("docs/performance.md", Begin::default())
}

#[test]
fn proof() -> Result<()> {
    works("docs/proof.md", Begin::default())
}

#[test]
fn quotas() -> Result<()> {
    works("docs/quotas.md", Begin { history: true, ..Begin::default() })
}

#[test]
fn calibration() -> Result<()> {
    works("docs/calibration.md", Begin::default())
}

#[test]
fn reconcile() -> Result<()> {
    works("docs/reconcile.md", Begin::default())
}

#[test]
fn statement() -> Result<()> {
    works("docs/statement.md", Begin { history: true, ..Begin::default() })
}

#[test]
fn store() -> Result<()> {
    works("docs/store.md", Begin::default())
}

#[test]
fn why_figures_differ() -> Result<()> {
    works("docs/why-figures-differ.md", Begin { inside: true, ..Begin::default() })
}
