//! Finding special tokens, spelled out, in text.

use std::cmp::Reverse;

use super::vocab::{Kind, Vocab};

/// A stretch of text between special tokens, or one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The special token it spells.
    pub(super) id: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Pattern {
    id: u32,
    len: usize,
    /// Only with [`super::Special::Parse`].
    control: bool,
}

/// The special tokens of a vocabulary, as a trie over bytes.
///
/// Longer tokens are looked for first, in all of the text, each from left to right; a token found leaves the
/// text on both sides to the others (llama.cpp's order; equally long ones by id).
#[derive(Debug)]
pub(super) struct Specials {
    /// In the order in which they are looked for.
    patterns: Vec<Pattern>,
    /// Nodes a node leads to, by byte. Node 0 is the root.
    edges: Vec<Vec<(u8, u32)>>,
    /// Index into `patterns` of the one that ends in a node.
    ends: Vec<Option<u32>>,
    /// Bytes a special token begins with.
    begins: [bool; 256],
}

impl Specials {
    pub(super) fn new(vocab: &Vocab, kinds: &[Kind]) -> Self {
        let mut patterns: Vec<(Pattern, &[u8])> = Vec::new();
        for (id, (token, kind)) in (0u32..).zip(vocab.tokens.iter().zip(kinds)) {
            let control = match kind {
                Kind::Control | Kind::Unknown => true,
                Kind::UserDefined => false,
                Kind::Normal | Kind::Unused | Kind::Byte(_) => continue,
            };
            if !token.is_empty() {
                patterns.push((Pattern { id, len: token.len(), control }, token.as_bytes()));
            }
        }
        patterns.sort_by_key(|(pattern, _)| Reverse(pattern.len));
        let mut edges: Vec<Vec<(u8, u32)>> = vec![Vec::new()];
        let (mut ends, mut begins) = (vec![None], [false; 256]);
        for (order, (_, token)) in (0u32..).zip(&patterns) {
            begins[usize::from(token[0])] = true;
            let mut node = 0;
            for &byte in *token {
                let fresh = edges.len() as u32;
                let from = &mut edges[node as usize];
                node = match from.binary_search_by_key(&byte, |&(byte, _)| byte) {
                    Ok(found) => from[found].1,
                    Err(place) => {
                        from.insert(place, (byte, fresh));
                        edges.push(Vec::new());
                        ends.push(None);
                        fresh
                    }
                };
            }
            ends[node as usize] = Some(order);
        }
        Self {
            patterns: patterns.into_iter().map(|(pattern, _)| pattern).collect(),
            edges,
            ends,
            begins,
        }
    }

    fn follow(&self, node: u32, byte: u8) -> Option<u32> {
        let from = &self.edges[node as usize];
        let found = from.binary_search_by_key(&byte, |&(byte, _)| byte).ok()?;
        Some(from[found].1)
    }

    /// Cuts `text` into fragments that tile it.
    pub(super) fn partition(&self, text: &str, parse_control: bool) -> Vec<Fragment> {
        let bytes = text.as_bytes();
        let mut fragments = Vec::new();
        // Occurrences that touch no other are what they are; a tangle of overlapping ones is settled by the
        // order of the patterns.
        let mut tangle =
            Tangle { start: 0, end: 0, orders: Vec::new(), seen: vec![false; self.patterns.len()] };
        for (start, &byte) in bytes.iter().enumerate() {
            if self.begins[usize::from(byte)] {
                if start >= tangle.end {
                    self.settle(bytes, &mut tangle, &mut fragments);
                }
                self.walk(bytes, start, parse_control, &mut tangle);
            }
        }
        self.settle(bytes, &mut tangle, &mut fragments);
        push_raw(&mut fragments, text.len());
        fragments
    }

    /// Notes which patterns begin at `start`.
    fn walk(&self, bytes: &[u8], start: usize, parse_control: bool, tangle: &mut Tangle) {
        let mut node = 0;
        for (at, &byte) in bytes.iter().enumerate().skip(start) {
            let Some(next) = self.follow(node, byte) else { break };
            node = next;
            let Some(order) = self.ends[node as usize] else { continue };
            if parse_control || !self.patterns[order as usize].control {
                if tangle.orders.is_empty() {
                    tangle.start = start;
                }
                if !std::mem::replace(&mut tangle.seen[order as usize], true) {
                    tangle.orders.push(order);
                }
                tangle.end = tangle.end.max(at + 1);
            }
        }
    }

    /// Chooses among the patterns of a tangle, appends what was chosen and empties the tangle.
    fn settle(&self, bytes: &[u8], tangle: &mut Tangle, fragments: &mut Vec<Fragment>) {
        let mut orders = std::mem::take(&mut tangle.orders);
        if orders.is_empty() {
            return;
        }
        orders.sort_unstable();
        let mut chosen: Vec<Fragment> = Vec::new();
        let mut gaps = vec![(tangle.start, tangle.end)];
        for order in orders {
            tangle.seen[order as usize] = false;
            let Pattern { id, len, .. } = self.patterns[order as usize];
            let mut left = Vec::with_capacity(gaps.len());
            for (mut start, end) in gaps {
                let mut at = start;
                while at + len <= end {
                    if self.spells(&bytes[at..at + len], order) {
                        left.push((start, at));
                        chosen.push(Fragment { start: at, end: at + len, id: Some(id) });
                        at += len;
                        start = at;
                    } else {
                        at += 1;
                    }
                }
                left.push((start, end));
            }
            left.retain(|(start, end)| start < end);
            gaps = left;
        }
        chosen.sort_unstable_by_key(|found| found.start);
        for found in chosen {
            push_raw(fragments, found.start);
            fragments.push(found);
        }
    }

    fn spells(&self, bytes: &[u8], order: u32) -> bool {
        let mut node = 0;
        for &byte in bytes {
            let Some(next) = self.follow(node, byte) else { return false };
            node = next;
        }
        self.ends[node as usize] == Some(order)
    }
}

/// Occurrences that overlap each other in a chain: their extent, and which patterns they are of.
#[derive(Debug)]
struct Tangle {
    start: usize,
    end: usize,
    orders: Vec<u32>,
    /// Which are in `orders`.
    seen: Vec<bool>,
}

/// Appends the text between the last fragment and `end`, if there is any.
fn push_raw(fragments: &mut Vec<Fragment>, end: usize) {
    let start = fragments.last().map_or(0, |last| last.end);
    if start < end {
        fragments.push(Fragment { start, end, id: None });
    }
}
