//! Lines become blocks: headings, paragraphs, list items, tables and code.

use std::ops::Range;

use crate::Format;

/// Widest line that is taken for wrapped by hand, in bytes. Beyond it a line end is a paragraph's end.
const MAX_WRAP: usize = 160;
/// Narrowest width that is taken for wrapped by hand: shorter lines are verse, addresses, lists of fields.
const MIN_WRAP: usize = 40;
/// Longest line that is taken for a heading in plain text, in bytes.
const MAX_TITLE: usize = 72;

/// What a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Sentences.
    Prose,
    /// A heading line.
    Heading {
        /// 1 to 6.
        level: u8,
        /// The heading without its markup.
        words: Range<usize>,
    },
    /// A table or a code block: kept whole, or cut at line ends when too long.
    Whole,
}

/// Lines that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) kind: Kind,
    /// Stretches of running text; no sentence reaches from one to the next.
    pub(super) flows: Vec<Range<usize>>,
}

/// The blocks of `text`, in order.
pub(super) fn blocks(text: &str, format: Format) -> Vec<Block> {
    let mut reader = Reader { text, format, blocks: Vec::new(), open: Vec::new(), fence: None };
    for line in lines(text) {
        reader.take(line);
    }
    reader.close();
    reader.blocks
}

/// Byte ranges of lines, without their ends (LF, CR LF or CR).
pub(super) fn lines(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= text.len() {
            return None;
        }
        let start = at;
        let length = text[start..].find(['\n', '\r']).unwrap_or(text.len() - start);
        let end = start + length;
        at = end + if text[end..].starts_with("\r\n") { 2 } else { 1 };
        Some(start..end)
    })
}

struct Reader<'a> {
    text: &'a str,
    format: Format,
    blocks: Vec<Block>,
    /// Lines of the block being read.
    open: Vec<Range<usize>>,
    /// Inside a code fence: its mark and length.
    fence: Option<(u8, usize)>,
}

impl Reader<'_> {
    fn take(&mut self, line: Range<usize>) {
        let words = self.text[line.clone()].trim();
        if let Some((mark, length)) = self.fence {
            self.open.push(line);
            if fence(words).is_some_and(|(m, n, bare)| m == mark && n >= length && bare) {
                self.fence = None;
                self.close_whole();
            }
            return;
        }
        if words.is_empty() {
            self.close();
            return;
        }
        if self.format == Format::Markdown {
            if let Some((mark, length, _)) = fence(words) {
                self.close();
                self.fence = Some((mark, length));
                self.open.push(line);
                return;
            }
            if let Some((level, words)) = atx_heading(self.text, &line) {
                self.close();
                self.push(Kind::Heading { level, words }, vec![line]);
                return;
            }
            if self.underlined(words) {
                let heading = self.open.pop().unwrap_or_default();
                self.close();
                let level = if words.starts_with('=') { 1 } else { 2 };
                self.push(
                    Kind::Heading { level, words: heading.clone() },
                    std::iter::once(heading.start..line.end).collect(),
                );
                return;
            }
        }
        if words.starts_with('|') != self.in_table() || is_item(words) {
            self.close();
        }
        self.open.push(line);
    }

    /// Whether the open lines are rows of a table.
    fn in_table(&self) -> bool {
        self.open
            .first()
            .is_some_and(|first| self.text[first.clone()].trim_start().starts_with('|'))
    }

    /// Whether `words` underlines the one line before it as a heading.
    fn underlined(&self, words: &str) -> bool {
        let rule = words.bytes().all(|b| b == b'=')
            || words.len() >= 2 && words.bytes().all(|b| b == b'-');
        let [before] = self.open.as_slice() else { return false };
        rule && !self.in_table() && !is_item(self.text[before.clone()].trim())
    }

    /// Ends the open block.
    fn close(&mut self) {
        if self.fence.is_some() || self.in_table() {
            self.fence = None;
            self.close_whole();
            return;
        }
        let lines = std::mem::take(&mut self.open);
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return };
        if lines.len() == 1
            && self.format == Format::Text
            && is_title(self.text[first.clone()].trim())
        {
            self.push(Kind::Heading { level: 1, words: first.clone() }, vec![first.clone()]);
            return;
        }
        let flows = match self.format {
            Format::Markdown => std::iter::once(first.start..last.end).collect(),
            // Code is not read line by line here, see `code`.
            Format::Text | Format::Code => self.unwrap_lines(&lines),
        };
        self.push(Kind::Prose, flows);
    }

    fn close_whole(&mut self) {
        let lines = std::mem::take(&mut self.open);
        if let (Some(first), Some(last)) = (lines.first(), lines.last()) {
            self.push(Kind::Whole, std::iter::once(first.start..last.end).collect());
        }
    }

    fn push(&mut self, kind: Kind, flows: Vec<Range<usize>>) {
        self.blocks.push(Block { kind, flows });
    }

    /// Joins the lines of a plain paragraph that were wrapped by hand: a line end is a wrap if the next line's first
    /// word would not have fitted the paragraph's width.
    fn unwrap_lines(&self, lines: &[Range<usize>]) -> Vec<Range<usize>> {
        let width = lines.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        let wrapped = (MIN_WRAP..=MAX_WRAP).contains(&width);
        let mut flows: Vec<Range<usize>> = Vec::new();
        let mut previous: Option<&Range<usize>> = None;
        for line in lines {
            let words = self.text[line.clone()].trim_start();
            let first = words.find(char::is_whitespace).unwrap_or(words.len());
            match (previous, flows.last_mut()) {
                (Some(before), Some(flow)) if wrapped && before.len() + 1 + first > width => {
                    flow.end = line.end
                }
                _ => flows.push(line.clone()),
            }
            previous = Some(line);
        }
        flows
    }
}

/// Mark and length of a code fence, and whether nothing follows it.
fn fence(words: &str) -> Option<(u8, usize, bool)> {
    let mark = *words.as_bytes().first().filter(|b| matches!(b, b'`' | b'~'))?;
    let length = words.bytes().take_while(|b| *b == mark).count();
    (length >= 3).then_some((mark, length, words.len() == length))
}

/// Level and words of a `# heading` line.
fn atx_heading(text: &str, line: &Range<usize>) -> Option<(u8, Range<usize>)> {
    let inside = &text[line.clone()];
    let marked = inside.trim_start();
    let level = marked.bytes().take_while(|b| *b == b'#').count();
    let rest = &marked[level..];
    if !(1..=6).contains(&level) || !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
        return None;
    }
    let words = rest.trim_start();
    let start = line.end - words.len();
    let words = words.trim_end().trim_end_matches('#').trim_end();
    Some((u8::try_from(level).ok()?, start..start + words.len()))
}

/// Whether a line begins a list item: `- `, `* `, `+ `, a bullet, `12. `, `12) `, `a) `.
pub(crate) fn is_item(words: &str) -> bool {
    let Some((marker, _)) = words.split_once([' ', '\t']) else { return false };
    match marker {
        "-" | "*" | "+" | "•" | "◦" | "▪" | "–" => true,
        _ => marker.strip_suffix(['.', ')']).is_some_and(|inner| {
            let inner = inner.strip_prefix('(').unwrap_or(inner);
            let digits =
                (1..=3).contains(&inner.len()) && inner.bytes().all(|b| b.is_ascii_digit());
            digits
                || marker.ends_with(')')
                    && inner.len() == 1
                    && inner.as_bytes()[0].is_ascii_alphabetic()
        }),
    }
}

/// Whether a plain line standing alone reads as a heading: short, begun by a capital or digit, not ended like a
/// sentence.
fn is_title(words: &str) -> bool {
    words.len() <= MAX_TITLE
        && words.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit())
        && words.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == ')')
        && words.chars().any(char::is_alphabetic)
}
