//! What a step's attention reads beside the cache, and the plans.

use pith_kernels::attention::{AttentionShape, BiasSpan};
use pith_kernels::device::attention::{
    DecodePlan, MetaLayout, PrefillPath, SequenceMeta, prefill_rows,
};
use pith_kernels::device::kv::DeviceKvKind;
use pith_kernels::device::{DeviceError, DeviceLimits};

fn limits() -> DeviceLimits {
    DeviceLimits {
        name: "a card".to_owned(),
        capability: (9, 0),
        multiprocessors: 132,
        shared_bytes: 227 << 10,
        memory_bytes: 80 << 30,
    }
}

fn shape(window: Option<u32>) -> AttentionShape {
    AttentionShape { heads: 32, kv_heads: 8, head_dim: 128, scale: 0.1, window, softcap: None }
}

#[test]
fn plans_hold_every_split_and_no_more_blocks_than_run_at_once() {
    let plan = |rows, context, window| {
        DecodePlan::new(&limits(), &shape(window), DeviceKvKind::Bf16, rows, context).unwrap()
    };
    // 256 keys a split, 32 splits at most; a window of 1,000 keys is at most 1,063 from where splits begin.
    let capacities =
        [(1, None), (257, None), (100_000, None), (100_000, Some(1000)), (300, Some(1000))]
            .map(|(context, window)| plan(3, context, window).capacity);
    assert_eq!(capacities, [3, 6, 96, 15, 6]);
    assert_eq!(plan(2, 1000, None).workspace(), 8 * 32 * 130);
    // Every context has room in the list of the longest.
    for window in [None, Some(1), Some(255), Some(1000)] {
        let plan = plan(1, 20_000, window);
        for context in (1..20_000usize).step_by(97) {
            let layout = MetaLayout {
                decode: std::slice::from_ref(&plan),
                tile_rows: 1,
                bias_spans: 0,
                block_size: 16,
            };
            let blocks = vec![0; context.div_ceil(16)];
            let sequence = SequenceMeta {
                first_row: 0,
                rows: 1,
                context,
                blocks: &blocks,
                bias: &[],
                decode: true,
            };
            let mut words = Vec::new();
            let ranges = layout.pack(&[sequence], &mut words).unwrap();
            assert!(
                (1..=plan.capacity).contains(&(words[ranges.items[0].start] as usize)),
                "{context}"
            );
            assert_eq!(ranges.items[0].len(), plan.item_words());
        }
    }
}

#[test]
fn a_step_is_laid_out_where_its_bucket_was() {
    let plans = [None, Some(64)].map(|window| {
        DecodePlan::new(&limits(), &shape(window), DeviceKvKind::Bf16, 4, 2000).unwrap()
    });
    let layout = MetaLayout { decode: &plans, tile_rows: 32, bias_spans: 3, block_size: 16 };
    let blocks: Vec<u32> = (0..60).collect();
    let bias = [BiasSpan { start: 2, end: 9, bias: 1.0 }];
    let sequence = |first_row, rows, context, decode| SequenceMeta {
        first_row,
        rows,
        context,
        blocks: &blocks,
        bias: &bias,
        decode,
    };
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let mixed = [sequence(0, 2, 300, true), sequence(2, 70, 800, false), sequence(72, 1, 17, true)];
    let first = layout.pack(&mixed, &mut one).unwrap();
    let second = layout.pack(&[sequence(0, 1, 5, true)], &mut two).unwrap();
    assert_eq!(
        (&first.rows, &first.items, &first.biases),
        (&second.rows, &second.items, &second.biases)
    );
    assert_eq!(second.tables.start, second.biases.end);
    // Query row, context, table, first span, spans.
    let bias_count = 1;
    assert_eq!(
        one[first.rows.clone()],
        [
            [0, 299, 0, 0, bias_count],
            [1, 300, 0, 0, bias_count],
            [72, 17, 19 + 50, 2, bias_count],
            [73, 0, 0, 0, 0],
        ]
        .concat()
    );
    // Contexts of 299, 300 and 17 tokens: 2, 2 and 1 splits; with a window one each.
    assert_eq!(one[first.items[0].clone()][..10], [5, 0, 2, 4, 0, 0, 1, 32, 33, 64]);
    assert_eq!(one[first.items[1].clone()][..8], [3, 0, 1, 2, 0, 0, 32, 64]);
    // Two tiles of 32 rows and one of 6, those that see most keys first.
    assert_eq!(
        one[first.tiles.clone()],
        [[66, 6, 794, 19, 1, 1], [34, 32, 762, 19, 1, 1], [2, 32, 730, 19, 1, 1],].concat()
    );
    assert_eq!(one[first.tables.clone()].len(), 19 + 50 + 2);
    assert_eq!(one[first.biases.clone()][..3], [2, 9, 1.0f32.to_bits()]);
}

#[test]
fn what_was_not_planned_for_is_refused() {
    let plan = DecodePlan::new(&limits(), &shape(None), DeviceKvKind::F8, 1, 100).unwrap();
    let layout = MetaLayout {
        decode: std::slice::from_ref(&plan),
        tile_rows: 32,
        bias_spans: 0,
        block_size: 16,
    };
    let blocks: Vec<u32> = (0..7).collect();
    let sequence = |rows, context| SequenceMeta {
        first_row: 0,
        rows,
        context,
        blocks: &blocks,
        bias: &[],
        decode: true,
    };
    for (rows, context) in [(2, 50), (1, 101), (1, 113), (5, 4)] {
        let packed = layout.pack(&[sequence(rows, context)], &mut Vec::new());
        assert!(matches!(packed, Err(DeviceError::Shape(_))), "{rows} {context}");
    }
    layout.pack(&[sequence(1, 100)], &mut Vec::new()).unwrap();
    let odd = AttentionShape { head_dim: 72, ..shape(None) };
    assert!(DecodePlan::new(&limits(), &odd, DeviceKvKind::Bf16, 1, 100).is_err());
}

#[test]
fn tiles_fit_the_path() {
    let rows = |head_dim, kind, path| {
        prefill_rows(&limits(), &AttentionShape { head_dim, ..shape(None) }, kind, path)
    };
    assert_eq!(rows(128, DeviceKvKind::Bf16, PrefillPath::Auto), 32);
    assert_eq!(rows(128, DeviceKvKind::Bf16, PrefillPath::Mma), 16);
    assert_eq!(rows(128, DeviceKvKind::F8, PrefillPath::Auto), 16);
    assert_eq!(rows(96, DeviceKvKind::Bf16, PrefillPath::Warpgroup), 16);
}
