//! The keys, as the help shows them.

use super::state::Kind;

/// A key, what it does.
pub(super) fn keys(kind: Kind) -> Vec<(&'static str, &'static str)> {
    let mut keys = vec![
        ("q", "quit"),
        ("t i o p", "sort by total, in, out, packets"),
        ("n", "sort by name"),
        ("c", "a row for each class"),
        ("f", "a row for each family"),
        ("/", "show only names that contain a text"),
        ("Esc", "show all names again"),
        ("Space", "pause"),
    ];
    match kind {
        Kind::Rates => keys.push(("b", "bits or bytes per second")),
        Kind::Totals => keys.push(("Tab", "classes, faults, interfaces")),
    }
    keys.extend([
        ("Up Down", "a line (also k j)"),
        ("PgUp PgDn", "a page"),
        ("Home End", "first, last (also g G)"),
        ("Ctrl-L", "draw everything anew"),
        ("Ctrl-Z", "back to the shell for a while"),
    ]);
    keys
}
