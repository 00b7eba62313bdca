//! Documents as they were sent (HTML, PDF, encoded text) become text, with the way back to the original.
//!
//! Everything downstream (segments, budgets, citations) speaks of the extracted text alone;
//! [`Origins`] leads from a range of it to the smallest range of the original that holds it. What is extracted is
//! bounded in time, memory and nesting whatever the bytes are, and no character is made up: what cannot be decoded
//! is an error that says where, or, inside a PDF whose font does not say what a glyph means, left out.

mod encoding;
mod html;
mod media;
mod origin;
mod pdf;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod way;

use std::borrow::Cow;
use std::sync::Arc;

use crate::document::{Element, Format};
pub use media::Media;
pub use origin::{Origin, Origins};
pub use way::Way;

/// Most bytes of a page or a PDF as it is sent. Text that is read as it stands is for the caller to bound.
pub const MAX_INPUT_BYTES: usize = 64 << 20;
/// Most bytes of extracted text.
pub const MAX_TEXT_BYTES: usize = 64 << 20;
/// Longest title taken from a document itself, in bytes.
const MAX_TITLE_BYTES: usize = 512;

/// A document's text and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The text; never blank.
    pub text: String,
    /// How it is to be read where `elements` is `None`.
    pub format: Format,
    /// What it is made of, for [`Document::elements`](crate::Document::elements).
    pub elements: Option<Arc<[Element]>>,
    /// The title the document gives itself, white space collapsed, at most 512 bytes.
    pub title: Option<String>,
    /// The way back.
    pub origins: Origins,
    /// The original as UTF-8, which the offsets of [`Origin::Text`] refer to; `None`: the bytes themselves are.
    pub decoded: Option<String>,
    /// Glyphs left out, since the font of the PDF they stand in does not say what they mean.
    pub left_out: usize,
}

/// Why a document has no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtractError {
    /// Nobody here reads this kind of document.
    #[error("{mime:?} is not a kind of document that can be read")]
    Media {
        /// The MIME type as it was given.
        mime: String,
    },
    /// A bound was met.
    #[error("it has more than {limit} {what}")]
    TooLarge {
        /// What there is too much of, in the plural.
        what: &'static str,
        /// How much is read.
        limit: usize,
    },
    /// The bytes are not text in the encoding they claim to be in.
    #[error("byte {offset} is not valid {encoding}")]
    Encoding {
        /// The encoding's name.
        encoding: String,
        /// Place of the first byte that is not.
        offset: usize,
    },
    /// The encoding it claims to be in is not one that is read, and it is not UTF-8 either.
    #[error("its encoding {encoding:?} is not read here, and byte {offset} is not valid UTF-8")]
    UnknownEncoding {
        /// What it claims.
        encoding: String,
        /// Place of the first byte that is not UTF-8.
        offset: usize,
    },
    /// It is not what its MIME type says.
    #[error("it is not a well-formed {format}: {reason}")]
    Malformed {
        /// What it should be.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// It can be read with a key only.
    #[error("it is encrypted")]
    Encrypted,
    /// There is no text in it: a scan, or nothing but markup.
    #[error("no text was found in it")]
    NoText,
    /// `keep_going` said no.
    #[error("extraction was cancelled")]
    Cancelled,
}

/// Makes text of `bytes`, a document of the MIME type `mime` (see [`Media`]). `keep_going` is asked every now and
/// then, some milliseconds apart; when it says no, the work ends. Takes time and memory in proportion to the bytes
/// and to what they unpack to, within the bounds of this module.
///
/// # Errors
/// Each of [`ExtractError`].
pub fn extract(
    bytes: &[u8],
    mime: &str,
    keep_going: &mut dyn FnMut() -> bool,
) -> Result<Extracted, ExtractError> {
    let Some(media) = Media::of(mime) else {
        return Err(ExtractError::Media { mime: mime.to_owned() });
    };
    if !matches!(media, Media::Verbatim(_)) && bytes.len() > MAX_INPUT_BYTES {
        return Err(ExtractError::TooLarge { what: "bytes", limit: MAX_INPUT_BYTES });
    }
    let extracted = match media {
        Media::Verbatim(format) => verbatim(bytes, format, mime)?,
        Media::Html { xml } => {
            let decoded = encoding::html(bytes, media::charset(mime))?;
            let mut extracted = html::extract(&decoded, xml, keep_going)?;
            if let Cow::Owned(decoded) = decoded {
                extracted.decoded = Some(decoded);
            }
            extracted
        }
        Media::Pdf => pdf::extract(bytes, keep_going)?,
    };
    if extracted.text.trim().is_empty() {
        return Err(ExtractError::NoText);
    }
    Ok(extracted)
}

/// The source of a page of the MIME type `mime` as the text that the offsets of [`Origin::Text`] refer to.
///
/// # Errors
/// [`ExtractError::Encoding`] and [`ExtractError::UnknownEncoding`].
pub fn source<'a>(bytes: &'a [u8], mime: &str) -> Result<Cow<'a, str>, ExtractError> {
    encoding::html(bytes, media::charset(mime))
}

/// Text that needs no more than decoding: byte for byte what was sent if that is UTF-8.
fn verbatim(bytes: &[u8], format: Format, mime: &str) -> Result<Extracted, ExtractError> {
    let text = encoding::text(bytes, media::charset(mime))?.into_owned();
    let origins = Origins::whole(text.len());
    Ok(Extracted { text, format, elements: None, title: None, origins, decoded: None, left_out: 0 })
}
