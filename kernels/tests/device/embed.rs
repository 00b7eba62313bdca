//! Tokens, and the rows that stand for them.

use pith_kernels::device::embed::{embed_bf16, resolve_tokens};
use pith_kernels::device::{DeviceError, DeviceVec};
use proptest::prelude::*;

use crate::{devices, narrow, noise, on_both, wide};

#[test]
fn tokens_drawn_before_are_looked_up() {
    let tokens = [5, -1, -3, 0, -4, i32::MIN, i32::MAX, 99, 100];
    let drawn = [7u32, 8, 400];
    let out = on_both(|device| {
        let tokens = DeviceVec::from_slice(device, &tokens).unwrap();
        let drawn = DeviceVec::from_slice(device, &drawn).unwrap();
        let out = DeviceVec::new(device, tokens.len()).unwrap();
        let (tokens, drawn) = (tokens.as_slice(), drawn.as_slice());
        resolve_tokens(device, tokens, drawn, 100, out.as_slice()).unwrap();
        out.as_slice().to_vec().unwrap()
    });
    assert_eq!(out, [5, 7, 99, 0, 0, 0, 99, 99, 99]);
}

proptest! {
    #![proptest_config(crate::cases(30))]

    #[test]
    fn rows_are_those_of_their_tokens(
        hidden in prop_oneof![1usize..80, Just(1024usize), Just(1100)],
        tokens in prop::collection::vec(0u32..25, 0..12),
        shift in 0usize..2,
        scale in prop_oneof![Just(1.0f32), Just(25.3)],
    ) {
        let vocab = 20;
        let table = narrow(&noise(vocab * hidden + shift, 3, 2.0));
        let stream = on_both(|device| {
            let table = DeviceVec::from_slice(device, &table).unwrap();
            let tokens = DeviceVec::from_slice(device, &tokens).unwrap();
            let stream = DeviceVec::new(device, tokens.len() * hidden).unwrap();
            let table = table.slice(shift..shift + vocab * hidden);
            embed_bf16(device, table, tokens.as_slice(), scale, stream.as_slice()).unwrap();
            stream.as_slice().to_vec().unwrap()
        });
        for (at, &got) in stream.iter().enumerate() {
            let token = (tokens[at / hidden] as usize).min(vocab - 1);
            let expected = wide(table[shift + token * hidden + at % hidden]) as f32 * scale;
            prop_assert_eq!(got, expected);
        }
    }
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let [device, _] = devices();
    let table = DeviceVec::<u16>::zeroed(&device, 40).unwrap();
    let tokens = DeviceVec::<u32>::zeroed(&device, 3).unwrap();
    let stream = DeviceVec::<f32>::zeroed(&device, 24).unwrap();
    for (table_len, tokens_len, stream_len) in [(40, 3, 23), (39, 3, 24), (0, 3, 24), (40, 0, 8)] {
        let (table, tokens) = (table.slice(0..table_len), tokens.slice(0..tokens_len));
        let made = embed_bf16(&device, table, tokens, 1.0, stream.slice(0..stream_len));
        assert!(matches!(made, Err(DeviceError::Shape(_))), "{made:?}");
    }
}
