//! The pipeline: documents, a policy and a model's counts become a packed context and its report.

use std::ops::Range;
use std::time::Instant;

use crate::fill::{Fill, Filled};
use crate::index::{Index, Place};
use crate::language::Counter;
use crate::pack::{self, pack};
use crate::report::{dropped, kept_units, kept_whole};
use crate::segment::{Segments, segment};
use crate::select::{self, Unit};
use crate::{
    Budget, ContextError, Document, LanguageModel, Mode, Packed, Policy, Report, StageTimes,
};

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
/// the same context. Blocks the thread for as long as counting takes.
///
/// # Errors
/// Each of [`ContextError`]; nothing is shortened beyond what the policy asks.
pub fn compress(
    documents: &[Document],
    policy: &Policy,
    limit: Option<u32>,
    model: &dyn LanguageModel,
) -> Result<Compressed, ContextError> {
    policy.check()?;
    let counter = Counter::new(model)?;
    let start = Instant::now();
    let everything = pack(documents, pack::wholes(documents, |_| true));
    let mut times = StageTimes { pack: start.elapsed().as_secs_f64(), ..StageTimes::default() };
    let prompt_tokens = counter.prompt(&everything.text)?;
    let tokens_before = prompt_tokens.saturating_sub(counter.base);
    let over = limit.filter(|&limit| prompt_tokens > limit);
    let request = Request { documents, policy, counter: &counter, tokens_before };

    if policy.mode == Mode::None {
        return match over {
            Some(limit) => Err(ContextError::Overflow { prompt_tokens, limit }),
            None => {
                let reason = "the policy asks for every document verbatim".to_owned();
                Ok(request.whole(everything, prompt_tokens, tokens_before, times, reason))
            }
        };
    }

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
    if tokens_before <= budget && policy.top_k.is_none() && policy.min_score.is_none() {
        let reason = format!("everything fits: {tokens_before} of {budget} context tokens");
        return Ok(request.whole(everything, prompt_tokens, budget, times, reason));
    }
    drop(everything);
    request.retrieve(budget, &mut times, warnings)
}

/// What every stage looks at.
struct Request<'a> {
    documents: &'a [Document],
    policy: &'a Policy,
    counter: &'a Counter<'a>,
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
        let kept = kept_whole(self.documents, self.counter, |_| true);
        let report = Report {
            mode: self.policy.mode,
            reason,
            tokens_before: self.tokens_before,
            tokens_after: self.tokens_before,
            prompt_tokens,
            budget_tokens: budget,
            kept,
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
        let clock = Instant::now();
        let segments: Vec<Segments> =
            self.documents.iter().map(|d| segment(&d.text, d.format)).collect();
        times.segment = clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let index = index(self.documents, &segments);
        let (units, ranges) = units(segments);
        times.index = clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let pinned: Vec<bool> = self.documents.iter().map(|document| document.pinned).collect();
        let ranking = select::rank(&index, &units, &pinned, self.policy);
        times.select = clock.elapsed().as_secs_f64();

        let (clock, counted) = (Instant::now(), self.counter.seconds());
        let bytes: usize = self.documents.iter().map(|document| document.text.len()).sum();
        let fill = Fill {
            documents: self.documents,
            units: &units,
            ranges: &ranges,
            index: &index,
            ranking: &ranking,
            counter: self.counter,
            budget,
            top_k: self.policy.top_k.map_or(usize::MAX, |k| k as usize),
            antecedents: budget >= select::MIN_ANTECEDENT_BUDGET,
            density: self.tokens_before as f32 / bytes.max(1) as f32,
        };
        let filled = fill.run()?;
        times.pack += clock.elapsed().as_secs_f64() - (self.counter.seconds() - counted);

        if ranking.order.is_empty() && units.iter().any(|unit| !pinned[unit.document]) {
            warnings.push("no sentence reaches min_score; none was chosen".to_owned());
        } else if ranking.order.first().is_some_and(|&best| ranking.scores[best].share == 0.0) {
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
        let mut kept = kept_whole(self.documents, self.counter, |document| document.pinned);
        kept.extend(kept_units(self.documents, &units, &ranges, &ranking.scores, &chosen));
        kept.sort_by_key(|kept| kept.span);
        let of = units.iter().filter(|unit| !pinned[unit.document]).count();
        let report = Report {
            mode: Mode::Retrieve,
            reason: format!(
                "kept the {} of {of} sentences that serve the question best within {budget} context tokens",
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
}

/// All sentences in order, and each document's range of them. Numbers become unique over all documents.
fn units(segments: Vec<Segments>) -> (Vec<Unit>, Vec<Range<usize>>) {
    let mut units: Vec<Unit> = Vec::with_capacity(segments.iter().map(|s| s.sentences.len()).sum());
    let mut ranges = Vec::with_capacity(segments.len());
    for (document, segments) in segments.into_iter().enumerate() {
        let first = units.len();
        units.extend(segments.sentences.into_iter().map(|sentence| Unit { document, sentence }));
        ranges.push(first..units.len());
    }
    (units, ranges)
}

/// Indexes every sentence with its document's title and the headings it stands under.
fn index(documents: &[Document], segments: &[Segments]) -> Index {
    let mut index = Index::default();
    let (mut sections, mut chunks) = (0, 0);
    for (document, (source, cut)) in documents.iter().zip(segments).enumerate() {
        for mut section in cut.sections.iter() {
            let mut headings = vec![source.title.as_deref().unwrap_or("")];
            headings.push(&source.text[section.heading.clone()]);
            while let Some(parent) = section.parent {
                section = &cut.sections[parent];
                headings.push(&source.text[section.heading.clone()]);
            }
            index.push_section(headings);
        }
        for sentence in &cut.sentences {
            let place = Place {
                document,
                section: sections + sentence.section,
                chunk: chunks + sentence.chunk,
            };
            index.push(&source.text[sentence.span.clone()], place);
        }
        sections += cut.sections.len();
        chunks += cut.chunks;
    }
    index
}
