//! How people write hardware addresses, local addresses and numbers of bytes.

use std::net::IpAddr;

use ipnet::IpNet;

/// Six bytes in hexadecimal, between colons or dashes or without anything between them.
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

/// Reads an address, or a prefix without host bits.
///
/// # Errors
/// One line saying what to write instead.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let Ok(prefix) = text.parse::<IpNet>() else {
        return Err(format!(
            "{text:?} is neither an address nor a prefix: write 10.0.0.5 or 2001:db8:5::/64"
        ));
    };
    if prefix.prefix_len() == 0 {
        return Err(format!("{text} would give one container every address"));
    }
    if prefix.trunc() == prefix {
        return Ok(prefix);
    }
    Err(format!(
        "{text} has host bits set: write {} for the address, or {} for the whole prefix",
        prefix.addr(),
        prefix.trunc()
    ))
}

/// Reads bytes with a sign and a unit: `-1.5GB`, `+200MiB`, `1048576`. Units without an `i` are powers of 1000.
///
/// # Errors
/// One line saying what to write instead; also when it is no whole number of bytes.
pub fn parse_signed_bytes(text: &str) -> Result<i64, String> {
    let wrong = |what: &str| format!("{text:?} {what}: write -1.5GB, +200MiB or 1048576");
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, unit) = rest.split_at(digits);
    let scale: i128 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000_i128.pow(2),
        "gb" => 1000_i128.pow(3),
        "tb" => 1000_i128.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(wrong("has an unknown unit")),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 15 || (number.contains('.') && fraction.is_empty()) {
        return Err(wrong("is no number of bytes"));
    }
    let digits: i128 = format!("{whole}{fraction}").parse().map_err(|_| wrong("is no number of bytes"))?;
    let divisor = 10_i128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let scaled = digits.checked_mul(scale).ok_or_else(|| wrong("is too much"))?;
    if scaled % divisor != 0 {
        return Err(wrong("is no whole number of bytes"));
    }
    let bytes = i64::try_from(scaled / divisor).map_err(|_| wrong("is too much"))?;
    Ok(if negative { -bytes } else { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("-1.5GB", -1_500_000_000),
            ("+200MiB", 209_715_200),
            ("1048576", 1_048_576),
            ("1.25 kb", 1250),
            ("0.5KiB", 512),
            ("-7B", -7),
            ("9.2tb", 9_200_000_000_000),
        ] {
            assert_eq!(parse_signed_bytes(text), Ok(bytes), "{text}");
        }
        for (text, why) in [
            ("", "no number"),
            ("-", "no number"),
            ("1.", "no number"),
            (".5GB", "no number"),
            ("1.2.3GB", "no number"),
            ("--5", "unit"),
            ("5 GBit", "unit"),
            ("1.5", "whole"),
            ("0.0001kB", "whole"),
            ("9999999999TB", "too much"),
        ] {
            let error = parse_signed_bytes(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_and_prefixes_as_people_write_them() {
        assert_eq!(parse_prefix("10.0.0.5"), Ok(net("10.0.0.5/32")));
        assert_eq!(parse_prefix("2001:db8::/64"), Ok(net("2001:db8::/64")));
        assert_eq!(
            parse_prefix("10.0.0.5/24"),
            Err("10.0.0.5/24 has host bits set: write 10.0.0.5 for the address, or 10.0.0.0/24 for the whole prefix"
                .to_owned())
        );
        assert!(parse_prefix("::/0").unwrap_err().contains("every address"));
        assert!(parse_prefix("10.0.0.0/33").unwrap_err().contains("neither"));
    }

    #[test]
    fn hardware_addresses_as_people_write_them() {
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
}
