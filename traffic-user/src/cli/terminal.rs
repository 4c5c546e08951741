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

/// Whether the terminal shows only ASCII, as its locale says.
pub(super) fn is_ascii() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(env::var_os);
    let locale = set.into_iter().find(|value| !value.is_empty()).unwrap_or_default();
    !is_utf8(&locale.to_string_lossy())
}

/// Whether a locale's characters are those of UTF-8: `de_DE.UTF-8`, `C.utf8@euro`.
fn is_utf8(locale: &str) -> bool {
    let (_, charset) = locale.split_once('.').unwrap_or_default();
    let charset = charset.split('@').next().unwrap_or_default();
    matches!(charset.to_ascii_lowercase().as_str(), "utf-8" | "utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_names_its_charset() {
        for locale in ["de_DE.UTF-8", "C.utf8", "nl_NL.utf8@euro", "en_US.UTF8"] {
            assert!(is_utf8(locale), "{locale}");
        }
        for locale in ["", "C", "POSIX", "de_DE", "de_DE@euro", "ru_RU.KOI8-R", "de_DE.ISO-8859-15@euro"] {
            assert!(!is_utf8(locale), "{locale}");
        }
    }
}
