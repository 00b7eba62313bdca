//! The pipeline: documents, a policy and a model's counts become a packed context and its report.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::fill::{Fill, Filled};
use crate::hints::{self, Marks};
use crate::language::Counter;
use crate::meaning::{self, Meaning};
use crate::pack::{self, pack};
use crate::prepared::{Prepared, PreparedCache};
use crate::report::{dropped, kept_units, kept_whole};
use crate::select::{self, Candidates, Unit};
use crate::vectors::Nearness;
use crate::{
    Budget, ContextError, Document, Embedder, LanguageModel, Mode, Packed, Policy, Report,
    StageTimes,
};

/// What a compression may use beside the language model.
#[derive(Clone, Copy, Default)]
pub struct Tools<'a> {
    /// Makes vectors of sentences and questions. Without one, or where it fails, words alone decide, and a warning of
    /// the report says so.
    pub embedder: Option<&'a dyn Embedder>,
    /// Documents prepared before.
    pub cache: Option<&'a PreparedCache>,
    /// Most bytes of text that are embedded for a request about documents that were not stored, headings included;
    /// of longer ones, the sentences that are likeliest to serve the question. `None`: no limit.
    pub embed_bytes: Option<usize>,
    /// Whose documents they are: nobody finds in the cache what another had prepared.
    pub tenant: &'a str,
}

/// What came of a compression.
#[derive(Debug, Clone, PartialEq)]
pub struct Compressed {
    /// The text for the prompt.
    pub context: Packed,
    /// What became of every byte.
    pub report: Report,
}

/// Makes the context of a prompt from `documents` as `policy` says. `limit`: most tokens of the whole prompt that
/// the model takes (`None`: no limit). Pure computation, no clock but for [`StageTimes`]: the same arguments give
/// the same context, whatever the cache holds. Blocks the thread for as long as counting and embedding take.
///
/// # Errors
/// Each of [`ContextError`]; nothing is shortened beyond what the policy asks.
pub fn compress(
    documents: &[Document],
    policy: &Policy,
    limit: Option<u32>,
    model: &dyn LanguageModel,
    tools: Tools<'_>,
) -> Result<Compressed, ContextError> {
    check(documents, policy)?;
    if policy.mode == Mode::None {
        let whole = verbatim(documents, model)?;
        let prompt_tokens = whole.report.prompt_tokens;
        return match limit.filter(|&limit| prompt_tokens > limit) {
            Some(limit) => Err(ContextError::Overflow { prompt_tokens, limit }),
            None => Ok(whole),
        };
    }
    let counter = Counter::new(model)?;
    let start = Instant::now();
    let everything = pack(documents, pack::wholes(documents, |_| true));
    let mut times = StageTimes { pack: start.elapsed().as_secs_f64(), ..StageTimes::default() };
    let prompt_tokens = counter.prompt(&everything.text)?;
    let tokens_before = prompt_tokens.saturating_sub(counter.base);
    let request = Request { documents, policy, counter: &counter, tools, tokens_before };

    let room = match limit {
        Some(limit) if counter.base > limit => {
            return Err(ContextError::Overflow { prompt_tokens: counter.base, limit });
        }
        Some(limit) => limit - counter.base,
        None => u32::MAX,
    };
    let asked = match policy.budget {
        Budget::Tokens(tokens) => tokens,
        Budget::KeepRatio(ratio) => (f64::from(tokens_before) * f64::from(ratio)) as u32,
    };
    let budget = asked.min(room);
    let mut warnings = Vec::new();
    if budget < asked && tokens_before > budget {
        warnings.push(format!(
            "the policy allows {asked} context tokens, the model's limit leaves {room}"
        ));
    }
    let excludes = documents.iter().any(hints::excludes);
    let all = policy.top_k.is_none() && policy.min_score.is_none() && !excludes;
    if tokens_before <= budget && all {
        let reason = format!("everything fits: {tokens_before} of {budget} context tokens");
        return Ok(request.whole(everything, prompt_tokens, budget, times, reason));
    }
    drop(everything);
    request.retrieve(budget, &mut times, warnings)
}

/// Checks everything about a request that needs no model.
pub(crate) fn check(documents: &[Document], policy: &Policy) -> Result<(), ContextError> {
    policy.check()?;
    documents.iter().try_for_each(hints::check)?;
    let excludes = documents.iter().find(|document| hints::excludes(document));
    match excludes.filter(|_| policy.mode == Mode::None) {
        None => Ok(()),
        Some(document) => Err(ContextError::Hint {
            document: document.id.clone(),
            field: "hints",
            message: "leaving spans out takes a policy that allows it".to_owned(),
        }),
    }
}

/// Every document, whole, whatever is said about parts of them.
pub(crate) fn verbatim(
    documents: &[Document],
    model: &dyn LanguageModel,
) -> Result<Compressed, ContextError> {
    let counter = Counter::new(model)?;
    let clock = Instant::now();
    let everything = pack(documents, pack::wholes(documents, |_| true));
    let times = StageTimes { pack: clock.elapsed().as_secs_f64(), ..StageTimes::default() };
    let prompt_tokens = counter.prompt(&everything.text)?;
    let tokens_before = prompt_tokens.saturating_sub(counter.base);
    let policy = &Policy::default();
    let tools = Tools::default();
    let request = Request { documents, policy, counter: &counter, tools, tokens_before };
    let reason = "the policy asks for every document verbatim".to_owned();
    Ok(request.whole(everything, prompt_tokens, tokens_before, times, reason))
}

/// What every stage looks at.
struct Request<'a> {
    documents: &'a [Document],
    policy: &'a Policy,
    counter: &'a Counter<'a>,
    tools: Tools<'a>,
    tokens_before: u32,
}

impl Request<'_> {
    /// Everything is kept.
    fn whole(
        &self,
        context: Packed,
        prompt_tokens: u32,
        budget: u32,
        times: StageTimes,
        reason: String,
    ) -> Compressed {
        let wholes = pack::wholes(self.documents, |_| true);
        let report = Report {
            mode: self.policy.mode,
            reason,
            tokens_before: self.tokens_before,
            tokens_after: self.tokens_before,
            prompt_tokens,
            budget_tokens: budget,
            kept: kept_whole(self.documents, self.counter, wholes),
            dropped: Vec::new(),
            times: StageTimes { count: self.counter.seconds(), ..times },
            warnings: Vec::new(),
        };
        Compressed { context, report }
    }

    /// The sentences that serve the question best are kept.
    fn retrieve(
        &self,
        budget: u32,
        times: &mut StageTimes,
        mut warnings: Vec<String>,
    ) -> Result<Compressed, ContextError> {
        let embedder = self.tools.embedder.filter(|_| self.policy.dense_weight != Some(0.0));
        let mut proceed = || self.counter.proceed();
        let prepare =
            |document| meaning::prepare(document, embedder, self.tools, &mut proceed, &mut *times);
        let kept: Vec<Arc<Prepared>> =
            self.documents.iter().map(prepare).collect::<Result<_, _>>()?;
        let prepared: Vec<&Prepared> = kept.iter().map(Arc::as_ref).collect();

        let (units, ranges) = units(&prepared);
        let kept_whole_of = |document: &Document| document.pinned && !hints::excludes(document);
        let pinned: Vec<bool> = self.documents.iter().map(kept_whole_of).collect();
        let marks = Marks::new(self.documents, &units, &pinned);
        let meaning = Meaning {
            documents: self.documents,
            prepared: &kept,
            units: &units,
            ranges: &ranges,
            marks: &marks,
            policy: self.policy,
            tools: self.tools,
        };
        let near = self.near(&meaning, embedder, times, &mut warnings)?;
        let clock = Instant::now();
        let candidates =
            Candidates { documents: &prepared, units: &units, marks: &marks, near: near.as_ref() };
        let ranking = select::rank(&candidates, self.policy);
        times.select += clock.elapsed().as_secs_f64();

        let (clock, counted) = (Instant::now(), self.counter.seconds());
        let bytes: usize = self.documents.iter().map(|document| document.text.len()).sum();
        let wholes = pack::wholes(self.documents, kept_whole_of);
        let fill = Fill {
            documents: self.documents,
            prepared: &prepared,
            units: &units,
            ranges: &ranges,
            wholes: &wholes,
            marks: &marks,
            ranking: &ranking,
            order: self.policy.order,
            counter: self.counter,
            budget,
            top_k: self.policy.top_k.map_or(usize::MAX, |k| k as usize),
            antecedents: budget >= select::MIN_ANTECEDENT_BUDGET,
            density: self.tokens_before as f32 / bytes.max(1) as f32,
        };
        let filled = fill.run()?;
        times.pack += clock.elapsed().as_secs_f64() - (self.counter.seconds() - counted);

        let best = ranking.order.first().map(|&best| ranking.scores[best]);
        if best.is_none() && (0..units.len()).any(|unit| marks.is_free(unit)) {
            warnings.push("no sentence reaches min_score; none was chosen".to_owned());
        } else if best.is_some_and(|best| best.relevance == 0.0) {
            warnings.push(
                "no word of the question occurs in the documents; they are kept from the beginning"
                    .to_owned(),
            );
        } else if filled.chosen.is_empty() && !ranking.order.is_empty() {
            warnings
                .push("the pinned documents leave no room for a sentence of the others".to_owned());
        }
        if filled.duplicates > 0 {
            warnings.push(format!(
                "{} sentences that repeat a kept one were left out",
                filled.duplicates
            ));
        }
        let Filled { chosen, packed, prompt_tokens, .. } = filled;
        let mut kept = kept_whole(self.documents, self.counter, wholes);
        kept.extend(kept_units(self.documents, &units, &ranges, &ranking, &chosen));
        kept.sort_by_key(|kept| kept.span);
        let of = units.iter().filter(|unit| !pinned[unit.document]).count();
        let by = if ranking.dense { "words and meaning" } else { "words" };
        let report = Report {
            mode: Mode::Retrieve,
            reason: format!(
                "kept the {} of {of} sentences that serve the question best, by {by}, within {budget} context tokens",
                chosen.len(),
            ),
            tokens_before: self.tokens_before,
            tokens_after: prompt_tokens.saturating_sub(self.counter.base),
            prompt_tokens,
            budget_tokens: budget,
            dropped: dropped(self.documents, &kept),
            kept,
            times: StageTimes { count: self.counter.seconds(), ..*times },
            warnings,
        };
        Ok(Compressed { context: packed, report })
    }

    /// How near each unit is to the question, if that is to count and can be told.
    fn near(
        &self,
        meaning: &Meaning<'_>,
        embedder: Option<&dyn Embedder>,
        times: &mut StageTimes,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Nearness>, ContextError> {
        let Some(embedder) = embedder else {
            if self.policy.dense_weight != Some(0.0) {
                warnings.push("there is no embedder: words alone decided".to_owned());
            }
            return Ok(None);
        };
        match meaning.near(embedder, &mut || self.counter.proceed(), times) {
            Ok(near) => {
                let known = near.known.iter().filter(|known| **known).count();
                if known < near.known.len() {
                    warnings.push(format!(
                        "{known} of {} sentences were compared with the question by meaning, the others by words and an estimate",
                        near.known.len()
                    ));
                }
                Ok(Some(near))
            }
            Err(ContextError::Embedder { message }) => {
                warnings.push(format!("the embedder failed ({message}): words alone decided"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// All sentences in order, and each document's range of them.
fn units<'a>(documents: &[&'a Prepared]) -> (Vec<Unit<'a>>, Vec<Range<usize>>) {
    let mut units = Vec::with_capacity(documents.iter().map(|d| d.sentences.len()).sum());
    let mut ranges = Vec::with_capacity(documents.len());
    for (document, prepared) in documents.iter().enumerate() {
        let first = units.len();
        units.extend(prepared.sentences.iter().map(|sentence| Unit { document, sentence }));
        ranges.push(first..units.len());
    }
    (units, ranges)
}
