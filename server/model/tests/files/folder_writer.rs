//! Writes folders as transformers do, sound ones and ones that lie.

use std::collections::BTreeMap;

use pith_model::{ModelError, ModelFile};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Width of the residual stream and of the feed-forward block.
pub(crate) const HIDDEN: usize = 8;
pub(crate) const VOCAB: usize = 270;

/// A tensor to be written.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

/// The files of a folder, and the tensors of its weights.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    pub(crate) config: Value,
    pub(crate) tokenizer: Value,
    pub(crate) tensors: BTreeMap<String, Entry>,
    /// Any others, by name.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

/// Zeros in bf16.
pub(crate) fn zeros(shape: &[usize]) -> Entry {
    let data = vec![0; shape.iter().product::<usize>() * 2];
    Entry { dtype: "BF16", shape: shape.to_vec(), data }
}

impl Folder {
    /// The smallest sound model of a family, with one layer.
    pub(crate) fn sound(model_type: &str) -> Self {
        let config = json!({
            "model_type": model_type, "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": HIDDEN,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
            "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
            "sliding_window": 16, "bos_token_id": 256, "eos_token_id": 257,
        });
        let mut folder = Self {
            config,
            tokenizer: bytes_tokenizer(),
            tensors: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        folder.tensor("model.embed_tokens.weight", &[VOCAB, HIDDEN]);
        folder.tensor("model.norm.weight", &[HIDDEN]);
        for (part, shape) in [
            ("input_layernorm", &[HIDDEN][..]),
            ("post_attention_layernorm", &[HIDDEN]),
            ("self_attn.q_proj", &[8, HIDDEN]),
            ("self_attn.k_proj", &[4, HIDDEN]),
            ("self_attn.v_proj", &[4, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, 8]),
            ("mlp.gate_proj", &[HIDDEN, HIDDEN]),
            ("mlp.up_proj", &[HIDDEN, HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, HIDDEN]),
        ] {
            folder.layer(part, shape);
        }
        if matches!(model_type, "qwen3" | "gemma3_text") {
            folder.layer("self_attn.q_norm", &[4]).layer("self_attn.k_norm", &[4]);
        }
        if model_type == "gemma3_text" {
            folder.layer("pre_feedforward_layernorm", &[HIDDEN]);
            folder.layer("post_feedforward_layernorm", &[HIDDEN]);
        }
        if model_type == "qwen2" {
            for (part, width) in [("q", 8), ("k", 4), ("v", 4)] {
                folder.tensor(&format!("model.layers.0.self_attn.{part}_proj.bias"), &[width]);
            }
        }
        folder
    }

    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> &mut Self {
        self.tensors.insert(name.to_owned(), zeros(shape));
        self
    }

    fn layer(&mut self, part: &str, shape: &[usize]) -> &mut Self {
        self.tensor(&format!("model.layers.0.{part}.weight"), shape)
    }

    /// With another setting; null removes it.
    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        match value {
            Value::Null => self.config.as_object_mut().unwrap().remove(key),
            value => self.config.as_object_mut().unwrap().insert(key.to_owned(), value),
        };
        self
    }

    /// With another file.
    pub(crate) fn file(mut self, name: &str, text: impl Into<Vec<u8>>) -> Self {
        self.files.insert(name.to_owned(), text.into());
        self
    }

    /// Its weights in two files and the index that names them, as values to lie with.
    pub(crate) fn sharded(&self) -> (BTreeMap<String, Vec<u8>>, Value) {
        let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let mut halves = [BTreeMap::new(), BTreeMap::new()];
        let mut map = serde_json::Map::new();
        for (at, (name, entry)) in self.tensors.iter().enumerate() {
            halves[at % 2].insert(name.clone(), entry.clone());
            map.insert(name.clone(), names[at % 2].into());
        }
        let files =
            names.iter().zip(halves).map(|(name, half)| ((*name).to_owned(), weights(&half)));
        (files.collect(), json!({ "metadata": {}, "weight_map": map }))
    }

    /// On disk, its weights in one file unless there is an index among its files.
    pub(crate) fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("config.json", self.config.to_string().as_bytes());
        write("tokenizer.json", self.tokenizer.to_string().as_bytes());
        if !self.files.contains_key("model.safetensors.index.json") {
            write("model.safetensors", &weights(&self.tensors));
        }
        for (name, bytes) in &self.files {
            write(name, bytes);
        }
        folder
    }

    pub(crate) fn open(&self) -> Result<ModelFile, ModelError> {
        ModelFile::open(self.write().path())
    }
}

/// A safetensors file.
pub(crate) fn weights(tensors: &BTreeMap<String, Entry>) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, entry) in tensors {
        let from = data.len();
        data.extend(&entry.data);
        let range = [from, data.len()];
        let entry = json!({ "dtype": entry.dtype, "shape": entry.shape, "data_offsets": range });
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A tokenizer of the 256 bytes, two control tokens and one merge.
fn bytes_tokenizer() -> Value {
    // The printable characters that byte-level vocabularies write for bytes.
    let plain = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let shifted = (0..256).filter(|byte| !plain(byte)).count() as u32;
    let letters = (0..256).filter(plain).chain(0x100..0x100 + shifted).filter_map(char::from_u32);
    let mut vocab: serde_json::Map<String, Value> =
        letters.zip(0..).map(|(letter, id)| (letter.to_string(), Value::from(id))).collect();
    assert_eq!(vocab.len(), 256);
    vocab.insert("ab".to_owned(), 258.into());
    let special = |id: u32, content: &str| json!({ "id": id, "content": content, "special": true });
    json!({
        "added_tokens": [special(256, "<s>"), special(257, "</s>")],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": true },
        "post_processor": { "type": "ByteLevel" },
        "model": { "type": "BPE", "vocab": vocab, "merges": [["a", "b"]] },
    })
}
