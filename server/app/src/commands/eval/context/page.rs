//! Figures as a page with plots.

use super::budget::Budget;
use super::figures::Figures;
use super::metric::Metric;
use crate::commands::plot::{COLOURS, Kind, Plot, Series};
use crate::commands::report::{Report, Table};

/// How the figures are defined.
const NOTES: [&str; 6] = [
    "A budget counts tokens of the context only, in the served model's tokens, header lines and gap marks included; a \
     share is one of the tokens that keeping everything takes.",
    "Baselines rank sentences and keep them in that order until one does not fit; bm25, dense and rrf look at a sentence \
     alone. zsum adds standard scores of words and meaning, with the document's title or without it, and smooths them over \
     neighbouring sentences; its setting is the best of all tried, on the very data shown.",
    "gold span kept: a gold span lies inside one kept passage. answer kept: a right answer, normalised, stands in one. \
     evidence recall: share of the words of the evidence that are kept.",
    "Intervals hold 95 of 100 resamples of the questions (10,000 drawn, always the same); differences are paired.",
    "R@k: sentences with gold among the k best, as a share of all such; doc R@k: questions with a gold document among \
     the k documents whose best sentences rank highest.",
    "Published figures were measured on other halves of the data and with other tokens: they say where figures should lie.",
];

/// The page of a run.
pub(super) fn report(
    figures: &Figures,
    tables: Vec<Table>,
    metrics: &[Metric],
    budgets: &[Budget],
) -> Report {
    let settings = &figures.settings;
    let mut report = Report::new(&format!("pith eval context: {}", settings.dataset));
    report.conditions.extend([
        ("Questions", settings.questions.to_string()),
        (
            "Haystacks",
            format!("{} of {:.0} tokens on average", settings.haystacks, settings.context_tokens),
        ),
        ("Protocol", settings.protocol.clone()),
        ("Model", settings.model.clone()),
        ("Embedder", settings.embedder.clone().unwrap_or_else(|| "none".to_owned())),
        ("Seed", settings.seed.to_string()),
        ("zsum", settings.zsum.label()),
    ]);
    report.tables = tables;
    report.plots = metrics.iter().flat_map(|metric| plots(figures, *metric, budgets)).collect();
    report.notes = NOTES.map(str::to_owned).to_vec();
    report.notes.extend(figures.warnings.iter().cloned());
    report
}

/// A plot over budgets in tokens and one over shares, where there are such.
fn plots(figures: &Figures, metric: Metric, budgets: &[Budget]) -> Vec<Plot> {
    let is_share = |budget: &&Budget| matches!(budget, Budget::Share(_));
    let (shares, tokens): (Vec<&Budget>, Vec<&Budget>) = budgets.iter().partition(is_share);
    let axes = [(tokens, "budget, tokens"), (shares, "budget, % of the context's tokens")];
    axes.into_iter()
        .filter(|(budgets, _)| !budgets.is_empty())
        .map(|(budgets, x)| Plot {
            kind: Kind::Chosen,
            title: format!("{} by budget", metric.title()),
            x: x.to_owned(),
            y: format!("{}, %", metric.title()),
            series: series(figures, metric, &budgets),
        })
        .collect()
}

/// A line for each method, as many as have a colour of their own.
fn series(figures: &Figures, metric: Metric, budgets: &[&Budget]) -> Vec<Series> {
    let methods = figures.methods.0.iter().take(COLOURS);
    methods
        .filter_map(|(method, worth)| {
            let shares = &worth.shares.get(metric.name())?.0;
            let point = |budget: &&Budget| {
                let (_, share) = shares.iter().find(|(at, _)| *at == budget.to_string())?;
                Some((budget.value(), share * 100.0))
            };
            Some(Series {
                name: method.clone(),
                points: budgets.iter().filter_map(point).collect(),
            })
        })
        .collect()
}
