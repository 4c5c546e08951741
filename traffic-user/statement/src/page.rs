//! The page that shows and checks a statement in a browser, without a network. Empty, it asks for a file; with a
//! statement in it, it is the statement for people. What it shows is what it has checked.

/// The page without a statement.
pub const PAGE: &str = include_str!("../page.html");

const BEGIN: &str = "<pre id=\"statement\" hidden>";
/// How the same element begins in a page that a browser has saved, too.
const BEGINS_LIKE: &str = "<pre id=\"statement\"";
const END: &str = "</pre>";
/// What is written otherwise in the text of a page. The first is replaced first and restored last.
const ESCAPES: [(&str, &str); 3] = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")];

/// A statement that was in a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InPage {
    /// The statement.
    pub note: String,
    /// Whether the page around it is this version's. What another one shows may differ from what was signed.
    pub is_own_page: bool,
}

/// The page of a statement.
pub fn page_of(note: &str) -> String {
    let escaped = ESCAPES.iter().fold(note.to_owned(), |text, (from, to)| text.replace(from, to));
    PAGE.replacen(&format!("{BEGIN}{END}"), &format!("{BEGIN}{escaped}{END}"), 1)
}

/// The statement in a page, also in one whose lines end otherwise, or that a browser has saved; `None` if the text is
/// no page with one statement.
pub fn statement_in(text: &str) -> Option<InPage> {
    let page = text.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}');
    if !page.get(..9)?.eq_ignore_ascii_case("<!doctype") {
        return None;
    }
    let (_, rest) = page.split_once(BEGINS_LIKE)?;
    let (_, content) = rest.split_once('>')?;
    let (escaped, after) = content.split_once(END)?;
    // Which one would a reader see?
    if after.contains(BEGINS_LIKE) {
        return None;
    }
    let escaped = escaped.replace("\r\n", "\n");
    let note = ESCAPES.iter().rev().fold(escaped, |text, (from, to)| text.replace(to, from));
    let is_own_page = page_of(&note) == text;
    Some(InPage { note, is_own_page })
}
