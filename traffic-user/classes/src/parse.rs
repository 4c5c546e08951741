//! The grammar of `networks_classes`: bytes to entries, and one diagnostic for every line that is wrong or
//! doubtful.
//!
//! Virtuozzo's own parsers disagree about the edge cases and silently ignore most mistakes. Bills depend on
//! this file, so such lines are refused here. The caller decides whether to use a file that has refused
//! lines.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::Serialize;

/// The class of peers that match no prefix: counted and shown, but not part of billed totals.
pub const UNCLASSIFIED: u8 = 0;

/// The largest class number a file may name.
pub const MAX_CLASS: u8 = 254;

/// The file that Virtuozzo ships: all traffic is class 1.
const SHIPPED: &[u8] = b"1 0.0.0.0/0\n1 ::/0\n";

/// Messages quote at most this many characters of a field, because the file may contain anything.
const QUOTED_CHARS: usize = 50;

/// Most refused lines that are listed. A large file of something else must not fill the memory with messages.
const MOST_REFUSED: usize = 100_000;

/// One network of a class file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Entry {
    /// Its line, from 1.
    pub line: u32,
    /// Its class, at most [`MAX_CLASS`].
    pub class: u8,
    /// The network, with host bits zero.
    pub prefix: IpNet,
}

/// As written in the file: `1 192.0.2.0/24`.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.class, self.prefix)
    }
}

/// How severe a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The line is not usable, so the file should not be used.
    Refused,
    /// The line is used, but perhaps not as intended.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "refused",
            Self::Warning => "warning",
        })
    }
}

/// A problem with one line, or with the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The line, from 1; 0 for the file as a whole.
    pub line: u32,
    /// Whether the line is refused.
    pub severity: Severity,
    /// What is wrong; what to write instead.
    pub message: String,
}

/// One line of text: `line 3: refused: ...`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        write!(f, "{}: {}", self.severity, self.message)
    }
}

/// A parsed class file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassFile {
    /// The networks, in the order of their lines. Repeated prefixes are all included.
    pub entries: Vec<Entry>,
    /// Problems, in the order of their lines.
    pub diagnostics: Vec<Diagnostic>,
}

impl ClassFile {
    /// The file that Virtuozzo ships, for a node without one: all traffic is class 1.
    pub fn shipped() -> Self {
        parse(SHIPPED)
    }

    /// Whether no line is refused. A file that is not acceptable must not replace the table in force.
    pub fn is_acceptable(&self) -> bool {
        self.refused().next().is_none()
    }

    /// The refused lines.
    pub fn refused(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Refused)
    }

    /// The lines that are used, but perhaps not as intended.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Warning)
    }
}

/// Parses a class file. Never fails: a wrong line becomes a diagnostic, and the other lines are parsed.
///
/// A line is `<class> <address>/<prefix length>`. Text after the network and after `#` is ignored. A file
/// that is not text gets one diagnostic for the whole file instead of one for each line.
pub fn parse(bytes: &[u8]) -> ClassFile {
    const BOM: &[u8] = b"\xef\xbb\xbf";
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);

    let mut entries = Vec::new();
    let mut diagnostics = Vec::new();
    let (mut line, mut refused) = (0_u32, 0_usize);
    for text in bytes.split(|&byte| byte == b'\n') {
        line = line.saturating_add(1);
        match parse_line(text) {
            Ok(None) => {}
            Ok(Some((class, written))) => {
                let prefix = written.trunc();
                if prefix != written {
                    let message = format!("{written} has host bits set; it is taken as {prefix}");
                    diagnostics.push(Diagnostic { line, severity: Severity::Warning, message });
                }
                entries.push(Entry { line, class, prefix });
            }
            Err(message) => {
                refused += 1;
                diagnostics.push(Diagnostic { line, severity: Severity::Refused, message });
            }
        }
        if refused == MOST_REFUSED {
            let message =
                format!("{MOST_REFUSED} lines are refused; the lines after this one are not checked");
            diagnostics.push(Diagnostic { line, severity: Severity::Refused, message });
            break;
        }
    }
    // A stray zero byte in a file that is otherwise good concerns only its line.
    if diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Refused).count()
        > entries.len()
        && let Some(message) = not_text(bytes)
    {
        diagnostics = vec![Diagnostic { line: 0, severity: Severity::Refused, message: message.to_owned() }];
    }
    diagnostics.extend(repeated(&entries));
    diagnostics.sort_by_key(|diagnostic| diagnostic.line);
    ClassFile { entries, diagnostics }
}

/// Why the bytes are not a text file that could be parsed; `None` if they look like text.
fn not_text(bytes: &[u8]) -> Option<&'static str> {
    // Without a byte order mark, every other byte of Latin text is zero.
    let (units, _) = bytes[..bytes.len().min(32)].as_chunks::<2>();
    let half_zero =
        |zero: usize| units.len() > 1 && units.iter().all(|unit| unit[zero] == 0 && unit[1 - zero] != 0);
    let has_mark = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    if has_mark || half_zero(0) || half_zero(1) {
        Some("the file is UTF-16 text; convert it, for example with `iconv -f UTF-16 -t UTF-8`")
    } else if bytes.contains(&0) {
        Some("the file looks binary; name a text file with lines such as `1 192.0.2.0/24`")
    } else {
        None
    }
}

/// The class and network of one line, `None` if the line is empty, or why it is refused.
fn parse_line(text: &[u8]) -> Result<Option<(u8, IpNet)>, String> {
    // With carriage returns as line ends, all lines would be trailing text of the first.
    if text.trim_ascii_end().contains(&b'\r') {
        return Err(
            "a carriage return is inside the line, and the text after it would be ignored; end lines with a \
             line feed"
                .to_owned(),
        );
    }
    let content = text.split(|&byte| byte == b'#').next().unwrap_or_default();
    let mut fields = content
        .split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c))
        .filter(|field| !field.is_empty())
        .map(String::from_utf8_lossy);
    let Some(class) = fields.next() else { return Ok(None) };
    let class = parse_class(&class)?;
    let Some(network) = fields.next() else {
        return Err(format!(
            "no network follows class {class}; write `{class} ADDRESS/PREFIX`, such as `{class} 192.0.2.0/24`"
        ));
    };
    Ok(Some((class, parse_network(&network, fields.next().as_deref())?)))
}

fn parse_class(field: &str) -> Result<u8, String> {
    if is_number(field) {
        return field.parse().ok().filter(|&class| class <= MAX_CLASS).ok_or_else(|| {
            format!("class {} is out of range; write a number from 0 to {MAX_CLASS}", quote(field))
        });
    }
    let address = field.split_once('/').map_or(field, |(address, _)| address);
    if address.parse::<IpAddr>().is_ok() {
        return Err(format!(
            "no class precedes the network; write `CLASS {}`, with a class from 0 to {MAX_CLASS}",
            quote(field)
        ));
    }
    Err(format!("class {} is not a number; write a number from 0 to {MAX_CLASS}", quote(field)))
}

/// `next` is the field after the network. Some files have a mask there, as `vztactl class_list` prints it.
fn parse_network(field: &str, next: Option<&str>) -> Result<IpNet, String> {
    let (address, length) = field.split_once('/').map_or((field, ""), |(address, length)| (address, length));
    let Ok(addr) = address.parse::<IpAddr>() else {
        return Err(format!(
            "{} is not an address; write an IPv4 address of four decimal numbers without leading zeros, or \
             an IPv6 address",
            quote(address)
        ));
    };
    let longest = if addr.is_ipv4() { 32 } else { 128 };
    if length.is_empty() {
        return Err(match next.and_then(dotted_mask) {
            Some(Ok(mask)) if addr.is_ipv4() => {
                format!("{addr} has a mask instead of a prefix length; write {addr}/{mask}")
            }
            _ => format!("{addr} has no prefix length; write {addr}/{longest} for this one address"),
        });
    }
    if is_number(length) {
        return length.parse().ok().and_then(|length| IpNet::new(addr, length).ok()).ok_or_else(|| {
            let (length, family) = (quote(length), if addr.is_ipv4() { "IPv4" } else { "IPv6" });
            format!("prefix length {length} is too long for {family}; write {addr}/{longest} or shorter")
        });
    }
    Err(match dotted_mask(length) {
        Some(Ok(mask)) if addr.is_ipv4() => {
            format!("{length} is a mask, not a prefix length; write {addr}/{mask}")
        }
        Some(Err(())) if addr.is_ipv4() => {
            format!(
                "{length} is neither a prefix length nor a contiguous mask; write {addr}/0 to \
                 {addr}/{longest}"
            )
        }
        _ => format!(
            "prefix length {} is not a number; write {addr}/0 to {addr}/{longest}, followed by a blank or \
             nothing",
            quote(length)
        ),
    })
}

/// The prefix length of a dotted mask. `Err` if the mask is not contiguous, `None` if the field is not a
/// dotted mask.
fn dotted_mask(field: &str) -> Option<Result<u8, ()>> {
    let mask = IpAddr::V4(field.parse().ok()?);
    Some(ipnet::ip_mask_to_prefix(mask).map_err(|_| ()))
}

/// Rust's own number parsers would accept a leading `+` as well.
fn is_number(field: &str) -> bool {
    !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit())
}

fn quote(field: &str) -> String {
    let mut quoted: String = field.chars().take(QUOTED_CHARS).flat_map(char::escape_debug).collect();
    if field.chars().nth(QUOTED_CHARS).is_some() {
        quoted.push_str("...");
    }
    if is_plain(&quoted) { quoted } else { format!("\"{quoted}\"") }
}

/// Whether a field is readable in a sentence without quotation marks.
fn is_plain(field: &str) -> bool {
    !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./:".contains(&byte))
}

/// A warning for every line whose network is repeated on a later line.
fn repeated(entries: &[Entry]) -> Vec<Diagnostic> {
    // Copies, because sorting references misses the cache: 800,000 lines took 410 ms to parse instead of 290.
    let mut sorted = entries.to_vec();
    sorted.sort_unstable_by_key(|entry| (entry.prefix, entry.line));
    let mut warnings = Vec::new();
    for same in sorted.chunk_by(|a, b| a.prefix == b.prefix) {
        let Some((last, earlier)) = same.split_last() else { continue };
        warnings.extend(earlier.iter().map(|entry| {
            let Entry { line, class, prefix } = entry;
            let message = if *class == last.class {
                format!("lines {line} and {} both give {prefix} class {class}; one is enough", last.line)
            } else {
                format!(
                    "lines {line} and {0} give {prefix} class {class} and class {1}; the last one, line \
                     {0}, counts",
                    last.line, last.class
                )
            };
            Diagnostic { line: *line, severity: Severity::Warning, message }
        }));
    }
    warnings
}

#[cfg(test)]
mod tests;
