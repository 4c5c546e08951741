//! Parsers for hardware addresses, and for local addresses and prefixes; names of interfaces as text. Amounts
//! are in [`units`](crate::units).

use std::net::IpAddr;

use ipnet::IpNet;

/// The name of an interface as text. The kernel accepts almost any bytes: those that are not UTF-8 are
/// written as `\xNN`, and a backslash that would look like that as `\x5c`, so that different names stay
/// different.
pub fn name_text(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        let mut valid = chunk.valid();
        while let Some(at) = valid.find('\\') {
            text.push_str(&valid[..at]);
            text.push_str(if escaped_byte(&valid.as_bytes()[at..]).is_some() { "\\x5c" } else { "\\" });
            valid = &valid[at + 1..];
        }
        text.push_str(valid);
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The bytes of a name that [`name_text`] wrote as text.
pub fn name_bytes(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((&first, others)) = rest.split_first() {
        match escaped_byte(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(first);
                rest = others;
            }
        }
    }
    bytes
}

/// The byte that `\xNN` at the beginning stands for.
fn escaped_byte(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    match *text {
        [b'\\', b'x', high, low, ..] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    }
}

/// Parses a hardware address: six bytes in hexadecimal, separated by colons, dashes or nothing.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    if text.len() == 12 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let bytes = u64::from_str_radix(text, 16).ok()?.to_be_bytes();
        return bytes[2..].try_into().ok();
    }
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part =
            parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// Parses an address, or a prefix without host bits, that may belong to one container.
///
/// # Errors
/// One line that says what is wrong; what to write instead. A prefix of length 0 is refused.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let prefix = parse_network(text)?;
    if prefix.prefix_len() == 0 {
        return Err(format!("{text} would give every address to one container; write a longer prefix"));
    }
    Ok(prefix)
}

/// Parses an address, or a prefix without host bits.
///
/// # Errors
/// One line that says what is wrong; what to write instead.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let Ok(prefix) = text.parse::<IpNet>() else {
        return Err(format!(
            "{text:?} is neither an address nor a prefix; write 10.0.0.5 or 2001:db8:5::/64"
        ));
    };
    if prefix.trunc() == prefix {
        return Ok(prefix);
    }
    Err(format!(
        "{text} has host bits set; write {} for the address, or {} for the whole prefix",
        prefix.addr(),
        prefix.trunc()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_and_prefixes_are_parsed_or_refused_with_a_hint() {
        assert_eq!(parse_prefix("10.0.0.5"), Ok(net("10.0.0.5/32")));
        assert_eq!(parse_prefix("2001:db8::/64"), Ok(net("2001:db8::/64")));
        assert_eq!(
            parse_prefix("10.0.0.5/24"),
            Err("10.0.0.5/24 has host bits set; write 10.0.0.5 for the address, or 10.0.0.0/24 for the \
                 whole prefix"
                .to_owned())
        );
        assert!(parse_prefix("::/0").unwrap_err().contains("every address"));
        assert_eq!(parse_network("::/0"), Ok(net("::/0")));
        assert!(parse_prefix("10.0.0.0/33").unwrap_err().contains("neither"));
    }

    #[test]
    fn hardware_addresses_are_parsed_in_three_notations() {
        assert_eq!(parse_mac("00:18:51:AA:bb:cc"), Some([0, 0x18, 0x51, 0xaa, 0xbb, 0xcc]));
        assert_eq!(parse_mac("00-18-51-aa-bb-cc"), Some([0, 0x18, 0x51, 0xaa, 0xbb, 0xcc]));
        assert_eq!(parse_mac("001851AAbbcc"), Some([0, 0x18, 0x51, 0xaa, 0xbb, 0xcc]));
        for bad in [
            "",
            "001851aabbc",
            "001851aabbccd",
            "+01851aabbcc",
            "00:18:51:aa:bb",
            "00:18:51:aa:bb:cc:dd",
            "0:18:51:aa:bb:cc",
            "00:18:51:aa:bb:+c",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_of_any_bytes_have_a_text_of_their_own() {
        assert_eq!(name_text(b"v\xe9"), "v\\xe9");
        assert_eq!(name_text(b"v\\xe9"), "v\\x5cxe9");
        assert_eq!(name_text("caf\u{e9}\\x".as_bytes()), "caf\u{e9}\\x");
        assert_eq!(name_text(b"a\\b\\xEF\\"), "a\\b\\xEF\\");
    }

    proptest::proptest! {
        #[test]
        fn names_are_read_back(mut bytes: Vec<u8>, at in 0_usize..16) {
            proptest::prop_assert_eq!(name_bytes(&name_text(&bytes)), bytes.clone());
            bytes.splice(at.min(bytes.len()).., *b"\\xe9\xe9\\\\x5c");
            proptest::prop_assert_eq!(name_bytes(&name_text(&bytes)), bytes);
        }
    }
}
