//! The metadata keys of one architecture, with a memory of which were understood.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::ModelError;
use crate::gguf::Metadata;

/// Reads `{architecture}.*` keys. A key nobody asked for may change the arithmetic, so
/// [`Self::finish`] refuses a file that has one.
pub(super) struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: String,
    understood: RefCell<BTreeSet<String>>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(metadata: &'a Metadata, architecture: &str) -> Self {
        Self { metadata, prefix: format!("{architecture}."), understood: RefCell::default() }
    }

    fn full(&self, key: &str) -> String {
        let full = format!("{}{key}", self.prefix);
        self.understood.borrow_mut().insert(full.clone());
        full
    }

    fn missing(&self, key: &str) -> ModelError {
        ModelError::Invalid(format!("{}{key} is missing", self.prefix))
    }

    /// A complaint about the value of `key`.
    pub(super) fn invalid(&self, key: &str, why: &str) -> ModelError {
        ModelError::Invalid(format!("{}{key} {why}", self.prefix))
    }

    /// As [`Self::invalid`], of a value that is sound but not known here.
    pub(super) fn unsupported(&self, key: &str, why: &str) -> ModelError {
        ModelError::Unsupported(format!("{}{key} {why}", self.prefix))
    }

    pub(super) fn u32(&self, key: &str) -> Result<Option<u32>, ModelError> {
        self.metadata.u32(&self.full(key))
    }

    pub(super) fn f32(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.metadata.f32(&self.full(key))
    }

    pub(super) fn str(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        self.metadata.str(&self.full(key))
    }

    /// A float above 0.
    pub(super) fn positive(&self, key: &str) -> Result<Option<f32>, ModelError> {
        match self.f32(key)? {
            Some(value) if value <= 0.0 => Err(self.invalid(key, "is not above 0")),
            value => Ok(value),
        }
    }

    /// A size between 1 and `most`.
    pub(super) fn size(&self, key: &str, most: u32) -> Result<Option<usize>, ModelError> {
        self.u32(key)?.map(|value| self.in_range(key, value, most)).transpose()
    }

    /// As [`Self::size`], which the file must have.
    pub(super) fn required_size(&self, key: &str, most: u32) -> Result<usize, ModelError> {
        self.size(key, most)?.ok_or_else(|| self.missing(key))
    }

    /// A size for each of `layers`: one for all, or an array.
    pub(super) fn sizes(
        &self,
        key: &str,
        layers: usize,
        most: u32,
    ) -> Result<Option<Vec<usize>>, ModelError> {
        let Some(values) = self.metadata.u32_each(&self.full(key), layers)? else {
            return Ok(None);
        };
        values
            .into_iter()
            .map(|value| self.in_range(key, value, most))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// As [`Self::sizes`], which the file must have.
    pub(super) fn required_sizes(
        &self,
        key: &str,
        layers: usize,
        most: u32,
    ) -> Result<Vec<usize>, ModelError> {
        self.sizes(key, layers, most)?.ok_or_else(|| self.missing(key))
    }

    fn in_range(&self, key: &str, value: u32, most: u32) -> Result<usize, ModelError> {
        if (1..=most).contains(&value) {
            return Ok(value as usize);
        }
        Err(self.invalid(key, &format!("is {value}, not between 1 and {most}")))
    }

    /// A key that must be absent or say 0: it turns something on that is not known here.
    pub(super) fn off(&self, key: &str) -> Result<(), ModelError> {
        match self.u32(key)? {
            None | Some(0) => Ok(()),
            Some(value) => Err(self.unsupported(key, &format!("= {value}"))),
        }
    }

    /// A key that changes nothing that is computed.
    pub(super) fn ignore(&self, key: &str) {
        self.full(key);
    }

    /// Refuses a file with a key of this architecture that nobody asked for.
    pub(super) fn finish(self) -> Result<(), ModelError> {
        let understood = self.understood.into_inner();
        let unknown = self
            .metadata
            .keys()
            .find(|key| key.starts_with(&self.prefix) && !understood.contains(*key));
        match unknown {
            None => Ok(()),
            Some(key) => Err(ModelError::Unsupported(format!("the setting {key:?}"))),
        }
    }
}
