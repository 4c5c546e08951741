//! Trees of hashes as in RFC 9162, section 2.1, and proofs that a leaf is in one.

use ring::digest::{SHA256, digest};

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// SHA-256 of some parts, one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &parts.concat()).as_ref());
    hash
}

/// The hash of a leaf.
pub(crate) fn leaf(parts: &[&[u8]]) -> Hash {
    sha256(&[&[0], &parts.concat()])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// Number of leaves left of the root's border: the largest power of two below their number.
fn border(leaves: usize) -> usize {
    1 << (usize::BITS - 1 - (leaves - 1).leading_zeros())
}

/// The root of a tree. That of no leaves is the hash of nothing.
pub(crate) fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [only] => *only,
        _ => {
            let (left, right) = leaves.split_at(border(leaves.len()));
            node(&root(left), &root(right))
        }
    }
}

/// The proof that a leaf is in a tree: the roots beside its way up, the lowest first. Empty where it is not.
pub(crate) fn path(leaves: &[Hash], index: usize) -> Vec<Hash> {
    if leaves.len() < 2 || index >= leaves.len() {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(border(leaves.len()));
    let (mut way, beside) = match index.checked_sub(left.len()) {
        None => (path(left, index), root(right)),
        Some(index) => (path(right, index), root(left)),
    };
    way.push(beside);
    way
}

/// The root that a proof leads to (RFC 9162, section 2.1.3.2); `None` where it cannot be one of a tree of this size.
pub(crate) fn root_of_path(leaf: &Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for beside in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node(beside, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, beside);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(hash: &Hash) -> String {
        traffic_model::hex(hash)
    }

    /// The leaves and roots that implementations of Certificate Transparency test each other with.
    #[test]
    fn roots_are_those_of_others() {
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let leaves: Vec<Hash> = inputs.iter().map(|input| leaf(&[input])).collect();
        for (size, expected) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            (5, "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ] {
            assert_eq!(hex(&root(&leaves[..size])), expected, "{size}");
        }
    }

    #[test]
    fn each_leaf_has_a_proof_and_nothing_else_has() {
        let leaves: Vec<Hash> = (0..40_u8).map(|number| leaf(&[&[number]])).collect();
        for size in 1..=leaves.len() {
            let (leaves, size_u64) = (&leaves[..size], size as u64);
            let root = root(leaves);
            for index in 0..size {
                let path = path(leaves, index);
                let at = index as u64;
                assert_eq!(root_of_path(&leaves[index], at, size_u64, &path), Some(root));
                // Another place, another size, another leaf, a longer or a shorter path.
                for other in (0..size_u64).filter(|&other| other != at) {
                    assert_ne!(root_of_path(&leaves[index], other, size_u64, &path), Some(root));
                }
                assert_ne!(root_of_path(&leaf(&[b"x"]), at, size_u64, &path), Some(root));
                let longer = [&path[..], &[root]].concat();
                assert_ne!(root_of_path(&leaves[index], at, size_u64, &longer), Some(root));
                if let Some((_, shorter)) = path.split_last() {
                    assert_ne!(root_of_path(&leaves[index], at, size_u64, shorter), Some(root));
                }
            }
        }
        assert_eq!(root_of_path(&leaves[0], 1, 1, &[]), None);
        assert_eq!(path(&[], 0), [[0; 32]; 0]);
    }
}
