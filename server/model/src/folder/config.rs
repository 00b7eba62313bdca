//! `config.json`: what it says of the architecture, and the plan that comes of it.
//!
//! The family decides which settings count: others are not read by the reference implementation either. What a family can do and
//! is not computed here is refused.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::rope::{self, RawRope};
use crate::json::{self, Few, Ids};
use crate::plan::limits::{
    LEAST_LAYER_TENSORS, MAX_CONTEXT, MAX_FEED_FORWARD, MAX_HEAD_DIM, MAX_HEADS, MAX_HIDDEN,
    MAX_LAYERS, MAX_VOCAB,
};
use crate::plan::{Activation, Layer};
use crate::{ModelError, Plan};

/// Every sixth layer of Gemma 3 sees everything, unless the file says otherwise.
const GEMMA3_PERIOD: usize = 6;
/// Layers of Qwen from this one on see a window, where one is used and the file does not say from where.
const QWEN_FIRST_WINDOW: usize = 28;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gemma3,
}

/// A checked `config.json`.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) family: Family,
    /// The vocabulary projection is the embedding.
    pub(super) tied: bool,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    /// Longest text, tokens, before any stretching.
    pub(super) positions: usize,
    pub(super) raw: Raw,
}

/// As transformers write it, in this and the last major version.
#[derive(Debug, Deserialize)]
pub(super) struct Raw {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    sliding_window: Option<u32>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Few<String, { MAX_LAYERS as usize }>>,
    query_pre_attn_scalar: Option<f64>,
    attn_logit_softcapping: Option<f32>,
    final_logit_softcapping: Option<f32>,
    use_bidirectional_attention: Option<bool>,
    quantization_config: Option<IgnoredAny>,
    pub(super) rope_theta: Option<f64>,
    pub(super) rope_local_base_freq: Option<f64>,
    pub(super) rope_scaling: Option<RawRope>,
    pub(super) rope_parameters: Option<RawRope>,
    pub(super) partial_rotary_factor: Option<f64>,
    bos_token_id: Option<Ids>,
    eos_token_id: Option<Ids>,
}

#[derive(Deserialize)]
struct Kind {
    model_type: Option<String>,
}

impl Config {
    pub(super) fn read(text: &[u8]) -> Result<Self, ModelError> {
        // Other families may lack what these must have: which it is comes first.
        let Kind { model_type } = json::parse("config.json", text)?;
        let family = Family::of(model_type.as_deref().unwrap_or_default())?;
        let raw: Raw = json::parse("config.json", text)?;
        if raw.quantization_config.is_some() {
            return Err(unsupported("quantization_config", "weights that are quantised"));
        }
        let heads = within("num_attention_heads", raw.num_attention_heads, MAX_HEADS)?;
        within("vocab_size", raw.vocab_size, MAX_VOCAB as u32)?;
        within("hidden_size", raw.hidden_size, MAX_HIDDEN)?;
        within("intermediate_size", raw.intermediate_size, MAX_FEED_FORWARD)?;
        within("num_hidden_layers", raw.num_hidden_layers, MAX_LAYERS)?;
        Ok(Self {
            tied: raw.tie_word_embeddings.unwrap_or(family == Family::Gemma3),
            head_dim: head_dim(family, &raw)?,
            positions: within("max_position_embeddings", raw.max_position_embeddings, MAX_CONTEXT)?,
            family,
            heads,
            raw,
        })
    }

    /// The plan of a model of `tensors` tensors.
    pub(super) fn plan(&self, tensors: usize) -> Result<Plan, ModelError> {
        let Self { family, raw, .. } = self;
        if raw.num_hidden_layers.saturating_mul(LEAST_LAYER_TENSORS) > tensors {
            return Err(invalid("num_hidden_layers", "is more layers than there are tensors for"));
        }
        if !(raw.rms_norm_eps > 0.0 && raw.rms_norm_eps < 1.0) {
            return Err(invalid("rms_norm_eps", &format!("is {}", raw.rms_norm_eps)));
        }
        let gemma = *family == Family::Gemma3;
        let (ropes, context) = rope::tables(self)?;
        Ok(Plan {
            architecture: family.name().to_owned(),
            vocab: raw.vocab_size,
            hidden: raw.hidden_size,
            context,
            embedding_scale: if gemma { (raw.hidden_size as f32).sqrt() } else { 1.0 },
            norm_eps: raw.rms_norm_eps as f32,
            tied_output: self.tied,
            logit_softcap: if gemma {
                softcap("final_logit_softcapping", raw.final_logit_softcapping)?
            } else {
                None
            },
            ropes,
            layers: self.layers()?,
        })
    }

    fn layers(&self) -> Result<Vec<Layer>, ModelError> {
        let Self { family, raw, heads, head_dim, .. } = self;
        let gemma = *family == Family::Gemma3;
        let kv_heads = match (raw.num_key_value_heads, family) {
            (Some(kv_heads), _) => within("num_key_value_heads", kv_heads, MAX_HEADS)?,
            (None, Family::Llama) => *heads,
            (None, _) => return Err(invalid("num_key_value_heads", "is missing")),
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(invalid("num_key_value_heads", "does not divide the query heads"));
        }
        if raw.mlp_bias == Some(true) && *family == Family::Llama {
            return Err(unsupported("mlp_bias", "true"));
        }
        if raw.use_bidirectional_attention == Some(true) && gemma {
            return Err(unsupported("use_bidirectional_attention", "true"));
        }
        let scaled_width = match raw.query_pre_attn_scalar {
            Some(width) if gemma && width > 0.0 && width.is_finite() => width,
            Some(width) if gemma => {
                return Err(invalid("query_pre_attn_scalar", &format!("is {width}")));
            }
            // The class's default, whatever the heads' width.
            None if gemma => 256.0,
            _ => *head_dim as f64,
        };
        let biased = raw.attention_bias.unwrap_or(false)
            && matches!(family, Family::Llama | Family::Qwen3 | Family::Gemma3);
        let layer = Layer {
            heads: *heads,
            kv_heads,
            head_dim: *head_dim,
            feed_forward: raw.intermediate_size,
            rope: 0,
            window: None,
            attention_scale: (1.0 / scaled_width.sqrt()) as f32,
            attention_softcap: if gemma {
                softcap("attn_logit_softcapping", raw.attn_logit_softcapping)?
            } else {
                None
            },
            qkv_bias: biased || *family == Family::Qwen2,
            output_bias: biased,
            qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
            post_norms: gemma,
            activation: self.activation()?,
        };
        let windows = self.windows()?;
        let layers = windows.into_iter().map(|window| Layer {
            window,
            rope: usize::from(gemma && window.is_some()),
            ..layer.clone()
        });
        Ok(layers.collect())
    }

    fn activation(&self) -> Result<Activation, ModelError> {
        let Raw { hidden_act, hidden_activation, .. } = &self.raw;
        let (field, value, known, activation) = match self.family {
            Family::Gemma3 => {
                let name = hidden_activation.as_deref().unwrap_or("gelu_pytorch_tanh");
                ("hidden_activation", name, "gelu_pytorch_tanh", Activation::GeluTanh)
            }
            _ => {
                let name = hidden_act.as_deref().unwrap_or("silu");
                ("hidden_act", name, "silu", Activation::Silu)
            }
        };
        if value == known { Ok(activation) } else { Err(unsupported(field, value)) }
    }

    /// How far each layer sees.
    fn windows(&self) -> Result<Vec<Option<u32>>, ModelError> {
        let Self { family, raw, .. } = self;
        let count = raw.num_hidden_layers;
        // Qwen names a width and says elsewhere whether it is used; 0 is none.
        let used = match family {
            Family::Llama => false,
            Family::Qwen2 | Family::Qwen3 => raw.use_sliding_window.unwrap_or(false),
            Family::Mistral | Family::Gemma3 => true,
        };
        let width = raw.sliding_window.filter(|&width| used && width > 0);
        if width.is_some_and(|width| width > MAX_CONTEXT) {
            return Err(invalid("sliding_window", "is longer than any context"));
        }
        let types = match family {
            Family::Llama | Family::Mistral => None,
            Family::Qwen2 | Family::Qwen3 | Family::Gemma3 => raw.layer_types.as_ref(),
        };
        if let Some(Few(types)) = types {
            if types.len() != count {
                let why = format!("names {} layers of {count}", types.len());
                return Err(invalid("layer_types", &why));
            }
            let window = |kind: &String| match (kind.as_str(), width) {
                ("full_attention", _) => Ok(None),
                ("sliding_attention", Some(width)) => Ok(Some(width)),
                ("sliding_attention", None) => Err(invalid("sliding_window", "is missing")),
                (other, _) => Err(unsupported("layer_types", other)),
            };
            return types.iter().map(window).collect();
        }
        if *family == Family::Gemma3 && width.is_none() {
            return Err(invalid("sliding_window", "is missing"));
        }
        let period = raw.sliding_window_pattern.unwrap_or(GEMMA3_PERIOD);
        if period == 0 {
            return Err(invalid("sliding_window_pattern", "is 0"));
        }
        let seen = |layer: usize| match family {
            Family::Gemma3 => width.filter(|_| !(layer + 1).is_multiple_of(period)),
            Family::Qwen2 | Family::Qwen3 => {
                width.filter(|_| layer >= raw.max_window_layers.unwrap_or(QWEN_FIRST_WINDOW))
            }
            Family::Llama | Family::Mistral => width,
        };
        Ok((0..count).map(seen).collect())
    }
}

impl Family {
    fn of(model_type: &str) -> Result<Self, ModelError> {
        match model_type {
            "llama" => Ok(Self::Llama),
            "mistral" => Ok(Self::Mistral),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            "gemma3_text" => Ok(Self::Gemma3),
            other => Err(unsupported("model_type", other)),
        }
    }

    /// What GGUF files call it.
    fn name(self) -> &'static str {
        match self {
            Self::Llama | Self::Mistral => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
        }
    }
}

/// Tokens that begin and end texts, by their ids.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) bos: Option<u32>,
    pub(super) eos: Vec<u32>,
}

#[derive(Deserialize, Default)]
struct Generation {
    bos_token_id: Option<Ids>,
    eos_token_id: Option<Ids>,
}

impl Ends {
    /// Out of `config.json` and, before it, the text of `generation_config.json`.
    pub(super) fn read(config: &Config, generation: Option<&[u8]>) -> Result<Self, ModelError> {
        let generation = match generation {
            Some(text) => json::parse("generation_config.json", text)?,
            None => Generation::default(),
        };
        let listed = |ids: &Option<Ids>| ids.as_ref().map_or(Vec::new(), |ids| ids.0.clone());
        let bos = [listed(&generation.bos_token_id), listed(&config.raw.bos_token_id)].concat();
        let mut eos = listed(&generation.eos_token_id);
        eos.extend(listed(&config.raw.eos_token_id));
        Ok(Self { bos: bos.first().copied(), eos })
    }
}

fn head_dim(family: Family, raw: &Raw) -> Result<usize, ModelError> {
    let split = raw.hidden_size / raw.num_attention_heads.max(1);
    let head_dim = match (raw.head_dim, family) {
        (Some(head_dim), _) => head_dim,
        // The classes' defaults.
        (None, Family::Qwen3) => 128,
        (None, Family::Gemma3) => 256,
        (None, _) => split,
    };
    within("head_dim", head_dim, MAX_HEAD_DIM)?;
    if !head_dim.is_multiple_of(2) {
        return Err(invalid("head_dim", &format!("is {head_dim}, not an even number")));
    }
    Ok(head_dim)
}

/// A cap of 0 is none.
fn softcap(field: &str, cap: Option<f32>) -> Result<Option<f32>, ModelError> {
    match cap {
        None | Some(0.0) => Ok(None),
        Some(cap) if cap > 0.0 && cap.is_finite() => Ok(Some(cap)),
        Some(cap) => Err(invalid(field, &format!("is {cap}"))),
    }
}

pub(super) fn invalid(field: &str, why: &str) -> ModelError {
    ModelError::Invalid(format!("config.json: {field} {why}"))
}

/// A value that is sound but not computed here, cut short: it comes from the file.
pub(super) fn unsupported(field: &str, value: &str) -> ModelError {
    let value: String = value.chars().take(64).collect();
    ModelError::Unsupported(format!("config.json: {field} {value:?}"))
}

fn within(field: &str, value: usize, most: u32) -> Result<usize, ModelError> {
    if (1..=most as usize).contains(&value) {
        return Ok(value);
    }
    Err(invalid(field, &format!("is {value}, not between 1 and {most}")))
}
