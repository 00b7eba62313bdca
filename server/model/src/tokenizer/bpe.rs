//! Byte-level BPE (`tokenizer.ggml.model` = `gpt2`): words of bytes, merged by rank.

use std::ops::Range;

use ahash::{AHashMap, AHashSet};
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges};

use super::Ids;
use super::merge::{resolve, unresolved};
use super::split::Split;
use super::vocab::{Kind, Vocab};
use crate::ModelError;

/// Most distinct words of a text that are remembered while it is encoded.
const MAX_KNOWN: usize = 1 << 14;
/// Longest of them, in bytes.
const MAX_KNOWN_BYTES: usize = 32;

/// The model; ids are the vocabulary's. Words are found by [`Split`] and merged by `tokenizers`, each on its own.
///
/// That crate takes a pair in its queue for current if it still joins into the same token. This is exact because no
/// two tokens are spelled alike, which [`super::Tokenizer::from_vocab`] checks.
#[derive(Debug)]
pub(super) struct Bpe {
    split: Split,
    merging: BPE,
    /// Ids from here on stand for bytes without a token, and only [`Self::merging`] knows them.
    /// Vocabularies may lack bytes that their training text did not contain.
    vocab: u32,
    /// Stands for a byte without a token; absent, such a byte is left out.
    unknown: Option<u32>,
}

impl Bpe {
    pub(super) fn new(vocab: &Vocab, kinds: &[Kind], ids: &Ids) -> Result<Self, ModelError> {
        let Some(pre) = &vocab.pre else {
            return Err(ModelError::Unsupported("tokenizer.ggml.pre is missing".to_owned()));
        };
        let split = Split::named(pre)?;
        if vocab.merges.is_empty() {
            return Err(ModelError::Invalid(
                "tokenizer.ggml.merges is missing or empty".to_owned(),
            ));
        }
        // Ordinary text never becomes a control token, whatever the merges say.
        let ordinary =
            |id: u32| matches!(kinds[id as usize], Kind::Normal | Kind::UserDefined | Kind::Unused);
        let merges = merges(&vocab.merges, ids, ordinary)?;
        let mut known: Ids = (0u32..)
            .zip(&vocab.tokens)
            .filter(|&(id, token)| ordinary(id) && !token.is_empty())
            .map(|(id, token)| (token.clone(), id))
            .collect();
        // Characters outside its vocabulary would vanish before merging, and their neighbours become neighbours
        // of each other.
        let count = vocab.tokens.len() as u32;
        for byte in 0..=255 {
            known.entry(spell(byte).to_string()).or_insert(count.saturating_add(u32::from(byte)));
        }
        let merging = BPE::builder()
            .vocab_and_merges(known, merges)
            .ignore_merges(vocab.whole_words.unwrap_or(split.whole_words))
            // Its cache would keep words of one caller's text, and show in its timing who used them before.
            .cache_capacity(0)
            .build()
            .map_err(|error| ModelError::Invalid(format!("tokenizer.ggml.merges: {error}")))?;
        let unknown = vocab.unk.filter(|&id| kinds[id as usize] != Kind::Control);
        Ok(Self { split, merging, vocab: count, unknown })
    }

    /// Whether prompts begin with BOS when the file does not say.
    pub(super) fn default_bos(&self) -> bool {
        self.split.bos
    }

    /// Gives each token of `text` and its byte range to `emit`, in order. Time is `O(n log n)` in the longest
    /// word, linear in the rest.
    pub(super) fn encode(&self, text: &str, emit: &mut impl FnMut(u32, usize, usize)) {
        let mut spelled = String::new();
        // Most words of a text come again. What they became is forgotten with the text: kept longer, it would show in
        // its timing who used them before.
        let mut known: AHashMap<&str, Range<usize>> = AHashMap::new();
        // Ids and lengths in bytes.
        let mut tokens: Vec<(Option<u32>, usize)> = Vec::new();
        self.split.words(text, &mut |start, end| {
            let word = &text[start..end];
            let range = match known.get(word) {
                Some(range) => range.clone(),
                None => {
                    let first = tokens.len();
                    self.merge(word, &mut spelled, &mut tokens);
                    let range = first..tokens.len();
                    if word.len() <= MAX_KNOWN_BYTES && known.len() < MAX_KNOWN {
                        known.insert(word, range.clone());
                    }
                    range
                }
            };
            let mut at = start;
            for &(id, length) in &tokens[range.clone()] {
                if let Some(id) = id {
                    emit(id, at, at + length);
                }
                at += length;
            }
            debug_assert_eq!(at, end, "tokens tile the word");
            if !known.contains_key(word) {
                tokens.truncate(range.start);
            }
        });
    }

    /// Adds the tokens of `word`: id, if it has one, and length in bytes.
    fn merge(&self, word: &str, spelled: &mut String, out: &mut Vec<(Option<u32>, usize)>) {
        spelled.clear();
        spelled.extend(word.bytes().map(spell));
        // Only a token for the unknown that is itself unknown can fail, and none is set.
        for token in self.merging.tokenize(spelled).unwrap_or_default() {
            let (from, to) = token.offsets;
            // One character is one byte.
            let length = spelled[from..to].chars().count();
            out.push((Some(token.id).filter(|&id| id < self.vocab).or(self.unknown), length));
        }
    }
}

/// The merges that text can reach, best first, each pair once.
fn merges(
    lines: &[String],
    ids: &Ids,
    ordinary: impl Fn(u32) -> bool,
) -> Result<Merges, ModelError> {
    let mut merges = Merges::with_capacity(lines.len());
    let mut seen = AHashSet::with_capacity(lines.len());
    for (rank, merge) in lines.iter().enumerate() {
        let Some((left, right, named)) = resolve(merge, ids) else {
            return Err(unresolved(rank, merge));
        };
        // A pair listed twice keeps its best rank.
        if named.into_iter().all(&ordinary) && seen.insert((named[0], named[1])) {
            merges.push((left.to_owned(), right.to_owned()));
        }
    }
    Ok(merges)
}

/// The printable character that byte-level vocabularies (GPT-2's `bytes_to_unicode`) write for `byte`:
/// itself where Latin-1 has a visible character, else the next free one from U+0100.
fn spell(byte: u8) -> char {
    let shifted = match byte {
        0..=0x20 => u32::from(byte) + 0x100,
        0x7F..=0xA0 => u32::from(byte) - 0x7F + 0x121,
        0xAD => 0x143,
        _ => u32::from(byte),
    };
    char::from_u32(shifted).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that `spelled` stands for.
fn unspell(spelled: char) -> Option<u8> {
    match u32::from(spelled) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// The bytes `token` stands for; characters outside the byte alphabet stand for themselves.
pub(super) fn token_bytes(token: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut utf8 = [0; 4];
    for spelled in token.chars() {
        match unspell(spelled) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(spelled.encode_utf8(&mut utf8).as_bytes()),
        }
    }
    bytes
}
