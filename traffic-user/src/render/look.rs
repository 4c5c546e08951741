//! How text for people looks: its width, its units, its colours.

use unicode_width::UnicodeWidthChar as _;

/// How text for people looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Columns of the terminal; `None` for as many as it takes.
    pub width: Option<usize>,
    /// Whether the output takes colours.
    pub colours: bool,
    /// Exact numbers instead of three digits with a unit.
    pub exact: bool,
}

/// How a part of a text stands out, where the output takes colours. The meaning is never in the colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// Headings and sums.
    Bold,
    /// Notes.
    Dim,
    /// Traffic to the container.
    Incoming,
    /// Traffic from the container.
    Outgoing,
    /// What is missing.
    Problem,
}

impl Tone {
    /// The parameters of the escape sequence. In and out have the colours of the web page's plots, as near as
    /// the eight of every terminal come.
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Incoming => "36",
            Self::Outgoing => "35",
            Self::Problem => "31",
        }
    }
}

impl Look {
    /// A text in a tone.
    pub fn toned(self, tone: Tone, text: &str) -> String {
        if !self.colours || tone == Tone::Plain || text.is_empty() {
            return text.to_owned();
        }
        format!("\x1b[{}m{text}\x1b[0m", tone.code())
    }
}

/// A text without characters that move the cursor or change its look. Names of classes and interfaces come
/// from others.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_printable(c) { c } else { '\u{fffd}' }).collect()
}

/// Whether a character takes its place and changes nothing else: no control character, and none that turns the
/// direction of what follows.
fn is_printable(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}');
    !c.is_control() && !turns && !matches!(c, '\u{2028}' | '\u{2029}')
}

/// A text for a terminal that shows only ASCII, in as many columns: bars and marks as other signs, letters as `?`.
pub fn ascii(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if c.is_ascii() => shown.push(c),
            '\u{2026}' => shown.push('~'),
            '\u{25bc}' => shown.push('v'),
            '\u{2581}'..='\u{2588}' => {
                shown.push(['.', ':', '-', '=', '+', '*', '%', '#'][(u32::from(c) - 0x2581) as usize]);
            }
            '\u{2591}' => shown.push('.'),
            '\u{2592}' => shown.push('-'),
            '\u{2593}' => shown.push('='),
            _ => shown.extend(std::iter::repeat_n('?', c.width().unwrap_or(0))),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_unicode_every_column_stays_where_it_is() {
        use unicode_width::UnicodeWidthStr as _;
        let text = "a\u{2026}b \u{2581}\u{2584}\u{2588} \u{25bc} \u{4f60}\u{e4}\u{301}\u{2592}\u{1f600}";
        assert_eq!(ascii(text), "a~b .=# v ???-??");
        assert_eq!(ascii(text).width(), text.width());
    }

    #[test]
    fn names_of_others_cannot_steer_the_terminal() {
        assert_eq!(
            printable("a\x1b[2Jb\nc\u{9b}d\u{202e}e\u{7f}"),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}"
        );
        assert_eq!(printable("\u{4f60}\u{597d} caf\u{e9}"), "\u{4f60}\u{597d} caf\u{e9}");
    }

    #[test]
    fn a_tone_shows_only_where_colours_are_taken() {
        let look = Look { colours: true, ..Look::default() };
        assert_eq!(look.toned(Tone::Bold, "x"), "\x1b[1mx\x1b[0m");
        assert_eq!(look.toned(Tone::Plain, "x"), "x");
        assert_eq!(Look::default().toned(Tone::Problem, "x"), "x");
    }
}
