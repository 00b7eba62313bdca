//! The embedder as the context stage and the `Embeddings` service see it: an encoder with a name.

use std::path::Path;

use pith_context::{ContextError, Embedder};
use pith_engine::encoder::{Embedded, Encoder, EncoderError, Precision};
use pith_kernels::{Isa, Pool};
use pith_model::EncoderFile;

/// An encoder in memory.
#[derive(Debug)]
pub struct Embedding {
    name: String,
    encoder: Encoder,
}

impl Embedding {
    /// Opens the encoder in `folder` and loads its weights in eight bits. Blocks.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn load(
        name: impl Into<String>,
        folder: &Path,
        isa: Isa,
        pool: Pool,
    ) -> Result<Self, EncoderError> {
        let file = EncoderFile::open(folder)?;
        let encoder = Encoder::load(file, isa, pool, Precision::EightBit)?;
        Ok(Self { name: name.into(), encoder })
    }

    /// Its name in the catalogue, or its folder's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Most tokens of a text; what goes beyond is cut off.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.encoder.max_tokens()
    }

    /// As [`Embedder::embed`], for as long as `go_on` says so (it is asked between batches), with what is known of
    /// each text.
    ///
    /// # Errors
    /// [`EncoderError::Stopped`] if `go_on` says no.
    pub fn embed_while(
        &self,
        texts: &[&str],
        out: &mut Vec<f32>,
        go_on: impl Fn() -> bool,
    ) -> Result<Vec<Embedded>, EncoderError> {
        self.encoder.embed(texts, out, go_on)
    }
}

impl Embedder for Embedding {
    fn identity(&self) -> &str {
        self.encoder.identity()
    }

    fn dimensions(&self) -> usize {
        self.encoder.dimensions()
    }

    fn embed(&self, texts: &[&str], out: &mut Vec<f32>) -> Result<(), ContextError> {
        let failed = |error: EncoderError| ContextError::Embedder { message: error.to_string() };
        self.encoder.embed(texts, out, || true).map(drop).map_err(failed)
    }
}
