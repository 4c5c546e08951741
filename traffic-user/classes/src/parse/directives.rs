//! Comments that mean something: names of classes, and the begin and end of a part whose size is known.
//!
//! - `# name 2 = "UA-IX"` gives a class a name.
//! - `# trafctl begin: 2934 networks` and `# trafctl end`, which `classes convert` writes around its lines. A
//!   file whose end is missing was cut short, even if it was cut between two lines.

use std::collections::BTreeMap;

use super::{
    MAX_CLASS,
    problems::{Kind, Problems, Refusal},
};

/// Most characters of a class's name: it is a column of reports and a label of metrics.
pub const MOST_NAME_CHARS: usize = 40;

/// The comment that begins a part.
pub fn begin_comment(networks: usize) -> String {
    format!("# trafctl begin: {networks} networks")
}

/// The comment that ends a part.
pub const END_COMMENT: &str = "# trafctl end";

/// A part whose end was not read yet.
#[derive(Clone, Copy, Debug)]
struct Part {
    line: u32,
    networks: usize,
    /// Entries in front of it.
    before: usize,
}

/// What the comments say.
#[derive(Debug, Default)]
pub(super) struct Directives {
    pub(super) names: BTreeMap<u8, String>,
    part: Option<Part>,
}

impl Directives {
    /// Reads a line without a network. `entries` are those in front of it.
    pub(super) fn read(&mut self, line: u32, text: &[u8], entries: usize, problems: &mut Problems) {
        let Some(comment) = text.trim_ascii_start().strip_prefix(b"#") else { return };
        let comment = comment.trim_ascii();
        if comment.starts_with(b"name ") || comment.starts_with(b"name\t") {
            self.name(line, &String::from_utf8_lossy(comment), problems);
        } else if let Some(part) = comment.strip_prefix(b"trafctl ") {
            self.part(line, part.trim_ascii(), entries, problems);
        }
    }

    /// The end of the file.
    pub(super) fn end(&self, entries: usize, problems: &mut Problems) {
        if let Some(Part { line, networks, before }) = self.part {
            let message = format!(
                "{networks} networks are announced here, and the file ends after {}; get the file again, it \
                 was cut short",
                entries - before
            );
            problems.refuse(line, Refusal::new(Kind::CutShort, message));
        }
    }

    fn part(&mut self, line: u32, text: &[u8], entries: usize, problems: &mut Problems) {
        let networks = |text: &[u8]| {
            let number = text.strip_prefix(b"begin: ")?.strip_suffix(b" networks")?;
            std::str::from_utf8(number).ok()?.parse().ok()
        };
        if let Some(networks) = networks(text) {
            // A second begin: the end of the first part is missing.
            self.end(entries, problems);
            self.part = Some(Part { line, networks, before: entries });
        } else if text != b"end" {
            // Most likely the beginning of such a comment, where the file was cut.
            let message =
                "the comment `# trafctl` is neither a begin nor an end; get the file again, or remove it";
            problems.refuse(line, Refusal::new(Kind::CutShort, message));
        } else if let Some(Part { line: begin, networks, before }) = self.part.take()
            && entries - before != networks
        {
            let message = format!(
                "{} networks precede, and line {begin} announces {networks}; correct that number, or convert \
                 again",
                entries - before
            );
            problems.warn(line, message);
        }
    }

    fn name(&mut self, line: u32, comment: &str, problems: &mut Problems) {
        let rest = comment["name".len()..].trim();
        // A sentence that begins with "name" is a comment.
        if !rest.starts_with(|first: char| first.is_ascii_digit()) {
            return;
        }
        let read = || {
            let (class, name) = rest.split_once('=')?;
            let name = name.trim().strip_prefix('"')?.strip_suffix('"')?;
            Some((class.trim().parse::<u8>().ok().filter(|&class| class <= MAX_CLASS)?, name))
        };
        let Some((class, name)) = read() else {
            problems.warn(
                line,
                format!(
                    "the name is not used; write `# name 2 = \"UA-IX\"`, with a class from 0 to {MAX_CLASS}"
                ),
            );
            return;
        };
        if let Err(message) = check_name(name) {
            problems.warn(line, format!("the name of class {class} is not used: {message}"));
            return;
        }
        let other = self.names.iter().find(|(other, named)| **other != class && named.as_str() == name);
        if let Some((other, _)) = other {
            problems.warn(
                line,
                format!("classes {other} and {class} have the same name, \"{name}\"; write another one"),
            );
        }
        if let Some(before) = self.names.insert(class, name.to_owned())
            && before != name
        {
            problems.warn(
                line,
                format!("class {class} is named \"{before}\" above and \"{name}\" here; this one counts"),
            );
        }
    }
}

/// Whether a text can name a class.
///
/// # Errors
/// Why it cannot; what to write instead.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.trim() != name || name.is_empty() {
        return Err("it is empty or has blanks around it; write a word such as UA-IX".to_owned());
    }
    if name.chars().count() > MOST_NAME_CHARS {
        return Err(format!("it is too long; write at most {MOST_NAME_CHARS} characters"));
    }
    let wrong = name.chars().find(|character| character.is_control() || "\"\\\u{fffd}".contains(*character));
    match wrong {
        Some(character) => Err(format!("it has the character {character:?}; leave that out")),
        None => Ok(()),
    }
}
