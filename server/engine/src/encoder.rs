//! Texts become vectors: a BERT on the CPU or on a device, beside the models that generate.
//!
//! Texts are computed unpadded, the rows of several side by side, a bounded number at a time: no job is long, so that a step
//! of a generating model never waits long for its turn. On the CPU a server hands it a [`Pool::background`]; on a
//! device it has a queue of its own.

mod cpu;
mod gpu;
mod weights;

use pith_kernels::device::DeviceError;
use pith_kernels::{Isa, Pool, PoolError};
use pith_model::encoder::{EncoderConfig, Encoding};
use pith_model::{EncoderFile, ModelError};

use crate::executor::gpu::OpenDevice;
use cpu::CpuEncoder;
use gpu::GpuEncoder;

/// Most rows (tokens) computed at once on the CPU; a longer text is computed alone. Enough for the kernels to reuse what they
/// unpack, and on two cores with AVX2 the longest pool job takes some two milliseconds.
pub const ROWS: usize = 256;

/// Most rows (tokens) computed at once on a device, which takes its work space for them at load: 66 MiB for
/// all-MiniLM-L6-v2.
pub const DEVICE_ROWS: usize = gpu::ROWS;

/// Texts tokenised before the first of them is computed.
const TEXTS: usize = 256;

/// Texts a worker tokenises at a time.
const TEXTS_AT_ONCE: usize = 4;

/// How weights are kept on the CPU.
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
    /// The device cannot be had, cannot take the encoder, or failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
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
enum Machine {
    Cpu(CpuEncoder),
    Gpu(Box<GpuEncoder>),
}

/// An encoder in memory. Calls from several threads take turns, batch by batch.
#[derive(Debug)]
pub struct Encoder {
    file: EncoderFile,
    machine: Machine,
    /// Tokenises, and computes where the CPU does.
    pool: Pool,
    identity: String,
    place: String,
}

impl Encoder {
    /// Reads the weights for the CPU.
    ///
    /// # Errors
    /// A tensor is missing, has another shape than the description says, or holds no numbers.
    pub fn load(
        file: EncoderFile,
        isa: Isa,
        pool: Pool,
        precision: Precision,
    ) -> Result<Self, EncoderError> {
        let machine = Machine::Cpu(CpuEncoder::load(&file, isa, &pool, precision)?);
        // The oracle sums in f64: its vectors are not quite those of the others.
        let oracle = if isa == Isa::Scalar { ":scalar" } else { "" };
        let identity = format!("{}:{}{oracle}", file.fingerprint(), precision.name());
        Ok(Self { file, machine, pool, identity, place: format!("cpu ({})", isa.name()) })
    }

    /// Reads the weights for a device, in bfloat16. `pool` tokenises. Should the device be lost, the call that finds out fails,
    /// and the next one opens it again.
    ///
    /// # Errors
    /// As [`Encoder::load`]; [`EncoderError::Device`] if there is no device, it has no room, or its kernels do not take heads
    /// of that many dimensions (a multiple of 8, at most 128).
    pub fn load_on(file: EncoderFile, pool: Pool, open: OpenDevice) -> Result<Self, EncoderError> {
        let gpu = GpuEncoder::load(&file, &pool, open)?;
        // Kinds of cards round differently within a product and in exponentials.
        let (major, minor) = gpu.capability();
        let identity = format!("{}:bf16:sm_{major}{minor}", file.fingerprint());
        let place = gpu.name().to_owned();
        Ok(Self { file, machine: Machine::Gpu(Box::new(gpu)), pool, identity, place })
    }

    /// Changes whenever the same text would get another vector: files, precision and rounding, that of the CPU and of each kind
    /// of device being another.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// What computes, for people: `cpu (avx2)`, or the name of a card.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Components of a vector.
    pub fn dimensions(&self) -> usize {
        self.config().hidden
    }

    /// Most tokens of a text; what goes beyond is cut off.
    pub fn max_tokens(&self) -> usize {
        self.config().max_tokens
    }

    /// Bytes of the weights, in the memory they are computed from.
    pub fn weight_bytes(&self) -> usize {
        match &self.machine {
            Machine::Cpu(cpu) => cpu.weight_bytes(),
            Machine::Gpu(gpu) => gpu.weight_bytes(),
        }
    }

    /// Gives up what lies on a device that was lost: a card comes back only when all that was on it is gone.
    pub fn let_go_of_lost(&self) {
        if let Machine::Gpu(gpu) = &self.machine {
            gpu.let_go_of_lost();
        }
    }

    fn config(&self) -> &EncoderConfig {
        self.file.config()
    }

    /// Appends a vector of length 1 for each of `texts` to `out`, in order. A text has the same bits whatever stands
    /// beside it and however many threads or multiprocessors compute. `go_on` is asked before each batch.
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
        let embedded = self.embed_batches(texts, out, go_on);
        if embedded.is_err() {
            out.truncate(before);
        }
        embedded
    }

    fn embed_batches(
        &self,
        texts: &[&str],
        out: &mut Vec<f32>,
        go_on: impl Fn() -> bool,
    ) -> Result<Vec<Embedded>, EncoderError> {
        let mut embedded = Vec::with_capacity(texts.len());
        out.reserve(texts.len() * self.dimensions());
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
                let from = out.len();
                rest = self.compute_first(rest, out)?;
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

    /// Computes a batch of the first of `texts`, and returns the others.
    fn compute_first<'a>(
        &self,
        texts: &'a [Encoding],
        out: &mut Vec<f32>,
    ) -> Result<&'a [Encoding], EncoderError> {
        let rows = match self.machine {
            Machine::Cpu(_) => ROWS,
            Machine::Gpu(_) => DEVICE_ROWS,
        };
        let (batch, after) = texts.split_at(batch_len(texts, rows));
        match &self.machine {
            Machine::Cpu(cpu) => cpu.run(self.config(), batch, out)?,
            Machine::Gpu(gpu) => gpu.run(&self.file, &self.pool, batch, out)?,
        }
        Ok(after)
    }

    fn tokenize(&self, texts: &[&str]) -> Result<Vec<Encoding>, EncoderError> {
        let mut encodings: Vec<Option<Result<Encoding, ModelError>>> = Vec::new();
        encodings.resize_with(texts.len(), || None);
        self.pool.chunks(&mut encodings, TEXTS_AT_ONCE, |chunk, encodings| {
            for (text, encoding) in texts[chunk * TEXTS_AT_ONCE..].iter().zip(encodings) {
                *encoding = Some(self.file.tokenizer().encode(text));
            }
        })?;
        let each = encodings.into_iter().map(|encoding| {
            encoding.unwrap_or_else(|| Err(ModelError::Invalid("a text was left out".to_owned())))
        });
        Ok(each.collect::<Result<_, _>>()?)
    }
}

/// How many texts go into the next batch of at most `most` rows, at least one.
fn batch_len(encodings: &[Encoding], most: usize) -> usize {
    let mut rows = 0;
    let fits = encodings.iter().take_while(|encoding| {
        rows += encoding.ids.len();
        rows <= most
    });
    fits.count().max(1)
}
