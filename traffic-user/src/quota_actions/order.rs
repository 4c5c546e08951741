//! A run of an action, and what is told about it: a document, variables, a mail, an event. A crossing of a
//! threshold orders it, or a problem of the node.

use serde::Serialize;
use traffic_ledger::QuotaCrossing;
use traffic_model::units;
use traffic_quota::Change;

use super::{alerts::NodeAlert, webhook::Event};

/// Version of the document that an action reads.
const VERSION: u32 = 1;

/// A run of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The id that stays.
    pub id: String,
    /// Name of the action.
    pub action: String,
    /// Why it runs.
    pub cause: Cause,
    /// Whether it has succeeded before, and runs again because it is in force.
    pub is_repeated: bool,
}

/// Why an action runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A crossing of a threshold.
    Crossing(Box<QuotaCrossing>),
    /// A problem of the node that has appeared, or is over.
    Alert(Box<NodeAlert>, Change),
}

/// The runs that a crossing orders.
pub fn orders(crossing: &QuotaCrossing) -> impl Iterator<Item = Order> + '_ {
    crossing.actions.iter().map(|action| Order {
        id: format!("{}/{action}", crossing.id),
        action: action.clone(),
        cause: Cause::Crossing(Box::new(crossing.clone())),
        is_repeated: false,
    })
}

/// The runs that an alert of a node orders: when it is told, and when it is over.
pub fn orders_of_alert(node: &str, alert: &NodeAlert) -> Vec<Order> {
    let mut changes = vec![Change::Reached];
    changes.extend((alert.over_s.is_some() && !alert.is_past).then_some(Change::Ended));
    let of = |change: Change| {
        alert.actions.iter().map(move |action| Order {
            id: format!("{node}/alert/{}/{}/{action}", alert.id, change.name()),
            action: action.clone(),
            cause: Cause::Alert(Box::new(alert.clone()), change),
            is_repeated: false,
        })
    };
    changes.into_iter().flat_map(of).collect()
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

/// What an action reads about a problem of the node.
#[derive(Serialize)]
struct AlertDocument<'a> {
    version: u32,
    id: &'a str,
    /// `reached` or `ended`.
    event: &'static str,
    action: &'a str,
    node: &'a str,
    /// The kind of the problems.
    problem: &'a str,
    /// The problems, as far as they are listed.
    problems: &'a [String],
    count: usize,
    /// When the first was found.
    since: String,
    /// When it was told, or was over.
    found: String,
    attempt: u32,
}

impl Order {
    /// The runs that wait for each other: those of one action for one container, whatever the quota, or for
    /// one alert.
    pub fn subject(&self) -> String {
        match &self.cause {
            Cause::Crossing(crossing) => format!("{}/{}", crossing.container_id, self.action),
            Cause::Alert(alert, _) => format!("alert/{}/{}", alert.id, self.action),
        }
    }

    /// Its place among the runs of its subject.
    pub(super) const fn sequence(&self) -> i64 {
        match &self.cause {
            Cause::Crossing(crossing) => crossing.sequence,
            Cause::Alert(_, Change::Reached) => 0,
            Cause::Alert(..) => 1,
        }
    }

    /// What happened.
    pub const fn event(&self) -> Change {
        match &self.cause {
            Cause::Crossing(crossing) => crossing.change,
            Cause::Alert(_, change) => *change,
        }
    }

    /// Whom it is about.
    pub fn whom(&self) -> &str {
        match &self.cause {
            Cause::Crossing(crossing) => &crossing.container,
            Cause::Alert(..) => "the node",
        }
    }

    /// When it was found, in seconds since the Unix epoch.
    pub fn found_s(&self) -> i64 {
        match &self.cause {
            Cause::Crossing(crossing) => crossing.made.as_second(),
            Cause::Alert(alert, Change::Reached) => alert.told_s,
            Cause::Alert(alert, _) => alert.over_s.unwrap_or(alert.told_s),
        }
    }

    pub(super) fn document(&self, node: &str, attempt: u32) -> Vec<u8> {
        let (id, action, event) = (self.id.as_str(), self.action.as_str(), self.event().name());
        let found = utc(self.found_s());
        let bytes = match &self.cause {
            Cause::Crossing(crossing) => serde_json::to_vec(&Document {
                version: VERSION,
                id,
                event,
                action,
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
                unit: if crossing.is_rate { "bit/s" } else { "bytes" },
                used: crossing.used,
                allowance: allowance(crossing),
                found,
                attempt,
            }),
            Cause::Alert(alert, _) => serde_json::to_vec(&AlertDocument {
                version: VERSION,
                id,
                event,
                action,
                node,
                problem: &alert.kind,
                problems: &alert.problems,
                count: alert.count,
                since: utc(alert.since_s),
                found,
                attempt,
            }),
        };
        let mut bytes = bytes.unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// What a shell script needs, without a reader of JSON.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let mut variables = bare_environment();
        variables
            .extend([("TRAFCTL_ID", self.id.clone()), ("TRAFCTL_EVENT", self.event().name().to_owned())]);
        variables.extend(self.is_repeated.then(|| ("TRAFCTL_AGAIN", "1".to_owned())));
        match &self.cause {
            Cause::Crossing(crossing) => variables.extend([
                ("TRAFCTL_CONTAINER", crossing.container_id.clone()),
                ("TRAFCTL_QUOTA", crossing.quota.clone()),
                ("TRAFCTL_PERCENT", crossing.percent.to_string()),
            ]),
            Cause::Alert(alert, _) => variables.push(("TRAFCTL_PROBLEM", alert.kind.clone())),
        }
        variables
    }

    /// The document as an event.
    pub(super) fn cloud_event(&self, node: &str, document: Vec<u8>) -> Event {
        let (about, subject) = match &self.cause {
            Cause::Crossing(crossing) => ("quota", crossing.container_id.clone()),
            Cause::Alert(alert, _) => ("alert", alert.kind.clone()),
        };
        Event {
            id: self.id.clone(),
            node: node.to_owned(),
            kind: format!("{about}.{}", self.event().name()),
            subject,
            time: utc(self.found_s()),
            data: document,
        }
    }

    /// Subject and text of a mail.
    pub(super) fn letter(&self, node: &str) -> (String, String) {
        let (subject, text) = match &self.cause {
            Cause::Crossing(crossing) => of_crossing(crossing, node),
            Cause::Alert(alert, change) => of_alert(alert, *change, node),
        };
        (format!("[trafctl] {node}: {subject}"), format!("{text}Id:        {}\n", self.id))
    }

    /// Whether it is about the node itself.
    pub(super) const fn is_of_node(&self) -> bool {
        matches!(self.cause, Cause::Alert(..))
    }

    /// Whether it takes back what an earlier run did.
    pub(super) fn is_lift(&self) -> bool {
        self.event() != Change::Reached
    }
}

fn allowance(crossing: &QuotaCrossing) -> Option<u64> {
    Some(crossing.allowance).filter(|allowance| *allowance > 0)
}

fn of_crossing(crossing: &QuotaCrossing, node: &str) -> (String, String) {
    let named = crossing.name.as_ref().filter(|name| **name != crossing.container_id);
    let who = named.map_or_else(
        || crossing.container_id.clone(),
        |name| {
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("{} ({name})", crossing.container_id)
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
    let text = format!(
        "Container {who} on node {node} {what} of quota {quota}.\n\n\
         Used:      {}\n\
         Allowance: {}\n\
         Period:    {} ({} to {})\n\
         Found:     {}\n",
        amount(crossing.used),
        allowance(crossing).map_or_else(|| "no limit".to_owned(), amount),
        crossing.label,
        utc(crossing.span.start_s),
        utc(crossing.span.end_s),
        utc(crossing.made.as_second()),
    );
    (format!("{who} {what} of quota {quota}"), text)
}

fn of_alert(alert: &NodeAlert, change: Change, node: &str) -> (String, String) {
    let first = alert.problems.first().map_or("", String::as_str);
    let more = match alert.count {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let over = if change == Change::Reached { "" } else { "over: " };
    let mut text = match change {
        Change::Reached => format!("On node {node} since {}:\n\n", utc(alert.since_s)),
        _ => format!(
            "Over on node {node} at {}, what was told at {}:\n\n",
            utc(alert.over_s.unwrap_or(alert.told_s)),
            utc(alert.told_s)
        ),
    };
    alert.problems.iter().for_each(|problem| text += &format!("- {problem}\n"));
    let left = alert.count.saturating_sub(alert.problems.len());
    if left > 0 {
        text += &format!("- and {left} more, see `trafctl status`\n");
    }
    text += &format!("\nKind:      {}\n", alert.kind);
    (format!("{over}{first}{more}"), text)
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
