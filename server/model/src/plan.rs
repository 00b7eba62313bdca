//! Architectures as data: what an executor interprets to compute a model.
//!
//! A new family is a new plan, not a new forward pass.

mod family;
mod keys;
pub(crate) mod limits;
mod needs;
mod rope;

use crate::ModelError;
use crate::file::Tensor;
use crate::gguf::Gguf;
pub(crate) use rope::{RopeSettings, Scaling, Yarn};

/// How a decoder-only transformer is put together. Tensors are found by name through
/// [`crate::ModelFile::tensor`]; the plan says which exist.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The family: `general.architecture` of a GGUF file.
    pub architecture: String,
    /// Vocabulary, tokens.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Trained context, tokens (RoPE scaling included).
    pub context: usize,
    /// Multiplies embeddings (Gemma: `sqrt(hidden)`); 1 otherwise.
    pub embedding_scale: f32,
    /// Epsilon of every RMS norm.
    pub norm_eps: f32,
    /// The vocabulary projection is `token_embd.weight` itself.
    pub tied_output: bool,
    /// `cap * tanh(logit / cap)`.
    pub logit_softcap: Option<f32>,
    /// RoPE tables that layers refer to by index.
    pub ropes: Vec<Rope>,
    /// Layers, in order.
    pub layers: Vec<Layer>,
}

impl Plan {
    /// The plan of a file whose tensors are exactly those the plan computes with. `vocab` is the
    /// tokenizer's number of tokens, `rope_divisors` the contents of `rope_freqs.weight`.
    pub(crate) fn read(
        gguf: &Gguf,
        vocab: usize,
        rope_divisors: Option<&[f32]>,
    ) -> Result<Self, ModelError> {
        let plan = family::read(gguf, vocab, rope_divisors)?;
        let names = gguf.tensors.iter().map(|entry| entry.name.as_str());
        plan.check_tensors(names, |name| {
            gguf.tensors.get(name).map(|entry| (&entry.tensor, entry.dims as usize))
        })?;
        Ok(plan)
    }

    /// Refuses tensors that are not exactly those the plan computes with: `names` are all there are, `get` finds one
    /// with its number of dimensions.
    pub(crate) fn check_tensors<'a>(
        &self,
        names: impl ExactSizeIterator<Item = &'a str>,
        get: impl Fn(&str) -> Option<(&'a Tensor, usize)>,
    ) -> Result<(), ModelError> {
        needs::check(self, names, get)
    }

    /// The tensors the plan computes with: name, rows, columns, and whether it is a matrix (else a norm or a bias).
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (String, usize, usize, bool)> {
        needs::shapes(self)
    }
}

/// One RoPE table.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Pairs `(2i, 2i + 1)` rotate (Llama GGUFs, whose rows were reordered for it) instead of `(i, i + dims / 2)`.
    pub adjacent: bool,
    /// Radians per position of each pair, scaling (linear, Llama 3 factors, YaRN) applied.
    pub inv_freq: Vec<f32>,
    /// Multiplies cosines and sines (YaRN); 1 otherwise.
    pub magnitude: f32,
}

/// One transformer layer. Tensor names are `blk.{i}.{name}.weight|bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Width of the feed-forward block.
    pub feed_forward: usize,
    /// Index into [`Plan::ropes`].
    pub rope: usize,
    /// Keys a query sees, itself included; `None` = all.
    pub window: Option<u32>,
    /// Multiplies attention scores.
    pub attention_scale: f32,
    /// `cap * tanh(score / cap)` on scores.
    pub attention_softcap: Option<f32>,
    /// `attn_q|k|v.bias` exist (Qwen2).
    pub qkv_bias: bool,
    /// `attn_output.bias` exists.
    pub output_bias: bool,
    /// `attn_q_norm` and `attn_k_norm` exist: RMS norm of each head before RoPE.
    pub qk_norm: bool,
    /// `post_attention_norm` and `post_ffw_norm` exist: norms of a block's output before it is added (Gemma).
    pub post_norms: bool,
    /// Non-linearity of the gated feed-forward block.
    pub activation: Activation,
}

/// Non-linearity of a gated feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU, tanh approximation.
    GeluTanh,
}
