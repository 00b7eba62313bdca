//! What the codes of a font's strings mean, as the file itself says (`/ToUnicode`).

use super::object::{Object, Reader};

/// Most entries read of one map: no font has as many glyphs.
const MAX_ENTRIES: usize = 1 << 17;
/// Longest text of a code, in bytes: a ligature, a syllable.
const MAX_TEXT: usize = 64;

/// Codes of one to four bytes and their text.
#[derive(Debug, Default)]
pub(super) struct CMap {
    /// Lengths of codes and the bounds of their values.
    spaces: Vec<(usize, u32, u32)>,
    /// Sorted by length and first code.
    entries: Vec<Entry>,
}

/// Codes from `first` to `last`, the n-th of which means `text` with its last unit raised by n.
#[derive(Debug)]
struct Entry {
    length: usize,
    first: u32,
    last: u32,
    /// UTF-16.
    text: Vec<u16>,
}

impl CMap {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut map = Self::default();
        let mut reader = Reader::new(bytes, 0, false);
        let mut operands: Vec<Object> = Vec::new();
        let mut left = MAX_ENTRIES;
        while let Some(object) = reader.next() {
            let Object::Word(word) = &object else {
                // What stands before `begin...` is a count, or of no concern.
                operands.push(object);
                if operands.len() > 3 * MAX_ENTRIES {
                    break;
                }
                continue;
            };
            match word.as_slice() {
                b"endcodespacerange" => {
                    map.spaces.extend(operands.chunks_exact(2).filter_map(|pair| {
                        let ((length, low), (_, high)) = (code(&pair[0])?, code(&pair[1])?);
                        Some((length, low, high))
                    }));
                }
                b"endbfchar" => {
                    for pair in operands.chunks_exact(2).take(left) {
                        left -= 1;
                        map.push(&pair[0], &pair[0], &pair[1]);
                    }
                }
                b"endbfrange" => {
                    for range in operands.chunks_exact(3) {
                        left = map.push_range(range, left);
                    }
                }
                _ => {}
            }
            operands.clear();
        }
        map.entries.sort_by_key(|entry| (entry.length, entry.first));
        map.spaces.truncate(64);
        map
    }

    /// Adds a range whose codes have one text counted up, or one each; gives how many entries are left.
    fn push_range(&mut self, range: &[Object], mut left: usize) -> usize {
        let [first, last, text] = range else { return left };
        let Object::Array(texts) = text else {
            if left > 0 {
                self.push(first, last, text);
            }
            return left.saturating_sub(1);
        };
        let Some((length, start)) = code(first) else { return left };
        for (offset, text) in (0..).zip(texts) {
            let (Object::String(units), 1..) = (text, left) else { break };
            left -= 1;
            let code = start.wrapping_add(offset);
            self.entries.push(Entry { length, first: code, last: code, text: utf16(units) });
        }
        left
    }

    fn push(&mut self, first: &Object, last: &Object, text: &Object) {
        if let (Some((length, first)), Some((_, last)), Object::String(units)) =
            (code(first), code(last), text)
        {
            self.entries.push(Entry { length, first, last, text: utf16(units) });
        }
    }

    /// How many entries it has.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Length of the code `bytes` begins with, as the map has it; `otherwise` where it does not say.
    pub(super) fn code_length(&self, bytes: &[u8], otherwise: usize) -> usize {
        let fits = |&&(length, low, high): &&(usize, u32, u32)| {
            bytes.get(..length).is_some_and(|code| (low..=high).contains(&value(code)))
        };
        let found = self.spaces.iter().filter(fits).map(|(length, ..)| *length).min();
        found.unwrap_or(otherwise).clamp(1, bytes.len().max(1))
    }

    /// What a code means.
    pub(super) fn text(&self, bytes: &[u8]) -> Option<String> {
        let (length, code) = (bytes.len(), value(bytes));
        let after = self.entries.partition_point(|e| (e.length, e.first) <= (length, code));
        let entry = &self.entries[after.checked_sub(1)?];
        if entry.length != length || code > entry.last {
            return None;
        }
        let mut text = entry.text.clone();
        let last = text.last_mut()?;
        *last = last.wrapping_add((code - entry.first) as u16);
        String::from_utf16(&text).ok().filter(|text| !text.contains(['\0', '\u{fffd}']))
    }
}

/// Length and value of a code.
fn code(object: &Object) -> Option<(usize, u32)> {
    match object {
        Object::String(bytes) if (1..=4).contains(&bytes.len()) => {
            Some((bytes.len(), value(bytes)))
        }
        _ => None,
    }
}

fn value(code: &[u8]) -> u32 {
    code.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn utf16(bytes: &[u8]) -> Vec<u16> {
    match &bytes[..bytes.len().min(MAX_TEXT)] {
        // Some writers save a byte where the text has one.
        [byte] => vec![u16::from(*byte)],
        bytes => bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_map_says() {
        let map = CMap::parse(
            b"/CIDInit /ProcSet findresource begin 1 begincodespacerange <00> <7f> <8000> <ffff> endcodespacerange \
            2 beginbfchar <01> <00660069> <8001> <D83DDE00> endbfchar \
            3 beginbfrange <10> <12> <0041> <20> <21> [<0078> <0079>] <00000000> <ffffffff> <0030> endbfrange",
        );
        let text = |code: &[u8]| map.text(code).unwrap_or_default();
        assert_eq!(
            [text(&[1]), text(&[0x12]), text(&[0x21]), text(&[0x80, 1])],
            ["fi", "C", "y", "😀"]
        );
        assert_eq!(map.text(&[2]), None);
        assert_eq!(map.text(&[0x13]), None);
        assert_eq!((map.code_length(&[1, 2], 2), map.code_length(&[0x80, 2], 1)), (1, 2));
    }
}
