//! Random weights: the same every time, in whatever pieces they are read, and of a size that computing keeps finite.

use pith_model::ModelFile;
use pith_model::file::TensorType;
use pith_model::random::Shape;
use pith_model::tokenizer::Special;

#[test]
fn rows_are_the_same_in_any_pieces() {
    let model = ModelFile::random(Shape::Tiny).unwrap();
    let again = ModelFile::random(Shape::Tiny).unwrap();
    assert_eq!(model.fingerprint(), again.fingerprint());
    let name = "blk.1.ffn_down.weight";
    let tensor = model.tensor(name).unwrap();
    let mut whole = vec![0; tensor.rows * tensor.row_bytes];
    model.read_rows(name, 0..tensor.rows, &mut whole).unwrap();
    for rows in [0..1, 3..7, tensor.rows - 1..tensor.rows] {
        let mut piece = vec![0; rows.len() * tensor.row_bytes];
        again.read_rows(name, rows.clone(), &mut piece).unwrap();
        assert_eq!(piece, whole[rows.start * tensor.row_bytes..rows.end * tensor.row_bytes]);
    }
    let mut other = vec![0; whole.len()];
    model.read_rows("blk.0.ffn_down.weight", 0..tensor.rows, &mut other).unwrap();
    assert_ne!(whole, other);
}

#[test]
fn weights_deviate_by_a_fiftieth_and_norms_are_one() {
    let model = ModelFile::random(Shape::Llama32_1b).unwrap();
    let mut values = Vec::new();
    for name in ["blk.0.attn_q.weight", "blk.15.attn_k.weight"] {
        values.extend(model.read_f32(name).unwrap());
    }
    let count = values.len() as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let square = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / count;
    assert!(mean.abs() < 1e-4 && (square.sqrt() - 0.02).abs() < 2e-4, "{mean} {square}");
    // Neighbours, along a row and between rows, have nothing to do with each other.
    for apart in [1, 2, 4, 2048] {
        let product = values.iter().zip(&values[apart..]).map(|(&a, &b)| f64::from(a * b));
        let correlation = product.sum::<f64>() / count / square;
        assert!(correlation.abs() < 2e-3, "{apart}: {correlation}");
    }
    assert!(model.read_f32("blk.3.ffn_norm.weight").unwrap().iter().all(|&one| one == 1.0));
}

#[test]
fn shapes_are_those_that_were_published() {
    // Weights as model cards count them.
    for (shape, count, vocab) in [
        (Shape::Llama31_8b, 8_030_261_248u64, 128_256),
        (Shape::Llama32_1b, 1_235_814_400, 128_256),
        (Shape::Qwen3_06b, 596_049_920, 151_936),
    ] {
        let model = ModelFile::random(shape).unwrap();
        assert_eq!(Shape::named(shape.name()), Some(shape));
        assert_eq!((model.plan().vocab, model.tokenizer().vocab()), (vocab, vocab));
        let mut names = vec!["token_embd.weight".to_owned(), "output_norm.weight".to_owned()];
        names.extend((!model.plan().tied_output).then(|| "output.weight".to_owned()));
        for layer in 0..model.plan().layers.len() {
            let parts = [
                "attn_norm",
                "attn_q",
                "attn_k",
                "attn_v",
                "attn_output",
                "attn_q_norm",
                "attn_k_norm",
                "ffn_norm",
                "ffn_gate",
                "ffn_up",
                "ffn_down",
            ];
            names.extend(parts.map(|part| format!("blk.{layer}.{part}.weight")));
        }
        let tensors = names.iter().filter_map(|name| model.tensor(name));
        assert_eq!(tensors.map(|tensor| (tensor.rows * tensor.cols) as u64).sum::<u64>(), count);
        assert_eq!(model.tensor("blk.0.attn_q.weight").unwrap().kind, TensorType::BF16);
    }
}

#[test]
fn tokens_read_as_words_and_any_text_becomes_tokens() {
    let model = ModelFile::random(Shape::Tiny).unwrap();
    let tokenizer = model.tokenizer();
    for text in ["", "plain words", "東京 \u{0}", "<s>"] {
        let ids = tokenizer.encode(text, Special::Plain);
        assert_eq!(tokenizer.decode(&ids, false), text);
    }
    assert_eq!(tokenizer.decode(&[300, 301], false), " pa pe");
}
