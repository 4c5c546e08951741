//! A run of an action that a crossing orders, and what is told about it: a document, variables, a mail, an event.

use serde::Serialize;
use traffic_ledger::QuotaCrossing;
use traffic_model::units;
use traffic_quota::Change;

use super::webhook::Event;

/// Version of the document that an action reads.
const VERSION: u32 = 1;

/// A run of an action that a crossing orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The id that stays.
    pub id: String,
    /// Name of the action.
    pub action: String,
    /// The crossing.
    pub crossing: QuotaCrossing,
}

/// The runs that a crossing orders.
pub fn orders(crossing: &QuotaCrossing) -> impl Iterator<Item = Order> + '_ {
    crossing.actions.iter().map(|action| Order {
        id: format!("{}/{action}", crossing.id),
        action: action.clone(),
        crossing: crossing.clone(),
    })
}

/// What an action reads on its standard input.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    /// The same in each attempt.
    id: &'a str,
    /// `reached`, `undone` or `ended`.
    event: &'static str,
    action: &'a str,
    node: &'a str,
    container: &'a str,
    container_name: Option<&'a str>,
    quota: &'a str,
    period: PeriodField<'a>,
    threshold_percent: u16,
    /// `bytes` or `bit/s`.
    unit: &'static str,
    used: u64,
    /// Null without a limit.
    allowance: Option<u64>,
    found: String,
    /// From 1.
    attempt: u32,
}

#[derive(Serialize)]
struct PeriodField<'a> {
    label: &'a str,
    start: String,
    end: String,
}

/// Seconds since the Unix epoch as a time in UTC.
fn utc(unix_s: i64) -> String {
    jiff::Timestamp::from_second(unix_s).map_or_else(|_| unix_s.to_string(), |time| time.to_string())
}

impl Order {
    /// The runs that wait for each other: those of one action for one container, whatever the quota.
    pub fn subject(&self) -> String {
        format!("{}/{}", self.crossing.container_id, self.action)
    }

    /// What happened.
    pub const fn event(&self) -> Change {
        self.crossing.change
    }

    pub(super) fn document(&self, node: &str, attempt: u32) -> Vec<u8> {
        let crossing = &self.crossing;
        let document = Document {
            version: VERSION,
            id: &self.id,
            event: crossing.change.name(),
            action: &self.action,
            node,
            container: &crossing.container_id,
            container_name: crossing.name.as_deref(),
            quota: &crossing.quota,
            period: PeriodField {
                label: &crossing.label,
                start: utc(crossing.span.start_s),
                end: utc(crossing.span.end_s),
            },
            threshold_percent: crossing.percent,
            unit: self.unit(),
            used: crossing.used,
            allowance: self.allowance(),
            found: utc(crossing.made.as_second()),
            attempt,
        };
        let mut bytes = serde_json::to_vec(&document).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    const fn unit(&self) -> &'static str {
        if self.crossing.is_rate { "bit/s" } else { "bytes" }
    }

    fn allowance(&self) -> Option<u64> {
        Some(self.crossing.allowance).filter(|allowance| *allowance > 0)
    }

    /// What a shell script needs, without a reader of JSON.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let crossing = &self.crossing;
        let mut variables = bare_environment();
        variables.extend([
            ("TRAFCTL_ID", self.id.clone()),
            ("TRAFCTL_EVENT", crossing.change.name().to_owned()),
            ("TRAFCTL_CONTAINER", crossing.container_id.clone()),
            ("TRAFCTL_QUOTA", crossing.quota.clone()),
            ("TRAFCTL_PERCENT", crossing.percent.to_string()),
        ]);
        variables
    }

    /// The document as an event.
    pub(super) fn cloud_event(&self, node: &str, document: Vec<u8>) -> Event {
        Event {
            id: self.id.clone(),
            node: node.to_owned(),
            kind: format!("quota.{}", self.crossing.change.name()),
            subject: self.crossing.container_id.clone(),
            time: utc(self.crossing.made.as_second()),
            data: document,
        }
    }

    /// Subject and text of a mail.
    pub(super) fn letter(&self, node: &str) -> (String, String) {
        let crossing = &self.crossing;
        let named = crossing.name.as_ref().filter(|name| **name != crossing.container_id);
        let who = named.map_or_else(
            || crossing.container_id.clone(),
            |name| {
                format!(
                    "{} ({})",
                    crossing.container_id,
                    name.split_whitespace().collect::<Vec<_>>().join(" ")
                )
            },
        );
        let (percent, quota) = (crossing.percent, &crossing.quota);
        let what = match crossing.change {
            Change::Reached => format!("has reached {percent} %"),
            Change::Undone => format!("is below {percent} % again"),
            Change::Ended => format!("was at {percent} % or above until the period ended"),
        };
        let amount = |value: u64| match crossing.is_rate {
            true => format!("{} ({value} bit/s)", rate(value)),
            false => format!("{} ({value} bytes)", units::volume(value)),
        };
        let (start, end) = (utc(crossing.span.start_s), utc(crossing.span.end_s));
        let text = format!(
            "Container {who} on node {node} {what} of quota {quota}.\n\n\
             Used:      {}\n\
             Allowance: {}\n\
             Period:    {} ({start} to {end})\n\
             Found:     {}\n\
             Id:        {}\n",
            amount(crossing.used),
            self.allowance().map_or_else(|| "no limit".to_owned(), amount),
            crossing.label,
            utc(crossing.made.as_second()),
            self.id,
        );
        (format!("[trafctl] {node}: {who} {what} of quota {quota}"), text)
    }

    /// Whether it takes back what an earlier run did.
    pub(super) fn is_lift(&self) -> bool {
        self.crossing.change != Change::Reached
    }
}

/// Bits per second, for people.
fn rate(bits_per_s: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    units::rate(bits_per_s as f64)
}

/// The variables that every program has.
pub(super) fn bare_environment() -> Vec<(&'static str, String)> {
    vec![
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
    ]
}
