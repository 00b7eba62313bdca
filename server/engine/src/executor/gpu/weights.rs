//! Weights streamed from their file to the device.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use pith_kernels::device::matrix::{DeviceMatrix, DeviceMatrixBuilder};
use pith_kernels::device::{Device, DeviceVec};
use pith_kernels::{Pool, Quant};
use pith_model::ModelFile;

use crate::executor::LoadError;
use crate::executor::weights::{self, Shaped, matrices, quant};

/// Bytes of a file read at once.
const PIECE_BYTES: usize = 16 << 20;
/// Pieces read ahead of the one being sent.
const AHEAD: usize = 2;

pub(super) type Weights = weights::Weights<DeviceMatrix, DeviceVec<f32>>;
pub(super) type LayerWeights = weights::LayerWeights<DeviceMatrix, DeviceVec<f32>>;

impl Shaped for DeviceMatrix {
    fn shape(&self) -> (usize, usize) {
        (self.rows(), self.cols())
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

/// Part of a tensor on its way.
struct Piece {
    matrix: usize,
    quant: Quant,
    cols: usize,
    tensor: String,
    /// Of the whole tensor.
    rows: usize,
    /// Whether it begins its tensor.
    first: bool,
    bytes: Vec<u8>,
}

/// Reads everything: one thread reads the file while the pool's repack and the device takes what was read before.
pub(super) fn read(device: &Device, file: &ModelFile, pool: &Pool) -> Result<Weights, LoadError> {
    let names = matrices(file.plan());
    let count = names.len();
    let built = thread::scope(|scope| {
        let (sender, receiver) = sync_channel(AHEAD);
        let reader = scope.spawn(move || read_pieces(file, &names, &sender));
        let built = build(device, pool, receiver, count);
        // Where the device failed first, its error is the cause: the reader only found that nobody listens.
        match (built, reader.join()) {
            (Ok(built), Ok(Ok(()))) => Ok(built),
            (Err(error), _) | (Ok(_), Ok(Err(error))) => Err(error),
            (Ok(_), Err(_)) => Err(LoadError::unread("a matrix")),
        }
    })?;
    let keep = |values: Vec<f32>| Ok(DeviceVec::from_slice(device, &values)?);
    let weights = Weights::assemble(file, built, keep)?;
    device.synchronize()?;
    Ok(weights)
}

fn read_pieces(
    file: &ModelFile,
    names: &[Vec<String>],
    sender: &SyncSender<Piece>,
) -> Result<(), LoadError> {
    for (matrix, segments) in names.iter().enumerate() {
        for name in segments {
            let shape = |why: &str| LoadError::Shape { tensor: name.clone(), why: why.to_owned() };
            let tensor = file.tensor(name).ok_or_else(|| shape("is missing"))?;
            let rows_at_once = (PIECE_BYTES / tensor.row_bytes.max(1)).max(1);
            for first in (0..tensor.rows).step_by(rows_at_once) {
                let rows = first..tensor.rows.min(first + rows_at_once);
                let mut bytes = vec![0; rows.len() * tensor.row_bytes];
                file.read_rows(name, rows, &mut bytes)?;
                let piece = Piece {
                    matrix,
                    quant: quant(tensor.kind),
                    cols: tensor.cols,
                    tensor: name.clone(),
                    rows: tensor.rows,
                    first: first == 0,
                    bytes,
                };
                if sender.send(piece).is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn build(
    device: &Device,
    pool: &Pool,
    pieces: Receiver<Piece>,
    count: usize,
) -> Result<Vec<DeviceMatrix>, LoadError> {
    let mut built = Vec::with_capacity(count);
    let mut building: Option<(usize, DeviceMatrixBuilder)> = None;
    for piece in pieces {
        if building.as_ref().is_some_and(|(matrix, _)| *matrix != piece.matrix)
            && let Some((_, done)) = building.take()
        {
            built.push(done.finish()?);
        }
        let (_, builder) = building
            .get_or_insert_with(|| (piece.matrix, DeviceMatrixBuilder::new(device, piece.cols)));
        if piece.first {
            let shape = |why| LoadError::Shape { tensor: piece.tensor.clone(), why };
            builder.segment(piece.quant).map_err(shape)?.reserve(piece.rows)?;
        }
        builder.push_rows(pool, &piece.bytes)?;
    }
    if let Some((_, done)) = building {
        built.push(done.finish()?);
    }
    Ok(built)
}
