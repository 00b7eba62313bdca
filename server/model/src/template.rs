//! Chat templates: minijinja, bounded in time and output.

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant` (others as the template allows).
    pub role: String,
    /// Text.
    pub content: String,
}

/// Why a template could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// It does not parse.
    #[error("the chat template does not parse: {0}")]
    Syntax(String),
    /// It refused the messages (`raise_exception`, an undefined value).
    #[error("the chat template refused the messages: {0}")]
    Refused(String),
    /// It ran too long or wrote too much.
    #[error("the chat template exceeded its {0} limit")]
    Limit(&'static str),
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {}

impl ChatTemplate {
    /// Compiles `source`; `bos` and `eos` are offered to it as `bos_token` and `eos_token`.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> { unimplemented!() }
    /// The prompt for `messages`; `add_generation_prompt` opens the assistant's turn. Output is at most
    /// 4 MiB more than four times the messages' bytes; fuel grows with the messages.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TemplateError> { unimplemented!() }
}
