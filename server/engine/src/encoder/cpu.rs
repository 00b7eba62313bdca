//! An encoder on the CPU, on the worker pool of the models that generate.

use std::sync::{Mutex, PoisonError};

use pith_kernels::{Isa, Pool};
use pith_model::EncoderFile;
use pith_model::encoder::{EncoderConfig, Encoding};

use super::{EncoderError, Precision};

mod forward;
mod weights;

use forward::Forward;
use weights::{Keeper, Weights};

/// Weights, and what computes with them. Calls from several threads take turns at the pool, batch by batch.
#[derive(Debug)]
pub(super) struct CpuEncoder {
    isa: Isa,
    pool: Pool,
    weights: Weights,
    /// Work space of batches that are over, kept for the next ones: as many as there were at once.
    spare: Mutex<Vec<Forward>>,
}

impl CpuEncoder {
    pub(super) fn load(
        file: &EncoderFile,
        isa: Isa,
        pool: &Pool,
        precision: Precision,
    ) -> Result<Self, EncoderError> {
        let weights = super::weights::read(file, &Keeper { pool, precision })?;
        Ok(Self { isa, pool: pool.clone(), weights, spare: Mutex::default() })
    }

    /// Heap bytes of the weights.
    pub(super) fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Appends the vector of each text of `batch` to `out`.
    pub(super) fn run(
        &self,
        config: &EncoderConfig,
        batch: &[Encoding],
        out: &mut Vec<f32>,
    ) -> Result<(), EncoderError> {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = spare().pop();
        let mut forward = taken.unwrap_or_default();
        let done = forward.run(self, config, batch, out);
        spare().push(forward);
        Ok(done?)
    }
}
