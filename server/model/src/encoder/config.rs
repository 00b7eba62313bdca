//! `config.json`, `sentence_bert_config.json` and `1_Pooling/config.json`.

use serde::Deserialize;

use crate::ModelError;
use crate::json::parse;

/// Bounds of a description: what is beyond them is a mistake, and memory must not follow it.
const MAX_LAYERS: usize = 256;
const MAX_WIDTH: usize = 1 << 16;
const MAX_VOCAB: usize = 1 << 24;

/// The architecture of a BERT: post-layer-norm, learned positions, exact GELU.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Layers.
    pub layers: usize,
    /// Width of the stream, and of a text's vector.
    pub hidden: usize,
    /// Attention heads, which share `hidden` evenly.
    pub heads: usize,
    /// Width inside the feed-forward block.
    pub feed_forward: usize,
    /// Rows of the token embedding.
    pub vocab: usize,
    /// Rows of the position embedding.
    pub positions: usize,
    /// Kinds of segments; texts are of kind 0.
    pub token_types: usize,
    /// Added to variances.
    pub norm_eps: f32,
    /// Most tokens of a text, `[CLS]` and `[SEP]` included. At least 3.
    pub max_tokens: usize,
}

/// As transformers write it; what they leave out has their default.
#[derive(Deserialize)]
struct Bert {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    hidden_act: String,
    #[serde(default)]
    position_embedding_type: Option<String>,
}

#[derive(Deserialize)]
struct Length {
    max_seq_length: usize,
}

#[derive(Deserialize)]
struct Pooling {
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
}

impl EncoderConfig {
    /// Reads the texts of the three files, of which the last two may be missing.
    pub(super) fn read(
        config: &[u8],
        length: Option<&[u8]>,
        pooling: Option<&[u8]>,
    ) -> Result<Self, ModelError> {
        let bert: Bert = parse("config.json", config)?;
        supported("model_type", &bert.model_type, "bert")?;
        supported("hidden_act", &bert.hidden_act, "gelu")?;
        let positions = bert.position_embedding_type.as_deref().unwrap_or("absolute");
        supported("position_embedding_type", positions, "absolute")?;
        within("num_hidden_layers", bert.num_hidden_layers, 1, MAX_LAYERS)?;
        within("hidden_size", bert.hidden_size, 1, MAX_WIDTH)?;
        within("intermediate_size", bert.intermediate_size, 1, MAX_WIDTH)?;
        within("num_attention_heads", bert.num_attention_heads, 1, bert.hidden_size)?;
        within("vocab_size", bert.vocab_size, 1, MAX_VOCAB)?;
        within("max_position_embeddings", bert.max_position_embeddings, 3, MAX_WIDTH)?;
        within("type_vocab_size", bert.type_vocab_size, 1, MAX_WIDTH)?;
        if !bert.hidden_size.is_multiple_of(bert.num_attention_heads) {
            return Err(ModelError::Invalid(format!(
                "{} heads do not share {} dimensions evenly",
                bert.num_attention_heads, bert.hidden_size
            )));
        }
        if !(bert.layer_norm_eps >= 0.0 && bert.layer_norm_eps < 1.0) {
            let eps = bert.layer_norm_eps;
            return Err(ModelError::Invalid(format!("layer_norm_eps is {eps}")));
        }
        let mut max_tokens = bert.max_position_embeddings;
        if let Some(length) = length {
            let Length { max_seq_length } = parse("sentence_bert_config.json", length)?;
            within("max_seq_length", max_seq_length, 3, bert.max_position_embeddings)?;
            max_tokens = max_seq_length;
        }
        if let Some(pooling) = pooling {
            let Pooling {
                pooling_mode_mean_tokens: mean,
                pooling_mode_cls_token: cls,
                pooling_mode_max_tokens: max,
                pooling_mode_mean_sqrt_len_tokens: root,
            } = parse("1_Pooling/config.json", pooling)?;
            if !mean || cls || max || root {
                return Err(ModelError::Unsupported("it does not pool by the mean".to_owned()));
            }
        }
        Ok(Self {
            layers: bert.num_hidden_layers,
            hidden: bert.hidden_size,
            heads: bert.num_attention_heads,
            feed_forward: bert.intermediate_size,
            vocab: bert.vocab_size,
            positions: bert.max_position_embeddings,
            token_types: bert.type_vocab_size,
            norm_eps: bert.layer_norm_eps,
            max_tokens,
        })
    }
}

fn supported(field: &str, value: &str, known: &str) -> Result<(), ModelError> {
    if value == known {
        return Ok(());
    }
    let value: String = value.chars().take(64).collect();
    Err(ModelError::Unsupported(format!("{field} {value:?}, which is not {known:?}")))
}

fn within(field: &str, value: usize, low: usize, high: usize) -> Result<(), ModelError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(ModelError::Invalid(format!("{field} is {value}; it must be {low} to {high}")))
}
