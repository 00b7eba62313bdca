//! A tiny model with everything a real one has: a byte-level vocabulary that spells any text, control tokens, a chat
//! template and random weights. What it says makes no sense, in printable ASCII.

use std::collections::BTreeSet;

const CONTEXT: u32 = 2048;
const HIDDEN: usize = 32;
const FEED_FORWARD: usize = 48;
const HEADS: usize = 2;
const HEAD_DIM: usize = 16;
/// Control tokens, first of the vocabulary. The first is BOS and EOS, though prompts do not begin with it.
pub(crate) const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const MERGES: [&str; 6] = ["t h", "th e", "i n", "e r", "Ġ the", "a n"];

const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                        {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The bytes of the GGUF file.
pub(crate) fn model() -> Vec<u8> {
    model_with(Some(TEMPLATE))
}

/// As [`model`], with another chat template or none.
pub(crate) fn model_with(template: Option<&str>) -> Vec<u8> {
    let bytes: Vec<String> = (0..=255).map(|byte| spelled(byte).to_string()).collect();
    let merged: BTreeSet<String> = MERGES.iter().map(|merge| merge.replace(' ', "")).collect();
    let control = CONTROL.iter().map(|token| (*token).to_owned());
    let tokens: Vec<String> = control.chain(bytes).chain(merged).collect();
    let kinds: Vec<i32> =
        (0..tokens.len()).map(|id| if id < CONTROL.len() { 3 } else { 1 }).collect();

    let mut file = Gguf::default();
    file.text("general.architecture", "llama");
    file.text("general.name", "tiny");
    file.u32("llama.context_length", CONTEXT);
    file.u32("llama.embedding_length", HIDDEN as u32);
    file.u32("llama.block_count", 1);
    file.u32("llama.feed_forward_length", FEED_FORWARD as u32);
    file.u32("llama.attention.head_count", HEADS as u32);
    file.u32("llama.attention.head_count_kv", 1);
    file.u32("llama.rope.dimension_count", HEAD_DIM as u32);
    file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    file.text("tokenizer.ggml.model", "gpt2");
    file.text("tokenizer.ggml.pre", "gpt-2");
    file.texts("tokenizer.ggml.tokens", tokens.iter().map(String::as_str));
    file.i32s("tokenizer.ggml.token_type", &kinds);
    file.texts("tokenizer.ggml.merges", MERGES);
    file.u32("tokenizer.ggml.bos_token_id", 0);
    file.u32("tokenizer.ggml.eos_token_id", 2);
    if let Some(template) = template {
        file.text("tokenizer.chat_template", template);
    }

    let mut dice = Dice(7);
    file.tensor(
        "token_embd.weight",
        HIDDEN,
        tokens.len(),
        dice.numbers(tokens.len() * HIDDEN, 1.0),
    );
    // An output of its own: a tied one would repeat the last token. Small rows are never the likeliest.
    let mut output = dice.numbers(tokens.len() * HIDDEN, 1.0);
    for (token, row) in tokens.iter().zip(output.chunks_mut(HIDDEN)) {
        if !token.chars().all(|c| c.is_ascii_alphanumeric()) {
            row.iter_mut().for_each(|weight| *weight *= 0.1);
        }
    }
    file.tensor("output.weight", HIDDEN, tokens.len(), output);
    file.tensor("output_norm.weight", HIDDEN, 0, vec![1.0; HIDDEN]);
    for norm in ["attn_norm", "ffn_norm"] {
        file.tensor(&format!("blk.0.{norm}.weight"), HIDDEN, 0, vec![1.0; HIDDEN]);
    }
    for (name, cols, rows) in [
        ("attn_q", HIDDEN, HEADS * HEAD_DIM),
        ("attn_k", HIDDEN, HEAD_DIM),
        ("attn_v", HIDDEN, HEAD_DIM),
        ("attn_output", HEADS * HEAD_DIM, HIDDEN),
        ("ffn_gate", HIDDEN, FEED_FORWARD),
        ("ffn_up", HIDDEN, FEED_FORWARD),
        ("ffn_down", FEED_FORWARD, HIDDEN),
    ] {
        let weights = dice.numbers(cols * rows, 1.2 / (cols as f32).sqrt());
        file.tensor(&format!("blk.0.{name}.weight"), cols, rows, weights);
    }
    file.finish()
}

/// How byte-level vocabularies spell a byte (GPT-2's table): printable ones as themselves, the rest from U+0100 on.
fn spelled(byte: u8) -> char {
    let plain = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if plain(byte) {
        return byte.into();
    }
    let before = (0..byte).filter(|&other| !plain(other)).count() as u32;
    char::from_u32(256 + before).unwrap()
}

/// A linear congruential generator (Knuth's MMIX constants): weights need no better.
struct Dice(u64);

impl Dice {
    fn numbers(&mut self, count: usize, spread: f32) -> Vec<f32> {
        let mut next = || {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0) * spread * 1.73
        };
        (0..count).map(|_| next()).collect()
    }
}

#[derive(Default)]
struct Gguf {
    pairs: Vec<u8>,
    pair_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

impl Gguf {
    fn pair(&mut self, key: &str, kind: u32, value: &[u8]) {
        put_text(&mut self.pairs, key);
        self.pairs.extend(kind.to_le_bytes());
        self.pairs.extend(value);
        self.pair_count += 1;
    }

    fn u32(&mut self, key: &str, value: u32) {
        self.pair(key, 4, &value.to_le_bytes());
    }

    fn f32(&mut self, key: &str, value: f32) {
        self.pair(key, 6, &value.to_le_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        let mut bytes = Vec::new();
        put_text(&mut bytes, value);
        self.pair(key, 8, &bytes);
    }

    fn texts<'a>(&mut self, key: &str, values: impl IntoIterator<Item = &'a str>) {
        let (mut bytes, mut count) = (Vec::new(), 0_u64);
        for value in values {
            put_text(&mut bytes, value);
            count += 1;
        }
        self.pair(key, 9, &[&8_u32.to_le_bytes()[..], &count.to_le_bytes(), &bytes].concat());
    }

    fn i32s(&mut self, key: &str, values: &[i32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let count = values.len() as u64;
        self.pair(key, 9, &[&5_u32.to_le_bytes()[..], &count.to_le_bytes(), &bytes].concat());
    }

    /// `rows` of 0: a vector.
    fn tensor(&mut self, name: &str, cols: usize, rows: usize, values: Vec<f32>) {
        put_text(&mut self.tensors, name);
        let dims: Vec<u64> =
            [cols, rows].into_iter().filter(|&dim| dim > 0).map(|dim| dim as u64).collect();
        self.tensors.extend((dims.len() as u32).to_le_bytes());
        self.tensors.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        self.tensors.extend(0_u32.to_le_bytes());
        self.tensors.extend((self.data.len() as u64).to_le_bytes());
        self.data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self.tensor_count += 1;
    }

    fn finish(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.pair_count.to_le_bytes());
        file.extend(self.pairs);
        file.extend(self.tensors);
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(self.data);
        file
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
