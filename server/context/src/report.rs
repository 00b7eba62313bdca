//! The exact account of what became of the context.

use std::ops::Range;

use crate::fill::{Chosen, Reason};
use crate::language::Counter;
use crate::select::{Ranking, Score, Unit};
use crate::{Document, Mode, Span};

/// The exact account of what became of the context.
///
/// `kept` and `dropped` together cover every byte of every document exactly once, each sorted by document and
/// offset. White space between two sentences belongs to the span of the first when both are kept; at the
/// edge of a kept passage it is not sent to the model, so it is part of the dropped span beside it (which may be
/// white space alone). A document kept whole is kept with its edges.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The mode applied.
    pub mode: Mode,
    /// Why the context is what it is, a sentence for people.
    pub reason: String,
    /// Context tokens if everything were kept, exact.
    pub tokens_before: u32,
    /// Context tokens of what is kept, exact.
    pub tokens_after: u32,
    /// Tokens of the final prompt with the packed context in it, exact.
    pub prompt_tokens: u32,
    /// Context tokens that could be spent: the policy's budget, or less where the model's limit leaves less.
    /// Under [`Mode::None`] no budget applies and it equals `tokens_after`.
    pub budget_tokens: u32,
    /// What is kept, a span a sentence (a span a document where it is pinned or everything is kept).
    pub kept: Vec<KeptSpan>,
    /// What is dropped, in spans as long as possible.
    pub dropped: Vec<Span>,
    /// Where the time went.
    pub times: StageTimes,
    /// What the caller should know, sentences for people.
    pub warnings: Vec<String>,
}

/// A span that is kept and what spoke for it.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptSpan {
    /// The bytes kept.
    pub span: Span,
    /// Tokens of the span by itself ([`LanguageModel::count`](crate::LanguageModel::count)); they need not add up to
    /// [`Report::tokens_after`], which counts joints, headers and gap marks too.
    pub tokens: u32,
    /// How much of the question is in it, 0 to 1: the share of the question's weight (rare terms weigh more) that
    /// the sentence and its surroundings carry, and `dense`, by their weights. What a sentence is ranked by looks at more, so
    /// that the order may differ. 0 where nothing was ranked.
    pub score: f32,
    /// BM25 of the sentence itself, unbounded, comparable within one request only. 0 where nothing was ranked.
    pub lexical: f32,
    /// Cosine of the sentence's vector, read under its title and headings, and the question's; -1 to 1. 0 where nothing
    /// was ranked, without an embedder, and where the sentence was not embedded (see
    /// [`Tools::embed_bytes`](crate::Tools::embed_bytes)).
    pub dense: f32,
    /// Its place among all sentences by what speaks for it, from 1. 0 where nothing was ranked, and for what was kept
    /// whatever its rank.
    pub rank: u32,
    /// Kept for the sake of the sentence after it, which leans on it.
    pub expanded: bool,
}

/// Seconds of each stage, without those spent inside the two models where a stage of its own stands for them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StageTimes {
    /// Cutting documents into sentences.
    pub segment: f64,
    /// Turning sentences into terms; with `segment`, 0 for documents prepared before.
    pub index: f64,
    /// Inside the embedder: sentences not met before, and the question.
    pub embed: f64,
    /// Scoring, ranking and choosing.
    pub select: f64,
    /// Joining the chosen text and fitting it to the budget.
    pub pack: f64,
    /// Inside the language model: counting tokens.
    pub count: f64,
}

/// A kept span for each of `wholes`, documents kept whole.
pub(crate) fn kept_whole(
    documents: &[Document],
    counter: &Counter<'_>,
    wholes: Vec<Span>,
) -> Vec<KeptSpan> {
    let kept = |span: Span| KeptSpan {
        span,
        tokens: counter.count(&documents[span.document].text),
        score: 0.0,
        lexical: 0.0,
        dense: 0.0,
        rank: 0,
        expanded: false,
    };
    wholes.into_iter().map(kept).collect()
}

/// A span for each chosen unit, which takes the white space after it if the next unit is chosen too.
pub(crate) fn kept_units(
    documents: &[Document],
    units: &[Unit<'_>],
    ranges: &[Range<usize>],
    ranking: &Ranking,
    chosen: &[Chosen],
) -> Vec<KeptSpan> {
    let mut in_document = vec![0; documents.len()];
    chosen.iter().for_each(|chosen| in_document[units[chosen.unit].document] += 1);
    let mut kept = Vec::with_capacity(chosen.len());
    for (at, &Chosen { unit, tokens, reason }) in chosen.iter().enumerate() {
        let Unit { document, sentence } = units[unit];
        let range = &ranges[document];
        let whole = in_document[document] == range.len();
        let next = chosen
            .get(at + 1)
            .map(|next| next.unit)
            .filter(|next| *next == unit + 1 && range.contains(next));
        let end = match next {
            Some(next) => units[next].sentence.span.start,
            None if whole => documents[document].text.len(),
            None => sentence.span.end,
        };
        let start = if whole && unit == range.start { 0 } else { sentence.span.start };
        let Score { lexical, dense, relevance, .. } = ranking.scores[unit];
        let span = Span { document, start, end };
        kept.push(KeptSpan {
            span,
            tokens,
            score: relevance,
            lexical,
            dense,
            rank: ranking.places[unit],
            expanded: reason == Reason::Antecedent,
        });
    }
    kept
}

/// What `kept`, sorted, leaves of the documents.
pub(crate) fn dropped(documents: &[Document], kept: &[KeptSpan]) -> Vec<Span> {
    let mut dropped = Vec::new();
    let mut kept = kept.iter().map(|kept| kept.span).peekable();
    for (document, source) in documents.iter().enumerate() {
        let mut at = 0;
        while let Some(span) = kept.next_if(|span| span.document == document) {
            if span.start > at {
                dropped.push(Span { document, start: at, end: span.start });
            }
            at = span.end;
        }
        if at < source.text.len() {
            dropped.push(Span { document, start: at, end: source.text.len() });
        }
    }
    dropped
}
