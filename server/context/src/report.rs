//! The exact account of what became of the context.

use crate::{Mode, Span};

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
    /// What it was ranked by: the share of the question's weight (rare terms weigh more) that the sentence and,
    /// with a neighbour window, its surroundings carry; 0 to 1. 0 where nothing was ranked.
    pub score: f32,
    /// BM25 of the sentence itself, unbounded, comparable within one request only. 0 where nothing was ranked.
    pub lexical: f32,
    /// Kept for the sake of another sentence: its antecedent, or a neighbour without a term of the question.
    pub expanded: bool,
}

/// Seconds of each stage. The first four exclude the time spent inside the language model.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StageTimes {
    /// Cutting documents into sentences.
    pub segment: f64,
    /// Turning sentences into terms.
    pub index: f64,
    /// Scoring, ranking and choosing.
    pub select: f64,
    /// Joining the chosen text and fitting it to the budget.
    pub pack: f64,
    /// Inside the language model: counting tokens.
    pub count: f64,
}
