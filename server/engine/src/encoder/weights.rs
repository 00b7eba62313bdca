//! An encoder's weights, whatever they are kept in: a table of tokens `T`, matrices `M` and vectors `V`, and which tensors they
//! are made of.

use pith_model::EncoderFile;
use pith_model::safetensors::SafeTensors;

use super::EncoderError;

/// All weights of an encoder.
#[derive(Debug)]
pub(super) struct Weights<T, M, V> {
    /// Embedding of each token, `[vocab, hidden]`. In sixteen bits whatever the rest is: it is three fifths of all memory,
    /// looked up rather than multiplied, and normalised right away.
    pub(super) tokens: T,
    /// Embedding of each position, `[positions, hidden]`, that of token type 0 added.
    pub(super) positions: V,
    pub(super) norm: Norm<V>,
    pub(super) layers: Vec<LayerWeights<M, V>>,
}

/// Weights of one layer.
#[derive(Debug)]
pub(super) struct LayerWeights<M, V> {
    /// Queries, keys and values, one below the other.
    pub(super) qkv: M,
    pub(super) qkv_bias: V,
    pub(super) attention_output: M,
    pub(super) attention_output_bias: V,
    pub(super) attention_norm: Norm<V>,
    pub(super) up: M,
    pub(super) up_bias: V,
    pub(super) down: M,
    pub(super) down_bias: V,
    pub(super) feed_forward_norm: Norm<V>,
}

/// A layer normalisation.
#[derive(Debug)]
pub(super) struct Norm<V> {
    pub(super) weight: V,
    pub(super) bias: V,
    pub(super) eps: f32,
}

/// Takes what was read to where it is computed with.
pub(super) trait Keep {
    type Table: Kept;
    type Matrix: Kept;
    type Vector: Kept;

    /// Rows to be looked up.
    fn table(&self, rows: Vec<f32>) -> Result<Self::Table, EncoderError>;

    /// A matrix of `cols` inputs, made of the tensors `name` speaks of.
    fn matrix(&self, name: &str, cols: usize, rows: Vec<f32>)
    -> Result<Self::Matrix, EncoderError>;

    /// Numbers that are added or multiplied by one.
    fn vector(&self, numbers: Vec<f32>) -> Result<Self::Vector, EncoderError>;
}

/// What takes memory.
pub(super) trait Kept {
    fn bytes(&self) -> usize;
}

impl<N> Kept for Vec<N> {
    fn bytes(&self) -> usize {
        size_of_val(self.as_slice())
    }
}

/// What `K` makes of an encoder's weights.
pub(super) type WeightsOf<K> =
    Weights<<K as Keep>::Table, <K as Keep>::Matrix, <K as Keep>::Vector>;

/// Reads all tensors of `file`; `keep` has each as soon as it is read.
pub(super) fn read<K: Keep>(file: &EncoderFile, keep: &K) -> Result<WeightsOf<K>, EncoderError> {
    let config = file.config();
    let reader = Reader { weights: file.weights(), eps: config.norm_eps, keep };
    let (hidden, wide) = (config.hidden, config.feed_forward);
    let table = |name: &str, rows: usize| {
        file.weights().read(&format!("embeddings.{name}_embeddings.weight"), &[rows, hidden])
    };
    let mut positions = table("position", config.positions)?;
    let kinds = table("token_type", config.token_types)?;
    for row in positions.chunks_exact_mut(hidden) {
        row.iter_mut().zip(&kinds).for_each(|(x, kind)| *x += kind);
    }
    let layer = |i: usize| -> Result<_, EncoderError> {
        let name = |part: &str| format!("encoder.layer.{i}.{part}");
        let qkv = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        let output = [name("attention.output.dense")];
        let (up, down) = ([name("intermediate.dense")], [name("output.dense")]);
        Ok(LayerWeights {
            qkv: reader.matrix(&qkv, hidden, hidden)?,
            qkv_bias: reader.biases(&qkv, hidden)?,
            attention_output: reader.matrix(&output, hidden, hidden)?,
            attention_output_bias: reader.biases(&output, hidden)?,
            attention_norm: reader.norm(&name("attention.output.LayerNorm"), hidden)?,
            up: reader.matrix(&up, wide, hidden)?,
            up_bias: reader.biases(&up, wide)?,
            down: reader.matrix(&down, hidden, wide)?,
            down_bias: reader.biases(&down, hidden)?,
            feed_forward_norm: reader.norm(&name("output.LayerNorm"), hidden)?,
        })
    };
    Ok(Weights {
        tokens: keep.table(table("word", config.vocab)?)?,
        positions: keep.vector(positions)?,
        norm: reader.norm("embeddings.LayerNorm", hidden)?,
        layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
    })
}

impl<T: Kept, M: Kept, V: Kept> Weights<T, M, V> {
    /// Bytes of tables and matrices.
    pub(super) fn bytes(&self) -> usize {
        let layers = self.layers.iter().map(|layer| {
            let LayerWeights { qkv, attention_output, up, down, .. } = layer;
            [qkv, attention_output, up, down].map(M::bytes).iter().sum::<usize>()
        });
        self.tokens.bytes() + self.positions.bytes() + layers.sum::<usize>()
    }
}

struct Reader<'a, K> {
    weights: &'a SafeTensors,
    eps: f32,
    keep: &'a K,
}

impl<K: Keep> Reader<'_, K> {
    /// The tensor `kind` of each of `parts`, one after the other.
    fn stacked(
        &self,
        parts: &[String],
        kind: &str,
        shape: &[usize],
    ) -> Result<Vec<f32>, EncoderError> {
        let mut all = Vec::new();
        for part in parts {
            let numbers = self.weights.read(&format!("{part}.{kind}"), shape)?;
            match all.is_empty() {
                true => all = numbers,
                false => all.extend(numbers),
            }
        }
        Ok(all)
    }

    fn biases(&self, parts: &[String], len: usize) -> Result<K::Vector, EncoderError> {
        self.keep.vector(self.stacked(parts, "bias", &[len])?)
    }

    fn norm(&self, name: &str, len: usize) -> Result<Norm<K::Vector>, EncoderError> {
        let part = [name.to_owned()];
        let weight = self.keep.vector(self.stacked(&part, "weight", &[len])?)?;
        Ok(Norm { weight, bias: self.biases(&part, len)?, eps: self.eps })
    }

    /// The matrices of `parts`, `rows` by `cols` each, one below the other.
    fn matrix(
        &self,
        parts: &[String],
        rows: usize,
        cols: usize,
    ) -> Result<K::Matrix, EncoderError> {
        let numbers = self.stacked(parts, "weight", &[rows, cols])?;
        self.keep.matrix(&parts.join(", "), cols, numbers)
    }
}
