//! Byte-level BPE (`tokenizer.ggml.model` = `gpt2`): words of bytes, merged by rank.

use std::collections::HashMap;

use super::merge::{Join, Merger};
use super::split::Split;
use super::vocab::{Kind, Vocab};
use crate::ModelError;

/// A merge whose left token is given by its place in [`Bpe::merges`].
#[derive(Debug, Clone, Copy)]
struct Merge {
    right: u32,
    rank: u32,
    id: u32,
}

/// The model; ids are the vocabulary's.
#[derive(Debug)]
pub(super) struct Bpe {
    split: Split,
    /// Token of each byte. Vocabularies may lack bytes that their training text did not contain.
    bytes: [Option<u32>; 256],
    /// Merges by left token (`merges[first[left]..first[left + 1]]`), then right token.
    merges: Vec<Merge>,
    first: Vec<u32>,
    /// Tokens that a whole word may be, by their bytes; empty unless the split takes whole words.
    words: HashMap<Box<[u8]>, u32>,
    /// Stands for a byte without a token; absent, such a byte is left out.
    unknown: Option<u32>,
}

impl Bpe {
    pub(super) fn new(
        vocab: &Vocab,
        kinds: &[Kind],
        ids: &HashMap<String, u32>,
    ) -> Result<Self, ModelError> {
        let Some(pre) = &vocab.pre else {
            return Err(ModelError::Unsupported("tokenizer.ggml.pre is missing".to_owned()));
        };
        let split = Split::named(pre)?;
        if vocab.merges.is_empty() {
            return Err(ModelError::Invalid(
                "tokenizer.ggml.merges is missing or empty".to_owned(),
            ));
        }
        let ordinary =
            |id: u32| matches!(kinds[id as usize], Kind::Normal | Kind::UserDefined | Kind::Unused);
        let mut bytes = [None; 256];
        for (byte, slot) in (0..=255).zip(&mut bytes) {
            let mut utf8 = [0; 4];
            let spelled: &str = spell(byte).encode_utf8(&mut utf8);
            *slot = ids.get(spelled).copied().filter(|&id| ordinary(id));
        }
        let mut pairs = Vec::with_capacity(vocab.merges.len());
        for (rank, merge) in (0u32..).zip(&vocab.merges) {
            let Some((left, right, id)) = resolve(merge, ids) else {
                return Err(ModelError::Invalid(format!(
                    "merge {rank} ({merge:?}) does not join two tokens into a third"
                )));
            };
            // Ordinary text never becomes a control token, whatever the merges say.
            if ordinary(id) {
                pairs.push((left, Merge { right, rank, id }));
            }
        }
        // A pair listed twice keeps its best rank.
        pairs.sort_unstable_by_key(|&(left, merge)| (left, merge.right, merge.rank));
        pairs.dedup_by_key(|&mut (left, merge)| (left, merge.right));
        let mut first = vec![0; vocab.tokens.len() + 1];
        for &(left, _) in &pairs {
            first[left as usize + 1] += 1;
        }
        for left in 1..first.len() {
            first[left] += first[left - 1];
        }
        let words = if split.whole_words {
            let spelled = (0u32..).zip(&vocab.tokens).filter(|&(id, _)| ordinary(id));
            spelled.filter_map(|(id, token)| Some((unspell(token)?.into(), id))).collect()
        } else {
            HashMap::new()
        };
        let unknown = vocab.unk.filter(|&id| kinds[id as usize] != Kind::Control);
        let merges = pairs.into_iter().map(|(_, merge)| merge).collect();
        Ok(Self { split, bytes, merges, first, words, unknown })
    }

    /// Whether prompts begin with BOS when the file does not say.
    pub(super) fn default_bos(&self) -> bool {
        self.split.bos
    }

    /// Gives each token of `text` and its byte range to `emit`, in order.
    pub(super) fn encode(
        &self,
        text: &str,
        merger: &mut Merger,
        emit: &mut impl FnMut(u32, usize, usize),
    ) {
        self.split.words(text, &mut |start, end| {
            let word = &text.as_bytes()[start..end];
            if let Some(&id) = self.words.get(word) {
                emit(id, start, end);
                return;
            }
            merger.clear();
            for (at, &byte) in word.iter().enumerate() {
                merger.push(start + at, start + at + 1, self.bytes[usize::from(byte)]);
            }
            merger.run(|left, right| self.join(left.id?, right.id?));
            for symbol in merger.symbols() {
                if let Some(id) = symbol.id.or(self.unknown) {
                    emit(id, symbol.start as usize, symbol.end as usize);
                }
            }
        });
    }

    fn join(&self, left: u32, right: u32) -> Option<Join> {
        let range = self.first[left as usize] as usize..self.first[left as usize + 1] as usize;
        let merges = &self.merges[range];
        let found = merges.binary_search_by_key(&right, |merge| merge.right).ok()?;
        let Merge { rank, id, .. } = merges[found];
        Some(Join { rank, id })
    }
}

/// The tokens a line of the merge list joins, and the one it makes.
fn resolve(merge: &str, ids: &HashMap<String, u32>) -> Option<(u32, u32, u32)> {
    let (left, right) = merge.split_once(' ')?;
    let id = *ids.get(&[left, right].concat())?;
    Some((*ids.get(left)?, *ids.get(right)?, id))
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
fn unspell_char(spelled: char) -> Option<u8> {
    match u32::from(spelled) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// The bytes `token` spells, if all of it is in the byte alphabet.
fn unspell(token: &str) -> Option<Vec<u8>> {
    token.chars().map(unspell_char).collect()
}

/// The bytes `token` stands for; characters outside the byte alphabet stand for themselves.
pub(super) fn token_bytes(token: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut utf8 = [0; 4];
    for spelled in token.chars() {
        match unspell_char(spelled) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(spelled.encode_utf8(&mut utf8).as_bytes()),
        }
    }
    bytes
}
