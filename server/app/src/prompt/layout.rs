//! Where a template puts each message.

use pith_model::ChatTemplate;
use pith_model::template::Message;

use super::PromptError;

/// White space around each placeholder: a template that trims its messages trims this, and so shows that it does.
const PAD: &str = "\t\n\t";
/// Begins a placeholder. Private-use characters: no template spells them, and messages are never rendered.
const OPEN: char = '\u{E000}';
/// Ends it.
const CLOSE: char = '\u{E001}';

/// A piece of a rendered chat.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Written by the template.
    Literal(String),
    /// A message's content.
    Content {
        /// Which.
        message: usize,
        /// What the template does to its edges.
        trim: Trim,
    },
}

/// Which edges of a message the template trims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Trim {
    start: bool,
    end: bool,
}

impl Trim {
    pub(super) fn apply(self, content: &str) -> &str {
        let content = if self.start { content.trim_start() } else { content };
        if self.end { content.trim_end() } else { content }
    }
}

/// A rendered chat with its messages cut out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) pieces: Vec<Piece>,
}

impl Layout {
    /// What `template` makes of `messages`, the assistant's turn opened.
    pub(super) fn of_template(
        template: &ChatTemplate,
        messages: &[Message],
    ) -> Result<Self, PromptError> {
        let placeholder = |(index, message): (usize, &Message)| Message {
            role: message.role.clone(),
            content: format!("{PAD}{OPEN}{index}{CLOSE}{PAD}"),
        };
        let placeholders: Vec<Message> = messages.iter().enumerate().map(placeholder).collect();
        let rendered = template.render(&placeholders, true)?;
        let layout = Self::cut(&rendered);
        for message in 0..messages.len() {
            let found = |piece: &&Piece| matches!(piece, Piece::Content { message: found, .. } if *found == message);
            if layout.pieces.iter().filter(found).count() != 1 {
                return Err(PromptError::Altered(message));
            }
        }
        Ok(layout)
    }

    /// Cuts at the placeholders.
    fn cut(rendered: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = rendered;
        while let Some((before, after)) = rest.split_once(OPEN) {
            let Some((index, after)) = after.split_once(CLOSE) else { break };
            let Ok(message) = index.parse() else { break };
            let (literal, start) =
                before.strip_suffix(PAD).map_or((before, true), |literal| (literal, false));
            let (after, end) =
                after.strip_prefix(PAD).map_or((after, true), |after| (after, false));
            pieces.push(Piece::Literal(literal.to_owned()));
            pieces.push(Piece::Content { message, trim: Trim { start, end } });
            rest = after;
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        Self { pieces }
    }

    /// The format for models without a template (base models, which continue text): system messages as paragraphs,
    /// the user's after `Question: `, the model's after `Answer: `, a blank line after each, and
    /// `Answer:` at the end.
    pub(super) fn plain(messages: &[Message]) -> Self {
        let mut pieces = Vec::new();
        for (message, Message { role, .. }) in messages.iter().enumerate() {
            let label = match role.as_str() {
                "system" => "",
                "assistant" => "Answer: ",
                _ => "Question: ",
            };
            pieces.push(Piece::Literal(label.to_owned()));
            pieces.push(Piece::Content { message, trim: Trim { start: true, end: true } });
            pieces.push(Piece::Literal("\n\n".to_owned()));
        }
        pieces.push(Piece::Literal("Answer:".to_owned()));
        Self { pieces }
    }
}
