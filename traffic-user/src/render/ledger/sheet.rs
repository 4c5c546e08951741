//! Rows and columns, as an aligned table or as CSV.

use anyhow::Context as _;
use traffic_ledger::{Billing, Figures, SignedFigures, SignedVolume, Volume};

use crate::render;
use traffic_model::counted;

/// Text columns, then number columns, then text columns again; and the rows.
#[derive(Default)]
pub(super) struct Sheet {
    pub text: Vec<&'static str>,
    pub numbers: Vec<&'static str>,
    pub last: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
    /// The percentile that rates are of.
    pub percent: Option<f64>,
}

impl Sheet {
    pub fn new(text: &[&'static str], numbers: &[&'static str]) -> Self {
        Self { text: text.to_vec(), numbers: numbers.to_vec(), ..Self::default() }
    }

    fn header(&self) -> impl Iterator<Item = &'static str> {
        self.text.iter().chain(&self.numbers).chain(&self.last).copied()
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
        let heading = |name: &str| match (name.strip_suffix("bits_per_s"), self.percent) {
            (Some(what), Some(percent)) => format!("{what}{}_bits_per_s", ordinal(percent)),
            _ => name.to_owned(),
        };
        let header = self.header().map(|name| heading(name).replace('_', " ").to_uppercase());
        let header: Vec<String> = header.collect();
        let numbers = self.text.len()..self.text.len() + self.numbers.len();
        render::columns(&header, &numbers, &self.rows)
    }
}

/// Such as `95th`.
pub(super) fn ordinal(percent: f64) -> String {
    let end = match percent.to_string().as_str() {
        "1" | "21" | "31" | "41" | "51" | "61" | "71" | "81" | "91" => "st",
        "2" | "22" | "32" | "42" | "52" | "62" | "72" | "82" | "92" => "nd",
        "3" | "23" | "33" | "43" | "53" | "63" | "73" | "83" | "93" => "rd",
        _ => "th",
    };
    format!("{percent}{end}")
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

/// Columns of what a row is billed, in CSV.
pub(super) const BILLING: [&str; 18] = [
    "billed_in_packets",
    "billed_in_bytes",
    "billed_out_packets",
    "billed_out_bytes",
    "billed_packets",
    "billed_bytes",
    "corrected_in_packets",
    "corrected_in_bytes",
    "corrected_out_packets",
    "corrected_out_bytes",
    "corrected_packets",
    "corrected_bytes",
    "to_bill_in_packets",
    "to_bill_in_bytes",
    "to_bill_out_packets",
    "to_bill_out_bytes",
    "to_bill_packets",
    "to_bill_bytes",
];

/// The fields of [`BILLING`]; empty for class 0, and for a direction that the row does not have.
pub(super) fn billing(billing: Option<&Billing>) -> Vec<String> {
    let Some(billing) = billing else { return vec![String::new(); BILLING.len()] };
    let signed = |figures: &SignedFigures| {
        let text = |volume: Option<SignedVolume>, value: fn(&SignedVolume) -> i64| {
            volume.map(|volume| value(&volume).to_string()).unwrap_or_default()
        };
        [figures.incoming, figures.outgoing, Some(figures.total)]
            .map(|volume| [text(volume, |volume| volume.packets), text(volume, |volume| volume.bytes)])
    };
    let (corrected, to_bill) = (signed(&billing.corrected), signed(&billing.to_bill));
    let mut fields = figures(&billing.billed).to_vec();
    fields.extend(corrected.into_iter().chain(to_bill).flatten());
    fields
}

/// Columns of what a row is billed, in a table that has corrections. Bytes of the directions that it shows.
pub(super) const SHORT_BILLING: [&str; 3] = ["billed", "corrected", "to_bill"];

/// The fields of [`SHORT_BILLING`]; empty for class 0.
pub(super) fn short_billing(billing: Option<&Billing>) -> [String; 3] {
    let Some(billing) = billing else { return Default::default() };
    let Billing { billed, corrected, to_bill } = billing;
    let corrected = match corrected.total.bytes {
        0 => "0".to_owned(),
        bytes => format!("{bytes:+}"),
    };
    [billed.total.bytes.to_string(), corrected, to_bill.total.bytes.to_string()]
}

/// What is billed in all rows, as sentences below a table; none without corrections.
pub(super) fn billing_notes(billing: &Billing) -> Vec<String> {
    let Billing { corrected, to_bill, .. } = billing;
    if corrected.is_zero() {
        return Vec::new();
    }
    let volume = |volume: Option<SignedVolume>, plus: bool| {
        let SignedVolume { packets, bytes } = volume.unwrap_or_default();
        if plus {
            format!("{bytes:+} bytes in {packets:+} packets")
        } else {
            format!("{bytes} bytes in {packets} packets")
        }
    };
    [("corrected", corrected, true), ("to bill", to_bill, false)]
        .map(|(name, figures, plus)| {
            let (incoming, outgoing) = (volume(figures.incoming, plus), volume(figures.outgoing, plus));
            format!("{name}: in {incoming}; out {outgoing}; together {}", volume(Some(figures.total), plus))
        })
        .to_vec()
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
