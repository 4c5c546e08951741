//! A number with its noun, in the singular or plural.

use std::fmt::Display;

/// A number and its noun, such as `1 prefix` or `2 prefixes`. `noun` is a regular English singular.
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    if number == N::from(1) {
        return format!("{number} {noun}");
    }
    match noun.strip_suffix('y') {
        Some(stem) => format!("{number} {stem}ies"),
        None if noun.ends_with(['s', 'x']) => format!("{number} {noun}es"),
        None => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        for (noun, plural) in
            [("prefix", "prefixes"), ("class", "classes"), ("entry", "entries"), ("buffer", "buffers")]
        {
            assert_eq!(counted(0_u64, noun), format!("0 {plural}"));
            assert_eq!(counted(1_u64, noun), format!("1 {noun}"));
            assert_eq!(counted(2_usize, noun), format!("2 {plural}"));
        }
    }
}
