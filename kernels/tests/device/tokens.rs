//! Tokens, known and drawn before.

use pith_kernels::device::tokens::resolve_tokens;
use pith_kernels::device::{DeviceError, DeviceVec};

use crate::{devices, on_both};

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

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let [device, _] = devices();
    let tokens = DeviceVec::<i32>::zeroed(&device, 3).unwrap();
    let out = DeviceVec::<u32>::zeroed(&device, 4).unwrap();
    for (len, vocab) in [(2, 100), (4, 100), (3, 0), (3, 1 << 31)] {
        let out = out.slice(0..len);
        let made = resolve_tokens(&device, tokens.as_slice(), out.slice(0..0), vocab, out);
        assert!(matches!(made, Err(DeviceError::Shape(_))), "{made:?}");
    }
}
