//! Reading tensors.

use std::sync::Arc;

use crate::tiny::{self, HIDDEN};
use crate::{assert_refused, on_disk, open};

#[test]
fn rows_are_the_bytes_of_the_file() {
    let data = (0..6 * HIDDEN as usize * 2).map(|i| i as u8).collect::<Vec<_>>();
    let writer =
        tiny::model("llama", 1).change("token_embd.weight", |entry| entry.data = data.clone());
    let model = Arc::new(open(&writer.bytes()).unwrap());
    let row_bytes = model.tensor("token_embd.weight").unwrap().row_bytes;
    assert_eq!(row_bytes, 16);
    let threads = (0..4).map(|first| {
        let (model, data) = (Arc::clone(&model), data.clone());
        std::thread::spawn(move || {
            for rows in [first..first, first..first + 1, first..6] {
                let mut out = vec![0; rows.len() * row_bytes];
                model.read_rows("token_embd.weight", rows.clone(), &mut out).unwrap();
                assert_eq!(out, data[rows.start * row_bytes..rows.end * row_bytes]);
            }
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn rows_outside_a_tensor_are_refused() {
    let model = open(&tiny::model("llama", 1).bytes()).unwrap();
    let read = |name: &str, start: usize, end: usize, len: usize| {
        model.read_rows(name, start..end, &mut vec![0; len])
    };
    assert_refused(read("token_embd.weight", 0, 7, 112), "which has 6", "a row too many");
    assert_refused(read("token_embd.weight", 3, 2, 0), "which has 6", "backwards");
    assert_refused(read("token_embd.weight", 0, usize::MAX, 0), "which has 6", "endless");
    assert_refused(read("token_embd.weight", 0, 2, 31), "31 bytes", "short output");
    assert_refused(read("absent", 0, 1, 1), "no tensor absent", "another name");
}

#[test]
fn floats_of_each_width_are_read_exactly() {
    let values =
        [1.0, -2.5, 65504.0, 6.103_515_6e-5, 5.960_464_5e-8, -0.0, f32::INFINITY, 0.333_251_95];
    let f16 = [0x3c00u16, 0xc100, 0x7bff, 0x0400, 0x0001, 0x8000, 0x7c00, 0x3555];
    let bf16 = values.map(|value: f32| (value.to_bits() >> 16) as u16);
    let bytes = |halves: [u16; 8]| halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    let read = |code: u32, data: Vec<u8>| {
        let writer = tiny::model("llama", 1).change("output_norm.weight", |entry| {
            (entry.code, entry.data) = (code, data);
        });
        open(&writer.bytes()).unwrap().read_f32("output_norm.weight").unwrap()
    };
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let singles = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(bits(&read(0, singles)), bits(&values));
    assert_eq!(bits(&read(1, bytes(f16))), bits(&values));
    let truncated = values.map(|value| f32::from_bits(value.to_bits() & 0xffff_0000));
    assert_eq!(bits(&read(30, bytes(bf16))), bits(&truncated));
}

#[test]
fn quantised_tensors_are_not_floats() {
    let name = "blk.0.ffn_down.weight";
    let mut writer = tiny::model("llama", 1)
        .without("llama.feed_forward_length")
        .u32("llama.feed_forward_length", 32)
        .change(name, |entry| {
            (entry.dims, entry.code, entry.data) = (vec![32, 8], 8, vec![0; 272])
        });
    for wide in ["blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"] {
        writer = tiny::matrix(writer.without_tensor(wide), wide, 32, HIDDEN);
    }
    let model = open(&writer.bytes()).unwrap();
    assert_eq!(model.tensor(name).unwrap().row_bytes, 34);
    assert_refused(model.read_f32(name), "not made of floats", "Q8_0 as floats");
}

#[test]
fn a_file_cut_after_opening_is_an_error() {
    let bytes = tiny::model("llama", 1).bytes();
    let file = on_disk(&bytes);
    let model = pith_model::ModelFile::open(file.path()).unwrap();
    file.as_file().set_len(bytes.len() as u64 / 2).unwrap();
    let lost = model.read_f32("blk.0.ffn_down.weight").unwrap_err();
    assert!(matches!(lost, pith_model::ModelError::Io { .. }), "{lost}");
}

#[test]
fn the_fingerprint_tells_files_apart() {
    let fingerprint =
        |writer: &crate::writer::Writer| open(&writer.bytes()).unwrap().fingerprint().to_owned();
    let whole = tiny::model("llama", 1);
    assert_eq!(fingerprint(&whole), fingerprint(&whole));
    let other_weight = whole.clone().change("blk.0.ffn_up.weight", |entry| entry.data[64] = 1);
    assert_ne!(fingerprint(&whole), fingerprint(&other_weight));
    assert_ne!(fingerprint(&whole), fingerprint(&whole.clone().str("general.license", "other")));
}

#[test]
fn a_model_is_named_by_its_file_where_it_does_not_say() {
    let named = open(&tiny::model("llama", 1).str("general.name", "Tiny").bytes()).unwrap();
    assert_eq!(named.name(), "Tiny");
    let file = on_disk(&tiny::model("llama", 1).bytes());
    let model = pith_model::ModelFile::open(file.path()).unwrap();
    assert_eq!(model.name(), file.path().file_stem().unwrap().to_str().unwrap());
}
