//! Model files become tensors, a tokenizer, a chat template and an architecture described as data; an encoder's
//! folder becomes the same without a template. A model is a GGUF file, a folder of safetensors, or random numbers of a
//! known shape.
//!
//! Every byte of a file is checked before it is believed. Nothing here knows scheduling or sockets.

#![forbid(unsafe_code)]

pub mod encoder;
mod error;
pub mod file;
pub mod folder;
pub mod gguf;
mod json;
pub mod plan;
pub mod random;
pub mod safetensors;
pub mod template;
mod tensor;
pub mod tokenizer;

pub use encoder::EncoderFile;
pub use file::{ModelError, ModelFile};
pub use plan::Plan;
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;
