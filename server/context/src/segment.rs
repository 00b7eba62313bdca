//! Documents become sections, sentence-aligned chunks and sentences, all with byte offsets.
//!
//! Lengths here are in bytes, so that the cut depends on nothing but the text: the same document is cut alike
//! for every model. Time is linear in the text, whatever it holds.

mod blocks;
mod code;
pub(crate) mod sentences;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::{Document, Element, ElementKind, Format};
pub(crate) use blocks::is_item;
use blocks::{Block, Kind};

/// Longest sentence, in bytes (about 200 tokens of English); longer ones are cut at white space.
pub(crate) const MAX_SENTENCE_BYTES: usize = 800;
/// A chunk ends at the first paragraph end after so many bytes (about 128 tokens of English).
const CHUNK_BYTES: usize = 512;
/// A chunk never takes a sentence that would make it longer than this (about 200 tokens of English).
const MAX_CHUNK_BYTES: usize = 800;

/// A document cut up. Sentences are in order, do not overlap, and leave out nothing but white space.
#[derive(Debug)]
pub(crate) struct Segments {
    /// Headings (in code, the first lines of definitions) and what they head; the first has no heading and holds what
    /// precedes any.
    pub(crate) sections: Vec<Section>,
    /// Number of chunks; sentences refer to them.
    pub(crate) chunks: usize,
    /// The units of selection.
    pub(crate) sentences: Vec<Sentence>,
}

/// A heading's reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// The heading's words in the text, without markup. Empty for the first.
    pub(crate) heading: Range<usize>,
    /// The section this one is a part of.
    pub(crate) parent: Option<usize>,
    /// Depth, 1 to 6; 0 for the first.
    level: u8,
}

/// The unit of selection: a sentence, a heading line, or (part of) a code block or table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sentence {
    /// Bytes of the text, without surrounding white space; never empty.
    pub(crate) span: Range<usize>,
    /// Index into [`Segments::sections`].
    pub(crate) section: usize,
    /// Number of the chunk.
    pub(crate) chunk: usize,
    /// Number of the paragraph, list item, table or code block.
    pub(crate) block: usize,
    /// A heading line.
    pub(crate) heading: bool,
}

/// Cuts `document` up.
pub(crate) fn segment_document(document: &Document) -> Segments {
    segment_part(document, 0..document.text.len())
}

/// Cuts up the bytes `range` of `document`; offsets count from the beginning of the range.
pub(crate) fn segment_part(document: &Document, range: Range<usize>) -> Segments {
    let text = &document.text[range.clone()];
    match (&document.elements, document.format) {
        (Some(elements), _) => from_blocks(text, from_elements(elements, &range)),
        (None, Format::Code) => code::segment(text),
        (None, format) => from_blocks(text, blocks::blocks(text, format)),
    }
}

/// What of `elements` lies in `range`, from whose beginning offsets then count.
fn from_elements<'a>(
    elements: &'a [Element],
    range: &'a Range<usize>,
) -> impl Iterator<Item = Block> + 'a {
    let first = elements.partition_point(|element| element.span.end <= range.start);
    let inside = elements[first..].iter().take_while(|element| element.span.start < range.end);
    inside.map(|element| {
        let start = element.span.start.max(range.start) - range.start;
        let end = element.span.end.min(range.end) - range.start;
        let kind = match element.kind {
            ElementKind::Paragraph => Kind::Prose,
            ElementKind::Heading(level) => {
                Kind::Heading { level: level.clamp(1, 6), words: start..end }
            }
            ElementKind::Lines => Kind::Whole,
        };
        Block { kind, flows: std::iter::once(start..end).collect() }
    })
}

impl Default for Segments {
    /// Of nothing: one section without a heading.
    fn default() -> Self {
        let first = Section { heading: 0..0, parent: None, level: 0 };
        Self { sections: vec![first], chunks: 0, sentences: Vec::new() }
    }
}

fn from_blocks(text: &str, blocks: impl IntoIterator<Item = Block>) -> Segments {
    let mut segments = Segments::default();
    let mut section = 0;
    for (number, block) in blocks.into_iter().enumerate() {
        if let Kind::Heading { level, words } = &block.kind {
            section = open_section(&mut segments.sections, section, *level, words.clone());
        }
        for span in units(text, &block) {
            segments.sentences.push(Sentence {
                span,
                section,
                chunk: 0,
                block: number,
                heading: matches!(block.kind, Kind::Heading { .. }),
            });
        }
    }
    segments.chunks = assign_chunks(&mut segments.sentences);
    segments
}

/// The units of selection in `text`: sentences, heading lines, parts of tables and code, as byte ranges in order. They do
/// not overlap and leave out nothing but white space.
pub fn sentences(text: &str, format: Format) -> Vec<Range<usize>> {
    let document = Document { text: text.to_owned(), format, ..Document::default() };
    segment_document(&document).sentences.into_iter().map(|sentence| sentence.span).collect()
}

/// Adds a section below the nearest open one of a lower level and gives its index.
fn open_section(
    sections: &mut Vec<Section>,
    current: usize,
    level: u8,
    heading: Range<usize>,
) -> usize {
    let mut parent = Some(current);
    while let Some(above) = parent
        && sections[above].level >= level
    {
        parent = sections[above].parent;
    }
    sections.push(Section { heading, parent, level });
    sections.len() - 1
}

/// The sentences of a block.
fn units(text: &str, block: &Block) -> Vec<Range<usize>> {
    let mut units = Vec::new();
    for flow in &block.flows {
        let inside = &text[flow.clone()];
        match block.kind {
            Kind::Heading { .. } => cut_long(text, flow.clone(), false, &mut units),
            Kind::Whole => cut_long(text, flow.clone(), true, &mut units),
            Kind::Prose => {
                let starts = sentences::starts(inside);
                let ends = starts[1..].iter().copied().chain([inside.len()]);
                for (start, end) in starts.iter().copied().zip(ends) {
                    cut_long(text, flow.start + start..flow.start + end, false, &mut units);
                }
            }
        }
    }
    units
}

/// Pushes `span` without its surrounding white space, in parts of at most [`MAX_SENTENCE_BYTES`]: cut at the last line
/// end (`by_line`), else the last white space, else the last character that fits.
fn cut_long(text: &str, span: Range<usize>, by_line: bool, out: &mut Vec<Range<usize>>) {
    let mut rest = span;
    loop {
        let inside = &text[rest.clone()];
        let trimmed = inside.trim_start();
        rest.start = rest.end - trimmed.len();
        rest.end = rest.start + trimmed.trim_end().len();
        if rest.is_empty() {
            return;
        }
        if rest.len() <= MAX_SENTENCE_BYTES {
            out.push(rest);
            return;
        }
        let most = text.floor_char_boundary(rest.start + MAX_SENTENCE_BYTES);
        let head = &text[rest.start..most];
        let line = if by_line { head.rfind('\n').filter(|&at| at > 0) } else { None };
        let cut = line.or_else(|| head.rfind(char::is_whitespace)).unwrap_or(head.len());
        out.push(rest.start..rest.start + head[..cut].trim_end().len());
        rest.start += cut;
    }
}

/// Numbers runs of sentences as chunks and gives their count.
fn assign_chunks(sentences: &mut [Sentence]) -> usize {
    let Some(first) = sentences.first() else { return 0 };
    let (mut chunk, mut start) = (0, first.span.start);
    for at in 1..sentences.len() {
        let (before, sentence) = (&sentences[at - 1], &sentences[at]);
        let enough = before.block != sentence.block && before.span.end - start >= CHUNK_BYTES;
        if before.section != sentence.section
            || enough
            || sentence.span.end - start > MAX_CHUNK_BYTES
        {
            chunk += 1;
            start = sentence.span.start;
        }
        sentences[at].chunk = chunk;
    }
    chunk + 1
}
