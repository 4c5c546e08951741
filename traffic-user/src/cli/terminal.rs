//! What standard output is: a terminal or a pipe, how wide, and whether it takes colours.

use std::{
    env,
    io::{IsTerminal as _, stdout},
};

/// Whether standard output is a terminal.
pub(super) fn is_output() -> bool {
    stdout().is_terminal()
}

/// The columns of the terminal; `None` in a pipe, and where a terminal does not know its size, as on a serial
/// line.
pub(super) fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
    (size.ws_col > 0).then(|| size.ws_col.into())
}

/// Whether to use colours: on a terminal that has them, unless `NO_COLOR` is set to anything
/// (<https://no-color.org>).
pub(super) fn takes_colours() -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    is_output() && !is_set("NO_COLOR") && env::var_os("TERM").is_none_or(|term| term != "dumb")
}
