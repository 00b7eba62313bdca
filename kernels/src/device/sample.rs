//! Choosing the next token of each row, on the device.
//!
//! The order of operations:
//!
//! 1. logit bias is added;
//! 2. the repetition penalty divides or multiplies, then the frequency and presence penalties are subtracted;
//! 3. banned tokens drop out, and those a mask does not allow;
//! 4. the temperature divides (a greedy row ends here: the most likely token, the lowest id of equals);
//! 5. top-k, top-p (of what top-k left, renormalised), min-p (of the most likely token) narrow;
//! 6. one uniform number, made from the seed and the draw's index alone, picks a token by the cumulative weights in order
//!    of id.
//!
//! A token's weight is a whole number of 2^-40 of the likeliest one's; one of less is never drawn. A row's token does not
//! depend on the rows around it.

use super::shape::{logit_threads, spread_bytes};
use super::{Device, DeviceError, DeviceSlice, DeviceVec, Launch};

mod rows;

use rows::{EDIT_WORDS, HEADER_WORDS};
pub use rows::{SampleRow, SampleRows};

/// Bins a threshold is counted into, each of 64 bits.
const BINS: usize = 256;
/// Tokens listed apart, each of 64 bits.
const LIST: usize = 4096;

/// Why a row has no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleFailure {
    /// A logit is NaN or positive infinity: the model's arithmetic failed.
    NotFinite,
    /// Every token is banned or of zero likelihood.
    NothingLeft,
}

impl SampleFailure {
    /// What a number among the statuses [`sample`] writes means; `None` if the row has its token.
    pub fn of(status: u32) -> Option<Self> {
        match status {
            0 => None,
            1 => Some(Self::NotFinite),
            _ => Some(Self::NothingLeft),
        }
    }
}

/// Room on a device for the settings of a step's rows.
#[derive(Debug)]
pub struct PackedSampling {
    words: DeviceVec<u32>,
}

impl PackedSampling {
    /// Room for `rows` rows and `edits` edits of tokens, all rows' together (see [`SampleRows::edits`]).
    ///
    /// # Errors
    /// No memory is left.
    pub fn new(device: &Device, rows: usize, edits: usize) -> Result<Self, DeviceError> {
        let words =
            rows.saturating_mul(HEADER_WORDS).saturating_add(edits.saturating_mul(EDIT_WORDS));
        // Rows of which nothing is said are passed over.
        Ok(Self { words: DeviceVec::zeroed(device, words)? })
    }

    /// Whether `rows` fit.
    pub fn fits(&self, rows: &SampleRows) -> bool {
        rows.words().len() <= self.words.len()
    }

    /// Copies the settings of a step here, in one piece.
    ///
    /// # Errors
    /// They do not fit, or the device failed.
    pub fn upload(&self, rows: &SampleRows) -> Result<(), DeviceError> {
        let words = rows.words();
        self.words.as_slice().expect_room(words.len(), "settings of rows")?;
        self.words.slice(0..words.len()).upload(words)
    }
}

/// Chooses a token for each row of `logits`, as many rows as `out_tokens` is long, by the settings in `packed`, which were
/// packed for as many. `allowed` has a bit for each token of each row, `vocab.div_ceil(32)` words a row, which counts for
/// rows that are masked. `out_logprobs` gets the ln-probability of the token under the unmodified distribution,
/// `out_status` what [`SampleFailure::of`] reads; a row without a token gets token 0 and likelihood 0, so that it can be
/// embedded all the same. Logits are edited on the way and come back as they were.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn sample(
    device: &Device,
    logits: DeviceSlice<'_, f32>,
    packed: &PackedSampling,
    allowed: Option<DeviceSlice<'_, u32>>,
    out_tokens: DeviceSlice<'_, u32>,
    out_logprobs: DeviceSlice<'_, f32>,
    out_status: DeviceSlice<'_, u32>,
) -> Result<(), DeviceError> {
    let rows = out_tokens.len();
    out_logprobs.expect_len(rows, "likelihoods of tokens")?;
    out_status.expect_len(rows, "statuses of rows")?;
    if rows == 0 {
        return logits.expect_len(0, "logits of no row");
    }
    let vocab = logits.len() / rows;
    logits.expect_len(rows * vocab, "logits")?;
    if vocab == 0 || vocab > 1 << 30 {
        return Err(DeviceError::Shape(format!("a vocabulary of {vocab}")));
    }
    if let Some(allowed) = allowed {
        allowed.expect_len(rows * vocab.div_ceil(32), "masks of rows")?;
    }
    packed.words.as_slice().expect_room(rows * HEADER_WORDS, "settings of rows")?;
    let edits = (packed.words.len() - rows * HEADER_WORDS) / EDIT_WORDS;
    let threads = logit_threads(vocab);
    // Bins and the list, and sixteen bytes through which threads tell each other a number.
    let shared = spread_bytes(threads) + 8 * BINS + 16 + 8 * LIST;
    let wide = vocab.is_multiple_of(4) && logits.address().is_multiple_of(16);
    let arguments = [
        logits.into(),
        vocab.into(),
        packed.words.as_slice().into(),
        edits.into(),
        allowed.into(),
        wide.into(),
        out_tokens.into(),
        out_logprobs.into(),
        out_status.into(),
    ];
    // SAFETY: a block has one row of all; edits are bounded by the room there is, their tokens by the vocabulary.
    unsafe { device.launch("sample", Launch::row(rows, threads).shared(shared), &arguments) }
}
