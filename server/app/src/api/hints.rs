//! What a request says about parts of its documents, from the caller's unit to bytes.

use pith_context::{Hint, HintKind, MAX_WEIGHT};
use pith_proto::v1;
use pith_proto::v1::OffsetUnit;

use super::offsets::width;
use super::status::ApiError;
use super::validate::Sources;

const MAX_HINTS: usize = 1024;

/// What a request says about parts of its documents, until their text is known.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// By document, those with any.
    unresolved: Vec<(usize, Vec<v1::SpanHint>)>,
}

impl Hints {
    /// Takes what is said of the document number `index`.
    pub(super) fn push(&mut self, index: usize, hints: Vec<v1::SpanHint>) -> Result<(), ApiError> {
        if hints.len() > MAX_HINTS {
            let reason = format!("{} of them; at most {MAX_HINTS}", hints.len());
            return Err(ApiError::field(format!("documents[{index}].hints"), reason));
        }
        if !hints.is_empty() {
            self.unresolved.push((index, hints));
        }
        Ok(())
    }
}

/// Gives the documents of `sources` their hints, now that they have their text. `unit`: what the spans count.
pub(super) fn resolve(sources: &mut Sources, unit: OffsetUnit) -> Result<(), ApiError> {
    for (index, wire) in std::mem::take(&mut sources.hints.unresolved) {
        let document = &mut sources.documents[index];
        document.hints = hints(index, &wire, &document.text, unit)?;
    }
    Ok(())
}

/// The hints of the request's document number `index`, whose text is `text`. Their spans are checked against the text and
/// each other here, so that the error names the hint.
fn hints(
    index: usize,
    hints: &[v1::SpanHint],
    text: &str,
    unit: OffsetUnit,
) -> Result<Vec<Hint>, ApiError> {
    let wrong = |hint: usize, field: &str, reason: String| {
        Err(ApiError::field(format!("documents[{index}].hints[{hint}]{field}"), reason))
    };
    let places = bytes(hints.iter().flat_map(|hint| [hint.start, hint.end]), text, unit);
    let mut checked: Vec<(usize, Hint)> = Vec::with_capacity(hints.len());
    for (number, (hint, places)) in hints.iter().zip(places.chunks_exact(2)).enumerate() {
        let wrong = |field: &str, reason: String| wrong(number, field, reason);
        if hint.start >= hint.end {
            return wrong(".end", "must be more than start".to_owned());
        }
        let (Some(start), Some(end)) = (places[0], places[1]) else {
            let reason = "the span is not within the text, or cuts a character".to_owned();
            return wrong(".end", reason);
        };
        let kind = match (v1::HintKind::try_from(hint.kind), hint.weight) {
            (Ok(v1::HintKind::Protect), None) => HintKind::Protect,
            (Ok(v1::HintKind::Exclude), None) => HintKind::Exclude,
            (Ok(v1::HintKind::Emphasize), Some(weight)) => {
                HintKind::Emphasize(self::weight(weight).map_err(|reason| {
                    ApiError::field(format!("documents[{index}].hints[{number}].weight"), reason)
                })?)
            }
            (Ok(v1::HintKind::Emphasize), None) => {
                return wrong(".weight", "must be given with EMPHASIZE".to_owned());
            }
            (Ok(v1::HintKind::Protect | v1::HintKind::Exclude), Some(_)) => {
                return wrong(".weight", "is for EMPHASIZE only".to_owned());
            }
            (Ok(v1::HintKind::Unspecified) | Err(_), _) => {
                return wrong(".kind", "must be PROTECT, EXCLUDE or EMPHASIZE".to_owned());
            }
        };
        checked.push((number, Hint { span: start..end, kind }));
    }
    checked.sort_by_key(|(_, hint)| hint.span.start);
    if let Some(pair) = checked.windows(2).find(|pair| pair[0].1.span.end > pair[1].1.span.start) {
        return wrong(pair[1].0, "", format!("overlaps hints[{}]", pair[0].0));
    }
    Ok(checked.into_iter().map(|(_, hint)| hint).collect())
}

/// A weight of a document or a span.
pub(super) fn weight(weight: f32) -> Result<f32, String> {
    // NaN is in no range.
    if (1.0 / MAX_WEIGHT..=MAX_WEIGHT).contains(&weight) {
        return Ok(weight);
    }
    Err(format!("is {weight}; it must be {} to {MAX_WEIGHT}", 1.0 / MAX_WEIGHT))
}

/// The byte at each of `places`, counted in `unit`, in one walk over the text. `None` beyond its end and inside of a
/// character.
fn bytes(places: impl Iterator<Item = u64>, text: &str, unit: OffsetUnit) -> Vec<Option<usize>> {
    let mut wanted: Vec<(u64, usize)> = places.zip(0..).collect();
    let mut found = vec![None; wanted.len()];
    wanted.sort_unstable();
    let mut wanted = wanted.into_iter().peekable();
    let mut units = 0;
    let ends = text.char_indices().map(|(at, c)| (at, width(unit, c))).chain([(text.len(), 1)]);
    for (at, width) in ends {
        while let Some((_, number)) = wanted.next_if(|&(place, _)| place == units) {
            found[number] = Some(at);
        }
        units += width;
        // Places inside of this character.
        while wanted.next_if(|&(place, _)| place < units).is_some() {}
        if wanted.peek().is_none() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(start: u64, end: u64) -> v1::SpanHint {
        v1::SpanHint { start, end, kind: v1::HintKind::Protect.into(), weight: None }
    }

    #[test]
    fn places_are_found_in_every_unit() {
        let text = "aé😀b";
        let span = |unit, start, end| {
            hints(0, &[hint(start, end)], text, unit).map(|hints| hints[0].span.clone()).ok()
        };
        assert_eq!(span(OffsetUnit::CodePoint, 2, 3), Some(3..7));
        assert_eq!(span(OffsetUnit::Utf16, 2, 4), Some(3..7));
        assert_eq!(span(OffsetUnit::Utf8Byte, 3, 7), Some(3..7));
        assert_eq!(span(OffsetUnit::CodePoint, 0, 4), Some(0..8));
        assert_eq!(span(OffsetUnit::CodePoint, 0, 5), None, "beyond the end");
        assert_eq!(span(OffsetUnit::Utf16, 3, 4), None, "inside of a character");
        assert_eq!(span(OffsetUnit::Utf8Byte, 2, 3), None, "inside of a character");
        assert_eq!(span(OffsetUnit::CodePoint, 2, 2), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let field = |wrong: &[v1::SpanHint]| match hints(
            3,
            wrong,
            "The bridge at Tolmin.",
            OffsetUnit::CodePoint,
        ) {
            Err(ApiError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let emphasize =
            |weight| v1::SpanHint { kind: v1::HintKind::Emphasize.into(), weight, ..hint(0, 3) };
        assert_eq!(field(&[hint(0, 3), hint(2, 5)]), "documents[3].hints[1]");
        assert_eq!(field(&[hint(4, 90)]), "documents[3].hints[0].end");
        assert_eq!(field(&[hint(u64::MAX - 1, u64::MAX)]), "documents[3].hints[0].end");
        assert_eq!(field(&[emphasize(None)]), "documents[3].hints[0].weight");
        assert_eq!(field(&[emphasize(Some(f32::NAN))]), "documents[3].hints[0].weight");
        assert_eq!(field(&[emphasize(Some(-1.0))]), "documents[3].hints[0].weight");
        assert_eq!(field(&[v1::SpanHint { kind: 0, ..hint(0, 3) }]), "documents[3].hints[0].kind");
        assert_eq!(field(&[v1::SpanHint { kind: 77, ..hint(0, 3) }]), "documents[3].hints[0].kind");
        let many = (0..1025).map(|_| hint(0, 1)).collect();
        assert!(Hints::default().push(3, many).is_err());
    }
}
