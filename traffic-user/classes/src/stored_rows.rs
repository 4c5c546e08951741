//! The prefixes of a class table in few bytes, as they are kept in the kernel beside the compiled table.
//!
//! `trafctl classes list` and the like answer from these rows. They lie in a map that no program reads, so
//! that the table in force and its prefixes have one lifetime and one owner.
//!
//! For each family: the number of rows, then the rows, sorted by (network, prefix length). A row is
//!
//! - its length in one byte, then the difference from the previous row's network. Both networks are shifted
//!   right by the bits that the length leaves open;
//! - or, if it begins behind the last address of the previous row, 257 less its length in one byte;
//!
//! and then its column in one byte. Numbers have seven bits in each byte, the lowest first, and the eighth bit
//! says that more follow.

use ipnet::{Ipv4Net, Ipv6Net};

use crate::index::Row;

/// A row that follows the previous one has at least this length, so that both forms fit into a byte.
const LEAST_ADJACENT: u8 = 2;

/// Rows that are not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored prefixes are damaged")]
pub struct Damaged;

/// Encodes the rows of both families.
pub fn encode(v4: &[Row<Ipv4Net>], v6: &[Row<Ipv6Net>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((v4.len() + v6.len()) * 4 + 2);
    let v4 = v4.iter().map(|(net, column)| (u128::from(net.network().to_bits()), net.prefix_len(), *column));
    encode_family(&mut bytes, 32, v4);
    let v6 = v6.iter().map(|(net, column)| (net.network().to_bits(), net.prefix_len(), *column));
    encode_family(&mut bytes, 128, v6);
    bytes
}

/// The rows of both families.
pub type Rows = (Vec<Row<Ipv4Net>>, Vec<Row<Ipv6Net>>);

/// Decodes what [`encode`] wrote. Bytes behind it are ignored.
///
/// # Errors
/// [`Damaged`] for any other bytes.
pub fn decode(mut bytes: &[u8]) -> Result<Rows, Damaged> {
    let v4 = decode_family(&mut bytes, 32, |bits, len| {
        Ipv4Net::new(u32::try_from(bits).ok()?.into(), len).ok().filter(|net| *net == net.trunc())
    })?;
    let v6 = decode_family(&mut bytes, 128, |bits, len| {
        Ipv6Net::new(bits.into(), len).ok().filter(|net| *net == net.trunc())
    })?;
    Ok((v4, v6))
}

/// A network without the bits that a prefix of this length leaves open.
fn shifted(network: u128, width: u8, len: u8) -> u128 {
    network.checked_shr(u32::from(width - len)).unwrap_or(0)
}

/// The first address behind a prefix, if there is any.
fn behind(network: u128, width: u8, len: u8) -> Option<u128> {
    let next = shifted(network, width, len).checked_add(1)?;
    (next.checked_shr(len.into()).unwrap_or(0) == 0).then(|| next << (width - len))
}

fn encode_family(bytes: &mut Vec<u8>, width: u8, rows: impl ExactSizeIterator<Item = (u128, u8, u8)>) {
    push_number(bytes, rows.len() as u128);
    let (mut previous, mut next) = (0, None);
    for (network, len, column) in rows {
        if next == Some(network) && len >= LEAST_ADJACENT {
            bytes.push((u16::from(LEAST_ADJACENT) + 255 - u16::from(len)).to_le_bytes()[0]);
        } else {
            bytes.push(len);
            push_number(bytes, shifted(network, width, len) - shifted(previous, width, len));
        }
        bytes.push(column);
        (previous, next) = (network, behind(network, width, len));
    }
}

fn decode_family<N>(
    bytes: &mut &[u8],
    width: u8,
    net: impl Fn(u128, u8) -> Option<N>,
) -> Result<Vec<Row<N>>, Damaged> {
    let count = usize::try_from(number(bytes)?).map_err(|_| Damaged)?;
    // Each row has at least two bytes.
    if count > bytes.len() / 2 {
        return Err(Damaged);
    }
    let mut rows = Vec::with_capacity(count);
    let (mut previous, mut next) = (0, None);
    for _ in 0..count {
        let first = byte(bytes)?;
        let (network, len) = if first <= 128 {
            let network =
                shifted(previous, width, first.min(width)).checked_add(number(bytes)?).ok_or(Damaged)?;
            if first > width {
                return Err(Damaged);
            }
            (network.checked_shl((width - first).into()).unwrap_or(0), first)
        } else {
            let len =
                u8::try_from(u16::from(LEAST_ADJACENT) + 255 - u16::from(first)).map_err(|_| Damaged)?;
            (next.ok_or(Damaged)?, if len <= width { len } else { return Err(Damaged) })
        };
        rows.push((net(network, len).ok_or(Damaged)?, byte(bytes)?));
        (previous, next) = (network, behind(network, width, len));
    }
    Ok(rows)
}

fn push_number(bytes: &mut Vec<u8>, mut number: u128) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            bytes.push(low & 0x7f);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn byte(bytes: &mut &[u8]) -> Result<u8, Damaged> {
    let (first, rest) = bytes.split_first().ok_or(Damaged)?;
    *bytes = rest;
    Ok(*first)
}

fn number(bytes: &mut &[u8]) -> Result<u128, Damaged> {
    let mut number = 0_u128;
    for shift in (0..128).step_by(7) {
        let byte = byte(bytes)?;
        let bits = u128::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return Err(Damaged);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Damaged)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_encoded_is_decoded(
            v4 in vec((any::<u32>(), 0..=32_u8, any::<u8>()), 0..60),
            v6 in vec((any::<u128>(), 0..=128_u8, any::<u8>(), any::<bool>()), 0..60),
            behind in vec(any::<u8>(), 0..5),
        ) {
            let v4: BTreeMap<_, _> = v4
                .into_iter()
                .map(|(bits, len, column)| (Ipv4Net::new(bits.into(), len).unwrap().trunc(), column))
                .collect();
            let v6: BTreeMap<_, _> = v6
                .into_iter()
                .map(|(bits, len, column, near)| {
                    let bits = if near { bits >> 120 << 3 } else { bits };
                    (Ipv6Net::new(bits.into(), len).unwrap().trunc(), column)
                })
                .collect();
            let (v4, v6): (Vec<_>, Vec<_>) = (v4.into_iter().collect(), v6.into_iter().collect());
            let mut bytes = encode(&v4, &v6);
            bytes.extend(behind);
            prop_assert_eq!(decode(&bytes), Ok((v4, v6)));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..200)) {
            if let Ok((v4, v6)) = decode(&bytes) {
                prop_assert!(v4.len() + v6.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn the_first_and_the_last_addresses_are_kept() {
        let v4 = ["0.0.0.0/0", "0.0.0.0/32", "255.255.255.254/32", "255.255.255.255/32"];
        let v6 = ["::/0", "::/128", "ffff::/16", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"];
        let v4 = v4.map(|net| (net.parse().unwrap(), 255)).to_vec();
        let v6 = v6.map(|net| (net.parse().unwrap(), 0)).to_vec();
        assert_eq!(decode(&encode(&v4, &v6)), Ok((v4, v6)));
    }

    #[test]
    fn adjacent_rows_take_two_bytes() {
        let halves = ["0.0.0.0/1", "128.0.0.0/1"].map(|net| (net.parse().unwrap(), 1));
        let quarters = ["2000::/3", "4000::/2", "8000::/1"].map(|net| (net.parse().unwrap(), 9));
        let bytes = encode(&halves, &quarters);
        assert_eq!(bytes, [2, 1, 0, 1, 1, 1, 1, 3, 3, 1, 9, 255, 9, 1, 1, 9]);
        assert_eq!(decode(&bytes), Ok((halves.to_vec(), quarters.to_vec())));
    }
}
