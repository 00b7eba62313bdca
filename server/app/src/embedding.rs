//! The embedder as the context stage and the `Embeddings` service see it: an encoder with a name.

mod sketch;

use std::path::Path;

use pith_context::{ContextError, Embedder};
use pith_engine::encoder::{Embedded, Encoder, EncoderError, Precision};
use pith_kernels::device::cuda;
use pith_kernels::{Isa, Pool};
use pith_model::EncoderFile;

use crate::config::DeviceChoice;
use crate::executor;
use sketch::Sketcher;

/// An encoder in memory.
#[derive(Debug)]
pub struct Embedding {
    name: String,
    encoder: Encoder,
    sketcher: Sketcher,
}

impl Embedding {
    /// Opens the encoder in `folder` and loads its weights: in bfloat16 on the card that `device` means, in eight bits on the CPU
    /// where it means none or the card does not take them, which is logged. Blocks.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn load(
        name: impl Into<String>,
        folder: &Path,
        device: DeviceChoice,
        isa: Isa,
        pool: Pool,
    ) -> Result<Self, EncoderError> {
        let name = name.into();
        let sketcher = Sketcher::read(EncoderFile::open(folder)?)?;
        if let Some(ordinal) = executor::card(device) {
            let file = EncoderFile::open(folder)?;
            let open = Box::new(move || cuda::device(ordinal));
            match Encoder::load_on(file, pool.clone(), open) {
                Ok(encoder) => return Ok(Self { name, encoder, sketcher }),
                Err(EncoderError::Device(why)) => {
                    tracing::warn!(embedder = name, %why, "the card does not take the embedder; the CPU computes it");
                }
                Err(error) => return Err(error),
            }
        }
        let file = EncoderFile::open(folder)?;
        let encoder = Encoder::load(file, isa, pool, Precision::EightBit)?;
        Ok(Self { name, encoder, sketcher })
    }

    /// Its name in the catalogue, or its folder's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What computes it, for people.
    #[must_use]
    pub fn place(&self) -> &str {
        self.encoder.place()
    }

    /// As [`Encoder::let_go_of_lost`].
    pub(crate) fn let_go_of_lost(&self) {
        self.encoder.let_go_of_lost();
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

    fn sketcher(&self) -> Option<&dyn Embedder> {
        Some(&self.sketcher)
    }
}
