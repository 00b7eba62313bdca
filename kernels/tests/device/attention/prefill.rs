//! Rows of prompts.

use pith_kernels::attention::AttentionShape;
use pith_kernels::device::attention::{MetaLayout, PrefillPath, attend_prefill, prefill_rows};
use pith_kernels::device::kv::DeviceKvKind;
use pith_kernels::device::{Device, DeviceVec};
use proptest::prelude::*;

use super::{Layer, Sequence, any_layer, any_sequence, expect_rows, fill, metas, queries, upload};
use crate::devices;

const UNTOUCHED: u16 = 0x1234;

/// Attention of the sequences' rows, from row 1 on.
fn attended(
    device: &Device,
    layer: &Layer,
    sequences: &[Sequence],
    path: PrefillPath,
) -> (Vec<u16>, Vec<super::Stored>) {
    let shape = &layer.shape;
    let (kv, stored) = fill(device, layer, sequences);
    let tile_rows = prefill_rows(device.limits(), shape, layer.kind, path);
    let layout = MetaLayout { decode: &[], tile_rows, bias_spans: 0, block_size: layer.block_size };
    let (words, ranges) = upload(device, &layout, &metas(sequences, &stored, 1, false));
    let width = shape.heads * shape.head_dim;
    let mut all = vec![UNTOUCHED; width];
    sequences.iter().for_each(|sequence| all.extend(queries(shape, sequence)));
    let out = DeviceVec::from_slice(device, &vec![UNTOUCHED; all.len()]).unwrap();
    let queries = DeviceVec::from_slice(device, &all).unwrap();
    let part = |range: &std::ops::Range<usize>| words.slice(range.clone());
    attend_prefill(
        device,
        shape,
        &kv,
        queries.as_slice(),
        part(&ranges.tiles),
        part(&ranges.tables),
        part(&ranges.biases),
        path,
        out.as_slice(),
    )
    .unwrap();
    (out.as_slice().to_vec().unwrap(), stored)
}

/// Holds a path to the sums, in both orders of threads, and rows to themselves alone and in chunks.
fn hold(layer: &Layer, sequences: &[Sequence], path: PrefillPath, cut: usize) {
    let [forwards, backwards] = devices();
    let (out, stored) = attended(&forwards, layer, sequences, path);
    assert_eq!(attended(&backwards, layer, sequences, path).0, out);
    let width = layer.shape.heads * layer.shape.head_dim;
    assert!(out[..width].iter().all(|&bits| bits == UNTOUCHED));
    let mut row = 1;
    for (sequence, stored) in sequences.iter().zip(&stored) {
        let found = &out[row * width..][..sequence.rows * width];
        expect_rows(&layer.shape, sequence, stored, found);
        // The last chunk of a prompt that is cut elsewhere.
        let rows = 1 + cut % sequence.rows;
        let chunk = Sequence { rows, ..sequence.clone() };
        let alone = attended(&forwards, layer, std::slice::from_ref(&chunk), path).0;
        assert_eq!(&alone[width..], &found[(sequence.rows - rows) * width..]);
        row += sequence.rows;
    }
}

proptest! {
    #![proptest_config(crate::cases(8))]

    #[test]
    fn rows_are_what_the_sums_say_alone_and_in_chunks(
        layer in any_layer(),
        sequences in prop::collection::vec(any_sequence(300, 70), 1..=2),
        cut in 0usize..1000,
    ) {
        hold(&layer, &sequences, PrefillPath::Mma, cut);
    }

    /// Products of four warps, which the host does by what their descriptors say.
    #[test]
    fn products_of_four_warps_make_the_same_of_them(
        layer in any_layer(),
        sequences in prop::collection::vec(any_sequence(300, 70), 1..=2),
        cut in 0usize..1000,
        large in any::<bool>(),
    ) {
        let head_dim = if large { 128 } else { 64 };
        let shape = AttentionShape { head_dim, ..layer.shape };
        let layer = Layer { shape, kind: DeviceKvKind::Bf16, ..layer };
        hold(&layer, &sequences, PrefillPath::Warpgroup, cut);
    }
}

proptest! {
    #![proptest_config(crate::cases(30))]

    /// Guard pages end every allocation.
    #[test]
    fn whatever_the_numbers_say_nothing_beyond_the_memory_is_touched(
        tiles in prop::collection::vec(prop_oneof![0u32..40, any::<u32>()], 18),
        tables in prop::collection::vec(prop_oneof![0u32..6, any::<u32>()], 7),
        biases in prop::collection::vec(any::<u32>(), 7),
        kind in prop::sample::select(vec![DeviceKvKind::Bf16, DeviceKvKind::F8]),
        path in prop::sample::select(vec![PrefillPath::Mma, PrefillPath::Warpgroup]),
    ) {
        let [device, _] = devices();
        let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 64, scale: 0.2, window: Some(50), softcap: None };
        let layer = Layer { shape, kind, block_size: 16 };
        let sequence = Sequence { context: 40, rows: 1, bias: Vec::new(), seed: 3 };
        let (kv, _) = fill(&device, &layer, &[sequence]);
        let [tiles, tables, biases] = [tiles, tables, biases].map(|words| DeviceVec::from_slice(&device, &words).unwrap());
        let queries = DeviceVec::from_slice(&device, &[0x3f80u16; 128 * 4]).unwrap();
        let out = DeviceVec::zeroed(&device, 128 * 4).unwrap();
        attend_prefill(
            &device, &shape, &kv, queries.as_slice(), tiles.as_slice(), tables.as_slice(), biases.as_slice(),
            path, out.as_slice(),
        ).unwrap();
    }
}
