//! Two outputs of another `vznetstat`, separated by a zero byte, as `trafctl compare` reads them.

use std::fmt::Write as _;

use jiff::Timestamp;
use trafctl::{
    compare::{Comparison, Figures, Readings, read},
    render,
};

/// Checks two readings, or one reading and an empty one.
pub fn check(data: &[u8]) {
    let mut readings = data.split(|&byte| byte == 0).map(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        match read(&text, "-", |id| Ok(id.clone())) {
            Ok(figures) => {
                assert!(!figures.is_empty());
                let again = read(&written(&figures), "-", |id| Ok(id.clone()));
                assert!(again.as_ref().is_ok_and(|again| *again == figures), "{again:?}");
                figures
            }
            Err(error) => {
                let message = format!("{error:#}");
                assert!(message.starts_with('-') || message.starts_with("container id"), "{message}");
                Figures::new()
            }
        }
    });
    let (first, now) = (readings.next().unwrap_or_default(), readings.next().unwrap_or_default());
    // Compared with equal figures of ours, and with other figures.
    let same = compared((&first, &first), (&now, &now));
    for side in same.rows.iter().flat_map(|row| [row.sides.incoming, row.sides.outgoing]) {
        assert!(side.reason.is_some() || side.theirs == Some(side.ours), "{side:?}");
    }
    compared((&first, &now), (&now, &first));
    compared((&first, &Figures::new()), (&now, &first));
}

fn compared(
    (ours_first, theirs_first): (&Figures, &Figures),
    (ours, theirs): (&Figures, &Figures),
) -> Comparison {
    let readings = |ours: &Figures, theirs: &Figures, second| Readings {
        time: Timestamp::constant(second, 0),
        boot_id: String::new(),
        epoch: 1,
        ours: ours.clone(),
        theirs: theirs.clone(),
    };
    let comparison = Comparison::new(&readings(ours_first, theirs_first, 0), &readings(ours, theirs, 60));
    assert!(render::compare::table(&comparison, &render::ClassNames::new()).ends_with('\n'));
    comparison
}

/// The output that `vznetstat` would print.
fn written(figures: &Figures) -> String {
    let mut text = "UUID                                 Net.Class\n".to_owned();
    for ((container, class), of) in figures {
        let (incoming, outgoing) = (of.incoming, of.outgoing);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{container:<36} {class:<2} {:>20}  {:>10} {:>20}  {:>10}",
            incoming.bytes, incoming.packets, outgoing.bytes, outgoing.packets
        );
    }
    text
}
