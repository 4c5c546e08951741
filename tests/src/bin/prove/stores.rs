//! Histories of simulated nodes and their stores, from their seeds. The simulator is the test of `traffic-store`, whose
//! executable `cargo xtask prove` puts beside this program.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::bench::Bench;
use crate::evidence::{Evidence, Row};

/// The summary of this part.
pub const ABOUT: &str = "simulated nodes and both kinds of store, with lost acknowledgements, repeats, late batches, two \
    shippers, restored copies and older programs: the store holds each row of the ledger once, and one altered row is \
    found";

/// The file name of the simulator.
const PROGRAM: &str = "store-histories";

/// Histories of each kind.
const HISTORIES: u64 = 10_000;

/// The kinds, each with its test.
const KINDS: [(&str, &str); 2] = [
    (
        "in transactions, as PostgreSQL",
        "tests::histories::a_store_in_transactions_holds_what_the_ledger_holds",
    ),
    (
        "in replacing tables, as ClickHouse",
        "tests::histories::a_store_in_replacing_tables_holds_what_the_ledger_holds",
    ),
];

/// Runs the part.
pub fn run(bench: &Bench, evidence: &mut Evidence) -> Result<()> {
    let program = env::current_exe().context("cannot find the path of this program")?.with_file_name(PROGRAM);
    ensure!(
        program.is_file(),
        "there is no simulator {}; `cargo xtask prove --part stores` builds it",
        program.display()
    );
    let mut seeds = Vec::new();
    for (kind, test) in KINDS {
        bench.step(&format!("{HISTORIES} histories of a store {kind}"));
        let mut command = Command::new(&program);
        command.args(["--exact", test, "--nocapture"]).env_remove("TRAFCTL_FIRST");
        command.env("TRAFCTL_HISTORIES", HISTORIES.to_string());
        // Progress and panics are on stderr.
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let (ran, failed) = result(&text).with_context(|| format!("the simulator printed: {text}"))?;
        let row = Row::new(
            format!("histories of a store {kind}"),
            "drains, failing connections, copies, older programs",
            "the ledger, row by row, and the digests",
        );
        evidence.row(row.count("histories that agree", HISTORIES, ran - failed.len() as u64));
        // What ended the program otherwise is no history that failed.
        ensure!(output.status.success() == failed.is_empty(), "the simulator ended with {}", output.status);
        seeds.extend(failed.into_iter().map(|seed| format!("seed {seed} of a store {kind}")));
    }
    if !seeds.is_empty() {
        bail!("{}", seeds.join("\n"));
    }
    Ok(())
}

/// How many histories ran, and the seeds of those that failed, by the simulator's line.
fn result(text: &str) -> Option<(u64, Vec<u64>)> {
    let line = text.lines().find_map(|line| line.split_once(" histories, "));
    let (ran, rest) = line?;
    // The test's name comes before, in the same line.
    let ran = ran.rsplit(' ').next()?.parse().ok()?;
    let seeds = rest.split_once("seeds [")?.1.strip_suffix(']')?;
    let seeds = seeds.split(", ").filter(|seed| !seed.is_empty()).map(|seed| seed.parse().ok());
    Some((ran, seeds.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_simulator_is_understood() {
        let of = |line: &str| result(&format!("running 1 test\n{line}\nok\n"));
        assert_eq!(of("test a::b ... 10000 histories, 0 failed: seeds []"), Some((10_000, vec![])));
        assert_eq!(of("500 histories, 2 failed: seeds [7, 4711]"), Some((500, vec![7, 4711])));
        assert_eq!(of("running 0 tests"), None);
        assert_eq!(of("500 histories, 2 failed: seeds [7, x]"), None);
    }
}
