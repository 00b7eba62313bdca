//! The text of a page as it is put together.

use std::ops::Range;

use super::super::origin::Recorder;
use super::super::{ExtractError, Extracted, MAX_TEXT_BYTES, MAX_TITLE_BYTES};
use super::tags::{Tag, tag};
use crate::Format;
use crate::document::{Element, ElementKind};

/// What is put before an item of a list.
const BULLET: &str = "- ";
/// What is put between two cells of a row.
const CELL: &str = " | ";
/// Up to so many bytes a row holds paragraphs of its cells too; from there on the table is there for the
/// layout, and paragraphs end as elsewhere.
const MAX_CELL_TEXT: usize = 200;
/// A longer row is cut into sentences, in bytes.
const MAX_ROW: usize = 400;
/// A longer heading is a paragraph, in bytes: its end tag is missing.
const MAX_HEADING: usize = 300;

/// What stands between two blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Gap {
    #[default]
    None,
    Line,
    Blank,
}

/// The text so far, and what the open tags mean for what comes.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// UTF-8; the tokenizer may cut text inside a character, never at a tag.
    out: Vec<u8>,
    origins: Recorder,
    elements: Vec<Element>,
    /// What is being written and where it began.
    block: Option<(ElementKind, usize)>,
    gap: Gap,
    /// White space that is written if more text of the block follows, and its source; empty if a tag stands for it.
    space: Option<Range<usize>>,
    heading: Option<u8>,
    lists: usize,
    /// The next block begins an item.
    bullet: bool,
    preformatted: usize,
    /// A line end right after `<pre>` does not count.
    skip_line_end: bool,
    in_row: bool,
    /// A cell has begun in the row being written.
    new_cell: bool,
    /// The last element is rows of the open table.
    rows: bool,
    hidden: bool,
    templates: usize,
    in_title: bool,
    title: Vec<u8>,
}

impl Page {
    /// The next characters; `exact` if they stand in the source just so.
    pub(super) fn text(
        &mut self,
        text: &[u8],
        original: Range<usize>,
        exact: bool,
    ) -> Result<(), ExtractError> {
        if self.hidden || self.templates > 0 {
            return Ok(());
        }
        if self.in_title {
            let room = (4 * MAX_TITLE_BYTES).saturating_sub(self.title.len());
            self.title.extend(&text[..text.len().min(room)]);
            return Ok(());
        }
        if self.out.len() + text.len() > MAX_TEXT_BYTES {
            return Err(ExtractError::TooLarge { what: "bytes of text", limit: MAX_TEXT_BYTES });
        }
        if self.preformatted > 0 {
            self.verbatim(text, original, exact);
            return Ok(());
        }
        let mut at = 0;
        while at < text.len() {
            let spaces = text[at..].iter().take_while(|byte| is_space(**byte)).count();
            let word = text[at + spaces..].iter().take_while(|byte| !is_space(**byte)).count();
            // Where a part of the text comes from: just there if it is exact, else somewhere in the whole.
            let part = |from: usize, to: usize| {
                if exact { original.start + from..original.start + to } else { original.clone() }
            };
            if spaces > 0 {
                let source = part(at, at + spaces);
                let before = self.space.as_ref().filter(|space| !space.is_empty());
                self.space = Some(before.map_or(source.start, |space| space.start)..source.end);
            }
            at += spaces;
            if word > 0 {
                self.word(&text[at..at + word], part(at, at + word));
                at += word;
            }
        }
        Ok(())
    }

    fn word(&mut self, word: &[u8], original: Range<usize>) {
        let space = self.space.take();
        if self.block.is_none() {
            self.open_block();
        } else if std::mem::take(&mut self.new_cell) {
            self.out.extend(CELL.as_bytes());
        } else if let Some(space) = space {
            if !space.is_empty() {
                self.origins.push(self.out.len(), 1, space);
            }
            self.out.push(b' ');
        }
        self.write(word, original);
    }

    fn verbatim(&mut self, text: &[u8], original: Range<usize>, exact: bool) {
        let first = std::mem::take(&mut self.skip_line_end) && text.starts_with(b"\n");
        let skip = usize::from(first);
        let original = original.start + if exact { skip } else { 0 }..original.end;
        let text = &text[skip..];
        if self.block.is_none() {
            if text.iter().all(|byte| is_space(*byte)) {
                return;
            }
            self.open_block();
        }
        self.write(text, original);
    }

    fn write(&mut self, text: &[u8], original: Range<usize>) {
        self.origins.push(self.out.len(), text.len(), original);
        self.out.extend(text);
    }

    /// Begins what the open tags say.
    fn open_block(&mut self) {
        let gap = std::mem::take(&mut self.gap);
        if !self.out.is_empty() {
            self.out.extend(if gap == Gap::Line { &b"\n"[..] } else { b"\n\n" });
        }
        let kind = match self.heading {
            Some(level) => ElementKind::Heading(level),
            None if self.preformatted > 0 || self.in_row => ElementKind::Lines,
            None => ElementKind::Paragraph,
        };
        self.rows &= gap == Gap::Line && self.in_row;
        self.block = Some((kind, self.out.len()));
        self.new_cell = false;
        if std::mem::take(&mut self.bullet) && self.heading.is_none() {
            self.out.extend(BULLET.as_bytes());
        }
    }

    /// Ends the open block; what comes next stands at least `gap` apart.
    fn end_block(&mut self, gap: Gap) {
        self.gap = self.gap.max(gap);
        self.space = None;
        let Some((mut kind, start)) = self.block.take() else { return };
        let end = self.out.len()
            - self.out[start..].iter().rev().take_while(|byte| is_space(**byte)).count();
        let row = kind == ElementKind::Lines && self.in_row && self.preformatted == 0;
        let long = match kind {
            ElementKind::Heading(_) => end - start > MAX_HEADING,
            _ => row && end - start > MAX_ROW,
        };
        if long {
            kind = ElementKind::Paragraph;
        }
        match self.elements.last_mut() {
            Some(above) if self.rows && kind == ElementKind::Lines => above.span.end = end,
            _ => self.elements.push(Element { kind, span: start..end }),
        }
        self.rows = row && kind == ElementKind::Lines;
    }

    /// A start tag.
    pub(super) fn open(&mut self, name: &[u8]) {
        match tag(name) {
            Tag::Inline => {}
            // Inside a short row a paragraph is just a part of its cell.
            Tag::Block if self.is_short_row() => self.touch_space(),
            Tag::Block => self.end_block(Gap::Blank),
            Tag::Line => self.end_block(Gap::Line),
            Tag::List => {
                self.end_block(if self.lists > 0 { Gap::Line } else { Gap::Blank });
                self.lists += 1;
            }
            Tag::Item => {
                self.end_block(Gap::Line);
                self.bullet = true;
            }
            Tag::Heading(level) => {
                self.end_block(Gap::Blank);
                self.heading = Some(level);
            }
            Tag::Preformatted => {
                self.end_block(Gap::Blank);
                self.preformatted += 1;
                self.skip_line_end = true;
            }
            Tag::Table | Tag::Row => {
                // A row whose end tag is missing ends here.
                self.end_block(Gap::Line);
                if name == b"table" || !self.rows {
                    self.gap = Gap::Blank;
                }
                self.in_row = name == b"tr";
            }
            Tag::Cell => self.new_cell = self.block.is_some(),
            Tag::Break if self.heading.is_some() || self.in_row => self.touch_space(),
            Tag::Break if self.preformatted > 0 => self.out.push(b'\n'),
            Tag::Break => {
                let gap = if self.block.is_none() && self.gap >= Gap::Line {
                    Gap::Blank
                } else {
                    Gap::Line
                };
                self.end_block(gap);
            }
            Tag::Title => self.in_title = self.title.is_empty(),
            Tag::Hidden => self.hidden = true,
            Tag::Template => self.templates += 1,
        }
    }

    /// An end tag, whether or not one was open.
    pub(super) fn close(&mut self, name: &[u8]) {
        match tag(name) {
            Tag::Inline | Tag::Break => {}
            Tag::Block if self.is_short_row() => self.touch_space(),
            Tag::Block => self.end_block(Gap::Blank),
            Tag::Line => self.end_block(Gap::Line),
            Tag::Item => {
                self.end_block(Gap::Line);
                self.bullet = false;
            }
            Tag::List => {
                self.lists = self.lists.saturating_sub(1);
                self.end_block(if self.lists > 0 { Gap::Line } else { Gap::Blank });
                self.bullet = false;
            }
            Tag::Heading(_) => {
                self.end_block(Gap::Blank);
                self.heading = None;
            }
            Tag::Preformatted => {
                self.end_block(Gap::Blank);
                self.preformatted = self.preformatted.saturating_sub(1);
                self.skip_line_end = false;
            }
            Tag::Table => {
                self.end_block(if name == b"table" { Gap::Blank } else { Gap::Line });
                self.in_row = false;
            }
            Tag::Row => {
                self.end_block(Gap::Line);
                self.in_row = false;
            }
            Tag::Cell => self.touch_space(),
            Tag::Title => self.in_title = false,
            Tag::Hidden => self.hidden = false,
            Tag::Template => self.templates = self.templates.saturating_sub(1),
        }
    }

    fn is_short_row(&self) -> bool {
        self.in_row
            && self.preformatted == 0
            && self.block.is_none_or(|(_, start)| self.out.len() - start <= MAX_CELL_TEXT)
    }

    /// Words on either side of a tag stay apart, though there may be no white space in the source.
    fn touch_space(&mut self) {
        if self.block.is_some() && self.space.is_none() {
            self.space = Some(0..0);
        }
    }

    /// The text, once everything has been read.
    pub(super) fn finish(mut self) -> Result<Extracted, ExtractError> {
        self.end_block(Gap::None);
        let end = self.elements.last().map_or(0, |last| last.span.end);
        self.out.truncate(end);
        let wrong = |_| ExtractError::Malformed {
            format: "HTML document",
            reason: "its text was cut inside a character".to_owned(),
        };
        Ok(Extracted {
            text: String::from_utf8(self.out).map_err(wrong)?,
            format: Format::Text,
            elements: Some(self.elements.into()),
            title: one_line(&self.title),
            origins: self.origins.finish(),
            decoded: None,
            left_out: 0,
        })
    }
}

/// White space as HTML has it: a no-break space is none.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\x0c' | b'\r')
}

/// A title's words, at most [`MAX_TITLE_BYTES`]; `None` if there are none.
fn one_line(title: &[u8]) -> Option<String> {
    // It may have been cut inside a character.
    let whole = title.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let mut line = whole.split_whitespace().collect::<Vec<_>>().join(" ");
    line.truncate(line.floor_char_boundary(MAX_TITLE_BYTES));
    (!line.is_empty()).then_some(line)
}
