//! What a selection is worth, given the question's gold.

use pith_context::{Document, Span};

use super::dataset::{Kind, Question};
use super::normal::{Normal, words_of};

/// Ranks at which recall is measured.
pub(super) const RANKS: [usize; 4] = [1, 2, 5, 10];
/// Rank to which gains count in nDCG.
const GAIN_RANK: usize = 10;

/// What is measured of kept text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    /// 1 if a gold span lies inside one kept passage.
    SpanKept,
    /// 1 if a right answer, normalised, stands in one kept passage.
    AnswerKept,
    /// Share of the words of the gold spans that are kept.
    EvidenceRecall,
}

impl Metric {
    /// What a data set is measured by.
    pub(super) fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Xquad => &[Self::SpanKept],
            Kind::Nq => &[Self::AnswerKept],
            Kind::Qmsum => &[Self::EvidenceRecall],
            Kind::Own => &[Self::SpanKept, Self::AnswerKept, Self::EvidenceRecall],
        }
    }

    /// As in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SpanKept => "span_kept",
            Self::AnswerKept => "answer_kept",
            Self::EvidenceRecall => "evidence_recall",
        }
    }

    /// For people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::SpanKept => "gold span kept",
            Self::AnswerKept => "answer kept",
            Self::EvidenceRecall => "evidence recall",
        }
    }
}

/// Where the gold of a question stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Gold {
    spans: Vec<Span>,
    /// Where an answer occurs, normalised.
    answers: Vec<Span>,
    /// Words of the spans.
    words: Vec<Span>,
}

impl Gold {
    /// As much of it as `metrics` need, and ranks.
    pub(super) fn of(question: &Question, documents: &[Document], metrics: &[Metric]) -> Self {
        let normals: Vec<Normal> =
            question.answers.iter().map(|answer| Normal::new(answer)).collect();
        let mut answers = Vec::new();
        let wanted = metrics.contains(&Metric::AnswerKept) || question.spans.is_empty();
        for (document, source) in documents.iter().enumerate().filter(|_| wanted) {
            let text = Normal::new(&source.text);
            let found = normals.iter().flat_map(|answer| text.find(answer));
            answers.extend(found.map(|range| Span {
                document,
                start: range.start,
                end: range.end,
            }));
        }
        let mut words = Vec::new();
        for span in &question.spans {
            let text = &documents[span.document].text[span.start..span.end];
            words.extend(words_of(text).map(|(at, word)| {
                let start = span.start + at;
                Span { start, end: start + word.len(), ..*span }
            }));
        }
        words.sort_unstable();
        words.dedup();
        Self { spans: question.spans.clone(), answers, words }
    }

    /// What keeping `passages`, sorted and apart, is worth; `None` if there is no gold of the kind.
    pub(super) fn value(&self, metric: Metric, passages: &[Span]) -> Option<f64> {
        let any = |spans: &[Span]| {
            let kept = spans.iter().any(|span| is_inside(*span, passages));
            (!spans.is_empty()).then_some(f64::from(u8::from(kept)))
        };
        match metric {
            Metric::SpanKept => any(&self.spans),
            Metric::AnswerKept => any(&self.answers),
            Metric::EvidenceRecall => {
                let kept = self.words.iter().filter(|word| is_inside(**word, passages)).count();
                (!self.words.is_empty()).then(|| kept as f64 / self.words.len() as f64)
            }
        }
    }

    /// Whether a unit holds some of the gold: of the spans, or where there are none, of an answer.
    pub(super) fn touches(&self, unit: Span) -> bool {
        let golds = if self.spans.is_empty() { &self.answers } else { &self.spans };
        golds.iter().any(|gold| {
            gold.document == unit.document && gold.start < unit.end && unit.start < gold.end
        })
    }
}

fn is_inside(span: Span, passages: &[Span]) -> bool {
    let after = passages.partition_point(|passage| {
        (passage.document, passage.start) <= (span.document, span.start)
    });
    after
        .checked_sub(1)
        .is_some_and(|at| passages[at].document == span.document && span.end <= passages[at].end)
}

/// How well units are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Ranked {
    /// At each of [`RANKS`]: relevant units among the first so many, as a share of all relevant ones.
    pub(super) recall: [f64; RANKS.len()],
    /// Normalised discounted cumulative gain at 10, relevance being 0 or 1.
    pub(super) ndcg: f64,
    /// At each of [`RANKS`]: 1 if a document with gold is among the first so many, documents being ranked by their
    /// best unit.
    pub(super) documents: [f64; RANKS.len()],
}

impl Ranked {
    /// Of `best` units, best first, where `relevant` units hold gold; `None` if none does.
    pub(super) fn of(gold: &Gold, best: &[Span], relevant: usize) -> Option<Self> {
        if relevant == 0 {
            return None;
        }
        let hits: Vec<bool> = best.iter().map(|unit| gold.touches(*unit)).collect();
        let mut documents: Vec<(usize, bool)> = Vec::new();
        for (unit, &hit) in best.iter().zip(&hits) {
            match documents.iter_mut().find(|(document, _)| *document == unit.document) {
                Some((_, found)) => *found |= hit,
                None => documents.push((unit.document, hit)),
            }
        }
        let found = |rank: usize| hits.iter().take(rank).filter(|hit| **hit).count();
        let gain = |rank: usize| 1.0 / ((rank + 2) as f64).log2();
        let gained: f64 =
            (0..GAIN_RANK).filter(|&rank| hits.get(rank) == Some(&true)).map(gain).sum();
        let most: f64 = (0..relevant.min(GAIN_RANK)).map(gain).sum();
        Some(Self {
            recall: RANKS.map(|rank| found(rank) as f64 / relevant as f64),
            ndcg: gained / most,
            documents: RANKS
                .map(|rank| f64::from(u8::from(documents.iter().take(rank).any(|(_, hit)| *hit)))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(document: usize, start: usize, end: usize) -> Span {
        Span { document, start, end }
    }

    fn gold(spans: Vec<Span>, answers: &[&str]) -> Gold {
        let documents = ["one two three four", "five six seven"]
            .map(|text| Document { text: text.to_owned(), ..Document::default() });
        let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let question = Question { text: String::new(), haystack: 0, answers, spans };
        Gold::of(&question, &documents, Metric::of(Kind::Own))
    }

    #[test]
    fn a_span_counts_only_whole_and_in_one_passage() {
        let gold = gold(vec![span(0, 4, 13)], &["six seven"]);
        let value = |metric, passages: &[Span]| gold.value(metric, passages).unwrap();
        assert_eq!(value(Metric::SpanKept, &[span(0, 4, 13)]), 1.0);
        assert_eq!(value(Metric::SpanKept, &[span(0, 0, 8), span(0, 8, 18)]), 0.0);
        assert_eq!(value(Metric::SpanKept, &[span(1, 0, 14)]), 0.0);
        assert_eq!(value(Metric::AnswerKept, &[span(1, 5, 14)]), 1.0);
        assert_eq!(value(Metric::AnswerKept, &[span(1, 5, 13)]), 0.0);
        // Of "two three" one word of two.
        assert_eq!(value(Metric::EvidenceRecall, &[span(0, 0, 7)]), 0.5);
        assert_eq!(value(Metric::EvidenceRecall, &[]), 0.0);
    }

    #[test]
    fn what_has_no_gold_is_not_measured() {
        let gold = gold(Vec::new(), &["absent"]);
        assert_eq!(gold.value(Metric::SpanKept, &[]), None);
        assert_eq!(gold.value(Metric::AnswerKept, &[span(0, 0, 18)]), None);
        assert_eq!(Ranked::of(&gold, &[span(0, 0, 3)], 0), None);
    }

    #[test]
    fn ranks_are_measured_as_by_hand() {
        let gold = gold(vec![span(0, 4, 13)], &[]);
        // Relevant: the second and fourth of four units; three of them are relevant in all.
        let best = [span(1, 0, 4), span(0, 4, 7), span(1, 5, 8), span(0, 8, 13)];
        let ranked = Ranked::of(&gold, &best, 3).unwrap();
        assert_eq!(ranked.recall, [0.0, 1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0]);
        let gain = |rank: f64| 1.0 / (rank + 1.0).log2();
        let ideal = gain(1.0) + gain(2.0) + gain(3.0);
        assert!((ranked.ndcg - (gain(2.0) + gain(4.0)) / ideal).abs() < 1e-12);
        assert_eq!(ranked.documents, [0.0, 1.0, 1.0, 1.0]);
    }
}
