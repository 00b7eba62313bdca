//! What is asked: prompts of an exact length, or those of a file.
//!
//! The contract takes text, so prompts of so many tokens are made with the server's own tokenizer: tokens by chance
//! become text, the text becomes tokens with their places, and it is cut where the last one wanted ends. Some
//! cuts make the text's end tokenise in another way; then chance gets another try. What a prompt came to in the end is the
//! server's to say (`usage`).

use std::path::Path;

use pith_client::{Client, v1};

use super::drive::Ask;
use crate::commands::Failure;
use crate::commands::progress;
use crate::commands::random::Random;

mod file;

/// Tries to make a text of exactly so many tokens before the nearest is taken.
const TRIES: usize = 8;
/// Most ids the server turns into text at once.
const MOST_IDS: usize = 1 << 16;

/// Which prompts.
#[derive(Debug, Clone)]
pub(super) enum Set {
    /// Each different from its first token on.
    Random,
    /// Each begins with the same so many tokens.
    SharedPrefix { tokens: u32 },
    /// Those of a file, again from its start when they run out.
    File(Vec<file::Line>),
}

impl Set {
    /// Reads `path` for the third kind.
    pub(super) fn of_file(path: &Path) -> Result<Self, Failure> {
        file::read(path).map(Self::File)
    }
}

/// What all requests of a run have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) model: String,
    /// Of each prompt, after the shared prefix if there is one.
    pub(super) prompt_tokens: u32,
    pub(super) output_tokens: u32,
    /// Go on past the model's end tokens, so that every answer has `output_tokens`.
    pub(super) ignore_end: bool,
    pub(super) prefix_cache: bool,
}

/// Makes `count` requests. Those of other `random` differ, except for a file's.
pub(super) async fn asks(
    client: &Client,
    vocab: u32,
    set: &Set,
    common: &Common,
    count: usize,
    random: &mut Random,
) -> Result<Vec<Ask>, Failure> {
    let bar = progress::bar("prompts", count as u64);
    let mut writer = Writer { client, model: &common.model, vocab, random };
    let wanted = common.prompt_tokens as usize;
    let (prefix, length) = match set {
        Set::File(lines) => {
            let lines = lines.iter().cycle().take(count);
            return Ok(lines.map(|line| common.line(line)).collect());
        }
        Set::Random => (String::new(), wanted),
        Set::SharedPrefix { tokens } => {
            let prefix = writer.text("", *tokens as usize).await?;
            (prefix, wanted + *tokens as usize)
        }
    };
    let mut asks = Vec::with_capacity(count);
    for _ in 0..count {
        asks.push(common.raw(writer.text(&prefix, length).await?));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(asks)
}

impl Common {
    /// A prompt that goes to the model as it stands: a chat template would add tokens.
    fn raw(&self, prompt: String) -> Ask {
        Ask::Generate(v1::GenerateRequest { raw: true, ..self.generate(prompt) })
    }

    fn generate(&self, prompt: String) -> v1::GenerateRequest {
        v1::GenerateRequest {
            model: self.model.clone(),
            prompt,
            stop: Some(self.stop()),
            no_prefix_cache: !self.prefix_cache,
            ..Default::default()
        }
    }

    fn line(&self, line: &file::Line) -> Ask {
        match line {
            file::Line::Prompt(prompt) => Ask::Generate(self.generate(prompt.clone())),
            file::Line::Messages(messages) => Ask::Chat(v1::ChatRequest {
                model: self.model.clone(),
                messages: messages.clone(),
                stop: Some(self.stop()),
                no_prefix_cache: !self.prefix_cache,
                ..Default::default()
            }),
        }
    }

    fn stop(&self) -> v1::StopConditions {
        v1::StopConditions {
            max_tokens: Some(self.output_tokens),
            ignore_end: self.ignore_end,
            ..Default::default()
        }
    }
}

/// Writes texts of so many tokens.
struct Writer<'a> {
    client: &'a Client,
    model: &'a str,
    vocab: u32,
    random: &'a mut Random,
}

impl Writer<'_> {
    /// A text of `tokens` tokens, BOS included where the model's prompts have one, that begins with `prefix`.
    async fn text(&mut self, prefix: &str, tokens: usize) -> Result<String, Failure> {
        let mut nearest: Option<(usize, String)> = None;
        for _ in 0..TRIES {
            let text = self.cut(prefix, tokens).await?;
            let off = self.tokenize(&text, false).await?.token_ids.len().abs_diff(tokens);
            if nearest.as_ref().is_none_or(|(least, _)| off < *least) {
                nearest = Some((off, text));
            }
            if off == 0 {
                break;
            }
        }
        Ok(nearest.map_or_else(String::new, |(_, text)| text))
    }

    /// As [`Self::text`], should the cut leave the tokens before it as they are.
    async fn cut(&mut self, prefix: &str, tokens: usize) -> Result<String, Failure> {
        let mut text = prefix.to_owned();
        loop {
            let spans = self.tokenize(&text, true).await?.spans;
            if let Some(last) = spans.get(tokens.saturating_sub(1))
                && spans.len() > tokens
            {
                // No prompt is empty, whatever is asked for.
                let end = usize::try_from(last.end).unwrap_or(usize::MAX).max(1);
                text.truncate(text.floor_char_boundary(end));
                return Ok(text);
            }
            let before = text.len();
            text.push_str(&self.noise(tokens + 1 - spans.len().min(tokens)).await?);
            if text.len() == before {
                return Err(Failure::new(
                    "the model's vocabulary has no plain text to make prompts of",
                )
                .hint("use --prompts file"));
            }
        }
    }

    /// Text of about `tokens` tokens by chance. Only printable ASCII is kept: halves of characters, control tokens and
    /// blank lines would not come back from the tokenizer as they went in.
    async fn noise(&mut self, tokens: usize) -> Result<String, Failure> {
        // Some more: joined to text and taken apart again, tokens become fewer.
        let count = (tokens + tokens / 4 + 16).min(MOST_IDS);
        let token_ids = (0..count).map(|_| self.random.below(self.vocab)).collect();
        let request = v1::DetokenizeRequest {
            model: self.model.to_owned(),
            token_ids,
            show_control_tokens: false,
        };
        let mut text = self.client.detokenize(request).await?.text;
        text.retain(|c| c == ' ' || c.is_ascii_graphic());
        Ok(text)
    }

    async fn tokenize(&self, text: &str, spans: bool) -> Result<v1::TokenizeResponse, Failure> {
        let request = v1::TokenizeRequest {
            model: self.model.to_owned(),
            text: text.to_owned(),
            parse_control_tokens: false,
            add_bos: true,
            with_spans: spans,
            offset_unit: v1::OffsetUnit::Utf8Byte.into(),
        };
        Ok(self.client.tokenize(request).await?)
    }
}
