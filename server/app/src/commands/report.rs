//! Results as one HTML page: conditions, tables and plots in a file that needs nothing else, neither scripts nor the
//! network. Everything is escaped.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::plot::Plot;
use crate::commands::Failure;

#[cfg(test)]
pub(super) mod tests;

const STYLE: &str = include_str!("report.css");
const SECONDS_PER_DAY: u64 = 86_400;

/// A page.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    pub(super) title: String,
    /// Under which conditions the figures came about: name and value.
    pub(super) conditions: Vec<(&'static str, String)>,
    pub(super) tables: Vec<Table>,
    pub(super) plots: Vec<Plot>,
    /// What a reader must know to read the figures rightly.
    pub(super) notes: Vec<String>,
}

/// A table. The first column names the row, the others hold figures.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Report {
    /// A report with the conditions that every run on this machine has.
    pub(super) fn new(title: &str) -> Self {
        let conditions = vec![
            ("Version", format!("pith {}", env!("CARGO_PKG_VERSION"))),
            ("Time", utc(SystemTime::now())),
            ("Command", command_line(std::env::args())),
        ];
        Self { title: title.to_owned(), conditions, ..Self::default() }
    }

    pub(super) fn html(&self) -> String {
        let title = escape(&self.title);
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<dl>\n",
        );
        for (name, value) in &self.conditions {
            let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
        }
        out.push_str("</dl>\n");
        for table in &self.tables {
            table.write(&mut out);
        }
        out.push_str("<div class=\"plots\">\n");
        out.extend(self.plots.iter().map(Plot::html));
        out.push_str("</div>\n");
        if !self.notes.is_empty() {
            out.push_str("<h2>How to read this</h2>\n<ul class=\"notes\">\n");
            for note in &self.notes {
                let _ = writeln!(out, "<li>{}</li>", escape(note));
            }
            out.push_str("</ul>\n");
        }
        out.push_str("</body>\n</html>\n");
        out
    }
}

impl Table {
    fn write(&self, out: &mut String) {
        let _ = write!(
            out,
            "<h2>{}</h2>\n<div class=\"wide\"><table>\n<thead><tr>",
            escape(&self.title)
        );
        for name in &self.head {
            let _ = write!(out, "<th scope=\"col\">{}</th>", escape(name));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            out.push_str("<tr>");
            for (index, cell) in row.iter().enumerate() {
                let cell = escape(cell);
                let _ = match index {
                    0 => write!(out, "<th scope=\"row\">{cell}</th>"),
                    _ => write!(out, "<td>{cell}</td>"),
                };
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table></div>\n");
    }
}

/// `text` as HTML has it, in elements and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Writes `results` where `--json` and `report` where `--html` say, if they do.
pub(super) fn write(
    results: &(impl Serialize + ?Sized),
    json: Option<&Path>,
    html: Option<&Path>,
    report: impl FnOnce() -> Report,
) -> Result<(), Failure> {
    let cannot = |path: &Path, error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot write {}: {error}", path.display()))
    };
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(results).map_err(|error| cannot(path, &error))?;
        std::fs::write(path, text + "\n").map_err(|error| cannot(path, &error))?;
    }
    if let Some(path) = html {
        std::fs::write(path, report().html()).map_err(|error| cannot(path, &error))?;
    }
    Ok(())
}

/// `arguments` as a shell would take them.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    let quoted = |argument: String| {
        if !argument.is_empty() && argument.chars().all(plain) {
            argument
        } else {
            format!("'{}'", argument.replace('\'', "'\\''"))
        }
    };
    let mut arguments = arguments;
    // Where the program lies is of no interest.
    let program = arguments.next().unwrap_or_default();
    let program = Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned());
    program.into_iter().chain(arguments).map(quoted).collect::<Vec<_>>().join(" ")
}

/// `time` as `2026-01-31 09:30 UTC`.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / SECONDS_PER_DAY);
    let minutes = seconds % SECONDS_PER_DAY / 60;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// Year, month and day of the `days`th day after 1970-01-01. Years are counted from March, so that the day a leap year
/// adds is the last; 400 of them have 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months of 31, 30, 31, 30, 31 days: five of them have 153.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}
