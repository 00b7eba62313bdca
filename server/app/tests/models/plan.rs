//! The models of the catalogue are read as what they are.

use pith_model::ModelFile;
use pith_model::file::TensorType;
use pith_model::plan::Activation;
use pith_server::hub;

#[test]
fn smollm2_is_a_llama() {
    let path = hub::resolve("smollm2").unwrap().path;
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

#[test]
fn gemma3_sees_everything_on_each_sixth_layer() {
    let path = hub::resolve("gemma3").unwrap().path;
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
