//! The final prompt: question, documents and chat template become token ids.
//!
//! A [`Frame`] is everything of a prompt but the packed documents. It is made once per request; the context stage then
//! asks it how many tokens the prompt has with this or that context in it, and the last answer is the
//! prompt itself: one code path, so that counts are exact. A context may stand before any message of a chat: before the
//! last one as a rule, before earlier ones too where what was sent with them stays where it was.
//!
//! Nothing a caller sends can spell a control token. The template is rendered with placeholders instead of the
//! messages, only what the template itself wrote is searched for control tokens, and everything between two of
//! them (the template's words and the caller's, joined) is encoded as ordinary text.

use pith_model::template::{Message, TemplateError};
use pith_model::tokenizer::{Special, TokenSpan};
use pith_model::{ModelFile, Tokenizer};

mod counts;
mod layout;
mod spans;
mod stretch;

pub use counts::{Counting, SentenceCounts, TokenCounts};
use layout::{Layout, Piece};
pub use spans::{SpanMap, Standing};
use stretch::Stretch;

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

/// A context and the message before which it stands, with the words that introduce it and the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed<'a> {
    /// Index of the message.
    pub message: usize,
    /// The context. If it is empty, the words are there without it.
    pub text: &'a str,
}

/// What a prompt is made of.
#[derive(Debug)]
enum Part {
    /// One token that the template spelled.
    Control(u32),
    /// Ordinary text, encoded at once.
    Text(Stretch),
}

/// A prompt with a place left for a context before each message.
#[derive(Debug)]
pub struct Frame<'a> {
    tokenizer: &'a Tokenizer,
    parts: Vec<Part>,
    special: Special,
    counting: Option<Counting<'a>>,
    sentences: SentenceCounts,
}

/// A prompt ready for the engine.
#[derive(Debug)]
pub struct Encoded {
    /// Token ids, BOS included where the model wants one.
    pub tokens: Vec<u32>,
    /// Which bytes of the contexts each of their tokens stands for, by message and place.
    pub context: Vec<ContextToken>,
}

/// A prompt token that stands for bytes of a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextToken {
    /// The message before which the context stands.
    pub message: usize,
    /// Its place in the prompt.
    pub index: usize,
    /// First byte of the context; clipped to it.
    pub start: usize,
    /// Past its last byte.
    pub end: usize,
}

impl<'a> Frame<'a> {
    /// The frame of `input` for the model of `file`. A raw prompt has no place for a context.
    ///
    /// # Errors
    /// [`PromptError`] if the model's template fails or alters a message.
    pub fn new(file: &'a ModelFile, input: &Input) -> Result<Self, PromptError> {
        let tokenizer = file.tokenizer();
        let messages = match input {
            Input::Raw { text, parse_control } => {
                let special = if *parse_control { Special::Parse } else { Special::Plain };
                let bos = bos(tokenizer, Some(text)).into_iter();
                let parts = bos.chain([Part::Text(Stretch::of(text))]);
                return Ok(Self::of(tokenizer, parts.collect(), special));
            }
            Input::Chat(messages) => messages,
        };
        let layout = match file.template() {
            Some(template) => Layout::of_template(template, messages)?,
            None => Layout::plain(messages),
        };
        let mut assembly = Assembly { tokenizer, parts: Vec::new(), open: Stretch::default() };
        for piece in &layout.pieces {
            match piece {
                Piece::Literal(text) => assembly.push_literal(text),
                Piece::Content { message, trim } => {
                    assembly.open.push_place(*message);
                    assembly.open.push(trim.apply(&messages[*message].content));
                }
            }
        }
        let mut parts = assembly.close();
        if !matches!(parts.first(), Some(Part::Control(id)) if Some(*id) == tokenizer.prompt_bos())
        {
            parts.splice(0..0, bos(tokenizer, None));
        }
        Ok(Self::of(tokenizer, parts, Special::Plain))
    }

    fn of(tokenizer: &'a Tokenizer, parts: Vec<Part>, special: Special) -> Self {
        let sentences = SentenceCounts::default();
        Self { tokenizer, parts, special, counting: None, sentences }
    }

    /// Keeps counts of long texts in `counting`, and uses those that are there.
    #[must_use]
    pub fn counting(self, counting: Counting<'a>) -> Self {
        Self { counting: Some(counting), ..self }
    }

    /// Tokens of the prompt with `contexts` in it, at most one for a message.
    #[must_use]
    pub fn count(&self, contexts: &[Placed<'_>]) -> usize {
        let tokens = |part: &Part| match part {
            Part::Control(_) => 1,
            Part::Text(stretch) => {
                stretch.count(contexts, |text| match (&self.counting, self.special) {
                    (Some(counting), Special::Plain) => {
                        counting.count(self.tokenizer, text, &self.sentences)
                    }
                    _ => self.tokenizer.encode(text, self.special).len(),
                })
            }
        };
        self.parts.iter().map(tokens).sum()
    }

    /// The prompt with `contexts` in it: as many tokens as [`Self::count`] says.
    #[must_use]
    pub fn encode(&self, contexts: &[Placed<'_>]) -> Encoded {
        let mut encoded = Encoded { tokens: Vec::new(), context: Vec::new() };
        for part in &self.parts {
            match part {
                Part::Control(id) => encoded.tokens.push(*id),
                Part::Text(stretch) => {
                    let (text, places) = stretch.render(contexts);
                    if places.is_empty() {
                        encoded.tokens.extend(self.tokenizer.encode(&text, self.special));
                        continue;
                    }
                    let first = encoded.tokens.len();
                    let spans = self.tokenizer.encode_spans(&text, self.special);
                    for (message, place) in places {
                        // Tokens are in the order of the text; those of a context stand together.
                        let from = spans.partition_point(|span| span.end <= place.start);
                        let inside = spans[from..].iter().take_while(|span| span.start < place.end);
                        let token = |(at, span): (usize, &TokenSpan)| ContextToken {
                            message,
                            index: first + from + at,
                            start: span.start.max(place.start) - place.start,
                            end: span.end.min(place.end) - place.start,
                        };
                        let tokens = inside.enumerate().map(token);
                        encoded.context.extend(tokens.filter(|token| token.start < token.end));
                    }
                    encoded.tokens.extend(spans.iter().map(|span| span.id));
                }
            }
        }
        // Templates may put messages in any order.
        encoded.context.sort_by_key(|token| token.message);
        encoded
    }

    /// Tokens of `text` by itself.
    #[must_use]
    pub fn count_alone(&self, text: &str) -> usize {
        match &self.counting {
            Some(counting) => counting.count_alone(self.tokenizer, text),
            None => self.tokenizer.count(text),
        }
    }
}

/// The token prompts begin with, unless `text` spells it already.
fn bos(tokenizer: &Tokenizer, text: Option<&str>) -> Option<Part> {
    let id = tokenizer.prompt_bos()?;
    let spelled =
        text.zip(tokenizer.piece(id)).is_some_and(|(text, piece)| text.starts_with(piece));
    (!spelled).then_some(Part::Control(id))
}

/// A prompt in the making.
struct Assembly<'a> {
    tokenizer: &'a Tokenizer,
    parts: Vec<Part>,
    /// Ordinary text at the end. What is pushed joins it: tokens merge across the joint just as they do in a prompt
    /// rendered in one piece.
    open: Stretch,
}

impl Assembly<'_> {
    /// Text the template wrote: control tokens it spells become such, the rest joins its neighbours.
    fn push_literal(&mut self, text: &str) {
        let mut done = 0;
        for span in self.tokenizer.encode_spans(text, Special::Parse) {
            if self.tokenizer.is_control(span.id) && span.end > span.start {
                self.open.push(&text[done..span.start]);
                self.end_stretch();
                self.parts.push(Part::Control(span.id));
                done = span.end;
            }
        }
        self.open.push(&text[done..]);
    }

    fn end_stretch(&mut self) {
        let stretch = std::mem::take(&mut self.open);
        if !stretch.is_empty() {
            self.parts.push(Part::Text(stretch));
        }
    }

    fn close(mut self) -> Vec<Part> {
        self.end_stretch();
        self.parts
    }
}
