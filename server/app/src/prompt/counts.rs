//! Token counts of parts of texts, kept over requests, and of sentences within one.
//!
//! The documents of a conversation come again with every question, and counting the tokens of a long one takes longer than
//! choosing from it. A text is cut at [seams](pith_model::Tokenizer::seam) that its own words pick, so that equal
//! stretches are cut alike wherever they stand, and each part is counted once. Counts are exact: at a seam no
//! token begins on one side and ends on the other.
//!
//! While a context is fitted to its budget, the prompt is counted several times and little of it changes from one time to
//! the next: it is cut after sentences, and those are counted once for a request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use pith_model::Tokenizer;
use sha2::{Digest as _, Sha256};

/// Shorter texts are cut into sentences, in bytes.
const MIN_BYTES: usize = 16 << 10;
/// Least bytes of a sentence.
const MIN_SENTENCE: usize = 64;
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

/// Counts of sentences of one request's prompt.
#[derive(Debug, Default)]
pub struct SentenceCounts(RefCell<HashMap<Box<str>, usize>>);

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
    /// Tokens of a text by itself, a sentence as a rule, that may well be asked for again.
    #[must_use]
    pub fn count_alone(&self, tokenizer: &Tokenizer, text: &str) -> usize {
        if text.len() < MIN_BYTES {
            return self.part(tokenizer, text, true);
        }
        self.parts(tokenizer, text)
    }

    /// Tokens of ordinary `text`, as many as `tokenizer` gives.
    #[must_use]
    pub fn count(&self, tokenizer: &Tokenizer, text: &str, sentences: &SentenceCounts) -> usize {
        if text.len() < MIN_BYTES {
            return sentences.count(tokenizer, text);
        }
        self.parts(tokenizer, text)
    }

    fn parts(&self, tokenizer: &Tokenizer, text: &str) -> usize {
        let (mut count, mut start) = (0, 0);
        while let Some(seam) = cut(tokenizer, text, start + MIN_PART) {
            count += self.part(tokenizer, &text[start..seam], start == 0);
            start = seam;
        }
        count + self.part(tokenizer, &text[start..], start == 0)
    }

    /// Lengths and counts of the parts of `text` that come again wherever it stands, to be [restored](Self::restore) by
    /// another process. None for a text that has no such parts.
    #[must_use]
    pub fn save(&self, tokenizer: &Tokenizer, text: &str) -> Vec<u8> {
        let mut saved = Vec::new();
        let mut put = |number: usize| {
            saved.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        };
        let Some(mut start) = cut(tokenizer, text, MIN_PART) else { return saved };
        put(start);
        while let Some(seam) = cut(tokenizer, text, start + MIN_PART) {
            put(seam - start);
            put(self.part(tokenizer, &text[start..seam], false));
            start = seam;
        }
        saved
    }

    /// Takes what [`save`](Self::save) gave for the same `text`, model and release of this program for counted. False, and
    /// nothing is taken, if it does not fit the text.
    #[must_use]
    pub fn restore(&self, text: &str, saved: &[u8]) -> bool {
        let (numbers, rest) = saved.as_chunks::<4>();
        let number = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        let Some((first, parts)) = numbers.split_first() else { return saved.is_empty() };
        let (parts, odd) = parts.as_chunks::<2>();
        let mut start = number(first) as usize;
        let mut restored = Vec::with_capacity(parts.len());
        for [length, count] in parts {
            let end = start + number(length) as usize;
            let Some(part) = text.get(start..end) else { return false };
            restored.push((self.key(part, false), number(count)));
            start = end;
        }
        if !rest.is_empty() || !odd.is_empty() {
            return false;
        }
        restored.into_iter().for_each(|(key, count)| self.counts.put(key, count));
        true
    }

    /// Whether the parts of `text` are counted already, as far as the first shows.
    #[must_use]
    pub fn knows(&self, tokenizer: &Tokenizer, text: &str) -> bool {
        let part = cut(tokenizer, text, MIN_PART)
            .and_then(|start| Some(start..cut(tokenizer, text, start + MIN_PART)?));
        part.is_none_or(|part| self.counts.get(&self.key(&text[part], false)).is_some())
    }

    fn part(&self, tokenizer: &Tokenizer, part: &str, begins: bool) -> usize {
        let key = self.key(part, begins);
        if let Some(count) = self.counts.get(&key) {
            return count as usize;
        }
        let count = if begins { tokenizer.count(part) } else { tokenizer.count_rest(part) };
        self.counts.put(key, u32::try_from(count).unwrap_or(u32::MAX));
        count
    }

    fn key(&self, part: &str, begins: bool) -> [u8; 16] {
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
        key
    }
}

impl SentenceCounts {
    fn count(&self, tokenizer: &Tokenizer, text: &str) -> usize {
        let mut counted = self.0.borrow_mut();
        let Some(mut start) = sentence(tokenizer, text, MIN_SENTENCE) else {
            return tokenizer.count(text);
        };
        // What comes first is the beginning of the prompt, and short.
        let mut count = tokenizer.count(&text[..start]);
        while start < text.len() {
            let end = sentence(tokenizer, text, start + MIN_SENTENCE).unwrap_or(text.len());
            let part = &text[start..end];
            count += match counted.get(part) {
                Some(count) => *count,
                None => {
                    let count = tokenizer.count_rest(part);
                    counted.insert(part.into(), count);
                    count
                }
            };
            start = end;
        }
        count
    }
}

/// The first seam at or after `from` that ends a sentence.
fn sentence(tokenizer: &Tokenizer, text: &str, mut from: usize) -> Option<usize> {
    loop {
        let seam = tokenizer.seam(text, from)?;
        if matches!(text.as_bytes()[seam - 1], b'.' | b'?' | b'!') {
            return Some(seam);
        }
        from = seam + 1;
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
mod tests;
