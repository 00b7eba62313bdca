//! What turns sent, as bytes.
//!
//! A version byte, then numbers in LEB128: the turns; of each its message and its spans; of each span its document, the
//! distance from the end of the one before (from 0 in a new document), its length and tokens, twice, plus
//! one if it was kept for another's sake, and its rank; then its scores, as little-endian floats.

use crate::{Document, KeptSpan, Span};

const VERSION: u8 = 2;

/// What stands before one message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Turn {
    /// Index of the message.
    pub(super) message: usize,
    /// The kept spans, by document and offset. Those that touch stand as one passage.
    pub(super) kept: Vec<KeptSpan>,
}

/// The value remembered for `turns`.
pub(super) fn encode(turns: &[Turn]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    put(&mut bytes, turns.len());
    for turn in turns {
        put(&mut bytes, turn.message);
        put(&mut bytes, turn.kept.len());
        let mut before = Span { document: 0, start: 0, end: 0 };
        for KeptSpan { span, tokens, score, lexical, dense, rank, expanded } in &turn.kept {
            if span.document != before.document {
                before.end = 0;
            }
            put(&mut bytes, span.document - before.document);
            put(&mut bytes, span.start - before.end);
            put(&mut bytes, span.end - span.start);
            put(&mut bytes, 2 * *tokens as usize + usize::from(*expanded));
            put(&mut bytes, *rank as usize);
            bytes.extend(score.to_le_bytes());
            bytes.extend(lexical.to_le_bytes());
            bytes.extend(dense.to_le_bytes());
            before = *span;
        }
    }
    bytes
}

/// The turns that `bytes` stand for. `None` if they are of another version, or are not spans of `documents` in order
/// and apart: what is remembered comes from a store, and no promise may rest on its word.
pub(super) fn decode(bytes: &[u8], documents: &[Document]) -> Option<Vec<Turn>> {
    let mut reader = Reader(bytes.strip_prefix(&[VERSION])?);
    let mut turns: Vec<Turn> = Vec::new();
    for _ in 0..reader.number()? {
        let message = reader.number()?;
        if turns.last().is_some_and(|before| before.message >= message) {
            return None;
        }
        let mut kept = Vec::new();
        let mut before = Span { document: 0, start: 0, end: 0 };
        for _ in 0..reader.number()? {
            let further = reader.number()?;
            if further > 0 {
                before.end = 0;
            }
            let document = before.document.checked_add(further)?;
            let start = before.end.checked_add(reader.number()?)?;
            let end = start.checked_add(reader.number()?)?;
            documents.get(document)?.text.get(start..end).filter(|text| !text.is_empty())?;
            let tokens = reader.number()?;
            let rank = u32::try_from(reader.number()?).ok()?;
            let span = Span { document, start, end };
            kept.push(KeptSpan {
                span,
                tokens: u32::try_from(tokens / 2).ok()?,
                score: reader.float().filter(|score| *score >= 0.0)?,
                lexical: reader.float().filter(|score| *score >= 0.0)?,
                dense: reader.float()?,
                rank,
                expanded: tokens % 2 == 1,
            });
            before = span;
        }
        turns.push(Turn { message, kept });
    }
    let mut spans: Vec<Span> =
        turns.iter().flat_map(|turn| &turn.kept).map(|kept| kept.span).collect();
    spans.sort_unstable();
    let apart =
        |pair: &[Span]| pair[0].document != pair[1].document || pair[0].end <= pair[1].start;
    (reader.0.is_empty() && spans.windows(2).all(apart)).then_some(turns)
}

fn put(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<usize> {
        let mut number = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = usize::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// A score: a number.
    fn float(&mut self) -> Option<f32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(f32::from_le_bytes(*bytes)).filter(|float| float.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn documents() -> Vec<Document> {
        let text = |text: String| Document { text, ..Document::default() };
        vec![text("one ünd two. ".repeat(30)), text("x".to_owned()), text("last".repeat(100))]
    }

    fn kept(document: usize, start: usize, end: usize) -> KeptSpan {
        let span = Span { document, start, end };
        let expanded = start > 0;
        KeptSpan { span, tokens: 300, score: 0.25, lexical: 7.5, dense: -0.5, rank: 7, expanded }
    }

    #[test]
    fn what_is_encoded_comes_back() {
        let turns = vec![
            Turn { message: 0, kept: vec![kept(0, 0, 14), kept(0, 14, 200), kept(2, 3, 4)] },
            Turn { message: 4, kept: vec![kept(1, 0, 1), kept(2, 4, 400)] },
            Turn { message: 1000, kept: vec![] },
        ];
        let bytes = encode(&turns);
        assert_eq!(decode(&bytes, &documents()), Some(turns));
        assert!(bytes.len() < 110, "{}", bytes.len());
        assert_eq!(decode(&encode(&[]), &documents()), Some(vec![]));
    }

    #[test]
    fn what_does_not_fit_the_documents_is_not_believed() {
        let turn = |message, kept| Turn { message, kept };
        for wrong in [
            vec![turn(0, vec![kept(3, 0, 1)])],
            vec![turn(0, vec![kept(1, 0, 2)])],
            vec![turn(0, vec![kept(1, 0, 0)])],
            vec![turn(0, vec![kept(0, 0, 5)])],
            vec![turn(0, vec![kept(0, 0, 4)]), turn(2, vec![kept(0, 3, 4)])],
            vec![turn(2, vec![kept(0, 0, 4)]), turn(2, vec![kept(1, 0, 1)])],
        ] {
            assert_eq!(decode(&encode(&wrong), &documents()), None, "{wrong:?}");
        }
        let mut other_version = encode(&[]);
        other_version[0] += 1;
        assert_eq!(decode(&other_version, &documents()), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = [&[VERSION][..], &bytes].concat();
            if let Some(turns) = decode(&bytes, &documents()) {
                prop_assert_eq!(decode(&encode(&turns), &documents()), Some(turns));
            }
        }
    }
}
