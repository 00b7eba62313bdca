//! Chat templates: minijinja, bounded in time, memory and output.
//!
//! A template comes with the model file and is believed no more than the rest of it. Instructions
//! are bounded by minijinja's fuel; what they make and go through by `meter`, for which `guard`
//! rewrites the template; what is written by `output`.

mod clock;
mod functions;
mod guard;
mod json;
mod meter;
mod output;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use meter::Meter;
use output::BoundedOutput;

/// Longest template, bytes; the longest known (tool use spelled out) take some 20 KiB.
const MAX_SOURCE: usize = 256 << 10;
/// Instructions for a rendering without messages.
const FUEL: u64 = 100_000;
/// Instructions for each message: the longest known templates take a few hundred.
const FUEL_PER_MESSAGE: u64 = 4_000;
/// Depth of macros and loops inside each other. Native stack grows with it.
const MAX_RECURSION: usize = 64;
const TEMPLATE: &str = "chat";

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
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: Arc<str>,
    eos: Arc<str>,
}

impl ChatTemplate {
    /// Compiles `source`; `bos` and `eos` are offered to it as `bos_token` and `eos_token`.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        Self::with_clock(source, bos, eos, SystemTime::now)
    }

    /// As [`Self::new`]; `strftime_now` tells the time of `clock`, in UTC.
    pub fn with_clock(
        source: &str,
        bos: &str,
        eos: &str,
        clock: fn() -> SystemTime,
    ) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE {
            return Err(TemplateError::Limit("source"));
        }
        // As transformers compiles them: a block tag takes its line's indentation and line end
        // with it, the template's last newline is dropped.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|error| TemplateError::Syntax(error.to_string()))?;
        let guarded = guard::guarded(source, syntax)?;
        let mut environment = Environment::new();
        environment.set_debug(false);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_recursion_limit(MAX_RECURSION);
        functions::add(&mut environment, clock);
        environment
            .add_template_owned(TEMPLATE, guarded)
            .map_err(|error| TemplateError::Syntax(error.to_string()))?;
        Ok(Self { environment, bos: bos.into(), eos: eos.into() })
    }

    /// The prompt for `messages`; `add_generation_prompt` opens the assistant's turn. Output is at most
    /// 4 MiB more than four times the messages' bytes; fuel grows with the messages.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let mut environment = self.environment.clone();
        let per_message = FUEL_PER_MESSAGE.saturating_mul(messages.len() as u64);
        environment.set_fuel(Some(FUEL.saturating_add(per_message).min(i64::MAX as u64)));
        let meter = Meter::for_messages(messages);
        meter::add(&mut environment, &meter);
        functions::add_metered(&mut environment, &meter);
        let mut output = BoundedOutput::for_messages(messages);
        let rendered = environment.get_template(TEMPLATE).and_then(|template| {
            template
                .render_captured_to(self.variables(messages, add_generation_prompt), &mut output)
        });
        match rendered {
            Ok(_) => output.into_text(),
            Err(_) if output.overflowed() => Err(TemplateError::Limit("output")),
            Err(error) => Err(refusal(&error)),
        }
    }

    fn variables(&self, messages: &[Message], add_generation_prompt: bool) -> Value {
        let message = |message: &Message| {
            Value::from_pairs([
                ("role", Value::from(message.role.as_str())),
                ("content", Value::from(message.content.as_str())),
            ])
        };
        Value::from_pairs([
            ("messages", messages.iter().map(message).collect::<Value>()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("bos_token", Value::from(self.bos.clone())),
            ("eos_token", Value::from(self.eos.clone())),
        ])
    }
}

/// Bytes the messages say.
fn said(messages: &[Message]) -> usize {
    let said = messages.iter().map(|message| message.role.len() + message.content.len());
    said.fold(0, usize::saturating_add)
}

/// What a failed rendering means to the caller.
fn refusal(error: &Error) -> TemplateError {
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::Limit("time");
    }
    match error.detail() {
        Some(detail) => TemplateError::Refused(detail.to_owned()),
        None => TemplateError::Refused(error.to_string()),
    }
}
