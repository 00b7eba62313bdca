//! Everything a run comes to.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::baseline::Smoothing;
use super::metric::{RANKS, Ranked};
use super::reading::{Answers, Citations, Likelihood};
use super::selection::{Kept, Method, Row, Run};
use super::times::Times;
use super::tuning::{Comparison, Tuned};

/// Names and values in an order of their own; a JSON object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ordered<T>(pub(super) Vec<(String, T)>);

impl<T: Serialize> Serialize for Ordered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

/// What a run was.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Settings {
    pub(super) version: &'static str,
    pub(super) dataset: &'static str,
    pub(super) path: String,
    /// Whose tokens are counted.
    pub(super) model: String,
    /// Who embeds, if anybody.
    pub(super) embedder: Option<String>,
    pub(super) seed: u64,
    pub(super) questions: usize,
    pub(super) haystacks: usize,
    /// Over all haystacks.
    pub(super) documents: usize,
    /// Of a question's haystack, mean over questions.
    pub(super) context_tokens: f64,
    /// The budget whose selection is looked at for ranks.
    pub(super) ranked_at: String,
    /// How the haystacks came about, for people.
    pub(super) protocol: String,
    /// The setting of `zsum` best over all budgets.
    pub(super) zsum: Smoothing,
    /// Settings of `zsum` that were tried.
    pub(super) zsum_settings_tried: usize,
}

/// What one way of selecting comes to: means over questions.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Worth {
    /// By metric, then budget: the share kept.
    #[serde(flatten)]
    pub(super) shares: BTreeMap<&'static str, Ordered<f64>>,
    /// By budget: the share of it that was spent.
    pub(super) realised: Ordered<f64>,
    /// By rank: relevant sentences among the first so many.
    pub(super) recall_at: Option<Ordered<f64>>,
    pub(super) ndcg_at_10: Option<f64>,
    /// By rank: questions with a gold document among the first so many.
    pub(super) document_recall_at: Option<Ordered<f64>>,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) settings: Settings,
    /// The shares again, by metric, method and budget.
    #[serde(flatten)]
    pub(super) shares: BTreeMap<&'static str, Ordered<Ordered<f64>>>,
    /// Under each method's name.
    #[serde(flatten)]
    pub(super) methods: Ordered<Worth>,
    /// Ours minus the best baseline, tuned on this very data.
    pub(super) intervals: Vec<Comparison>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) likelihood: Option<Likelihood>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answers: Option<Answers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) citations: Option<Citations>,
    pub(super) times: Times,
    /// What the reader should know.
    pub(super) warnings: Vec<String>,
}

/// Each method and what it comes to, ours first.
pub(super) fn worths(run: &Run<'_>, rows: &[Row], tuned: &Tuned) -> Ordered<Worth> {
    let methods = [
        Method::Pith,
        Method::Zsum,
        Method::Rrf,
        Method::Dense,
        Method::Bm25,
        Method::Random,
        Method::Lead,
    ];
    let worths = methods.into_iter().filter_map(|method| {
        let kept: Vec<&Kept> = match method {
            Method::Zsum => tuned.overall.1.iter().collect(),
            _ => rows.iter().filter_map(|row| row.methods.get(&method)).collect(),
        };
        (!kept.is_empty()).then(|| (method.name().to_owned(), Worth::of(run, &kept)))
    });
    Ordered(worths.collect())
}

/// The shares of all methods by metric first.
pub(super) fn by_metric(
    run: &Run<'_>,
    worths: &Ordered<Worth>,
) -> BTreeMap<&'static str, Ordered<Ordered<f64>>> {
    let of = |name: &'static str| {
        let shares = worths
            .0
            .iter()
            .filter_map(|(method, worth)| Some((method.clone(), worth.shares.get(name)?.clone())));
        (name, Ordered(shares.collect()))
    };
    run.metrics.iter().map(|metric| of(metric.name())).collect()
}

impl Worth {
    fn of(run: &Run<'_>, kept: &[&Kept]) -> Self {
        let by_budget = |value: &dyn Fn(&Kept, usize) -> Option<f64>| {
            let budgets = run.budgets.iter().enumerate();
            let of = |at: usize| mean(kept.iter().filter_map(|kept| value(kept, at)));
            Ordered(
                budgets.filter_map(|(at, budget)| Some((budget.to_string(), of(at)?))).collect(),
            )
        };
        let ranked: Vec<Ranked> = kept.iter().filter_map(|kept| kept.ranked).collect();
        let by_rank = |value: fn(&Ranked) -> &[f64; RANKS.len()]| {
            let of = |at: usize| mean(ranked.iter().map(|ranked| value(ranked)[at]));
            let ranks = RANKS.iter().enumerate();
            let shares: Option<Vec<_>> =
                ranks.map(|(at, rank)| Some((rank.to_string(), of(at)?))).collect();
            shares.map(Ordered)
        };
        let metrics = run.metrics.iter().enumerate();
        Self {
            shares: metrics
                .map(|(metric, name)| (name.name(), by_budget(&|kept, at| kept.values[metric][at])))
                .collect(),
            realised: by_budget(&|kept, at| Some(kept.used[at])),
            recall_at: by_rank(|ranked| &ranked.recall),
            ndcg_at_10: mean(ranked.iter().map(|ranked| ranked.ndcg)),
            document_recall_at: by_rank(|ranked| &ranked.documents),
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}
