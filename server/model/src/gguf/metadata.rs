//! Key-value pairs of a header.

use super::element::{Element, read_many};
use super::reader::HeaderReader;
use crate::ModelError;

/// Most pairs; files hold some forty.
const MAX_PAIRS: u64 = 16 << 10;
/// Longest key, as the format says.
const MAX_KEY: u64 = (1 << 16) - 1;
/// Most elements of an array; the largest known are half a million merges.
const MAX_ELEMENTS: u64 = 1 << 24;
/// Least bytes of a pair: a length, one byte of key, a type, one byte of value.
const LEAST_PAIR: u64 = 8 + 1 + 4 + 1;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the format")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// An array of one type. Arrays of arrays, which no known file has, are refused.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the format")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    String(Vec<String>),
}

impl Value {
    /// The type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "a u8",
            Self::I8(_) => "an i8",
            Self::U16(_) => "a u16",
            Self::I16(_) => "an i16",
            Self::U32(_) => "a u32",
            Self::I32(_) => "an i32",
            Self::U64(_) => "a u64",
            Self::I64(_) => "an i64",
            Self::F32(_) => "an f32",
            Self::F64(_) => "an f64",
            Self::Bool(_) => "a bool",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
        }
    }

    /// An integer of any width that is not negative.
    fn unsigned(&self) -> Option<u64> {
        match *self {
            Self::U8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::U64(n) => Some(n),
            Self::I8(n) => n.try_into().ok(),
            Self::I16(n) => n.try_into().ok(),
            Self::I32(n) => n.try_into().ok(),
            Self::I64(n) => n.try_into().ok(),
            _ => None,
        }
    }

    fn read(reader: &mut HeaderReader<'_>, what: &str) -> Result<Self, ModelError> {
        Ok(match reader.u32(what)? {
            0 => Self::U8(Element::read(reader, what)?),
            1 => Self::I8(Element::read(reader, what)?),
            2 => Self::U16(Element::read(reader, what)?),
            3 => Self::I16(Element::read(reader, what)?),
            4 => Self::U32(Element::read(reader, what)?),
            5 => Self::I32(Element::read(reader, what)?),
            6 => Self::F32(Element::read(reader, what)?),
            7 => Self::Bool(Element::read(reader, what)?),
            8 => Self::String(reader.text(what)?),
            9 => Self::Array(Array::read(reader, what)?),
            10 => Self::U64(Element::read(reader, what)?),
            11 => Self::I64(Element::read(reader, what)?),
            12 => Self::F64(Element::read(reader, what)?),
            other => return Err(unknown_type(other, what)),
        })
    }
}

impl Array {
    /// Elements.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(many) => many.len(),
            Self::I8(many) => many.len(),
            Self::U16(many) => many.len(),
            Self::I16(many) => many.len(),
            Self::U32(many) => many.len(),
            Self::I32(many) => many.len(),
            Self::U64(many) => many.len(),
            Self::I64(many) => many.len(),
            Self::F32(many) => many.len(),
            Self::F64(many) => many.len(),
            Self::Bool(many) => many.len(),
            Self::String(many) => many.len(),
        }
    }

    fn read(reader: &mut HeaderReader<'_>, what: &str) -> Result<Self, ModelError> {
        let kind = reader.u32(what)?;
        let count = reader.u64(what)?;
        if count > MAX_ELEMENTS {
            return Err(ModelError::Invalid(format!("{what} has {count} elements")));
        }
        Ok(match kind {
            0 => Self::U8(read_many(reader, count, what)?),
            1 => Self::I8(read_many(reader, count, what)?),
            2 => Self::U16(read_many(reader, count, what)?),
            3 => Self::I16(read_many(reader, count, what)?),
            4 => Self::U32(read_many(reader, count, what)?),
            5 => Self::I32(read_many(reader, count, what)?),
            6 => Self::F32(read_many(reader, count, what)?),
            7 => Self::Bool(read_many(reader, count, what)?),
            8 => Self::String(read_texts(reader, count, what)?),
            9 => return Err(ModelError::Unsupported(format!("{what}, an array of arrays"))),
            10 => Self::U64(read_many(reader, count, what)?),
            11 => Self::I64(read_many(reader, count, what)?),
            12 => Self::F64(read_many(reader, count, what)?),
            other => return Err(unknown_type(other, what)),
        })
    }
}

fn read_texts(
    reader: &mut HeaderReader<'_>,
    count: u64,
    what: &str,
) -> Result<Vec<String>, ModelError> {
    // Eight bytes of length each: the handles below take at most three times what is left.
    let mut texts = Vec::with_capacity(reader.check_count(count, 8, "strings of an array")?);
    for _ in 0..count {
        texts.push(reader.text(what)?);
    }
    Ok(texts)
}

fn unknown_type(kind: u32, what: &str) -> ModelError {
    ModelError::Invalid(format!("{what} has the unknown type {kind}"))
}

/// The key-value pairs of a file, each key once.
///
/// Getters are typed: a key of another type than asked for is an error, a missing key is `None`.
#[derive(Debug, Default)]
pub struct Metadata {
    /// Sorted by key.
    pairs: Vec<(String, Value)>,
}

impl Metadata {
    pub(super) fn read(reader: &mut HeaderReader<'_>, count: u64) -> Result<Self, ModelError> {
        if count > MAX_PAIRS {
            return Err(ModelError::Invalid(format!("{count} key-value pairs are too many")));
        }
        let capacity = reader.check_count(count, LEAST_PAIR, "key-value pairs")?;
        let mut pairs = Vec::with_capacity(capacity);
        for _ in 0..count {
            let key = reader.string(MAX_KEY, "a key")?;
            if key.is_empty() {
                return Err(ModelError::Invalid("a key is empty".to_owned()));
            }
            let value = Value::read(reader, &excerpt(&key))?;
            pairs.push((key, value));
        }
        pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if let Some(twice) = pairs.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(ModelError::Invalid(format!("{} is there twice", excerpt(&twice[0].0))));
        }
        Ok(Self { pairs })
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let at = self.pairs.binary_search_by(|pair| pair.0.as_str().cmp(key)).ok()?;
        Some(&self.pairs[at].1)
    }

    /// Keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|pair| pair.0.as_str())
    }

    /// Pairs in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|pair| (pair.0.as_str(), &pair.1))
    }

    /// An integer of any width that fits.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, ModelError> {
        self.typed(key, "an integer of 32 bits", |value| {
            value.unsigned().and_then(|n| u32::try_from(n).ok())
        })
    }

    /// A finite float.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.typed(key, "a finite float", |value| {
            match *value {
                Value::F32(n) => Some(n),
                Value::F64(n) => Some(n as f32),
                _ => None,
            }
            .filter(|n| n.is_finite())
        })
    }

    /// A bool.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.typed(key, "a bool", |value| match *value {
            Value::Bool(yes) => Some(yes),
            _ => None,
        })
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// One integer for each of `count` things: an array of that length, or one integer for all.
    pub fn u32_each(&self, key: &str, count: usize) -> Result<Option<Vec<u32>>, ModelError> {
        let each = |value: &Value| match value {
            Value::Array(Array::U32(many)) => Some(many.clone()),
            Value::Array(Array::I32(many)) => {
                many.iter().map(|&n| u32::try_from(n).ok()).collect::<Option<Vec<_>>>()
            }
            Value::Array(_) => None,
            one => Some(vec![u32::try_from(one.unsigned()?).ok()?; count]),
        };
        self.typed(key, &format!("an integer or {count} of them"), |value| {
            each(value).filter(|many| many.len() == count)
        })
    }

    /// An array of floats.
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>, ModelError> {
        self.typed(key, "an array of f32", |value| match value {
            Value::Array(Array::F32(many)) => Some(many.as_slice()),
            _ => None,
        })
    }

    /// An array of signed integers.
    pub fn i32s(&self, key: &str) -> Result<Option<&[i32]>, ModelError> {
        self.typed(key, "an array of i32", |value| match value {
            Value::Array(Array::I32(many)) => Some(many.as_slice()),
            _ => None,
        })
    }

    /// An array of strings, moved out: vocabularies are the bulk of a header.
    pub fn take_strings(&mut self, key: &str) -> Result<Option<Vec<String>>, ModelError> {
        let Ok(at) = self.pairs.binary_search_by(|pair| pair.0.as_str().cmp(key)) else {
            return Ok(None);
        };
        match &mut self.pairs[at].1 {
            Value::Array(Array::String(many)) => Ok(Some(std::mem::take(many))),
            other => Err(mistyped(key, other, "an array of strings")),
        }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        get: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match get(value) {
                Some(got) => Ok(Some(got)),
                None => Err(mistyped(key, value, wanted)),
            },
        }
    }
}

fn mistyped(key: &str, value: &Value, wanted: &str) -> ModelError {
    ModelError::Invalid(format!("{key} is not {wanted} ({})", value.type_name()))
}

/// A name from the file as it may stand in a message: quoted, escaped and short.
pub(super) fn excerpt(name: &str) -> String {
    const LONGEST: usize = 80;
    match name.char_indices().nth(LONGEST) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}...", &name[..end]),
    }
}
