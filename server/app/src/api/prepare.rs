//! Compressing, rendering and tokenising: everything before the engine that takes more than a moment.
//!
//! It happens on threads of its own, a bounded number of them, never on those that serve sockets.

use std::sync::Arc;
use std::time::Instant;

use pith_context::{Citer, Compressed, ContextError, Document, Mode, Policy, Tools, compress};
use pith_proto::v1;
use pith_proto::v1::OffsetUnit;
use tokio::sync::Semaphore;

use super::offsets::Offsets;
use super::status::ApiError;
use super::validate::{Job, Sources};
use crate::boot::Served;
use crate::language_model::{Cancelled, Counting};
use crate::prompt::{Encoded, Frame, Input, SpanMap};

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
    /// Ids and offsets of each document.
    pub(super) documents: Vec<(String, Offsets)>,
}

/// Makes the prompt of `job`, its report if it has documents (or is a dry run), and what citing needs.
pub(super) fn prepare(
    job: &Job,
    served: &Served,
    deadline: Instant,
    cancelled: Cancelled,
) -> Result<Prepared, ApiError> {
    let context_tokens = served.engine.max_context();
    let asked = job.stop.max_tokens.map(|max| max as usize);
    let limit = prompt_limit(&job.sources.policy, asked, context_tokens)?;
    let counts = Limits { limit: Some(limit), deadline, cancelled };
    let (compressed, encoded, times) = build(&job.input, &job.sources, served, counts)?;
    // What is left of the context, if nothing was asked for.
    let room = context_tokens.saturating_sub(encoded.tokens.len());
    let max_tokens = asked.unwrap_or(DEFAULT_MAX_TOKENS.min(room));
    let Sources { documents, .. } = &job.sources;
    let wanted = !documents.is_empty() || job.dry_run;
    let rulers = rulers(documents, job.output.unit);
    let report = wanted.then(|| {
        report(&compressed, &rulers, times, Some(&SpanMap::new(&compressed.context, &encoded)))
    });
    let citing = (job.output.cite && !job.dry_run && !documents.is_empty())
        .then(|| Citing { citer: Citer::ranked(documents, &compressed), documents: rulers });
    let max_tokens = u32::try_from(max_tokens).unwrap_or(u32::MAX);
    Ok(Prepared { tokens: encoded.tokens, max_tokens, report, citing })
}

/// Packs `sources` as [`prepare`] does, for a question that nobody answers now and a model of any context.
pub(super) fn pack(
    question: &str,
    sources: &Sources,
    unit: OffsetUnit,
    served: &Served,
    deadline: Instant,
    cancelled: Cancelled,
) -> Result<(String, v1::CompressionReport), ApiError> {
    let message =
        pith_model::template::Message { role: "user".to_owned(), content: question.to_owned() };
    let counts = Limits { limit: None, deadline, cancelled };
    let (compressed, _, times) = build(&Input::Chat(vec![message]), sources, served, counts)?;
    let report = report(&compressed, &rulers(&sources.documents, unit), times, None);
    Ok((compressed.context.text, report))
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

fn build(
    input: &Input,
    sources: &Sources,
    served: &Served,
    Limits { limit, deadline, cancelled }: Limits,
) -> Result<(Compressed, Encoded, Vec<v1::StageTime>), ApiError> {
    let clock = Instant::now();
    let frame = Frame::new(&served.file, input, !sources.documents.is_empty())?;
    let template = clock.elapsed().as_secs_f64();
    let counting = Counting { frame: &frame, cancelled, deadline };
    let compressed =
        compress(&sources.documents, &sources.policy, limit, &counting, Tools::default())?;
    let clock = Instant::now();
    let encoded = frame.encode(&compressed.context.text);
    let tokenize = clock.elapsed().as_secs_f64();
    if encoded.tokens.len() != compressed.report.prompt_tokens as usize {
        return Err(ApiError::Internal("the prompt does not have the tokens that were counted"));
    }
    if let Some(limit) = limit
        && compressed.report.prompt_tokens > limit
    {
        let prompt_tokens = compressed.report.prompt_tokens;
        return Err(ContextError::Overflow { prompt_tokens, limit }.into());
    }
    let times = &compressed.report.times;
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
    Ok((compressed, encoded, times))
}

fn rulers(documents: &[Document], unit: OffsetUnit) -> Vec<(String, Offsets)> {
    documents
        .iter()
        .map(|document| (document.id.clone(), Offsets::new(unit, &document.text)))
        .collect()
}

/// A context span on the wire.
pub(super) fn span(documents: &[(String, Offsets)], span: pith_context::Span) -> v1::Span {
    let (id, offsets) = &documents[span.document];
    v1::Span { document_id: id.clone(), start: offsets.at(span.start), end: offsets.at(span.end) }
}

fn report(
    compressed: &Compressed,
    documents: &[(String, Offsets)],
    stages: Vec<v1::StageTime>,
    prompt: Option<&SpanMap<'_>>,
) -> v1::CompressionReport {
    let report = &compressed.report;
    let token = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
    let kept = |kept: &pith_context::KeptSpan| v1::KeptSpan {
        span: Some(span(documents, kept.span)),
        tokens: kept.tokens,
        score: kept.score,
        lexical: kept.lexical,
        dense: kept.dense,
        expanded: kept.expanded,
        prompt: prompt
            .and_then(|map| map.tokens(kept.span))
            .map(|range| v1::TokenRange { start: token(range.start), end: token(range.end) }),
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
        stages,
        warnings: report.warnings.clone(),
    }
}
