//! RFC 6962 over tiles of 256 hashes: the tree's root, its proofs, and their verification.
//!
//! Invariant: the same leaves give the same hashes however they are stored, and verification trusts no length or index.

use super::{LeafHash, sha256};

/// Hashes in one tile: eight levels of the tree.
pub const TILE: u64 = 256;

/// A complete tile: 256 neighbouring nodes of one level (level 0: leaves; a node of level n + 1 covers a tile of n).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MerkleTile {
    pub level: u32,
    pub no: u64,
    pub nodes: Vec<LeafHash>,
}

/// The hash of a leaf, RFC 6962.
pub fn hash_leaf(data: &[u8]) -> LeafHash {
    sha256(&[&[0], data])
}

fn hash_children(left: LeafHash, right: LeafHash) -> LeafHash {
    sha256(&[&[1], &left.0, &right.0])
}

/// The Merkle tree hash of nodes of one height, the last one perhaps of a smaller tree.
pub fn tree_hash(nodes: &[LeafHash]) -> LeafHash {
    match nodes {
        [] => sha256(&[]),
        [one] => *one,
        many => {
            let (left, right) = many.split_at(split(many.len() as u64) as usize);
            hash_children(tree_hash(left), tree_hash(right))
        }
    }
}

/// The largest power of two smaller than `n`; `n` is at least 2.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// The right edge of a growing tree: all that is needed to add leaves and to compute the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeFrontier {
    size: u64,
    /// For each level the nodes that do not yet fill a tile.
    partial: Vec<Vec<LeafHash>>,
}

impl TreeFrontier {
    /// Takes up a tree of `size` leaves that is stored in `source`.
    ///
    /// # Errors
    ///
    /// Fails when `source` does.
    pub fn load<S: NodeSource>(source: &mut S, size: u64) -> Result<TreeFrontier, S::Error> {
        let mut partial = Vec::new();
        let (mut level, mut nodes) = (0, size);
        while nodes > 0 {
            let from = nodes / TILE * TILE;
            partial.push(source.nodes(level, from, nodes)?);
            level += 1;
            nodes /= TILE;
        }
        Ok(TreeFrontier { size, partial })
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; returns the tiles that it completes, which must be stored.
    pub fn push(&mut self, leaf: LeafHash) -> Vec<MerkleTile> {
        let mut full = Vec::new();
        let (mut level, mut node) = (0, leaf);
        loop {
            if self.partial.len() <= level {
                self.partial.push(Vec::with_capacity(TILE as usize));
            }
            self.partial[level].push(node);
            if (self.partial[level].len() as u64) < TILE {
                break;
            }
            let nodes = std::mem::take(&mut self.partial[level]);
            node = tree_hash(&nodes);
            let no = self.size / TILE.pow(level as u32 + 1);
            full.push(MerkleTile { level: level as u32, no, nodes });
            level += 1;
        }
        self.size += 1;
        full
    }

    /// The hash of the tree's root; of the empty tree the hash of nothing.
    pub fn root(&self) -> LeafHash {
        let mut tail: Option<LeafHash> = None;
        for nodes in &self.partial {
            let list: Vec<LeafHash> = nodes.iter().copied().chain(tail).collect();
            if !list.is_empty() {
                tail = Some(tree_hash(&list));
            }
        }
        tail.unwrap_or_else(|| tree_hash(&[]))
    }
}

/// Where the nodes of a stored tree are read from.
pub trait NodeSource {
    type Error;
    /// Nodes `from..to` of a level, all within one tile. A node of level n covers 256ⁿ leaves, all of which exist.
    fn nodes(&mut self, level: u32, from: u64, to: u64) -> Result<Vec<LeafHash>, Self::Error>;
}

/// All leaves in memory.
impl NodeSource for &[LeafHash] {
    type Error = std::convert::Infallible;
    fn nodes(&mut self, level: u32, from: u64, to: u64) -> Result<Vec<LeafHash>, Self::Error> {
        let width = TILE.pow(level);
        Ok((from..to).map(|node| tree_hash(&self[(node * width) as usize..((node + 1) * width) as usize])).collect())
    }
}

/// The hash of the subtree over leaves `from..to`, where `from` is a multiple of a power of two that is at least its size.
///
/// # Errors
///
/// Fails when `source` does.
pub fn subtree_hash<S: NodeSource>(source: &mut S, from: u64, to: u64) -> Result<LeafHash, S::Error> {
    if from == to {
        return Ok(tree_hash(&[]));
    }
    let mut level = 0;
    while TILE.checked_pow(level + 1).is_some_and(|width| width <= to - from) {
        level += 1;
    }
    let width = TILE.pow(level);
    let mut nodes = Vec::new();
    let (mut next, end) = (from / width, to / width);
    while next < end {
        let stop = end.min((next / TILE + 1) * TILE);
        nodes.extend(source.nodes(level, next, stop)?);
        next = stop;
    }
    if end * width < to {
        nodes.push(subtree_hash(source, end * width, to)?);
    }
    Ok(tree_hash(&nodes))
}

/// The audit path of leaf `index` in the tree of the first `size` leaves, from the leaf up. `index < size`.
///
/// # Errors
///
/// Fails when `source` does.
pub fn inclusion_proof<S: NodeSource>(source: &mut S, index: u64, size: u64) -> Result<Vec<LeafHash>, S::Error> {
    assert!(index < size, "leaf {index} is not in a tree of {size}");
    let (mut from, mut to) = (0, size);
    let mut path = Vec::new();
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            path.push(subtree_hash(source, middle, to)?);
            to = middle;
        } else {
            path.push(subtree_hash(source, from, middle)?);
            from = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree of `new` leaves extends that of `old`. `0 < old <= new`.
///
/// # Errors
///
/// Fails when `source` does.
pub fn consistency_proof<S: NodeSource>(source: &mut S, old: u64, new: u64) -> Result<Vec<LeafHash>, S::Error> {
    assert!(0 < old && old <= new, "no proof from {old} to {new}");
    let (mut from, mut to) = (0, new);
    let mut path = Vec::new();
    // The left edge is known to the verifier as long as we never went right.
    let mut known = true;
    while to != old {
        let middle = from + split(to - from);
        if old <= middle {
            path.push(subtree_hash(source, middle, to)?);
            to = middle;
        } else {
            path.push(subtree_hash(source, from, middle)?);
            from = middle;
            known = false;
        }
    }
    if !known {
        path.push(subtree_hash(source, from, to)?);
    }
    path.reverse();
    Ok(path)
}

/// Whether `path` proves that `leaf` stands at `index` in the tree of `size` leaves with this root (RFC 9162, 2.1.3.2).
pub fn verify_inclusion(leaf: LeafHash, index: u64, size: u64, path: &[LeafHash], root: LeafHash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = hash_children(*sibling, hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = hash_children(hash, *sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == root
}

/// Whether `path` proves that the tree `(new, new_root)` extends `(old, old_root)` (RFC 9162, 2.1.4.2).
pub fn verify_consistency(old: u64, old_root: LeafHash, new: u64, new_root: LeafHash, path: &[LeafHash]) -> bool {
    if old == 0 || old > new {
        return false;
    }
    if old == new {
        return path.is_empty() && old_root == new_root;
    }
    let with_root;
    let path = if old.is_power_of_two() {
        with_root = [&[old_root], path].concat();
        &with_root
    } else {
        path
    };
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = hash_children(*sibling, old_hash);
            new_hash = hash_children(*sibling, new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = hash_children(new_hash, *sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == old_root && new_hash == new_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unhex(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    fn leaves(count: u64) -> Vec<LeafHash> {
        (0..count).map(|no| hash_leaf(&no.to_be_bytes())).collect()
    }

    fn root_of(leaves: &[LeafHash]) -> LeafHash {
        let mut frontier = TreeFrontier::default();
        for leaf in leaves {
            frontier.push(*leaf);
        }
        frontier.root()
    }

    /// The inputs and roots that the Certificate Transparency project tests its own tree with.
    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let inputs =
            ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut frontier = TreeFrontier::default();
        assert_eq!(frontier.root().to_string(), roots[0]);
        for (input, root) in inputs.iter().zip(&roots[1..]) {
            frontier.push(hash_leaf(&unhex(input)));
            assert_eq!(frontier.root().to_string(), *root);
        }
    }

    #[test]
    fn a_tree_over_many_tiles_is_the_plain_tree() {
        let all = leaves(70_000);
        let mut frontier = TreeFrontier::default();
        let mut tiles = 0;
        for leaf in &all {
            tiles += frontier.push(*leaf).len();
        }
        assert_eq!(tiles, 70_000 / 256 + 1);
        assert_eq!(frontier.root(), tree_hash(&all));
        let mut source = all.as_slice();
        assert_eq!(TreeFrontier::load(&mut source, 70_000), Ok(frontier));
        let mut source = all.as_slice();
        let path = inclusion_proof(&mut source, 65_535, 70_000).unwrap();
        assert!(verify_inclusion(all[65_535], 65_535, 70_000, &path, tree_hash(&all)));
    }

    #[test]
    fn a_proof_of_the_wrong_shape_is_refused() {
        let all = leaves(7);
        let root = root_of(&all);
        let path = inclusion_proof(&mut all.as_slice(), 3, 7).unwrap();
        assert!(verify_inclusion(all[3], 3, 7, &path, root));
        assert!(!verify_inclusion(all[3], 2, 7, &path, root), "wrong index");
        assert!(!verify_inclusion(all[3], 7, 7, &path, root), "outside");
        assert!(!verify_inclusion(all[3], 3, 7, &path[..2], root), "short");
        assert!(!verify_inclusion(all[3], 3, 7, &[path.clone(), vec![root]].concat(), root), "long");
        assert!(!verify_inclusion(all[3], 3, 0, &[], root), "empty tree");
        assert!(!verify_inclusion(root, 0, 1, &path, root), "path in a tree of one");
        let proof = consistency_proof(&mut all.as_slice(), 3, 7).unwrap();
        let old = root_of(&all[..3]);
        assert!(verify_consistency(3, old, 7, root, &proof));
        assert!(!verify_consistency(3, old, 7, root, &[]), "empty");
        assert!(!verify_consistency(4, old, 7, root, &proof), "wrong size");
        assert!(!verify_consistency(0, tree_hash(&[]), 7, root, &[]), "nothing proves nothing");
        assert!(!verify_consistency(7, old, 7, root, &[]), "same size, other root");
        assert!(!verify_consistency(8, old, 7, root, &proof), "shrinking");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_inclusion_proof_verifies_and_none_does_with_a_flipped_bit(
            size in 1_u64..700, pick in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let all = leaves(size);
            let index = pick.index(size as usize) as u64;
            let root = root_of(&all);
            let path = inclusion_proof(&mut all.as_slice(), index, size).unwrap();
            let leaf = all[index as usize];
            prop_assert!(verify_inclusion(leaf, index, size, &path, root));
            let mut bytes: Vec<LeafHash> = path.clone();
            bytes.extend([leaf, root]);
            let at = byte.index(bytes.len() * 32);
            bytes[at / 32].0[at % 32] ^= 1_u8 << bit;
            let (path, ends) = bytes.split_at(path.len());
            prop_assert!(!verify_inclusion(ends[0], index, size, path, ends[1]));
        }

        #[test]
        fn every_consistency_proof_verifies_and_none_does_with_a_flipped_bit(
            new in 2_u64..700, pick in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let all = leaves(new);
            let old = 1 + pick.index(new as usize - 1) as u64;
            let (old_root, new_root) = (root_of(&all[..old as usize]), root_of(&all));
            let proof = consistency_proof(&mut all.as_slice(), old, new).unwrap();
            prop_assert!(verify_consistency(old, old_root, new, new_root, &proof));
            let mut bytes = proof.clone();
            bytes.extend([old_root, new_root]);
            let at = byte.index(bytes.len() * 32);
            bytes[at / 32].0[at % 32] ^= 1_u8 << bit;
            let (proof, ends) = bytes.split_at(proof.len());
            prop_assert!(!verify_consistency(old, ends[0], new, ends[1], proof));
        }
    }
}
