//! The evidence of a part: rows that compare a witness with trafctl, and other content of the report.

use std::time::Duration;

use traffic_tests::Amounts;

/// One figure of both parties.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it counts, with the unit: `in packets`, `out bytes`.
    pub name: String,
    /// The figure of the witness.
    pub witness: u64,
    /// The figure of trafctl.
    pub trafctl: u64,
}

impl Figure {
    /// The difference of trafctl from the witness.
    pub fn difference(&self) -> i128 {
        i128::from(self.trafctl) - i128::from(self.witness)
    }
}

/// One comparison.
#[derive(Clone, Debug)]
pub struct Row {
    /// The name of the case.
    pub case: String,
    /// What was sent, and how.
    pub sent: String,
    /// The witness.
    pub witness: String,
    /// The figures.
    pub figures: Vec<Figure>,
}

impl Row {
    /// A comparison without figures.
    pub fn new(case: impl Into<String>, sent: impl Into<String>, witness: impl Into<String>) -> Self {
        Self { case: case.into(), sent: sent.into(), witness: witness.into(), figures: Vec::new() }
    }

    /// Adds a figure.
    #[must_use]
    pub fn count(mut self, name: &str, witness: u64, trafctl: u64) -> Self {
        self.figures.push(Figure { name: name.to_owned(), witness, trafctl });
        self
    }

    /// Adds packets and bytes of both directions.
    #[must_use]
    pub fn amounts(self, witness: Amounts, trafctl: Amounts) -> Self {
        self.count("in packets", witness.in_packets, trafctl.in_packets)
            .count("in bytes", witness.in_bytes, trafctl.in_bytes)
            .count("out packets", witness.out_packets, trafctl.out_packets)
            .count("out bytes", witness.out_bytes, trafctl.out_bytes)
    }

    /// Adds a fact: expected once, observed once or never.
    #[must_use]
    pub fn fact(self, name: &str, holds: bool) -> Self {
        self.count(name, 1, u64::from(holds))
    }

    /// Whether there are figures, and all of them agree.
    pub fn agrees(&self) -> bool {
        !self.figures.is_empty() && self.figures.iter().all(|figure| figure.difference() == 0)
    }
}

/// The findings of a part. They are added as it runs, so that a part that fails keeps its findings.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The comparisons.
    pub rows: Vec<Row>,
    /// Versions and circumstances, one line each.
    pub notes: Vec<String>,
    /// Whole tables in Markdown.
    pub tables: Vec<String>,
}

impl Evidence {
    /// Adds a comparison and prints its result.
    pub fn row(&mut self, row: Row) {
        let mark = if row.agrees() { '✓' } else { '✗' };
        eprintln!("  {mark} {}", row.case);
        for figure in row.figures.iter().filter(|figure| figure.difference() != 0) {
            eprintln!("    {}: witness {}, trafctl {}", figure.name, figure.witness, figure.trafctl);
        }
        self.rows.push(row);
    }

    /// Adds a line about versions or circumstances.
    pub fn note(&mut self, line: impl Into<String>) {
        self.notes.push(line.into());
    }

    /// Adds a table in Markdown.
    pub fn table(&mut self, markdown: impl Into<String>) {
        self.tables.push(markdown.into());
    }
}

/// The outcome of a part.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub part: &'static str,
    /// The summary of what it proves.
    pub about: &'static str,
    /// Its findings.
    pub evidence: Evidence,
    /// The error that ended it early.
    pub failure: Option<String>,
    /// Its duration.
    pub took: Duration,
}

impl Outcome {
    /// Whether it ran to its end and all comparisons agree. A part without comparisons has proved nothing.
    pub fn passed(&self) -> bool {
        self.failure.is_none() && !self.evidence.rows.is_empty() && self.evidence.rows.iter().all(Row::agrees)
    }

    /// The number of comparisons that differ.
    pub fn differing(&self) -> usize {
        self.evidence.rows.iter().filter(|row| !row.agrees()).count()
    }
}
