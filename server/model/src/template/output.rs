//! Output with an end.

use std::io;

use super::{Message, TemplateError};

/// Bytes a template may write besides the messages' own.
const FIXED: usize = 4 << 20;
/// How often a template may repeat what the messages say.
const REPEATS: usize = 4;

/// Collects what a template writes and refuses to grow past its limit.
pub(super) struct BoundedOutput {
    bytes: Vec<u8>,
    limit: usize,
    overflowed: bool,
}

impl BoundedOutput {
    pub(super) fn for_messages(messages: &[Message]) -> Self {
        let limit = super::said(messages).saturating_mul(REPEATS).saturating_add(FIXED);
        Self { bytes: Vec::new(), limit, overflowed: false }
    }

    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }

    pub(super) fn into_text(self) -> Result<String, TemplateError> {
        String::from_utf8(self.bytes)
            .map_err(|_| TemplateError::Refused("it wrote bytes that are not text".to_owned()))
    }
}

impl io::Write for BoundedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            self.overflowed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
