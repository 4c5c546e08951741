//! A verified statement, as text for people and as a document.

use serde::Serialize;
use traffic_statement::{Record, Verified};

use super::{columns, json, look::printable};

/// The document of a verification.
#[derive(Serialize)]
struct Checked<'a> {
    /// Always true: anything else is an error.
    valid: bool,
    key: String,
    /// Whether the key was given from elsewhere.
    key_compared: bool,
    /// For a statement in a page: whether the page is the one that this version makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    own_page: Option<bool>,
    log_size: u64,
    container: &'a str,
    statement: &'a traffic_statement::Document,
}

/// What a statement says and what was checked, as a document.
///
/// # Errors
/// When it cannot be serialised.
pub fn document(verified: &Verified, key_compared: bool, own_page: Option<bool>) -> anyhow::Result<String> {
    json::document(&Checked {
        valid: true,
        key: verified.key.to_string(),
        key_compared,
        own_page,
        log_size: verified.log_size,
        container: verified.document.container(),
        statement: &verified.document,
    })
}

/// The same as text.
pub fn text(verified: &Verified, key_compared: bool) -> String {
    let document = &verified.document;
    let period = &document.period;
    let now = document.container_now.as_ref().map_or_else(String::new, |now| format!(" (now {now})"));
    let mut text = format!(
        "container {}{now}, {}: from {} to {}, {}\nclosed {}, statement of {}\n\n",
        document.container(),
        period.name,
        period.start,
        period.end,
        period.time_zone,
        period.closed,
        document.made
    );
    let header = ["CLASS", "IN PACKETS", "IN BYTES", "OUT PACKETS", "OUT BYTES"].map(str::to_owned);
    let line = |sum: &traffic_statement::Sum| {
        let name = sum.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
        let amounts = sum.counts.values().map(|amount| amount.to_string());
        std::iter::once(format!("{}{name}", sum.class)).chain(amounts).collect()
    };
    let lines: Vec<Vec<String>> = document.sums.iter().map(line).collect();
    text += &columns(&header, &(1..5), &lines);
    text.push('\n');
    for correction in document.corrections() {
        if let Record::Correction { made, class, family, counts, reason, .. } = correction {
            let [in_packets, in_bytes, out_packets, out_bytes] = counts.values();
            text += &format!(
                "corrected {made}: class {class} {family}, in {in_bytes:+} bytes in {in_packets:+} packets, out \
                 {out_bytes:+} bytes in {out_packets:+} packets: {reason}\n"
            );
        }
    }
    for gap in &document.gaps {
        let start = gap.start.as_deref().unwrap_or("unknown");
        let interface = gap.interface.as_ref().map_or_else(String::new, |name| format!(", interface {name}"));
        let size = gap.missing.map_or_else(String::new, |missing| {
            let [in_skbs, in_bytes, out_skbs, out_bytes] = missing.values();
            format!(", in {in_bytes} bytes in {in_skbs} buffers, out {out_bytes} bytes in {out_skbs} buffers")
        });
        text += &format!("missing from {start} to {}: {}{interface}{size}\n", gap.end, gap.reason);
    }
    for row in document.dropped.iter().flat_map(|dropped| &dropped.rows) {
        let [in_packets, in_bytes, out_packets, out_bytes] = row.counts.values();
        text += &format!(
            "dropped of class {}, {}: in {in_bytes} bytes in {in_packets} packets, out {out_bytes} bytes in {out_packets} \
             packets\n",
            row.class, row.reason
        );
    }
    if let Some(dropped) = document.dropped.as_ref().filter(|dropped| dropped.recorded_from > period.start) {
        text += &format!("drops are known since {}\n", dropped.recorded_from);
    }
    for row in &document.faults {
        let [in_packets, in_bytes, out_packets, out_bytes] = row.counts.values();
        text += &format!(
            "in no class, {}: in {in_bytes} bytes in {in_packets} packets, out {out_bytes} bytes in {out_packets} \
             packets\n",
            row.reason
        );
    }
    text += &format!(
        "valid: signed, in the log of {} closed months and corrections, and the sums are those of the figures\nkey: {}\n",
        verified.log_size, verified.key
    );
    text += match key_compared {
        true => "it is the key that was given\n",
        false => "compare this key with the one that the issuer publishes, or give that one with --key\n",
    };
    // Texts of others may have what a terminal obeys.
    text.lines().map(|line| printable(line) + "\n").collect()
}
