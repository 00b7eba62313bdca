//! Weights as a function of their places.

use std::collections::BTreeMap;

use crate::file::{self, Store, Tensor, TensorType};
use crate::{ModelError, Plan};

/// Weights lie evenly between this and its negative: their deviation is 0.02, as models are initialised, which keeps
/// what flows through a network of any of the shapes within a few units.
const LARGEST: f32 = 0.034_641;
/// Weights made from one draw.
const PER_DRAW: usize = 4;

/// The tensors of a plan: matrices in bf16 of random numbers, norms in f32 of ones.
#[derive(Debug)]
pub(super) struct RandomStore {
    tensors: BTreeMap<String, (Tensor, Kind)>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Ones,
    /// Where the matrix's numbers begin among all draws.
    Random {
        seed: u64,
    },
}

impl RandomStore {
    pub(super) fn new(plan: &Plan) -> Result<Self, ModelError> {
        let tensor = |(at, (name, rows, cols, matrix)): (u64, (String, usize, usize, bool))| {
            let (kind, made) = match matrix {
                true => (TensorType::BF16, Kind::Random { seed: mixed(at) }),
                false => (TensorType::F32, Kind::Ones),
            };
            let tensor = Tensor::of_floats(kind, rows, cols)
                .ok_or_else(|| ModelError::Invalid(format!("tensor {name} is too large")))?;
            Ok((name, (tensor, made)))
        };
        let tensors = (0..).zip(plan.tensors()).map(tensor).collect::<Result<_, ModelError>>()?;
        Ok(Self { tensors })
    }
}

impl Store for RandomStore {
    fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name).map(|(tensor, _)| tensor)
    }

    fn read(&self, name: &str, first: usize, out: &mut [u8]) -> Result<(), ModelError> {
        let (tensor, kind) = self.tensors.get(name).ok_or_else(|| file::missing(name))?;
        match *kind {
            Kind::Ones => {
                for one in out.as_chunks_mut::<4>().0 {
                    *one = 1f32.to_le_bytes();
                }
            }
            Kind::Random { seed } => {
                let draws = tensor.cols.div_ceil(PER_DRAW) as u64;
                for (row, bytes) in (first as u64..).zip(out.chunks_mut(tensor.row_bytes.max(1))) {
                    fill(bytes, seed.wrapping_add(row.wrapping_mul(draws)));
                }
            }
        }
        Ok(())
    }
}

/// Fills a row with bf16 from draw `from` on. Draws depend on nothing but their number, so that rows may be read in any
/// order and by many threads.
fn fill(row: &mut [u8], from: u64) {
    let (whole, rest) = row.as_chunks_mut::<{ 2 * PER_DRAW }>();
    let mut number = from;
    for bytes in whole {
        *bytes = weights(number);
        number = number.wrapping_add(1);
    }
    let last = weights(number);
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Four weights: the sixteen bits of each are a number in -1..1, cut to bf16.
fn weights(number: u64) -> [u8; 2 * PER_DRAW] {
    let draw = mixed(number);
    let mut bytes = [0; 2 * PER_DRAW];
    for (at, weight) in bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let value = f32::from((draw >> (16 * at)) as i16) * (LARGEST / 32_768.0);
        *weight = ((value.to_bits() >> 16) as u16).to_le_bytes();
    }
    bytes
}

/// SplitMix64's mixing of the number of a draw: Steele, Lea and Flood, OOPSLA 2014.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
