//! Figures for people, with three digits and a unit. The web page has the same rules (`web/js/base.js`).

const RATES: [&str; 6] = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s"];
const VOLUMES: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// Bytes, such as `77.1 GB`, in powers of 1000.
pub fn volume(bytes: u64) -> String {
    if bytes < 1000 {
        return if bytes == 0 { "0".to_owned() } else { format!("{bytes} B") };
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    scaled(bytes as f64, &VOLUMES)
}

/// A number of things, such as `263 M`, in powers of 1000.
pub fn count(number: u64) -> String {
    if number < 10_000 {
        return number.to_string();
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    scaled(number as f64, &["", "k", "M", "G", "T", "P", "E"])
}

/// Bits per second, such as `4.71 Mbit/s`, in powers of 1000.
pub fn rate(bits_per_second: f64) -> String {
    if bits_per_second <= 0.0 { "0".to_owned() } else { scaled(bits_per_second, &RATES) }
}

fn scaled(value: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (value, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", units[unit])
}

/// A share in thousandths as percent. A part that is not zero is never shown as zero.
pub fn percent(permille: u64, is_zero: bool) -> String {
    if permille == 0 && !is_zero {
        "<0.1 %".to_owned()
    } else {
        format!("{}.{} %", permille / 10, permille % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (9_995, "10.0 kB"),
            (99_949, "99.9 kB"),
            (99_950, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (553_287_497_784, "553 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(volume(bytes), text, "{bytes}");
        }
        assert_eq!([count(0), count(9_999), count(10_000)], ["0", "9999", "10.0 k"]);
        assert_eq!(count(263_260_503), "263 M");
        assert_eq!(rate(0.0), "0");
        assert_eq!(rate(0.4), "0.40 bit/s");
        assert_eq!(rate(999.6), "1.00 kbit/s");
        assert_eq!(rate(4_712_345.0), "4.71 Mbit/s");
        assert_eq!(rate(1e18), "1000 Pbit/s");
        assert_eq!(rate(f64::NAN), "NaN bit/s");
    }

    #[test]
    fn a_small_share_is_not_zero() {
        assert_eq!(percent(0, true), "0.0 %");
        assert_eq!(percent(0, false), "<0.1 %");
        assert_eq!(percent(5, false), "0.5 %");
        assert_eq!(percent(1000, false), "100.0 %");
    }
}
