//! A model's weights, read from its file straight into the layout the kernels compute in.

use pith_kernels::{Matrix, MatrixBuilder, Pool, Quant};
use pith_model::file::TensorType;
use pith_model::plan::{Layer, Plan};
use pith_model::{ModelError, ModelFile};

use super::LoadError;

/// Bytes of a file held at once while a matrix is read, per worker: large enough that a read costs
/// more than its call, small enough to stay in the caches until repacked.
const PIECE_BYTES: usize = 512 << 10;

/// Most pieces a tensor comes in, however large it is: a [`MatrixBuilder`] moves its rows whenever
/// more arrive.
const MOST_PIECES: usize = 16;

/// All weights of a model, beside the plan that says how they are put together.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) plan: Plan,
    /// One row per token; the vocabulary projection too, where the plan ties them.
    pub(super) embedding: Matrix,
    /// `None`: tied to the embedding.
    pub(super) output: Option<Matrix>,
    pub(super) output_norm: Vec<f32>,
    pub(super) layers: Vec<LayerWeights>,
}

/// Weights of one layer. Vectors the plan does without are `None`.
#[derive(Debug)]
pub(super) struct LayerWeights {
    pub(super) attention_norm: Vec<f32>,
    /// Queries, keys and values, one below the other.
    pub(super) qkv: Matrix,
    pub(super) qkv_bias: Option<Vec<f32>>,
    /// Norms of a query head and of a key head.
    pub(super) head_norms: Option<(Vec<f32>, Vec<f32>)>,
    pub(super) attention_output: Matrix,
    pub(super) attention_output_bias: Option<Vec<f32>>,
    pub(super) post_attention_norm: Option<Vec<f32>>,
    pub(super) feed_forward_norm: Vec<f32>,
    /// Gate and up projections, one below the other.
    pub(super) gate_up: Matrix,
    pub(super) down: Matrix,
    pub(super) post_feed_forward_norm: Option<Vec<f32>>,
}

impl Weights {
    /// Reads everything, in parallel.
    pub(super) fn read(file: &ModelFile, pool: &Pool) -> Result<Self, LoadError> {
        let plan = file.plan().clone();
        let mut wanted = vec![Wanted::new(["token_embd.weight".to_owned()])];
        if !plan.tied_output {
            wanted.push(Wanted::new(["output.weight".to_owned()]));
        }
        for i in 0..plan.layers.len() {
            let name = |part: &str| format!("blk.{i}.{part}.weight");
            wanted.push(Wanted::new(["attn_q", "attn_k", "attn_v"].map(name)));
            wanted.push(Wanted::new(["attn_output"].map(name)));
            wanted.push(Wanted::new(["ffn_gate", "ffn_up"].map(name)));
            wanted.push(Wanted::new(["ffn_down"].map(name)));
        }
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
        let mut matrices = wanted.into_iter().map(Wanted::taken);
        let mut next = || matrices.next().unwrap_or_else(|| Err(LoadError::unread("a matrix")));

        let embedding = next()?;
        let output = if plan.tied_output { None } else { Some(next()?) };
        let layers = (plan.layers.iter().enumerate())
            .map(|(i, layer)| LayerWeights::read(file, i, layer, &mut next))
            .collect::<Result<_, _>>()?;
        let output_norm = file.read_f32("output_norm.weight")?;
        let weights = Self { plan, embedding, output, output_norm, layers };
        weights.check_shapes()?;
        Ok(weights)
    }

    /// The vocabulary projection.
    pub(super) fn projection(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// Heap bytes of the matrices.
    pub(super) fn bytes(&self) -> usize {
        let layers = self.layers.iter().map(|layer| {
            [&layer.qkv, &layer.attention_output, &layer.gate_up, &layer.down]
                .map(Matrix::bytes)
                .iter()
                .sum::<usize>()
        });
        let output = self.output.as_ref().map_or(0, Matrix::bytes);
        self.embedding.bytes() + output + layers.sum::<usize>()
    }

    /// The file has checked its tensors against the plan; the kernels index by these shapes
    /// without another look, so they are checked once more where they end up.
    fn check_shapes(&self) -> Result<(), LoadError> {
        let Plan { vocab, hidden, .. } = self.plan;
        expect_matrix("token_embd", &self.embedding, vocab, hidden)?;
        expect_matrix("output", self.projection(), vocab, hidden)?;
        expect_vector("output_norm", Some(&self.output_norm), hidden)?;
        for (layer, weights) in self.plan.layers.iter().zip(&self.layers) {
            let queries = layer.heads * layer.head_dim;
            let qkv = queries + 2 * layer.kv_heads * layer.head_dim;
            let wide = layer.feed_forward;
            expect_matrix("qkv", &weights.qkv, qkv, hidden)?;
            expect_matrix("attn_output", &weights.attention_output, hidden, queries)?;
            expect_matrix("gate_up", &weights.gate_up, 2 * wide, hidden)?;
            expect_matrix("ffn_down", &weights.down, hidden, wide)?;
            expect_vector("attn_norm", Some(&weights.attention_norm), hidden)?;
            expect_vector("ffn_norm", Some(&weights.feed_forward_norm), hidden)?;
            expect_vector("qkv bias", weights.qkv_bias.as_ref(), qkv)?;
            expect_vector("attn_output bias", weights.attention_output_bias.as_ref(), hidden)?;
            expect_vector("post_attention_norm", weights.post_attention_norm.as_ref(), hidden)?;
            expect_vector("post_ffw_norm", weights.post_feed_forward_norm.as_ref(), hidden)?;
            if let Some((query, key)) = &weights.head_norms {
                expect_vector("attn_q_norm", Some(query), layer.head_dim)?;
                expect_vector("attn_k_norm", Some(key), layer.head_dim)?;
            }
        }
        Ok(())
    }
}

impl LayerWeights {
    /// Layer `i`; `next` yields its four matrices in order.
    fn read(
        file: &ModelFile,
        i: usize,
        layer: &Layer,
        next: &mut impl FnMut() -> Result<Matrix, LoadError>,
    ) -> Result<Self, LoadError> {
        let vector = |part: &str| file.read_f32(&format!("blk.{i}.{part}"));
        let optional = |exists: bool, part: &str| exists.then(|| vector(part)).transpose();
        let qkv_bias = |parts: [&str; 3]| -> Result<Vec<f32>, ModelError> {
            let mut all = Vec::new();
            for part in parts {
                all.extend(vector(part)?);
            }
            Ok(all)
        };
        let head_norms = || Ok((vector("attn_q_norm.weight")?, vector("attn_k_norm.weight")?));
        Ok(Self {
            qkv: next()?,
            attention_output: next()?,
            gate_up: next()?,
            down: next()?,
            attention_norm: vector("attn_norm.weight")?,
            qkv_bias: (layer.qkv_bias)
                .then(|| qkv_bias(["attn_q.bias", "attn_k.bias", "attn_v.bias"]))
                .transpose()?,
            head_norms: layer.qk_norm.then(head_norms).transpose().map_err(LoadError::Model)?,
            attention_output_bias: optional(layer.output_bias, "attn_output.bias")?,
            post_attention_norm: optional(layer.post_norms, "post_attention_norm.weight")?,
            feed_forward_norm: vector("ffn_norm.weight")?,
            post_feed_forward_norm: optional(layer.post_norms, "post_ffw_norm.weight")?,
        })
    }
}

/// A matrix to be read: tensors stacked one below the other.
struct Wanted {
    segments: Vec<String>,
    read: Option<Result<Matrix, LoadError>>,
}

impl Wanted {
    fn new<const N: usize>(segments: [String; N]) -> Self {
        Self { segments: segments.into(), read: None }
    }

    fn taken(self) -> Result<Matrix, LoadError> {
        self.read.unwrap_or_else(|| Err(LoadError::unread(&self.segments.join(", "))))
    }
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

fn quant(kind: TensorType) -> Quant {
    match kind {
        TensorType::F32 => Quant::F32,
        TensorType::F16 => Quant::F16,
        TensorType::BF16 => Quant::BF16,
        TensorType::Q4_0 => Quant::Q4_0,
        TensorType::Q4_1 => Quant::Q4_1,
        TensorType::Q5_0 => Quant::Q5_0,
        TensorType::Q5_1 => Quant::Q5_1,
        TensorType::Q8_0 => Quant::Q8_0,
        TensorType::Q4_K => Quant::Q4_K,
        TensorType::Q5_K => Quant::Q5_K,
        TensorType::Q6_K => Quant::Q6_K,
    }
}

fn expect_matrix(name: &str, matrix: &Matrix, rows: usize, cols: usize) -> Result<(), LoadError> {
    if (matrix.rows(), matrix.cols()) == (rows, cols) {
        return Ok(());
    }
    let why = format!("is {} by {}, not {rows} by {cols}", matrix.rows(), matrix.cols());
    Err(LoadError::Shape { tensor: name.to_owned(), why })
}

fn expect_vector(name: &str, vector: Option<&Vec<f32>>, len: usize) -> Result<(), LoadError> {
    match vector {
        Some(vector) if vector.len() != len => Err(LoadError::Shape {
            tensor: name.to_owned(),
            why: format!("has {} values, not {len}", vector.len()),
        }),
        _ => Ok(()),
    }
}
