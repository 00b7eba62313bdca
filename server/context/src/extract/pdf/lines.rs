//! Strings on a page become lines, and lines become paragraphs and headings.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::super::{ExtractError, MAX_TEXT_BYTES};
use super::page::Shown;
use crate::document::{Element, ElementKind};

/// A gap wider than this is a space, in sizes of the font.
const SPACE: f64 = 0.2;
/// A step back longer than this begins another column or cell, in sizes of the font.
const STEP_BACK: f64 = 1.0;
/// A baseline further up or down than this is another line, in sizes of the font; superscripts are nearer.
const NEW_LINE: f64 = 0.6;
/// The same string drawn again no further away than this makes it bold, in sizes of the font.
const OVERPRINT: f64 = 0.1;
/// Lines further apart than the page's usual distance times this are in different paragraphs.
const NEW_PARAGRAPH: f64 = 1.35;
/// Text larger than the document's usual size times this is a heading.
const HEADING: f64 = 1.15;
/// Of the first level.
const TOP_HEADING: f64 = 1.6;
/// Longest heading, in bytes.
const MAX_HEADING: usize = 200;

/// A line of text.
#[derive(Debug)]
pub(super) struct Line {
    text: String,
    /// Across the direction of writing, growing upwards.
    baseline: f64,
    size: f64,
}

/// The lines of a page while they come.
#[derive(Debug)]
pub(super) struct Lines {
    lines: Vec<Line>,
    /// Where the last string began and ended, along the direction of writing.
    last: Option<(f64, f64)>,
    /// Bytes of text there is still room for.
    room: usize,
}

/// There is more text than is read.
pub(super) fn no_room() -> ExtractError {
    ExtractError::TooLarge { what: "bytes of text", limit: MAX_TEXT_BYTES }
}

impl Lines {
    pub(super) fn new(room: usize) -> Self {
        Self { lines: Vec::new(), last: None, room }
    }

    pub(super) fn room(&self) -> usize {
        self.room
    }

    pub(super) fn push(&mut self, text: &str, shown: Shown) -> Result<(), ExtractError> {
        let (start, baseline, unit) = shown.start.place();
        let (end, ..) = shown.end.place();
        let size = (shown.size * unit).abs();
        if text.is_empty() || !(start.is_finite() && end.is_finite() && baseline.is_finite()) {
            return Ok(());
        }
        // A line end may come on top.
        self.room = self.room.checked_sub(text.len() + 2).ok_or_else(no_room)?;
        let joined = match (self.lines.last_mut(), self.last) {
            (Some(line), Some((from, to))) => {
                let large = size.max(line.size);
                let gap = start - to;
                let same = (baseline - line.baseline).abs() <= NEW_LINE * large;
                // Without widths the end is a guess; that the text goes on to the right is not.
                let back = if shown.measured { gap < -STEP_BACK * large } else { start < from };
                let apart = if shown.measured {
                    gap > SPACE * large
                } else {
                    start > from && gap.abs() > SPACE * large
                };
                let again = (start - from).abs() <= OVERPRINT * large;
                if same && again && line.text.ends_with(text) {
                    return Ok(());
                }
                (same && !back).then_some((line, apart))
            }
            _ => None,
        };
        match joined {
            Some((line, apart)) => {
                if apart && !line.text.ends_with(' ') && !text.starts_with(' ') {
                    line.text.push(' ');
                }
                line.text.push_str(text);
                line.size = line.size.max(size);
            }
            None => self.lines.push(Line { text: text.to_owned(), baseline, size }),
        }
        self.last = Some((start, end));
        Ok(())
    }

    /// The lines that are not blank.
    pub(super) fn finish(mut self) -> Vec<Line> {
        self.lines.retain(|line| !line.text.trim().is_empty());
        self.lines
    }
}

/// The text of a file.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) text: String,
    pub(super) elements: Vec<Element>,
    /// Where each page's text begins.
    pub(super) page_starts: Vec<usize>,
}

/// Joins the lines of all pages.
pub(super) fn join(pages: &[Vec<Line>]) -> Joined {
    let usual_size = usual(pages.iter().flatten().map(|line| (line.size, line.text.len())));
    let level = |line: &Line| match line.size / usual_size {
        _ if line.text.len() > MAX_HEADING => None,
        TOP_HEADING.. => Some(1),
        HEADING.. => Some(2),
        _ => None,
    };
    let mut joined = Joined { text: String::new(), elements: Vec::new(), page_starts: Vec::new() };
    for page in pages {
        let steps = page.windows(2).map(|pair| (pair[0].baseline - pair[1].baseline, 1));
        let usual_step = usual(steps.filter(|(step, _)| *step > 0.0));
        joined.page_starts.push(joined.text.len());
        let mut before: Option<(&Line, Option<u8>)> = None;
        for line in page {
            let level = level(line);
            let goes_on = before.is_some_and(|(above, above_level)| {
                let step = above.baseline - line.baseline;
                above_level == level
                    && step > 0.0
                    && step <= NEW_PARAGRAPH * usual_step.max(line.size)
            });
            joined.push(line.text.trim(), level, goes_on);
            before = Some((line, level));
        }
    }
    joined
}

impl Joined {
    fn push(&mut self, line: &str, level: Option<u8>, goes_on: bool) {
        match self.elements.last_mut() {
            Some(element) if goes_on => {
                // A word cut by a hyphen at the line's end goes on; the hyphen may be its own, so it stays.
                let cut =
                    self.text.ends_with(['-', '\u{ad}']) && line.starts_with(char::is_lowercase);
                if !cut {
                    self.text.push('\n');
                }
                self.text.push_str(line);
                element.span.end = self.text.len();
            }
            _ => {
                if !self.text.is_empty() {
                    self.text.push_str("\n\n");
                }
                // The page begins with its first line, not with what parts it from the page before.
                if let Some(start) = self.page_starts.last_mut()
                    && self.elements.last().is_none_or(|last| last.span.end <= *start)
                {
                    *start = self.text.len();
                }
                let kind = level.map_or(ElementKind::Paragraph, ElementKind::Heading);
                let start = self.text.len();
                self.text.push_str(line);
                self.elements.push(Element { kind, span: start..self.text.len() });
            }
        }
    }
}

/// The value that weighs most (of several the least), to a tenth; 1 if there is none.
fn usual(values: impl Iterator<Item = (f64, usize)>) -> f64 {
    let mut weights: HashMap<i64, usize> = HashMap::new();
    for (value, weight) in values {
        *weights.entry((value * 10.0).round() as i64).or_default() += weight;
    }
    let heaviest = weights.into_iter().max_by_key(|&(value, weight)| (weight, Reverse(value)));
    heaviest.map_or(1.0, |(tenths, _)| tenths as f64 / 10.0).max(0.1)
}
