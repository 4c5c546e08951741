//! What a part of the proof has to show: rows that set a witness beside trafctl, and what belongs to them in the report.

use std::time::Duration;

use traffic_tests::Amounts;

/// One figure as two parties have it.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it counts, with its unit: `in packets`, `out bytes`.
    pub name: String,
    /// By the witness.
    pub witness: u64,
    /// By trafctl.
    pub trafctl: u64,
}

impl Figure {
    /// How far trafctl is from the witness.
    pub fn difference(&self) -> i128 {
        i128::from(self.trafctl) - i128::from(self.witness)
    }
}

/// One comparison.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is about, in a few words.
    pub case: String,
    /// What was sent, and how.
    pub sent: String,
    /// Who the witness is.
    pub witness: String,
    /// The figures.
    pub figures: Vec<Figure>,
}

impl Row {
    /// A comparison without figures yet.
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

    /// Adds something that is so or not: expected once, seen once or not at all.
    #[must_use]
    pub fn fact(self, name: &str, holds: bool) -> Self {
        self.count(name, 1, u64::from(holds))
    }

    /// Whether both parties agree, and said anything at all.
    pub fn agrees(&self) -> bool {
        !self.figures.is_empty() && self.figures.iter().all(|figure| figure.difference() == 0)
    }
}

/// What a part has found, filled by it as it goes, so that a part that fails keeps what it had.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The comparisons.
    pub rows: Vec<Row>,
    /// Versions and circumstances, a line each.
    pub notes: Vec<String>,
    /// Whole tables in Markdown, for what rows can't say.
    pub tables: Vec<String>,
}

impl Evidence {
    /// Adds a comparison and says how it went.
    pub fn row(&mut self, row: Row) {
        let mark = if row.agrees() { '✓' } else { '✗' };
        eprintln!("  {mark} {}", row.case);
        for figure in row.figures.iter().filter(|figure| figure.difference() != 0) {
            eprintln!("    {}: witness {}, trafctl {}", figure.name, figure.witness, figure.trafctl);
        }
        self.rows.push(row);
    }

    /// Adds a line on versions or circumstances.
    pub fn note(&mut self, line: impl Into<String>) {
        self.notes.push(line.into());
    }

    /// Adds a table in Markdown.
    pub fn table(&mut self, markdown: impl Into<String>) {
        self.tables.push(markdown.into());
    }
}

/// What became of a part.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub part: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// What it found.
    pub evidence: Evidence,
    /// Why it could not go on, if it could not.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Whether it ran to its end and every comparison agrees. A part without a comparison has shown nothing.
    pub fn passed(&self) -> bool {
        self.failure.is_none() && !self.evidence.rows.is_empty() && self.evidence.rows.iter().all(Row::agrees)
    }

    /// The comparisons that do not agree.
    pub fn differing(&self) -> usize {
        self.evidence.rows.iter().filter(|row| !row.agrees()).count()
    }
}
