//! Source code becomes units and the definitions they stand in, in any language: by indentation, blank lines and a few
//! words that most languages share. Nothing is parsed.
//!
//! A line that encloses others heads a section: anything but a control statement on the outermost level (`impl Bar {`,
//! `const TABLE = [`), deeper only what reads as a definition (`def foo(self):`, `void foo(int a) {`). Units are whole
//! definitions where they are short enough, paragraphs of them where not; a comment goes with what follows it.

#[cfg(test)]
mod tests;

use std::ops::Range;

use super::{MAX_SENTENCE_BYTES, Section, Segments, Sentence, assign_chunks, cut_long};

/// Deepest definition that heads a section of its own.
const MAX_DEPTH: usize = 6;
/// Longest part of a definition's first line that serves as its heading, in bytes.
const MAX_HEADING: usize = 200;
/// Columns a tab takes.
const TAB: usize = 4;

/// Words that begin a statement which encloses others but defines nothing.
const CONTROL: &[&str] = &[
    "begin",
    "case",
    "catch",
    "default",
    "defer",
    "do",
    "elif",
    "else",
    "elsif",
    "ensure",
    "except",
    "finally",
    "for",
    "foreach",
    "go",
    "guard",
    "if",
    "lock",
    "loop",
    "match",
    "repeat",
    "rescue",
    "return",
    "select",
    "switch",
    "synchronized",
    "try",
    "unless",
    "until",
    "using",
    "when",
    "while",
    "with",
];
/// Words that may stand before one that defines.
const MODIFIERS: &[&str] = &[
    "abstract",
    "async",
    "const",
    "data",
    "default",
    "export",
    "extern",
    "final",
    "inline",
    "internal",
    "local",
    "open",
    "override",
    "partial",
    "private",
    "protected",
    "pub",
    "public",
    "sealed",
    "static",
    "unsafe",
    "virtual",
];
/// Words that begin a definition.
const DEFINITIONS: &[&str] = &[
    "actor",
    "class",
    "constructor",
    "create",
    "def",
    "defmodule",
    "defn",
    "defp",
    "enum",
    "extension",
    "fn",
    "fun",
    "func",
    "function",
    "impl",
    "init",
    "interface",
    "macro",
    "macro_rules",
    "message",
    "mod",
    "module",
    "namespace",
    "object",
    "package",
    "proc",
    "procedure",
    "protocol",
    "record",
    "service",
    "struct",
    "sub",
    "trait",
    "type",
    "union",
];

/// A line that is not blank.
#[derive(Debug, Clone)]
struct Line {
    /// Without its end.
    span: Range<usize>,
    /// Columns before its first character.
    indent: usize,
    /// A blank line stands before it.
    apart: bool,
}

/// Cuts `text` up.
pub(super) fn segment(text: &str) -> Segments {
    let mut reader = Reader {
        text,
        segments: Segments::default(),
        open: Vec::new(),
        lead: Vec::new(),
        run: Vec::new(),
        run_section: 0,
        blocks: 0,
    };
    let mut lines = lines(text).peekable();
    while let Some(line) = lines.next() {
        reader.take(line, lines.peek());
    }
    reader.settle_lead();
    reader.end_run();
    reader.segments.chunks = assign_chunks(&mut reader.segments.sentences);
    reader.segments
}

fn lines(text: &str) -> impl Iterator<Item = Line> {
    let mut apart = false;
    super::blocks::lines(text).filter_map(move |span| {
        let inside = &text[span.clone()];
        let words = inside.trim_start();
        if words.is_empty() {
            apart = true;
            return None;
        }
        let before = inside[..inside.len() - words.len()].chars();
        let indent = before.fold(0, |column, c| match c {
            '\t' => (column / TAB + 1) * TAB,
            _ => column + 1,
        });
        Some(Line { span, indent, apart: std::mem::take(&mut apart) })
    })
}

/// A definition whose end has not been seen.
struct Open {
    indent: usize,
    section: usize,
}

struct Reader<'a> {
    text: &'a str,
    segments: Segments,
    open: Vec<Open>,
    /// Comments and attributes of what comes next.
    lead: Vec<Line>,
    /// Paragraphs that follow each other in a section.
    run: Vec<Range<usize>>,
    run_section: usize,
    blocks: usize,
}

impl Reader<'_> {
    fn take(&mut self, line: Line, next: Option<&Line>) {
        let words = self.text[line.span.clone()].trim();
        if line.apart {
            self.settle_lead();
        }
        if is_lead(words) {
            self.lead.push(line);
            return;
        }
        let closes = closes(words);
        // What only closes, opens a body on its own line or speaks to the preprocessor is still part of the definition
        // above.
        if !(closes || words == "{" || is_directive(words)) {
            while self.open.last().is_some_and(|open| open.indent >= line.indent) {
                self.open.pop();
            }
            if self.open.len() < MAX_DEPTH && self.heads(words, &line, next) {
                self.open_section(&line);
            }
        }
        let section = self.section();
        for lead in std::mem::take(&mut self.lead) {
            self.push(&lead, section);
        }
        self.push(&line, section);
        let over = closes && !words.ends_with(['{', '(', '[', ':']);
        if over && self.open.last().is_some_and(|open| open.indent >= line.indent) {
            self.open.pop();
        }
    }

    /// The section that lines now belong to.
    fn section(&self) -> usize {
        self.open.last().map_or(0, |open| open.section)
    }

    /// Whether `line` heads a section.
    fn heads(&self, words: &str, line: &Line, next: Option<&Line>) -> bool {
        let encloses = next.is_some_and(|next| {
            next.indent > line.indent
                || next.indent == line.indent && self.text[next.span.clone()].trim() == "{"
        });
        let first = words.split(|c: char| !is_word(c)).next().unwrap_or("");
        encloses
            && !CONTROL.contains(&first)
            && (self.open.is_empty() || is_definition(words) || is_method(words))
    }

    fn open_section(&mut self, line: &Line) {
        let inside = &self.text[line.span.clone()];
        let words = inside.trim();
        let start = line.span.end - inside.trim_start().len();
        let heading = start..start + words.floor_char_boundary(MAX_HEADING.min(words.len()));
        let parent = Some(self.section());
        let level = u8::try_from(self.open.len() + 1).unwrap_or(u8::MAX);
        self.segments.sections.push(Section { heading, parent, level });
        self.open.push(Open { indent: line.indent, section: self.segments.sections.len() - 1 });
    }

    /// Comments that a blank line parts from what follows stand for themselves.
    fn settle_lead(&mut self) {
        let Some(first) = self.lead.first() else { return };
        let around = self.open.iter().rev().find(|open| open.indent < first.indent);
        let section = around.map_or(0, |open| open.section);
        for lead in std::mem::take(&mut self.lead) {
            self.push(&lead, section);
        }
    }

    fn push(&mut self, line: &Line, section: usize) {
        if section != self.run_section {
            self.end_run();
            self.run_section = section;
        }
        match self.run.last_mut() {
            Some(paragraph) if !line.apart => paragraph.end = line.span.end,
            _ => self.run.push(line.span.clone()),
        }
    }

    /// Makes units of the paragraphs: outside definitions one of each, inside as many together as fit.
    fn end_run(&mut self) {
        let mut unit: Option<Range<usize>> = None;
        for paragraph in std::mem::take(&mut self.run) {
            match &mut unit {
                Some(unit)
                    if self.run_section != 0
                        && paragraph.end - unit.start <= MAX_SENTENCE_BYTES =>
                {
                    unit.end = paragraph.end
                }
                _ => {
                    self.push_unit(unit.take());
                    unit = Some(paragraph);
                }
            }
        }
        self.push_unit(unit);
    }

    fn push_unit(&mut self, unit: Option<Range<usize>>) {
        let Some(unit) = unit else { return };
        let mut spans = Vec::new();
        cut_long(self.text, unit, true, &mut spans);
        let (section, block) = (self.run_section, self.blocks);
        self.blocks += 1;
        self.segments.sentences.extend(spans.into_iter().map(|span| Sentence {
            span,
            section,
            chunk: 0,
            block,
            heading: false,
        }));
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A comment, an attribute, an annotation: it says something about what follows.
fn is_lead(words: &str) -> bool {
    let marks = ["//", "/*", "* ", "*/", "#[", "# ", "#!", "--", ";;", "@", "%%", "<!--", "\"\"\""];
    marks.iter().any(|mark| words.starts_with(mark)) || words == "*" || words == "#"
}

/// `#include`, `#ifdef`: written at the margin wherever it stands.
fn is_directive(words: &str) -> bool {
    words.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// Whether a line begins by closing what others opened.
fn closes(words: &str) -> bool {
    words.starts_with(['}', ')', ']'])
        || words.strip_prefix("end").is_some_and(|rest| !rest.starts_with(is_word))
}

/// `pub fn`, `export default class`: begins with a word that defines.
fn is_definition(words: &str) -> bool {
    let mut each = words.split(|c: char| !is_word(c)).filter(|word| !word.is_empty());
    // `pub(crate)` has a word more.
    let word = each.find(|word| !MODIFIERS.contains(word) && !matches!(*word, "crate" | "super"));
    word.is_some_and(|word| DEFINITIONS.contains(&word))
}

/// `void foo(int a) const {`, `foo(a)`: a name and what it takes, nothing assigned or called before it.
fn is_method(words: &str) -> bool {
    let Some((name, rest)) = words.split_once('(') else { return false };
    let named = name.trim_end().ends_with(is_word) && !name.contains(['=', '.', '"', '\'']);
    let depth = rest.chars().fold(1_i32, |depth, c| match c {
        '(' => depth + 1,
        ')' => depth - 1,
        _ => depth,
    });
    named && depth == 0 && !words.ends_with([';', ','])
}
