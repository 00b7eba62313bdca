//! SentencePiece BPE (`tokenizer.ggml.model` = `llama`): characters merged by score, bytes where no token fits.

use std::collections::HashMap;

use super::merge::{Join, Merger};
use super::vocab::{Kind, Vocab};
use crate::ModelError;

/// What SentencePiece writes for a space (U+2581).
pub(super) const SPACE: char = '\u{2581}';

#[derive(Debug, Clone, Copy)]
struct Entry {
    id: u32,
    /// Place of its score, best first; equal scores share it.
    rank: u32,
}

/// The model; ids are the vocabulary's.
#[derive(Debug)]
pub(super) struct Spm {
    /// Tokens that text may become, by spelling.
    tokens: HashMap<Box<str>, Entry>,
    /// Longest key of `tokens`, bytes.
    longest: usize,
    bytes: [Option<u32>; 256],
    /// Stands for a character that has neither a token nor byte tokens.
    unknown: Option<u32>,
    /// The start of the text, and text behind a special token, is read as if it began with a space.
    prefix: bool,
    /// No token has a space behind another character, so nothing merges across such a place and each word can
    /// be merged on its own, in less memory.
    words: bool,
}

impl Spm {
    pub(super) fn new(vocab: &Vocab, kinds: &[Kind]) -> Result<Self, ModelError> {
        if vocab.scores.len() != vocab.tokens.len() {
            return Err(ModelError::Invalid(format!(
                "{} scores for {} tokens",
                vocab.scores.len(),
                vocab.tokens.len()
            )));
        }
        if let Some(id) = vocab.scores.iter().position(|score| score.is_nan()) {
            return Err(ModelError::Invalid(format!("the score of token {id} is not a number")));
        }
        if vocab.remove_extra_whitespaces == Some(true) {
            return Err(ModelError::Unsupported(
                "tokenizer.ggml.remove_extra_whitespaces".to_owned(),
            ));
        }
        let ranks = ranks(&vocab.scores);
        let mut bytes = [None; 256];
        let mut tokens: HashMap<Box<str>, Entry> = HashMap::with_capacity(vocab.tokens.len());
        let mut words = true;
        for (id, token) in (0u32..).zip(&vocab.tokens) {
            match kinds[id as usize] {
                Kind::Byte(byte) => bytes[usize::from(byte)] = Some(id),
                Kind::Normal | Kind::UserDefined | Kind::Unused => {
                    words &= !space_inside(token);
                    tokens.insert(token.as_str().into(), Entry { id, rank: ranks[id as usize] });
                }
                _ => {}
            }
        }
        let longest = tokens.keys().map(|token| token.len()).max().unwrap_or(0);
        let unknown = vocab.unk.filter(|&id| kinds[id as usize] != Kind::Control);
        Ok(Self {
            tokens,
            longest,
            bytes,
            unknown,
            prefix: vocab.add_space_prefix.unwrap_or(true),
            words,
        })
    }

    /// Gives each token of `text` and its byte range to `emit`, in order. `begins`: nothing or a special token
    /// comes before.
    pub(super) fn encode(
        &self,
        text: &str,
        begins: bool,
        merger: &mut Merger,
        emit: &mut impl FnMut(u32, usize, usize),
    ) {
        let mut spelled = String::with_capacity(text.len() + text.len() / 2);
        if self.prefix && begins {
            spelled.push(SPACE);
        }
        let mut place = Place { text, at: 0, spelled: spelled.len() };
        spelled.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
        let mut start = 0;
        while start < spelled.len() {
            let end = if self.words { word_end(&spelled, start) } else { spelled.len() };
            self.encode_word(&spelled, start, end, merger, &mut place, emit);
            start = end;
        }
    }

    fn encode_word(
        &self,
        spelled: &str,
        start: usize,
        end: usize,
        merger: &mut Merger,
        place: &mut Place<'_>,
        emit: &mut impl FnMut(u32, usize, usize),
    ) {
        merger.clear();
        for (at, c) in spelled[start..end].char_indices() {
            merger.push(start + at, start + at + c.len_utf8());
        }
        let entry = |from: u32, to: u32| {
            let (from, to) = (from as usize, to as usize);
            if to - from > self.longest { None } else { self.tokens.get(&spelled[from..to]) }
        };
        merger.run(|left, right| {
            entry(left.start, right.end).map(|&Entry { id, rank }| Join { rank, id })
        });
        for symbol in merger.symbols() {
            let from = place.at;
            let to = place.advance(symbol.end as usize);
            if let Some(id) =
                symbol.id.or_else(|| entry(symbol.start, symbol.end).map(|entry| entry.id))
            {
                emit(id, from, to);
                continue;
            }
            // Only single characters get here: whatever was merged is a token.
            let bytes = &spelled.as_bytes()[symbol.start as usize..symbol.end as usize];
            let token = |&byte: &u8| self.bytes[usize::from(byte)];
            if bytes.iter().all(|byte| token(byte).is_some()) {
                bytes.iter().filter_map(token).for_each(|id| emit(id, from, to));
            } else if let Some(id) = self.unknown {
                emit(id, from, to);
            }
        }
    }
}

/// A place in the text and the same place in its spelling, where each space is [`SPACE`].
struct Place<'t> {
    text: &'t str,
    at: usize,
    spelled: usize,
}

impl Place<'_> {
    /// Moves on to place `to` of the spelling; returns its place in the text.
    fn advance(&mut self, to: usize) -> usize {
        let mut rest = self.text[self.at..].chars();
        while self.spelled < to {
            let Some(c) = rest.next() else { break };
            self.at += c.len_utf8();
            self.spelled += if c == ' ' { SPACE.len_utf8() } else { c.len_utf8() };
        }
        self.at
    }
}

/// Whether a space follows another character in `token`.
fn space_inside(token: &str) -> bool {
    token.trim_start_matches(SPACE).contains(SPACE)
}

/// Where the word at `start` (spaces, then others) ends.
fn word_end(spelled: &str, start: usize) -> usize {
    let rest = &spelled[start..];
    let word = rest.trim_start_matches(SPACE);
    let spaces = rest.len() - word.len();
    start + spaces + word.find(SPACE).unwrap_or(word.len())
}

/// Place of each score among the distinct ones, best first.
fn ranks(scores: &[f32]) -> Vec<u32> {
    // -0.0 equals 0.0 but `total_cmp` tells them apart.
    let plain = |score: f32| if score == 0.0 { 0.0 } else { score };
    let mut order: Vec<f32> = scores.iter().map(|&score| plain(score)).collect();
    order.sort_unstable_by(|a, b| b.total_cmp(a));
    order.dedup();
    let place =
        |score: f32| order.partition_point(|other| other.total_cmp(&plain(score)).is_gt()) as u32;
    scores.iter().map(|&score| place(score)).collect()
}
