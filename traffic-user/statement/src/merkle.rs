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

/// The proof that a tree begins with an earlier one of `old` leaves (RFC 9162, section 2.1.4.1). Empty where the two are
/// the same, or either is empty.
pub(crate) fn consistency(leaves: &[Hash], old: usize) -> Vec<Hash> {
    if old == 0 || old >= leaves.len() { Vec::new() } else { subproof(leaves, old, true) }
}

/// `is_whole` says that the earlier tree's root is that of these leaves, so that whoever checks has it.
fn subproof(leaves: &[Hash], old: usize, is_whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if is_whole { Vec::new() } else { vec![root(leaves)] };
    }
    let (left, right) = leaves.split_at(border(leaves.len()));
    let (mut proof, beside) = match old.checked_sub(left.len()) {
        None | Some(0) => (subproof(left, old, is_whole), root(right)),
        Some(old) => (subproof(right, old, false), root(left)),
    };
    proof.push(beside);
    proof
}

/// Whether a proof shows that a tree begins with an earlier one, each by its size and root (RFC 9162, section 2.1.4.2).
pub(crate) fn is_consistent(old: (u64, &Hash), new: (u64, &Hash), proof: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == 0 {
        return proof.is_empty() && *old_root == root(&[]) && (new_size > 0 || old_root == new_root);
    }
    if old_size >= new_size {
        return old_size == new_size && proof.is_empty() && old_root == new_root;
    }
    // A tree of a power of two is a part of each later one, so its root is not in the proof.
    let first = if old_size.is_power_of_two() { Some(old_root) } else { None };
    let mut proof = first.into_iter().chain(proof);
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let Some(first) = proof.next() else { return false };
    let (mut of_old, mut of_new) = (*first, *first);
    for beside in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            of_old = node(beside, &of_old);
            of_new = node(beside, &of_new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            of_new = node(&of_new, beside);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && of_old == *old_root && of_new == *new_root
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

    #[test]
    fn each_tree_continues_each_earlier_one_and_no_other() {
        let leaves: Vec<Hash> = (0..34_u8).map(|number| leaf(&[&[number]])).collect();
        let other: Vec<Hash> = (0..34_u8).map(|number| leaf(&[&[number + u8::from(number == 3)]])).collect();
        let size = |leaves: &[Hash]| leaves.len() as u64;
        for new in 0..=leaves.len() {
            let new = &leaves[..new];
            let new_root = root(new);
            for old in 0..=new.len() {
                let proof = consistency(new, old);
                let old = &leaves[..old];
                let old_root = root(old);
                let check =
                    |old: (u64, &Hash), new: (u64, &Hash), proof: &[Hash]| is_consistent(old, new, proof);
                assert!(check((size(old), &old_root), (size(new), &new_root), &proof), "{old:?}");
                // One entry more or less.
                if old.len() + 1 < new.len() && !old.is_empty() {
                    let more = root(&leaves[..old.len() + 1]);
                    assert!(!check((size(old) + 1, &more), (size(new), &new_root), &proof));
                    let less = root(&new[..new.len() - 1]);
                    assert!(!check((size(old), &old_root), (size(new) - 1, &less), &proof));
                }
                if size(old) > 3 {
                    let another = root(&other[..old.len()]);
                    assert!(!check((size(old), &another), (size(new), &new_root), &proof));
                    let another = root(&other[..new.len()]);
                    assert!(!check((size(old), &old_root), (size(new), &another), &proof));
                }
                assert!(
                    size(old) == 0
                        || !check((size(old), &new_root), (size(new), &old_root), &proof)
                        || old.len() == new.len()
                );
                let longer = [&proof[..], &[new_root]].concat();
                assert!(!check((size(old), &old_root), (size(new), &new_root), &longer));
                for at in 0..proof.len() {
                    let mut changed = proof.clone();
                    changed[at][7] ^= 1;
                    assert!(!check((size(old), &old_root), (size(new), &new_root), &changed));
                    changed.remove(at);
                    assert!(!check((size(old), &old_root), (size(new), &new_root), &changed));
                }
            }
        }
    }

    /// The proofs of RFC 9162, section 2.1.5.
    #[test]
    fn proofs_of_consistency_are_those_of_the_standard() {
        let leaves: Vec<Hash> = (0..7_u8).map(|number| leaf(&[&[number]])).collect();
        let at = |from: usize, to: usize| root(&leaves[from..to]);
        // PROOF(3, D[7]) = [c, d, g, l], PROOF(4, D[7]) = [l], PROOF(6, D[7]) = [i, j, k].
        assert_eq!(consistency(&leaves, 3), [at(2, 3), at(3, 4), at(0, 2), at(4, 7)]);
        assert_eq!(consistency(&leaves, 4), [at(4, 7)]);
        assert_eq!(consistency(&leaves, 6), [at(4, 6), at(6, 7), at(0, 4)]);
    }
}
