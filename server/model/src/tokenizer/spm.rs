//! SentencePiece BPE (`tokenizer.ggml.model` = `llama`): characters merged, best token or best pair first, bytes where no
//! token fits.

use ahash::AHashMap;

use super::Ids;
use super::merge::{Join, Merger, Symbol, resolve, unresolved};
use super::vocab::{Kind, Vocab};
use crate::ModelError;

/// What SentencePiece writes for a space (U+2581).
pub(super) const SPACE: char = '\u{2581}';

/// The model; ids are the vocabulary's.
#[derive(Debug)]
pub(super) struct Spm {
    /// Place of each token's score, best first; equal scores share it. None: text may not become the token.
    ranks: Vec<Option<u32>>,
    /// Which tokens join into which, where the vocabulary says that instead of scores.
    pairs: Option<AHashMap<(u32, u32), Join>>,
    /// Longest token that text may become, bytes.
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
    pub(super) fn new(vocab: &Vocab, kinds: &[Kind], ids: &Ids) -> Result<Self, ModelError> {
        let paired = vocab.scores.is_empty() && !vocab.merges.is_empty();
        if !paired && vocab.scores.len() != vocab.tokens.len() {
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
        let mut ranks: Vec<Option<u32>> = match paired {
            true => vec![Some(0); vocab.tokens.len()],
            false => ranks(&vocab.scores).into_iter().map(Some).collect(),
        };
        let mut bytes = [None; 256];
        let (mut words, mut longest) = (true, 0);
        for (id, token) in (0u32..).zip(&vocab.tokens) {
            match kinds[id as usize] {
                Kind::Normal | Kind::UserDefined | Kind::Unused => {
                    words &= !space_inside(token);
                    longest = longest.max(token.len());
                    continue;
                }
                Kind::Byte(byte) => bytes[usize::from(byte)] = Some(id),
                Kind::Control | Kind::Unknown => {}
            }
            ranks[id as usize] = None;
        }
        let unknown = vocab.unk.filter(|&id| kinds[id as usize] != Kind::Control);
        let pairs = paired.then(|| pairs(&vocab.merges, ids, &ranks)).transpose()?;
        Ok(Self {
            ranks,
            pairs,
            longest,
            bytes,
            unknown,
            prefix: vocab.add_space_prefix.unwrap_or(true),
            words,
        })
    }

    /// Whether nothing merges across a space before a word.
    pub(super) fn merges_words_apart(&self) -> bool {
        self.words
    }

    /// Whether tokens found literally are spelled as all others are. GGUF files have them as they are in text.
    pub(super) fn spells_literals(&self) -> bool {
        self.pairs.is_some()
    }

    /// Gives each token of `text` and its byte range to `emit`, in order. `begins`: nothing or a special token
    /// comes before. `ids`: those of the vocabulary.
    pub(super) fn encode(
        &self,
        ids: &Ids,
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
            self.merge_word(ids, &spelled, start, end, merger);
            self.emit_word(ids, &spelled, merger, &mut place, emit);
            start = end;
        }
    }

    /// The token spelled `piece`, if text may become it, and its rank.
    fn token(&self, ids: &Ids, piece: &str) -> Option<Join> {
        if piece.len() > self.longest {
            return None;
        }
        let id = *ids.get(piece)?;
        Some(Join { rank: self.ranks[id as usize]?, id })
    }

    fn merge_word(&self, ids: &Ids, spelled: &str, start: usize, end: usize, merger: &mut Merger) {
        merger.clear();
        for (at, c) in spelled[start..end].char_indices() {
            merger.push(start + at, start + at + c.len_utf8());
        }
        let piece = |from: u32, to: u32| self.token(ids, &spelled[from as usize..to as usize]);
        match &self.pairs {
            None => merger.run(|left, right| piece(left.start, right.end)),
            Some(pairs) => {
                let id = |symbol: &Symbol| {
                    symbol.id.or_else(|| piece(symbol.start, symbol.end).map(|token| token.id))
                };
                merger.run(|left, right| pairs.get(&(id(left)?, id(right)?)).copied());
            }
        }
    }

    fn emit_word(
        &self,
        ids: &Ids,
        spelled: &str,
        merger: &Merger,
        place: &mut Place<'_>,
        emit: &mut impl FnMut(u32, usize, usize),
    ) {
        for symbol in merger.symbols() {
            let from = place.at;
            let to = place.advance(symbol.end as usize);
            let piece = &spelled[symbol.start as usize..symbol.end as usize];
            if let Some(id) = symbol.id.or_else(|| self.token(ids, piece).map(|token| token.id)) {
                emit(id, from, to);
                continue;
            }
            // Only single characters get here: whatever was merged is a token.
            let byte = |byte: u8| self.bytes[usize::from(byte)];
            if piece.bytes().all(|b| byte(b).is_some()) {
                piece.bytes().filter_map(byte).for_each(|id| emit(id, from, to));
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

/// The merges that text can reach, each pair with its best rank. `ranks`: none where text may not become the token.
fn pairs(
    lines: &[String],
    ids: &Ids,
    ranks: &[Option<u32>],
) -> Result<AHashMap<(u32, u32), Join>, ModelError> {
    let mut pairs = AHashMap::with_capacity(lines.len());
    for (rank, line) in lines.iter().enumerate() {
        let Some((_, _, named)) = resolve(line, ids) else { return Err(unresolved(rank, line)) };
        if named.into_iter().all(|id| ranks[id as usize].is_some()) {
            let join = Join { rank: rank as u32, id: named[2] };
            pairs.entry((named[0], named[1])).or_insert(join);
        }
    }
    Ok(pairs)
}

/// Place of each score among the distinct ones, best first.
fn ranks(scores: &[f32]) -> Vec<u32> {
    // -0.0 equals 0.0 but `total_cmp` tells them apart; the sum is 0.0 for both.
    let score = |id: u32| scores[id as usize] + 0.0;
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    let mut ranks = vec![0; scores.len()];
    let mut rank = 0;
    for pair in order.windows(2) {
        rank += u32::from(score(pair[0]) != score(pair[1]));
        ranks[pair[1] as usize] = rank;
    }
    ranks
}
