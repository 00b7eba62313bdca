//! KV blocks: who holds them, which are cached, which are free.
//!
//! Ids only; the executor owns the bytes. Every block is in exactly one of three states:
//! *free*, *cached* (held by nobody, its contents published in the prefix index and reusable), or
//! *used* (held by at least one sequence). `free + cached + used == total`, always.

use std::collections::BTreeMap;

use crate::prefix::{NodeId, PrefixIndex};
use crate::step::BlockId;

/// How many blocks are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCounts {
    /// Held by nobody, contents void.
    pub free: usize,
    /// Held by nobody, contents published.
    pub cached: usize,
    /// Held by at least one sequence.
    pub used: usize,
}

#[derive(Debug, Clone, Default)]
struct Block {
    /// Sequences holding it.
    holders: u32,
    /// Its place in the prefix index, if published.
    node: Option<NodeId>,
    /// Key in [`Blocks::idle`] while cached.
    idle_since: u64,
}

/// The pool of KV blocks of one executor.
#[derive(Debug)]
pub struct Blocks {
    block_size: usize,
    blocks: Vec<Block>,
    free: Vec<BlockId>,
    /// Cached blocks, the longest unused first.
    idle: BTreeMap<u64, BlockId>,
    clock: u64,
    prefix: PrefixIndex,
}

impl Blocks {
    /// `total` free blocks of `block_size` tokens.
    pub fn new(total: usize, block_size: usize) -> Self {
        let total_id = BlockId::try_from(total).unwrap_or(BlockId::MAX);
        Self {
            block_size,
            blocks: vec![Block::default(); total_id as usize],
            // Popped from the end: low ids first, so that the executor touches few pages.
            free: (0..total_id).rev().collect(),
            idle: BTreeMap::new(),
            clock: 0,
            prefix: PrefixIndex::default(),
        }
    }

    /// Tokens per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// All blocks.
    pub fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks in each state.
    pub fn counts(&self) -> BlockCounts {
        let (free, cached) = (self.free.len(), self.idle.len());
        BlockCounts { free, cached, used: self.blocks.len() - free - cached }
    }

    /// Blocks that [`Self::allocate`] could hand out.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Blocks that `tokens` tokens take.
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size)
    }

    /// Takes a block with one holder; a free one, or else the cached one unused for longest.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let (_, id) = self.idle.pop_first()?;
                if let Some(node) = self.blocks[id as usize].node.take() {
                    self.prefix.remove(node);
                }
                id
            }
        };
        self.blocks[id as usize].holders = 1;
        Some(id)
    }

    /// Adds a holder.
    fn retain(&mut self, id: BlockId) {
        let block = &mut self.blocks[id as usize];
        if block.holders == 0 {
            self.idle.remove(&block.idle_since);
        }
        block.holders += 1;
    }

    /// Takes one holder away from each of a sequence's blocks, last block first, so that of an idle
    /// sequence the tail is evicted before the prefix it hangs on.
    pub fn release(&mut self, ids: &[BlockId]) {
        for &id in ids.iter().rev() {
            let block = &mut self.blocks[id as usize];
            debug_assert!(block.holders > 0, "block {id} released twice");
            block.holders = block.holders.saturating_sub(1);
            if block.holders > 0 {
                continue;
            }
            if block.node.is_some() {
                self.clock += 1;
                block.idle_since = self.clock;
                self.idle.insert(self.clock, id);
            } else {
                self.free.push(id);
            }
        }
    }

    /// The root under which `seed`'s prefixes hang: whatever changes KV or must not be shared
    /// (tenant, adapter) is in the seed.
    pub fn root(&mut self, seed: &str) -> NodeId {
        self.prefix.root(seed)
    }

    /// The longest run of published full blocks that starts `tokens`, each with a holder added.
    pub fn lookup(&mut self, root: NodeId, tokens: &[u32]) -> Vec<(BlockId, NodeId)> {
        let mut parent = root;
        let mut found = Vec::new();
        for chunk in tokens.chunks_exact(self.block_size) {
            let Some((node, block)) = self.prefix.child(parent, chunk) else { break };
            found.push((block, node));
            parent = node;
        }
        for &(block, _) in &found {
            self.retain(block);
        }
        found
    }

    /// Publishes a held, full, computed block under `parent`, itself under `root`. If equal contents are published
    /// already, that entry stays and this block remains private. Returns the node that the next block
    /// of the sequence hangs under.
    pub fn publish(
        &mut self,
        block: BlockId,
        root: NodeId,
        parent: NodeId,
        tokens: &[u32],
    ) -> NodeId {
        debug_assert_eq!(tokens.len(), self.block_size);
        let (node, holder) = self.prefix.insert(root, parent, tokens, block);
        if holder == block {
            self.blocks[block as usize].node = Some(node);
        }
        node
    }

    /// Forgets every prefix published under the root of `seed`, which will have another. Blocks nobody holds are
    /// free at once, held ones when they are released. Gives the old root, if there was one.
    pub fn forget(&mut self, seed: &str) -> Option<NodeId> {
        let (root, blocks) = self.prefix.forget(seed)?;
        for id in blocks {
            let block = &mut self.blocks[id as usize];
            block.node = None;
            if block.holders == 0 {
                self.idle.remove(&block.idle_since);
                self.free.push(id);
            }
        }
        Some(root)
    }

    /// Forgets every published prefix (the executor's KV is void). Held blocks stay held.
    pub fn forget_prefixes(&mut self) {
        self.prefix = PrefixIndex::after(&self.prefix);
        for block in &mut self.blocks {
            block.node = None;
        }
        self.free.extend(std::mem::take(&mut self.idle).into_values());
    }

    /// Recounts everything from scratch; the first contradiction found, if any. `held` lists the
    /// blocks sequences hold, with repetition.
    pub fn check(&self, held: impl Iterator<Item = BlockId>) -> Result<(), String> {
        let mut holders = vec![0u32; self.blocks.len()];
        for id in held {
            holders[id as usize] += 1;
        }
        let mut state = vec![0u8; self.blocks.len()];
        for &id in &self.free {
            state[id as usize] += 1;
            if self.blocks[id as usize].node.is_some() {
                return Err(format!("free block {id} is published"));
            }
        }
        for &id in self.idle.values() {
            state[id as usize] += 1;
            if self.blocks[id as usize].node.is_none() {
                return Err(format!("cached block {id} is not published"));
            }
        }
        for (id, block) in self.blocks.iter().enumerate() {
            if block.holders != holders[id] {
                return Err(format!(
                    "block {id} counts {} holders, has {}",
                    block.holders, holders[id]
                ));
            }
            let want = u8::from(block.holders == 0);
            if state[id] != want {
                return Err(format!(
                    "block {id} with {} holders stands in {} idle lists",
                    block.holders, state[id]
                ));
            }
        }
        let published = self.blocks.iter().filter(|b| b.node.is_some()).count();
        if published != self.prefix.len() {
            return Err(format!("{published} blocks published, {} indexed", self.prefix.len()));
        }
        Ok(())
    }
}
