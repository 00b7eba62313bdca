//! Documents cut into the sentences that baselines choose from, counted once.

use pith_context::{Document, LanguageModel as _, Packed, Span, pack, sentences};

use super::meter::Meter;

/// Stands between two passages of a document; see [`pith_context::Packed`].
const GAP: &str = "\n...\n";

/// Documents ready to be chosen from.
#[derive(Debug)]
pub(super) struct Haystack<'a> {
    pub(super) documents: &'a [Document],
    /// Sentences, in order.
    pub(super) units: Vec<Span>,
    /// Tokens of each unit by itself.
    pub(super) counts: Vec<i64>,
    /// Tokens of each document's header line.
    pub(super) headers: Vec<i64>,
    pub(super) gap: i64,
    /// Context tokens if everything is kept.
    pub(super) tokens: u32,
}

impl<'a> Haystack<'a> {
    pub(super) fn new(documents: &'a [Document], meter: &Meter<'_>) -> Self {
        let units: Vec<Span> = units(documents);
        let tokens = |text: &str| i64::from(meter.count(text));
        let counts = units.iter().map(|unit| tokens(text(documents, *unit))).collect();
        let headers =
            (0..documents.len()).map(|document| tokens(&header(documents, document))).collect();
        Self {
            documents,
            counts,
            headers,
            gap: tokens(GAP),
            tokens: meter.remember(&everything(documents).text),
            units,
        }
    }

    /// The units of `chosen`, sorted, as passages: neighbours are joined.
    pub(super) fn passages(&self, chosen: &[usize]) -> Vec<Span> {
        let mut passages: Vec<Span> = Vec::new();
        let mut before = None;
        for &at in chosen {
            let unit = self.units[at];
            match passages.last_mut() {
                Some(last) if before == at.checked_sub(1) && last.document == unit.document => {
                    last.end = unit.end
                }
                _ => passages.push(unit),
            }
            before = Some(at);
        }
        passages
    }
}

/// All documents, packed whole.
pub(super) fn everything(documents: &[Document]) -> Packed {
    let full = documents.iter().enumerate().filter(|(_, document)| !document.text.is_empty());
    let whole = |(document, source): (usize, &Document)| Span {
        document,
        start: 0,
        end: source.text.len(),
    };
    pack(documents, full.map(whole))
}

/// The sentences of all documents, in order.
pub(super) fn units(documents: &[Document]) -> Vec<Span> {
    let mut units = Vec::new();
    for (document, source) in documents.iter().enumerate() {
        let cut = sentences(&source.text, source.format).into_iter();
        units.extend(cut.map(|range| Span { document, start: range.start, end: range.end }));
    }
    units
}

/// The text of a span.
pub(super) fn text(documents: &[Document], span: Span) -> &str {
    &documents[span.document].text[span.start..span.end]
}

/// What stands before a document in a packed context.
fn header(documents: &[Document], document: usize) -> String {
    let nothing = pack(documents, [Span { document, start: 0, end: 0 }]);
    nothing.text
}
