//! Whether what is cited is where the answer stands.

use serde::Serialize;

use super::{
    CITED_TOKENS, Citer, Compressed, Document, Failure, Gold, Meter, Reader, Span, budget, frame,
    progress, standing, text, units,
};

/// Sources of answers beside the gold spans.
#[derive(Debug, Serialize)]
pub(in crate::commands::eval::context) struct Citations {
    pub(in crate::commands::eval::context) questions: usize,
    /// What was kept for the model to read, as `--budgets` takes it.
    pub(in crate::commands::eval::context) budget: String,
    /// Questions of whose gold something was kept: no other can be cited rightly.
    pub(in crate::commands::eval::context) gold_kept: usize,
    /// Of what the model answers.
    pub(in crate::commands::eval::context) generated: Cited,
    /// Of the sentence that holds the gold, taken for the answer.
    pub(in crate::commands::eval::context) gold_sentence: Cited,
}

/// Counts and their shares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(in crate::commands::eval::context) struct Cited {
    /// Sources named.
    pub(in crate::commands::eval::context) sources: usize,
    /// Of those, the ones that hold gold.
    pub(in crate::commands::eval::context) right: usize,
    /// Questions with a right source.
    pub(in crate::commands::eval::context) answered: usize,
    /// `right` of `sources`; null without sources.
    pub(in crate::commands::eval::context) precision: Option<f64>,
    /// `answered` of all questions.
    pub(in crate::commands::eval::context) recall: f64,
}

impl Cited {
    fn add(&mut self, sources: &[Span], gold: &Gold) {
        let right = sources.iter().filter(|source| gold.touches(**source)).count();
        self.sources += sources.len();
        self.right += right;
        self.answered += usize::from(right > 0);
    }

    fn of(mut self, questions: usize) -> Self {
        self.precision = (self.sources > 0).then(|| self.right as f64 / self.sources as f64);
        self.recall = self.answered as f64 / questions.max(1) as f64;
        self
    }
}

impl Reader<'_> {
    /// Cites the answers to `most` questions from what ours keeps.
    pub(in crate::commands::eval::context) async fn citations(
        &self,
        most: usize,
    ) -> Result<Citations, Failure> {
        let meter = Meter::new(self.file)?;
        let questions = self.questions(most);
        let bar = progress::bar("citations", questions.len() as u64);
        let (mut generated, mut gold_sentence) = (Cited::default(), Cited::default());
        let mut gold_kept = 0;
        for (number, question) in questions.iter().enumerate() {
            let documents = self.documents(question);
            let gold = Gold::of(question, documents, &[]);
            let compressed = self.select(question, &meter)?;
            gold_kept +=
                usize::from(compressed.report.kept.iter().any(|kept| gold.touches(kept.span)));
            let prompt = frame(self.file, &question.text)?
                .encode(&standing(&compressed.context.text))
                .tokens;
            let answer = self.generate(format!("cite-{number}"), prompt, CITED_TOKENS).await?;
            generated.add(&sources(documents, &compressed, &answer), &gold);
            let sentence = units(documents).into_iter().find(|unit| gold.touches(*unit));
            if let Some(sentence) = sentence {
                gold_sentence
                    .add(&sources(documents, &compressed, text(documents, sentence)), &gold);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(Citations {
            questions: questions.len(),
            budget: budget(self.kind).to_string(),
            gold_kept,
            generated: generated.of(questions.len()),
            gold_sentence: gold_sentence.of(questions.len()),
        })
    }
}

/// What is cited of an answer.
fn sources(documents: &[Document], compressed: &Compressed, answer: &str) -> Vec<Span> {
    let mut citer = Citer::ranked(documents, compressed);
    let mut citations = citer.push(answer);
    citations.extend(citer.finish());
    citations.into_iter().flat_map(|citation| citation.sources).map(|source| source.span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::eval::context::dataset::Question;

    #[test]
    fn a_source_is_right_where_it_holds_gold() {
        let documents =
            [Document { text: "One two. Three four.".to_owned(), ..Document::default() }];
        let span = |start, end| Span { document: 0, start, end };
        let question = Question {
            text: String::new(),
            haystack: 0,
            answers: Vec::new(),
            spans: vec![span(9, 14)],
        };
        let gold = Gold::of(&question, &documents, &[]);
        let mut cited = Cited::default();
        cited.add(&[span(0, 8), span(9, 20)], &gold);
        cited.add(&[], &gold);
        let cited = cited.of(2);
        assert_eq!((cited.sources, cited.right, cited.answered), (2, 1, 1));
        assert_eq!((cited.precision, cited.recall), (Some(0.5), 0.5));
        assert_eq!(Cited::default().of(2).precision, None);
    }
}
