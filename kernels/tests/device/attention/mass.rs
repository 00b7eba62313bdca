//! Where rows look.

use std::ops::Range;

use pith_kernels::device::DeviceVec;
use pith_kernels::device::attention::{MassAsk, MassRanges, attention_mass};
use proptest::prelude::*;

use super::{any_layer, any_sequence, fill, queries, weights};
use crate::devices;

proptest! {
    #![proptest_config(crate::cases(30))]

    #[test]
    fn masses_are_what_the_sums_say(
        layer in any_layer(),
        sequences in prop::collection::vec(any_sequence(300, 2), 1..=3),
        starts in prop::collection::vec((0u32..300, 0u32..200), 1..5),
    ) {
        let shape = &layer.shape;
        let spans: Vec<Range<u32>> = starts.iter().map(|&(start, len)| start..start + len).collect();
        let heads = [shape.heads - 1, 0, shape.heads / 2];
        let width = shape.heads * shape.head_dim;
        let all: Vec<Vec<u16>> = sequences.iter().map(|sequence| queries(shape, sequence)).collect();
        let mut first: Option<Vec<f32>> = None;
        for device in devices() {
            let (kv, stored) = fill(&device, &layer, &sequences);
            let mut asks = Vec::new();
            let mut row = 0;
            for (at, (sequence, stored)) in sequences.iter().zip(&stored).enumerate() {
                row += sequence.rows;
                asks.push(MassAsk {
                    row: row - 1,
                    context: sequence.context,
                    blocks: &stored.blocks,
                    heads: &heads[..1 + at],
                    spans: &spans[at.min(spans.len())..],
                });
            }
            let mut words = vec![9];
            let ranges = MassRanges::pack(&asks, &mut words).unwrap();
            let words = DeviceVec::from_slice(&device, &words).unwrap();
            let rows = DeviceVec::from_slice(&device, &all.concat()).unwrap();
            let workspace = DeviceVec::new(&device, ranges.workspace()).unwrap();
            let out = DeviceVec::new(&device, ranges.spans()).unwrap();
            attention_mass(
                &device, shape, &kv, rows.as_slice(), words.as_slice(), &ranges, workspace.as_slice(), out.as_slice(),
            ).unwrap();
            let out = out.as_slice().to_vec().unwrap();
            let mut at = 0;
            for (ask, ((sequence, stored), rows)) in asks.iter().zip(sequences.iter().zip(&stored).zip(&all)) {
                let query = &rows[(sequence.rows - 1) * width..];
                let heads: Vec<(usize, Vec<f64>)> = ask.heads.iter()
                    .map(|&head| weights(shape, &[], &stored.keys, head, query, sequence.context - 1))
                    .collect();
                for span in ask.spans {
                    let mass: f64 = heads.iter().flat_map(|(first, weights)| {
                        (span.start..span.end).filter_map(|key| weights.get((key as usize).checked_sub(*first)?))
                    }).sum();
                    let mean = mass / ask.heads.len() as f64;
                    prop_assert!((f64::from(out[at]) - mean).abs() < 1e-5, "{} {mean}", out[at]);
                    at += 1;
                }
            }
            prop_assert_eq!(at, out.len());
            prop_assert_eq!(&out, first.get_or_insert_with(|| out.clone()));
        }
    }
}
