//! Texts become vectors: a BERT on the CPU, beside the models that generate and on the same worker pool.
//!
//! Texts are computed unpadded, the rows of several side by side, [`ROWS`] at a time: that is what bounds a pool job, so
//! that a step of a generating model never waits long for its turn. A server hands it a [`Pool::background`].

mod forward;
mod weights;

use std::sync::{Mutex, PoisonError};

use pith_kernels::{Isa, Pool, PoolError};
use pith_model::encoder::{EncoderConfig, Encoding, WordPiece};
use pith_model::{EncoderFile, ModelError};

use forward::Forward;
use weights::Weights;

/// Most rows (tokens) computed at once; a longer text is computed alone. Enough for the kernels to reuse what they
/// unpack, and on two cores with AVX2 the longest pool job takes some two milliseconds.
pub const ROWS: usize = 256;

/// Texts tokenised before the first of them is computed.
const TEXTS: usize = 256;

/// Texts a worker tokenises at a time.
const TEXTS_AT_ONCE: usize = 4;

/// How weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As the file has them: the reference, in four times the memory and slower.
    Float,
    /// Eight bits, 32 neighbours sharing a scale; activations are rounded alike. Matrices whose rows are no multiple
    /// of 32 stay floats.
    EightBit,
}

impl Precision {
    fn name(self) -> &'static str {
        match self {
            Self::Float => "f32",
            Self::EightBit => "q8_0",
        }
    }
}

/// Why an encoder could not be loaded or a text has no vector.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// The files cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A matrix cannot be repacked.
    #[error("tensor {tensor} {why}")]
    Shape {
        /// Its name.
        tensor: String,
        /// What is wrong, to be read after the name.
        why: String,
    },
    /// A worker panicked.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A vector came out as no numbers: the weights are damaged or extreme.
    #[error("a text's vector holds no numbers")]
    NotFinite,
    /// The caller wanted no more.
    #[error("it was stopped")]
    Stopped,
}

/// What is known of a text beside its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedded {
    /// Tokens computed, `[CLS]` and `[SEP]` included.
    pub tokens: usize,
    /// Whether the text had more than the encoder takes.
    pub truncated: bool,
}

/// Where the arithmetic happens.
#[derive(Debug)]
struct Machine {
    isa: Isa,
    pool: Pool,
}

/// An encoder in memory. Calls from several threads take turns at the pool, batch by batch.
#[derive(Debug)]
pub struct Encoder {
    machine: Machine,
    config: EncoderConfig,
    tokenizer: WordPiece,
    weights: Weights,
    identity: String,
    /// Work space of calls that are over, kept for the next ones: as many as there were calls at once.
    spare: Mutex<Vec<Forward>>,
}

impl Encoder {
    /// Reads the weights.
    ///
    /// # Errors
    /// A tensor is missing, has another shape than the description says, or holds no numbers.
    pub fn load(
        file: EncoderFile,
        isa: Isa,
        pool: Pool,
        precision: Precision,
    ) -> Result<Self, EncoderError> {
        let weights = Weights::read(&file, &pool, precision)?;
        Ok(Self {
            machine: Machine { isa, pool },
            config: file.config().clone(),
            // The oracle sums in f64: its vectors are not quite those of the others.
            identity: format!(
                "{}:{}{}",
                file.fingerprint(),
                precision.name(),
                if isa == Isa::Scalar { ":scalar" } else { "" }
            ),
            tokenizer: file.into_tokenizer(),
            weights,
            spare: Mutex::default(),
        })
    }

    /// Changes whenever the same text would get another vector: files, precision and rounding.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Components of a vector.
    pub fn dimensions(&self) -> usize {
        self.config.hidden
    }

    /// Most tokens of a text; what goes beyond is cut off.
    pub fn max_tokens(&self) -> usize {
        self.config.max_tokens
    }

    /// Heap bytes of the weights.
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Appends a vector of length 1 for each of `texts` to `out`, in order. A text has the same bits whatever stands
    /// beside it and however many threads compute. `go_on` is asked before each batch.
    ///
    /// # Errors
    /// [`EncoderError::Stopped`] if `go_on` says no. Whatever the error, `out` is as it was.
    pub fn embed(
        &self,
        texts: &[&str],
        out: &mut Vec<f32>,
        go_on: impl Fn() -> bool,
    ) -> Result<Vec<Embedded>, EncoderError> {
        let before = out.len();
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = spare().pop();
        let mut forward = taken.unwrap_or_default();
        let embedded = self.embed_with(&mut forward, texts, out, go_on);
        spare().push(forward);
        if embedded.is_err() {
            out.truncate(before);
        }
        embedded
    }

    fn embed_with(
        &self,
        forward: &mut Forward,
        texts: &[&str],
        out: &mut Vec<f32>,
        go_on: impl Fn() -> bool,
    ) -> Result<Vec<Embedded>, EncoderError> {
        let mut embedded = Vec::with_capacity(texts.len());
        out.reserve(texts.len() * self.config.hidden);
        for texts in texts.chunks(TEXTS) {
            if !go_on() {
                return Err(EncoderError::Stopped);
            }
            let encodings = self.tokenize(texts)?;
            let mut rest = encodings.as_slice();
            while !rest.is_empty() {
                if !go_on() {
                    return Err(EncoderError::Stopped);
                }
                let (batch, after) = rest.split_at(batch_len(rest));
                rest = after;
                let from = out.len();
                forward.run(&self.machine, &self.config, &self.weights, batch, out)?;
                if !out[from..].iter().all(|number| number.is_finite()) {
                    return Err(EncoderError::NotFinite);
                }
            }
            embedded.extend(
                encodings.iter().map(|e| Embedded { tokens: e.ids.len(), truncated: e.truncated }),
            );
        }
        Ok(embedded)
    }

    fn tokenize(&self, texts: &[&str]) -> Result<Vec<Encoding>, EncoderError> {
        let mut encodings: Vec<Option<Result<Encoding, ModelError>>> = Vec::new();
        encodings.resize_with(texts.len(), || None);
        self.machine.pool.chunks(&mut encodings, TEXTS_AT_ONCE, |chunk, encodings| {
            for (text, encoding) in texts[chunk * TEXTS_AT_ONCE..].iter().zip(encodings) {
                *encoding = Some(self.tokenizer.encode(text));
            }
        })?;
        let each = encodings.into_iter().map(|encoding| {
            encoding.unwrap_or_else(|| Err(ModelError::Invalid("a text was left out".to_owned())))
        });
        Ok(each.collect::<Result<_, _>>()?)
    }
}

/// How many texts go into the next batch, at least one.
fn batch_len(encodings: &[Encoding]) -> usize {
    let mut rows = 0;
    let fits = encodings.iter().take_while(|encoding| {
        rows += encoding.ids.len();
        rows <= ROWS
    });
    fits.count().max(1)
}
