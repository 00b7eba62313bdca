//! What the served model makes of a context: how likely it finds the right answer, what it answers, and what of that is
//! cited rightly; with everything kept, with ours, with as much text drawn by chance, and with the question alone.

use std::sync::Arc;

use pith_context::{Citer, Compressed, Document, Span};
use pith_engine::Engine;
use pith_engine::request::{Event, GenerateRequest, SamplingParams, ScoreRequest, StopConditions};
use pith_model::ModelFile;
use pith_model::tokenizer::Special;

use super::baseline::{Baseline, Scores};
use super::budget::Budget;
use super::dataset::{Dataset, Kind, Question, drawn};
use super::fill;
use super::haystack::{Haystack, everything, text, units};
use super::meter::{Meter, frame, standing};
use super::metric::Gold;
use super::ours::Ours;
use super::signals::Signals;
use crate::commands::{Failure, local, progress};
use crate::hub::Resolved;

mod answers;
mod citations;
mod likelihood;

pub(super) use answers::{Answers, Worth};
pub(super) use citations::{Citations, Cited};
pub(super) use likelihood::{Change, Likelihood, Read};

/// Of the context's tokens, what is kept for the model to read.
const SHARE: Budget = Budget::Share(0.25);
/// The same where a quarter of the haystack is more than a model takes.
const TOKENS: Budget = Budget::Tokens(512);
/// Tokens of an answer whose citations are looked at: a sentence or two.
const CITED_TOKENS: u32 = 64;
/// Tokens of an answer that is compared with the gold ones.
const ANSWER_TOKENS: u32 = 32;
/// Longest prompt that is read, however long a context the model has: the memory of keys and values is taken at once.
const MAX_PROMPT_TOKENS: usize = 16_384;
/// The seed of the selection by chance.
const RANDOM_SEED: u64 = 1;

/// How much is kept for the model to read.
pub(super) fn budget(kind: Kind) -> Budget {
    if kind == Kind::Xquad { TOKENS } else { SHARE }
}

/// How many questions each part is asked; 0 leaves it out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) likelihood: usize,
    pub(super) answers: usize,
    pub(super) citations: usize,
}

/// What is read, and who reads it.
pub(super) struct Reader<'a> {
    pub(super) dataset: &'a Dataset,
    pub(super) kind: Kind,
    pub(super) file: &'a ModelFile,
    pub(super) seed: u64,
    pub(super) ours: &'a Ours<'a>,
    engine: Engine,
}

/// What stands before a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Context {
    Full,
    Pith,
    /// As much as ours keeps, drawn by chance.
    Random,
    /// The question alone.
    Nothing,
}

impl Context {
    /// As in JSON and in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Pith => "pith",
            Self::Random => "random",
            Self::Nothing => "nothing",
        }
    }
}

impl<'a> Reader<'a> {
    /// Loads the model.
    pub(super) fn load(
        dataset: &'a Dataset,
        kind: Kind,
        file: &'a ModelFile,
        model: &Resolved,
        settings: local::EngineSettings,
        seed: u64,
        ours: &'a Ours<'a>,
    ) -> Result<Self, Failure> {
        let kv_tokens = file.plan().context.min(MAX_PROMPT_TOKENS);
        let settings = local::EngineSettings { kv_tokens, ..settings };
        let (engine, _) = local::engine(local::open(model)?, &settings)?;
        Ok(Self { dataset, kind, file, seed, ours, engine })
    }

    /// So many questions with an answer, drawn by the seed.
    fn questions(&self, most: usize) -> Vec<&'a Question> {
        let answered: Vec<&Question> =
            self.dataset.questions.iter().filter(|question| !question.answers.is_empty()).collect();
        drawn(answered.len(), most, self.seed).into_iter().map(|at| answered[at]).collect()
    }

    fn documents(&self, question: &Question) -> &'a [Document] {
        &self.dataset.haystacks[question.haystack]
    }

    /// What ours keeps for a question.
    fn select(&self, question: &Question, meter: &Meter<'_>) -> Result<Compressed, Failure> {
        let budget = budget(self.kind);
        let documents = self.documents(question);
        self.ours.select(documents, &question.text, budget, meter)?.ok_or_else(|| {
            Failure::new(format!(
                "a budget of {} holds no sentence for {:?}",
                budget.label(),
                question.text
            ))
        })
    }

    /// The prompt of a question in `context`.
    fn prompt(
        &self,
        question: &Question,
        context: Context,
        meter: &Meter<'_>,
    ) -> Result<Vec<u32>, Failure> {
        let documents = self.documents(question);
        let packed = match context {
            Context::Nothing => {
                return Ok(frame(self.file, &question.text)?.encode(&[]).tokens);
            }
            Context::Pith => self.select(question, meter)?.context,
            Context::Full => everything(documents),
            Context::Random => {
                let haystack = Haystack::new(documents, meter);
                let budget = budget(self.kind).tokens(haystack.tokens);
                let scores = Scores {
                    haystack: &haystack,
                    plain: Signals::default(),
                    titled: None,
                    salt: question.haystack as u64,
                };
                let order = scores.order(Baseline::Random(RANDOM_SEED)).unwrap_or_default();
                let guess = fill::estimated(&haystack, &order, &[budget])[0];
                let (passages, _) = fill::exact(&haystack, &order, budget, guess, meter);
                pith_context::pack(documents, passages)
            }
        };
        Ok(frame(self.file, &question.text)?.encode(&standing(&packed.text)).tokens)
    }

    /// What the model says after `prompt`, always taking the likeliest token.
    async fn generate(
        &self,
        id: String,
        prompt: Vec<u32>,
        max_tokens: u32,
    ) -> Result<String, Failure> {
        let request = GenerateRequest {
            id,
            tenant: Arc::from("eval"),
            prompt,
            sampling: SamplingParams::default(),
            stop: StopConditions { ignore_end: false, ..StopConditions::exactly(max_tokens) },
            deadline: None,
            prefix_cache: false,
        };
        let mut events = self.engine.submit(request).map_err(too_long)?;
        let mut answer = String::new();
        while let Some(event) = events.next().await {
            if let Event::Tokens { text, .. } = event.map_err(Failure::new)? {
                answer.push_str(&text);
            }
        }
        Ok(answer)
    }

    /// ln-probabilities of the tokens of `answer` after `prompt`.
    async fn score(&self, prompt: &[u32], answer: &str) -> Result<Vec<f32>, Failure> {
        let answer = self.file.tokenizer().encode(answer, Special::Plain);
        let request = ScoreRequest {
            tenant: Arc::from("eval"),
            tokens: [prompt, &answer].concat(),
            from: prompt.len(),
            deadline: None,
            prefix_cache: false,
        };
        self.engine.score(request).await.map_err(too_long)
    }
}

fn too_long(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("the model cannot read a context: {error}")).hint(
        "reading needs contexts that fit the model whole; give --model one with a longer context",
    )
}
