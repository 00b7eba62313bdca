//! Records as bytes: little-endian numbers, lengths before what they measure.

use super::StoreError;
use super::database;

/// Appends to a record.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u64(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    /// With its length.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u64(bytes.len() as u64).raw(bytes)
    }

    /// `None` and the empty text differ.
    pub(super) fn optional(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            None => self.raw(&[0]),
            Some(text) => self.raw(&[1]).bytes(text.as_bytes()),
        }
    }
}

/// Takes a record apart.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn raw(&mut self, count: usize) -> Result<&'a [u8], StoreError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.raw(N)?.try_into().map_err(|_| malformed())
    }

    pub(super) fn u64(&mut self) -> Result<u64, StoreError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], StoreError> {
        let count = self.u64()?;
        self.raw(usize::try_from(count).map_err(|_| malformed())?)
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        Ok(std::str::from_utf8(self.bytes()?).map_err(|_| malformed())?.to_owned())
    }

    pub(super) fn optional(&mut self) -> Result<Option<String>, StoreError> {
        match self.raw(1)? {
            [0] => Ok(None),
            _ => Ok(Some(self.text()?)),
        }
    }
}

/// A record that does not read as it was written.
pub(super) fn malformed() -> StoreError {
    StoreError::corrupt(database::FILE, "a record is malformed")
}
