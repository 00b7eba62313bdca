//! `tokenizer.json`: a vocabulary of byte-pair merges, as bytes or with spaces spelled out, in the terms of
//! [`Vocab`].

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::config::Ends;
use super::tokenizer_config::TokenizerConfig;
use super::words::{Step, Style, first_token};
use crate::ModelError;
use crate::json::{self, Entries};
use crate::tokenizer::Vocab;

const FILE: &str = "tokenizer.json";
/// Kinds of tokens, by the numbers [`Vocab::token_types`] has for them.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// What the files beside it say.
pub(super) struct Words<'a> {
    pub(super) config: &'a TokenizerConfig,
    pub(super) ends: &'a Ends,
    /// Rows of the embedding. Ids without a token are holes; models are padded with them.
    pub(super) vocab: usize,
}

#[derive(Deserialize)]
struct Raw {
    model: RawModel,
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Step>,
    pre_tokenizer: Option<Step>,
    post_processor: Option<Step>,
}

#[derive(Deserialize)]
struct RawModel {
    r#type: String,
    vocab: Entries<u32>,
    merges: Vec<Merge>,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

/// Enough to tell what kind of model it is.
#[derive(Deserialize)]
struct Kind {
    model: KindOfModel,
}

#[derive(Deserialize)]
struct KindOfModel {
    r#type: Option<String>,
}

impl Words<'_> {
    /// The vocabulary that `text` describes. Whether it makes sense is for [`crate::Tokenizer::from_vocab`] to say.
    pub(super) fn read(&self, text: &[u8]) -> Result<Vocab, ModelError> {
        let Raw { model, added_tokens, normalizer, pre_tokenizer, post_processor } = parse(text)?;
        model.check()?;
        let style = Style::of(normalizer.as_ref(), pre_tokenizer.as_ref())?;
        let spaces = matches!(style, Style::Spaces { .. });
        if spaces && model.byte_fallback != Some(true) {
            return Err(unsupported("spells spaces and has no byte_fallback"));
        }
        let mut tokens = Tokens::new(self.vocab);
        // Some models have no rows for tokens that were added for their siblings: no text becomes these.
        let rowless = |id: u32| id as usize >= self.vocab;
        let beyond: BTreeSet<u32> =
            added_tokens.iter().map(|added| added.id).filter(|&id| rowless(id)).collect();
        for (token, id) in model.vocab.0 {
            if beyond.contains(&id) {
                continue;
            }
            let kind = if spaces && is_byte(&token) { BYTE } else { NORMAL };
            tokens.add(id, token, kind)?;
        }
        let unk = model.unk_token.as_deref().map(|token| tokens.find(token)).transpose()?;
        if let Some(id) = unk.filter(|_| spaces) {
            tokens.types[id as usize] = UNKNOWN;
        }
        for added in added_tokens.into_iter().filter(|added| !rowless(added.id)) {
            if added.single_word || added.lstrip || added.rstrip {
                let token: String = added.content.chars().take(64).collect();
                return Err(unsupported(&format!("has {token:?}, which takes spaces with it")));
            }
            tokens.add_special(added)?;
        }
        let named = |token: Option<&str>| token.map(|token| tokens.find(token)).transpose();
        let eos = match named(self.config.eos())? {
            Some(id) => Some(id),
            None => self.ends.eos.first().copied(),
        };
        let bos = match named(self.config.bos())? {
            Some(id) => Some(id),
            None => self.ends.bos,
        };
        let first = named(first_token(post_processor.as_ref())?)?;
        if first.is_some() && first != bos {
            return Err(unsupported("begins texts with another token than BOS"));
        }
        let merges = model.merges.into_iter().map(|merge| merge.0).collect();
        let (kind, pre, add_space_prefix) = match style {
            Style::Bytes(pre) => ("gpt2", Some(pre.to_owned()), None),
            Style::Spaces { prefix } => ("llama", None, Some(prefix)),
        };
        Ok(Vocab {
            model: kind.to_owned(),
            pre,
            tokens: tokens.spellings,
            token_types: tokens.types,
            merges,
            bos,
            eos,
            unk,
            add_bos: Some(self.config.add_bos_token.unwrap_or(first.is_some())),
            add_space_prefix,
            ends: self.ends.eos.clone(),
            whole_words: Some(model.ignore_merges.unwrap_or(false)),
            ..Vocab::default()
        })
    }
}

/// Tokens by id; what no token has is a hole.
struct Tokens {
    spellings: Vec<String>,
    types: Vec<i32>,
}

impl Tokens {
    fn new(count: usize) -> Self {
        Self { spellings: vec![String::new(); count], types: vec![UNUSED; count] }
    }

    fn add(&mut self, id: u32, token: String, kind: i32) -> Result<(), ModelError> {
        let count = self.spellings.len();
        let Some(place) = self.spellings.get_mut(id as usize) else {
            return Err(invalid(&format!("has the token {id}, the model {count}")));
        };
        if !place.is_empty() {
            return Err(invalid(&format!("has two tokens of the id {id}")));
        }
        *place = token;
        self.types[id as usize] = kind;
        Ok(())
    }

    /// A token that is found in text before anything else.
    fn add_special(&mut self, added: Added) -> Result<(), ModelError> {
        let kind = if added.special { CONTROL } else { USER_DEFINED };
        match self.spellings.get(added.id as usize) {
            Some(token) if *token == added.content => {
                self.types[added.id as usize] = kind;
                Ok(())
            }
            _ => self.add(added.id, added.content, kind),
        }
    }

    fn find(&self, token: &str) -> Result<u32, ModelError> {
        let at = self.spellings.iter().position(|spelling| spelling == token);
        let id = at.filter(|_| !token.is_empty()).and_then(|at| u32::try_from(at).ok());
        let token = || token.chars().take(64).collect::<String>();
        id.ok_or_else(|| invalid(&format!("lacks the token {:?}", token())))
    }
}

impl RawModel {
    fn check(&self) -> Result<(), ModelError> {
        if self.r#type != "BPE" {
            return Err(unsupported_model(&self.r#type));
        }
        let some = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        if some(&self.continuing_subword_prefix) || some(&self.end_of_word_suffix) {
            return Err(unsupported("marks the insides or ends of words"));
        }
        if self.dropout.is_some_and(|share| share != 0.0) {
            return Err(unsupported("leaves merges out at random"));
        }
        Ok(())
    }
}

fn parse(text: &[u8]) -> Result<Raw, ModelError> {
    json::parse(FILE, text).map_err(|error| {
        // Other models are built in other ways: that they are others says more.
        match json::parse::<Kind>(FILE, text) {
            Ok(Kind { model: KindOfModel { r#type: Some(kind) } }) if kind != "BPE" => {
                unsupported_model(&kind)
            }
            _ => error,
        }
    })
}

/// Whether `token` stands for a byte.
fn is_byte(token: &str) -> bool {
    let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    hex.is_some_and(|hex| hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn invalid(why: &str) -> ModelError {
    ModelError::Invalid(format!("{FILE} {why}"))
}

fn unsupported(why: &str) -> ModelError {
    ModelError::Unsupported(format!("{FILE} {why}"))
}

fn unsupported_model(kind: &str) -> ModelError {
    let kind: String = kind.chars().take(64).collect();
    ModelError::Unsupported(format!("a tokenizer.json of the model {kind:?}"))
}

/// A merge as one line: files have lines, or pairs.
struct Merge(String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LineOrPair;
        impl<'de> Visitor<'de> for LineOrPair {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge of two tokens")
            }

            fn visit_str<E: Error>(self, line: &str) -> Result<Merge, E> {
                Ok(Merge(line.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge, A::Error> {
                let mut next = |at| {
                    let token = list.next_element::<String>()?;
                    let token = token.ok_or_else(|| Error::invalid_length(at, &self))?;
                    // A line of them would not say where one ends.
                    match token.contains(' ') {
                        true => Err(Error::custom(format!("a merge of {token:?}"))),
                        false => Ok(token),
                    }
                };
                let (left, right) = (next(0)?, next(1)?);
                match list.next_element::<String>()? {
                    None => Ok(Merge(format!("{left} {right}"))),
                    Some(_) => Err(Error::invalid_length(3, &self)),
                }
            }
        }
        deserializer.deserialize_any(LineOrPair)
    }
}
