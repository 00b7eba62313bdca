//! The final prompt: question, documents and chat template become token ids.
//!
//! A [`Frame`] is everything of a prompt but the packed documents. It is made once per request; the context stage then
//! asks it how many tokens the prompt has with this or that context in it, and the last answer is the
//! prompt itself: one code path, so that counts are exact.
//!
//! Nothing a caller sends can spell a control token. The template is rendered with placeholders instead of the
//! messages, only what the template itself wrote is searched for control tokens, and everything between two of
//! them (the template's words and the caller's, joined) is encoded as ordinary text.

use pith_model::template::{Message, TemplateError};
use pith_model::tokenizer::Special;
use pith_model::{ModelFile, Tokenizer};

mod layout;
mod spans;

use layout::{Layout, Piece};
pub use spans::SpanMap;

/// Before the documents: short, because small models follow short instructions best and every
/// token of it is paid by every request.
const GROUNDING: &str = "Answer the question from the text below.\n\n";
/// Between the documents and the question.
const QUESTION: &str = "\n\nQuestion: ";

/// Why a prompt cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The template failed.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The template dropped a message or repeated it, so that what the model would read is not what was sent.
    #[error("the model's chat template does not pass on message {0} exactly once")]
    Altered(usize),
}

/// What a prompt is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The prompt itself, without a template.
    Raw {
        /// The whole of it.
        text: String,
        /// Whether control tokens spelled in it become those tokens.
        parse_control: bool,
    },
    /// Turns of a chat; the last is the user's.
    Chat(Vec<Message>),
}

/// A stretch of the prompt that is encoded at once.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// One token that the template spelled.
    Control(u32),
    /// Ordinary text.
    Text(String),
    /// Ordinary text with the documents between its two halves.
    Grounded(String, String),
}

/// A prompt with a place left for the context.
#[derive(Debug)]
pub struct Frame<'a> {
    tokenizer: &'a Tokenizer,
    parts: Vec<Part>,
    special: Special,
}

/// A prompt ready for the engine.
#[derive(Debug)]
pub struct Encoded {
    /// Token ids, BOS included where the model wants one.
    pub tokens: Vec<u32>,
    /// Which bytes of the context each of its tokens stands for.
    pub context: Vec<ContextToken>,
}

/// A prompt token that stands for bytes of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextToken {
    /// Its place in the prompt.
    pub index: usize,
    /// First byte of the context; clipped to it.
    pub start: usize,
    /// Past its last byte.
    pub end: usize,
}

impl<'a> Frame<'a> {
    /// The frame of `input` for the model of `file`. With `grounded`, the last message is a question about documents,
    /// which will stand before it; a raw prompt has no place for any.
    ///
    /// # Errors
    /// [`PromptError`] if the model's template fails or alters a message.
    pub fn new(file: &'a ModelFile, input: &Input, grounded: bool) -> Result<Self, PromptError> {
        let tokenizer = file.tokenizer();
        let messages = match input {
            Input::Raw { text, parse_control } => {
                let special = if *parse_control { Special::Parse } else { Special::Plain };
                let parts = bos(tokenizer, Some(text))
                    .into_iter()
                    .chain([Part::Text(text.clone())])
                    .collect();
                return Ok(Self { tokenizer, parts, special });
            }
            Input::Chat(messages) => messages,
        };
        let layout = match file.template() {
            Some(template) => Layout::of_template(template, messages)?,
            None => Layout::plain(messages),
        };
        let mut parts = Vec::new();
        for piece in &layout.pieces {
            match piece {
                Piece::Literal(text) => push_literal(&mut parts, tokenizer, text),
                Piece::Content { message, trim } => {
                    let content = trim.apply(&messages[*message].content);
                    if grounded && *message + 1 == messages.len() {
                        push_text(&mut parts, GROUNDING);
                        ground(&mut parts);
                        push_text(&mut parts, QUESTION);
                    }
                    push_text(&mut parts, content);
                }
            }
        }
        if !matches!(parts.first(), Some(Part::Control(id)) if Some(*id) == tokenizer.prompt_bos())
        {
            parts.splice(0..0, bos(tokenizer, None));
        }
        Ok(Self { tokenizer, parts, special: Special::Plain })
    }

    /// Tokens of the prompt with `context` in it.
    #[must_use]
    pub fn count(&self, context: &str) -> usize {
        let tokens = |part: &Part| match part {
            Part::Control(_) => 1,
            Part::Text(text) => self.tokenizer.encode(text, self.special).len(),
            Part::Grounded(before, after) => {
                self.tokenizer.encode(&[before, context, after].concat(), self.special).len()
            }
        };
        self.parts.iter().map(tokens).sum()
    }

    /// The prompt with `context` in it: as many tokens as [`Self::count`] says.
    #[must_use]
    pub fn encode(&self, context: &str) -> Encoded {
        let mut encoded = Encoded { tokens: Vec::new(), context: Vec::new() };
        for part in &self.parts {
            match part {
                Part::Control(id) => encoded.tokens.push(*id),
                Part::Text(text) => {
                    encoded.tokens.extend(self.tokenizer.encode(text, self.special))
                }
                Part::Grounded(before, after) => {
                    let text = [before, context, after].concat();
                    let (first, last) = (before.len(), before.len() + context.len());
                    for span in self.tokenizer.encode_spans(&text, self.special) {
                        let (start, end) = (span.start.max(first), span.end.min(last));
                        if start < end {
                            let index = encoded.tokens.len();
                            encoded.context.push(ContextToken {
                                index,
                                start: start - first,
                                end: end - first,
                            });
                        }
                        encoded.tokens.push(span.id);
                    }
                }
            }
        }
        encoded
    }

    /// Tokens of `text` by itself.
    #[must_use]
    pub fn count_alone(&self, text: &str) -> usize {
        self.tokenizer.encode(text, Special::Plain).len()
    }
}

/// The token prompts begin with, unless `text` spells it already.
fn bos(tokenizer: &Tokenizer, text: Option<&str>) -> Option<Part> {
    let id = tokenizer.prompt_bos()?;
    let spelled =
        text.zip(tokenizer.piece(id)).is_some_and(|(text, piece)| text.starts_with(piece));
    (!spelled).then_some(Part::Control(id))
}

/// Text the template wrote: control tokens it spells become such, the rest joins its neighbours.
fn push_literal(parts: &mut Vec<Part>, tokenizer: &Tokenizer, text: &str) {
    let mut done = 0;
    for span in tokenizer.encode_spans(text, Special::Parse) {
        if tokenizer.is_control(span.id) && span.end > span.start {
            push_text(parts, &text[done..span.start]);
            parts.push(Part::Control(span.id));
            done = span.end;
        }
    }
    push_text(parts, &text[done..]);
}

/// Ordinary text, encoded together with the ordinary text before it: tokens merge across the joint just as they do in
/// a prompt rendered in one piece.
fn push_text(parts: &mut Vec<Part>, text: &str) {
    if text.is_empty() {
        return;
    }
    match parts.last_mut() {
        Some(Part::Text(before) | Part::Grounded(_, before)) => before.push_str(text),
        Some(Part::Control(_)) | None => parts.push(Part::Text(text.to_owned())),
    }
}

/// Leaves a place for the context.
fn ground(parts: &mut Vec<Part>) {
    let before = match parts.last_mut() {
        Some(Part::Text(before)) => std::mem::take(before),
        _ => String::new(),
    };
    if matches!(parts.last(), Some(Part::Text(_))) {
        parts.pop();
    }
    parts.push(Part::Grounded(before, String::new()));
}
