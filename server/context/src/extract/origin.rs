//! The way from extracted text back to the original.

use std::ops::Range;

use super::way::{Reader, put, put_step};

/// Where a range of extracted text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Bytes of the original as UTF-8 text, on character boundaries: the smallest range that holds everything the
    /// extracted range was made of.
    Text(Range<usize>),
    /// Pages of the original, from 1, both included.
    Pages {
        /// The first.
        first: u32,
        /// The last.
        last: u32,
    },
}

/// Leads from ranges of an extracted text to the original. Both run in the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// The text is the original.
    Whole(usize),
    /// Stretches of text and what they were made of, in order. What lies between (a blank line, a list mark) was
    /// added.
    Runs(Vec<Run>),
    /// Where each page's text begins.
    Pages(Vec<usize>),
}

/// A stretch of text that stands for a stretch of the original: byte for byte where both are of the same length, as a
/// whole where not (a character reference, collapsed white space).
///
/// Four numbers of 32 bits: hostile markup makes a run of every few bytes, and no original is as long as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    text: u32,
    text_len: u32,
    original: u32,
    original_len: u32,
}

impl Origins {
    /// Of a text that is the original, `len` bytes long.
    pub(super) fn whole(len: usize) -> Self {
        Self(Kind::Whole(len))
    }

    /// Of a text whose pages begin at `starts`.
    pub(super) fn pages(starts: Vec<usize>) -> Self {
        Self(Kind::Pages(starts))
    }

    /// Whether the text is the original, byte for byte.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        matches!(self.0, Kind::Whole(_))
    }

    /// Whether originals are told by page, and not by bytes of a source.
    #[must_use]
    pub fn in_pages(&self) -> bool {
        matches!(self.0, Kind::Pages(_))
    }

    /// Where the bytes `range` of the text come from; `None` if nothing in it stood in the original.
    #[must_use]
    pub fn of(&self, range: Range<usize>) -> Option<Origin> {
        match &self.0 {
            _ if range.is_empty() => None,
            Kind::Whole(len) => Some(Origin::Text(range.start.min(*len)..range.end.min(*len))),
            Kind::Runs(runs) => {
                let first = runs.partition_point(|run| run.text_end() <= range.start);
                let last = runs.partition_point(|run| (run.text as usize) < range.end);
                let (first, last) = (runs.get(first)?, runs.get(last.checked_sub(1)?)?);
                let start = first.start_of(range.start);
                let end = last.end_of(range.end);
                (start < end).then_some(Origin::Text(start..end))
            }
            Kind::Pages(starts) => {
                let page = |byte: usize| {
                    u32::try_from(starts.partition_point(|start| *start <= byte).max(1))
                        .unwrap_or(u32::MAX)
                };
                Some(Origin::Pages { first: page(range.start), last: page(range.end - 1) })
            }
        }
    }
}

impl Origins {
    /// Appends what [`decode`](Self::decode) reads.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Kind::Whole(_) => out.push(0),
            Kind::Runs(runs) => {
                out.push(1);
                put(out, runs.len());
                let (mut text, mut original) = (0, 0);
                for run in runs {
                    // White space at the end of a block is cut off after its run was noted: runs may reach beyond the next. Words
                    // of one stretch of the source may all lead to the whole of it.
                    put_step(out, text, run.text as usize);
                    put(out, run.text_len as usize);
                    put_step(out, original, run.original as usize);
                    put(out, run.original_len as usize);
                    (text, original) = (run.text as usize, run.original as usize);
                }
            }
            Kind::Pages(starts) => {
                out.push(2);
                put(out, starts.len());
                let mut before = 0;
                for start in starts {
                    put_step(out, before, *start);
                    before = *start;
                }
            }
        }
    }

    /// The origins of `text`; `None` if the bytes are not such.
    pub(super) fn decode(reader: &mut Reader<'_>, text: &str) -> Option<Self> {
        let narrow = |offset: usize| u32::try_from(offset).ok();
        match reader.byte()? {
            0 => Some(Self::whole(text.len())),
            1 => {
                let count = reader.number()?;
                let mut runs = Vec::with_capacity(count.min(reader.left()));
                let (mut start, mut original) = (0, 0);
                for _ in 0..count {
                    start = reader.step(start)?;
                    let text_len = reader.number()?;
                    original = reader.step(original)?;
                    let original_len = reader.number()?;
                    narrow(start.saturating_add(text_len))?;
                    narrow(original.saturating_add(original_len))?;
                    runs.push(Run {
                        text: narrow(start)?,
                        text_len: narrow(text_len)?,
                        original: narrow(original)?,
                        original_len: narrow(original_len)?,
                    });
                }
                Some(Self(Kind::Runs(runs)))
            }
            2 => {
                let count = reader.number()?;
                let mut starts = Vec::with_capacity(count.min(reader.left()));
                let mut before = 0;
                for _ in 0..count {
                    before = reader.step(before)?;
                    starts.push(before);
                }
                Some(Self(Kind::Pages(starts)))
            }
            _ => None,
        }
    }
}

impl Run {
    fn text_end(&self) -> usize {
        (self.text + self.text_len) as usize
    }

    fn is_exact(&self) -> bool {
        self.text_len == self.original_len
    }

    /// Where text from `byte` on comes from.
    fn start_of(&self, byte: usize) -> usize {
        let inside = if self.is_exact() { byte.saturating_sub(self.text as usize) } else { 0 };
        self.original as usize + inside
    }

    /// Where text up to `byte` comes from.
    fn end_of(&self, byte: usize) -> usize {
        let left = if self.is_exact() { self.text_end().saturating_sub(byte) } else { 0 };
        (self.original + self.original_len) as usize - left
    }
}

/// Collects runs.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    runs: Vec<Run>,
}

impl Recorder {
    /// The next `text_len` bytes of text, from `text` on, stand for `original`. With `exact`, byte for byte.
    pub(super) fn push(&mut self, text: usize, text_len: usize, original: Range<usize>) {
        // All offsets are below `MAX_INPUT_BYTES` and `MAX_TEXT_BYTES`.
        let narrow = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        let run = Run {
            text: narrow(text),
            text_len: narrow(text_len),
            original: narrow(original.start),
            original_len: narrow(original.len()),
        };
        match self.runs.last_mut() {
            Some(last)
                if last.is_exact()
                    && run.is_exact()
                    && last.text + last.text_len == run.text
                    && last.original + last.original_len == run.original =>
            {
                last.text_len += run.text_len;
                last.original_len += run.original_len;
            }
            _ => self.runs.push(run),
        }
    }

    pub(super) fn finish(mut self) -> Origins {
        self.runs.shrink_to_fit();
        Origins(Kind::Runs(self.runs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lead_to_the_smallest_original() {
        // `a  b &amp; c` became `a b & c`.
        let mut recorder = Recorder::default();
        for (text, len, original) in
            [(0, 1, 0..1), (1, 1, 1..3), (2, 2, 3..5), (4, 1, 5..10), (5, 2, 10..12)]
        {
            recorder.push(text, len, original);
        }
        let origins = recorder.finish();
        for (range, original) in [
            (0..7, 0..12),
            (0..1, 0..1),
            (2..3, 3..4),
            (2..5, 3..10),
            (4..5, 5..10),
            (6..7, 11..12),
            (1..3, 1..4),
        ] {
            assert_eq!(origins.of(range.clone()), Some(Origin::Text(original)), "{range:?}");
        }
        assert_eq!(origins.of(3..3), None);
    }

    #[test]
    fn what_was_added_comes_from_nowhere() {
        let mut recorder = Recorder::default();
        recorder.push(2, 3, 10..13);
        recorder.push(7, 3, 20..23);
        let origins = recorder.finish();
        assert_eq!(origins.of(0..2), None);
        assert_eq!(origins.of(5..7), None);
        assert_eq!(origins.of(0..3), Some(Origin::Text(10..11)));
        assert_eq!(origins.of(4..9), Some(Origin::Text(12..22)));
    }

    #[test]
    fn pages_are_counted_from_one() {
        let origins = Origins::pages(vec![0, 10, 10, 30]);
        let pages = |range| match origins.of(range) {
            Some(Origin::Pages { first, last }) => (first, last),
            other => panic!("{other:?}"),
        };
        assert_eq!(pages(0..10), (1, 1));
        assert_eq!(pages(9..11), (1, 3));
        assert_eq!(pages(30..31), (4, 4));
    }
}
