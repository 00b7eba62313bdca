//! Families: what each architecture's name and keys mean.

use super::keys::Keys;
use super::limits::{
    LEAST_LAYER_TENSORS, MAX_CONTEXT, MAX_FEED_FORWARD, MAX_HEAD_DIM, MAX_HEADS, MAX_HIDDEN,
    MAX_LAYERS, MAX_VOCAB,
};
use super::rope::RopeSettings;
use super::{Activation, Layer, Plan, Rope};
use crate::ModelError;
use crate::gguf::Gguf;

const MAX_WINDOW: u32 = MAX_CONTEXT;
/// Gemma 3 27B, the one size whose attention scale is not `1 / sqrt(head_dim)`, by its depth.
const GEMMA3_27B_LAYERS: usize = 62;
/// Every sixth layer of Gemma 3 sees everything.
const GEMMA3_PERIOD: usize = 6;
/// RoPE base of Gemma 3's windowed layers, which files do not state.
const GEMMA3_LOCAL_BASE: f32 = 10_000.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Llama, Mistral, SmolLM2.
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
}

impl Family {
    fn of(architecture: &str) -> Result<Self, ModelError> {
        match architecture {
            "llama" => Ok(Self::Llama),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            "gemma3" => Ok(Self::Gemma3),
            other => Err(ModelError::Unsupported(format!("the architecture {other:?}"))),
        }
    }
}

/// Sizes that every family states in the same way.
struct Sizes {
    hidden: usize,
    context: usize,
    feed_forward: Vec<usize>,
    heads: Vec<usize>,
    kv_heads: Vec<usize>,
    head_dim: usize,
    norm_eps: f32,
}

impl Sizes {
    fn read(keys: &Keys<'_>, tensors: usize) -> Result<Self, ModelError> {
        // Redundant: the embedding's shape and the tokenizer say it.
        keys.ignore("vocab_size");
        keys.off("expert_count")?;
        keys.off("expert_used_count")?;
        let layers = keys.required_size("block_count", MAX_LAYERS)?;
        if layers.saturating_mul(LEAST_LAYER_TENSORS) > tensors {
            return Err(keys.invalid("block_count", "is more layers than there are tensors for"));
        }
        let hidden = keys.required_size("embedding_length", MAX_HIDDEN)?;
        let heads = keys.required_sizes("attention.head_count", layers, MAX_HEADS)?;
        let kv_heads = keys
            .sizes("attention.head_count_kv", layers, MAX_HEADS)?
            .unwrap_or_else(|| heads.clone());
        if heads.iter().zip(&kv_heads).any(|(heads, kv_heads)| !heads.is_multiple_of(*kv_heads)) {
            return Err(keys.invalid("attention.head_count_kv", "does not divide the query heads"));
        }
        Ok(Self {
            hidden,
            context: keys.required_size("context_length", MAX_CONTEXT)?,
            feed_forward: keys.required_sizes("feed_forward_length", layers, MAX_FEED_FORWARD)?,
            head_dim: head_dim(keys, hidden, &heads)?,
            heads,
            kv_heads,
            norm_eps: norm_eps(keys)?,
        })
    }
}

fn head_dim(keys: &Keys<'_>, hidden: usize, heads: &[usize]) -> Result<usize, ModelError> {
    let head_dim = match keys.size("attention.key_length", MAX_HEAD_DIM)? {
        Some(head_dim) => head_dim,
        None if !hidden.is_multiple_of(heads[0]) => {
            return Err(keys.invalid("attention.head_count", "does not divide embedding_length"));
        }
        None => hidden / heads[0],
    };
    if !head_dim.is_multiple_of(2) || head_dim > MAX_HEAD_DIM as usize {
        let why = format!(
            "makes heads of {head_dim} dimensions, not an even number up to {MAX_HEAD_DIM}"
        );
        return Err(keys.unsupported("attention.key_length", &why));
    }
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = keys.u32(key)?
            && other as usize != head_dim
        {
            let why = format!("= {other}, other than the {head_dim} dimensions of a key");
            return Err(keys.unsupported(key, &why));
        }
    }
    Ok(head_dim)
}

fn norm_eps(keys: &Keys<'_>) -> Result<f32, ModelError> {
    const KEY: &str = "attention.layer_norm_rms_epsilon";
    match keys.f32(KEY)? {
        Some(eps) if eps > 0.0 && eps < 1.0 => Ok(eps),
        Some(eps) => Err(keys.invalid(KEY, &format!("is {eps}"))),
        None => Err(keys.invalid(KEY, "is missing")),
    }
}

/// A cap of 0 is none.
fn softcap(keys: &Keys<'_>, key: &str) -> Result<Option<f32>, ModelError> {
    match keys.f32(key)? {
        None | Some(0.0) => Ok(None),
        Some(cap) if cap > 0.0 => Ok(Some(cap)),
        Some(cap) => Err(keys.invalid(key, &format!("is {cap}"))),
    }
}

/// The plan of a file. `vocab` is the tokenizer's size, `rope_divisors` the contents of
/// `rope_freqs.weight`.
pub(super) fn read(
    gguf: &Gguf,
    vocab: usize,
    rope_divisors: Option<&[f32]>,
) -> Result<Plan, ModelError> {
    let architecture = gguf
        .metadata
        .str("general.architecture")?
        .ok_or_else(|| ModelError::Invalid("general.architecture is missing".to_owned()))?;
    let family = Family::of(architecture)?;
    if vocab == 0 || vocab > MAX_VOCAB {
        return Err(ModelError::Invalid(format!("it has a vocabulary of {vocab} tokens")));
    }
    let keys = Keys::new(&gguf.metadata, architecture);
    let sizes = Sizes::read(&keys, gguf.tensors.iter().len())?;
    let ropes = ropes(family, &keys, &sizes, rope_divisors)?;
    let layers = layers(family, &keys, &sizes, gguf)?;
    let logit_softcap = match family {
        Family::Gemma3 => softcap(&keys, "final_logit_softcapping")?,
        Family::Llama | Family::Qwen2 | Family::Qwen3 => None,
    };
    keys.finish()?;
    Ok(Plan {
        architecture: architecture.to_owned(),
        vocab,
        hidden: sizes.hidden,
        context: sizes.context,
        embedding_scale: match family {
            Family::Gemma3 => (sizes.hidden as f32).sqrt(),
            Family::Llama | Family::Qwen2 | Family::Qwen3 => 1.0,
        },
        norm_eps: sizes.norm_eps,
        tied_output: gguf.tensors.get("output.weight").is_none(),
        logit_softcap,
        ropes,
        layers,
    })
}

/// The table of all layers, or of Gemma's global layers, and then that of its windowed ones.
fn ropes(
    family: Family,
    keys: &Keys<'_>,
    sizes: &Sizes,
    divisors: Option<&[f32]>,
) -> Result<Vec<Rope>, ModelError> {
    if let Some(divisors) = divisors {
        if family != Family::Llama {
            return Err(ModelError::Unsupported("rope_freqs.weight outside of llama".to_owned()));
        }
        if divisors.len() != sizes.head_dim / 2
            || !divisors.iter().all(|&d| d.is_finite() && d > 0.0)
        {
            return Err(ModelError::Invalid("rope_freqs.weight does not fit the heads".to_owned()));
        }
    }
    let base = match keys.positive("rope.freq_base")? {
        Some(base) => base,
        // The first Llama's, which early files leave out.
        None if family == Family::Llama => 10_000.0,
        None => return Err(keys.invalid("rope.freq_base", "is missing")),
    };
    if base <= 1.0 {
        return Err(keys.invalid("rope.freq_base", "is not above 1"));
    }
    // Conversion to GGUF reorders the rows of a Llama's queries and keys so that pairs are adjacent.
    let adjacent = family == Family::Llama;
    let settings = RopeSettings::read(keys, sizes.context)?;
    let mut ropes = vec![settings.table(adjacent, sizes.head_dim, f64::from(base), divisors)?];
    if family == Family::Gemma3 {
        let base = f64::from(keys.positive("rope.freq_base_swa")?.unwrap_or(GEMMA3_LOCAL_BASE));
        ropes.push(RopeSettings::plain().table(adjacent, sizes.head_dim, base, None)?);
    }
    Ok(ropes)
}

fn layers(
    family: Family,
    keys: &Keys<'_>,
    sizes: &Sizes,
    gguf: &Gguf,
) -> Result<Vec<Layer>, ModelError> {
    let gemma = family == Family::Gemma3;
    let window = match family {
        // Mistral 7B v0.1; 0 is none.
        Family::Llama => keys.u32("attention.sliding_window")?.filter(|&window| window > 0),
        Family::Gemma3 => Some(keys.required_size("attention.sliding_window", MAX_WINDOW)? as u32),
        Family::Qwen2 | Family::Qwen3 => None,
    };
    let period = match family {
        Family::Gemma3 => {
            keys.size("attention.sliding_window_pattern", MAX_LAYERS)?.unwrap_or(GEMMA3_PERIOD)
        }
        Family::Llama | Family::Qwen2 | Family::Qwen3 => usize::MAX,
    };
    let attention_softcap = if gemma { softcap(keys, "attn_logit_softcapping")? } else { None };
    let count = sizes.heads.len();
    let has = |layer: usize, name: &str| gguf.tensors.get(&format!("blk.{layer}.{name}")).is_some();
    let layer = |index: usize| {
        let global = gemma && (index + 1).is_multiple_of(period);
        let scaled_width = if gemma && count == GEMMA3_27B_LAYERS {
            sizes.hidden / sizes.heads[index]
        } else {
            sizes.head_dim
        };
        Layer {
            heads: sizes.heads[index],
            kv_heads: sizes.kv_heads[index],
            head_dim: sizes.head_dim,
            feed_forward: sizes.feed_forward[index],
            rope: usize::from(gemma && !global),
            window: window.filter(|_| !global),
            attention_scale: 1.0 / (scaled_width as f32).sqrt(),
            attention_softcap,
            // Some Llamas have biases; the tensors are the only sign.
            qkv_bias: family == Family::Qwen2
                || (family == Family::Llama && has(index, "attn_q.bias")),
            output_bias: family == Family::Llama && has(index, "attn_output.bias"),
            qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
            post_norms: gemma,
            activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
        }
    };
    Ok((0..count).map(layer).collect())
}
