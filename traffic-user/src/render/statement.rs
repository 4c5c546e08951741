//! A verified statement, as text for people and as a document.

use jiff::Timestamp;
use serde::Serialize;
use traffic_statement::{PublicKey, Record, Revoked, Verified, WitnessKey};

use super::{columns, json, look::printable};

/// The document of a verification.
#[derive(Serialize)]
struct Checked<'a> {
    /// Always true: anything else is an error.
    valid: bool,
    key: String,
    /// Whether the key was given from elsewhere.
    key_compared: bool,
    /// The key that was given, where the statement proves that its own key followed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    earlier_key: Option<String>,
    /// Keys whose statements are refused from a time on, as the newest log that was given says.
    #[serde(skip_serializing_if = "<[Revoked]>::is_empty")]
    revoked: &'a [Revoked],
    /// Number of entries in the log of the later statement that was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    later_log_size: Option<u64>,
    /// The revocation of the statement's key, before which it says that it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_revoked: Option<&'a Revoked>,
    /// Who has seen the log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cosigned: Vec<Cosigned<'a>>,
    /// For a statement in a page: whether the page is the one that this version makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    own_page: Option<bool>,
    log_size: u64,
    container: &'a str,
    statement: &'a traffic_statement::Document,
}

/// A cosignature of the log's state.
#[derive(Serialize)]
struct Cosigned<'a> {
    witness: &'a str,
    /// When it saw it.
    time: String,
    /// Whether it is by a key that was given.
    checked: bool,
}

fn cosigned<'a>(verified: &'a Verified, witnesses: &[WitnessKey]) -> Vec<Cosigned<'a>> {
    let checkpoint = &verified.checkpoint;
    let is_checked =
        |cosignature| witnesses.iter().any(|witness| checkpoint.is_seen_by(cosignature, witness));
    let all = checkpoint.cosignatures.iter().map(|cosignature| Cosigned {
        witness: &cosignature.name,
        time: i64::try_from(cosignature.time)
            .ok()
            .and_then(|time| Timestamp::from_second(time).ok())
            .map_or_else(|| cosignature.time.to_string(), |time| time.to_string()),
        checked: is_checked(cosignature),
    });
    all.collect()
}

/// A later statement that another one was compared with.
#[derive(Debug)]
pub struct With {
    /// The later one.
    pub later: Verified,
    /// The revocation of the other one's key, before which it says that it was made.
    pub revoked: Option<Revoked>,
}

fn newest<'a>(verified: &'a Verified, with: Option<&'a With>) -> &'a Verified {
    with.map_or(verified, |with| &with.later)
}

/// What a statement says and what was checked, as a document.
///
/// # Errors
/// When it cannot be serialised.
pub fn document(
    verified: &Verified,
    given: Option<&PublicKey>,
    with: Option<&With>,
    (own_page, witnesses): (Option<bool>, &[WitnessKey]),
) -> anyhow::Result<String> {
    json::document(&Checked {
        valid: true,
        key: verified.key.to_string(),
        key_compared: given.is_some(),
        earlier_key: given.filter(|given| **given != verified.key).map(ToString::to_string),
        revoked: newest(verified, with).keys.revoked(),
        later_log_size: with.map(|with| with.later.log_size),
        key_revoked: with.and_then(|with| with.revoked.as_ref()),
        cosigned: cosigned(verified, witnesses),
        own_page,
        log_size: verified.log_size,
        container: verified.document.container(),
        statement: &verified.document,
    })
}

/// The same as text.
pub fn text(
    verified: &Verified,
    given: Option<&PublicKey>,
    with: Option<&With>,
    witnesses: &[WitnessKey],
) -> String {
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
    if let Some(calibration) = &document.calibration {
        let [sent, counted] = [calibration.sent, calibration.counted].map(|counts| {
            let [in_packets, in_bytes, out_packets, out_bytes] = counts.values();
            format!(
                "in {in_bytes} bytes in {in_packets} packets, out {out_bytes} bytes in {out_packets} packets"
            )
        });
        let verdict = match calibration.differing {
            0 => "every packet and byte was counted in its class".to_owned(),
            differing => format!("{differing} classes and families differ"),
        };
        text +=
            &format!("known traffic at {}: sent {sent}; counted {counted}; {verdict}\n", calibration.time);
    }
    text += &format!(
        "valid: signed, in the log of {} entries, and the sums are those of the figures\nkey: {}\n",
        verified.log_size, verified.key
    );
    text += match given {
        Some(given) if *given == verified.key => "it is the key that was given\n",
        Some(_) if with.is_some() => "it is a key of the log that the given key signs, or that signs since\n",
        Some(_) => "it followed the key that was given, by signatures of both that are in the log\n",
        None => "compare this key with the one that the issuer publishes, or give that one with --key\n",
    };
    for Cosigned { witness, time, checked } in cosigned(verified, witnesses) {
        let is_checked = if checked { "" } else { ", not checked: give its key with --witness" };
        text += &format!("cosigned by {witness} at {time}{is_checked}\n");
    }
    for revoked in newest(verified, with).keys.revoked() {
        text += &format!("revoked: {}, from {} on: {}\n", revoked.key, revoked.from, revoked.reason);
    }
    if let Some(With { later, revoked }) = with {
        text += &format!("the statement of {} contradicts nothing of this one\n", later.document.made);
        if revoked.is_some() {
            text += "this key was revoked later. Whoever has it can write an earlier time, too: ask for a new statement\n";
        }
    }
    // Texts of others may have what a terminal obeys.
    text.lines().map(|line| printable(line) + "\n").collect()
}
