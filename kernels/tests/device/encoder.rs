//! Texts of an encoder against the CPU's oracle and plain loops in f64.

use pith_kernels::attention::{BidirectionalShape, bidirectional};
use pith_kernels::device::encoder::{attend_texts, embed_texts, mean_rows};
use pith_kernels::device::{Device, DeviceError, DeviceVec};
use pith_kernels::{Isa, Pool};
use proptest::prelude::*;

use crate::{bits, devices, narrow, noise, on_both, wide};

/// Where texts of these lengths begin and end.
fn offsets_of(lengths: &[usize]) -> Vec<u32> {
    let mut offsets = vec![0];
    for &length in lengths {
        offsets.push(offsets[offsets.len() - 1] + length as u32);
    }
    offsets
}

fn attend(device: &Device, shape: BidirectionalShape, qkv: &[u16], lengths: &[usize]) -> Vec<u16> {
    let rows: usize = lengths.iter().sum();
    let qkv = DeviceVec::from_slice(device, qkv).unwrap();
    let offsets = DeviceVec::from_slice(device, &offsets_of(lengths)).unwrap();
    let out = DeviceVec::new(device, rows * shape.heads * shape.head_dim).unwrap();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    attend_texts(device, shape, qkv.as_slice(), offsets.as_slice(), longest, out.as_slice())
        .unwrap();
    out.as_slice().to_vec().unwrap()
}

proptest! {
    #![proptest_config(crate::cases(24))]

    #[test]
    fn texts_attend_to_themselves(
        heads in 1usize..4,
        head_dim in prop::sample::select(vec![8usize, 32, 40, 64, 80, 96, 112, 128]),
        lengths in prop::collection::vec(prop_oneof![0usize..20, 60usize..70, 0usize..200], 0..4),
        size in prop::sample::select(vec![0.5f32, 3.0]),
        seed in any::<u64>(),
    ) {
        let rows: usize = lengths.iter().sum();
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = BidirectionalShape { heads, head_dim, scale };
        let qkv = narrow(&noise(rows * 3 * heads * head_dim, seed, size));
        let out = on_both(|device| attend(device, shape, &qkv, &lengths));
        let floats: Vec<f32> = qkv.iter().map(|&x| wide(x) as f32).collect();
        let mut expected = vec![0.0; out.len()];
        let pool = Pool::new(1);
        bidirectional(Isa::Scalar, &pool, shape, &floats, &lengths, &mut expected).unwrap();
        for (&got, expected) in out.iter().zip(expected) {
            // Weights lose 2^-9 of themselves, and what they weigh is at most `size`.
            let off = (wide(got) - f64::from(expected)).abs();
            let bound = f64::from(expected.abs()) / 256.0 + f64::from(size) / 400.0;
            prop_assert!(off <= bound, "{} for {expected}", wide(got));
        }
        // The last text alone has the same bits.
        if let Some(&last) = lengths.last() {
            let [device, _] = devices();
            let (from, width) = (rows - last, heads * head_dim);
            let alone = attend(&device, shape, &qkv[from * 3 * width..], &[last]);
            prop_assert_eq!(&alone, &out[from * width..]);
        }
    }

    #[test]
    fn rows_are_sums_of_words_and_places(
        hidden in prop_oneof![1usize..50, Just(384usize)],
        tokens in prop::collection::vec((0u32..30, 0u32..9), 0..6),
    ) {
        let (vocab, positions) = (25, 7);
        let words = narrow(&noise(vocab * hidden, 1, 1.0));
        let table = noise(positions * hidden, 2, 1.0);
        let (ids, places): (Vec<u32>, Vec<u32>) = tokens.iter().copied().unzip();
        let stream = on_both(|device| {
            let words = DeviceVec::from_slice(device, &words).unwrap();
            let table = DeviceVec::from_slice(device, &table).unwrap();
            let ids = DeviceVec::from_slice(device, &ids).unwrap();
            let places = DeviceVec::from_slice(device, &places).unwrap();
            let stream = DeviceVec::new(device, tokens.len() * hidden).unwrap();
            let (words, table, to) = (words.as_slice(), table.as_slice(), stream.as_slice());
            embed_texts(device, words, table, ids.as_slice(), places.as_slice(), to).unwrap();
            to.to_vec().unwrap()
        });
        for (at, &got) in stream.iter().enumerate() {
            let (token, place) = tokens[at / hidden];
            let word = (token as usize).min(vocab - 1) * hidden + at % hidden;
            let place = (place as usize).min(positions - 1) * hidden + at % hidden;
            prop_assert_eq!(got, wide(words[word]) as f32 + table[place]);
        }
    }

    #[test]
    fn means_are_of_a_texts_own_rows(
        width in prop_oneof![1usize..50, Just(384usize)],
        lengths in prop::collection::vec(0usize..40, 0..5),
    ) {
        let rows: usize = lengths.iter().sum();
        let input = noise(rows * width, 3, 4.0);
        let mut offsets = offsets_of(&lengths);
        // A text the rows do not hold.
        offsets.push(rows as u32 + 1);
        let means = on_both(|device| {
            let input = DeviceVec::from_slice(device, &input).unwrap();
            let offsets = DeviceVec::from_slice(device, &offsets).unwrap();
            let out = DeviceVec::new(device, (lengths.len() + 1) * width).unwrap();
            let (input, to) = (input.as_slice(), out.as_slice());
            mean_rows(device, input, width, offsets.as_slice(), to).unwrap();
            bits(&to.to_vec().unwrap())
        });
        let mut first = 0;
        for (text, mean) in means.chunks_exact(width).enumerate() {
            let length = lengths.get(text).copied().unwrap_or(0);
            for (column, &got) in mean.iter().enumerate() {
                let x = |row: usize| f64::from(input[(first + row) * width + column]);
                let sum: f64 = (0..length).map(x).sum();
                let expected = sum / length.max(1) as f64;
                prop_assert!((f64::from(f32::from_bits(got)) - expected).abs() < 1e-5);
            }
            first += length;
        }
    }
}

/// Offsets that leave the rows, or fall, belong to no text: nothing is read or written for them.
#[test]
fn wrong_offsets_do_no_harm() {
    let shape = BidirectionalShape { heads: 1, head_dim: 16, scale: 0.25 };
    for wrong in [[3u32, 2], [0, 5], [u32::MAX, 1], [9, 12]] {
        let out = on_both(|device| {
            let qkv = DeviceVec::from_slice(device, &narrow(&noise(4 * 48, 1, 1.0))).unwrap();
            let offsets = DeviceVec::from_slice(device, &wrong).unwrap();
            let out = DeviceVec::<u16>::zeroed(device, 4 * 16).unwrap();
            let (qkv, to) = (qkv.as_slice(), out.as_slice());
            attend_texts(device, shape, qkv, offsets.as_slice(), 4, to).unwrap();
            to.to_vec().unwrap()
        });
        assert_eq!(out, [0; 64]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let [device, _] = devices();
    let shape = |head_dim| BidirectionalShape { heads: 1, head_dim, scale: 1.0 };
    let halves = DeviceVec::<u16>::zeroed(&device, 3 * 160).unwrap();
    let offsets = DeviceVec::<u32>::zeroed(&device, 2).unwrap();
    let floats = DeviceVec::<f32>::zeroed(&device, 24).unwrap();
    let (h, o) = (|len| halves.slice(0..len), offsets.as_slice());
    let f = |len| floats.slice(0..len);
    for made in [
        attend_texts(&device, shape(160), h(480), o, 1, h(160)),
        attend_texts(&device, shape(12), h(36), o, 1, h(12)),
        attend_texts(&device, shape(16), h(32), o, 1, h(16)),
        attend_texts(&device, shape(16), halves.slice(1..49), o, 1, h(16)),
        attend_texts(&device, shape(16), h(48), o.first(0), 1, h(16)),
        mean_rows(&device, f(24), 7, o, f(8)),
        mean_rows(&device, f(24), 8, o, f(16)),
        embed_texts(&device, h(16), f(0), o, o, f(16)),
        embed_texts(&device, h(16), f(24), o, o.first(1), f(16)),
    ] {
        assert!(matches!(made, Err(DeviceError::Shape(_))), "{made:?}");
    }
}
