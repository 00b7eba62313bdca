//! The objects of a file.
//!
//! Where they stand is found by reading the file from front to back, not from its cross-reference tables: so damaged
//! files are read as well as sound ones, and no table can lead astray. Of objects with one number the last counts,
//! which is what updates mean. Everything that a file can unpack to or refer to is charged to one budget.

use std::collections::HashMap;
use std::ops::Range;

use super::super::ExtractError;
use super::filter::{Unpacking, unpack};
use super::object::{Dictionary, Object, Reader, is_space};

/// Most bytes that all streams of a file together are unpacked to.
pub(super) const MAX_UNPACKED: usize = 256 << 20;
/// Most bytes that one is unpacked to.
pub(super) const MAX_STREAM: usize = 64 << 20;
/// Of all, most that are kept: streams of objects.
const MAX_KEPT: usize = 64 << 20;
/// Most bytes of objects that are read (an object may be read more than once).
const MAX_READ: usize = 1 << 30;
/// Most objects of a file.
const MAX_OBJECTS: usize = 1 << 21;
/// Most widths and meanings of codes that all fonts together say.
const MAX_FONT_ENTRIES: usize = 1 << 22;
/// Longest chain of references to references.
const MAX_HOPS: usize = 16;

/// A PDF, its objects found.
pub(super) struct File<'a> {
    bytes: &'a [u8],
    places: HashMap<u32, Place>,
    /// Unpacked streams of objects.
    kept: Vec<Vec<u8>>,
    /// The last that names a catalogue.
    trailer: Dictionary,
    budget: Budget<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Offset of the object itself, after `obj`.
    File(usize),
    /// Which of the kept streams, and offset in it.
    Kept(usize, usize),
}

/// What may still be spent.
struct Budget<'a> {
    unpacked: usize,
    read: usize,
    font_entries: usize,
    keep_going: &'a mut dyn FnMut() -> bool,
}

impl Budget<'_> {
    fn read(&mut self, bytes: usize) -> Result<(), ExtractError> {
        self.read = self.read.saturating_sub(bytes.max(64));
        if self.read == 0 {
            return Err(ExtractError::TooLarge { what: "bytes of objects", limit: MAX_READ });
        }
        if (self.keep_going)() { Ok(()) } else { Err(ExtractError::Cancelled) }
    }
}

impl<'a> File<'a> {
    /// Finds the objects of `bytes`.
    pub(super) fn open(
        bytes: &'a [u8],
        keep_going: &'a mut dyn FnMut() -> bool,
    ) -> Result<Self, ExtractError> {
        let budget = Budget {
            unpacked: MAX_UNPACKED,
            read: MAX_READ,
            font_entries: MAX_FONT_ENTRIES,
            keep_going,
        };
        let mut file = Self {
            bytes,
            places: HashMap::new(),
            kept: Vec::new(),
            trailer: Dictionary::new(),
            budget,
        };
        file.find_objects()?;
        Ok(file)
    }

    /// An entry of the trailer.
    pub(super) fn trailer(&mut self, key: &[u8]) -> Result<Object, ExtractError> {
        let entry = self.trailer.get(key).cloned().unwrap_or(Object::Null);
        self.resolve(&entry)
    }

    fn find_objects(&mut self) -> Result<(), ExtractError> {
        let mut at = 0;
        let mut streams_end = true;
        while let Some(found) = next_keyword(self.bytes, at) {
            let reader_at = match found {
                Keyword::Trailer(after) => {
                    let mut reader = Reader::new(self.bytes, after, true);
                    if let Some(Object::Dictionary(trailer)) = reader.next() {
                        self.take_trailer(trailer)?;
                    }
                    reader.at.max(after)
                }
                Keyword::Object { number, after } => {
                    let (object, end) = self.object_at(after, &mut streams_end);
                    if self.places.len() >= MAX_OBJECTS {
                        return Err(ExtractError::TooLarge { what: "objects", limit: MAX_OBJECTS });
                    }
                    self.places.insert(number, Place::File(after));
                    if let Some(Object::Stream(dictionary, range)) = object {
                        self.take_stream(dictionary, range)?;
                    }
                    end.max(after)
                }
            };
            self.budget.read(reader_at - at)?;
            at = reader_at;
        }
        Ok(())
    }

    fn take_trailer(&mut self, trailer: Dictionary) -> Result<(), ExtractError> {
        if trailer.contains_key(b"Encrypt".as_slice()) {
            return Err(ExtractError::Encrypted);
        }
        if trailer.contains_key(b"Root".as_slice()) {
            self.trailer = trailer;
        }
        Ok(())
    }

    /// Streams of objects are unpacked at once; those of cross-references have the trailer's entries.
    fn take_stream(
        &mut self,
        dictionary: Dictionary,
        range: Range<usize>,
    ) -> Result<(), ExtractError> {
        match dictionary.get(b"Type".as_slice()).and_then(Object::name) {
            Some(b"XRef") => self.take_trailer(dictionary),
            Some(b"ObjStm") => {
                let Some(unpacked) = self.unpack(&dictionary, range)? else { return Ok(()) };
                let kept: usize = self.kept.iter().map(Vec::len).sum();
                if kept + unpacked.len() > MAX_KEPT {
                    return Err(ExtractError::TooLarge {
                        what: "bytes of packed objects",
                        limit: MAX_KEPT,
                    });
                }
                self.take_objects(&dictionary, unpacked)
            }
            _ => Ok(()),
        }
    }

    fn take_objects(
        &mut self,
        dictionary: &Dictionary,
        unpacked: Vec<u8>,
    ) -> Result<(), ExtractError> {
        let number =
            |key: &[u8]| dictionary.get(key).and_then(Object::number).unwrap_or(0.0) as usize;
        let (count, first) = (number(b"N"), number(b"First"));
        let mut header = Reader::new(unpacked.get(..first).unwrap_or_default(), 0, false);
        for _ in 0..count {
            let (Some(Object::Number(number)), Some(Object::Number(offset))) =
                (header.next(), header.next())
            else {
                break;
            };
            if self.places.len() >= MAX_OBJECTS {
                return Err(ExtractError::TooLarge { what: "objects", limit: MAX_OBJECTS });
            }
            let offset = first.saturating_add(offset as usize);
            self.places.insert(number as u32, Place::Kept(self.kept.len(), offset));
        }
        self.kept.push(unpacked);
        Ok(())
    }

    /// The object that stands at `at` in the file and where it ends. `streams_end`: whether there may be another
    /// `endstream`, which is not looked for twice in vain.
    fn object_at(&self, at: usize, streams_end: &mut bool) -> (Option<Object>, usize) {
        let mut reader = Reader::new(self.bytes, at, true);
        let object = reader.next();
        let end = reader.at;
        let Some(Object::Dictionary(dictionary)) = object else { return (object, end) };
        reader.skip_space();
        let rest = self.bytes.get(reader.at..).unwrap_or_default();
        let Some(rest) = rest.strip_prefix(b"stream") else {
            return (Some(Object::Dictionary(dictionary)), end);
        };
        let skipped = match rest {
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => 1,
            _ => 0,
        };
        let start = self.bytes.len() - rest.len() + skipped;
        let data = &self.bytes[start..];
        // The length is believed if the stream ends there; it may be wrong, or an object of its own.
        let stated = dictionary.get(b"Length".as_slice()).and_then(Object::number);
        let ends_there = |length: &usize| {
            let after = data.get(*length..).unwrap_or_default();
            let space = after.iter().take(2).take_while(|byte| is_space(**byte)).count();
            after[space..].starts_with(b"endstream")
        };
        let length = stated.map(|length| length as usize).filter(ends_there).or_else(|| {
            let found = streams_end.then(|| find(data, b"endstream")).flatten();
            *streams_end &= found.is_some();
            found
        });
        let length = length.unwrap_or(data.len());
        let end = if *streams_end { start + length } else { start };
        (Some(Object::Stream(dictionary, start..start + length)), end)
    }

    /// The object itself if `object` refers to one.
    pub(super) fn resolve(&mut self, object: &Object) -> Result<Object, ExtractError> {
        let mut object = object.clone();
        for _ in 0..MAX_HOPS {
            let Object::Reference(number) = object else { return Ok(object) };
            object = match self.places.get(&number) {
                None => Object::Null,
                Some(&Place::File(at)) => {
                    let mut streams_end = true;
                    let (object, end) = self.object_at(at, &mut streams_end);
                    // An end looked for in vain was looked for in all the rest of the file.
                    let end = if streams_end { end } else { self.bytes.len() };
                    self.budget.read(end - at)?;
                    object.unwrap_or(Object::Null)
                }
                Some(&Place::Kept(stream, offset)) => {
                    let mut reader = Reader::new(&self.kept[stream], offset, true);
                    let object = reader.next();
                    let read = reader.at.saturating_sub(offset);
                    self.budget.read(read)?;
                    object.unwrap_or(Object::Null)
                }
            };
        }
        Ok(Object::Null)
    }

    /// An entry of a dictionary; `Null` if there is none.
    pub(super) fn get(
        &mut self,
        dictionary: &Dictionary,
        key: &[u8],
    ) -> Result<Object, ExtractError> {
        dictionary.get(key).map_or(Ok(Object::Null), |object| self.resolve(object))
    }

    /// What a stream holds; `None` if its filters make no text.
    pub(super) fn unpack(
        &mut self,
        dictionary: &Dictionary,
        range: Range<usize>,
    ) -> Result<Option<Vec<u8>>, ExtractError> {
        let mut filters = Dictionary::new();
        for key in [&b"Filter"[..], b"F", b"DecodeParms", b"DP"] {
            if let Some(object) = dictionary.get(key) {
                filters.insert(key.to_vec(), self.resolve(object)?);
            }
        }
        let packed = self.bytes.get(range).unwrap_or_default();
        match unpack(packed, &filters, self.budget.unpacked.min(MAX_STREAM)) {
            Ok(unpacked) => {
                self.budget.unpacked -= unpacked.len();
                self.budget.read(unpacked.len())?;
                Ok(Some(unpacked))
            }
            Err(Unpacking::NotText) => Ok(None),
            Err(Unpacking::TooLarge) => Err(too_large()),
        }
    }

    /// Takes note of what fonts say; an error if it is more than any real ones do.
    pub(super) fn keep_font_entries(&mut self, entries: usize) -> Result<(), ExtractError> {
        let left = self.budget.font_entries.checked_sub(entries);
        let too_large =
            ExtractError::TooLarge { what: "entries of fonts", limit: MAX_FONT_ENTRIES };
        self.budget.font_entries = left.ok_or(too_large)?;
        Ok(())
    }

    /// Takes note of work that is not seen here; an error when it is time to stop.
    pub(super) fn tick(&mut self, bytes: usize) -> Result<(), ExtractError> {
        self.budget.read(bytes)
    }
}

/// A stream or all of them unpack to more than is read.
pub(super) fn too_large() -> ExtractError {
    ExtractError::TooLarge { what: "unpacked bytes", limit: MAX_STREAM }
}

enum Keyword {
    Object { number: u32, after: usize },
    Trailer(usize),
}

/// The next `7 0 obj` or `trailer` from `from` on.
fn next_keyword(bytes: &[u8], from: usize) -> Option<Keyword> {
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        // Both are found by their rarest letter.
        let letter = rest.iter().position(|byte| matches!(byte, b'b' | b'l'))?;
        at += letter + 1;
        if bytes[at - 1] == b'l' {
            if bytes[..at].ends_with(b"trail") && bytes[at..].starts_with(b"er") {
                return Some(Keyword::Trailer(at + 2));
            }
        } else if bytes[..at].ends_with(b"ob") && bytes.get(at) == Some(&b'j') {
            let before = &bytes[from.min(at - 2)..at - 2];
            if let Some(number) = object_number(before) {
                return Some(Keyword::Object { number, after: at + 1 });
            }
        }
    }
}

/// The number in `7 0 `, the end of `before`.
fn object_number(before: &[u8]) -> Option<u32> {
    // Ten digits, five digits and some space are the most there is.
    let before = &before[before.len().saturating_sub(32)..];
    let text = before.trim_ascii_end();
    let generation = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let number = text[..text.len() - generation].trim_ascii_end();
    let spaced = number.len() + generation < text.len();
    let digits = number.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    if generation == 0 || digits == 0 || !spaced {
        return None;
    }
    std::str::from_utf8(&number[number.len() - digits..]).ok()?.parse().ok()
}

/// Where `needle` first stands in `bytes`.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == needle[0])?;
        if bytes[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}
