//! An encoder's folder: safetensors, whole and hostile, its description and its tokenizer.

use std::path::Path;

use pith_model::encoder::WordPiece;
use pith_model::safetensors::SafeTensors;
use pith_model::{EncoderFile, ModelError};
use tempfile::TempDir;

use crate::allocation::peak_growth;
use crate::{assert_refused, on_disk};

/// Beyond the file: serde's scratch and small tables.
const SLACK: usize = 64 << 10;

/// A file with this header and so many bytes after it.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn open(bytes: &[u8]) -> Result<SafeTensors, ModelError> {
    SafeTensors::open(on_disk(bytes).path())
}

fn tensor(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

fn sound() -> Vec<u8> {
    let header = format!(
        r#"{{"__metadata__":{{"format":"pt"}},{},{},{},{}}}  "#,
        tensor("b", "F16", "[3]", "[16,22]"),
        tensor("a", "F32", "[2,2]", "[0,16]"),
        tensor("c", "BF16", "[]", "[22,24]"),
        tensor("d", "I64", "[1]", "[24,32]"),
    );
    let mut bytes = file(&header, 32);
    let data = bytes.len() - 32;
    bytes[data..data + 4].copy_from_slice(&1.5f32.to_le_bytes());
    bytes[data + 16..data + 18].copy_from_slice(&0x3e00u16.to_le_bytes());
    bytes[data + 22..data + 24].copy_from_slice(&0x3fc0u16.to_le_bytes());
    bytes
}

#[test]
fn numbers_are_read_whatever_their_type() {
    let tensors = open(&sound()).unwrap();
    assert_eq!(tensors.read("a", &[2, 2]).unwrap(), [1.5, 0.0, 0.0, 0.0]);
    assert_eq!(tensors.read("b", &[3]).unwrap(), [1.5, 0.0, 0.0]);
    assert_eq!(tensors.read("c", &[]).unwrap(), [1.5]);
    assert_refused(tensors.read("a", &[4]), "[2, 2]", "another shape");
    assert_refused(tensors.read("d", &[1]), "floats", "integers");
    assert_refused(tensors.read("e", &[1]), "missing", "no such tensor");
    assert_eq!(tensors.fingerprint().unwrap(), open(&sound()).unwrap().fingerprint().unwrap());
    let mut changed = sound();
    *changed.last_mut().unwrap() = 1;
    assert_ne!(tensors.fingerprint().unwrap(), open(&changed).unwrap().fingerprint().unwrap());
    let mut infinite = sound();
    let at = infinite.len() - 32;
    infinite[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert_refused(open(&infinite).unwrap().read("a", &[2, 2]), "none", "infinity");
}

#[test]
fn headers_that_lie_are_refused() {
    let a = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{{}}}", tensor("a", dtype, shape, offsets))
    };
    let twice = |first: &str, second: &str| {
        format!("{{{},{}}}", tensor("a", "U8", "[4]", first), tensor("b", "U8", "[4]", second))
    };
    let cases = [
        (a("F32", "[2]", "[0,4]"), 8, "fits"),
        (a("F32", "[2]", "[8,0]"), 8, "fits"),
        (a("F32", "[2]", "[0,8]"), 4, "fits"),
        (a("F32", "[2]", "[4,12]"), 12, "gap"),
        (a("F32", "[2]", "[0,8]"), 9, "belong to no tensor"),
        (a("F32", "[18446744073709551615,2]", "[0,8]"), 8, "impossible"),
        (a("F32", "[4611686018427387904]", "[0,8]"), 8, "impossible"),
        (a("F4", "[3]", "[0,2]"), 2, "impossible"),
        (a("F32", "[-1]", "[0,8]"), 8, "header"),
        (a("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8, "more than 8"),
        (a("F99", "[2]", "[0,8]"), 8, "unknown type"),
        (twice("[0,4]", "[0,4]"), 4, "overlap"),
        (twice("[0,4]", "[2,6]"), 6, "overlap"),
        (format!("{{{0},{0}}}", tensor("a", "U8", "[0]", "[0,0]")), 0, "two tensors"),
        ("[]".to_owned(), 0, "header"),
        ("{".to_owned(), 0, "header"),
        ("[".repeat(50_000), 0, "header"),
        (r#"{"__metadata__":{"a":[[[["#.repeat(20_000), 0, "header"),
    ];
    for (header, data, part) in cases {
        let bytes = file(&header, data);
        let path = on_disk(&bytes);
        let (result, grown) = peak_growth(|| SafeTensors::open(path.path()));
        assert!(grown <= 4 * bytes.len() + SLACK, "{grown} for {}", bytes.len());
        assert_refused(result, part, &header[..header.len().min(120)]);
    }
    // A header that claims to be longer than the file, or than any.
    for length in [3, 1 << 20, u64::MAX] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        assert_refused(open(&bytes), "header", "a long header");
    }
    assert_refused(open(&[1, 2, 3]), "short", "three bytes");
}

#[test]
fn no_proper_prefix_and_no_damaged_file_gets_out_of_hand() {
    let whole = sound();
    for len in 0..whole.len() {
        assert!(
            matches!(open(&whole[..len]), Err(ModelError::Invalid(_))),
            "the first {len} bytes"
        );
    }
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..4000_usize {
        let mut bytes = whole.clone();
        for n in 0..=seed % 3 {
            let at = (seed * 31 + n * 97) % bytes.len();
            bytes[at] ^= (seed * 7 + n * 13) as u8 | 1;
        }
        let path = on_disk(&bytes);
        let (result, grown) = peak_growth(|| SafeTensors::open(path.path()));
        assert!(grown <= 4 * bytes.len() + SLACK, "seed {seed}: {grown}");
        match result {
            Ok(tensors) => {
                // What opened can be asked for: no range leads out of the file.
                let _ = tensors.read("a", &[2, 2]);
                let _ = tensors.read("b", &[3]);
                opened += 1;
            }
            Err(ModelError::Invalid(_)) => refused += 1,
            Err(other) => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(opened > 100 && refused > 100, "{opened} {refused}");
}

/// A copy of the tiny encoder that the engine's tests compute with.
fn tiny() -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures/encoder/tiny");
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "sentence_bert_config.json", "model.safetensors"]
    {
        std::fs::copy(from.join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn edit(folder: &TempDir, name: &str, from: &str, to: &str) {
    let path = folder.path().join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{name} has no {from}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_description_of_something_else_is_refused() {
    let sound = EncoderFile::open(tiny().path()).unwrap();
    assert_eq!((sound.config().hidden, sound.config().max_tokens), (32, 40));
    for (name, from, to, part) in [
        ("config.json", "\"bert\"", "\"roberta\"", "roberta"),
        ("config.json", "\"gelu\"", "\"relu\"", "relu"),
        ("config.json", "\"absolute\"", "\"relative_key\"", "relative_key"),
        ("config.json", "\"num_attention_heads\": 2", "\"num_attention_heads\": 5", "evenly"),
        (
            "config.json",
            "\"num_attention_heads\": 2",
            "\"num_attention_heads\": 0",
            "num_attention_heads",
        ),
        ("config.json", "\"hidden_size\": 32", "\"hidden_size\": 99999999", "hidden_size"),
        ("config.json", "\"vocab_size\"", "\"vocabulary\"", "vocab_size"),
        ("config.json", "1e-12", "-1.0", "layer_norm_eps"),
        ("config.json", "\"vocab_size\": 78", "\"vocab_size\": 77", "78 tokens"),
        ("sentence_bert_config.json", "40", "49", "max_seq_length"),
        ("sentence_bert_config.json", "40", "2", "max_seq_length"),
        ("tokenizer.json", "\"[SEP]\"", "\"[END]\"", "[SEP]"),
        ("tokenizer.json", "WordPiece", "WordPieces", "tokenizer.json"),
    ] {
        let folder = tiny();
        edit(&folder, name, from, to);
        assert_refused(EncoderFile::open(folder.path()), part, &format!("{name}: {to}"));
    }
    let folder = tiny();
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    let pooling = r#"{"pooling_mode_mean_tokens": false, "pooling_mode_cls_token": true}"#;
    std::fs::write(folder.path().join("1_Pooling/config.json"), pooling).unwrap();
    assert_refused(EncoderFile::open(folder.path()), "mean", "another pooling");
    let folder = tiny();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert!(matches!(EncoderFile::open(folder.path()), Err(ModelError::Io { .. })));
}

#[test]
fn without_a_stated_length_positions_bound_a_text() {
    let folder = tiny();
    std::fs::remove_file(folder.path().join("sentence_bert_config.json")).unwrap();
    let file = EncoderFile::open(folder.path()).unwrap();
    let encoding = file.tokenizer().encode(&"cat ".repeat(100)).unwrap();
    assert_eq!((encoding.ids.len(), encoding.truncated), (48, true));
}

fn wordpiece() -> WordPiece {
    let text = std::fs::read(tiny().path().join("tokenizer.json")).unwrap();
    WordPiece::read(&text, 40).unwrap()
}

#[test]
fn long_texts_are_cut_where_they_would_be_if_read_whole() {
    let tokenizer = wordpiece();
    let cat = tokenizer.encode("cat").unwrap().ids[1];
    for (text, truncated) in [
        (format!("{}cat", " ".repeat(100_000)), false),
        (format!("cat{}", " ".repeat(100_000)), false),
        (format!("cat{}.", "\u{a0}\n".repeat(10_000)), false),
        ("cat ".repeat(38), false),
        ("cat ".repeat(39), true),
        (format!("{}{}walk", "cat ".repeat(38), " ".repeat(9_000)), true),
        ("東".repeat(30_000), true),
    ] {
        let encoding = tokenizer.encode(&text).unwrap();
        let shown = text.len();
        assert_eq!(encoding.truncated, truncated, "{shown} bytes, {} tokens", encoding.ids.len());
        assert_eq!(
            encoding.ids.len() == 40,
            text.len() > 3 * 38 && text.matches("cat").count() != 1,
            "{shown}"
        );
        assert!(encoding.ids.contains(&cat) || text.starts_with('東'));
    }
    // A word without an end is one unknown token, whatever its length.
    let word = tokenizer.encode(&"a".repeat(5 << 20)).unwrap();
    assert!(word.ids.len() <= 40, "{}", word.ids.len());
    assert_eq!(word.ids[1], tokenizer.encode(&"a".repeat(101)).unwrap().ids[1]);
    // However long, it costs what its beginning costs.
    let begun = std::time::Instant::now();
    let endless = tokenizer.encode(&"a".repeat(50 << 20)).unwrap();
    assert!(endless.truncated && begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[test]
fn texts_cannot_spell_control_tokens() {
    let tokenizer = wordpiece();
    let plain = tokenizer.encode("cat").unwrap().ids;
    let (cls, sep) = (plain[0], plain[2]);
    let spelled = tokenizer.encode("cat [SEP] [CLS] cat").unwrap().ids;
    let inside = &spelled[1..spelled.len() - 1];
    assert!(!inside.contains(&sep) && !inside.contains(&cls), "{spelled:?}");
    assert!(spelled.len() > 6);
}
