//! Single rows over long contexts.

use pith_kernels::attention::AttentionShape;
use pith_kernels::device::attention::{DecodePlan, MetaLayout, MetaRanges, attend_decode};
use pith_kernels::device::kv::{DeviceKv, DeviceKvKind};
use pith_kernels::device::{Device, DeviceError, DeviceVec, Graph};
use proptest::prelude::*;

use super::{Layer, Sequence, any_layer, any_sequence, expect_rows, fill, metas, queries, upload};
use crate::devices;

/// What stands in rows nobody writes.
const UNTOUCHED: u16 = 0x1234;

/// A batch on a device, ready to be attended to.
struct Batch {
    queries: DeviceVec<u16>,
    words: DeviceVec<u32>,
    ranges: MetaRanges,
    plan: DecodePlan,
    workspace: DeviceVec<f32>,
    out: DeviceVec<u16>,
}

impl Batch {
    /// The sequences' rows from row 1 on, in a bucket with `spare` rows more.
    fn new(
        device: &Device,
        layer: &Layer,
        sequences: &[Sequence],
        stored: &[super::Stored],
        spare: usize,
    ) -> Self {
        let shape = &layer.shape;
        let rows: usize = sequences.iter().map(|sequence| sequence.rows).sum();
        let longest = sequences.iter().map(|sequence| sequence.context).max().unwrap();
        let plan =
            DecodePlan::new(device.limits(), shape, layer.kind, rows + spare, longest).unwrap();
        let layout = MetaLayout {
            decode: std::slice::from_ref(&plan),
            tile_rows: 1,
            bias_spans: 4,
            block_size: layer.block_size,
        };
        let (words, ranges) = upload(device, &layout, &metas(sequences, stored, 1, true));
        let mut all = vec![UNTOUCHED; shape.heads * shape.head_dim];
        sequences.iter().for_each(|sequence| all.extend(queries(shape, sequence)));
        all.resize((1 + rows + spare) * shape.heads * shape.head_dim, 0x7fc0);
        let out = DeviceVec::from_slice(device, &vec![UNTOUCHED; all.len()]).unwrap();
        let queries = DeviceVec::from_slice(device, &all).unwrap();
        let workspace = DeviceVec::new(device, plan.workspace()).unwrap();
        Self { queries, words, ranges, plan, workspace, out }
    }

    fn attend(&self, device: &Device, shape: &AttentionShape, kv: &DeviceKv) {
        let part = |range: &std::ops::Range<usize>| self.words.slice(range.clone());
        attend_decode(
            device,
            shape,
            kv,
            self.queries.as_slice(),
            part(&self.ranges.rows),
            part(&self.ranges.items[0]),
            part(&self.ranges.tables),
            part(&self.ranges.biases),
            &self.plan,
            self.workspace.as_slice(),
            self.out.as_slice(),
        )
        .unwrap();
    }
}

/// Attention of the sequences' rows, from row 1 on.
fn attended(
    device: &Device,
    layer: &Layer,
    sequences: &[Sequence],
    spare: usize,
) -> (Vec<u16>, Vec<super::Stored>) {
    let (kv, stored) = fill(device, layer, sequences);
    let batch = Batch::new(device, layer, sequences, &stored, spare);
    batch.attend(device, &layer.shape, &kv);
    (batch.out.as_slice().to_vec().unwrap(), stored)
}

proptest! {
    #![proptest_config(crate::cases(40))]

    #[test]
    fn rows_are_what_the_sums_say_alone_and_in_company(
        layer in any_layer(),
        sequences in prop::collection::vec(any_sequence(900, 2), 1..=3),
        spare in 0usize..=2,
    ) {
        let [forwards, backwards] = devices();
        let (out, stored) = attended(&forwards, &layer, &sequences, spare);
        prop_assert_eq!(&attended(&backwards, &layer, &sequences, spare).0, &out);
        let width = layer.shape.heads * layer.shape.head_dim;
        prop_assert!(out[..width].iter().all(|&bits| bits == UNTOUCHED));
        let mut row = 1;
        for (sequence, stored) in sequences.iter().zip(&stored) {
            let found = &out[row * width..][..sequence.rows * width];
            expect_rows(&layer.shape, sequence, stored, found);
            let alone = attended(&forwards, &layer, std::slice::from_ref(sequence), 0).0;
            prop_assert_eq!(&alone[width..], found);
            row += sequence.rows;
        }
        prop_assert!(out[row * width..].iter().all(|&bits| bits == 0));
    }
}

#[test]
fn contexts_beyond_the_most_splits_have_longer_ones() {
    let shape = AttentionShape {
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        scale: 0.3,
        window: None,
        softcap: None,
    };
    let layer = Layer { shape, kind: DeviceKvKind::Bf16, block_size: 64 };
    for context in [8192, 8193, 9000] {
        let sequence = Sequence { context, rows: 1, bias: Vec::new(), seed: 5 };
        for device in devices() {
            let (out, stored) = attended(&device, &layer, std::slice::from_ref(&sequence), 0);
            expect_rows(&shape, &sequence, &stored[0], &out[64..]);
        }
    }
}

#[test]
fn a_recording_follows_contexts_that_grow() {
    let [device, _] = devices();
    let shape = AttentionShape {
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        scale: 0.2,
        window: Some(400),
        softcap: None,
    };
    let layer = Layer { shape, kind: DeviceKvKind::F8, block_size: 16 };
    let grown = [300, 700].map(|context| Sequence { context, rows: 1, bias: Vec::new(), seed: 3 });
    let (kv, stored) = fill(&device, &layer, &grown);
    // Recorded for both sequences, replayed for the one, then for both.
    let both = Batch::new(&device, &layer, &grown, &stored, 0);
    let one = Batch::new(&device, &layer, &grown[1..], &stored[1..], 1);
    let attend = || {
        both.attend(&device, &shape, &kv);
        Ok::<_, DeviceError>(())
    };
    let graph = Graph::record(&device, attend).unwrap();
    let (words_of_both, words_of_one) =
        (both.words.as_slice().to_vec().unwrap(), one.words.as_slice().to_vec().unwrap());
    let width = 4 * 64;
    both.words.slice(0..words_of_one.len()).upload(&words_of_one).unwrap();
    both.queries.as_slice().upload(&one.queries.as_slice().to_vec().unwrap()).unwrap();
    graph.replay().unwrap();
    let out = both.out.as_slice().to_vec().unwrap();
    expect_rows(&shape, &grown[1], &stored[1], &out[width..2 * width]);
    assert!(out[2 * width..].iter().all(|&bits| bits == 0));
    both.words.as_slice().upload(&words_of_both).unwrap();
    graph.replay().unwrap();
    let out = both.out.as_slice().to_vec().unwrap();
    // Its queries are those of the other, so it is held to what an eager call makes of them.
    both.attend(&device, &shape, &kv);
    assert_eq!(out, both.out.as_slice().to_vec().unwrap());
}

proptest! {
    #![proptest_config(crate::cases(60))]

    /// Guard pages end every allocation.
    #[test]
    fn whatever_the_numbers_say_nothing_beyond_the_memory_is_touched(
        words in prop::collection::vec(prop_oneof![0u32..40, any::<u32>()], 60),
        window in prop::option::of(1u32..500),
    ) {
        let [device, _] = devices();
        let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 16, scale: 0.2, window, softcap: None };
        let layer = Layer { shape, kind: DeviceKvKind::Bf16, block_size: 16 };
        let sequence = Sequence { context: 40, rows: 1, bias: Vec::new(), seed: 3 };
        let (kv, _) = fill(&device, &layer, &[sequence]);
        let plan = DecodePlan::new(device.limits(), &shape, layer.kind, 3, 600).unwrap();
        let cut = |from: usize, len: usize| {
            let some: Vec<u32> = words.iter().cycle().skip(from).take(len).copied().collect();
            DeviceVec::from_slice(&device, &some).unwrap()
        };
        let (rows, items, tables, biases) = (cut(0, 15), cut(15, plan.item_words()), cut(40, 9), cut(50, 7));
        let queries = DeviceVec::from_slice(&device, &[0x3f80u16; 32 * 4]).unwrap();
        let workspace = DeviceVec::zeroed(&device, plan.workspace()).unwrap();
        let out = DeviceVec::zeroed(&device, 32 * 4).unwrap();
        attend_decode(
            &device, &shape, &kv, queries.as_slice(), rows.as_slice(), items.as_slice(), tables.as_slice(),
            biases.as_slice(), &plan, workspace.as_slice(), out.as_slice(),
        ).unwrap();
    }
}
