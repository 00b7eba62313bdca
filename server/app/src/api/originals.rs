//! Documents sent or stored as files: those sent become text, and spans of the text lead back to the file.
//!
//! It takes a while, so it happens where prompts are prepared, and ends when the caller leaves.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use pith_context::extract::{ExtractError, Origin, Origins};
use pith_context::{Extracted, extract};
use pith_proto::v1;
use pith_proto::v1::OffsetUnit;

use super::offsets::Offsets;
use super::status::ApiError;
use super::validate::Sources;
use crate::language_model::Cancelled;

/// Most warnings about what was left out of documents.
const MAX_WARNINGS: usize = 8;

/// The documents of a request that are not sent as text.
#[derive(Debug, Default)]
pub(super) struct Originals {
    /// Those still to be read.
    pub(super) unread: Vec<Unread>,
    /// Those read whose text is not what was sent, by place in the request.
    read: HashMap<usize, Option<Arc<Original>>>,
    /// What the caller should know of it.
    warnings: Vec<String>,
    /// What reading took.
    seconds: f64,
}

/// A document to be made text of.
#[derive(Debug)]
pub(super) struct Unread {
    /// Its place in the request.
    pub(super) document: usize,
    /// The field it came in.
    pub(super) field: &'static str,
    pub(super) mime: String,
    pub(super) bytes: Vec<u8>,
}

/// The way back to a document as it was sent.
#[derive(Debug)]
pub(super) struct Original {
    origins: Origins,
    /// Of its source, as text.
    offsets: Offsets,
}

impl Original {
    /// Of a text with these `origins`; `None` if it stands in the original just so. The `source` of a page is read only
    /// where offsets of it are told.
    pub(super) fn new(
        origins: Origins,
        unit: OffsetUnit,
        source: impl FnOnce() -> Result<String, ApiError>,
    ) -> Result<Option<Self>, ApiError> {
        if origins.is_identity() {
            return Ok(None);
        }
        let source = if origins.in_pages() { String::new() } else { source()? };
        Ok(Some(Self { origins, offsets: Offsets::new(unit, &source) }))
    }

    /// Where bytes `range` of the document's text stood.
    pub(super) fn of(&self, range: Range<usize>) -> Option<v1::Original> {
        Some(match self.origins.of(range)? {
            Origin::Text(range) => v1::Original {
                start: self.offsets.at(range.start),
                end: self.offsets.at(range.end),
                ..Default::default()
            },
            Origin::Pages { first, last } => {
                v1::Original { first_page: first, last_page: last, ..Default::default() }
            }
        })
    }
}

impl Originals {
    /// The way back from the text of a document; `None` if its text stands in the original just so.
    pub(super) fn of(&self, document: usize) -> Option<Arc<Original>> {
        self.read.get(&document).cloned().flatten()
    }

    /// Notes that the text of a `document` is not what was sent or uploaded.
    pub(super) fn note(&mut self, document: usize, original: Option<Original>) {
        self.read.insert(document, original.map(Arc::new));
    }

    /// Warns of glyphs missing in the text of the document called `id`.
    pub(super) fn warn(&mut self, id: &str, left_out: u64) {
        if left_out > 0 && self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(format!(
                "{id:?}: {left_out} glyphs were left out: their fonts do not say what they mean"
            ));
        }
    }
}

impl Sources {
    /// Says in `report` what was extracted, and with `text` what came of it.
    pub(super) fn tell(&self, report: &mut v1::CompressionReport, text: bool) {
        let Originals { read, warnings, seconds, .. } = &self.originals;
        report.warnings.extend_from_slice(warnings);
        if *seconds > 0.0 {
            let stage = v1::StageTime { stage: "extract".to_owned(), seconds: *seconds };
            report.stages.insert(0, stage);
        }
        if text {
            let extracted = self.documents.iter().enumerate().filter(|(i, _)| read.contains_key(i));
            let told = |(_, document): (usize, &pith_context::Document)| v1::ExtractedText {
                document_id: document.id.clone(),
                text: document.text.clone(),
            };
            report.extracted = extracted.map(told).collect();
        }
    }
}

/// Reads what is unread of `sources`; `unit`: what offsets of the originals count.
pub(super) fn read(
    sources: &mut Sources,
    unit: OffsetUnit,
    deadline: Instant,
    cancelled: &Cancelled,
) -> Result<(), ApiError> {
    if sources.originals.unread.is_empty() {
        return Ok(());
    }
    let clock = Instant::now();
    let mut keep_going = || cancelled.awaited_until(deadline);
    for Unread { document: index, field, mime, bytes } in
        std::mem::take(&mut sources.originals.unread)
    {
        let wrong = |error: ExtractError| {
            let field = if matches!(error, ExtractError::Media { .. }) { "mime" } else { field };
            ApiError::Extract { field: format!("documents[{index}].{field}"), error }
        };
        if !keep_going() {
            return Err(wrong(ExtractError::Cancelled));
        }
        let extracted = extract(&bytes, &mime, &mut keep_going).map_err(wrong)?;
        let Extracted { text, format, elements, title, origins, decoded, left_out } = extracted;
        let verbatim = origins.is_identity();
        if !verbatim || text.as_bytes() != bytes {
            let source = decoded.as_deref().or_else(|| std::str::from_utf8(&bytes).ok());
            let offsets = Offsets::new(unit, source.unwrap_or(""));
            let original = (!verbatim).then_some(Original { origins, offsets });
            sources.originals.note(index, original);
        }
        let document = &mut sources.documents[index];
        sources.originals.warn(&document.id, left_out as u64);
        document.text = text;
        document.format = format;
        document.elements = elements;
        document.title = document.title.take().or(title);
    }
    sources.originals.seconds = clock.elapsed().as_secs_f64();
    Ok(())
}
