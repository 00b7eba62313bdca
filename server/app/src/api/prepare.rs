//! Compressing, rendering and tokenising: everything before the engine that takes more than a moment.
//!
//! It happens on threads of its own, a bounded number of them, never on those that serve sockets.

use std::sync::Arc;
use std::time::Instant;

use pith_context::{
    Chat, Citer, ContextError, Document, Mode, Packed, Policy, Report, Sent, Sticky, compress,
    converse,
};
use pith_model::template::Message;
use pith_proto::v1;
use pith_proto::v1::OffsetUnit;
use tokio::sync::Semaphore;

use super::desk::Means;
use super::offsets::Offsets;
use super::originals::Original;
use super::status::ApiError;
use super::validate::{Job, Sources};
use crate::boot::Served;
use crate::language_model::{Cancelled, Counting};
use crate::prompt::{self, Encoded, Frame, Input, Placed, SpanMap};

/// Tokens an answer may have if the request does not say.
const DEFAULT_MAX_TOKENS: usize = 512;
/// Of the model's context, what a policy without a budget leaves for the answer if the request does not say: an
/// eighth at least, so that models with a short context keep room for documents.
const DEFAULT_ANSWER_SHARE: usize = 8;

/// Threads for preparing requests.
#[derive(Debug, Clone)]
pub(crate) struct Preparers(Arc<Semaphore>);

impl Preparers {
    /// At most `threads` at once.
    pub(crate) fn new(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new(threads)))
    }

    /// Runs `work` on one of them when one is free. If the caller leaves first, `work` is told through
    /// [`Cancelled`] and its result is thrown away.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(Cancelled) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let closed = |_| ApiError::Internal("the preparers are closed");
        let place = Arc::clone(&self.0).acquire_owned().await.map_err(closed)?;
        let cancelled = Cancelled::default();
        let _left = cancelled.on_drop();
        let span = tracing::Span::current();
        let work = move || {
            let _entered = span.enter();
            let result = work(cancelled);
            // Given back by the work itself: a caller who leaves does not end it.
            drop(place);
            result
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or(Err(ApiError::Internal("preparing a request panicked")))
    }
}

/// A request ready for the engine.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) tokens: Vec<u32>,
    pub(super) max_tokens: u32,
    pub(super) report: Option<v1::CompressionReport>,
    pub(super) citing: Option<Citing>,
}

/// What citations need once the answer comes.
#[derive(Debug)]
pub(super) struct Citing {
    pub(super) citer: Citer,
    pub(super) documents: Vec<Ruler>,
}

/// Makes the prompt of `job`, its report if it has documents (or is a dry run), and what citing needs.
pub(super) fn prepare(
    job: &Job,
    served: &Served,
    means: Means<'_>,
    deadline: Instant,
    cancelled: Cancelled,
) -> Result<Prepared, ApiError> {
    let context_tokens = served.engine.max_context();
    let asked = job.stop.max_tokens.map(|max| max as usize);
    let limit = prompt_limit(&job.sources.policy, asked, context_tokens)?;
    let limits = Limits { limit: Some(limit), deadline, cancelled };
    let made = build(&job.input, &job.sources, served, means, limits)?;
    // What is left of the context, if nothing was asked for.
    let room = context_tokens.saturating_sub(made.prompt.tokens.len());
    let max_tokens = asked.unwrap_or(DEFAULT_MAX_TOKENS.min(room));
    if let Some((_, sent)) = made.sticky.as_ref().filter(|_| !job.dry_run) {
        sent.remember(means.selections);
    }
    let Sources { documents, .. } = &job.sources;
    let wanted = !documents.is_empty() || job.dry_run;
    let rulers = rulers(&job.sources, job.output.unit);
    let mut report =
        wanted.then(|| report(&made, &rulers, Some(&SpanMap::new(&made.contexts, &made.prompt))));
    if let Some(report) = &mut report {
        job.sources.tell(report, job.output.extracted_text);
    }
    let cite = job.output.cite && !job.dry_run && !documents.is_empty();
    let citing = cite.then(|| {
        let contexts = made.contexts.iter().map(|(_, packed)| packed);
        Citing { citer: Citer::over(documents, contexts, &made.report.kept), documents: rulers }
    });
    let max_tokens = u32::try_from(max_tokens).unwrap_or(u32::MAX);
    Ok(Prepared { tokens: made.prompt.tokens, max_tokens, report, citing })
}

/// Packs `sources` as [`prepare`] does, for a question that nobody answers now and a model of any context.
pub(super) fn pack(
    question: &str,
    sources: &Sources,
    unit: OffsetUnit,
    served: &Served,
    means: Means<'_>,
    deadline: Instant,
    cancelled: Cancelled,
) -> Result<(String, v1::CompressionReport), ApiError> {
    let message = Message { role: "user".to_owned(), content: question.to_owned() };
    let limits = Limits { limit: None, deadline, cancelled };
    let made = build(&Input::Chat(vec![message]), sources, served, means, limits)?;
    let report = report(&made, &rulers(sources, unit), None);
    let text = made.contexts.into_iter().next().map_or(String::new(), |(_, packed)| packed.text);
    Ok((text, report))
}

/// Most prompt tokens, so that the answer fits after it.
fn prompt_limit(
    policy: &Policy,
    asked: Option<usize>,
    context_tokens: usize,
) -> Result<u32, ApiError> {
    let answer = match asked {
        Some(asked) if asked >= context_tokens => {
            let reason = format!(
                "is {asked}; the model's context is {context_tokens} tokens, prompt included"
            );
            return Err(ApiError::field("stop.max_tokens", reason));
        }
        Some(asked) => asked,
        // Nothing is taken from a request that leaves the choice of context to nobody.
        None if policy.mode == Mode::None => 1,
        None => DEFAULT_MAX_TOKENS.min(context_tokens / DEFAULT_ANSWER_SHARE).max(1),
    };
    Ok(u32::try_from(context_tokens.saturating_sub(answer)).unwrap_or(u32::MAX))
}

struct Limits {
    limit: Option<u32>,
    deadline: Instant,
    cancelled: Cancelled,
}

/// A prompt and how it came about.
struct Made {
    prompt: Encoded,
    /// What stands before which message.
    contexts: Vec<(usize, Packed)>,
    report: Report,
    /// Set if the policy is sticky and there are documents.
    sticky: Option<(Sticky, Sent)>,
    times: Vec<v1::StageTime>,
}

/// Chooses what stands before each message and makes the prompt.
fn build(
    input: &Input,
    sources: &Sources,
    served: &Served,
    means: Means<'_>,
    Limits { limit, deadline, cancelled }: Limits,
) -> Result<Made, ApiError> {
    let clock = Instant::now();
    let Sources { documents, policy, .. } = sources;
    let Means { tools, selections, counts } = means;
    let model = served.file.fingerprint();
    let counting = prompt::Counting { counts, tenant: tools.tenant, model };
    let frame = Frame::new(&served.file, input)?.counting(counting);
    let template = clock.elapsed().as_secs_f64();
    let messages: &[Message] = match input {
        Input::Chat(messages) => messages,
        Input::Raw { .. } => &[],
    };
    let question = messages.len().checked_sub(1).filter(|_| !documents.is_empty());
    let counting = Counting { frame: &frame, question, cancelled, deadline };
    let (contexts, report, sticky) = match sources.sticky && question.is_some() {
        true => {
            let messages: Vec<(&str, &str)> =
                messages.iter().map(|said| (said.role.as_str(), said.content.as_str())).collect();
            let chat = Chat {
                tenant: tools.tenant,
                model: served.file.fingerprint(),
                messages: &messages,
            };
            let chosen = converse(documents, policy, limit, &counting, &chat, selections, tools)?;
            (chosen.contexts, chosen.report, Some((chosen.sticky, chosen.sent)))
        }
        false => {
            let chosen = compress(documents, policy, limit, &counting, tools)?;
            let context = question.map(|question| (question, chosen.context));
            (context.into_iter().collect(), chosen.report, None)
        }
    };
    let clock = Instant::now();
    let placed: Vec<Placed<'_>> = contexts
        .iter()
        .map(|(message, packed)| Placed { message: *message, text: &packed.text })
        .collect();
    let prompt = frame.encode(&placed);
    let tokenize = clock.elapsed().as_secs_f64();
    let prompt_tokens = report.prompt_tokens;
    if prompt.tokens.len() != prompt_tokens as usize {
        return Err(ApiError::Internal("the prompt does not have the tokens that were counted"));
    }
    if let Some(limit) = limit.filter(|&limit| prompt_tokens > limit) {
        return Err(ContextError::Overflow { prompt_tokens, limit }.into());
    }
    let times = &report.times;
    let stage = |stage: &str, seconds| v1::StageTime { stage: stage.to_owned(), seconds };
    let times = vec![
        stage("template", template),
        stage("segment", times.segment),
        stage("index", times.index),
        stage("embed", times.embed),
        stage("select", times.select),
        stage("pack", times.pack),
        stage("count", times.count),
        stage("tokenize", tokenize),
    ];
    Ok(Made { prompt, contexts, report, sticky, times })
}

/// What it takes to name a span of a document to its sender.
#[derive(Debug)]
pub(super) struct Ruler {
    id: String,
    offsets: Offsets,
    original: Option<Arc<Original>>,
}

impl Ruler {
    /// Of a text that is what was sent.
    #[cfg(test)]
    pub(super) fn new(id: &str, unit: OffsetUnit, text: &str) -> Self {
        Self { id: id.to_owned(), offsets: Offsets::new(unit, text), original: None }
    }
}

fn rulers(sources: &Sources, unit: OffsetUnit) -> Vec<Ruler> {
    let ruler = |(index, document): (usize, &Document)| Ruler {
        id: document.id.clone(),
        offsets: Offsets::new(unit, &document.text),
        original: sources.originals.of(index),
    };
    sources.documents.iter().enumerate().map(ruler).collect()
}

/// A context span on the wire.
pub(super) fn span(documents: &[Ruler], span: pith_context::Span) -> v1::Span {
    let Ruler { id, offsets, .. } = &documents[span.document];
    v1::Span { document_id: id.clone(), start: offsets.at(span.start), end: offsets.at(span.end) }
}

/// Where a context span stood before extraction.
pub(super) fn original(documents: &[Ruler], span: pith_context::Span) -> Option<v1::Original> {
    documents[span.document].original.as_ref()?.of(span.start..span.end)
}

fn report(made: &Made, documents: &[Ruler], prompt: Option<&SpanMap<'_>>) -> v1::CompressionReport {
    let report = &made.report;
    let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
    let kept = |kept: &pith_context::KeptSpan| {
        let standing = prompt.and_then(|map| map.find(kept.span));
        v1::KeptSpan {
            span: Some(span(documents, kept.span)),
            tokens: kept.tokens,
            score: kept.score,
            lexical: kept.lexical,
            dense: kept.dense,
            expanded: kept.expanded,
            original: original(documents, kept.span),
            message: standing.as_ref().map(|standing| number(standing.message)),
            prompt: standing.map(|standing| v1::TokenRange {
                start: number(standing.tokens.start),
                end: number(standing.tokens.end),
            }),
        }
    };
    let sticky = |(sticky, _): &(Sticky, Sent)| v1::Sticky {
        turns_kept: sticky.turns_kept,
        tokens_kept: sticky.tokens_kept,
        tokens_added: sticky.tokens_added,
        fresh: sticky.fresh,
        reason: sticky.reason.clone(),
    };
    v1::CompressionReport {
        mode_used: match report.mode {
            Mode::None => v1::CompressionMode::None,
            Mode::Retrieve => v1::CompressionMode::Retrieve,
        }
        .into(),
        reason: report.reason.clone(),
        tokens_before: report.tokens_before,
        tokens_after: report.tokens_after,
        prompt_tokens: report.prompt_tokens,
        budget_tokens: report.budget_tokens,
        kept: report.kept.iter().map(kept).collect(),
        dropped: report.dropped.iter().map(|dropped| span(documents, *dropped)).collect(),
        stages: made.times.clone(),
        warnings: report.warnings.clone(),
        sticky: made.sticky.as_ref().map(sticky),
        ..Default::default()
    }
}
