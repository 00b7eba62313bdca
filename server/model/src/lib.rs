//! Model files become tensors, a tokenizer, a chat template and an architecture described as data.
//!
//! Every byte of a file is checked before it is believed. Nothing here knows scheduling or sockets.

#![forbid(unsafe_code)]

mod error;
pub mod file;
pub mod gguf;
pub mod plan;
pub mod template;
mod tensor;
pub mod tokenizer;

pub use file::{ModelError, ModelFile};
pub use plan::Plan;
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;
