//! A model's weights, whatever they are kept in: matrices `M` and vectors `V` of an executor, and which tensors they are made of.

use pith_kernels::Quant;
use pith_model::ModelFile;
use pith_model::file::TensorType;
use pith_model::plan::{Layer, Plan};

use super::LoadError;

/// All weights of a model, beside the plan that says how they are put together.
#[derive(Debug)]
pub(super) struct Weights<M, V> {
    pub(super) plan: Plan,
    /// One row per token; the vocabulary projection too, where the plan ties them.
    pub(super) embedding: M,
    /// `None`: tied to the embedding.
    pub(super) output: Option<M>,
    pub(super) output_norm: V,
    pub(super) layers: Vec<LayerWeights<M, V>>,
}

/// Weights of one layer. Vectors the plan does without are `None`.
#[derive(Debug)]
pub(super) struct LayerWeights<M, V> {
    pub(super) attention_norm: V,
    /// Queries, keys and values, one below the other.
    pub(super) qkv: M,
    pub(super) qkv_bias: Option<V>,
    /// Norms of a query head and of a key head.
    pub(super) head_norms: Option<(V, V)>,
    pub(super) attention_output: M,
    pub(super) attention_output_bias: Option<V>,
    pub(super) post_attention_norm: Option<V>,
    pub(super) feed_forward_norm: V,
    /// Gate and up projections, one below the other.
    pub(super) gate_up: M,
    pub(super) down: M,
    pub(super) post_feed_forward_norm: Option<V>,
}

/// The tensors of each matrix of `plan`, stacked one below the other, in the order [`Weights::assemble`] takes them: the embedding, the
/// vocabulary projection where it is one of its own, then four a layer.
pub(super) fn matrices(plan: &Plan) -> Vec<Vec<String>> {
    let mut all = vec![vec!["token_embd.weight".to_owned()]];
    if !plan.tied_output {
        all.push(vec!["output.weight".to_owned()]);
    }
    for i in 0..plan.layers.len() {
        let name = |part: &&str| format!("blk.{i}.{part}.weight");
        let parts: [&[&str]; 4] = [
            &["attn_q", "attn_k", "attn_v"],
            &["attn_output"],
            &["ffn_gate", "ffn_up"],
            &["ffn_down"],
        ];
        all.extend(parts.map(|parts| parts.iter().map(name).collect()));
    }
    all
}

/// A matrix, wherever it lies.
pub(super) trait Shaped {
    /// Rows and columns.
    fn shape(&self) -> (usize, usize);
    /// Bytes it takes.
    fn bytes(&self) -> usize;
}

impl<M: Shaped, V> Weights<M, V> {
    /// Puts `matrices`, made of the tensors that [`matrices`] names, beside the vectors of `file`, which `keep` makes the executor's.
    pub(super) fn assemble(
        file: &ModelFile,
        matrices: Vec<M>,
        mut keep: impl FnMut(Vec<f32>) -> Result<V, LoadError>,
    ) -> Result<Self, LoadError> {
        let plan = file.plan().clone();
        let mut matrices = matrices.into_iter();
        let mut next = || matrices.next().ok_or_else(|| LoadError::unread("a matrix"));
        let embedding = next()?;
        let output = if plan.tied_output { None } else { Some(next()?) };
        let mut vectors = Vectors { file, keep: &mut keep };
        let output_norm = vectors.read("output_norm.weight", plan.hidden)?;
        let mut layers = Vec::with_capacity(plan.layers.len());
        for (i, layer) in plan.layers.iter().enumerate() {
            let matrices = [next()?, next()?, next()?, next()?];
            layers.push(LayerWeights::assemble(i, layer, plan.hidden, matrices, &mut vectors)?);
        }
        let weights = Self { plan, embedding, output, output_norm, layers };
        weights.check_shapes()?;
        Ok(weights)
    }

    /// The vocabulary projection.
    pub(super) fn projection(&self) -> &M {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// All matrices.
    pub(super) fn matrices(&self) -> impl Iterator<Item = &M> {
        let layers = self.layers.iter().flat_map(|layer| {
            let LayerWeights { qkv, attention_output, gate_up, down, .. } = layer;
            [qkv, attention_output, gate_up, down]
        });
        std::iter::once(&self.embedding).chain(&self.output).chain(layers)
    }

    /// Bytes of the matrices.
    pub(super) fn bytes(&self) -> usize {
        self.matrices().map(M::bytes).sum()
    }

    /// The file has checked its tensors against the plan; the kernels index by these shapes
    /// without another look, so they are checked once more where they end up.
    fn check_shapes(&self) -> Result<(), LoadError> {
        let Plan { vocab, hidden, .. } = self.plan;
        expect_matrix("token_embd", &self.embedding, vocab, hidden)?;
        expect_matrix("output", self.projection(), vocab, hidden)?;
        for (layer, weights) in self.plan.layers.iter().zip(&self.layers) {
            let queries = layer.heads * layer.head_dim;
            let qkv = queries + 2 * layer.kv_heads * layer.head_dim;
            let wide = layer.feed_forward;
            expect_matrix("qkv", &weights.qkv, qkv, hidden)?;
            expect_matrix("attn_output", &weights.attention_output, hidden, queries)?;
            expect_matrix("gate_up", &weights.gate_up, 2 * wide, hidden)?;
            expect_matrix("ffn_down", &weights.down, hidden, wide)?;
        }
        Ok(())
    }
}

/// Reads vectors, checks their lengths and hands them to the executor.
struct Vectors<'a, F> {
    file: &'a ModelFile,
    keep: &'a mut F,
}

impl<V, F: FnMut(Vec<f32>) -> Result<V, LoadError>> Vectors<'_, F> {
    fn read(&mut self, name: &str, len: usize) -> Result<V, LoadError> {
        self.stacked(&[name.to_owned()], len)
    }

    /// Several tensors, one after the other.
    fn stacked(&mut self, names: &[String], len: usize) -> Result<V, LoadError> {
        let mut values = Vec::with_capacity(len);
        for name in names {
            values.extend(self.file.read_f32(name)?);
        }
        if values.len() != len {
            let why = format!("has {} values, not {len}", values.len());
            return Err(LoadError::Shape { tensor: names.join(", "), why });
        }
        (self.keep)(values)
    }
}

impl<M, V> LayerWeights<M, V> {
    /// Layer `i` of a model `hidden` wide.
    fn assemble(
        i: usize,
        layer: &Layer,
        hidden: usize,
        matrices: [M; 4],
        vectors: &mut Vectors<'_, impl FnMut(Vec<f32>) -> Result<V, LoadError>>,
    ) -> Result<Self, LoadError> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let [qkv, attention_output, gate_up, down] = matrices;
        let qkv_width = (layer.heads + 2 * layer.kv_heads) * layer.head_dim;
        let mut vector = |part: &str, len| vectors.read(&name(part), len);
        let attention_norm = vector("attn_norm.weight", hidden)?;
        let feed_forward_norm = vector("ffn_norm.weight", hidden)?;
        let mut optional =
            |exists: bool, part: &str| exists.then(|| vector(part, hidden)).transpose();
        let attention_output_bias = optional(layer.output_bias, "attn_output.bias")?;
        let post_attention_norm = optional(layer.post_norms, "post_attention_norm.weight")?;
        let post_feed_forward_norm = optional(layer.post_norms, "post_ffw_norm.weight")?;
        let head_norms = match layer.qk_norm {
            false => None,
            true => Some((
                vector("attn_q_norm.weight", layer.head_dim)?,
                vector("attn_k_norm.weight", layer.head_dim)?,
            )),
        };
        let qkv_biases = ["attn_q.bias", "attn_k.bias", "attn_v.bias"].map(name);
        let qkv_bias =
            layer.qkv_bias.then(|| vectors.stacked(&qkv_biases, qkv_width)).transpose()?;
        Ok(Self {
            attention_norm,
            qkv,
            qkv_bias,
            head_norms,
            attention_output,
            attention_output_bias,
            post_attention_norm,
            feed_forward_norm,
            gate_up,
            down,
            post_feed_forward_norm,
        })
    }
}

/// How the kernels call a tensor's type.
pub(super) fn quant(kind: TensorType) -> Quant {
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

fn expect_matrix<M: Shaped>(
    name: &str,
    matrix: &M,
    rows: usize,
    cols: usize,
) -> Result<(), LoadError> {
    let (has_rows, has_cols) = matrix.shape();
    if (has_rows, has_cols) == (rows, cols) {
        return Ok(());
    }
    let why = format!("is {has_rows} by {has_cols}, not {rows} by {cols}");
    Err(LoadError::Shape { tensor: name.to_owned(), why })
}
