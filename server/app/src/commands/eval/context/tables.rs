//! Figures as tables, for the terminal and for the page.

use std::fmt::Write as _;

use super::anchors;
use super::bootstrap::Interval;
use super::budget::Budget;
use super::dataset::Kind;
use super::figures::{Figures, Ordered, Worth};
use super::metric::Metric;
use super::reading::{Answers, Citations, Likelihood};
use crate::commands::report::Table;

/// All tables of a run.
pub(super) fn tables(
    figures: &Figures,
    kind: Kind,
    metrics: &[Metric],
    budgets: &[Budget],
) -> Vec<Table> {
    let mut tables: Vec<Table> =
        metrics.iter().map(|metric| kept(figures, kind, *metric, budgets)).collect();
    tables.push(differences(figures));
    tables.push(ranks(&figures.methods, &figures.settings.ranked_at));
    tables.push(realised(&figures.methods, budgets));
    tables.extend(figures.likelihood.as_ref().map(likelihood));
    tables.extend(figures.answers.as_ref().map(answers));
    tables.extend(figures.citations.as_ref().map(citations));
    tables.push(times(figures));
    tables
}

/// A table as aligned text.
pub(super) fn text(table: &Table) -> String {
    let rows: Vec<&Vec<String>> = std::iter::once(&table.head).chain(&table.rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut out = format!("\n{}\n", table.title);
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column);
            // Writing to a string cannot fail.
            let _ = match column {
                0 => write!(line, "  {cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn head<'a>(first: &'a str, others: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    std::iter::once(first).chain(others).map(str::to_owned).collect()
}

fn percent(share: f64) -> String {
    format!("{:.1}", share * 100.0)
}

fn budget_head(first: &str, budgets: &[Budget]) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(budgets.iter().map(|budget| budget.label())).collect()
}

/// A figure of each budget, a dash where there is none.
fn by_budget(name: &str, budgets: &[Budget], values: &Ordered<f64>) -> Vec<String> {
    let of = |budget: &Budget| {
        let found = values.0.iter().find(|(at, _)| *at == budget.to_string());
        found.map_or("-".to_owned(), |(_, share)| percent(*share))
    };
    std::iter::once(name.to_owned()).chain(budgets.iter().map(of)).collect()
}

fn kept(figures: &Figures, kind: Kind, metric: Metric, budgets: &[Budget]) -> Table {
    let mut rows = Vec::new();
    for (method, worth) in &figures.methods.0 {
        if let Some(shares) = worth.shares.get(metric.name()) {
            rows.push(by_budget(method, budgets, shares));
        }
    }
    let mut title = format!("{}, %, by budget", metric.title());
    if let Some((on, anchors)) = anchors::of(kind) {
        let _ = write!(title, " (published: {on})");
        for anchor in anchors {
            let of = |budget: &Budget| {
                let found = anchor.shares.iter().find(|(at, _)| *at == budget.value());
                found.map_or("-".to_owned(), |(_, share)| format!("{share:.1}"))
            };
            let name = format!("published {}", anchor.name);
            rows.push(std::iter::once(name).chain(budgets.iter().map(of)).collect());
        }
    }
    Table { title, head: budget_head("method", budgets), rows }
}

fn differences(figures: &Figures) -> Table {
    let row = |comparison: &super::tuning::Comparison| {
        let setting =
            comparison.setting.map_or(String::new(), |setting| format!(" ({})", setting.label()));
        vec![
            format!("{} {}", comparison.metric, comparison.budget),
            format!("{}{setting}", comparison.baseline),
            percent(comparison.best),
            percent(comparison.pith),
            comparison.difference.text(100.0),
        ]
    };
    Table {
        title: "pith minus the best baseline re-tuned on this data, percent points [95 % interval, paired]".to_owned(),
        head: head("budget", ["best baseline", "its share", "pith", "difference"]),
        rows: figures.intervals.iter().map(row).collect(),
    }
}

fn ranks(methods: &Ordered<Worth>, budget: &str) -> Table {
    let mut names = vec!["method".to_owned()];
    let mut rows = Vec::new();
    for (method, worth) in &methods.0 {
        let (Some(units), Some(documents), Some(ndcg)) =
            (&worth.recall_at, &worth.document_recall_at, worth.ndcg_at_10)
        else {
            continue;
        };
        if rows.is_empty() {
            names.extend(units.0.iter().map(|(rank, _)| format!("R@{rank}")));
            names.push("nDCG@10".to_owned());
            names.extend(documents.0.iter().map(|(rank, _)| format!("doc R@{rank}")));
        }
        let mut row = vec![method.clone()];
        row.extend(units.0.iter().map(|(_, share)| percent(*share)));
        row.push(format!("{ndcg:.3}"));
        row.extend(documents.0.iter().map(|(_, share)| percent(*share)));
        rows.push(row);
    }
    Table {
        title: format!("ranks of sentences and documents with gold (pith: at budget {budget})"),
        head: names,
        rows,
    }
}

fn realised(methods: &Ordered<Worth>, budgets: &[Budget]) -> Table {
    let row = |(method, worth): &(String, Worth)| by_budget(method, budgets, &worth.realised);
    Table {
        title: "budget spent, %".to_owned(),
        head: budget_head("method", budgets),
        rows: methods.0.iter().map(row).collect(),
    }
}

fn nats(interval: &Interval) -> String {
    format!("{:+.3} [{:+.3}, {:+.3}]", interval.mean, interval.low, interval.high)
}

fn likelihood(likelihood: &Likelihood) -> Table {
    let row = |(context, read): (&&str, &super::reading::Read)| {
        let change = likelihood.change.get(context);
        let change = |of: fn(&super::reading::Change) -> &Interval| {
            change.map_or("-".to_owned(), |c| nats(of(c)))
        };
        vec![
            (*context).to_owned(),
            format!("{:.0}", read.prompt_tokens),
            nats(&read.ln_p),
            change(|change| &change.ln_p),
            change(|change| &change.ln_p_per_token),
        ]
    };
    Table {
        title: format!(
            "ln p of the gold answer, {} questions [95 % interval]",
            likelihood.questions
        ),
        head: head("context", ["prompt tokens", "ln p", "minus full", "minus full, per token"]),
        rows: likelihood.contexts.iter().map(row).collect(),
    }
}

fn answers(answers: &Answers) -> Table {
    let row = |name: String, worth: &super::reading::Worth| {
        let cells = [&worth.exact_match, &worth.f1, &worth.gold_inside]
            .map(|interval| interval.text(100.0));
        std::iter::once(name).chain(cells).collect()
    };
    let contexts =
        answers.contexts.iter().map(|(context, worth)| row((*context).to_owned(), worth));
    let differences =
        answers.pith_minus.iter().map(|(other, worth)| row(format!("pith minus {other}"), worth));
    Table {
        title: format!("answers, % of {} questions [95 % interval]", answers.questions),
        head: head("context", ["exact match", "F1", "gold inside"]),
        rows: contexts.chain(differences).collect(),
    }
}

fn citations(citations: &Citations) -> Table {
    let row = |name: &str, cited: &super::reading::Cited| {
        vec![
            name.to_owned(),
            cited.sources.to_string(),
            cited.right.to_string(),
            cited.precision.map_or("-".to_owned(), percent),
            percent(cited.recall),
        ]
    };
    Table {
        title: format!(
            "citations, {} questions at budget {}, gold kept of {}",
            citations.questions, citations.budget, citations.gold_kept
        ),
        head: head("of", ["sources", "right", "precision %", "recall %"]),
        rows: vec![
            row("generated answers", &citations.generated),
            row("the gold sentence", &citations.gold_sentence),
        ],
    }
}

fn times(figures: &Figures) -> Table {
    let times = &figures.times;
    let row = |name: &str, seconds: super::times::Seconds| {
        vec![
            name.to_owned(),
            format!("{:.1}", seconds.p50 * 1e3),
            format!("{:.1}", seconds.p95 * 1e3),
        ]
    };
    Table {
        title: format!(
            "selection, ms, {} questions over {:.0} tokens",
            times.questions, times.context_tokens
        ),
        head: head("documents", ["p50", "p95"]),
        rows: vec![row("cold", times.cold), row("again", times.again)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let table = Table {
            title: "T".to_owned(),
            head: head("method", ["64"]),
            rows: vec![vec!["é".to_owned(), "7.0".to_owned()]],
        };
        assert_eq!(text(&table), "\nT\n  method   64\n  é       7.0\n");
    }
}
