//! `tokenizer.json`: text becomes the tokens of a BERT.

use tokenizers::Tokenizer;

use crate::ModelError;

/// Bytes of a text that are looked at first: enough for 256 tokens of most texts.
const FIRST_BYTES: usize = 4096;

/// Bytes looked at if those hold fewer: beyond, a text of blanks or endless words is taken to be over, so that it costs
/// no more than a tenth of a second.
const MOST_BYTES: usize = 128 << 10;

/// Bytes in which a blank is looked for.
const LONGEST_WORD: usize = 64 << 10;

/// A text's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, `[CLS]` first and `[SEP]` last.
    pub ids: Vec<u32>,
    /// Whether the text went on.
    pub truncated: bool,
}

/// The tokenizer of one encoder. Encoding is thread-safe.
#[derive(Debug)]
pub struct WordPiece {
    tokenizer: Tokenizer,
    vocab: usize,
    cls: u32,
    sep: u32,
    max_tokens: usize,
}

impl WordPiece {
    /// Reads the text of a `tokenizer.json`. What it says of padding and length does not count: texts are computed
    /// unpadded, and `max_tokens` bounds them.
    ///
    /// # Errors
    /// The text is malformed, or has no `[CLS]` and `[SEP]`.
    pub fn read(text: &[u8], max_tokens: usize) -> Result<Self, ModelError> {
        let invalid = |why: String| ModelError::Invalid(format!("tokenizer.json: {why}"));
        let mut tokenizer =
            Tokenizer::from_bytes(text).map_err(|error| invalid(error.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| invalid(error.to_string()))?;
        // A text that spells "[SEP]" means those letters.
        tokenizer.set_encode_special_tokens(true);
        let id = |token: &str| {
            tokenizer.token_to_id(token).ok_or_else(|| invalid(format!("it has no {token}")))
        };
        let (cls, sep) = (id("[CLS]")?, id("[SEP]")?);
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        Ok(Self { cls, sep, vocab: largest as usize + 1, max_tokens, tokenizer })
    }

    /// One more than the largest token id.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Most tokens of a text, `[CLS]` and `[SEP]` included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The tokens of `text`, as many as fit. A long text is not looked at beyond them.
    ///
    /// # Errors
    /// The tokenizer fails, which its model should never make it do.
    pub fn encode(&self, text: &str) -> Result<Encoding, ModelError> {
        let room = self.max_tokens.saturating_sub(2);
        let mut most = FIRST_BYTES;
        loop {
            let head = head(text, most);
            let encoded = self
                .tokenizer
                .encode_fast(head, false)
                .map_err(|error| ModelError::Invalid(format!("cannot tokenise: {error}")))?;
            let ids = encoded.get_ids();
            let whole = head.len() == text.len();
            if ids.len() < room && !whole && most < MOST_BYTES {
                most = most.saturating_mul(2);
                continue;
            }
            let kept = ids.len().min(room);
            let mut all = Vec::with_capacity(kept + 2);
            all.push(self.cls);
            all.extend_from_slice(&ids[..kept]);
            all.push(self.sep);
            // What follows the head may be blank: only tokens tell.
            let truncated = ids.len() > room || (!whole && self.goes_on(&text[head.len()..])?);
            return Ok(Encoding { ids: all, truncated });
        }
    }

    /// Whether `rest` holds a token.
    fn goes_on(&self, rest: &str) -> Result<bool, ModelError> {
        // Words say it at once; blanks and control characters, however many, are skipped.
        let Some(start) = rest.find(|c: char| !c.is_whitespace() && !c.is_control()) else {
            return Ok(false);
        };
        let word = head(&rest[start..], FIRST_BYTES);
        let encoded = self
            .tokenizer
            .encode_fast(word, false)
            .map_err(|error| ModelError::Invalid(format!("cannot tokenise: {error}")))?;
        Ok(!encoded.get_ids().is_empty())
    }
}

/// The beginning of `text` up to the first blank from byte `most` on. Words are cut apart at blanks before anything
/// else, so its tokens are the first of the whole text's. Where no blank comes for long, the text is cut between two
/// characters: either each is a word of its own, or the word is too long to be known, cut or whole.
fn head(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let from = text.ceil_char_boundary(most);
    let last = text.ceil_char_boundary(from.saturating_add(LONGEST_WORD).min(text.len()));
    let blank = text[from..last].find([' ', '\n', '\t', '\r']);
    &text[..blank.map_or(last, |blank| from + blank)]
}
