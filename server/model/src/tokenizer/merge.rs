//! Bigram merging: neighbouring symbols joined, best pair first, as SentencePiece does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Ids;
use crate::ModelError;

/// End of the chain of symbols.
const NONE: u32 = u32::MAX;

/// A run of the text that is (so far) one symbol.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    /// First byte.
    pub(super) start: u32,
    /// Past its last byte.
    pub(super) end: u32,
    /// The token it was joined into; none while it is as pushed.
    pub(super) id: Option<u32>,
    prev: u32,
    next: u32,
    live: bool,
}

/// What joining two neighbours gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Join {
    /// Lower joins first; ties go to the leftmost pair.
    pub(super) rank: u32,
    /// The token the pair becomes.
    pub(super) id: u32,
}

/// The ids of the two tokens that a `line` of merges joins, and of the third they become.
pub(super) fn resolve<'l>(line: &'l str, ids: &Ids) -> Option<(&'l str, &'l str, [u32; 3])> {
    let (left, right) = line.split_once(' ')?;
    let joined = *ids.get(&[left, right].concat())?;
    Some((left, right, [*ids.get(left)?, *ids.get(right)?, joined]))
}

/// What to say of a line that does not.
pub(super) fn unresolved(rank: usize, line: &str) -> ModelError {
    ModelError::Invalid(format!("merge {rank} ({line:?}) does not join two tokens into a third"))
}

/// A pair waiting in the queue, ordered by rank, then position. It is stale once either end has changed,
/// which shows in `end` and `middle`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: u32,
    right: u32,
    middle: u32,
    end: u32,
    id: u32,
}

/// Joins neighbouring symbols, best pair first, until none is left to join. Scratch space is kept between
/// texts. Time is `O(n log n)` in the number of symbols, whatever they are.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Starts a new text.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a symbol; symbols follow each other without gaps.
    pub(super) fn push(&mut self, start: usize, end: usize) {
        let index = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = index;
        }
        let prev = index.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol {
            start: start as u32,
            end: end as u32,
            id: None,
            prev,
            next: NONE,
            live: true,
        });
    }

    /// Merges, asking `join` about each pair of neighbours as it comes up.
    pub(super) fn run(&mut self, join: impl Fn(&Symbol, &Symbol) -> Option<Join>) {
        for left in 1..self.symbols.len() as u32 {
            self.offer(left - 1, left, &join);
        }
        while let Some(Reverse(best)) = self.queue.pop() {
            let left = self.symbols[best.left as usize];
            let right = self.symbols[best.right as usize];
            let fresh = left.live && right.live && left.end == best.middle && right.end == best.end;
            if !fresh {
                continue;
            }
            self.symbols[best.right as usize].live = false;
            let merged = &mut self.symbols[best.left as usize];
            merged.end = right.end;
            merged.id = Some(best.id);
            merged.next = right.next;
            if right.next != NONE {
                self.symbols[right.next as usize].prev = best.left;
                self.offer(best.left, right.next, &join);
            }
            if left.prev != NONE {
                self.offer(left.prev, best.left, &join);
            }
        }
    }

    fn offer(&mut self, left: u32, right: u32, join: &impl Fn(&Symbol, &Symbol) -> Option<Join>) {
        let (a, b) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some(Join { rank, id }) = join(a, b) {
            self.queue.push(Reverse(Candidate {
                rank,
                left,
                right,
                middle: a.end,
                end: b.end,
                id,
            }));
        }
    }

    /// What is left, in order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.live)
    }
}
