//! Numbers as the format stores them.

use super::reader::HeaderReader;
use crate::ModelError;

/// A fixed-size little-endian number.
pub(super) trait Element: Sized {
    /// Bytes in the file.
    const BYTES: u64;
    fn read(reader: &mut HeaderReader<'_>, what: &str) -> Result<Self, ModelError>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Element for $number {
            const BYTES: u64 = size_of::<$number>() as u64;
            fn read(reader: &mut HeaderReader<'_>, what: &str) -> Result<Self, ModelError> {
                Ok(<$number>::from_le_bytes(reader.array(what)?))
            }
        }
    )*};
}
numbers!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl Element for bool {
    const BYTES: u64 = 1;
    fn read(reader: &mut HeaderReader<'_>, what: &str) -> Result<Self, ModelError> {
        match u8::read(reader, what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(ModelError::Invalid(format!("{what} is {other}, neither false nor true"))),
        }
    }
}

/// `count` numbers, allocated only once they are known to fit.
pub(super) fn read_many<T: Element>(
    reader: &mut HeaderReader<'_>,
    count: u64,
    what: &str,
) -> Result<Vec<T>, ModelError> {
    let mut many = Vec::with_capacity(reader.check_count(count, T::BYTES, "array elements")?);
    for _ in 0..count {
        many.push(T::read(reader, what)?);
    }
    Ok(many)
}
