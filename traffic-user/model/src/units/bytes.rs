//! Amounts of bytes.

use crate::units::InvalidAmount;

const BYTE_UNITS: &str = "write a number with a unit of B, k, M, G, T, P (also kB, MB, GB, TB, PB: powers of \
                          1000) or KiB, MiB, GiB, TiB, PiB (powers of 1024), such as 1.5GB or 1048576";

/// Parses an amount of bytes, such as `1.5GB` or `1048576`.
///
/// # Errors
/// When the text is not a whole, non-negative number of bytes below 2^64 in an accepted unit.
pub fn parse_bytes(text: &str) -> Result<u64, InvalidAmount> {
    let invalid = |problem| InvalidAmount::new(text, problem, BYTE_UNITS);
    let bytes = exact_bytes(text.trim()).map_err(invalid)?;
    u64::try_from(bytes).map_err(|_| invalid(if bytes < 0 { "is negative" } else { "is too large" }))
}

/// Parses a signed amount of bytes, such as `-1.5GB` or `+200MiB`.
///
/// # Errors
/// When the text is not a whole number of bytes between -2^63 and 2^63 in an accepted unit.
pub fn parse_signed_bytes(text: &str) -> Result<i64, InvalidAmount> {
    let invalid = |problem| InvalidAmount::new(text, problem, BYTE_UNITS);
    i64::try_from(exact_bytes(text.trim()).map_err(invalid)?).map_err(|_| invalid("is too large"))
}

/// Decimal arithmetic without floating point: a correction of a bill must not be rounded.
fn exact_bytes(text: &str) -> Result<i128, &'static str> {
    const NOT_A_NUMBER: &str = "is not an amount of bytes";
    const TOO_LARGE: &str = "is too large";
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, unit) = rest.split_at(number_len);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty()
        || (number.contains('.') && fraction.is_empty())
        || !fraction.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(NOT_A_NUMBER);
    }
    let scale = scale_of(unit.trim_start()).ok_or("has an unknown unit")?;
    // More digits than this cannot be a whole number of bytes of any unit, or exceed every limit.
    if fraction.len() > 15 {
        return Err("is not a whole number of bytes");
    }
    if whole.len() > 20 {
        return Err(TOO_LARGE);
    }
    let digits: i128 = format!("{whole}{fraction}").parse().map_err(|_| NOT_A_NUMBER)?;
    let divisor = 10_i128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let scaled = digits.checked_mul(scale).ok_or(TOO_LARGE)?;
    if scaled % divisor != 0 {
        return Err("is not a whole number of bytes");
    }
    let bytes = scaled / divisor;
    Ok(if negative { -bytes } else { bytes })
}

fn scale_of(unit: &str) -> Option<i128> {
    let power_of_1000 = |power| 1000_i128.pow(power);
    Some(match unit {
        "" | "B" => 1,
        "k" | "K" | "kB" | "KB" => power_of_1000(1),
        "M" | "MB" => power_of_1000(2),
        "G" | "GB" => power_of_1000(3),
        "T" | "TB" => power_of_1000(4),
        "P" | "PB" => power_of_1000(5),
        "KiB" | "kiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "PiB" => 1 << 50,
        _ => return None,
    })
}

/// Formats bytes with two decimals in powers of 1024 when `human` is set, otherwise as a plain number.
pub fn format_bytes(value: u64, human: bool) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if !human || value < 1024 {
        return value.to_string();
    }
    let power = (value.ilog2() / 10).min(6);
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let scaled = value as f64 / (1_u64 << (10 * power)) as f64;
    format!("{scaled:.2} {}", UNITS[power as usize - 1])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn byte_amounts_are_exact_in_every_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1_048_576),
            ("7B", 7),
            ("1.5G", 1_500_000_000),
            ("1.5GB", 1_500_000_000),
            ("1.5GiB", 1_610_612_736),
            ("1.25 kB", 1250),
            ("1.25K", 1250),
            ("0.5KiB", 512),
            ("+200MiB", 209_715_200),
            ("9.2TB", 9_200_000_000_000),
            ("2P", 2_000_000_000_000_000),
            ("3PiB", 3_377_699_720_527_872),
            (" 5M ", 5_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
            assert_eq!(parse_signed_bytes(text), Ok(bytes.cast_signed()), "{text}");
        }
        assert_eq!(parse_signed_bytes("-1.5GB"), Ok(-1_500_000_000));
        assert_eq!(parse_bytes("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse_signed_bytes("-9223372036854775808"), Ok(i64::MIN));
    }

    #[test]
    fn refused_byte_amounts_list_the_accepted_units() {
        for (text, problem) in [
            ("", "is not an amount"),
            ("-", "is not an amount"),
            ("1.", "is not an amount"),
            (".5GB", "is not an amount"),
            ("1.2.3GB", "is not an amount"),
            ("NaN", "is not an amount"),
            ("inf", "is not an amount"),
            ("GB", "is not an amount"),
            ("--5", "is not an amount"),
            ("1,5GB", "has an unknown unit"),
            ("5Gb", "has an unknown unit"),
            ("5gb", "has an unknown unit"),
            ("5b", "has an unknown unit"),
            ("5 GBit", "has an unknown unit"),
            ("1e3", "has an unknown unit"),
            ("1.5", "is not a whole number"),
            ("0.0001kB", "is not a whole number"),
            ("0.0000000000000001PB", "is not a whole number"),
            ("99999999999999999999999999999999999999999999", "is too large"),
            ("9999999999TB", "is too large"),
        ] {
            for error in [parse_bytes(text).unwrap_err(), parse_signed_bytes(text).unwrap_err()] {
                let error = error.to_string();
                assert!(error.contains(problem), "{text}: {error}");
                assert!(error.contains("1.5GB") && error.contains("KiB"), "{text}: {error}");
            }
        }
        assert!(parse_bytes("-1").unwrap_err().to_string().contains("is negative"));
        assert!(parse_bytes("18446744073709551616").unwrap_err().to_string().contains("is too large"));
        assert!(parse_signed_bytes("9223372036854775808").unwrap_err().to_string().contains("is too large"));
    }

    #[test]
    fn human_bytes_have_two_decimals_and_a_binary_unit() {
        let shown = [0, 1023, 1024, 1536, 1 << 20, 5 << 30, u64::MAX].map(|value| format_bytes(value, true));
        assert_eq!(shown, ["0", "1023", "1.00 KiB", "1.50 KiB", "1.00 MiB", "5.00 GiB", "16.00 EiB"]);
        assert_eq!(format_bytes(123_456_789, false), "123456789");
    }

    proptest! {
        #[test]
        fn formatted_amounts_parse_back(bytes: u64) {
            prop_assert_eq!(parse_bytes(&format_bytes(bytes, false)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*|[-+0-9.,kKMGTPiBb ]{0,30}") {
            let _either = (parse_bytes(&text), parse_signed_bytes(&text));
        }
    }
}
