//! The one encoding of rows that are hashed, version 2. Others can compute the same hashes from a copy of the
//! file: `docs/ledger-hashes.md` describes it.
//!
//! A row is its number of columns (32 bits, big-endian) and its values in order. A value is one byte for its
//! type, then its content: `N` null; `I` an integer, 64 bits in two's complement, big-endian; `R` a number
//! with a fraction, IEEE 754 double, big-endian; `T` text and `B` binary, each a length in bytes (64 bits,
//! big-endian) and the bytes. So no two different rows have the same encoding.

use rusqlite::types::ValueRef;

/// Adds the beginning of a row.
pub(crate) fn row(to: &mut Vec<u8>, columns: usize) {
    to.extend(u32::try_from(columns).unwrap_or(u32::MAX).to_be_bytes());
}

/// Adds a value.
pub(crate) fn value(to: &mut Vec<u8>, value: ValueRef<'_>) {
    let mut sized = |kind: u8, content: &[u8]| {
        to.push(kind);
        to.extend((content.len() as u64).to_be_bytes());
        to.extend(content);
    };
    match value {
        ValueRef::Null => to.push(b'N'),
        ValueRef::Text(text) => sized(b'T', text),
        ValueRef::Blob(bytes) => sized(b'B', bytes),
        ValueRef::Integer(number) => {
            to.push(b'I');
            to.extend(number.to_be_bytes());
        }
        ValueRef::Real(number) => {
            to.push(b'R');
            to.extend(number.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_the_one_that_is_written_down() {
        let mut bytes = Vec::new();
        row(&mut bytes, 5);
        for cell in [
            ValueRef::Null,
            ValueRef::Integer(-2),
            ValueRef::Real(0.5),
            ValueRef::Text(b"a\t"),
            ValueRef::Blob(&[0xff]),
        ] {
            value(&mut bytes, cell);
        }
        let expected: &[&[u8]] = &[
            &[0, 0, 0, 5],
            b"N",
            &[b'I', 255, 255, 255, 255, 255, 255, 255, 254],
            &[b'R', 0x3f, 0xe0, 0, 0, 0, 0, 0, 0],
            &[b'T', 0, 0, 0, 0, 0, 0, 0, 2, b'a', b'\t'],
            &[b'B', 0, 0, 0, 0, 0, 0, 0, 1, 255],
        ];
        assert_eq!(bytes, expected.concat());
    }
}
