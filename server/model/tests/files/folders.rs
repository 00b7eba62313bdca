//! Folders of safetensors: what opens, what it comes to, and which are refused.

use pith_model::tokenizer::Special;
use pith_model::{ModelError, ModelFile};
use serde_json::{Value, json};

use crate::allocation::peak_growth;
use crate::assert_refused;
use crate::folder_writer::{Folder, HIDDEN, VOCAB, weights, zeros};

const INDEX: &str = "model.safetensors.index.json";
/// What opening a folder may cost beyond its bytes: the template's compiler, small tables.
const SLACK: usize = 1 << 20;
/// Bytes of memory for each byte of a folder: short texts become strings of some 24 bytes, in lists that grow by doubling.
const EXPANSION: usize = 32;

fn llama() -> Folder {
    Folder::sound("llama")
}

#[test]
fn each_family_opens() {
    for (family, architecture) in [
        ("llama", "llama"),
        ("mistral", "llama"),
        ("qwen2", "qwen2"),
        ("qwen3", "qwen3"),
        ("gemma3_text", "gemma3"),
    ] {
        let model = Folder::sound(family).open().unwrap();
        let plan = model.plan();
        assert_eq!(plan.architecture, architecture);
        assert_eq!((plan.vocab, plan.hidden, plan.context), (VOCAB, HIDDEN, 64));
        assert!(plan.tied_output && !plan.ropes[0].adjacent, "{family}: pairs are halves");
        let windowed = matches!(family, "mistral" | "gemma3_text");
        assert_eq!(plan.layers[0].window, windowed.then_some(16), "{family}");
        assert_eq!(plan.layers[0].qkv_bias, family == "qwen2");
        assert_eq!(plan.layers[0].post_norms, family == "gemma3_text");
        let embedding = model.tensor("token_embd.weight").unwrap();
        assert_eq!((embedding.rows, embedding.cols, embedding.row_bytes), (VOCAB, HIDDEN, 16));
        assert_eq!(model.tokenizer().prompt_bos(), None);
        assert_eq!(model.tokenizer().end_tokens(), [257]);
    }
}

#[test]
fn any_of_its_files_names_a_folder() {
    let folder = llama().write();
    let name = ModelFile::open(folder.path()).unwrap().name().to_owned();
    assert_eq!(name, folder.path().file_name().unwrap().to_str().unwrap());
    for file in ["config.json", "model.safetensors", INDEX] {
        assert_eq!(ModelFile::open(&folder.path().join(file)).unwrap().name(), name, "{file}");
    }
}

#[test]
fn gemmas_norms_are_read_with_the_one_they_lack() {
    let mut folder = Folder::sound("gemma3_text");
    let stored = [0.5f32, -1.0, 2.0, 0.0, -0.25, 1.0, 0.125, 3.0];
    let halves = stored.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes());
    folder.tensors.get_mut("model.norm.weight").unwrap().data = halves.collect();
    let model = folder.open().unwrap();
    let one_more = stored.map(|value| value + 1.0);
    assert_eq!(model.read_f32("output_norm.weight").unwrap(), one_more);
    // Both doors give the same numbers.
    let tensor = model.tensor("output_norm.weight").unwrap();
    let mut bytes = vec![0; tensor.row_bytes];
    model.read_rows("output_norm.weight", 0..1, &mut bytes).unwrap();
    let bytes = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
    assert_eq!(bytes.collect::<Vec<_>>(), one_more);
    assert_eq!(model.read_f32("blk.0.attn_q_norm.weight").unwrap(), [1.0; 4]);
    assert_eq!(llama().open().unwrap().read_f32("output_norm.weight").unwrap(), [0.0; HIDDEN]);
}

#[test]
fn rows_come_from_the_shard_that_has_them() {
    let mut folder = llama();
    for (at, entry) in folder.tensors.values_mut().enumerate() {
        entry.data.fill(at as u8);
    }
    let (files, index) = folder.sharded();
    let mut sharded = folder.clone().file(INDEX, index.to_string());
    sharded.files.extend(files);
    let (whole, sharded) = (folder.open().unwrap(), sharded.open().unwrap());
    for name in ["token_embd.weight", "blk.0.attn_q.weight", "blk.0.ffn_down.weight"] {
        let tensor = whole.tensor(name).unwrap();
        assert_eq!(Some(tensor), sharded.tensor(name));
        let read = |model: &ModelFile| {
            let mut out = vec![0; 2 * tensor.row_bytes];
            model.read_rows(name, 1..3, &mut out).unwrap();
            out
        };
        assert_eq!(read(&whole), read(&sharded), "{name}");
    }
    assert_ne!(whole.fingerprint(), sharded.fingerprint());
}

#[test]
fn an_index_that_lies_is_refused() {
    let lie = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let (files, mut index) = llama().sharded();
        change(index["weight_map"].as_object_mut().unwrap());
        let mut folder = llama().file(INDEX, index.to_string());
        folder.files.extend(files);
        folder.open()
    };
    let norm = "model.norm.weight";
    lie(&|_| {}).unwrap();
    let place = |place: &'static str| {
        lie(&|map| {
            map.insert(norm.to_owned(), place.into());
        })
    };
    for escape in ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "passwd"] {
        assert_refused(place(escape), "no shard of this folder", escape);
    }
    assert_refused(place("model-00002-of-00002.safetensors"), "it is in", "another shard");
    assert_refused(lie(&|map| drop(map.remove(norm))), "does not name", "a tensor less");
    let extra = lie(&|map| drop(map.insert("x".into(), "model-00001-of-00002.safetensors".into())));
    assert_refused(extra, "lacks it", "a tensor more");
    assert_refused(lie(&|map| map.clear()), "0 files", "no tensor");
    assert!(matches!(place("gone.safetensors"), Err(ModelError::Io { .. })), "a shard less");
    let twice =
        format!(r#"{{"weight_map":{{"{norm}":"a.safetensors","{norm}":"b.safetensors"}}}}"#);
    assert_refused(llama().file(INDEX, twice).open(), "twice", "two places for one tensor");
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let (mut files, index) = llama().sharded();
    let second = files.keys().last().unwrap().clone();
    // All tensors in the second shard, half of them in the first too.
    files.insert(second, weights(&llama().tensors));
    let mut folder = llama().file(INDEX, index.to_string());
    folder.files.extend(files);
    assert_refused(folder.open(), "it is in", "a tensor twice");
}

#[test]
fn tensors_are_those_of_the_plan() {
    let change = |change: &dyn Fn(&mut Folder)| {
        let mut folder = llama();
        change(&mut folder);
        folder.open()
    };
    let q = "model.layers.0.self_attn.q_proj.weight";
    let insert = |name: &'static str, entry: crate::folder_writer::Entry| {
        change(&|folder| drop(folder.tensors.insert(name.to_owned(), entry.clone())))
    };
    let remove = change(&|folder| drop(folder.tensors.remove(q)));
    assert_refused(remove, "is missing", "a tensor less");
    assert_refused(insert("model.layers.1.mlp.up_proj.weight", zeros(&[8, 8])), "blk.1", "a layer");
    assert_refused(insert("model.layers.00.mlp.up_proj.weight", zeros(&[8, 8])), "00", "spelling");
    assert_refused(insert("score.weight", zeros(&[8])), "score", "a head of another kind");
    assert_refused(insert(q, zeros(&[4, HIDDEN])), "4 x 8 instead of 8 x 8", "another shape");
    assert_refused(insert(q, zeros(&[8, 4, 2])), "shape", "another rank");
    let mut integers = zeros(&[8, HIDDEN]);
    integers.dtype = "I16";
    assert_refused(insert(q, integers), "not in bf16", "integers");
    // What is not computed with may be there.
    insert("lm_head.weight", zeros(&[VOCAB, HIDDEN])).unwrap();
    insert("model.layers.0.self_attn.rotary_emb.inv_freq", zeros(&[2])).unwrap();
    let untied = llama().set("tie_word_embeddings", json!(false));
    assert_refused(untied.open(), "output.weight is missing", "no projection");
}

#[test]
fn settings_that_are_not_computed_are_refused() {
    let llama = |key: &str, value: Value| Folder::sound("llama").set(key, value).open();
    let rope = |value: Value| llama("rope_scaling", value);
    let cases = [
        (llama("model_type", json!("bert")), "bert"),
        (llama("model_type", Value::Null), "model_type"),
        (llama("hidden_size", Value::Null), "hidden_size"),
        (llama("hidden_size", json!(0)), "between 1"),
        (llama("hidden_size", json!(-8)), "invalid value"),
        (llama("hidden_size", json!(1u64 << 40)), "between 1"),
        (llama("num_hidden_layers", json!(3)), "more layers"),
        (llama("num_attention_heads", json!(0)), "num_attention_heads"),
        (llama("num_key_value_heads", json!(0)), "num_key_value_heads"),
        (llama("num_attention_heads", json!(3)), "instead of"),
        (llama("head_dim", json!(3)), "even"),
        (llama("vocab_size", json!(VOCAB + 1)), "instead of"),
        (llama("rms_norm_eps", json!(0.0)), "rms_norm_eps"),
        (llama("hidden_act", json!("relu")), "relu"),
        (llama("mlp_bias", json!(true)), "mlp_bias"),
        (llama("quantization_config", json!({ "bits": 4 })), "quantised"),
        (llama("rope_theta", json!(1.0)), "rope_theta"),
        (llama("partial_rotary_factor", json!(0.5)), "partial_rotary_factor"),
        (rope(json!({ "type": "dynamic", "factor": 2.0 })), "dynamic"),
        (rope(json!({ "type": "linear" })), "factor is missing"),
        (rope(json!({ "type": "linear", "factor": 0.0 })), "factor is 0"),
        (rope(json!({ "rope_type": "llama3", "factor": 8.0 })), "low_freq_factor is missing"),
        (rope(json!({ "rope_type": "yarn", "factor": 2.0, "mscale": 1.0 })), "mscale"),
        (Folder::sound("gemma3_text").set("sliding_window", Value::Null).open(), "sliding_window"),
        (
            Folder::sound("gemma3_text")
                .set("layer_types", json!(["full_attention", "full_attention"]))
                .open(),
            "layer_types",
        ),
        (
            Folder::sound("qwen3").set("layer_types", json!(["chunked_attention"])).open(),
            "chunked_attention",
        ),
    ];
    for (result, part) in cases {
        assert_refused(result, part, part);
    }
}

#[test]
fn positions_are_stretched_as_the_old_and_the_new_spelling_say() {
    let table = |settings: &[(&str, Value)]| {
        let mut folder = llama();
        for (key, value) in settings {
            folder = folder.set(key, value.clone());
        }
        folder.open().unwrap().plan().ropes.clone()
    };
    let linear = json!({ "type": "linear", "factor": 4.0 });
    let old = table(&[("rope_theta", json!(100.0)), ("rope_scaling", linear)]);
    let linear = json!({ "rope_type": "linear", "factor": 4.0, "rope_theta": 100.0 });
    let new = table(&[("rope_theta", Value::Null), ("rope_parameters", linear)]);
    assert_eq!(old, new);
    assert_eq!(old[0].inv_freq, [0.25, 0.025]);
    let gemma = |key: &str, value: Value| {
        let folder = Folder::sound("gemma3_text").set("rope_theta", Value::Null).set(key, value);
        folder.open().unwrap().plan().ropes.clone()
    };
    let kinds = json!({
        "full_attention": { "rope_type": "linear", "factor": 8.0, "rope_theta": 1e6 },
        "sliding_attention": { "rope_type": "default", "rope_theta": 1e4 },
    });
    let ropes = gemma("rope_parameters", kinds);
    assert_eq!(ropes, gemma("rope_scaling", json!({ "rope_type": "linear", "factor": 8.0 })));
    assert_eq!(ropes[0].inv_freq, [0.125, 0.125e-3]);
    assert_eq!(ropes[1].inv_freq, [1.0, 0.01]);
}

#[test]
fn ends_and_templates_come_from_the_files_that_have_them() {
    let config = json!({
        "bos_token": { "content": "<s>" }, "eos_token": "</s>", "add_bos_token": true,
        "chat_template": [{ "name": "tools", "template": "x" }, { "name": "default", "template": "{{ bos_token }}!" }],
    });
    let folder = llama()
        .file("tokenizer_config.json", config.to_string())
        .file("generation_config.json", r#"{"eos_token_id":[257,258]}"#);
    let model = folder.open().unwrap();
    assert_eq!(model.tokenizer().prompt_bos(), Some(256));
    assert_eq!(model.tokenizer().end_tokens(), [257, 258]);
    assert_eq!(model.template().unwrap().render(&[], false).unwrap(), "<s>!");
    let own = folder.clone().file("chat_template.jinja", "{{ eos_token }}?").open().unwrap();
    assert_eq!(own.template().unwrap().render(&[], false).unwrap(), "</s>?");
    let far = folder.file("generation_config.json", r#"{"eos_token_id":[300]}"#);
    assert_refused(far.open(), "outside the vocabulary", "an end that is no token");
    assert!(llama().open().unwrap().template().is_none());
}

#[test]
fn tokenizers_that_are_not_known_are_refused() {
    let change = |at: &str, value: Value| {
        let mut folder = llama();
        *folder.tokenizer.pointer_mut(at).unwrap() = value;
        folder.open()
    };
    let split = json!({ "type": "Split", "pattern": { "Regex": "x|\\s+(?!\\S)|\\s+" }, "behavior": "Isolated" });
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "use_regex": false });
    let metaspace =
        json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first" });
    let added = |added: Value| change("/added_tokens", json!([added]));
    let cases = [
        (change("/model/type", json!("Unigram")), "Unigram"),
        (change("/model", json!({ "type": "Unigram", "vocab": [["a", 0.0]] })), "Unigram"),
        (change("/model/merges/0", json!(["a", "c"])), "does not join"),
        (change("/model/merges/0", json!(["a"])), "invalid length"),
        (change("/model/vocab/ab", json!(65)), "two tokens of the id"),
        (change("/model/vocab/ab", json!(VOCAB)), "the model 270"),
        (change("/model/vocab/ab", json!(-1)), "invalid value"),
        (change("/pre_tokenizer", Value::Null), "pre_tokenizer"),
        (
            change(
                "/pre_tokenizer",
                json!({ "type": "Sequence", "pretokenizers": [split, bytes] }),
            ),
            "Split",
        ),
        (change("/pre_tokenizer/add_prefix_space", json!(true)), "ByteLevel"),
        (change("/pre_tokenizer", metaspace), "Metaspace"),
        (change("/normalizer", json!({ "type": "Lowercase" })), "Lowercase"),
        (change("/post_processor", json!({ "type": "BertProcessing" })), "BertProcessing"),
        (added(json!({ "id": 256, "content": "<s>", "special": true, "lstrip": true })), "spaces"),
        (added(json!({ "id": 258, "content": "<s>", "special": true })), "two tokens of the id"),
    ];
    for (result, part) in cases {
        assert_refused(result, part, part);
    }
}

#[test]
fn added_tokens_without_a_row_are_left_out() {
    let mut folder = llama();
    let image = json!({ "id": VOCAB, "content": "<image>", "special": true });
    folder.tokenizer["added_tokens"].as_array_mut().unwrap().push(image);
    folder.tokenizer["model"]["vocab"]["<image>"] = json!(VOCAB);
    let model = folder.open().unwrap();
    assert_eq!((model.tokenizer().vocab(), model.tokenizer().id("<image>")), (VOCAB, None));
}

#[test]
fn ids_without_a_token_are_holes() {
    let model = llama().open().unwrap();
    let tokenizer = model.tokenizer();
    assert_eq!(tokenizer.vocab(), VOCAB);
    assert_eq!(tokenizer.bytes(265), b"");
    let ids = tokenizer.encode("ab</s>", Special::Parse);
    assert_eq!(ids, [258, 257]);
    assert_eq!(tokenizer.decode(&ids, false), "ab");
}

#[test]
fn the_fingerprint_tells_folders_apart() {
    let print = |folder: Folder| folder.open().unwrap().fingerprint().to_owned();
    let sound = print(llama());
    assert_eq!(sound, print(llama()));
    assert_ne!(sound, print(llama().set("rms_norm_eps", json!(1e-5))));
    assert_ne!(sound, print(llama().set("unknown", json!(1))));
    assert_ne!(sound, print(llama().file("generation_config.json", "{}")));
    let mut other = llama();
    other.tensors.get_mut("model.norm.weight").unwrap().data[3] = 1;
    assert_ne!(sound, print(other));
}

#[test]
fn random_damage_costs_no_more_than_the_folder() {
    let sound = Folder::sound("gemma3_text").write();
    let names = ["config.json", "tokenizer.json", "model.safetensors"];
    let (mut opened, mut refused) = (0, 0);
    for seed in 1..=3000u64 {
        let mut random = crate::damage::Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let name = names[random.below(names.len())];
        let path = sound.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, crate::damage::damaged(&whole, &mut random)).unwrap();
        let size = |name: &str| std::fs::metadata(sound.path().join(name)).unwrap().len() as usize;
        let bytes: usize = names.iter().map(|name| size(name)).sum();
        let (result, grown) = peak_growth(|| ModelFile::open(sound.path()));
        assert!(grown <= EXPANSION * bytes + SLACK, "seed {seed}: {grown} for {bytes}");
        match result {
            Ok(model) => {
                crate::damage::read_everything(&model);
                opened += 1;
            }
            Err(ModelError::Invalid(_) | ModelError::Unsupported(_)) => refused += 1,
            Err(other) => panic!("seed {seed}: {other:?}"),
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert!(opened > 100 && refused > 100, "{opened} {refused}");
}

#[test]
fn a_folder_cut_after_opening_is_an_error() {
    let folder = llama().write();
    let model = ModelFile::open(folder.path()).unwrap();
    let weights =
        std::fs::File::options().write(true).open(folder.path().join("model.safetensors"));
    weights.unwrap().set_len(100).unwrap();
    assert!(matches!(model.read_f32("output_norm.weight"), Err(ModelError::Io { .. })));
}
