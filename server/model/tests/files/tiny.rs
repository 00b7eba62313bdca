//! The smallest sound model of each architecture.

use crate::writer::Writer;

/// Width of the residual stream and of the feed-forward block.
pub(crate) const HIDDEN: u64 = 8;
/// Two query heads of four dimensions share one key/value head.
pub(crate) const HEADS: u64 = 2;
pub(crate) const HEAD_DIM: u64 = 4;
const TOKENS: [&str; 6] = ["<unk>", "<s>", "</s>", "a", "b", "ab"];

pub(crate) const TEMPLATE: &str =
    "{% for message in messages %}{{ bos_token }}{{ message.content }}{% endfor %}";

/// A model with `layers` layers.
pub(crate) fn model(architecture: &str, layers: u32) -> Writer {
    let key = |name: &str| format!("{architecture}.{name}");
    let mut writer = Writer::default()
        .str("general.architecture", architecture)
        .u32(&key("block_count"), layers)
        .u32(&key("context_length"), 64)
        .u32(&key("embedding_length"), HIDDEN as u32)
        .u32(&key("feed_forward_length"), HIDDEN as u32)
        .u32(&key("attention.head_count"), HEADS as u32)
        .u32(&key("attention.head_count_kv"), 1)
        .u32(&key("attention.key_length"), HEAD_DIM as u32)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-6)
        .f32(&key("rope.freq_base"), 10_000.0)
        .str("tokenizer.ggml.model", "llama")
        .strs("tokenizer.ggml.tokens", &TOKENS)
        .f32s("tokenizer.ggml.scores", &[0.0, 0.0, 0.0, -2.0, -3.0, -1.0])
        .i32s("tokenizer.ggml.token_type", &[2, 3, 3, 1, 1, 1])
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .str("tokenizer.chat_template", TEMPLATE);
    if architecture == "gemma3" {
        writer = writer.u32(&key("attention.sliding_window"), 16);
    }
    writer = matrix(writer, "token_embd.weight", TOKENS.len() as u64, HIDDEN);
    writer = vector(writer, "output_norm.weight", HIDDEN);
    for index in 0..layers {
        writer = layer(writer, architecture, index);
    }
    writer
}

fn layer(mut writer: Writer, architecture: &str, index: u32) -> Writer {
    let name = |suffix: &str| format!("blk.{index}.{suffix}");
    for norm in ["attn_norm.weight", "ffn_norm.weight"] {
        writer = vector(writer, &name(norm), HIDDEN);
    }
    let (q, kv) = (HEADS * HEAD_DIM, HEAD_DIM);
    writer = matrix(writer, &name("attn_q.weight"), q, HIDDEN);
    writer = matrix(writer, &name("attn_k.weight"), kv, HIDDEN);
    writer = matrix(writer, &name("attn_v.weight"), kv, HIDDEN);
    writer = matrix(writer, &name("attn_output.weight"), HIDDEN, q);
    for part in ["ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"] {
        writer = matrix(writer, &name(part), HIDDEN, HIDDEN);
    }
    if architecture == "qwen2" {
        writer = biases(writer, index);
    }
    if matches!(architecture, "qwen3" | "gemma3") {
        for norm in ["attn_q_norm.weight", "attn_k_norm.weight"] {
            writer = vector(writer, &name(norm), HEAD_DIM);
        }
    }
    if architecture == "gemma3" {
        for norm in ["post_attention_norm.weight", "post_ffw_norm.weight"] {
            writer = vector(writer, &name(norm), HIDDEN);
        }
    }
    writer
}

/// Biases of a layer's queries, keys and values.
pub(crate) fn biases(writer: Writer, index: u32) -> Writer {
    let writer = vector(writer, &format!("blk.{index}.attn_q.bias"), HEADS * HEAD_DIM);
    let writer = vector(writer, &format!("blk.{index}.attn_k.bias"), HEAD_DIM);
    vector(writer, &format!("blk.{index}.attn_v.bias"), HEAD_DIM)
}

/// F16 zeros.
pub(crate) fn matrix(writer: Writer, name: &str, rows: u64, cols: u64) -> Writer {
    writer.tensor(name, &[cols, rows], 1, vec![0; (rows * cols * 2) as usize])
}

/// F32 ones.
pub(crate) fn vector(writer: Writer, name: &str, cols: u64) -> Writer {
    writer.floats(name, &[cols], &vec![1.0; cols as usize])
}
