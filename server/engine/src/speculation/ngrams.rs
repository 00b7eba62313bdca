//! Where in a sequence its last tokens stood before.

/// Tokens that must agree before what followed is worth a look.
const LEAST: usize = 2;
/// Earlier places looked at; beyond, the habit is so common that older ones tell nothing new.
const PLACES: usize = 16;
/// Agreement is not counted beyond this when a source is found.
const MOST: usize = 32;
/// The latest tokens that are kept in the index.
const WINDOW: usize = 1 << 16;
/// Most lists the places are spread over.
const LISTS: usize = 1 << 15;

/// A place that agrees with the end of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Index of the token after the place: what the sequence says next, if it goes on repeating.
    pub next: usize,
    /// Tokens before it that agree with the sequence's last ones, at least 2.
    pub length: usize,
}

/// An index of all pairs of neighbouring tokens, as compressors keep it: lists of places by hash, the newest
/// first, in two plain arrays. Adding a token takes constant time, and memory is bounded by 8 bytes a token
/// and 384 KiB in all.
#[derive(Debug)]
pub struct Ngrams {
    /// By hash of a pair: one more than the newest place after such a pair; 0 = none.
    newest: Vec<u32>,
    /// By place modulo [`WINDOW`]: one more than the next older place of the same list.
    older: Vec<u32>,
    /// Tokens whose place is entered.
    entered: usize,
}

impl Ngrams {
    /// An empty index of a sequence that will have at most `longest` tokens.
    pub fn new(longest: usize) -> Self {
        let lists = longest.next_power_of_two().clamp(64, LISTS);
        Self { newest: vec![0; lists], older: Vec::new(), entered: 0 }
    }

    /// Enters the places of `tokens` not entered yet; those entered before must be the same.
    pub fn extend(&mut self, tokens: &[u32]) {
        for place in self.entered..tokens.len() {
            let mut link = 0;
            if place >= LEAST {
                let list = self.list(tokens, place);
                link = std::mem::replace(&mut self.newest[list], place as u32 + 1);
            }
            match self.older.get_mut(place % WINDOW) {
                Some(slot) => *slot = link,
                None => self.older.push(link),
            }
        }
        self.entered = self.entered.max(tokens.len());
    }

    /// The place that agrees longest with the end of `tokens`, the newest of equals.
    pub fn longest_match(&self, tokens: &[u32]) -> Option<Source> {
        let end = tokens.len();
        if end < LEAST {
            return None;
        }
        let mut best: Option<Source> = None;
        let mut place = self.newest[self.list(tokens, end)] as usize;
        for _ in 0..PLACES {
            // Links only ever lead back; one that does not, or leads out of the window, was overwritten.
            let Some(next) = place.checked_sub(1) else { break };
            if next + WINDOW <= end || next >= end {
                break;
            }
            let length = agreement(tokens, next);
            if length >= LEAST && best.is_none_or(|best| length > best.length) {
                best = Some(Source { next, length });
            }
            if length >= MOST {
                break;
            }
            let link = self.older[next % WINDOW] as usize;
            if link >= place {
                break;
            }
            place = link;
        }
        best
    }

    /// The list of the pair before `place`.
    fn list(&self, tokens: &[u32], place: usize) -> usize {
        let pair = u64::from(tokens[place - 2]) << 32 | u64::from(tokens[place - 1]);
        // Fibonacci hashing: the upper half of a product by 2^64 / golden ratio is well mixed.
        let mixed = (pair ^ pair >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        mixed as usize & (self.newest.len() - 1)
    }

    /// Heap bytes.
    pub fn bytes(&self) -> usize {
        (self.newest.capacity() + self.older.capacity()) * size_of::<u32>()
    }
}

/// How many tokens before `place` agree with the last ones.
fn agreement(tokens: &[u32], place: usize) -> usize {
    let here = tokens[..place].iter().rev();
    here.zip(tokens.iter().rev()).take(MOST).take_while(|(a, b)| a == b).count()
}
