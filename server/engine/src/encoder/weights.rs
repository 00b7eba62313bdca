//! An encoder's weights, read from its file into the layout the kernels compute in.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use pith_kernels::norm::LayerNorm;
use pith_kernels::quant::quantize_q8_0;
use pith_kernels::{Matrix, MatrixBuilder, Pool, Quant};
use pith_model::EncoderFile;
use pith_model::safetensors::SafeTensors;

use super::{EncoderError, Precision};

/// All weights of an encoder.
#[derive(Debug)]
pub(super) struct Weights {
    /// Embedding of each token, `[vocab, hidden]`. In half precision whatever the rest is: it is three fifths of all
    /// memory, looked up rather than multiplied, and normalised right away.
    pub(super) tokens: Vec<f16>,
    /// Embedding of each position, `[positions, hidden]`, that of token type 0 added.
    pub(super) positions: Vec<f32>,
    pub(super) norm: Norm,
    pub(super) layers: Vec<LayerWeights>,
}

/// Weights of one layer.
#[derive(Debug)]
pub(super) struct LayerWeights {
    /// Queries, keys and values, one below the other.
    pub(super) qkv: Matrix,
    pub(super) qkv_bias: Vec<f32>,
    pub(super) attention_output: Matrix,
    pub(super) attention_output_bias: Vec<f32>,
    pub(super) attention_norm: Norm,
    pub(super) up: Matrix,
    pub(super) up_bias: Vec<f32>,
    pub(super) down: Matrix,
    pub(super) down_bias: Vec<f32>,
    pub(super) feed_forward_norm: Norm,
}

/// A layer normalisation.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Norm {
    pub(super) fn view(&self) -> LayerNorm<'_> {
        LayerNorm { weight: &self.weight, bias: &self.bias, eps: self.eps }
    }
}

impl Weights {
    pub(super) fn read(
        file: &EncoderFile,
        pool: &Pool,
        precision: Precision,
    ) -> Result<Self, EncoderError> {
        let config = file.config();
        let reader = Reader { weights: file.weights(), pool, precision, eps: config.norm_eps };
        let (hidden, wide) = (config.hidden, config.feed_forward);
        let table = |name: &str, rows: usize| {
            file.weights().read(&format!("embeddings.{name}_embeddings.weight"), &[rows, hidden])
        };
        let mut positions = table("position", config.positions)?;
        let kinds = table("token_type", config.token_types)?;
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&kinds).for_each(|(x, kind)| *x += kind);
        }
        let tokens = table("word", config.vocab)?;
        let mut halves = vec![f16::ZERO; tokens.len()];
        halves.convert_from_f32_slice(&tokens);
        drop(tokens);
        let layer = |i: usize| -> Result<LayerWeights, EncoderError> {
            let name = |part: &str| format!("encoder.layer.{i}.{part}");
            let qkv = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
            let output = name("attention.output.dense");
            let (up, down) = (name("intermediate.dense"), name("output.dense"));
            Ok(LayerWeights {
                qkv: reader.matrix(&qkv, hidden, hidden)?,
                qkv_bias: reader.biases(&qkv, hidden)?,
                attention_output: reader.matrix(std::slice::from_ref(&output), hidden, hidden)?,
                attention_output_bias: reader.biases(&[output], hidden)?,
                attention_norm: reader.norm(&name("attention.output.LayerNorm"), hidden)?,
                up: reader.matrix(std::slice::from_ref(&up), wide, hidden)?,
                up_bias: reader.biases(&[up], wide)?,
                down: reader.matrix(std::slice::from_ref(&down), hidden, wide)?,
                down_bias: reader.biases(&[down], hidden)?,
                feed_forward_norm: reader.norm(&name("output.LayerNorm"), hidden)?,
            })
        };
        Ok(Self {
            norm: reader.norm("embeddings.LayerNorm", hidden)?,
            layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
            tokens: halves,
            positions,
        })
    }

    /// Heap bytes of tables and matrices.
    pub(super) fn bytes(&self) -> usize {
        let layers = self.layers.iter().map(|layer| {
            let LayerWeights { qkv, attention_output, up, down, .. } = layer;
            [qkv, attention_output, up, down].map(Matrix::bytes).iter().sum::<usize>()
        });
        2 * self.tokens.len() + 4 * self.positions.len() + layers.sum::<usize>()
    }
}

struct Reader<'a> {
    weights: &'a SafeTensors,
    pool: &'a Pool,
    precision: Precision,
    eps: f32,
}

impl Reader<'_> {
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EncoderError> {
        Ok(self.weights.read(name, &[len])?)
    }

    /// The biases of `parts`, `len` each, one after the other.
    fn biases(&self, parts: &[String], len: usize) -> Result<Vec<f32>, EncoderError> {
        let mut all = Vec::with_capacity(parts.len() * len);
        for part in parts {
            all.extend(self.vector(&format!("{part}.bias"), len)?);
        }
        Ok(all)
    }

    fn norm(&self, name: &str, len: usize) -> Result<Norm, EncoderError> {
        let weight = self.vector(&format!("{name}.weight"), len)?;
        let bias = self.vector(&format!("{name}.bias"), len)?;
        Ok(Norm { weight, bias, eps: self.eps })
    }

    /// The matrices of `parts`, `rows` by `cols` each, one below the other.
    fn matrix(&self, parts: &[String], rows: usize, cols: usize) -> Result<Matrix, EncoderError> {
        let quant = match self.precision {
            Precision::EightBit if cols.is_multiple_of(Quant::Q8_0.block_len()) => Quant::Q8_0,
            Precision::EightBit | Precision::Float => Quant::F32,
        };
        let mut builder = MatrixBuilder::new(cols);
        let mut bytes = Vec::new();
        for part in parts {
            let name = format!("{part}.weight");
            let shape = |why| EncoderError::Shape { tensor: name.clone(), why };
            let numbers = self.weights.read(&name, &[rows, cols])?;
            bytes.clear();
            match quant {
                Quant::Q8_0 => quantize_q8_0(&numbers, &mut bytes),
                _ => bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes())),
            }
            let building = builder.segment(quant).map_err(shape)?;
            building.push_rows_on(self.pool, &bytes).map_err(shape)?;
        }
        Ok(builder.finish())
    }
}
