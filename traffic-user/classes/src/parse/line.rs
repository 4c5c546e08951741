//! One line of a class file: its class and network, or why it is refused.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    MAX_CLASS,
    foreign::Format,
    network::{self, quote},
    problems::{Kind, Refusal},
};
use crate::notation::is_digits;

/// Whether the lines are those of a listing, which its first line with content says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Listing {
    /// No line with content was read.
    #[default]
    Unknown,
    /// Lines of a class file. `classes list` prints such lines below its header.
    Prefixes,
    /// What `class_list` prints: class, address and mask.
    Masks,
}

impl Listing {
    /// The next line if it is nothing but a class and a network, with its length: nearly all lines are. What it
    /// reads, [`Listing::parse_line`] reads in the same way, ten times as slowly.
    pub(super) fn plain_line(self, left: &[u8]) -> Option<((u8, IpNet), usize)> {
        if self != Self::Prefixes {
            return None;
        }
        let mut at = 0;
        let class = number(left, &mut at).filter(|&class| class <= u32::from(MAX_CLASS))?;
        if left.get(at) != Some(&b' ') {
            return None;
        }
        at += 1;
        let start = at;
        let address = match number(left, &mut at).filter(|_| left.get(at) == Some(&b'.')) {
            Some(first) => {
                let mut octets = [u8::try_from(first).ok()?, 0, 0, 0];
                for octet in &mut octets[1..] {
                    if left.get(at) != Some(&b'.') {
                        return None;
                    }
                    at += 1;
                    *octet = u8::try_from(number(left, &mut at)?).ok()?;
                }
                IpAddr::from(octets)
            }
            None => {
                let length =
                    left[start..].iter().position(|byte| !byte.is_ascii_hexdigit() && *byte != b':')?;
                at = start + length;
                IpAddr::V6(str::from_utf8(&left[start..at]).ok()?.parse().ok()?)
            }
        };
        if left.get(at) != Some(&b'/') {
            return None;
        }
        at += 1;
        let network = IpNet::new(address, u8::try_from(number(left, &mut at)?).ok()?).ok()?;
        let is_mapped = matches!(network, IpNet::V6(network) if network.addr().to_ipv4_mapped().is_some());
        (left.get(at) == Some(&b'\n') && !is_mapped).then_some(((u8::try_from(class).ok()?, network), at))
    }

    /// As [`parse_line`], for the next line of the file.
    pub(super) fn parse_line(&mut self, text: &[u8]) -> Result<Option<(u8, IpNet)>, Refusal> {
        if *self == Self::Masks {
            return parse_listed(text);
        }
        if *self == Self::Unknown {
            let fields: Vec<&[u8]> =
                text.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).take(4).collect();
            *self = match fields[..] {
                [] => Self::Unknown,
                [first, ..] if first.starts_with(b"#") => Self::Unknown,
                [b"class", b"addr", b"mask"] => Self::Masks,
                _ => Self::Prefixes,
            };
            if *self == Self::Masks || fields == [&b"CLASS"[..], b"PREFIX"] {
                return Ok(None);
            }
        }
        parse_line(text)
    }
}

/// The number at a place, of at most three digits and without a zero in front. Moves behind it.
fn number(text: &[u8], at: &mut usize) -> Option<u32> {
    let digits = text[*at..].iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
    let number = &text[*at..*at + digits];
    if digits == 0 || digits > 3 || digits > 1 && number[0] == b'0' {
        return None;
    }
    *at += digits;
    Some(number.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
}

/// A line below `class addr mask`. IPv6 masks are 32 hexadecimal digits.
fn parse_listed(text: &[u8]) -> Result<Option<(u8, IpNet)>, Refusal> {
    let text = String::from_utf8_lossy(text.split(|&byte| byte == b'#').next().unwrap_or_default());
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [number, address, mask] = fields[..] else {
        return if fields.is_empty() { Ok(None) } else { Err(unlisted(&text)) };
    };
    let class = class(number, &fields[1..])?;
    let mask: Option<IpAddr> = if mask.len() == 32 {
        u128::from_str_radix(mask, 16).ok().map(|bits| IpAddr::V6(bits.into()))
    } else {
        mask.parse().ok().filter(IpAddr::is_ipv4)
    };
    let network = match (address.parse::<IpAddr>(), mask) {
        (Ok(address), Some(mask)) => IpNet::with_netmask(address, mask).ok(),
        _ => None,
    };
    network.map(|network| Some((class, network))).ok_or_else(|| unlisted(&text))
}

fn unlisted(text: &str) -> Refusal {
    let message = format!(
        "{} is not class, address and mask, as the lines below `class addr mask` are; write the listing again",
        quote(text.trim())
    );
    Refusal::new(Kind::Network, message)
}

/// The class and network of one line, `None` if the line is empty or a comment, or why it is refused.
fn parse_line(text: &[u8]) -> Result<Option<(u8, IpNet)>, Refusal> {
    // With carriage returns as line ends, all lines would be trailing text of the first.
    if text.trim_ascii_end().contains(&b'\r') {
        return Err(Refusal::new(
            Kind::Characters,
            "a carriage return is inside the line, and the text after it would be ignored; end lines with a \
             line feed",
        ));
    }
    let content = text.split(|&byte| byte == b'#').next().unwrap_or_default();
    let content = String::from_utf8_lossy(content);
    let mut fields = content.split([' ', '\t', '\r', '\x0b', '\x0c']).filter(|field| !field.is_empty());
    let Some(first) = fields.next() else { return Ok(None) };
    // Most lines are two fields and nothing else: no list of fields is built for them.
    if let (Some(network), None) = (fields.clone().next(), fields.clone().nth(1))
        && let (Ok(class), Ok(network)) = (class(first, &[]), network::read(&[network]))
    {
        return Ok(Some((class, network)));
    }
    let rest: Vec<&str> = fields.collect();
    let class = class(first, &rest).map_err(|refusal| misread(&content).unwrap_or(refusal))?;
    if rest.is_empty() {
        let message = format!(
            "no network follows class {class}; write `{class} ADDRESS/PREFIX`, such as `{class} 192.0.2.0/24`"
        );
        return Err(Refusal::new(Kind::Network, message));
    }
    match network::read(&rest) {
        Ok(network) => Ok(Some((class, network))),
        Err(refusal) => Err(odd_character(rest[0]).unwrap_or(refusal)),
    }
}

/// What a line without a readable class is instead, if it is known.
fn misread(content: &str) -> Option<Refusal> {
    let line = content.trim();
    if let Some(refusal) = odd_character(line) {
        return Some(refusal);
    }
    if let Some(format) = Format::of_line(line) {
        return Some(Refusal::new(Kind::Foreign(format), format.of_one_line(line)));
    }
    // `%` begins comments of the registries' servers, `--` those of SQL, `"` those of vim.
    let mark = [";", "//", "!", "--", "/*", "%"].into_iter().find(|mark| line.starts_with(mark))?;
    let is_signed = mark == "--" && line.starts_with("---");
    (!is_signed).then(|| {
        let message = format!("`{mark}` does not begin a comment; begin comments with `#`");
        Refusal::new(Kind::Comment, message)
    })
}

/// A character that is invisible, or that looks like an ASCII one.
fn odd_character(text: &str) -> Option<Refusal> {
    let odd = text.chars().find(|character| !character.is_ascii() && *character != '\u{fffd}')?;
    let (code, is_first) = (u32::from(odd), text.starts_with(odd));
    let what = match odd {
        '\u{feff}' => {
            let message = "a byte order mark is inside the file, as after `cat a b`; remove it, for example \
                           with `sed -i 's/\\xef\\xbb\\xbf//g' FILE`";
            return Some(Refusal::new(Kind::Characters, message));
        }
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{3000}' => {
            format!("the blank U+{code:04X}; write an ordinary blank")
        }
        '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{ad}' => {
            format!("the invisible character U+{code:04X}; remove it")
        }
        '\u{201c}' | '\u{201d}' | '\u{ab}' | '\u{bb}' => "quotation marks; remove them".to_owned(),
        _ if odd.is_numeric() => format!("the digit {odd} (U+{code:04X}); write ASCII digits"),
        // Words in other languages are trailing text or comments without their mark.
        _ if odd.is_alphabetic() && !is_first => return None,
        _ => format!("{odd} (U+{code:04X}); write `CLASS ADDRESS/PREFIX`, and comments behind `#`"),
    };
    Some(Refusal::new(Kind::Characters, format!("the line has {what}")))
}

fn class(field: &str, rest: &[&str]) -> Result<u8, Refusal> {
    if is_digits(field) {
        return field.parse().ok().filter(|&class| class <= MAX_CLASS).ok_or_else(|| {
            let message =
                format!("class {} is out of range; write a number from 0 to {MAX_CLASS}", quote(field));
            Refusal::new(Kind::Class, message)
        });
    }
    Err(no_class(field, rest))
}

/// Why the first field is no class.
fn no_class(field: &str, rest: &[&str]) -> Refusal {
    let is_network = |text: &str| {
        let address = text.split_once('/').map_or(text, |(address, _)| address);
        address.parse::<IpAddr>().is_ok()
    };
    // `2,10.0.0.0/8`, `10.0.0.0/8;2`, and with a blank behind the comma: `2, 10.0.0.0/8`.
    if let Some(at) = field.find([',', ';', '=', '|']) {
        let (left, right) = (&field[..at], field[at + 1..].trim_start_matches([',', ';', '=', '|']));
        let next = rest.first().copied().unwrap_or_default();
        let network = if right.is_empty() { next } else { right };
        if is_digits(left) && is_network(network) {
            let message =
                format!("class and network are separated by a blank; write `{left} {}`", quote(network));
            return Refusal::new(Kind::Punctuation, message);
        }
    }
    let bare = field.trim_matches(['[', ']', '(', ')', '"', '\'', ',', ';', '-', '\u{2013}']);
    let starts_with_network = is_network(bare) || bare.split('-').next().is_some_and(is_network);
    if starts_with_network {
        let class = rest.first().filter(|next| is_digits(next));
        let message = match (class, rest.len()) {
            (Some(class), 1) if class.parse::<u8>().is_ok_and(|class| class <= MAX_CLASS) => {
                format!(
                    "no class precedes the network; write `CLASS {bare}`, with a class from 0 to {MAX_CLASS}; \
                     if {class} is it, `{class} {bare}`"
                )
            }
            _ => format!(
                "no class precedes the network; write `CLASS {}`, with a class from 0 to {MAX_CLASS}",
                quote(bare)
            ),
        };
        return Refusal::new(Kind::NoClass, message);
    }
    let number = field.trim_matches(['"', '\'', ':', ',', '.', '[', ']', '(', ')']);
    let instead = if is_digits(number) && number.parse::<u8>().is_ok_and(|class| class <= MAX_CLASS) {
        format!("write {number}")
    } else {
        format!("write a number from 0 to {MAX_CLASS}")
    };
    Refusal::new(Kind::Class, format!("class {} is not a number; {instead}", quote(field)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usual_lines_are_plain() {
        for line in ["1 10.0.0.0/8", "0 0.0.0.0/0", "254 255.255.255.255/32", "7 2001:db8::/32", "1 ::/0"] {
            let text = format!("{line}\nrest");
            let (network, length) = Listing::Prefixes.plain_line(text.as_bytes()).unwrap();
            assert_eq!(length, line.len());
            assert_eq!(Listing::Prefixes.parse_line(line.as_bytes()), Ok(Some(network)), "{line}");
            assert_eq!(Listing::Masks.plain_line(text.as_bytes()), None);
            assert_eq!(Listing::Prefixes.plain_line(line.as_bytes()), None, "the last line may be cut short");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 3000, ..ProptestConfig::default() })]

        #[test]
        fn what_is_plain_is_read_as_any_other_line(
            line in prop_oneof![
                "(0|1|25[3-6]|0?[0-9]{1,3}) ([0-2]?[0-9]{1,2}\\.){3}[0-2]?[0-9]{1,2}/[0-3]?[0-9]",
                "[0-9]{1,2}[ \t]{1,2}([0-9]{1,3}[.:]){2,4}[0-9]{1,3}/[0-9]{1,3}[ #\r]?",
                "[12] (::|::ffff:|64:ff9b::|fe80::|)([0-9a-f]{1,5}:{1,2}){0,7}[0-9a-f.%]{0,5}/[0-9]{1,3}",
                "[12] ::(ffff:)?([0-9]{1,3}\\.){3}[0-9]{1,3}/(96|104|128)",
            ],
        ) {
            let text = format!("{line}\n");
            if let Some((network, length)) = Listing::Prefixes.plain_line(text.as_bytes()) {
                prop_assert_eq!(length, line.len());
                match Listing::Prefixes.parse_line(line.as_bytes()) {
                    Ok(read) => prop_assert_eq!(read, Some(network)),
                    Err(refusal) => prop_assert!(false, "{line}: {refusal:?}"),
                }
            }
        }
    }
}
