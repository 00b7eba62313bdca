//! Weights read straight into the layout the CPU's kernels compute in.

use pith_kernels::{Matrix, MatrixBuilder, Pool};
use pith_model::ModelFile;

use crate::executor::LoadError;
use crate::executor::weights::{self, Shaped, matrices, quant};

/// Bytes of a file held at once while a matrix is read, per worker: large enough that a read costs
/// more than its call, small enough to stay in the caches until repacked.
const PIECE_BYTES: usize = 512 << 10;

/// Most pieces a tensor comes in, however large it is: a [`MatrixBuilder`] moves its rows whenever
/// more arrive.
const MOST_PIECES: usize = 16;

pub(super) type Weights = weights::Weights<Matrix, Vec<f32>>;
pub(super) type LayerWeights = weights::LayerWeights<Matrix, Vec<f32>>;

impl Shaped for Matrix {
    fn shape(&self) -> (usize, usize) {
        (self.rows(), self.cols())
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

/// A matrix to be read: tensors stacked one below the other.
struct Wanted {
    segments: Vec<String>,
    read: Option<Result<Matrix, LoadError>>,
}

/// Reads everything, in parallel.
pub(super) fn read(file: &ModelFile, pool: &Pool) -> Result<Weights, LoadError> {
    let plan = file.plan();
    let mut wanted: Vec<Wanted> =
        matrices(plan).into_iter().map(|segments| Wanted { segments, read: None }).collect();
    // The vocabulary's matrices are by far the largest: all workers share each of them.
    let (vocabulary, layers) = wanted.split_at_mut(if plan.tied_output { 1 } else { 2 });
    for matrix in vocabulary {
        matrix.read = Some(read_matrix(file, pool, &matrix.segments));
    }
    pool.chunks(layers, 1, |_, chunk| {
        for matrix in chunk {
            matrix.read = Some(read_matrix(file, pool, &matrix.segments));
        }
    })?;
    let read = wanted.into_iter().map(|matrix| {
        matrix.read.unwrap_or_else(|| Err(LoadError::unread(&matrix.segments.join(", "))))
    });
    Weights::assemble(file, read.collect::<Result<_, _>>()?, Ok)
}

fn read_matrix(file: &ModelFile, pool: &Pool, segments: &[String]) -> Result<Matrix, LoadError> {
    let mut builder: Option<MatrixBuilder> = None;
    let mut piece = Vec::new();
    for name in segments {
        let shape = |why: String| LoadError::Shape { tensor: name.clone(), why };
        let tensor = file.tensor(name).ok_or_else(|| shape("is missing".to_owned()))?;
        let building = builder.get_or_insert_with(|| MatrixBuilder::new(tensor.cols));
        building.segment(quant(tensor.kind)).map_err(shape)?.reserve(tensor.rows);
        let rows_at_once =
            (PIECE_BYTES / tensor.row_bytes.max(1)).max(tensor.rows.div_ceil(MOST_PIECES)).max(1);
        for first in (0..tensor.rows).step_by(rows_at_once) {
            let rows = first..tensor.rows.min(first + rows_at_once);
            piece.resize(rows.len() * tensor.row_bytes, 0);
            file.read_rows(name, rows, &mut piece)?;
            building.push_rows_on(pool, &piece).map_err(shape)?;
        }
    }
    builder.map(MatrixBuilder::finish).ok_or_else(|| LoadError::unread("a matrix of no tensors"))
}
