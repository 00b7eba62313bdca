//! Messages become checked values. Every bound of a request stands here.
//!
//! What depends on the model (vocabulary, context) or is the engine's to know is checked where it is known; the table
//! in `status` makes one kind of error of all.

use std::collections::{BTreeMap, HashMap, HashSet};

use pith_context::extract::Media;
use pith_context::{
    Budget, Document, Format, Fusion, MAX_NEIGHBOR_WINDOW, MAX_SIGNAL_WEIGHT, Mode, Order, Policy,
};
use pith_engine::request::SamplingParams;
use pith_model::template::Message;
use pith_proto::v1;
use pith_proto::v1::OffsetUnit;

use super::documents::sources::Reference;
use super::hints::{Hints, weight};
use super::originals::{Originals, Unread};
use super::status::ApiError;
use crate::prompt::Input;

const MAX_ID_BYTES: usize = 128;
const MAX_DOCUMENTS: usize = 256;
const MAX_TITLE_BYTES: usize = 512;
const MAX_METADATA: usize = 32;
const MAX_METADATA_KEY_BYTES: usize = 64;
const MAX_METADATA_VALUE_BYTES: usize = 1024;
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

/// Documents and what may be done to them.
#[derive(Debug)]
pub(super) struct Sources {
    /// Those to be read from a file have no text until `originals` has read them.
    pub(super) documents: Vec<Document>,
    /// Of those, the ones whose text is stored and yet to be read.
    pub(super) stored: Vec<Reference>,
    pub(super) originals: Originals,
    /// What is said about parts of them, until their text is known.
    pub(super) hints: Hints,
    pub(super) policy: Policy,
    /// What earlier turns of the chat sent stays where it is.
    pub(super) sticky: bool,
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

/// Refuses a sticky policy where there are no turns.
pub(super) fn not_sticky(policy: Option<&v1::CompressionPolicy>) -> Result<(), ApiError> {
    match policy {
        Some(policy) if policy.sticky => Err(ApiError::field(
            "policy.sticky",
            "is for chats: elsewhere there are no earlier turns",
        )),
        _ => Ok(()),
    }
}

/// Documents and policy; what passages are chosen for is `question` unless the policy says otherwise.
pub(super) fn sources(
    documents: Vec<v1::Document>,
    policy: Option<v1::CompressionPolicy>,
    question: &str,
) -> Result<Sources, ApiError> {
    if documents.len() > MAX_DOCUMENTS {
        return Err(ApiError::field(
            "documents",
            format!("{} of them; at most {MAX_DOCUMENTS}", documents.len()),
        ));
    }
    let mut ids = HashSet::new();
    let mut checked = Vec::with_capacity(documents.len());
    let mut originals = Originals::default();
    let mut hints = Hints::default();
    let mut stored = Vec::new();
    for (index, mut each) in documents.into_iter().enumerate() {
        originals.unread.extend(unread(index, &mut each)?);
        hints.push(index, std::mem::take(&mut each.hints))?;
        let (each, reference) = document(index, each)?;
        stored.extend(reference);
        if !ids.insert(each.id.clone()) {
            return Err(ApiError::field(
                format!("documents[{index}].id"),
                format!("{:?} is taken", each.id),
            ));
        }
        checked.push(each);
    }
    let policy = policy.unwrap_or_default();
    let sticky = policy.sticky;
    let policy = self::policy(policy, question)?;
    Ok(Sources { documents: checked, stored, originals, hints, policy, sticky })
}

/// What of `document` has to be made text of, taken out of it.
fn unread(index: usize, document: &mut v1::Document) -> Result<Option<Unread>, ApiError> {
    let wrong = |field: &str, reason: String| {
        Err(ApiError::field(format!("documents[{index}].{field}"), reason))
    };
    let Some(media) = Media::of(&document.mime) else {
        return wrong("mime", format!("{:?} is not a type that can be read", document.mime));
    };
    if !document.stored_id.is_empty() {
        return match document.text.is_empty() && document.blob.is_empty() {
            true => Ok(None),
            false => wrong("stored_id", "must not be set beside text or blob".to_owned()),
        };
    }
    match (document.text.is_empty(), document.blob.is_empty()) {
        (false, false) => wrong("blob", "must not be set beside text".to_owned()),
        (true, true) => {
            wrong("text", "must not be empty, unless there is a blob or a stored_id".to_owned())
        }
        (false, true) if media.is_binary() => {
            wrong("mime", format!("{:?} is sent as blob, not as text", document.mime))
        }
        (false, true) if matches!(media, Media::Verbatim(_)) => Ok(None),
        (text, _) => {
            let field = if text { "blob" } else { "text" };
            let bytes = if text {
                std::mem::take(&mut document.blob)
            } else {
                std::mem::take(&mut document.text).into_bytes()
            };
            Ok(Some(Unread { document: index, field, mime: document.mime.clone(), bytes }))
        }
    }
}

fn document(
    index: usize,
    document: v1::Document,
) -> Result<(Document, Option<Reference>), ApiError> {
    let wrong = |field: &str, reason: String| {
        Err(ApiError::field(format!("documents[{index}].{field}"), reason))
    };
    if document.id.len() > MAX_ID_BYTES {
        return wrong("id", format!("must have at most {MAX_ID_BYTES} bytes"));
    }
    if let Err(reason) = title(&document.title) {
        return wrong("title", reason);
    }
    let reference = (!document.stored_id.is_empty())
        .then(|| {
            let media = Media::of(&document.mime).filter(|_| !document.mime.is_empty());
            Reference::parse(index, &document.stored_id, media)
        })
        .transpose()?;
    if let Err(reason) = metadata(&document.metadata) {
        return wrong("metadata", reason);
    }
    let format = match Media::of(&document.mime) {
        Some(Media::Verbatim(format)) => format,
        _ => Format::default(),
    };
    let id = match &reference {
        _ if !document.id.is_empty() => document.id,
        Some(reference) => reference.id().to_owned(),
        None => format!("doc-{}", index + 1),
    };
    let checked = Document {
        id,
        title: (!document.title.is_empty()).then_some(document.title),
        weight: match document.weight.map(weight).transpose() {
            Ok(weight) => weight.unwrap_or(1.0),
            Err(reason) => return wrong("weight", reason),
        },
        text: document.text,
        format,
        metadata: document.metadata.into_iter().collect::<BTreeMap<_, _>>(),
        pinned: document.pinned,
        ..Document::default()
    };
    Ok((checked, reference))
}

/// Whether `title` may be one; else what is wrong with it.
pub(super) fn title(title: &str) -> Result<(), String> {
    if title.len() <= MAX_TITLE_BYTES && !title.contains(['\n', '\r']) {
        return Ok(());
    }
    Err(format!("must be one line of at most {MAX_TITLE_BYTES} bytes"))
}

/// Whether a document may have `metadata`; else what is wrong with them.
pub(super) fn metadata(metadata: &HashMap<String, String>) -> Result<(), String> {
    let fits = |(key, value): (&String, &String)| {
        (1..=MAX_METADATA_KEY_BYTES).contains(&key.len()) && value.len() <= MAX_METADATA_VALUE_BYTES
    };
    if metadata.len() <= MAX_METADATA && metadata.iter().all(fits) {
        return Ok(());
    }
    Err(format!(
        "must have at most {MAX_METADATA} entries, keys of 1 to {MAX_METADATA_KEY_BYTES} bytes and values of at \
         most {MAX_METADATA_VALUE_BYTES}"
    ))
}

fn policy(policy: v1::CompressionPolicy, question: &str) -> Result<Policy, ApiError> {
    use v1::compression_policy::Budget as Wire;
    let wrong = |field: &'static str, reason: &'static str| Err(ApiError::field(field, reason));
    let mode = match v1::CompressionMode::try_from(policy.mode) {
        Ok(v1::CompressionMode::Unspecified | v1::CompressionMode::None) => Mode::None,
        Ok(v1::CompressionMode::Retrieve) => Mode::Retrieve,
        Err(_) => return wrong("policy.mode", "is not a mode of this server"),
    };
    if v1::Overflow::try_from(policy.on_overflow).is_err() {
        return wrong("policy.on_overflow", "is not known to this server");
    }
    let query = if policy.query.is_empty() { question } else { &policy.query };
    if policy.query.len() > MAX_QUERY_BYTES {
        return wrong("policy.query", "must have at most 65536 bytes");
    }
    if mode == Mode::Retrieve && query.trim().is_empty() {
        return wrong("policy.query", "must not be blank: retrieval selects for a question");
    }
    let budget = match policy.budget {
        // Everything, as far as the model has room.
        None => Budget::KeepRatio(1.0),
        Some(Wire::MaxContextTokens(0)) => {
            return wrong("policy.max_context_tokens", "must be at least 1");
        }
        Some(Wire::MaxContextTokens(tokens)) => Budget::Tokens(tokens),
        Some(Wire::KeepRatio(ratio)) if ratio > 0.0 && ratio <= 1.0 => Budget::KeepRatio(ratio),
        Some(Wire::KeepRatio(_)) => {
            return wrong("policy.keep_ratio", "must be above 0 and at most 1");
        }
    };
    if policy.neighbor_window.is_some_and(|window| window > MAX_NEIGHBOR_WINDOW) {
        return wrong("policy.neighbor_window", "must be at most 64");
    }
    if policy.top_k == Some(0) {
        return wrong("policy.top_k", "must be at least 1");
    }
    if policy.min_score.is_some_and(|score| !(0.0..=1.0).contains(&score)) {
        return wrong("policy.min_score", "must be 0 to 1");
    }
    for (field, weight) in [
        ("policy.lexical_weight", policy.lexical_weight),
        ("policy.dense_weight", policy.dense_weight),
    ] {
        if weight.is_some_and(|weight| !(0.0..=MAX_SIGNAL_WEIGHT).contains(&weight)) {
            return wrong(field, "must be 0 to 100");
        }
    }
    if policy.lexical_weight == Some(0.0) && policy.dense_weight == Some(0.0) {
        return wrong("policy.dense_weight", "must be above 0 if lexical_weight is 0");
    }
    let order = match v1::Order::try_from(policy.order) {
        Ok(v1::Order::Unspecified | v1::Order::Original) => Order::Original,
        Ok(v1::Order::Relevance) => Order::Relevance,
        Ok(v1::Order::Edges) => Order::Edges,
        Err(_) => return wrong("policy.order", "is not known to this server"),
    };
    let fusion = match v1::Fusion::try_from(policy.fusion) {
        Ok(v1::Fusion::Unspecified | v1::Fusion::Scores) => Fusion::Scores,
        Ok(v1::Fusion::Ranks) => Fusion::Ranks,
        Err(_) => return wrong("policy.fusion", "is not known to this server"),
    };
    Ok(Policy {
        mode,
        budget,
        query: query.to_owned(),
        neighbor_window: policy.neighbor_window,
        top_k: policy.top_k,
        min_score: policy.min_score,
        lexical_weight: policy.lexical_weight,
        dense_weight: policy.dense_weight,
        fusion,
        order,
    })
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
