//! The container: one case per way a header can lie.
//!
//! The list follows the handcrafted cases of llama.cpp's own GGUF tests and the published
//! weaknesses of GGUF readers, named where there is one.

use crate::writer::{Writer, array, code, text};
use crate::{assert_refused, read_container};

/// Two tensors of 8 F32.
fn two_tensors() -> Writer {
    Writer::default().floats("first", &[8], &[1.0; 8]).floats("second", &[4, 2], &[2.0; 8])
}

#[test]
fn sound_files_are_read() {
    let aligned = |alignment: u32| {
        Writer { alignment: alignment as usize, ..two_tensors() }
            .u32("general.alignment", alignment)
    };
    let sound = [
        ("nothing but a header", Writer::default()),
        ("version 2", Writer { version: 2, ..two_tensors() }),
        ("pairs alone", Writer::default().u32("a", 1).str("b", "").strs("c", &[]).bool("d", true)),
        ("tensors alone", two_tensors()),
        ("pairs and tensors", two_tensors().str("a", "b")),
        ("alignment 1", aligned(1)),
        ("alignment 8", aligned(8)),
        ("alignment 64", aligned(64)),
        ("alignment 64 KiB", aligned(65_536)),
        (
            "tensors out of order",
            two_tensors()
                .change("first", |entry| entry.offset = Some(32))
                .change("second", |entry| entry.offset = Some(0)),
        ),
        ("a gap", two_tensors().change("first", |entry| entry.data.resize(96, 0))),
        ("four dimensions", Writer::default().floats("t", &[2, 2, 2, 1], &[0.0; 8])),
        ("a name of 64 bytes", Writer::default().floats(&"n".repeat(64), &[1], &[0.0])),
    ];
    for (case, writer) in sound {
        let gguf =
            read_container(&writer.bytes()).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(gguf.tensors.iter().len(), writer.tensors.len(), "{case}");
        assert_eq!(gguf.metadata.keys().count(), writer.pairs.len(), "{case}");
    }
}

#[test]
fn lies_in_the_header_are_refused() {
    let header = Writer::default;
    let refused = [
        ("empty file", Vec::new(), "it ends inside the magic"),
        ("bad magic", Writer { magic: *b"GGML", ..header() }.bytes(), "magic"),
        ("version 0", Writer { version: 0, ..header() }.bytes(), "version 0"),
        ("version 1", Writer { version: 1, ..header() }.bytes(), "GGUF version 1"),
        ("future version", Writer { version: 4, ..header() }.bytes(), "GGUF version 4"),
        ("big endian", Writer { version: 3 << 24, ..header() }.bytes(), "big-endian"),
        // CVE-2024-23605, CVE-2024-21836: a count times a size wraps.
        ("-1 pairs", Writer { pair_count: Some(u64::MAX), ..header() }.bytes(), "key-value pairs"),
        ("pairs that wrap", lying_pairs(1 << 60), "key-value pairs"),
        ("pairs that do not fit", lying_pairs(1_000), "cannot fit"),
        ("a pair too few", lying_pairs(1), "cannot fit"),
        ("-1 tensors", lying_tensors(u64::MAX), "tensors are too many"),
        ("tensors that do not fit", lying_tensors(60_000), "cannot fit"),
    ];
    for (case, bytes, part) in refused {
        assert_refused(read_container(&bytes), part, case);
    }
}

fn lying_pairs(count: u64) -> Vec<u8> {
    Writer { pair_count: Some(count), ..Writer::default() }.bytes()
}

fn lying_tensors(count: u64) -> Vec<u8> {
    Writer { tensor_count: Some(count), ..Writer::default() }.bytes()
}

#[test]
fn lies_in_pairs_are_refused() {
    let header = Writer::default;
    let mut long_key = header().bytes();
    long_key[16..24].copy_from_slice(&1u64.to_le_bytes());
    long_key.extend_from_slice(&(u64::MAX - 7).to_le_bytes());
    long_key.extend_from_slice(&[0; 32]);
    let huge_text = |len: u64| {
        let mut payload = len.to_le_bytes().to_vec();
        payload.extend_from_slice(&[b'x'; 64]);
        header().pair("a", code::STRING, &payload).bytes()
    };
    let many = |kind: u32, count: u64| {
        header().pair("a", code::ARRAY, &array(kind, count, &[0; 64])).bytes()
    };
    let refused = [
        ("empty key", header().u32("", 1).bytes(), "a key is empty"),
        ("duplicate key", header().u32("a", 1).str("b", "").u32("a", 2).bytes(), "twice"),
        // CVE-2024-23496, CVE-2024-21825: a string's length plus one wraps.
        ("key of -8 bytes", long_key, "a key is"),
        ("string of -1 bytes", huge_text(u64::MAX), "bytes long"),
        ("string past the end", huge_text(65), "cannot fit"),
        ("string of 2^40 bytes", huge_text(1 << 40), "bytes long"),
        (
            "not UTF-8",
            header().pair("a", code::STRING, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]).bytes(),
            "UTF-8",
        ),
        ("unknown type", header().pair("a", 13, &[0; 8]).bytes(), "unknown type 13"),
        ("bool of 2", header().pair("a", code::BOOL, &[2]).bytes(), "neither false nor true"),
        // CVE-2025-66959, CVE-2024-12055, candle #3533: memory for a declared count.
        ("array of -1", many(code::U8, u64::MAX), "elements"),
        ("array that wraps", many(code::U32, 1 << 62), "elements"),
        ("array past the end", many(code::U32, 17), "cannot fit"),
        ("strings past the end", many(code::STRING, 9), "cannot fit"),
        ("array of arrays", many(code::ARRAY, 1), "array of arrays"),
        ("array of an unknown type", many(77, 1), "unknown type 77"),
        // GGML_PAD reports of 2026: padding to 2^31 wraps, dividing by 0 traps.
        ("alignment 0", header().u32("general.alignment", 0).bytes(), "power of two"),
        ("alignment 13", header().u32("general.alignment", 13).bytes(), "power of two"),
        ("alignment 2^31", header().u32("general.alignment", 1 << 31).bytes(), "power of two"),
        ("alignment as text", header().str("general.alignment", "32").bytes(), "not a u32"),
        (
            "alignment as i32",
            header().pair("general.alignment", code::I32, &[32, 0, 0, 0]).bytes(),
            "not a u32",
        ),
    ];
    for (case, bytes, part) in refused {
        assert_refused(read_container(&bytes), part, case);
    }
}

#[test]
fn lies_in_tensors_are_refused() {
    let shaped = |dims: &[u64]| Writer::default().tensor("t", dims, 0, vec![0; 64]).bytes();
    let typed = |code: u32| Writer::default().tensor("t", &[32], code, vec![0; 64]).bytes();
    let second =
        |change: fn(&mut crate::writer::Entry)| two_tensors().change("second", change).bytes();
    let misaligned = Writer { alignment: 8, ..two_tensors() };
    let refused = [
        ("no name", Writer::default().floats("", &[1], &[0.0]).bytes(), "no name"),
        (
            "name of 65 bytes",
            Writer::default().floats(&"n".repeat(65), &[1], &[0.0]).bytes(),
            "65 bytes long",
        ),
        ("name of -1 bytes", second(|entry| entry.name_len = Some(u64::MAX)), "bytes long"),
        (
            "duplicate name",
            two_tensors().change("second", |entry| entry.name = "first".to_owned()).bytes(),
            "twice",
        ),
        ("0 dimensions", shaped(&[]), "0 dimensions"),
        ("5 dimensions", shaped(&[1; 5]), "5 dimensions"),
        ("2^32 - 1 dimensions", second(|entry| entry.dim_count = Some(u32::MAX)), "dimensions"),
        ("dimension of 0", shaped(&[4, 0]), "length 0"),
        // CVE-2024-21802, CVE-2025-53630 and its bypasses: products and sums of sizes wrap.
        ("dimension of -1", shaped(&[u64::MAX]), "cannot be of shape"),
        ("dimension of 2^63", shaped(&[1 << 63]), "cannot be of shape"),
        ("elements that wrap to 0", shaped(&[1 << 32, 1 << 32]), "cannot be of shape"),
        ("rows that wrap", shaped(&[1, 1 << 32, 1 << 32]), "cannot be of shape"),
        ("bytes that wrap", shaped(&[1 << 31, 1 << 31]), "cannot be of shape"),
        ("more than the file", shaped(&[17]), "past the file's end"),
        ("two that wrap together", two_huge(), "past the file's end"),
        ("unknown type", typed(99), "unknown type 99"),
        ("a type of the past", typed(4), "unknown type 4"),
        ("a type not computed with", typed(10), "Q2_K"),
        (
            "part of a block",
            Writer::default().tensor("t", &[48], 8, vec![0; 64]).bytes(),
            "cannot be of shape",
        ),
        // CVE-2026-7482: an offset beyond the file leaks what lies there.
        ("offset past the end", second(|entry| entry.offset = Some(64)), "past the file's end"),
        (
            "offset of -32",
            second(|entry| entry.offset = Some(u64::MAX - 31)),
            "past the file's end",
        ),
        ("offset not aligned", second(|entry| entry.offset = Some(4)), "not a multiple"),
        (
            "other alignment than stated",
            misaligned.floats("third", &[2], &[0.0; 2]).floats("fourth", &[2], &[0.0; 2]).bytes(),
            "not a multiple",
        ),
        ("overlap", second(|entry| entry.offset = Some(0)), "overlap"),
        ("not enough data", cut(two_tensors().bytes(), 1), "past the file's end"),
        ("no data", cut(two_tensors().bytes(), 64), "past the file's end"),
    ];
    for (case, bytes, part) in refused {
        assert_refused(read_container(&bytes), part, case);
    }
}

/// Two tensors of 2^63 - 64 bytes whose sum is small when it wraps.
fn two_huge() -> Vec<u8> {
    let huge = [0x7fff_ffff_ffff_ffc0 / 4];
    Writer::default()
        .tensor("first", &huge, 0, Vec::new())
        .tensor("second", &huge, 0, Vec::new())
        .change("second", |entry| entry.offset = Some(0x7fff_ffff_ffff_ffc0))
        .bytes()
}

fn cut(mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    bytes.truncate(bytes.len() - len);
    bytes
}

#[test]
fn a_mistyped_key_is_an_error_not_a_reading() {
    let metadata = read_container(
        &Writer::default()
            .str("text", "x")
            .pair("small", code::I8, &[0xff])
            .pair("scores", code::ARRAY, &array(code::I8, 2, &[1, 2]))
            .pair("lengths", code::ARRAY, &array(code::I32, 1, &[0xff; 4]))
            .f32("endless", f32::INFINITY)
            .bytes(),
    )
    .unwrap()
    .metadata;
    assert_refused(metadata.u32("text"), "text is not an integer", "string as integer");
    assert_refused(metadata.u32("small"), "small is not an integer", "negative as unsigned");
    assert_refused(metadata.f32s("scores"), "scores is not an array of f32", "i8 as f32");
    assert_refused(metadata.u32_each("lengths", 1), "lengths is not", "negative in an array");
    assert_refused(metadata.u32_each("scores", 2), "scores is not", "bytes as sizes");
    assert_refused(metadata.f32("endless"), "finite", "infinity");
    assert_refused(metadata.bool("small"), "not a bool", "integer as bool");
    assert_eq!(metadata.u32("absent").unwrap(), None);
}

#[test]
fn folders_and_missing_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.gguf");
    assert_refused(pith_model::ModelFile::open(folder.path()), "has no config.json", "folder");
    match pith_model::ModelFile::open(&missing) {
        Err(error @ pith_model::ModelError::Io { .. }) => {
            assert!(error.to_string().contains("missing.gguf"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_cannot_forge_messages() {
    let name = "a\n\u{1b}[31merror: all is well";
    let said = read_container(&Writer::default().pair(name, 99, &text("")).bytes()).unwrap_err();
    assert!(!said.to_string().chars().any(char::is_control), "{said}");
}
