//! The prefix index: which block holds the KV of which token prefix.
//!
//! A trie over full blocks. A node is named by a number that is never used twice, and an entry is
//! found by (parent node, tokens of the block), compared token by token after the hash has matched:
//! equal nodes mean equal whole prefixes, and a hash collision costs a comparison, never a wrong
//! hit. The hash is keyed per process, so that callers cannot aim for collisions.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::step::BlockId;

/// A prefix: everything up to and including one block, under one root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u64);

#[derive(Debug)]
struct Entry {
    node: NodeId,
    root: NodeId,
    parent: NodeId,
    tokens: Box<[u32]>,
    block: BlockId,
}

/// Published prefixes.
#[derive(Debug, Default)]
pub struct PrefixIndex {
    hasher: RandomState,
    /// Hash of (parent, tokens) -> entries with that hash (one, nearly always).
    entries: HashMap<u64, Vec<Entry>>,
    /// Node -> its hash, for removal.
    hashes: HashMap<NodeId, u64>,
    roots: HashMap<String, NodeId>,
    next: u64,
}

impl PrefixIndex {
    /// An empty index whose nodes differ from all of `previous`, roots kept.
    pub(crate) fn after(previous: &Self) -> Self {
        Self { roots: previous.roots.clone(), next: previous.next, ..Self::default() }
    }

    fn fresh(&mut self) -> NodeId {
        self.next += 1;
        NodeId(self.next)
    }

    /// The root of `seed`.
    pub(crate) fn root(&mut self, seed: &str) -> NodeId {
        if let Some(&node) = self.roots.get(seed) {
            return node;
        }
        let node = self.fresh();
        self.roots.insert(seed.to_owned(), node);
        node
    }

    fn hash(&self, parent: NodeId, tokens: &[u32]) -> u64 {
        self.hasher.hash_one((parent, tokens))
    }

    /// The entry that continues `parent` with exactly `tokens`.
    pub(crate) fn child(&self, parent: NodeId, tokens: &[u32]) -> Option<(NodeId, BlockId)> {
        let entries = self.entries.get(&self.hash(parent, tokens))?;
        let entry = entries.iter().find(|e| e.parent == parent && *e.tokens == *tokens)?;
        Some((entry.node, entry.block))
    }

    /// Publishes `block` under `root`; returns the node of this prefix and the block that stands for it, which is an
    /// earlier one if the prefix was there already.
    pub(crate) fn insert(
        &mut self,
        root: NodeId,
        parent: NodeId,
        tokens: &[u32],
        block: BlockId,
    ) -> (NodeId, BlockId) {
        if let Some(found) = self.child(parent, tokens) {
            return found;
        }
        let hash = self.hash(parent, tokens);
        let node = self.fresh();
        self.entries.entry(hash).or_default().push(Entry {
            node,
            root,
            parent,
            tokens: tokens.into(),
            block,
        });
        self.hashes.insert(node, hash);
        (node, block)
    }

    /// Removes a node. Its descendants can no longer be found; they leave as they fall idle.
    pub(crate) fn remove(&mut self, node: NodeId) {
        let Some(hash) = self.hashes.remove(&node) else { return };
        if let Some(entries) = self.entries.get_mut(&hash) {
            entries.retain(|e| e.node != node);
            if entries.is_empty() {
                self.entries.remove(&hash);
            }
        }
    }

    /// Removes every prefix under the root of `seed`, which will have another. Gives the old root and the blocks that
    /// were published.
    pub(crate) fn forget(&mut self, seed: &str) -> Option<(NodeId, Vec<BlockId>)> {
        let root = self.roots.remove(seed)?;
        let mut gone = Vec::new();
        self.entries.retain(|_, entries| {
            entries.retain(|entry| {
                if entry.root == root {
                    gone.push((entry.node, entry.block));
                }
                entry.root != root
            });
            !entries.is_empty()
        });
        let blocks = gone.into_iter().map(|(node, block)| {
            self.hashes.remove(&node);
            block
        });
        Some((root, blocks.collect()))
    }

    /// Published prefixes.
    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }
}
