//! Token counts of parts of texts, kept over requests.
//!
//! The documents of a conversation come again with every question, and counting the tokens of a long one takes longer than
//! choosing from it. A text is cut at [seams](pith_model::Tokenizer::seam) that its own words pick, so that equal
//! stretches are cut alike wherever they stand, and each part is counted once. Counts are exact: at a seam no
//! token begins on one side and ends on the other.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use pith_model::Tokenizer;
use sha2::{Digest as _, Sha256};

/// Shorter texts are counted at once, in bytes.
const MIN_BYTES: usize = 16 << 10;
/// Least bytes of a part.
const MIN_PART: usize = 512;
/// One seam in this many is cut at: a part has about 1.5 KiB.
const PICK: u64 = 128;
/// Counts kept in each of two generations: a hundred long documents.
const GENERATION: usize = 1 << 15;

/// Counts by a digest of tenant, model and text.
#[derive(Debug, Default)]
pub struct TokenCounts(Mutex<Kept>);

/// What was counted lately, and what before that.
#[derive(Debug, Default)]
struct Kept {
    young: HashMap<[u8; 16], u32>,
    old: HashMap<[u8; 16], u32>,
}

/// Counts for one tenant and model.
#[derive(Debug, Clone, Copy)]
pub struct Counting<'a> {
    /// Over all requests.
    pub counts: &'a TokenCounts,
    /// Whose texts they are: from how fast they are counted, nobody learns what another has.
    pub tenant: &'a str,
    /// [`pith_model::ModelFile::fingerprint`].
    pub model: &'a str,
}

impl Counting<'_> {
    /// Tokens of ordinary `text`, as many as `tokenizer` gives.
    #[must_use]
    pub fn count(&self, tokenizer: &Tokenizer, text: &str) -> usize {
        if text.len() < MIN_BYTES {
            return tokenizer.count(text);
        }
        let (mut count, mut start) = (0, 0);
        while let Some(seam) = cut(tokenizer, text, start + MIN_PART) {
            count += self.part(tokenizer, &text[start..seam], start == 0);
            start = seam;
        }
        count + self.part(tokenizer, &text[start..], start == 0)
    }

    fn part(&self, tokenizer: &Tokenizer, part: &str, begins: bool) -> usize {
        let mut hash = Sha256::new();
        for field in [self.tenant, self.model] {
            hash.update((field.len() as u64).to_le_bytes());
            hash.update(field);
        }
        hash.update([u8::from(begins)]);
        hash.update(part);
        let digest: [u8; 32] = hash.finalize().into();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        if let Some(count) = self.counts.get(&key) {
            return count as usize;
        }
        let count = if begins { tokenizer.count(part) } else { tokenizer.count_rest(part) };
        self.counts.put(key, u32::try_from(count).unwrap_or(u32::MAX));
        count
    }
}

/// The first seam at or after `from` that the words before it pick.
fn cut(tokenizer: &Tokenizer, text: &str, mut from: usize) -> Option<usize> {
    loop {
        let seam = tokenizer.seam(text, from)?;
        let before = &text.as_bytes()[seam.saturating_sub(8)..seam];
        let word = before.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        // The upper bits of a product depend on all of the word.
        if word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & (PICK - 1) == 0 {
            return Some(seam);
        }
        from = seam + 1;
    }
}

impl TokenCounts {
    fn get(&self, key: &[u8; 16]) -> Option<u32> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = kept.young.get(key) {
            return Some(*count);
        }
        let count = kept.old.remove(key)?;
        kept.put(*key, count);
        Some(count)
    }

    fn put(&self, key: [u8; 16], count: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, count);
    }
}

impl Kept {
    fn put(&mut self, key: [u8; 16], count: u32) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, count);
    }
}

#[cfg(test)]
mod tests {
    use pith_model::tokenizer::Vocab;

    use super::*;

    /// Byte-level BPE with a few merges.
    fn tokenizer() -> Tokenizer {
        let hidden = (0u32..).map(|i| char::from_u32(0x100 + i).unwrap());
        let mut hidden = hidden.map(String::from);
        let spelled = |byte: u8| match byte {
            0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte).to_string(),
            _ => hidden.next().unwrap(),
        };
        let mut tokens: Vec<String> = (0..=255).map(spelled).collect();
        let merges = ["t h", "th e", "\u{120} t", "a n"].map(str::to_owned);
        tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
        let token_types = vec![1; tokens.len()];
        let pre = Some("smollm".to_owned());
        let merges = merges.to_vec();
        let vocab = Vocab {
            model: "gpt2".to_owned(),
            pre,
            tokens,
            token_types,
            merges,
            ..Vocab::default()
        };
        Tokenizer::from_vocab(vocab).unwrap()
    }

    #[test]
    fn parts_add_up_to_the_whole_and_are_counted_once() {
        let tokenizer = tokenizer();
        let sentence =
            |n: usize| format!("The {n} anthems, than {} then; that is the end! ", n * n);
        let text: String = (0..2000).map(sentence).collect();
        assert!(text.len() > MIN_BYTES);
        let counts = TokenCounts::default();
        let counting = |tenant| Counting { counts: &counts, tenant, model: "m" };
        let kept = || counts.0.lock().unwrap().young.len();
        let whole = tokenizer.count(&text);
        assert_eq!(counting("a").count(&tokenizer, &text), whole);
        let parts = kept();
        assert!(parts > 20, "{parts}");
        assert_eq!(counting("a").count(&tokenizer, &text), whole);
        assert_eq!(kept(), parts);
        // Behind other text the same parts come again, but for the first ones.
        let moved = format!("Something else. {text}");
        assert_eq!(counting("a").count(&tokenizer, &moved), tokenizer.count(&moved));
        assert!(kept() <= parts + 4, "{} of {parts}", kept());
        // Another tenant's are its own.
        assert_eq!(counting("b").count(&tokenizer, &text), whole);
        assert!(kept() >= 2 * parts);
    }
}
