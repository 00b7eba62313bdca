//! Model files become tensors, a tokenizer, a chat template and an architecture described as data; an encoder's
//! folder becomes the same without a template.
//!
//! Every byte of a file is checked before it is believed. Nothing here knows scheduling or sockets.

#![forbid(unsafe_code)]

pub mod encoder;
mod error;
pub mod file;
pub mod gguf;
pub mod plan;
pub mod safetensors;
pub mod template;
mod tensor;
pub mod tokenizer;

pub use encoder::EncoderFile;
pub use file::{ModelError, ModelFile};
pub use plan::Plan;
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;
