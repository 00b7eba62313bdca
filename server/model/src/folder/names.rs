//! What transformers call a tensor, and what a plan calls it.

use super::config::Family;

/// The plan's name for `theirs`: as it is, if it is not known, so that it is refused by the name the file has for it.
/// None: not computed with.
pub(super) fn ours(theirs: &str, family: Family, tied: bool) -> Option<String> {
    let name = match theirs {
        "model.embed_tokens.weight" => "token_embd.weight".to_owned(),
        "model.norm.weight" => "output_norm.weight".to_owned(),
        // Some files write the embedding twice.
        "lm_head.weight" if tied => return None,
        "lm_head.weight" => "output.weight".to_owned(),
        // A table that follows from the configuration, which early files keep.
        _ if theirs.ends_with(".self_attn.rotary_emb.inv_freq") => return None,
        _ => in_layer(theirs, family).unwrap_or_else(|| theirs.to_owned()),
    };
    Some(name)
}

fn in_layer(theirs: &str, family: Family) -> Option<String> {
    let (index, rest) = theirs.strip_prefix("model.layers.")?.split_once('.')?;
    // One spelling of each number, so that no two names become one.
    let layer: u32 = index.parse().ok().filter(|layer: &u32| layer.to_string() == index)?;
    let (part, kind) = rest.rsplit_once('.')?;
    let gemma = family == Family::Gemma3;
    let part = match part {
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "input_layernorm" => "attn_norm",
        // Elsewhere it stands before the feed-forward block, whatever it is called.
        "post_attention_layernorm" if gemma => "post_attention_norm",
        "post_attention_layernorm" => "ffn_norm",
        "pre_feedforward_layernorm" if gemma => "ffn_norm",
        "post_feedforward_layernorm" if gemma => "post_ffw_norm",
        _ => return None,
    };
    matches!(kind, "weight" | "bias").then(|| format!("blk.{layer}.{part}.{kind}"))
}
