//! The best settings of the baseline that has any, found on the very data that is measured: what ours is compared with
//! is as good as it can be made.

use serde::Serialize;

use super::baseline::Smoothing;
use super::bootstrap::Interval;
use super::selection::{Kept, Method, Row, Run};
use crate::commands::Failure;

/// What was found.
#[derive(Debug)]
pub(super) struct Tuned {
    /// The setting best over all budgets and metrics, and what it keeps.
    pub(super) overall: (Smoothing, Vec<Kept>),
    /// By metric: the setting best at each budget, then the one best over all of them.
    best: Vec<Vec<(Smoothing, Vec<Kept>)>>,
}

/// Ours minus the best baseline.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Comparison {
    pub(super) metric: &'static str,
    /// As in the shares, or `mean` over all budgets.
    pub(super) budget: String,
    /// The baseline that does best there.
    pub(super) baseline: &'static str,
    /// Its setting, tuned for just this budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) setting: Option<Smoothing>,
    pub(super) pith: f64,
    pub(super) best: f64,
    /// Of the difference, paired by question.
    pub(super) difference: Interval,
}

impl Tuned {
    /// Picks the best of `grid` by the estimates in `rows`, and measures them exactly.
    pub(super) fn find(run: &Run<'_>, grid: &[Smoothing], rows: &[Row]) -> Result<Self, Failure> {
        let (metrics, budgets) = (run.metrics.len(), run.budgets.len());
        let mut sums = vec![0.0; grid.len() * metrics * budgets];
        for row in rows {
            sums.iter_mut().zip(&row.sweep).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let cell = |setting: usize, metric: usize, budget: usize| {
            sums[(setting * metrics + metric) * budgets + budget]
        };
        // The first of equals: the simplest.
        let best = |worth: &dyn Fn(usize) -> f64| {
            (1..grid.len())
                .fold(0, |best, setting| if worth(setting) > worth(best) { setting } else { best })
        };
        let over = |setting: usize, metric: usize| {
            (0..budgets).map(|budget| cell(setting, metric, budget)).sum::<f64>()
        };
        let overall = best(&|setting| (0..metrics).map(|metric| over(setting, metric)).sum());
        let wanted: Vec<Vec<usize>> = (0..metrics)
            .map(|metric| {
                let each =
                    (0..budgets).map(|budget| best(&|setting| cell(setting, metric, budget)));
                each.chain([best(&|setting| over(setting, metric))]).collect()
            })
            .collect();
        let mut distinct: Vec<usize> = wanted.iter().flatten().copied().chain([overall]).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let settings: Vec<Smoothing> = distinct.iter().map(|&setting| grid[setting]).collect();
        let kept = run.settings(&settings)?;
        let of = |setting: usize| {
            let at = distinct.partition_point(|&other| other < setting);
            (grid[setting], kept.iter().map(|question| question[at].clone()).collect::<Vec<_>>())
        };
        let best = wanted
            .iter()
            .map(|metric| metric.iter().map(|&setting| of(setting)).collect())
            .collect();
        Ok(Self { overall: of(overall), best })
    }

    /// Ours against the best baseline, at each budget and over all.
    pub(super) fn compare(&self, run: &Run<'_>, rows: &[Row]) -> Vec<Comparison> {
        let mut comparisons = Vec::new();
        for (metric, name) in run.metrics.iter().map(|metric| metric.name()).enumerate() {
            for budget in 0..=run.budgets.len() {
                let (smoothing, kept) = &self.best[metric][budget];
                let value = |kept: &Kept| {
                    let values = &kept.values[metric];
                    match values.get(budget) {
                        Some(value) => *value,
                        None => values
                            .iter()
                            .copied()
                            .sum::<Option<f64>>()
                            .map(|sum| sum / values.len() as f64),
                    }
                };
                let of = |method: Method| -> Option<Vec<f64>> {
                    let kept = rows.iter().map(|row| row.methods.get(&method));
                    kept.filter_map(|kept| kept.map(value)).filter(Option::is_some).collect()
                };
                let mut candidates: Vec<(Method, Vec<f64>)> =
                    [Method::Bm25, Method::Dense, Method::Rrf]
                        .into_iter()
                        .filter_map(|method| Some((method, of(method)?)))
                        .collect();
                candidates.push((Method::Zsum, kept.iter().filter_map(value).collect()));
                let Some(ours) = of(Method::Pith).filter(|values| !values.is_empty()) else {
                    continue;
                };
                let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
                candidates.retain(|(_, values)| values.len() == ours.len());
                let Some((method, theirs)) = candidates
                    .into_iter()
                    .reduce(|best, next| if mean(&next.1) > mean(&best.1) { next } else { best })
                else {
                    continue;
                };
                let differences: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a - b).collect();
                let Some(difference) = Interval::of(&differences) else { continue };
                comparisons.push(Comparison {
                    metric: name,
                    budget: run.budgets.get(budget).map_or("mean".to_owned(), ToString::to_string),
                    baseline: method.name(),
                    setting: (method == Method::Zsum).then_some(*smoothing),
                    pith: mean(&ours),
                    best: mean(&theirs),
                    difference,
                });
            }
        }
        comparisons
    }
}
