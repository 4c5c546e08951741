//! The summary on the terminal, and the report in Markdown.

use std::fmt::Write as _;

use crate::evidence::{Figure, Outcome, Row};

/// The summary, with one line for each part.
pub fn summary(outcomes: &[Outcome]) -> String {
    let mut text = String::from("\nPART                  RESULT  COMPARISONS  DIFFERING  SECONDS\n");
    for outcome in outcomes {
        // A write to a string cannot fail.
        let _ = writeln!(
            text,
            "{:20}  {:6}  {:>11}  {:>9}  {:>7}",
            outcome.part,
            if outcome.passed() { "zero" } else { "FAILED" },
            outcome.evidence.rows.len(),
            outcome.differing(),
            outcome.took.as_secs()
        );
    }
    text
}

/// The whole report. `versions` lists the programs and kernels used.
pub fn markdown(outcomes: &[Outcome], versions: &[(String, String)]) -> String {
    let mut text = String::from("# Proof\n\n");
    for (what, version) in versions {
        let _ = writeln!(text, "- {what}: {version}");
    }
    text += "\n| part | what it shows | comparisons | difference | seconds |\n|---|---|---|---|---|\n";
    for outcome in outcomes {
        let difference = match (&outcome.failure, outcome.differing()) {
            (Some(_), _) => "**failed**".to_owned(),
            (None, 0) if outcome.passed() => "zero".to_owned(),
            (None, differing) => format!("**{differing} differ**"),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {difference} | {} |",
            outcome.part,
            outcome.about,
            outcome.evidence.rows.len(),
            outcome.took.as_secs()
        );
    }
    for outcome in outcomes {
        part(&mut text, outcome);
    }
    text
}

fn part(text: &mut String, outcome: &Outcome) {
    let _ = write!(text, "\n## {}\n\n{}.\n\n", outcome.part, outcome.about);
    if let Some(failure) = &outcome.failure {
        let _ = write!(text, "**Ended early:**\n\n```text\n{failure}\n```\n\n");
    }
    for note in &outcome.evidence.notes {
        let _ = writeln!(text, "- {note}");
    }
    if !outcome.evidence.notes.is_empty() {
        text.push('\n');
    }
    for table in &outcome.evidence.tables {
        let _ = write!(text, "{}\n\n", table.trim_end());
    }
    if outcome.evidence.rows.is_empty() {
        return;
    }
    for row in &outcome.evidence.rows {
        comparison(text, row);
    }
}

fn comparison(text: &mut String, row: &Row) {
    let _ = write!(text, "**{}**: sent {}. Witness: {}.\n\n", row.case, row.sent, row.witness);
    *text += "| counted | by the witness | by trafctl | difference |\n|---|---:|---:|---:|\n";
    for figure in &row.figures {
        let Figure { name, witness, trafctl } = figure;
        let _ = writeln!(text, "| {name} | {witness} | {trafctl} | {} |", figure.difference());
    }
    text.push('\n');
}
