//! The network of a line, and what to write instead of something else. A refusal quotes the whole network:
//! advice that is followed must not bill other addresses than were meant.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::problems::{Kind, Refusal};
use crate::{
    notation::{self, Form, Reading, Unreadable, is_digits},
    ranges::Range,
};

/// Messages quote at most this many characters of a field, because the file may contain anything.
const QUOTED_CHARS: usize = 50;

/// Reads the fields behind the class: a network, and text that is ignored unless it names more networks.
pub(super) fn read(fields: &[&str]) -> Result<IpNet, Refusal> {
    let Some(&field) = fields.first() else { return Err(Refusal::new(Kind::Network, "no network")) };
    let Some(written) = plain(field) else { return Err(refuse(field, fields)) };
    if let Some(refusal) = embedded_v4(field, written) {
        return Err(refusal);
    }
    refuse_second(field, &fields[1..])?;
    Ok(written)
}

/// `ADDRESS/PREFIX`, as a class file has it.
fn plain(field: &str) -> Option<IpNet> {
    let (address, length) = field.split_once('/')?;
    if !is_digits(length) {
        return None;
    }
    IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()
}

/// IPv4 networks in IPv6 notation. No packet has such addresses, so the line would match nothing.
fn embedded_v4(field: &str, written: IpNet) -> Option<Refusal> {
    let IpNet::V6(network) = written else { return None };
    let addr: Ipv6Addr = network.addr();
    let v4 = match addr.to_ipv4_mapped() {
        Some(v4) => v4,
        // ::1 and the like are written without dots.
        None if field.contains('.') && addr.octets()[..12] == [0; 12] => addr.to_ipv4()?,
        None => return None,
    };
    let instead = match network.prefix_len().checked_sub(96) {
        Some(length) => Ipv4Net::new(v4, length).ok()?.trunc().to_string(),
        None => format!("{v4}/PREFIX, with a prefix length from 0 to 32"),
    };
    let message = format!(
        "{} is an IPv4 network in IPv6 notation, which no packet matches; write {instead}",
        quote(field)
    );
    Some(Refusal::new(Kind::Network, message))
}

/// Text behind the network is ignored, but a second network must not be lost.
fn refuse_second(first: &str, rest: &[&str]) -> Result<(), Refusal> {
    let mut is_behind_word = false;
    for field in rest {
        let bare = field.trim_matches(|character: char| ",;:()[]\"'.!-\u{2013}".contains(character));
        let is_address = bare.parse::<IpAddr>().is_ok();
        let is_range = || {
            let form = notation::read(&[bare]).map(|reading| reading.form);
            matches!(form, Ok(Form::Range | Form::Netmask | Form::Wildcard))
        };
        if plain(bare).is_some() || is_address && !is_behind_word || is_range() {
            let message = format!(
                "{} follows {first} on the line; write each network on a line of its own, and comments \
                 behind `#`",
                quote(bare)
            );
            return Err(Refusal::new(Kind::SecondNetwork, message));
        }
        // What these words take from the network would be billed with it.
        let takes_out = ["except", "exclude", "excluding", "without", "not", "but"].contains(&bare);
        is_behind_word |= field.contains(char::is_alphabetic) && !is_address && !takes_out;
    }
    Ok(())
}

/// Why what follows a class is no network, and what to write instead.
fn refuse(field: &str, fields: &[&str]) -> Refusal {
    punctuation(field, fields).unwrap_or_else(|| match notation::read(fields) {
        Ok(reading) => other_form(fields, reading),
        Err(error) => unreadable(field, fields, error),
    })
}

/// Commas, brackets, quotation marks and zone ids at an otherwise good network.
fn punctuation(field: &str, fields: &[&str]) -> Option<Refusal> {
    let refusal = |message: String| Some(Refusal::new(Kind::Punctuation, message));
    if let Some((address, zone)) = field.split_once('%') {
        let zone_and_length = zone.split_once('/');
        let length = zone_and_length.map(|(_, length)| length).filter(|length| is_digits(length));
        let network = match (length, plain(address)) {
            (Some(length), None) => plain(&format!("{address}/{length}")),
            (_, network) => network,
        };
        let instead =
            network.map_or_else(|| format!("{address}/PREFIX"), |network| network.trunc().to_string());
        return refusal(format!(
            "{} has a zone id, and a class applies on all interfaces; write {instead}",
            quote(field)
        ));
    }
    let pieces: Vec<&str> = field.split([',', ';']).filter(|piece| !piece.is_empty()).collect();
    let is_network = |piece: &str| plain(piece).is_some() || piece.parse::<IpAddr>().is_ok();
    if pieces.len() > 1 && pieces.iter().filter(|piece| is_network(piece)).count() > 1 {
        let message =
            format!("{} names more than one network; write each on a line of its own", quote(field));
        return Some(Refusal::new(Kind::SecondNetwork, message));
    }
    let bare = field.replace(|character| "[](){}\"'`,;<>".contains(character), "");
    if bare == field {
        return None;
    }
    let next = fields.get(1).and_then(|next| plain(next.trim_matches(|c: char| ",;()[]\"'".contains(c))));
    if let (Some(_), Some(next)) = (plain(&bare), next) {
        let message = format!("{bare} and {next} are on one line; write each on a line of its own");
        return Some(Refusal::new(Kind::SecondNetwork, message));
    }
    let network = plain(&bare)?.trunc();
    let which = if field.contains(['[', ']']) {
        "brackets"
    } else if field.contains(['"', '\'', '`']) {
        "quotation marks"
    } else if field.contains(',') {
        "a comma"
    } else if field.contains(';') {
        "a semicolon, which begins no comment"
    } else {
        "parentheses"
    };
    refusal(format!("{} has {which}; write {network}, and comments behind `#`", quote(field)))
}

/// The message for addresses that are written in another way than as `ADDRESS/PREFIX`.
fn other_form(fields: &[&str], Reading { form, range, fields: taken }: Reading) -> Refusal {
    let written = fields[..taken.min(fields.len())].join(" ");
    let instead = as_networks(range);
    let address = fields[0].split(['/', '-']).next().unwrap_or_default();
    let message = match form {
        Form::Address => format!("{address} has no prefix length; write {instead} for this one address"),
        Form::Netmask => match written.split_once('/') {
            Some((_, mask)) => format!("{mask} is a mask, not a prefix length; write {instead}"),
            None => format!("{address} has a mask instead of a prefix length; write {instead}"),
        },
        Form::Wildcard => {
            format!("{} has a wildcard mask instead of a prefix length; write {instead}", quote(&written))
        }
        Form::Range => format!("{} is a range; write {instead}", quote(&written)),
        Form::TwoAddresses => {
            format!("{} are two addresses; if they are a range, write {instead}", quote(&written))
        }
        Form::BlankBeforeLength => {
            format!("{} has a blank before the length; write {instead}", quote(&written))
        }
        Form::Abbreviated => format!("{} is abbreviated; write {instead}", quote(&written)),
        Form::Prefix => format!("{} is not clear; write {instead}", quote(&written)),
    };
    Refusal::new(Kind::Network, message)
}

/// A range as the networks to write: up to three of them, or how many there are.
fn as_networks(range: Range) -> String {
    const NAMED: usize = 3;
    let mut networks = range.networks();
    let named: Vec<String> = networks.by_ref().take(NAMED).map(|network| network.to_string()).collect();
    match (named.split_last(), networks.count()) {
        (Some((only, [])), 0) => only.clone(),
        (Some((last, before)), 0) => format!("{} and {last}, each on a line of its own", before.join(", ")),
        (_, more) => format!(
            "{} and {more} more networks, each on a line of its own: `trafctl classes convert --from plain` \
             writes them",
            named.join(", ")
        ),
    }
}

fn unreadable(field: &str, fields: &[&str], error: Unreadable) -> Refusal {
    let refusal = |message: String| Refusal::new(Kind::Network, message);
    let written = || quote(&fields[..fields.len().min(3)].join(" "));
    match error {
        Unreadable::Backwards => refusal(format!(
            "the range {} ends before it begins; write the lower address first, as networks ADDRESS/PREFIX",
            written()
        )),
        Unreadable::AmbiguousMask => refusal(format!(
            "the mask of {} can mean one address or all; write ADDRESS/32 or 0.0.0.0/0",
            written()
        )),
        Unreadable::MaskWithGaps | Unreadable::Unknown => refusal(no_network(field)),
    }
}

/// What is wrong with a field that is no network in any form.
fn no_network(field: &str) -> String {
    let (address, length) = field.split_once('/').map_or((field, ""), |(address, length)| (address, length));
    if ["any", "all", "default", "*"].contains(&field.to_ascii_lowercase().as_str()) {
        return format!(
            "{} is not an address; write 0.0.0.0/0 for all of IPv4 and ::/0 for all of IPv6, each on a line",
            quote(field)
        );
    }
    let Ok(addr) = address.parse::<IpAddr>() else {
        return format!(
            "{} is not an address; write an IPv4 address of four decimal numbers without leading zeros, or \
             an IPv6 address",
            quote(address)
        );
    };
    let longest = if addr.is_ipv4() { 32 } else { 128 };
    if length.is_empty() {
        return format!("{addr} has no prefix length; write {addr}/{longest} for this one address");
    }
    if is_digits(length) {
        let (length, family) = (quote(length), if addr.is_ipv4() { "IPv4" } else { "IPv6" });
        return format!("prefix length {length} is too long for {family}; write {addr}/{longest} or shorter");
    }
    if addr.is_ipv4() && length.parse::<std::net::Ipv4Addr>().is_ok() {
        return format!(
            "{length} is neither a prefix length nor a contiguous mask; write {addr}/0 to {addr}/{longest}"
        );
    }
    format!(
        "prefix length {} is not a number; write {addr}/0 to {addr}/{longest}, and a blank or nothing behind",
        quote(length)
    )
}

/// A field in a message: short, and in quotation marks unless it is plain.
pub(crate) fn quote(field: &str) -> String {
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
