//! The program behind `cargo xtask soak`: shows progress, prints the comparison as a table, and writes all
//! figures as JSON.

use std::{
    env, fs,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use traffic_tests::{
    Amounts,
    soak::{self, Progress, Summary},
};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let mut arguments = env::args().skip(1);
    let seconds = arguments
        .next()
        .context("usage: soak SECONDS [FILE]")?
        .parse()
        .context("usage: soak SECONDS [FILE]")?;
    let json = arguments.next();
    if arguments.next().is_some() {
        bail!("usage: soak SECONDS [FILE]");
    }
    let length = Duration::from_secs(seconds);
    let terminal = io::stderr().is_terminal();
    let mut next_line = 0;
    let summary = soak::run(length, |now| {
        // One line that is overwritten on a terminal, one line each minute elsewhere.
        if terminal {
            eprint!("\r{}\x1b[K", line(now, seconds));
        } else if now.seconds >= next_line {
            eprintln!("{}", line(now, seconds));
            next_line = now.seconds + 60;
        }
    })?;
    if terminal {
        eprintln!();
    }
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&summary)? + "\n";
        fs::write(&file, text).with_context(|| format!("cannot write {file}"))?;
    }
    let faults = summary.faults();
    io::stdout().write_all(table(&summary, &faults).as_bytes()).context("cannot write to standard output")?;
    Ok(faults.is_empty())
}

fn line(now: Progress, seconds: u64) -> String {
    format!(
        "{} of {seconds} s: {} packets sent, {} kills, the daemon has {} KiB",
        now.seconds, now.packets, now.kills, now.memory_kib
    )
}

fn table(summary: &Summary, faults: &[String]) -> String {
    let mut lines = vec![format!(
        "{:<18} {:>12} {:>15} {:>12} {:>15}  {:>9} {:>9}",
        "", "in packets", "in bytes", "out packets", "out bytes", "counters", "ledger"
    )];
    let differs = |one: Amounts, other: Amounts| {
        one.in_bytes.abs_diff(other.in_bytes)
            + one.in_packets.abs_diff(other.in_packets)
            + one.out_bytes.abs_diff(other.out_bytes)
            + one.out_packets.abs_diff(other.out_packets)
    };
    for row in &summary.rows {
        let Amounts { in_packets, in_bytes, out_packets, out_bytes } = row.sent;
        lines.push(format!(
            "{:<18} {in_packets:>12} {in_bytes:>15} {out_packets:>12} {out_bytes:>15}  {:>9} {:>9}",
            row.what,
            differs(row.sent, row.counted),
            differs(row.sent, row.booked),
        ));
    }
    lines.push(
        "(the senders' counts; the last two columns are the differences of the counters and the ledger from them)"
            .to_owned(),
    );
    lines.push(format!(
        "\n{} s; {} class tables loaded, {} interfaces created and removed, {} kills; gaps: {:?}",
        summary.seconds, summary.reloads, summary.churned, summary.kills, summary.gaps
    ));
    if let Some([first, second, last]) = summary.memory.thirds() {
        lines.push(format!("memory in the thirds of the last daemon's life: {first}, {second}, {last} KiB"));
    }
    let step = (summary.memory.samples().len() / 20).max(1);
    let samples: Vec<String> = summary
        .memory
        .samples()
        .iter()
        .step_by(step)
        .map(|sample| format!("{} s {} KiB", sample.seconds, sample.memory_kib))
        .collect();
    lines.push(format!("memory over time: {}", samples.join(", ")));
    lines.extend(faults.iter().map(|fault| format!("PROBLEM: {fault}")));
    lines.push(if faults.is_empty() { "every packet and byte agrees" } else { "the run failed" }.to_owned());
    lines.join("\n") + "\n"
}
