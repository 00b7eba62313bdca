//! Rows of postings: which chunks of a block a term occurs in, how often, and how long they are.
//!
//! A row is the number of its postings (four bytes), then of each: place of the chunk in its block, occurrences,
//! terms of the chunk, as variable-length numbers. Storing a document appends to rows; only purging one takes them
//! apart.

use super::StoreError;
use super::codec::malformed;
use crate::varint;

/// Chunks of a block: a common term's row stays a few KiB long, and a search of a million chunks looks into 245 blocks.
pub(super) const BLOCK: u64 = 4096;

/// A term in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Posting {
    /// Place of the chunk in its block.
    pub(super) place: u32,
    /// Occurrences of the term.
    pub(super) frequency: u32,
    /// Terms of the chunk, repetitions counted.
    pub(super) length: u32,
}

/// Postings of a row.
pub(super) fn count(row: &[u8]) -> Result<u32, StoreError> {
    let count = row.first_chunk::<4>().ok_or_else(malformed)?;
    Ok(u32::from_le_bytes(*count))
}

/// Adds `postings` to a row; an empty one is a new one.
pub(super) fn append(row: &mut Vec<u8>, postings: &[Posting]) -> Result<(), StoreError> {
    let before = if row.is_empty() { 0 } else { count(row)? };
    row.resize(row.len().max(4), 0);
    row[..4].copy_from_slice(&(before + postings.len() as u32).to_le_bytes());
    for posting in postings {
        varint::put(row, posting.place);
        varint::put(row, posting.frequency);
        varint::put(row, posting.length);
    }
    Ok(())
}

/// Calls `take` with each posting.
pub(super) fn each(row: &[u8], mut take: impl FnMut(Posting)) -> Result<(), StoreError> {
    let mut at = 4;
    for _ in 0..count(row)? {
        let mut next = || varint::take(row, &mut at).ok_or_else(malformed);
        take(Posting { place: next()?, frequency: next()?, length: next()? });
    }
    if at == row.len() { Ok(()) } else { Err(malformed()) }
}

/// The row without the chunks `gone`; empty if none is left.
pub(super) fn without(row: &[u8], gone: std::ops::Range<u32>) -> Result<Vec<u8>, StoreError> {
    let mut kept = Vec::new();
    each(row, |posting| {
        if !gone.contains(&posting.place) {
            kept.push(posting);
        }
    })?;
    let mut row = Vec::new();
    if !kept.is_empty() {
        append(&mut row, &kept)?;
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posting(place: u32) -> Posting {
        Posting { place, frequency: 1 + place % 300, length: 40_000 + place }
    }

    fn places(row: &[u8]) -> Vec<u32> {
        let mut places = Vec::new();
        each(row, |found| {
            assert_eq!(found, posting(found.place));
            places.push(found.place);
        })
        .unwrap();
        places
    }

    #[test]
    fn rows_grow_and_shrink() {
        let mut row = Vec::new();
        append(&mut row, &[posting(3), posting(4)]).unwrap();
        append(&mut row, &[posting(1000), posting(1023)]).unwrap();
        assert_eq!((count(&row).unwrap(), places(&row)), (4, vec![3, 4, 1000, 1023]));
        let row = without(&row, 4..1001).unwrap();
        assert_eq!((count(&row).unwrap(), places(&row)), (2, vec![3, 1023]));
        assert!(without(&row, 0..1024).unwrap().is_empty());
    }

    #[test]
    fn a_row_cut_short_or_too_long_is_an_error() {
        let mut row = Vec::new();
        append(&mut row, &[posting(3), posting(4)]).unwrap();
        for length in 0..row.len() {
            assert!(each(&row[..length], |_| {}).is_err(), "{length}");
        }
        row.push(0);
        assert!(each(&row, |_| {}).is_err());
    }
}
