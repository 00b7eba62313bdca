//! What each way of selecting keeps of every question's gold, at every budget.

use std::collections::BTreeMap;
use std::num::NonZero;

use pith_context::Span;
use pith_model::ModelFile;

use super::baseline::{Baseline, Scores, Smoothing};
use super::budget::Budget;
use super::dataset::{Dataset, Question};
use super::haystack::Haystack;
use super::meter::Meter;
use super::metric::{Gold, Metric, RANKS, Ranked};
use super::ours::Ours;
use super::signals::Searchable;
use super::vectors::Vectors;
use super::{fill, ours};
use crate::commands::{Failure, progress};

/// Seeds of chance; their results are averaged.
const RANDOM_SEEDS: [u64; 3] = [1, 2, 3];

/// A way of selecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Method {
    Pith,
    Zsum,
    Rrf,
    Dense,
    Bm25,
    Random,
    Lead,
}

impl Method {
    /// As in JSON and in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pith => "pith",
            Self::Zsum => "zsum",
            Self::Rrf => "rrf",
            Self::Dense => "dense",
            Self::Bm25 => "bm25",
            Self::Random => "random",
            Self::Lead => "lead",
        }
    }
}

/// What a run is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) dataset: &'a Dataset,
    pub(super) metrics: &'static [Metric],
    pub(super) budgets: &'a [Budget],
    /// The budget whose selection is looked at for ranks: an index of `budgets`.
    pub(super) ranked_at: usize,
    pub(super) file: &'a ModelFile,
    pub(super) vectors: Option<&'a Vectors<'a>>,
    /// 0 = one per core.
    pub(super) threads: usize,
    pub(super) ours: &'a Ours<'a>,
}

/// What a method keeps for one question.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    /// By metric, then budget; `None` without gold of the kind.
    pub(super) values: Vec<Vec<Option<f64>>>,
    /// Tokens spent as a share of the budget, by budget.
    pub(super) used: Vec<f64>,
    pub(super) ranked: Option<Ranked>,
}

/// What came out for one question.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Context tokens of everything.
    pub(super) tokens: u32,
    pub(super) methods: BTreeMap<Method, Kept>,
    /// Estimated worth of each setting of the grid: by setting, metric and budget.
    pub(super) sweep: Vec<f32>,
}

impl Run<'_> {
    /// Every method but [`Method::Zsum`], and each setting of that by estimate.
    pub(super) fn rows(&self, grid: &[Smoothing]) -> Result<Vec<Row>, Failure> {
        self.each("questions", |trial| trial.row(grid))
    }

    /// What each of `settings` keeps for every question, exactly.
    pub(super) fn settings(&self, settings: &[Smoothing]) -> Result<Vec<Vec<Kept>>, Failure> {
        self.each("best settings", |trial| {
            let kept =
                settings.iter().filter_map(|smoothing| trial.baseline(Baseline::Zsum(*smoothing)));
            Ok(kept.collect())
        })
    }

    /// Does `work` for every question on all threads; results are in the order of the questions.
    fn each<T: Send>(
        &self,
        label: &str,
        work: impl Fn(&Trial<'_>) -> Result<T, Failure> + Sync,
    ) -> Result<Vec<T>, Failure> {
        let questions = &self.dataset.questions;
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = if self.threads == 0 { cores } else { self.threads };
        let share = questions.len().div_ceil(threads).max(1);
        let bar = progress::bar(label, questions.len() as u64);
        let part = |first: usize, part: &[Question]| -> Result<Vec<T>, Failure> {
            let meter = Meter::new(self.file)?;
            let mut results = Vec::with_capacity(part.len());
            // Questions about one haystack stand together.
            let mut at = 0;
            for group in part.chunk_by(|a, b| a.haystack == b.haystack) {
                let haystack = Haystack::new(&self.dataset.haystacks[group[0].haystack], &meter);
                let plain = Searchable::plain(&haystack, self.vectors)?;
                let titled = Searchable::titled(&haystack, self.vectors)?;
                for question in group {
                    let scores = Scores {
                        haystack: &haystack,
                        plain: plain.score(&question.text)?,
                        titled: titled.as_ref().map(|t| t.score(&question.text)).transpose()?,
                        salt: (first + at) as u64,
                    };
                    let trial = Trial::new(self, question, scores, &meter);
                    results.push(work(&trial)?);
                    at += 1;
                    bar.inc(1);
                }
            }
            Ok(results)
        };
        let results: Vec<Result<Vec<T>, Failure>> = std::thread::scope(|scope| {
            let part = &part;
            let parts = questions.chunks(share).enumerate();
            let threads: Vec<_> = parts
                .map(|(at, questions)| scope.spawn(move || part(at * share, questions)))
                .collect();
            let panicked = |_| Err(Failure::new("a selecting thread panicked"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        });
        bar.finish_and_clear();
        Ok(results.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

/// A question about to be selected for.
struct Trial<'a> {
    run: &'a Run<'a>,
    question: &'a Question,
    meter: &'a Meter<'a>,
    scores: Scores<'a>,
    gold: Gold,
    /// Units that hold gold.
    relevant: usize,
    /// The budgets in context tokens.
    budgets: Vec<u32>,
}

impl<'a> Trial<'a> {
    fn new(
        run: &'a Run<'a>,
        question: &'a Question,
        scores: Scores<'a>,
        meter: &'a Meter<'a>,
    ) -> Self {
        let haystack = scores.haystack;
        let gold = Gold::of(question, haystack.documents, run.metrics);
        Self {
            relevant: haystack.units.iter().filter(|unit| gold.touches(**unit)).count(),
            budgets: run.budgets.iter().map(|budget| budget.tokens(haystack.tokens)).collect(),
            scores,
            run,
            question,
            meter,
            gold,
        }
    }

    fn row(&self, grid: &[Smoothing]) -> Result<Row, Failure> {
        let mut methods = BTreeMap::from([(Method::Pith, self.ours()?)]);
        let ranked = [
            (Method::Rrf, Baseline::Rrf),
            (Method::Dense, Baseline::Dense),
            (Method::Bm25, Baseline::Bm25),
            (Method::Lead, Baseline::Lead),
        ];
        for (method, baseline) in ranked {
            methods.extend(self.baseline(baseline).map(|kept| (method, kept)));
        }
        let random: Vec<Kept> =
            RANDOM_SEEDS.iter().filter_map(|seed| self.baseline(Baseline::Random(*seed))).collect();
        methods.extend(mean(&random).map(|kept| (Method::Random, kept)));
        Ok(Row { tokens: self.scores.haystack.tokens, methods, sweep: self.sweep(grid) })
    }

    fn ours(&self) -> Result<Kept, Failure> {
        let documents = self.scores.haystack.documents;
        let (mut passages, mut used, mut ranked) = (Vec::new(), Vec::new(), None);
        for (at, (&budget, &tokens)) in self.run.budgets.iter().zip(&self.budgets).enumerate() {
            let compressed =
                self.run.ours.select(documents, &self.question.text, budget, self.meter)?;
            let spent = compressed.as_ref().map_or(0, |compressed| compressed.report.tokens_after);
            used.push(f64::from(spent) / f64::from(tokens.max(1)));
            if at == self.run.ranked_at {
                let ranking = compressed.as_ref().and_then(ours::ranking);
                ranked = ranking.and_then(|best| Ranked::of(&self.gold, &best, self.relevant));
            }
            passages.push(compressed.as_ref().map(ours::passages).unwrap_or_default());
        }
        Ok(self.kept(&passages, used, ranked))
    }

    fn baseline(&self, baseline: Baseline) -> Option<Kept> {
        let haystack = self.scores.haystack;
        let order = self.scores.order(baseline)?;
        let held = fill::estimated(haystack, &order, &self.budgets);
        let filled = self.budgets.iter().zip(held);
        let filled =
            filled.map(|(&budget, held)| fill::exact(haystack, &order, budget, held, self.meter));
        let (passages, spent): (Vec<_>, Vec<_>) = filled.unzip();
        let used = spent.iter().zip(&self.budgets);
        let used =
            used.map(|(&spent, &budget)| f64::from(spent) / f64::from(budget.max(1))).collect();
        let best: Vec<Span> = order.iter().map(|&unit| haystack.units[unit]).collect();
        Some(self.kept(&passages, used, Ranked::of(&self.gold, &best, self.relevant)))
    }

    fn kept(&self, passages: &[Vec<Span>], used: Vec<f64>, ranked: Option<Ranked>) -> Kept {
        let of =
            |metric: &Metric| passages.iter().map(|kept| self.gold.value(*metric, kept)).collect();
        Kept { values: self.run.metrics.iter().map(of).collect(), used, ranked }
    }

    fn sweep(&self, grid: &[Smoothing]) -> Vec<f32> {
        let haystack = self.scores.haystack;
        let mut values =
            Vec::with_capacity(grid.len() * self.run.metrics.len() * self.budgets.len());
        for smoothing in grid {
            let order = self.scores.order(Baseline::Zsum(*smoothing)).unwrap_or_default();
            let held = fill::estimated(haystack, &order, &self.budgets);
            let passages: Vec<Vec<Span>> = held
                .into_iter()
                .map(|held| {
                    let mut chosen = order[..held].to_vec();
                    chosen.sort_unstable();
                    haystack.passages(&chosen)
                })
                .collect();
            for metric in self.run.metrics {
                let worth = passages
                    .iter()
                    .map(|kept| self.gold.value(*metric, kept).unwrap_or(0.0) as f32);
                values.extend(worth);
            }
        }
        values
    }
}

/// The mean of what several runs of a method keep.
fn mean(runs: &[Kept]) -> Option<Kept> {
    let count = runs.len() as f64;
    let mut mean = runs.first()?.clone();
    for run in &runs[1..] {
        let sums = mean.values.iter_mut().flatten().zip(run.values.iter().flatten());
        sums.for_each(|(sum, value)| *sum = sum.zip(*value).map(|(a, b)| a + b));
        mean.used.iter_mut().zip(&run.used).for_each(|(sum, value)| *sum += value);
        mean.ranked = mean.ranked.zip(run.ranked).map(|(mut sum, value)| {
            for at in 0..RANKS.len() {
                sum.recall[at] += value.recall[at];
                sum.documents[at] += value.documents[at];
            }
            sum.ndcg += value.ndcg;
            sum
        });
    }
    mean.values.iter_mut().flatten().flatten().for_each(|value| *value /= count);
    mean.used.iter_mut().for_each(|value| *value /= count);
    if let Some(ranked) = &mut mean.ranked {
        ranked.recall.iter_mut().chain(&mut ranked.documents).for_each(|value| *value /= count);
        ranked.ndcg /= count;
    }
    Some(mean)
}
