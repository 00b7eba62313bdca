//! Real model files, where the machine has them: `PITH_TEST_MODELS` names a folder of GGUF files.

use std::path::PathBuf;

use pith_model::ModelFile;
use pith_model::file::TensorType;
use pith_model::plan::Activation;

/// The files of the folder whose names begin with `prefix`; says so when there is no folder.
#[expect(clippy::print_stdout, reason = "a test that checks nothing says so")]
fn models(prefix: &str) -> Vec<PathBuf> {
    let Some(folder) = std::env::var_os("PITH_TEST_MODELS") else {
        println!("PITH_TEST_MODELS is not set: no real model is opened");
        return Vec::new();
    };
    let found = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    let found = found.filter(named).collect::<Vec<_>>();
    assert!(!found.is_empty(), "PITH_TEST_MODELS holds no {prefix}*");
    found
}

#[test]
fn smollm2_is_a_llama() {
    for path in models("SmolLM2-135M") {
        let file = ModelFile::open(&path).unwrap();
        let plan = file.plan();
        assert_eq!((plan.architecture.as_str(), plan.layers.len()), ("llama", 30));
        assert_eq!((plan.vocab, plan.hidden, plan.context), (49_152, 576, 8_192));
        assert!(plan.tied_output);
        let layer = &plan.layers[29];
        assert_eq!((layer.heads, layer.kv_heads, layer.head_dim), (9, 3, 64));
        assert_eq!((layer.feed_forward, layer.window), (1_536, None));
        assert!(plan.ropes[0].adjacent);
        assert_eq!(file.tokenizer().vocab(), 49_152);
        assert_eq!(file.template().map(|_| ()), Some(()));
        assert_eq!(file.fingerprint().len(), 64);
        assert_eq!(file.fingerprint(), ModelFile::open(&path).unwrap().fingerprint());

        let norm = file.read_f32("output_norm.weight").unwrap();
        assert_eq!(norm.len(), 576);
        assert!(norm.iter().all(|weight| weight.is_finite()));
        let down = file.tensor("blk.0.ffn_down.weight").unwrap().clone();
        assert_eq!((down.kind, down.row_bytes), (TensorType::Q4_1, 1_536 / 32 * 20));
        // Rows read apart are the rows read together.
        let mut all = vec![0; 4 * down.row_bytes];
        file.read_rows("blk.0.ffn_down.weight", 2..6, &mut all).unwrap();
        let mut one = vec![0; down.row_bytes];
        file.read_rows("blk.0.ffn_down.weight", 5..6, &mut one).unwrap();
        assert_eq!(all[3 * down.row_bytes..], one);
    }
}

#[test]
fn gemma3_sees_everything_on_each_sixth_layer() {
    for path in models("gemma-3-270m") {
        let file = ModelFile::open(&path).unwrap();
        let plan = file.plan();
        assert_eq!((plan.architecture.as_str(), plan.layers.len()), ("gemma3", 18));
        assert_eq!(plan.embedding_scale, 640f32.sqrt());
        let global = (0..18).filter(|&i| plan.layers[i].window.is_none()).collect::<Vec<_>>();
        assert_eq!(global, [5, 11, 17]);
        assert_eq!((plan.layers[0].window, plan.layers[0].rope), (Some(512), 1));
        assert_eq!(plan.layers[5].rope, 0);
        assert_eq!(plan.layers[0].attention_scale, 1.0 / 16.0);
        assert_eq!(plan.layers[0].activation, Activation::GeluTanh);
        let norms = file.read_f32("blk.17.post_ffw_norm.weight").unwrap();
        assert!(norms.iter().all(|weight| weight.is_finite()));
    }
}
