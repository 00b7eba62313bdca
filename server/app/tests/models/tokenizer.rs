//! Token ids equal llama.cpp's, for the models the project runs and for small vocabularies of every supported rule.

use pith_model::ModelFile;
use pith_model::tokenizer::{Special, TokenSpan, Tokenizer, Vocab};
use pith_server::hub;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    models: std::collections::HashMap<String, Cases>,
}

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    parse: Vec<u32>,
    plain: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct Synthetic {
    vocabularies: Vec<Small>,
}

#[derive(Deserialize)]
struct Small {
    name: String,
    vocab: Fields,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Fields {
    model: String,
    pre: String,
    tokens: Vec<String>,
    #[serde(default)]
    scores: Vec<f32>,
    token_types: Vec<i32>,
    #[serde(default)]
    merges: Vec<String>,
    bos: u32,
    eos: u32,
    unk: Option<u32>,
    add_space_prefix: Option<bool>,
}

/// What cannot be seen in a vocabulary's fields.
#[derive(Default)]
struct Traits {
    /// Text is read as if a space came first, and behind each special token.
    prefix: bool,
    /// Bytes without a token.
    missing: &'static [u8],
}

/// Checks ids in both modes, and that spans and bytes agree with them.
fn check(name: &str, tokenizer: &Tokenizer, cases: &[Case], traits: &Traits) {
    let mut wrong = Vec::new();
    for Case { text, parse, plain } in cases {
        let plain = plain.as_ref().unwrap_or(parse);
        for (special, expected) in [(Special::Parse, parse), (Special::Plain, plain)] {
            let ids = tokenizer.encode(text, special);
            if ids != *expected {
                wrong
                    .push(format!("{text:?} {special:?}\n  is     {ids:?}\n  should {expected:?}"));
            }
            let spans = tokenizer.encode_spans(text, special);
            assert!(spans.iter().map(|span| span.id).eq(ids.iter().copied()), "{name}: {text:?}");
            if text.bytes().any(|byte| traits.missing.contains(&byte)) {
                continue;
            }
            assert_cover(text, &spans);
            if special == Special::Plain {
                assert!(ids.iter().all(|&id| !tokenizer.is_control(id)), "{name}: {text:?}");
            }
            // U+2581 and a space are the same to SentencePiece.
            if !traits.prefix && !text.contains('\u{2581}') {
                assert_eq!(tokenizer.decode(&ids, true), *text, "{name}");
            }
        }
    }
    let (count, all) = (wrong.len(), cases.len());
    assert!(wrong.is_empty(), "{name}: {count} of {all} cases differ\n{}", wrong.join("\n"));
}

/// `spans` leave nothing of `text` out, and go forward.
fn assert_cover(text: &str, spans: &[TokenSpan]) {
    let mut covered = 0;
    let mut start = 0;
    for span in spans {
        assert!(
            text.is_char_boundary(span.start) && text.is_char_boundary(span.end),
            "{text:?} {span:?}"
        );
        assert!(span.start <= covered && span.start >= start, "{text:?} {span:?}");
        assert!(span.end >= covered, "{text:?} {span:?}");
        (start, covered) = (span.start, span.end);
    }
    assert_eq!(covered, text.len(), "{text:?}");
}

/// Fetches the model on first use.
fn check_model(name: &str) {
    let golden: Golden =
        serde_json::from_str(include_str!("../../../model/tests/fixtures/tokenizer_golden.json"))
            .unwrap();
    let path = hub::resolve(name).unwrap().path;
    let file = ModelFile::open(&path).unwrap();
    let cases = &golden.models[path.file_name().unwrap().to_str().unwrap()].cases;
    check(name, file.tokenizer(), cases, &Traits::default());
}

#[test]
fn smollm2_agrees_with_llama_cpp() {
    check_model("smollm2");
}

#[test]
fn gemma3_agrees_with_llama_cpp() {
    check_model("gemma3");
}

#[test]
fn small_vocabularies_agree_with_llama_cpp() {
    let synthetic: Synthetic = serde_json::from_str(include_str!(
        "../../../model/tests/fixtures/tokenizer_synthetic.json"
    ))
    .unwrap();
    assert_eq!(synthetic.vocabularies.len(), 8);
    for Small { name, vocab, cases } in synthetic.vocabularies {
        let missing: &[u8] = if vocab.model == "gpt2" { &[0xF4, 0x1B] } else { &[] };
        let traits = Traits { prefix: vocab.add_space_prefix == Some(true), missing };
        let vocab = Vocab {
            model: vocab.model,
            pre: Some(vocab.pre),
            tokens: vocab.tokens,
            scores: vocab.scores,
            token_types: vocab.token_types,
            merges: vocab.merges,
            bos: Some(vocab.bos),
            eos: Some(vocab.eos),
            unk: vocab.unk,
            add_space_prefix: vocab.add_space_prefix,
            ..Vocab::default()
        };
        let tokenizer = Tokenizer::from_vocab(vocab).unwrap();
        check(&name, &tokenizer, &cases, &traits);
    }
}
