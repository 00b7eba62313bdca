//! Messages become checked values. Every bound of a request stands here, those of documents and what may be done to them in
//! `documents` and `policy`.
//!
//! What depends on the model (vocabulary, context) or is the engine's to know is checked where it is known; the table
//! in `status` makes one kind of error of all.

use pith_engine::request::SamplingParams;
use pith_model::template::Message;
use pith_proto::v1;
use pith_proto::v1::OffsetUnit;

use super::status::ApiError;
use crate::prompt::Input;

mod documents;
mod policy;

pub(super) use documents::{Sources, metadata, sources, title};
pub(super) use policy::not_sticky;

const MAX_ID_BYTES: usize = 128;
const MAX_MESSAGES: usize = 1024;
const MAX_QUERY_BYTES: usize = 65_536;
const MAX_STOP_STRINGS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
const MAX_STOP_TOKENS: usize = 64;
const MAX_LOGIT_BIASES: usize = 1024;
const MAX_DETOKENIZE: usize = 1 << 20;

/// What to generate, whoever asked and however.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request_id: String,
    pub(super) model: String,
    pub(super) input: Input,
    pub(super) sources: Sources,
    pub(super) sampling: SamplingParams,
    pub(super) stop: Stop,
    pub(super) output: Output,
    pub(super) dry_run: bool,
    pub(super) prefix_cache: bool,
}

/// [`pith_engine::request::StopConditions`] before the prompt's length is known.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) max_tokens: Option<u32>,
    pub(super) min_tokens: u32,
    pub(super) strings: Vec<String>,
    pub(super) tokens: Vec<u32>,
    pub(super) ignore_end: bool,
}

/// What comes back beside the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) unit: OffsetUnit,
    pub(super) cite: bool,
    pub(super) logprobs: bool,
    pub(super) extracted_text: bool,
}

pub(super) fn generate(request: v1::GenerateRequest) -> Result<Job, ApiError> {
    not_empty("prompt", &request.prompt)?;
    if request.raw && !request.documents.is_empty() {
        return Err(ApiError::field(
            "documents",
            "a raw prompt takes none: it goes to the model as it stands",
        ));
    }
    if request.parse_control_tokens && !request.raw {
        return Err(ApiError::field(
            "parse_control_tokens",
            "only a raw prompt may spell control tokens",
        ));
    }
    let output = output(request.output.unwrap_or_default())?;
    not_sticky(request.policy.as_ref())?;
    Ok(Job {
        request_id: request_id(request.request_id)?,
        model: request.model,
        sources: sources(request.documents, request.policy, &request.prompt)?,
        input: if request.raw {
            Input::Raw { text: request.prompt, parse_control: request.parse_control_tokens }
        } else {
            Input::Chat(vec![Message { role: "user".to_owned(), content: request.prompt }])
        },
        sampling: sampling(request.sampling.unwrap_or_default())?,
        stop: stop(request.stop.unwrap_or_default())?,
        output,
        dry_run: request.dry_run,
        prefix_cache: !request.no_prefix_cache,
    })
}

pub(super) fn chat(request: v1::ChatRequest) -> Result<Job, ApiError> {
    let messages = messages(request.messages)?;
    let question = messages.last().map_or("", |message| &message.content);
    let output = output(request.output.unwrap_or_default())?;
    Ok(Job {
        request_id: request_id(request.request_id)?,
        model: request.model,
        sources: sources(request.documents, request.policy, question)?,
        input: Input::Chat(messages),
        sampling: sampling(request.sampling.unwrap_or_default())?,
        stop: stop(request.stop.unwrap_or_default())?,
        output,
        dry_run: request.dry_run,
        prefix_cache: !request.no_prefix_cache,
    })
}

fn messages(messages: Vec<v1::ChatMessage>) -> Result<Vec<Message>, ApiError> {
    if !(1..=MAX_MESSAGES).contains(&messages.len()) {
        return Err(ApiError::field("messages", format!("must be 1 to {MAX_MESSAGES}")));
    }
    let last = messages.len() - 1;
    let checked = |(index, message): (usize, v1::ChatMessage)| {
        let wrong = |field: &str, reason: &'static str| {
            ApiError::field(format!("messages[{index}].{field}"), reason)
        };
        if message.content.trim().is_empty() {
            return Err(wrong("content", "must not be blank"));
        }
        let role = match message.role() {
            v1::Role::System if index == 0 && last > 0 => "system",
            v1::Role::User => "user",
            v1::Role::Assistant if index < last => "assistant",
            v1::Role::System => {
                return Err(wrong("role", "SYSTEM may only come first, and not alone"));
            }
            v1::Role::Assistant => {
                return Err(wrong("role", "the last message must be the user's"));
            }
            v1::Role::Unspecified => {
                return Err(wrong("role", "must be SYSTEM, USER or ASSISTANT"));
            }
        };
        Ok(Message { role: role.to_owned(), content: message.content })
    };
    messages.into_iter().enumerate().map(checked).collect()
}

fn sampling(params: v1::SamplingParams) -> Result<SamplingParams, ApiError> {
    let within =
        |field: &'static str, value: Option<f32>, default: f32, low: f32, high: f32| match value {
            None => Ok(default),
            // NaN is in no range.
            Some(value) if (low..=high).contains(&value) => Ok(value),
            Some(value) => {
                Err(ApiError::field(field, format!("is {value}; it must be {low} to {high}")))
            }
        };
    let above_zero = |field: &'static str, value: Option<f32>, high: f32| match value {
        None => Ok(1.0),
        Some(value) if value > 0.0 && value <= high => Ok(value),
        Some(value) => Err(ApiError::field(
            field,
            format!("is {value}; it must be above 0 and at most {high}"),
        )),
    };
    if params.logit_bias.len() > MAX_LOGIT_BIASES {
        return Err(ApiError::field(
            "sampling.logit_bias",
            format!("must have at most {MAX_LOGIT_BIASES} entries"),
        ));
    }
    let mut logit_bias = Vec::with_capacity(params.logit_bias.len());
    for (&token, &bias) in &params.logit_bias {
        logit_bias.push((token, within("sampling.logit_bias", Some(bias), 0.0, -100.0, 100.0)?));
    }
    // Maps have no order, and the same request must do the same sums.
    logit_bias.sort_unstable_by_key(|&(token, _)| token);
    Ok(SamplingParams {
        temperature: within("sampling.temperature", params.temperature, 0.0, 0.0, 100.0)?,
        top_k: params.top_k.unwrap_or(0),
        top_p: above_zero("sampling.top_p", params.top_p, 1.0)?,
        min_p: within("sampling.min_p", params.min_p, 0.0, 0.0, 1.0)?,
        repetition_penalty: above_zero(
            "sampling.repetition_penalty",
            params.repetition_penalty,
            10.0,
        )?,
        frequency_penalty: within(
            "sampling.frequency_penalty",
            params.frequency_penalty,
            0.0,
            -2.0,
            2.0,
        )?,
        presence_penalty: within(
            "sampling.presence_penalty",
            params.presence_penalty,
            0.0,
            -2.0,
            2.0,
        )?,
        seed: params.seed,
        logit_bias,
    })
}

fn stop(stop: v1::StopConditions) -> Result<Stop, ApiError> {
    if stop.max_tokens == Some(0) {
        return Err(ApiError::field("stop.max_tokens", "must be at least 1"));
    }
    if stop.max_tokens.is_some_and(|max| stop.min_tokens.unwrap_or(0) > max) {
        return Err(ApiError::field("stop.min_tokens", "must be at most max_tokens"));
    }
    if stop.strings.len() > MAX_STOP_STRINGS {
        return Err(ApiError::field("stop.strings", format!("must be at most {MAX_STOP_STRINGS}")));
    }
    for (index, text) in stop.strings.iter().enumerate() {
        if !(1..=MAX_STOP_BYTES).contains(&text.len()) {
            let field = format!("stop.strings[{index}]");
            return Err(ApiError::field(field, format!("must have 1 to {MAX_STOP_BYTES} bytes")));
        }
    }
    if stop.token_ids.len() > MAX_STOP_TOKENS {
        return Err(ApiError::field(
            "stop.token_ids",
            format!("must be at most {MAX_STOP_TOKENS}"),
        ));
    }
    Ok(Stop {
        max_tokens: stop.max_tokens,
        min_tokens: stop.min_tokens.unwrap_or(0),
        strings: stop.strings,
        tokens: stop.token_ids,
        ignore_end: stop.ignore_end,
    })
}

fn output(output: v1::OutputOptions) -> Result<Output, ApiError> {
    let unit = unit("output.offset_unit", output.offset_unit)?;
    Ok(Output {
        unit,
        cite: output.cite,
        logprobs: output.logprobs,
        extracted_text: output.with_extracted_text,
    })
}

/// The unit asked for; code points if none is.
pub(super) fn unit(field: &'static str, unit: i32) -> Result<OffsetUnit, ApiError> {
    match OffsetUnit::try_from(unit) {
        Ok(OffsetUnit::Unspecified) => Ok(OffsetUnit::CodePoint),
        Ok(unit) => Ok(unit),
        Err(_) => Err(ApiError::field(field, "is not a unit of this server")),
    }
}

/// The id given, or one made.
pub(super) fn request_id(id: String) -> Result<String, ApiError> {
    if id.is_empty() {
        return Ok(super::made_up_id());
    }
    if id.len() > MAX_ID_BYTES || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ApiError::field(
            "request_id",
            format!("must be at most {MAX_ID_BYTES} bytes of visible ASCII"),
        ));
    }
    Ok(id)
}

pub(super) fn query(query: &str) -> Result<(), ApiError> {
    if query.len() > MAX_QUERY_BYTES {
        return Err(ApiError::field("query", format!("must have at most {MAX_QUERY_BYTES} bytes")));
    }
    Ok(())
}

pub(super) fn token_ids(ids: &[u32], vocab: usize) -> Result<(), ApiError> {
    if ids.len() > MAX_DETOKENIZE {
        return Err(ApiError::field("token_ids", format!("must be at most {MAX_DETOKENIZE}")));
    }
    match ids.iter().position(|&id| id as usize >= vocab) {
        Some(index) => {
            Err(ApiError::field(format!("token_ids[{index}]"), format!("must be below {vocab}")))
        }
        None => Ok(()),
    }
}

fn not_empty(field: &'static str, text: &str) -> Result<(), ApiError> {
    if text.trim().is_empty() { Err(ApiError::field(field, "must not be blank")) } else { Ok(()) }
}
