//! Text to token ids and back, as the model file describes it.

mod bpe;
mod merge;
mod special;
mod split;
mod spm;
#[cfg(test)]
mod tests;
mod vocab;

use ahash::AHashMap;
pub(crate) use split::Split;
pub use vocab::Vocab;

use self::bpe::Bpe;
use self::merge::Merger;
use self::special::Specials;
use self::spm::Spm;
use self::vocab::Kind;
use crate::ModelError;

/// A token of an encoded text and the bytes of the text it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpan {
    /// Token id.
    pub id: u32,
    /// First byte of the text.
    pub start: usize,
    /// Past its last byte. Neighbouring tokens of one split character share its range.
    pub end: usize,
}

/// Whether text may spell control tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// `<|im_end|>` in the text becomes the control token: rendered templates, raw prompts of trusted callers.
    Parse,
    /// Control tokens are never produced: the text is encoded as if it were ordinary.
    Plain,
}

/// Tokens by spelling, but for empty ones.
type Ids = AHashMap<String, u32>;

/// How ordinary text becomes tokens.
#[derive(Debug)]
enum Model {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
}

/// The tokenizer of one model. Cheap to share; encoding is thread-safe.
#[derive(Debug)]
pub struct Tokenizer {
    model: Model,
    specials: Specials,
    pieces: Vec<String>,
    ids: Ids,
    kinds: Vec<Kind>,
    /// [`Self::bytes`] of all tokens, end to end; token `id` is `ends[id - 1]..ends[id]`.
    text: Vec<u8>,
    ends: Vec<usize>,
    bos: Option<u32>,
    add_bos: bool,
    end_tokens: Vec<u32>,
    /// Whether [`Self::seam`] may find any.
    seams: bool,
}

/// Control tokens that end a turn in the chat formats in use, where the file does not name them.
const END_TOKENS: [&str; 6] =
    ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>"];

impl Tokenizer {
    /// Builds the tokenizer `vocab` describes. A model or word rule pith does not know is an error, never a
    /// guess: wrong tokens make a model worse without a sign.
    pub fn from_vocab(vocab: Vocab) -> Result<Self, ModelError> {
        let kinds = vocab.kinds()?;
        let mut ids = Ids::with_capacity(vocab.tokens.len());
        for (id, token) in (0u32..).zip(&vocab.tokens) {
            // An empty token is a hole in the vocabulary: no text becomes it.
            if !token.is_empty()
                && let Some(first) = ids.insert(token.clone(), id)
            {
                let spelled = format!("tokens {first} and {id} are both spelled {token:?}");
                return Err(ModelError::Invalid(spelled));
            }
        }
        let (model, default_bos) = match vocab.model.as_str() {
            "gpt2" => {
                let bpe = Bpe::new(&vocab, &kinds, &ids)?;
                let bos = bpe.default_bos();
                (Model::Bpe(Box::new(bpe)), bos)
            }
            "llama" => (Model::Spm(Box::new(Spm::new(&vocab, &kinds, &ids)?)), true),
            other => {
                return Err(ModelError::Unsupported(format!("tokenizer.ggml.model {other:?}")));
            }
        };
        let mut text = Vec::new();
        let mut ends = Vec::with_capacity(vocab.tokens.len());
        for (token, kind) in vocab.tokens.iter().zip(&kinds) {
            match (kind, &model) {
                (Kind::Control | Kind::Unknown, _) => {}
                (Kind::Byte(byte), _) => text.push(*byte),
                (Kind::UserDefined, Model::Spm(spm)) if spm.spells_literals() => {
                    text.extend_from_slice(token.replace(spm::SPACE, " ").as_bytes());
                }
                (Kind::UserDefined, _) => text.extend_from_slice(token.as_bytes()),
                (Kind::Normal | Kind::Unused, Model::Bpe(_)) => {
                    text.extend(bpe::token_bytes(token))
                }
                (Kind::Normal | Kind::Unused, Model::Spm(_)) => {
                    text.extend_from_slice(token.replace(spm::SPACE, " ").as_bytes());
                }
            }
            ends.push(text.len());
        }
        let mut end_tokens: Vec<u32> =
            [vocab.eos, vocab.eot, vocab.eom].into_iter().flatten().collect();
        end_tokens.extend(&vocab.ends);
        let named = END_TOKENS.iter().filter_map(|name| ids.get(*name).copied());
        end_tokens.extend(named.filter(|&id| kinds[id as usize] == Kind::Control));
        end_tokens.sort_unstable();
        end_tokens.dedup();
        let specials = Specials::new(&vocab, &kinds);
        // A token that text spells literally, spaces and all, would reach over seams.
        let literal = vocab.tokens.iter().zip(&kinds).filter(|(_, k)| **k == Kind::UserDefined);
        let seams = literal.into_iter().all(|(token, _)| !token.contains(' '))
            && match &model {
                Model::Bpe(_) => true,
                Model::Spm(spm) => spm.merges_words_apart(),
            };
        let add_bos = vocab.add_bos.unwrap_or(default_bos);
        Ok(Self {
            model,
            specials,
            pieces: vocab.tokens,
            ids,
            kinds,
            text,
            ends,
            bos: vocab.bos,
            add_bos,
            end_tokens,
            seams,
        })
    }

    /// Token ids of `text`, without BOS or EOS.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        self.run(text, special, &mut |id, _, _| ids.push(id));
        ids
    }

    /// As [`Self::encode`], with the bytes each token covers.
    pub fn encode_spans(&self, text: &str, special: Special) -> Vec<TokenSpan> {
        let mut spans = Vec::with_capacity(text.len() / 3);
        self.run(text, special, &mut |id, start, end| {
            let (start, end) = (text.floor_char_boundary(start), text.ceil_char_boundary(end));
            spans.push(TokenSpan { id, start, end });
        });
        spans
    }

    /// The first seam of ordinary `text` at or after byte `from`: a place where it may be cut, such that its tokens are those
    /// of the part before, and then those of the part after, counted by [`Self::count_rest`]. It lies between a letter,
    /// digit or mark and a space before a letter; all rules of words agree on those.
    pub fn seam(&self, text: &str, from: usize) -> Option<usize> {
        if !self.seams {
            return None;
        }
        let bytes = text.as_bytes();
        let ends = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b',' | b';' | b'?' | b'!')
        };
        let seam = |at: &usize| {
            bytes[*at] == b' ' && ends(bytes[at - 1]) && bytes[at + 1].is_ascii_alphabetic()
        };
        (from.max(1)..bytes.len().saturating_sub(1)).find(seam)
    }

    /// Number of tokens of ordinary `text` that follows other text at a [seam](Self::seam).
    pub fn count_rest(&self, text: &str) -> usize {
        let mut count = 0;
        self.run_on(text, Special::Plain, false, &mut |_, _, _| count += 1);
        count
    }

    /// Number of tokens of ordinary `text`, as many as [`Self::encode`] gives.
    pub fn count(&self, text: &str) -> usize {
        let mut count = 0;
        self.run(text, Special::Plain, &mut |_, _, _| count += 1);
        count
    }

    fn run(&self, text: &str, special: Special, emit: &mut impl FnMut(u32, usize, usize)) {
        self.run_on(text, special, true, emit);
    }

    /// `begins`: nothing comes before `text`.
    fn run_on(
        &self,
        text: &str,
        special: Special,
        mut begins: bool,
        emit: &mut impl FnMut(u32, usize, usize),
    ) {
        let mut merger = Merger::default();
        for fragment in self.specials.partition(text, special == Special::Parse) {
            let special::Fragment { start, end, id } = fragment;
            if let Some(id) = id {
                emit(id, start, end);
            } else {
                let mut shifted = |id, from, to| emit(id, start + from, start + to);
                match &self.model {
                    Model::Bpe(bpe) => bpe.encode(&text[start..end], &mut shifted),
                    Model::Spm(spm) => {
                        spm.encode(&self.ids, &text[start..end], begins, &mut merger, &mut shifted)
                    }
                }
            }
            begins = id.is_some();
        }
    }

    /// BOS, if the file says prompts begin with it.
    pub fn prompt_bos(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// BOS, whether or not prompts begin with it.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Tokens that end a generation (EOS, end of turn).
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Whether `id` is a control token (not shown to users); the unknown token is one.
    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.kinds.get(id as usize), Some(Kind::Control | Kind::Unknown))
    }

    /// The bytes `id` stands for in running text: byte tokens are one byte, SPM's U+2581 is a space,
    /// control tokens and ids outside the vocabulary are empty. Incremental detokenising concatenates these.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.text[start..end]
    }

    /// The token as the file spells it.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(id as usize).map(String::as_str)
    }

    /// The id of the token the file spells `piece`.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    /// Text of `ids`: concatenated [`Self::bytes`], invalid UTF-8 replaced by U+FFFD; `control` shows control
    /// tokens as the file spells them.
    pub fn decode(&self, ids: &[u32], control: bool) -> String {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            match self.piece(id) {
                Some(piece) if control && self.is_control(id) => {
                    bytes.extend_from_slice(piece.as_bytes())
                }
                _ => bytes.extend_from_slice(self.bytes(id)),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Number of tokens.
    pub fn vocab(&self) -> usize {
        self.pieces.len()
    }
}
