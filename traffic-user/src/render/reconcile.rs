//! A [`Reconciliation`] as `trafctl reconcile` prints it.

use traffic_model::units::format_bytes;

use crate::{
    reconcile::{Amount, Difference, End, OfContainers, Reconciliation, Uplink, Way},
    render::{finish, json as form, plain_table, plain_table::PlainTable, seconds},
};

/// One document.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn json(reconciliation: &Reconciliation) -> anyhow::Result<String> {
    form::document(reconciliation)
}

/// The text for people.
pub fn table(reconciliation: &Reconciliation, human: bool) -> String {
    let mut text = format!(
        "node {}  {:.1} s from {}  packets and layer-3 bytes as on the wire\n",
        reconciliation.node,
        reconciliation.seconds,
        seconds(reconciliation.begin)
    );
    for note in &reconciliation.notes {
        text += &format!("note: {note}\n");
    }
    text += &of_containers("FROM CONTAINERS", "to", &reconciliation.from_containers, human);
    text += &of_containers("TO CONTAINERS", "from", &reconciliation.to_containers, human);
    for uplink in &reconciliation.uplinks {
        text += &of_uplink(uplink, human);
    }
    text
}

struct Sheet {
    table: PlainTable,
    human: bool,
}

impl Sheet {
    fn new(title: &str, human: bool) -> Self {
        Self { table: plain_table(&[title, "PACKETS", "BYTES"], &(1..3)), human }
    }

    fn add(&mut self, what: &str, amount: Amount) {
        self.table.add_row([
            what.to_owned(),
            amount.packets.to_string(),
            format_bytes(amount.bytes, self.human),
        ]);
    }

    fn add_ways(&mut self, preposition: &str, ways: &[Way]) {
        for way in ways {
            let amount = Amount { packets: way.packets, bytes: way.bytes };
            self.add(&format!("  {}", end(preposition, &way.end)), amount);
        }
    }

    fn add_difference(&mut self, difference: Difference) {
        let Difference { packets, bytes } = difference;
        self.table.add_row(["difference".to_owned(), packets.to_string(), bytes.to_string()]);
    }

    fn finish(&self) -> String {
        format!("\n{}\n", finish(&self.table).trim_end())
    }
}

fn end(preposition: &str, end: &End) -> String {
    match end {
        End::Uplink(name) => format!("{preposition} the uplink {name}"),
        End::Containers => format!("{preposition} containers"),
        End::Node => format!("{preposition} the node itself"),
        End::Other(name) => format!("{preposition} {name}"),
        End::Hidden => "sent again by an ifb, which hides who it came from".to_owned(),
    }
}

fn of_containers(title: &str, preposition: &str, of: &OfContainers, human: bool) -> String {
    let mut sheet = Sheet::new(title, human);
    sheet.add("counted", of.counted);
    sheet.add_ways(preposition, &of.ways);
    if of.to_many != Amount::default() {
        sheet.add("  broadcast and multicast", of.to_many);
    }
    if let Some(dropped) = of.dropped {
        sheet.add("  dropped behind the hook", dropped);
    }
    if of.dropped_hidden != Amount::default() {
        sheet.add("  dropped, from an unknown sender behind a bridge", of.dropped_hidden);
    }
    if of.refused != Amount::default() {
        sheet.add("  refused by the interface: its other end is full", of.refused);
    }
    sheet.add_difference(of.difference);
    let mut text = sheet.finish();
    if of.difference != Difference::default() && of.difference.packets.unsigned_abs() <= of.read_meanwhile {
        text += &format!("up to {} packets passed while the counters were read\n", of.read_meanwhile);
    }
    text
}

fn of_uplink(uplink: &Uplink, human: bool) -> String {
    let (sent, received) = (&uplink.sent, &uplink.received);
    let mut sheet = Sheet::new(&format!("SENT ON {}", uplink.interface), human);
    sheet.add("counted by the device, with link-layer headers", sent.device);
    if let Some(counted) = sent.counted {
        sheet.add("counted by trafctl, before the device's queues", counted);
    }
    sheet.add_ways("from", &sent.ways);
    sheet.add_difference(sent.difference);
    let mut text = sheet.finish();
    let mut sheet = Sheet::new(&format!("RECEIVED ON {}", uplink.interface), human);
    sheet.add("counted by the device, with link-layer headers", received.device);
    if let Some(counted) = received.counted {
        sheet.add("counted by trafctl", counted);
    }
    sheet.add_ways("to", &received.ways);
    sheet.table.add_row(["the rest, which nobody received", &received.rest_packets.to_string(), "-"]);
    text += &sheet.finish();
    text
}
