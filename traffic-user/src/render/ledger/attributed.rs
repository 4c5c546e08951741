//! What `trafctl container attribute` did or would do.

use serde::Serialize;
use traffic_ledger::{Attribution, PendingOwner};
use traffic_model::{ContainerId, local_time::LocalTime};

use crate::render::{
    json,
    ledger::{Format, NOTHING_WRITTEN, sheet::sum},
};

/// The result of attributing a pending owner, or what it would be.
#[derive(Debug, Serialize)]
pub struct Attributed {
    /// False for a preview.
    pub written: bool,
    /// The pending owner.
    pub pending: String,
    /// The container.
    pub container: String,
    /// What the ledger has of the pending owner, in a preview.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<PendingOwner>,
    /// What the ledger recorded, now or before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribution: Option<Attribution>,
    /// Whether live counters have the pending id, so that they become the container's.
    pub has_live_counters: bool,
    /// For times in the text.
    #[serde(skip)]
    pub local_time: LocalTime,
}

impl Attributed {
    /// Nothing was found or done yet.
    pub fn new(pending: &str, container: &ContainerId, local_time: LocalTime) -> Self {
        Self {
            written: false,
            pending: pending.to_owned(),
            container: container.to_string(),
            preview: None,
            attribution: None,
            has_live_counters: false,
            local_time,
        }
    }

    /// Whether neither the ledger nor the live counters have the pending owner.
    pub const fn is_unknown(&self) -> bool {
        self.preview.is_none() && self.attribution.is_none() && !self.has_live_counters
    }
}

/// The result, made or previewed.
///
/// # Errors
/// When the output cannot be formatted.
pub fn attributed(attributed: &Attributed, format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        return json::document(attributed);
    }
    let Attributed { written, pending, container, preview, attribution, has_live_counters, local_time } =
        attributed;
    let mut lines = Vec::new();
    if let Some(done) = attribution {
        let [in_packets, in_bytes, out_packets, out_bytes] = done.recorded;
        let made = local_time.text(done.made);
        lines.push(match done.is_repeated || !written {
            true => format!("{pending} was attributed to {} at {made}", done.owner),
            false => format!("what was recorded of {pending} is {}'s now", done.owner),
        });
        lines.push(format!(
            "all classes: in {in_bytes} bytes {in_packets} packets, out {out_bytes} bytes {out_packets} packets"
        ));
        lines.extend(done.corrected.iter().map(|month| {
            format!("{month} is closed and stays as it is; corrections give the figures to {}", done.owner)
        }));
    }
    if let Some(preview) = preview {
        lines.push(format!(
            "would give {container} what was counted as {pending} since {}",
            local_time.text(preview.since)
        ));
        lines.push(sum("total", &preview.total));
    }
    lines.extend(has_live_counters.then(|| match written {
        true => format!("the live counters are {container}'s now"),
        false => format!("the live counters would be {container}'s"),
    }));
    lines.extend((!written).then(|| NOTHING_WRITTEN.to_owned()));
    Ok(lines.join("\n") + "\n")
}
