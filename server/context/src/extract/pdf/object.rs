//! The syntax of PDF: numbers, names, strings, arrays, dictionaries, and the words between them.

use std::collections::BTreeMap;
use std::ops::Range;

/// Deepest nesting of arrays and dictionaries. The reader recurses as deep.
const MAX_DEPTH: usize = 64;
/// Most objects inside one, so that a file of brackets does not become many times as much memory.
const MAX_ITEMS: usize = 1 << 20;

pub(super) type Dictionary = BTreeMap<Vec<u8>, Object>;

/// An object, or a word that is none (an operator of a page, `endobj`).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Object {
    Null,
    /// Numbers are real or not only to a writer.
    Number(f64),
    Name(Vec<u8>),
    String(Vec<u8>),
    Array(Vec<Object>),
    Dictionary(Dictionary),
    /// Its bytes in the file, still filtered.
    Stream(Dictionary, Range<usize>),
    /// The number of an object; generations are not told apart.
    Reference(u32),
    Word(Vec<u8>),
}

impl Object {
    pub(super) fn number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    pub(super) fn name(&self) -> Option<&[u8]> {
        if let Self::Name(name) = self { Some(name) } else { None }
    }

    pub(super) fn array(&self) -> &[Self] {
        if let Self::Array(items) = self { items } else { &[] }
    }

    /// The dictionary it is or its stream has.
    pub(super) fn dictionary(&self) -> Option<&Dictionary> {
        match self {
            Self::Dictionary(dictionary) | Self::Stream(dictionary, _) => Some(dictionary),
            _ => None,
        }
    }
}

/// Reads objects off bytes, from `at` on.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
    /// Whether `1 0 R` is a reference: in files, not in pages.
    references: bool,
    items: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, references: bool) -> Self {
        Self { bytes, at, references, items: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Skips white space and comments.
    pub(super) fn skip_space(&mut self) {
        while let Some(byte) = self.peek() {
            if byte == b'%' {
                self.at += self.rest().iter().take_while(|b| !matches!(b, b'\n' | b'\r')).count();
            } else if is_space(byte) {
                self.at += 1;
            } else {
                return;
            }
        }
    }

    /// The next object or word. `None` at the end, and where what comes is malformed or larger than any real
    /// object.
    pub(super) fn next(&mut self) -> Option<Object> {
        self.items = 0;
        self.object(MAX_DEPTH)
    }

    fn object(&mut self, depth: usize) -> Option<Object> {
        self.skip_space();
        self.items += 1;
        if depth == 0 || self.items > MAX_ITEMS {
            return None;
        }
        match self.peek()? {
            b'/' => {
                self.at += 1;
                Some(Object::Name(self.name()))
            }
            b'(' => Some(Object::String(self.literal_string())),
            b'<' if self.rest().starts_with(b"<<") => self.dictionary(depth),
            b'<' => Some(Object::String(self.hex_string())),
            b'[' => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.ends_with(b"]")? {
                    items.push(self.object(depth - 1)?);
                }
                Some(Object::Array(items))
            }
            b'0'..=b'9' | b'+' | b'-' | b'.' => Some(self.number()),
            _ => {
                let length =
                    self.rest().iter().take_while(|byte| is_regular(**byte)).count().max(1);
                let word = &self.rest()[..length];
                self.at += length;
                Some(if word == b"null" { Object::Null } else { Object::Word(word.to_vec()) })
            }
        }
    }

    /// Takes `mark` if it comes next; `None` at the end of the bytes.
    fn ends_with(&mut self, mark: &[u8]) -> Option<bool> {
        self.skip_space();
        self.peek()?;
        let ends = self.rest().starts_with(mark);
        self.at += if ends { mark.len() } else { 0 };
        Some(ends)
    }

    fn dictionary(&mut self, depth: usize) -> Option<Object> {
        self.at += 2;
        let mut dictionary = Dictionary::new();
        while !self.ends_with(b">>")? {
            match self.object(depth - 1)? {
                Object::Name(key) => {
                    dictionary.insert(key, self.object(depth - 1)?);
                }
                Object::Word(word) if word == b"endobj" || word == b"stream" => return None,
                _ => {}
            }
        }
        Some(Object::Dictionary(dictionary))
    }

    fn name(&mut self) -> Vec<u8> {
        let mut name = Vec::new();
        while let Some(byte) = self.peek().filter(|byte| is_regular(*byte)) {
            let escaped = self.rest().get(1..3).filter(|_| byte == b'#').and_then(hex_pair);
            name.push(escaped.unwrap_or(byte));
            self.at += if escaped.is_some() { 3 } else { 1 };
        }
        name
    }

    fn literal_string(&mut self) -> Vec<u8> {
        let (mut string, mut open) = (Vec::new(), 0_usize);
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'(' => {
                    open += 1;
                    if open == 1 {
                        continue;
                    }
                }
                b')' => {
                    open -= 1;
                    if open == 0 {
                        break;
                    }
                }
                b'\\' => {
                    self.escape(&mut string);
                    continue;
                }
                _ => {}
            }
            string.push(byte);
        }
        string
    }

    /// What follows a backslash.
    fn escape(&mut self, string: &mut Vec<u8>) {
        let Some(byte) = self.peek() else { return };
        self.at += 1;
        match byte {
            b'n' => string.push(b'\n'),
            b'r' => string.push(b'\r'),
            b't' => string.push(b'\t'),
            b'b' => string.push(8),
            b'f' => string.push(12),
            b'\r' => self.at += usize::from(self.peek() == Some(b'\n')),
            b'\n' => {}
            b'0'..=b'7' => {
                let mut code = u32::from(byte - b'0');
                for _ in 0..2 {
                    let Some(digit @ b'0'..=b'7') = self.peek() else { break };
                    code = code * 8 + u32::from(digit - b'0');
                    self.at += 1;
                }
                string.push(code as u8);
            }
            other => string.push(other),
        }
    }

    fn hex_string(&mut self) -> Vec<u8> {
        self.at += 1;
        let length = self.rest().iter().take_while(|byte| **byte != b'>').count();
        let digits: Vec<u8> =
            self.rest()[..length].iter().copied().filter(u8::is_ascii_hexdigit).collect();
        self.at = (self.at + length + 1).min(self.bytes.len());
        // An odd digit at the end has a zero after it.
        let pair = |pair: &[u8]| hex_pair(&[pair[0], *pair.get(1).unwrap_or(&b'0')]);
        digits.chunks(2).filter_map(pair).collect()
    }

    fn number(&mut self) -> Object {
        let number = self.plain_number();
        if self.references && number >= 0.0 && number.fract() == 0.0 {
            let after = self.at;
            self.skip_space();
            if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                self.plain_number();
                self.skip_space();
                let end = self.rest().get(1).is_none_or(|byte| !is_regular(*byte));
                if self.peek() == Some(b'R') && end {
                    self.at += 1;
                    return Object::Reference(number as u32);
                }
            }
            self.at = after;
        }
        Object::Number(number)
    }

    /// A number, leniently: what a sign or a second point inside it should mean, nobody knows.
    fn plain_number(&mut self) -> f64 {
        let (mut value, mut scale, mut sign) = (0.0, 0.0, 1.0);
        while let Some(byte) = self.peek() {
            match byte {
                b'-' => sign = -1.0,
                b'+' => {}
                b'.' => scale = 1.0,
                b'0'..=b'9' if scale > 0.0 => {
                    scale /= 10.0;
                    value += scale * f64::from(byte - b'0');
                }
                b'0'..=b'9' => value = value * 10.0 + f64::from(byte - b'0'),
                _ => break,
            }
            self.at += 1;
        }
        sign * value
    }
}

fn hex_pair(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' | b'\0')
}

fn is_regular(byte: u8) -> bool {
    !is_space(byte)
        && !matches!(byte, b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'/' | b'%')
}
