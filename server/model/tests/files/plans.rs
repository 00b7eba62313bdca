//! What each architecture's keys and tensors come to, and which files are none of them.

use pith_model::Plan;
use pith_model::plan::Activation;

use crate::tiny::{self, HEAD_DIM, HIDDEN};
use crate::writer::{Writer, array, code};
use crate::{assert_refused, open};

fn plan(writer: &Writer) -> Plan {
    open(&writer.bytes()).unwrap().plan().clone()
}

fn close(left: &[f32], right: &[f64]) {
    assert_eq!(left.len(), right.len());
    for (left, right) in left.iter().zip(right) {
        assert!((f64::from(*left) - right).abs() <= 1e-6 * right.abs(), "{left} {right}");
    }
}

#[test]
fn llama_rotates_adjacent_pairs_and_sees_everything() {
    let plan = plan(&tiny::model("llama", 2));
    assert_eq!((plan.vocab, plan.hidden, plan.context), (6, 8, 64));
    assert_eq!((plan.embedding_scale, plan.norm_eps), (1.0, 1e-6));
    assert!(plan.tied_output && plan.logit_softcap.is_none());
    assert_eq!(plan.ropes.len(), 1);
    assert!(plan.ropes[0].adjacent);
    assert_eq!(plan.ropes[0].magnitude, 1.0);
    close(&plan.ropes[0].inv_freq, &[1.0, 0.01]);
    for layer in &plan.layers {
        assert_eq!((layer.heads, layer.kv_heads, layer.head_dim, layer.feed_forward), (2, 1, 4, 8));
        assert_eq!((layer.rope, layer.window, layer.attention_softcap), (0, None, None));
        assert_eq!(layer.attention_scale, 0.5);
        assert!(!layer.qkv_bias && !layer.output_bias && !layer.qk_norm && !layer.post_norms);
        assert_eq!(layer.activation, Activation::Silu);
    }
}

#[test]
fn llama_may_have_biases_a_window_and_an_output_of_its_own() {
    let writer = tiny::biases(tiny::model("llama", 1), 0).u32("llama.attention.sliding_window", 7);
    let writer = tiny::vector(writer, "blk.0.attn_output.bias", HIDDEN);
    let plan = plan(&tiny::matrix(writer, "output.weight", 6, HIDDEN));
    assert!(plan.layers[0].qkv_bias && plan.layers[0].output_bias && !plan.tied_output);
    assert_eq!(plan.layers[0].window, Some(7));
}

#[test]
fn qwen2_has_biases_and_rotates_halves() {
    let plan = plan(&tiny::model("qwen2", 1));
    assert!(plan.layers[0].qkv_bias && !plan.layers[0].qk_norm && !plan.ropes[0].adjacent);
}

#[test]
fn qwen3_norms_heads_of_their_own_width() {
    let writer = tiny::model("qwen3", 1).without("qwen3.attention.key_length");
    let plan = plan(&writer.u32("qwen3.attention.key_length", HEAD_DIM as u32));
    assert!(plan.layers[0].qk_norm && !plan.layers[0].qkv_bias && !plan.ropes[0].adjacent);
    assert_eq!(plan.layers[0].activation, Activation::Silu);
}

#[test]
fn gemma3_has_two_ropes_and_windows_but_on_each_sixth_layer() {
    let writer = tiny::model("gemma3", 7)
        .without("gemma3.rope.freq_base")
        .f32("gemma3.rope.freq_base", 1e6)
        .str("gemma3.rope.scaling.type", "linear")
        .f32("gemma3.rope.scaling.factor", 8.0);
    let plan = plan(&writer);
    assert_eq!(plan.embedding_scale, 8f32.sqrt());
    close(&plan.ropes[0].inv_freq, &[1.0 / 8.0, 1e-3 / 8.0]);
    close(&plan.ropes[1].inv_freq, &[1.0, 1e-2]);
    for (index, layer) in plan.layers.iter().enumerate() {
        let global = index == 5;
        assert_eq!(layer.window, (!global).then_some(16), "layer {index}");
        assert_eq!(layer.rope, usize::from(!global), "layer {index}");
        assert!(layer.qk_norm && layer.post_norms);
        assert_eq!(layer.activation, Activation::GeluTanh);
        assert_eq!(layer.attention_scale, 0.5);
    }
}

#[test]
fn gemma3_27b_scales_attention_by_its_width() {
    // Its 62 layers tell it. With one head the residual stream, not the head, sets the scale.
    let mut writer = tiny::model("gemma3", 62).without("gemma3.attention.head_count");
    let q = |index: usize, suffix: &str| format!("blk.{index}.{suffix}");
    for index in 0..62 {
        writer = writer.without_tensor(&q(index, "attn_q.weight"));
        writer = writer.without_tensor(&q(index, "attn_output.weight"));
        writer = tiny::matrix(writer, &q(index, "attn_q.weight"), HEAD_DIM, HIDDEN);
        writer = tiny::matrix(writer, &q(index, "attn_output.weight"), HIDDEN, HEAD_DIM);
    }
    let plan = plan(&writer.u32("gemma3.attention.head_count", 1));
    assert_eq!(plan.layers[0].attention_scale, 1.0 / 8f32.sqrt());
}

#[test]
fn caps_on_logits_and_scores_are_read_where_a_file_has_them() {
    let writer = tiny::model("gemma3", 1)
        .f32("gemma3.final_logit_softcapping", 30.0)
        .f32("gemma3.attn_logit_softcapping", 0.0);
    let plan = plan(&writer);
    assert_eq!((plan.logit_softcap, plan.layers[0].attention_softcap), (Some(30.0), None));
}

#[test]
fn sizes_may_differ_between_layers() {
    let sizes = |sizes: [u32; 2]| {
        let bytes = sizes.iter().flat_map(|size| size.to_le_bytes()).collect::<Vec<_>>();
        array(code::I32, 2, &bytes)
    };
    let mut writer = tiny::model("llama", 2)
        .without("llama.attention.head_count")
        .without("llama.feed_forward_length")
        .pair("llama.attention.head_count", code::ARRAY, &sizes([2, 1]))
        .pair("llama.feed_forward_length", code::ARRAY, &sizes([8, 16]));
    for (suffix, rows, cols) in [
        ("attn_q.weight", HEAD_DIM, HIDDEN),
        ("attn_output.weight", HIDDEN, HEAD_DIM),
        ("ffn_gate.weight", 16, HIDDEN),
        ("ffn_up.weight", 16, HIDDEN),
        ("ffn_down.weight", HIDDEN, 16),
    ] {
        let name = format!("blk.1.{suffix}");
        writer = tiny::matrix(writer.without_tensor(&name), &name, rows, cols);
    }
    let plan = plan(&writer);
    assert_eq!((plan.layers[0].heads, plan.layers[1].heads), (2, 1));
    assert_eq!((plan.layers[0].feed_forward, plan.layers[1].feed_forward), (8, 16));
}

#[test]
fn llama_3_divides_each_pairs_frequency() {
    let writer = tiny::model("llama", 1).floats("rope_freqs.weight", &[2], &[1.0, 8.0]);
    close(&plan(&writer).ropes[0].inv_freq, &[1.0, 0.01 / 8.0]);
}

#[test]
fn yarn_keeps_fast_pairs_and_interpolates_slow_ones() {
    let writer = tiny::model("llama", 1)
        .str("llama.rope.scaling.type", "yarn")
        .f32("llama.rope.scaling.factor", 4.0)
        .u32("llama.rope.scaling.original_context_length", 64);
    let rope = &plan(&writer).ropes[0];
    // 64 tokens are 10.19 rotations of pair 0. The ramp runs from pair 0 (none rotates 32 times) to
    // pair 1 (ceil(4 ln 10.19 / (2 ln 10^4))): pair 0 is kept and pair 1 stretched fourfold.
    close(&rope.inv_freq, &[1.0, 0.01 / 4.0]);
    assert!((rope.magnitude - 1.138_629_4).abs() < 1e-6, "{}", rope.magnitude);
}

#[test]
fn files_that_are_no_known_model_are_refused() {
    let llama = || tiny::model("llama", 1);
    let replaced = |key: &str, value: u32| llama().without(key).u32(key, value);
    let refused = [
        (
            "no architecture",
            llama().without("general.architecture"),
            "general.architecture is missing",
        ),
        (
            "unknown architecture",
            llama().without("general.architecture").str("general.architecture", "mamba"),
            "\"mamba\"",
        ),
        ("an adapter", llama().str("general.type", "adapter"), "adapter"),
        ("a part", llama().u32("split.count", 2), "split over 2 files"),
        ("experts", llama().u32("llama.expert_count", 8), "llama.expert_count = 8"),
        ("unknown setting", llama().f32("llama.logit_scale", 2.0), "llama.logit_scale"),
        ("unknown scaling", llama().str("llama.rope.scaling.type", "longrope"), "longrope"),
        ("no layers", replaced("llama.block_count", 0), "between 1 and"),
        ("layers without tensors", replaced("llama.block_count", 1_000), "more layers"),
        ("too many layers", replaced("llama.block_count", u32::MAX), "between 1 and"),
        ("no context", replaced("llama.context_length", 0), "context_length is 0"),
        // CVE-2025-0317 and its like: divisions by head counts.
        ("no heads", replaced("llama.attention.head_count", 0), "head_count is 0"),
        ("no key/value heads", replaced("llama.attention.head_count_kv", 0), "head_count_kv is 0"),
        (
            "heads not shared evenly",
            replaced("llama.attention.head_count", 3)
                .without("llama.attention.head_count_kv")
                .u32("llama.attention.head_count_kv", 2),
            "does not divide",
        ),
        ("odd heads", replaced("llama.attention.key_length", 3), "even number"),
        (
            "other values than keys",
            llama().u32("llama.attention.value_length", 8),
            "value_length = 8",
        ),
        (
            "part of a head rotates",
            llama().u32("llama.rope.dimension_count", 2),
            "dimension_count = 2",
        ),
        (
            "epsilon of 0",
            llama()
                .without("llama.attention.layer_norm_rms_epsilon")
                .f32("llama.attention.layer_norm_rms_epsilon", 0.0),
            "epsilon is 0",
        ),
        (
            "RoPE base below 1",
            llama().without("llama.rope.freq_base").f32("llama.rope.freq_base", 0.5),
            "above 1",
        ),
        (
            "gemma without its window",
            tiny::model("gemma3", 1).without("gemma3.attention.sliding_window"),
            "sliding_window is missing",
        ),
        (
            "RoPE factors of another width",
            llama().floats("rope_freqs.weight", &[3], &[1.0; 3]),
            "does not fit",
        ),
        (
            "RoPE factor of 0",
            llama().floats("rope_freqs.weight", &[2], &[1.0, 0.0]),
            "does not fit",
        ),
        (
            "RoPE factors in qwen2",
            tiny::model("qwen2", 1).floats("rope_freqs.weight", &[2], &[1.0; 2]),
            "rope_freqs.weight",
        ),
        (
            "a vocabulary without tokens",
            llama().without("tokenizer.ggml.tokens").strs("tokenizer.ggml.tokens", &[]),
            "vocabulary of 0",
        ),
        (
            "scores as bytes",
            llama().without("tokenizer.ggml.scores").pair(
                "tokenizer.ggml.scores",
                code::ARRAY,
                &array(code::I8, 6, &[0; 6]),
            ),
            "tokenizer.ggml.scores is not",
        ),
        (
            "a template that does not parse",
            llama().without("tokenizer.chat_template").str("tokenizer.chat_template", "{% for"),
            "template",
        ),
    ];
    for (case, writer, part) in refused {
        assert_refused(open(&writer.bytes()), part, case);
    }
}

#[test]
fn tensors_must_be_those_of_the_plan() {
    let llama = || tiny::model("llama", 1);
    let refused = [
        (
            "missing",
            llama().without_tensor("blk.0.ffn_up.weight"),
            "blk.0.ffn_up.weight is missing",
        ),
        (
            "transposed",
            llama().change("token_embd.weight", |entry| entry.dims = vec![6, 8]),
            "is 8 x 6 instead of 6 x 8",
        ),
        (
            "three dimensions",
            llama().change("token_embd.weight", |entry| entry.dims = vec![8, 3, 2]),
            "token_embd.weight is",
        ),
        (
            "quantised norm",
            llama().without_tensor("output_norm.weight").tensor(
                "output_norm.weight",
                &[32],
                8,
                vec![0; 34],
            ),
            "output_norm.weight is",
        ),
        (
            "another vocabulary",
            llama()
                .without("tokenizer.ggml.tokens")
                .strs("tokenizer.ggml.tokens", &["a", "b", "c", "d", "e"]),
            "token_embd.weight is 6 x 8 instead of 5 x 8",
        ),
        ("experts", tiny::matrix(llama(), "blk.0.ffn_gate_exps.weight", 8, 8), "ffn_gate_exps"),
        ("a bias the plan lacks", tiny::vector(llama(), "blk.0.ffn_up.bias", 8), "ffn_up.bias"),
        (
            "one bias of three",
            tiny::vector(llama(), "blk.0.attn_q.bias", 8),
            "attn_k.bias is missing",
        ),
        ("a layer too many", tiny::vector(llama(), "blk.1.attn_norm.weight", 8), "blk.1.attn_norm"),
        (
            "qwen2 without biases",
            tiny::vector(tiny::model("qwen2", 1).without_tensor("blk.0.attn_v.bias"), "x", 1),
            "attn_v.bias is missing",
        ),
        (
            "a norm in blocks",
            llama().change("output_norm.weight", |entry| (entry.dims, entry.code) = (vec![8], 8)),
            "cannot be of shape",
        ),
    ];
    for (case, writer, part) in refused {
        assert_refused(open(&writer.bytes()), part, case);
    }
}
