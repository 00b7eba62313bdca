//! Shapes of published models.

use crate::plan::{Activation, Layer, RopeSettings, Scaling};
use crate::{ModelError, Plan};

/// A shape that is known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Llama 3.1 8B: 8.0 billion weights.
    Llama31_8b,
    /// Llama 3.2 1B: 1.2 billion weights.
    Llama32_1b,
    /// Qwen3 0.6B: 0.6 billion weights.
    Qwen3_06b,
    /// A tenth of a million weights, for tests.
    Tiny,
}

/// What the published `config.json` says.
struct Published {
    architecture: &'static str,
    vocab: usize,
    hidden: usize,
    layers: usize,
    feed_forward: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    context: usize,
    norm_eps: f32,
    tied: bool,
    qk_norm: bool,
    rope_theta: f64,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Llama31_8b, Self::Llama32_1b, Self::Qwen3_06b, Self::Tiny];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama31_8b => "llama-3.1-8b",
            Self::Llama32_1b => "llama-3.2-1b",
            Self::Qwen3_06b => "qwen3-0.6b",
            Self::Tiny => "tiny",
        }
    }

    /// The shape called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }

    fn published(self) -> Published {
        let llama = Published {
            architecture: "llama",
            vocab: 128_256,
            hidden: 4096,
            layers: 32,
            feed_forward: 14_336,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            context: 131_072,
            norm_eps: 1e-5,
            tied: false,
            qk_norm: false,
            rope_theta: 500_000.0,
        };
        match self {
            Self::Llama31_8b => llama,
            Self::Llama32_1b => Published {
                hidden: 2048,
                layers: 16,
                feed_forward: 8192,
                head_dim: 64,
                tied: true,
                ..llama
            },
            Self::Qwen3_06b => Published {
                architecture: "qwen3",
                vocab: 151_936,
                hidden: 1024,
                layers: 28,
                feed_forward: 3072,
                heads: 16,
                context: 40_960,
                norm_eps: 1e-6,
                tied: true,
                qk_norm: true,
                rope_theta: 1_000_000.0,
                ..llama
            },
            Self::Tiny => Published {
                vocab: 512,
                hidden: 64,
                layers: 2,
                feed_forward: 192,
                heads: 4,
                kv_heads: 2,
                head_dim: 16,
                context: 4096,
                ..llama
            },
        }
    }

    /// The plan of the shape. Positions are not stretched: that would change angles alone, and no step's cost.
    pub(super) fn plan(self) -> Result<Plan, ModelError> {
        let shape = self.published();
        let rope = RopeSettings::new(Scaling::None, None);
        let layer = Layer {
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            feed_forward: shape.feed_forward,
            rope: 0,
            window: None,
            attention_scale: 1.0 / (shape.head_dim as f32).sqrt(),
            attention_softcap: None,
            qkv_bias: false,
            output_bias: false,
            qk_norm: shape.qk_norm,
            post_norms: false,
            activation: Activation::Silu,
        };
        Ok(Plan {
            architecture: shape.architecture.to_owned(),
            vocab: shape.vocab,
            hidden: shape.hidden,
            context: shape.context,
            embedding_scale: 1.0,
            norm_eps: shape.norm_eps,
            tied_output: shape.tied,
            logit_softcap: None,
            ropes: vec![rope.table(false, shape.head_dim, shape.rope_theta, None)?],
            layers: vec![layer; shape.layers],
        })
    }
}
