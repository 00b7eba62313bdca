//! A vocabulary as the model file states it, and the checks it must pass before it is believed.

use crate::ModelError;

/// Longest token accepted, bytes as spelled. Real vocabularies stay below 300; the bound keeps the cost of
/// looking a candidate up constant, whatever the file says.
pub(super) const MAX_TOKEN_BYTES: usize = 1024;

/// The `tokenizer.ggml.*` metadata of a GGUF file, or the same out of a `tokenizer.json`, unchecked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vocab {
    /// `model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    pub model: String,
    /// `pre`: which rule splits text into words before merging.
    pub pre: Option<String>,
    /// `tokens`: spelling of each id.
    pub tokens: Vec<String>,
    /// `scores`: higher merges first (`llama` only).
    pub scores: Vec<f32>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; empty = all normal.
    pub token_types: Vec<i32>,
    /// `merges`: `left right`, best first. A `llama` without scores has them too: a `tokenizer.json` says which pairs
    /// merge, not which tokens.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `unknown_token_id`.
    pub unk: Option<u32>,
    /// `padding_token_id`.
    pub pad: Option<u32>,
    /// `eot_token_id`: end of turn.
    pub eot: Option<u32>,
    /// `eom_token_id`: end of message.
    pub eom: Option<u32>,
    /// `add_bos_token`: prompts begin with BOS.
    pub add_bos: Option<bool>,
    /// `add_eos_token`. Not used: a prompt that ends is not continued.
    pub add_eos: Option<bool>,
    /// `add_space_prefix` (`llama` only).
    pub add_space_prefix: Option<bool>,
    /// `remove_extra_whitespaces`.
    pub remove_extra_whitespaces: Option<bool>,
    /// Further tokens that end a generation.
    pub ends: Vec<u32>,
    /// A word that is a token is taken as it is, even where merges would not build it (`gpt2` only); as `pre` implies
    /// if unset.
    pub whole_words: Option<bool>,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte(u8),
}

impl Vocab {
    /// Checks everything both tokenizer models rely on and says what each token is.
    pub(super) fn kinds(&self) -> Result<Vec<Kind>, ModelError> {
        let count = self.tokens.len();
        if count == 0 || u32::try_from(count).is_err() {
            return Err(ModelError::Invalid(format!("a vocabulary of {count} tokens")));
        }
        if !self.token_types.is_empty() && self.token_types.len() != count {
            return Err(ModelError::Invalid(format!(
                "{} token types for {count} tokens",
                self.token_types.len()
            )));
        }
        let named = [
            ("bos", self.bos),
            ("eos", self.eos),
            ("unknown", self.unk),
            ("padding", self.pad),
            ("eot", self.eot),
            ("eom", self.eom),
        ];
        let ends = self.ends.iter().map(|&id| ("eos", Some(id)));
        for (name, id) in named.into_iter().chain(ends) {
            if let Some(id) = id.filter(|&id| id as usize >= count) {
                return Err(ModelError::Invalid(format!(
                    "{name}_token_id {id} is outside the vocabulary of {count}"
                )));
            }
        }
        self.tokens.iter().enumerate().map(|(id, token)| self.kind(id, token)).collect()
    }

    fn kind(&self, id: usize, token: &str) -> Result<Kind, ModelError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(ModelError::Unsupported(format!(
                "token {id} is {} bytes long, at most {MAX_TOKEN_BYTES} are accepted",
                token.len()
            )));
        }
        match self.token_types.get(id).copied().unwrap_or(1) {
            1 => Ok(Kind::Normal),
            2 => Ok(Kind::Unknown),
            3 => Ok(Kind::Control),
            4 => Ok(Kind::UserDefined),
            5 => Ok(Kind::Unused),
            6 => byte(token).map(Kind::Byte).ok_or_else(|| {
                ModelError::Invalid(format!("byte token {id} is spelled {token:?}, not <0xHH>"))
            }),
            other => Err(ModelError::Invalid(format!("token {id} has type {other}"))),
        }
    }
}

/// The byte that `<0xHH>` spells.
fn byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    // `from_str_radix` alone would also take `+1`.
    (hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .then(|| u8::from_str_radix(hex, 16).ok())
        .flatten()
}
