//! What is kept of an extraction with its text: what the text is made of, and the way back to the original.

use std::sync::Arc;

use super::Origins;
use crate::varint;
use crate::{Element, ElementKind};

/// What a text is made of and where that stood in the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// For [`Document::elements`](crate::Document::elements).
    pub elements: Option<Arc<[Element]>>,
    /// The way back.
    pub origins: Origins,
}

impl Way {
    /// Bytes of it: variable-length numbers, every count before what it counts, every place as the distance from what
    /// comes before.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.elements {
            None => out.push(0),
            Some(elements) => {
                out.push(1);
                put(&mut out, elements.len());
                let mut end = 0;
                for Element { kind, span } in &**elements {
                    let (kind, level) = match kind {
                        ElementKind::Paragraph => (0, 0),
                        ElementKind::Heading(level) => (1, *level),
                        ElementKind::Lines => (2, 0),
                    };
                    out.extend([kind, level]);
                    put(&mut out, span.start - end);
                    put(&mut out, span.len());
                    end = span.end;
                }
            }
        }
        self.origins.encode(&mut out);
        out
    }

    /// What [`encode`](Self::encode) gave for the way of `text`; `None` for anything else.
    pub(crate) fn decode(bytes: &[u8], text: &str) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let elements = match reader.byte()? {
            0 => None,
            1 => {
                let (count, mut end) = (reader.number()?, 0);
                let mut elements = Vec::with_capacity(count.min(bytes.len()));
                for _ in 0..count {
                    let kind = match (reader.byte()?, reader.byte()?) {
                        (0, 0) => ElementKind::Paragraph,
                        (1, level) => ElementKind::Heading(level),
                        (2, 0) => ElementKind::Lines,
                        _ => return None,
                    };
                    let start = end + reader.number()?;
                    end = start + reader.number()?;
                    text.get(start..end)?;
                    elements.push(Element { kind, span: start..end });
                }
                Some(elements.into())
            }
            _ => return None,
        };
        let origins = Origins::decode(&mut reader, text)?;
        (reader.at == bytes.len()).then_some(Self { elements, origins })
    }
}

/// Appends a place or a count: texts that are extracted, and what they are extracted from, are far below 4 GiB.
pub(super) fn put(out: &mut Vec<u8>, number: usize) {
    varint::put(out, u32::try_from(number).unwrap_or(u32::MAX));
}

/// Appends the way from one place to another, forward as twice its length, backward as one less than that.
pub(super) fn put_step(out: &mut Vec<u8>, from: usize, to: usize) {
    put(out, if to < from { 2 * (from - to) - 1 } else { 2 * (to - from) });
}

/// Takes bytes apart.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn number(&mut self) -> Option<usize> {
        usize::try_from(varint::take(self.bytes, &mut self.at)?).ok()
    }

    /// The place that [`put_step`] led to from `from`.
    pub(super) fn step(&mut self, from: usize) -> Option<usize> {
        let step = self.number()?;
        if step % 2 == 0 { Some(from + step / 2) } else { from.checked_sub(step.div_ceil(2)) }
    }

    /// Most items that can follow.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }
}

#[cfg(test)]
mod tests {
    use super::super::extract;
    use super::*;

    fn way(source: &[u8], mime: &str) -> (String, Way) {
        let extracted = extract(source, mime, &mut || true).unwrap();
        (extracted.text, Way { elements: extracted.elements, origins: extracted.origins })
    }

    #[test]
    fn it_comes_back_as_it_was() {
        let page = "<pre>x\n\n\n\n\n</pre>y<title>T</title><h2>Caf\u{e9} &amp; bar</h2><p>One  <b>two</b>.<ul><li>x<li>y</ul>";
        let latin: Vec<u8> = "caf\u{e9}".chars().map(|c| c as u8).collect();
        for (source, mime) in [
            (page.as_bytes(), "text/html"),
            (b"\xff\xfea\0b\0".as_slice(), "text/plain"),
            (&latin, "text/x-rust; charset=latin1"),
        ] {
            let (text, way) = way(source, mime);
            assert_eq!(Way::decode(&way.encode(), &text), Some(way), "{mime}");
        }
        let pages = Way { elements: None, origins: Origins::pages(vec![0, 2, 2, 5]) };
        assert_eq!(Way::decode(&pages.encode(), "a text"), Some(pages));
    }

    #[test]
    fn what_does_not_fit_the_text_is_refused() {
        let (text, way) = way("<h1>Head</h1><p>na\u{ef}ve words</p>".as_bytes(), "text/html");
        let bytes = way.encode();
        assert!(Way::decode(&bytes, &text).is_some());
        for end in 0..bytes.len() {
            assert_eq!(Way::decode(&bytes[..end], &text), None, "{end}");
        }
        assert_eq!(Way::decode(&[&bytes[..], &[0]].concat(), &text), None);
        assert_eq!(Way::decode(&bytes, &text[..6]), None);
        // Another text of the same length whose characters lie elsewhere.
        let other = "\u{20ac}".repeat(text.len() / 3 + 1);
        assert_eq!(Way::decode(&bytes, &other), None);
    }
}
