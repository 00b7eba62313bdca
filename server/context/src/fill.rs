//! The budget is spent: best sentences first, by estimate, then measured on the real prompt and put right.

mod arrange;
mod duplicates;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;

use crate::hints::Marks;
use crate::index::terms::Term;
use crate::language::Counter;
use crate::pack::{GAP, Packed, header, pack};
use crate::prepared::Prepared;
use crate::select::{Ranking, Unit, leans_on_previous};
use crate::{ContextError, Document, Order, Span};
use arrange::{Passage, arrange};
use duplicates::Kept;

/// Sentences in a row that no longer fit before the budget counts as spent.
const MAX_MISSES: usize = 64;
/// Times the real prompt is measured and more is tried.
const MAX_ROUNDS: usize = 6;
/// Sentences measured one by one when none seems to fit.
const MAX_SMALLEST: usize = 16;

/// What the filling works on.
pub(crate) struct Fill<'a> {
    pub(crate) documents: &'a [Document],
    pub(crate) prepared: &'a [&'a Prepared],
    pub(crate) units: &'a [Unit<'a>],
    /// Each document's units.
    pub(crate) ranges: &'a [Range<usize>],
    /// Documents kept whole; their units are not chosen.
    pub(crate) wholes: &'a [Span],
    pub(crate) marks: &'a Marks,
    pub(crate) ranking: &'a Ranking,
    pub(crate) order: Order,
    pub(crate) counter: &'a Counter<'a>,
    /// Most context tokens.
    pub(crate) budget: u32,
    /// Most sentences chosen by score.
    pub(crate) top_k: usize,
    /// Whether a sentence that leans on the one before brings it along.
    pub(crate) antecedents: bool,
    /// Tokens a byte of the documents takes on average.
    pub(crate) density: f32,
}

/// What is kept, and what it costs.
#[derive(Debug)]
pub(crate) struct Filled {
    /// Units kept, in order; those of documents kept whole are not among them.
    pub(crate) chosen: Vec<Chosen>,
    /// Sentences left out because they repeat a kept one.
    pub(crate) duplicates: usize,
    pub(crate) packed: Packed,
    /// Exact tokens of the prompt with `packed` in it.
    pub(crate) prompt_tokens: u32,
}

/// A unit that is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen {
    pub(crate) unit: usize,
    /// Tokens of its text by itself.
    pub(crate) tokens: u32,
    pub(crate) reason: Reason,
}

/// Why a unit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its rank.
    Rank,
    /// The next unit leans on it.
    Antecedent,
    /// The caller says so.
    Protected,
}

impl Fill<'_> {
    /// Spends the budget.
    pub(crate) fn run(&self) -> Result<Filled, ContextError> {
        let mut state = State::new(self);
        self.marks.protected().for_each(|unit| state.protect(unit));
        let must = self.measure(&state)?;
        if must.tokens > self.budget {
            return Err(ContextError::PinnedTooLarge { needed: must.tokens, budget: self.budget });
        }
        state.estimate = i64::from(must.tokens);
        let mut measured = must;
        // How far the estimate was off at the last measurement.
        let mut bias = 0;
        for _ in 0..MAX_ROUNDS {
            if !state.grow(i64::from(self.budget) - bias) {
                break;
            }
            measured = self.measure(&state)?;
            let mut removals = 1;
            while measured.tokens > self.budget {
                bias = bias.max(i64::from(measured.tokens) - state.estimate);
                state.shrink(i64::from(self.budget) - bias, removals);
                removals *= 2;
                measured = self.measure(&state)?;
            }
            bias = i64::from(measured.tokens) - state.estimate;
        }
        if measured.packed.text.is_empty() && !self.ranking.order.is_empty() {
            // Nothing is protected either, or it would be in the text.
            measured = self.smallest(&mut state)?;
        }
        Ok(Filled {
            chosen: state.chosen(),
            duplicates: state.duplicates,
            packed: measured.packed,
            prompt_tokens: measured.prompt_tokens,
        })
    }

    /// The best of the shortest sentences that fits by exact count; none is an error.
    fn smallest(&self, state: &mut State<'_>) -> Result<Measured, ContextError> {
        let candidates = &self.ranking.order[..self.ranking.order.len().min(self.top_k)];
        let mut shortest: Vec<(usize, usize)> = candidates.iter().copied().enumerate().collect();
        shortest.sort_by_key(|&(rank, unit)| (self.units[unit].sentence.span.len(), rank));
        shortest.truncate(MAX_SMALLEST);
        shortest.sort_unstable();
        let mut needed = u32::MAX;
        for (_, unit) in shortest {
            state.chosen = BTreeSet::from([unit]);
            let measured = self.measure(state)?;
            if measured.tokens <= self.budget {
                return Ok(measured);
            }
            needed = needed.min(measured.tokens);
        }
        Err(ContextError::BudgetTooSmall { needed, budget: self.budget })
    }

    /// The terms of a unit.
    fn terms(&self, unit: usize) -> &[Term] {
        let document = self.units[unit].document;
        self.prepared[document].index.terms(unit - self.ranges[document].start)
    }

    /// Packs what is chosen and counts it exactly.
    fn measure(&self, state: &State<'_>) -> Result<Measured, ContextError> {
        let packed = pack(self.documents, self.passages(&state.chosen));
        let prompt_tokens = self.counter.prompt(&packed.text)?;
        Ok(Measured {
            packed,
            prompt_tokens,
            tokens: prompt_tokens.saturating_sub(self.counter.base),
        })
    }

    /// Documents kept whole and runs of chosen units, as the order asked for has them. A document all of whose units are
    /// chosen is whole.
    fn passages(&self, chosen: &BTreeSet<usize>) -> Vec<Span> {
        // What is kept whatever the question stands first where the best does.
        let mut passages: Vec<Passage> =
            self.wholes.iter().map(|&span| Passage { span, value: f32::INFINITY }).collect();
        let mut units = chosen.iter().copied().peekable();
        while let Some(first) = units.next() {
            let document = self.units[first].document;
            let range = &self.ranges[document];
            let mut last = first;
            while let Some(next) = units.next_if(|&next| next == last + 1 && range.contains(&next))
            {
                last = next;
            }
            let (start, end) = if *range == (first..last + 1) {
                (0, self.documents[document].text.len())
            } else {
                (self.units[first].sentence.span.start, self.units[last].sentence.span.end)
            };
            let value = |unit: usize| self.ranking.scores[unit].value;
            passages.push(Passage {
                span: Span { document, start, end },
                value: (first..=last).map(value).fold(f32::NEG_INFINITY, f32::max),
            });
        }
        arrange(passages, self.order, self.documents.len() == 1)
    }
}

/// A packed context and its exact cost.
struct Measured {
    packed: Packed,
    prompt_tokens: u32,
    /// Context tokens.
    tokens: u32,
}

/// A choice in the making.
struct State<'a> {
    fill: &'a Fill<'a>,
    chosen: BTreeSet<usize>,
    antecedents: BTreeSet<usize>,
    protected: BTreeSet<usize>,
    /// Chosen units, but for protected ones, in the order of their choice, best first.
    order: Vec<usize>,
    /// Units that did not fit when measured, or repeat another.
    rejected: BTreeSet<usize>,
    duplicates: usize,
    kept: Kept,
    /// Chosen units of each document.
    in_document: Vec<usize>,
    /// Tokens of each unit once counted.
    counts: Vec<Option<u32>>,
    gap: i64,
    /// Estimated context tokens of what is chosen.
    estimate: i64,
}

impl<'a> State<'a> {
    fn new(fill: &'a Fill<'a>) -> Self {
        Self {
            fill,
            chosen: BTreeSet::new(),
            antecedents: BTreeSet::new(),
            protected: BTreeSet::new(),
            order: Vec::new(),
            rejected: BTreeSet::new(),
            duplicates: 0,
            kept: Kept::default(),
            in_document: vec![0; fill.documents.len()],
            counts: vec![None; fill.units.len()],
            gap: i64::from(fill.counter.count(GAP)),
            estimate: 0,
        }
    }

    /// Chooses in order of rank while the estimate stays within `ceiling`. Whether anything was added.
    fn grow(&mut self, ceiling: i64) -> bool {
        let before = self.order.len();
        let mut misses = 0;
        for &unit in &self.fill.ranking.order {
            let left = ceiling - self.estimate;
            let spent = misses >= MAX_MISSES && !self.order.is_empty();
            if left <= 0 || spent || self.order.len() - self.antecedents.len() >= self.fill.top_k {
                break;
            }
            if self.chosen.contains(&unit) || self.rejected.contains(&unit) {
                continue;
            }
            let rough = self.fill.units[unit].sentence.span.len() as f32 * self.fill.density;
            if rough > 2.0 * left as f32 + 16.0 || self.cost(unit) > left {
                misses += 1;
                continue;
            }
            if self.kept.repeats(self.fill.terms(unit)) {
                self.rejected.insert(unit);
                self.duplicates += 1;
                continue;
            }
            self.add(unit);
            if let Some(previous) = self.antecedent(unit)
                && self.cost(previous) <= ceiling - self.estimate
            {
                self.add(previous);
                self.antecedents.insert(previous);
            }
        }
        self.order.len() > before
    }

    /// Takes back the latest choices: `removals` at least, and on until the estimate is within `ceiling`.
    fn shrink(&mut self, ceiling: i64, removals: usize) {
        let mut removed = 0;
        while removed < removals || self.estimate > ceiling {
            let Some(unit) = self.order.pop() else { return };
            self.chosen.remove(&unit);
            self.antecedents.remove(&unit);
            self.in_document[self.fill.units[unit].document] -= 1;
            self.kept.pop(self.fill.terms(unit));
            self.estimate -= self.cost(unit);
            self.rejected.insert(unit);
            removed += 1;
        }
    }

    fn add(&mut self, unit: usize) {
        self.estimate += self.cost(unit);
        self.order.push(unit);
        self.keep(unit);
    }

    /// Keeps a unit for good.
    fn protect(&mut self, unit: usize) {
        self.protected.insert(unit);
        self.keep(unit);
    }

    fn keep(&mut self, unit: usize) {
        self.chosen.insert(unit);
        self.in_document[self.fill.units[unit].document] += 1;
        self.kept.push(self.fill.terms(unit));
    }

    /// The sentence before, if `unit` leans on it and it is not chosen yet.
    fn antecedent(&self, unit: usize) -> Option<usize> {
        let previous = unit.checked_sub(1)?;
        let (before, this) = (self.fill.units[previous], self.fill.units[unit]);
        let near =
            before.document == this.document && before.sentence.section == this.sentence.section;
        let free = self.fill.marks.is_free(previous)
            && !self.chosen.contains(&previous)
            && !before.sentence.heading;
        let text = &self.fill.documents[this.document].text[this.sentence.span.clone()];
        (self.fill.antecedents && near && free && leans_on_previous(text)).then_some(previous)
    }

    /// What is chosen, in order.
    fn chosen(&mut self) -> Vec<Chosen> {
        let units: Vec<usize> = self.chosen.iter().copied().collect();
        let chosen = |unit| Chosen {
            unit,
            tokens: self.count(unit),
            reason: if self.protected.contains(&unit) {
                Reason::Protected
            } else if self.antecedents.contains(&unit) {
                Reason::Antecedent
            } else {
                Reason::Rank
            },
        };
        units.into_iter().map(chosen).collect()
    }

    /// Tokens of a unit by itself, counted when first asked for.
    fn count(&mut self, unit: usize) -> u32 {
        let fill = self.fill;
        let Unit { document, sentence } = fill.units[unit];
        let text = &fill.documents[document].text[sentence.span.clone()];
        *self.counts[unit].get_or_insert_with(|| fill.counter.count(text))
    }

    /// Estimated tokens by which choosing `unit` lengthens the context.
    fn cost(&mut self, unit: usize) -> i64 {
        let fill = self.fill;
        let document = fill.units[unit].document;
        let joint = if self.in_document[document] == 0 {
            let header = header(fill.documents, document);
            if header.is_empty() { 0 } else { i64::from(fill.counter.count(&header)) + 1 }
        } else {
            let range = &fill.ranges[document];
            let touches = |other: usize| range.contains(&other) && self.chosen.contains(&other);
            let joined = i64::from(touches(unit.wrapping_sub(1))) + i64::from(touches(unit + 1));
            self.gap * (1 - joined)
        };
        i64::from(self.count(unit)) + joint
    }
}
