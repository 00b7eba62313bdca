//! Byte offsets in the unit the caller counts in.

use pith_proto::v1::OffsetUnit;

/// Bytes between two marks: what a conversion may have to walk.
const STEP: usize = 512;

/// Converts byte offsets of one text, each a character boundary.
#[derive(Debug)]
pub(crate) struct Offsets {
    unit: OffsetUnit,
    /// Set only if bytes and units differ.
    text: Option<Marked>,
}

#[derive(Debug)]
struct Marked {
    text: String,
    /// Units before the first character that begins at or after each multiple of [`STEP`].
    marks: Vec<u64>,
}

impl Offsets {
    pub(crate) fn new(unit: OffsetUnit, text: &str) -> Self {
        if unit == OffsetUnit::Utf8Byte || text.is_ascii() {
            return Self { unit, text: None };
        }
        let (mut marks, mut units) = (Vec::with_capacity(text.len() / STEP + 1), 0);
        for (at, c) in text.char_indices() {
            while marks.len() * STEP <= at {
                marks.push(units);
            }
            units += width(unit, c);
        }
        Self { unit, text: Some(Marked { text: text.to_owned(), marks }) }
    }

    /// Units before `byte`.
    pub(crate) fn at(&self, byte: usize) -> u64 {
        let Some(Marked { text, marks }) = &self.text else { return byte as u64 };
        let mark = (byte / STEP).min(marks.len() - 1);
        let mut from = mark * STEP;
        while !text.is_char_boundary(from) {
            from += 1;
        }
        // A character may straddle the multiple and `byte` may be its start.
        match text.get(from..byte) {
            Some(between) => marks[mark] + units(self.unit, between),
            None => marks[mark],
        }
    }
}

/// The byte of `text` that `count` units come before, its end if it has fewer; `None` inside a character.
pub(crate) fn byte_at(unit: OffsetUnit, text: &str, count: u64) -> Option<usize> {
    if unit == OffsetUnit::Utf8Byte || text.is_ascii() {
        let byte = usize::try_from(count).unwrap_or(usize::MAX).min(text.len());
        return text.is_char_boundary(byte).then_some(byte);
    }
    let mut before = 0;
    for (at, c) in text.char_indices() {
        if before >= count {
            return (before == count).then_some(at);
        }
        before += width(unit, c);
    }
    (before <= count).then_some(text.len())
}

/// Units of `text`.
pub(crate) fn units(unit: OffsetUnit, text: &str) -> u64 {
    match unit {
        OffsetUnit::Utf8Byte => text.len() as u64,
        _ => text.chars().map(|c| width(unit, c)).sum(),
    }
}

/// Units of a character.
pub(super) fn width(unit: OffsetUnit, c: char) -> u64 {
    match unit {
        OffsetUnit::Utf8Byte => c.len_utf8() as u64,
        OffsetUnit::Utf16 => c.len_utf16() as u64,
        // Callers replace UNSPECIFIED; it means code points.
        OffsetUnit::Unspecified | OffsetUnit::CodePoint => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_boundary_is_what_counting_says(short in "[a-zé漢😀]{0,6}", times in 1_usize..400) {
            let text = short.repeat(times);
            let utf16 = |text: &str| text.encode_utf16().count() as u64;
            let code_points = Offsets::new(OffsetUnit::CodePoint, &text);
            let wide = Offsets::new(OffsetUnit::Utf16, &text);
            let bytes = Offsets::new(OffsetUnit::Utf8Byte, &text);
            for at in (0..=text.len()).filter(|&at| text.is_char_boundary(at)) {
                prop_assert_eq!(code_points.at(at), text[..at].chars().count() as u64);
                prop_assert_eq!(wide.at(at), utf16(&text[..at]));
                prop_assert_eq!(bytes.at(at), at as u64);
                prop_assert_eq!(byte_at(OffsetUnit::CodePoint, &text, code_points.at(at)), Some(at));
                prop_assert_eq!(byte_at(OffsetUnit::Utf16, &text, wide.at(at)), Some(at));
                prop_assert_eq!(byte_at(OffsetUnit::Utf8Byte, &text, at as u64), Some(at));
            }
        }
    }

    #[test]
    fn nothing_lies_inside_a_character_or_past_the_end() {
        let text = "a😀b";
        assert_eq!(byte_at(OffsetUnit::Utf16, text, 2), None);
        assert_eq!(byte_at(OffsetUnit::Utf8Byte, text, 3), None);
        for unit in [OffsetUnit::Utf16, OffsetUnit::Utf8Byte, OffsetUnit::CodePoint] {
            assert_eq!(byte_at(unit, text, 99), Some(text.len()));
        }
        assert_eq!(byte_at(OffsetUnit::Utf16, "a😀", 2), None);
    }
}
