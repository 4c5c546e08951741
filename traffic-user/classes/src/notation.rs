//! Networks as people write them: with a mask, as a range, with asterisks or without trailing zeros.
//!
//! The class file accepts only `ADDRESS/PREFIX`. The parser reads the other forms to tell what the line
//! should be, and the converters to convert them.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::ranges::Range;

/// How addresses are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `203.0.113.0/24`; host bits may be set.
    Prefix,
    /// One address.
    Address,
    /// An address with a mask: `203.0.113.0 255.255.255.0`, `203.0.113.0/255.255.255.0`.
    Netmask,
    /// An address with an inverted mask: `203.0.113.0 0.0.0.255`.
    Wildcard,
    /// `203.0.113.0 - 203.0.113.255`, `203.0.113.0-255`.
    Range,
    /// Two addresses with a blank between them, the second one no mask.
    TwoAddresses,
    /// A prefix with blanks at its slash, or a blank for it: `203.0.113.0 /24`.
    BlankBeforeLength,
    /// Asterisks, or octets left out: `203.0.113.*`, `203.0.113/24`.
    Abbreviated,
}

/// Addresses that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How they are written.
    pub form: Form,
    /// The addresses.
    pub range: Range,
    /// The number of fields they take.
    pub fields: usize,
}

/// Why fields that begin with an address are not readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// They name no addresses in any known form.
    Unknown,
    /// The range ends before it begins.
    Backwards,
    /// A mask that may be meant either way: 0.0.0.0 and 255.255.255.255.
    AmbiguousMask,
    /// The mask has gaps.
    MaskWithGaps,
}

/// Reads the addresses at the beginning of these fields.
///
/// # Errors
/// When they are in no known form, or not clear.
pub fn read(fields: &[&str]) -> Result<Reading, Unreadable> {
    let Some(&first) = fields.first() else { return Err(Unreadable::Unknown) };
    // The dash as word processors write it.
    let dash = |field: &str| matches!(field, "-" | "\u{2013}" | "\u{2014}" | "..");
    if let Ok(addr) = first.parse::<IpAddr>() {
        return match fields[1..] {
            [by, last, ..] if dash(by) => range(addr, last, Form::Range, 3),
            ["/", length, ..] => length_or_mask(addr, length, 3, true),
            ["mask" | "netmask", mask, ..] => length_or_mask(addr, mask, 3, true),
            [last, ..] if last.starts_with(['-', '\u{2013}']) => {
                range(addr, last.trim_start_matches(['-', '\u{2013}']), Form::Range, 2)
            }
            [length, ..] if length.starts_with('/') => length_or_mask(addr, &length[1..], 2, true),
            [next, ..] if is_digits(next) || next.parse::<IpAddr>().is_ok() => {
                length_or_mask(addr, next, 2, true)
                    .or_else(|error| match error {
                        Unreadable::MaskWithGaps | Unreadable::Unknown => {
                            range(addr, next, Form::TwoAddresses, 2)
                        }
                        other => Err(other),
                    })
                    .or_else(|error| match error {
                        // A number that is no length, or an address below the first one.
                        Unreadable::Unknown | Unreadable::Backwards => Ok(one(addr)),
                        other => Err(other),
                    })
            }
            _ => Ok(one(addr)),
        };
    }
    if let Some((start, end)) = first.split_once(['-', '\u{2013}'])
        && let Ok(addr) = start.parse::<IpAddr>()
    {
        return match (end, fields.get(1)) {
            ("", Some(last)) => range(addr, last, Form::Range, 2),
            _ => range(addr, end, Form::Range, 1),
        };
    }
    if let Some((start, length)) = first.split_once('/')
        && let Ok(addr) = start.parse::<IpAddr>()
    {
        return match (length, fields.get(1)) {
            ("", Some(length)) => length_or_mask(addr, length, 2, true),
            _ => length_or_mask(addr, length, 1, false),
        };
    }
    abbreviated(first)
}

fn one(addr: IpAddr) -> Reading {
    Reading { form: Form::Address, range: Range::of_network(addr.into()), fields: 1 }
}

/// The rest of a range: an address, or the last octet of one.
fn range(first: IpAddr, last: &str, form: Form, fields: usize) -> Result<Reading, Unreadable> {
    let last = match (first, last.parse::<IpAddr>()) {
        (_, Ok(last)) => last,
        (IpAddr::V4(first), Err(_)) if is_digits(last) => {
            let [a, b, c, _] = first.octets();
            IpAddr::V4([a, b, c, last.parse().map_err(|_| Unreadable::Unknown)?].into())
        }
        _ => return Err(Unreadable::Unknown),
    };
    if last.is_ipv4() != first.is_ipv4() {
        return Err(Unreadable::Unknown);
    }
    Range::new(first, last).map(|range| Reading { form, range, fields }).ok_or(Unreadable::Backwards)
}

fn length_or_mask(addr: IpAddr, text: &str, fields: usize, has_blank: bool) -> Result<Reading, Unreadable> {
    let network = |form, length: u8| {
        let network = IpNet::new(addr, length).map_err(|_| Unreadable::Unknown)?;
        Ok(Reading { form, range: Range::of_network(network), fields })
    };
    if is_digits(text) {
        let form = if has_blank { Form::BlankBeforeLength } else { Form::Prefix };
        return network(form, text.parse().map_err(|_| Unreadable::Unknown)?);
    }
    let (IpAddr::V4(of), Ok(mask)) = (addr, text.parse::<Ipv4Addr>()) else {
        return Err(Unreadable::Unknown);
    };
    let (bits, any) = (mask.to_bits(), of.is_unspecified());
    // As a netmask 0.0.0.0 is every address, as a wildcard it is one. The address says which is meant.
    match bits {
        0 if !any => return Err(Unreadable::AmbiguousMask),
        u32::MAX if any => return Err(Unreadable::AmbiguousMask),
        _ => {}
    }
    if let Ok(length) = ipnet::ip_mask_to_prefix(mask.into()) {
        return network(Form::Netmask, length);
    }
    let length = ipnet::ip_mask_to_prefix(Ipv4Addr::from(!bits).into());
    network(Form::Wildcard, length.map_err(|_| Unreadable::MaskWithGaps)?)
}

/// `203.0.113.*`, `203.0.*.*`, `203.0.113/24`.
fn abbreviated(field: &str) -> Result<Reading, Unreadable> {
    let (octets, length) = match field.split_once('/') {
        Some((octets, length)) if is_digits(length) => (octets, length.parse().ok()),
        None if field.ends_with('*') => (field, None),
        _ => return Err(Unreadable::Unknown),
    };
    let mut given = [0_u8; 4];
    let (mut known, mut total) = (0_u8, 0_usize);
    for octet in octets.split('.') {
        let place = given.get_mut(total).ok_or(Unreadable::Unknown)?;
        total += 1;
        if octet == "*" && length.is_none() {
            continue;
        }
        // An octet behind an asterisk is no prefix, and one with leading zeros may be octal.
        let leads = octet.len() > 1 && octet.starts_with('0');
        if usize::from(known) + 1 != total || !is_digits(octet) || leads {
            return Err(Unreadable::Unknown);
        }
        *place = octet.parse().map_err(|_| Unreadable::Unknown)?;
        known += 1;
    }
    // All four octets are no abbreviation. `*` alone could mean anything.
    if known == 0 || known == 4 {
        return Err(Unreadable::Unknown);
    }
    let network = IpNet::new(Ipv4Addr::from(given).into(), length.unwrap_or(known * 8));
    let network = network.map_err(|_| Unreadable::Unknown)?;
    Ok(Reading { form: Form::Abbreviated, range: Range::of_network(network), fields: 1 })
}

/// Rust's own number parsers would accept a leading `+` as well.
pub fn is_digits(field: &str) -> bool {
    !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, form, fields, networks) in [
            ("203.0.113.7/24", Form::Prefix, 1, "203.0.113.0/24"),
            ("2001:db8::/32 x", Form::Prefix, 1, "2001:db8::/32"),
            ("203.0.113.7", Form::Address, 1, "203.0.113.7/32"),
            ("203.0.113.7 office", Form::Address, 1, "203.0.113.7/32"),
            ("203.0.113.7 999", Form::Address, 1, "203.0.113.7/32"),
            ("203.0.113.0 255.255.255.0", Form::Netmask, 2, "203.0.113.0/24"),
            ("203.0.113.0/255.255.255.0", Form::Netmask, 1, "203.0.113.0/24"),
            ("203.0.113.0 netmask 255.255.255.128", Form::Netmask, 3, "203.0.113.0/25"),
            ("0.0.0.0 0.0.0.0", Form::Netmask, 2, "0.0.0.0/0"),
            ("203.0.113.7 255.255.255.255", Form::Netmask, 2, "203.0.113.7/32"),
            ("203.0.113.0 0.0.0.255", Form::Wildcard, 2, "203.0.113.0/24"),
            ("203.0.113.0/0.0.0.255", Form::Wildcard, 1, "203.0.113.0/24"),
            ("203.0.113.0 - 203.0.113.255", Form::Range, 3, "203.0.113.0/24"),
            ("203.0.113.0-203.0.113.255", Form::Range, 1, "203.0.113.0/24"),
            ("203.0.113.0- 203.0.113.255", Form::Range, 2, "203.0.113.0/24"),
            ("203.0.113.0 -203.0.113.255", Form::Range, 2, "203.0.113.0/24"),
            ("203.0.113.0 \u{2013} 203.0.113.255", Form::Range, 3, "203.0.113.0/24"),
            ("203.0.113.0-127", Form::Range, 1, "203.0.113.0/25"),
            ("192.0.2.1-192.0.2.2", Form::Range, 1, "192.0.2.1/32 192.0.2.2/32"),
            ("2001:db8::-2001:db8::f", Form::Range, 1, "2001:db8::/124"),
            ("203.0.113.0 203.0.113.255", Form::TwoAddresses, 2, "203.0.113.0/24"),
            ("203.0.113.0 /24", Form::BlankBeforeLength, 2, "203.0.113.0/24"),
            ("203.0.113.0/ 24", Form::BlankBeforeLength, 2, "203.0.113.0/24"),
            ("203.0.113.0 / 24", Form::BlankBeforeLength, 3, "203.0.113.0/24"),
            ("203.0.113.0 24", Form::BlankBeforeLength, 2, "203.0.113.0/24"),
            ("203.0.113.*", Form::Abbreviated, 1, "203.0.113.0/24"),
            ("203.0.*.*", Form::Abbreviated, 1, "203.0.0.0/16"),
            ("203.0.*", Form::Abbreviated, 1, "203.0.0.0/16"),
            ("10/8", Form::Abbreviated, 1, "10.0.0.0/8"),
            ("203.0.113/24", Form::Abbreviated, 1, "203.0.113.0/24"),
        ] {
            let split: Vec<&str> = text.split(' ').collect();
            let reading = read(&split).unwrap_or_else(|error| panic!("{text}: {error:?}"));
            assert_eq!((reading.form, reading.fields), (form, fields), "{text}");
            let read: Vec<String> = reading.range.networks().map(|network| network.to_string()).collect();
            assert_eq!(read.join(" "), networks, "{text}");
        }
    }

    #[test]
    fn what_is_not_clear_is_not_guessed() {
        for (text, error) in [
            ("", Unreadable::Unknown),
            ("example.org", Unreadable::Unknown),
            ("*", Unreadable::Unknown),
            ("10.*.1.*", Unreadable::Unknown),
            ("010/8", Unreadable::Unknown),
            ("10.0.0.0.0/8", Unreadable::Unknown),
            ("10.0.0.0/33", Unreadable::Unknown),
            ("10.0.0.0/", Unreadable::Unknown),
            ("10.0.0.0-::1", Unreadable::Unknown),
            ("10.0.0.0-999", Unreadable::Unknown),
            ("10.0.0.9-10.0.0.1", Unreadable::Backwards),
            ("10.0.0.1 0.0.0.0", Unreadable::AmbiguousMask),
            ("0.0.0.0 255.255.255.255", Unreadable::AmbiguousMask),
            ("10.0.0.0/255.0.255.0", Unreadable::MaskWithGaps),
        ] {
            let split: Vec<&str> = text.split(' ').filter(|field| !field.is_empty()).collect();
            assert_eq!(read(&split), Err(error), "{text}");
        }
    }
}
