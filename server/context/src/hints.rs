//! What the caller says about parts of a document: keep, leave out, weigh.

use std::ops::Range;

use crate::select::Unit;
use crate::{ContextError, Document};

/// Weights of documents and spans lie between 1 / this and this.
pub const MAX_WEIGHT: f32 = 8.0;
/// What a weight counts: deviations from the mean for each factor of e.
const EMPHASIS: f32 = 1.0;

/// Something said about a part of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Hint {
    /// Bytes of the text. Sentences that it touches are meant, whole.
    pub span: Range<usize>,
    /// What about it.
    pub kind: HintKind,
}

/// What is said about a part of a document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HintKind {
    /// Keep it, whatever the question; an error if the budget is too small for it.
    Protect,
    /// Leave it out, whatever the question, also where everything else is kept.
    Exclude,
    /// Count it more (above 1) or less; 1 changes nothing. 1 / [`MAX_WEIGHT`] to [`MAX_WEIGHT`].
    Emphasize(f32),
}

/// What hints come to for each unit.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    units: Vec<Mark>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// Kept because its whole document is.
    pinned: bool,
    protected: bool,
    excluded: bool,
    /// What is added to its value.
    emphasis: f32,
}

impl Marks {
    /// `pinned`: documents that are kept whole, by their place.
    pub(crate) fn new(documents: &[Document], units: &[Unit<'_>], pinned: &[bool]) -> Self {
        let mut marks = Vec::with_capacity(units.len());
        for units in units.chunk_by(|a, b| a.document == b.document) {
            let document = &documents[units[0].document];
            let mut hints: Vec<&Hint> = document.hints.iter().collect();
            hints.sort_by_key(|hint| hint.span.start);
            let mut hints = hints.as_slice();
            for unit in units {
                let span = &unit.sentence.span;
                // Hints do not overlap: those that end before this sentence are done with.
                while hints.first().is_some_and(|hint| hint.span.end <= span.start) {
                    hints = &hints[1..];
                }
                let mut mark = Mark {
                    pinned: pinned[unit.document],
                    // A pinned document that is not kept whole has parts left out; the others stay.
                    protected: document.pinned && !pinned[unit.document],
                    emphasis: EMPHASIS * document.weight.ln(),
                    ..Mark::default()
                };
                for hint in hints.iter().take_while(|hint| hint.span.start < span.end) {
                    match hint.kind {
                        HintKind::Protect => mark.protected = true,
                        HintKind::Exclude => mark.excluded = true,
                        HintKind::Emphasize(weight) => mark.emphasis += EMPHASIS * weight.ln(),
                    }
                }
                marks.push(mark);
            }
        }
        Self { units: marks }
    }

    /// Of some units, numbered anew.
    pub(crate) fn of(&self, units: impl Iterator<Item = usize>) -> Self {
        Self { units: units.map(|unit| self.units[unit]).collect() }
    }

    /// Whether a unit may be chosen, and need not be.
    pub(crate) fn is_free(&self, unit: usize) -> bool {
        let Mark { pinned, protected, excluded, .. } = self.units[unit];
        !(pinned || protected || excluded)
    }

    /// Units that must be kept, those of whole documents aside. Where one sentence is both protected and excluded, it is
    /// left out: a secret that slips through does more harm than a sentence that is missing.
    pub(crate) fn protected(&self) -> impl Iterator<Item = usize> {
        let kept = |(_, mark): &(usize, &Mark)| mark.protected && !mark.excluded && !mark.pinned;
        self.units.iter().enumerate().filter(kept).map(|(unit, _)| unit)
    }

    /// What is added to a unit's value; 0 where nothing was said.
    pub(crate) fn emphasis(&self, unit: usize) -> f32 {
        self.units[unit].emphasis
    }
}

/// Checks the hints and weight of a document.
pub(crate) fn check(document: &Document) -> Result<(), ContextError> {
    let wrong = |field: &'static str, message: String| {
        Err(ContextError::Hint { document: document.id.clone(), field, message })
    };
    let fits = |weight: f32| (1.0 / MAX_WEIGHT..=MAX_WEIGHT).contains(&weight);
    if !fits(document.weight) {
        return wrong("weight", format!("must be 1/{MAX_WEIGHT} to {MAX_WEIGHT}"));
    }
    let mut spans: Vec<&Range<usize>> = Vec::with_capacity(document.hints.len());
    for Hint { span, kind } in &document.hints {
        if span.is_empty() || document.text.get(span.clone()).is_none() {
            return wrong("hints", "a span is empty or not within the text".to_owned());
        }
        if matches!(kind, HintKind::Emphasize(weight) if !fits(*weight)) {
            return wrong("hints", format!("a weight must be 1/{MAX_WEIGHT} to {MAX_WEIGHT}"));
        }
        spans.push(span);
    }
    spans.sort_by_key(|span| span.start);
    match spans.windows(2).any(|pair| pair[0].end > pair[1].start) {
        true => wrong("hints", "spans overlap".to_owned()),
        false => Ok(()),
    }
}

/// Whether something of it is to be left out.
pub(crate) fn excludes(document: &Document) -> bool {
    document.hints.iter().any(|hint| hint.kind == HintKind::Exclude)
}

/// Whether a part of `span`, of its text, must be kept.
pub(crate) fn protects(document: &Document, span: &Range<usize>) -> bool {
    document.pinned
        || document.hints.iter().any(|hint| {
            hint.kind == HintKind::Protect
                && hint.span.start < span.end
                && span.start < hint.span.end
        })
}
