//! A [`Calibration`] as `trafctl calibrate` prints it.

use serde::Serialize;
use traffic_model::hex;

use crate::{
    calibration::{Calibration, Line},
    render::{Amounts, finish, json, plain_table, seconds},
};

#[derive(Serialize)]
struct Document {
    time: String,
    exact: bool,
    class_table: String,
    program: String,
    sent: Amounts,
    counted: Amounts,
    by_class: Vec<OfClass>,
}

#[derive(Serialize)]
struct OfClass {
    class: u8,
    family: &'static str,
    exact: bool,
    sent: Amounts,
    counted: Amounts,
}

/// One document.
///
/// # Errors
/// When serialisation fails, for which there is no known cause.
pub fn json(calibration: &Calibration) -> anyhow::Result<String> {
    let (sent, counted) = calibration.totals();
    let by_class = calibration.lines.iter().map(|line| OfClass {
        class: line.class,
        family: line.family.name(),
        exact: line.is_exact(),
        sent: (&line.sent).into(),
        counted: (&line.counted).into(),
    });
    json::document(&Document {
        time: seconds(calibration.time),
        exact: calibration.is_exact(),
        class_table: hex(&calibration.class_table),
        program: hex(&calibration.program),
        sent: (&sent).into(),
        counted: (&counted).into(),
        by_class: by_class.collect(),
    })
}

/// The text for people.
pub fn table(calibration: &Calibration) -> String {
    let header =
        ["CLASS", "FAMILY", "DIRECTION", "PACKETS SENT", "COUNTED", "BYTES SENT", "COUNTED", "DIFFERENCE"];
    let mut table = plain_table(&header, &(3..8));
    for line in &calibration.lines {
        for (direction, sent, counted) in [
            ("in", line.sent.incoming, line.counted.incoming),
            ("out", line.sent.outgoing, line.counted.outgoing),
        ] {
            let difference = i128::from(counted.bytes) - i128::from(sent.bytes);
            table.add_row([
                line.class.to_string(),
                line.family.name().to_owned(),
                direction.to_owned(),
                sent.packets.to_string(),
                counted.packets.to_string(),
                sent.bytes.to_string(),
                counted.bytes.to_string(),
                difference.to_string(),
            ]);
        }
    }
    format!("{}\n{}\n", finish(&table).trim_end(), summary(calibration))
}

/// What it showed, in one line, and a line for each class that differs.
pub fn lines(calibration: &Calibration) -> Vec<String> {
    let differing = calibration.lines.iter().filter(|line| !line.is_exact());
    std::iter::once(summary(calibration)).chain(differing.map(difference)).collect()
}

fn summary(calibration: &Calibration) -> String {
    let (sent, _) = calibration.totals();
    let sent = sent.total();
    let verdict = match calibration.differing() {
        0 => "exact: every packet and byte was counted in its class".to_owned(),
        differing => format!(
            "NOT EXACT: {differing} of {} classes and families differ; do not bill from these counters before the \
             reason is known",
            calibration.lines.len()
        ),
    };
    format!(
        "calibration at {}: {} packets, {} bytes sent; {verdict}",
        seconds(calibration.time),
        sent.packets,
        sent.bytes
    )
}

fn difference(line: &Line) -> String {
    let (sent, counted) = (line.sent, line.counted);
    format!(
        "class {} {}: in {} packets, {} bytes sent, {} packets, {} bytes counted; out {} packets, {} bytes sent, {} \
         packets, {} bytes counted",
        line.class,
        line.family.name(),
        sent.incoming.packets,
        sent.incoming.bytes,
        counted.incoming.packets,
        counted.incoming.bytes,
        sent.outgoing.packets,
        sent.outgoing.bytes,
        counted.outgoing.packets,
        counted.outgoing.bytes,
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use traffic_common::{Family, Tally};
    use traffic_model::ByDirection;

    use super::*;

    fn calibration(counted: u64) -> Calibration {
        let both = |a, b, c, d| ByDirection {
            incoming: Tally { packets: a, bytes: b },
            outgoing: Tally { packets: c, bytes: d },
        };
        let line = |class, family, sent, counted| Line { class, family, sent, counted };
        Calibration {
            time: Timestamp::from_second(1_796_060_000).unwrap(),
            class_table: [7; 32],
            program: [9; 32],
            lines: vec![
                line(0, Family::Ipv4, both(1, 20, 3, 40), both(1, 20, 3, 40)),
                line(2, Family::Ipv6, both(5, 600, 7, 800), both(5, 600, 7, counted)),
            ],
        }
    }

    #[test]
    fn a_difference_of_a_byte_is_in_every_form() {
        insta::assert_snapshot!(table(&calibration(801)));
        insta::assert_snapshot!(json(&calibration(801)).unwrap());
        assert_eq!(
            lines(&calibration(799))[1],
            "class 2 ipv6: in 5 packets, 600 bytes sent, 5 packets, 600 bytes counted; out 7 packets, 800 bytes sent, 7 \
             packets, 799 bytes counted"
        );
    }

    #[test]
    fn an_exact_one_is_one_line() {
        let lines = lines(&calibration(800));
        assert_eq!(
            lines,
            [
                "calibration at 2026-11-30T17:33:20Z: 16 packets, 1460 bytes sent; exact: every packet and byte was counted in its class"
            ]
        );
    }
}
