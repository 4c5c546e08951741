//! Rows and columns, as an aligned table or as CSV.

use anyhow::Context as _;
use traffic_ledger::{Figures, Volume};

use crate::render;
use traffic_model::counted;

/// Text columns, then number columns, then an optional text column; and the rows.
#[derive(Default)]
pub(super) struct Sheet {
    pub text: Vec<&'static str>,
    pub numbers: Vec<&'static str>,
    pub last: Option<&'static str>,
    pub rows: Vec<Vec<String>>,
}

impl Sheet {
    pub fn new(text: &[&'static str], numbers: &[&'static str]) -> Self {
        Self { text: text.to_vec(), numbers: numbers.to_vec(), ..Self::default() }
    }

    fn header(&self) -> impl Iterator<Item = &'static str> {
        self.text.iter().chain(&self.numbers).copied().chain(self.last)
    }

    pub fn csv(&self) -> anyhow::Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(self.header()).context("cannot format CSV")?;
        for row in &self.rows {
            writer.write_record(row).context("cannot format CSV")?;
        }
        let bytes = writer.into_inner().context("cannot format CSV")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn table(&self) -> String {
        let header: Vec<String> = self.header().map(|name| name.replace('_', " ").to_uppercase()).collect();
        let numbers = self.text.len()..self.text.len() + self.numbers.len();
        render::columns(&header, &numbers, &self.rows)
    }
}

/// Columns of figures of both directions and their sum.
pub(super) const FIGURES: [&str; 6] =
    ["in_packets", "in_bytes", "out_packets", "out_bytes", "packets", "bytes"];

/// The fields of [`FIGURES`]; empty for a direction that the row does not have.
pub(super) fn figures(figures: &Figures) -> [String; 6] {
    let (incoming, outgoing) = (figures.incoming, figures.outgoing);
    [
        number(incoming.map(|volume| volume.packets)),
        number(incoming.map(|volume| volume.bytes)),
        number(outgoing.map(|volume| volume.packets)),
        number(outgoing.map(|volume| volume.bytes)),
        figures.total.packets.to_string(),
        figures.total.bytes.to_string(),
    ]
}

/// A number; empty for none.
pub(super) fn number(value: Option<u64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// A sum as a sentence.
pub(super) fn sum(name: &str, figures: &Figures) -> String {
    let volume = |volume: Option<Volume>| {
        let Volume { packets, bytes } = volume.unwrap_or_default();
        format!("{} in {}", counted(bytes, "byte"), counted(packets, "packet"))
    };
    let (incoming, outgoing) = (volume(figures.incoming), volume(figures.outgoing));
    format!("{name}: in {incoming}; out {outgoing}; together {}", volume(Some(figures.total)))
}
