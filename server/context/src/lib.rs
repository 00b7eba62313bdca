//! Documents, a question and a budget become a packed context and an exact report.
//!
//! The walk of a request, one module a stage:
//!
//! [`extract()`] makes text of HTML and the like; `segment` cuts documents into sections, chunks and sentences with byte offsets; `index` turns sentences
//! into terms; `select` scores them for the question; `fill` spends the budget; `pack` joins what is kept into
//! the text that stands in the prompt; [`cite`] ties the streamed answer back to its source.
//!
//! Two promises hold for every result: the text handed to the prompt is byte-identical to its sources (headers
//! and gap marks aside, which no [`Piece`] covers), and the budget, counted by the served model on the final
//! joined prompt, is never exceeded. Nothing is dropped that the [`Report`] does not name.
//!
//! The crate knows neither KV blocks nor the wire: what it needs of a language model is [`LanguageModel`].
#![forbid(unsafe_code)]

mod bm25;
pub mod cite;
mod compress;
mod document;
mod embedder;
mod error;
pub mod extract;
mod fill;
mod hints;
mod index;
mod language;
mod meaning;
mod pack;
mod policy;
mod prepared;
mod question;
mod report;
mod segment;
mod select;
mod sticky;
pub mod store;
mod varint;
mod vectors;

pub use bm25::{Bm25, bm25};
pub use cite::{Citation, Citer, Source};
pub use compress::{Compressed, Tools, compress};
pub use document::{Document, Element, ElementKind, Format, Span};
pub use embedder::Embedder;
pub use error::ContextError;
pub use extract::{Extracted, extract};
pub use hints::{Hint, HintKind, MAX_WEIGHT};
pub use index::terms::terms;
pub use language::{ChatModel, LanguageModel};
pub use pack::{Packed, Piece, pack};
pub use policy::{Budget, Fusion, MAX_NEIGHBOR_WINDOW, MAX_SIGNAL_WEIGHT, Mode, Order, Policy};
pub use prepared::{Prepared, PreparedCache, PreparedKey};
pub use report::{KeptSpan, Report, StageTimes};
pub use segment::sentences;
pub use sticky::{
    Chat, Conversed, RecentSelections, SelectionKey, Selections, Sent, Sticky, converse,
};
