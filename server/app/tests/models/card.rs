//! The same on the card whose number is in `PITH_TEST_DEVICE` (`cuda:N`), with the feature `card` alone.

use std::time::Instant;

use pith_engine::encoder::Encoder;
use pith_kernels::Pool;
use pith_kernels::device::cuda;

use crate::encoder::{embed, golden, near, open};

/// Largest cosine distance from the reference in bfloat16. Seen with the kernels run by a CPU: 3.7e-5.
const DISTANCE: f32 = 2e-4;

#[test]
fn minilm_agrees_with_transformers() {
    let ordinal =
        std::env::var("PITH_TEST_DEVICE").unwrap().trim_start_matches("cuda:").parse().unwrap();
    let card = Box::new(move || cuda::device(ordinal));
    let encoder = Encoder::load_on(open(), Pool::new(2), card).unwrap();
    let cases = golden();
    let texts: Vec<&str> = cases.iter().map(|case| &*case.text).collect();
    let vectors = embed(&encoder, &texts);
    println!("{}", near(&cases, &vectors, DISTANCE));
    for (text, vector) in texts.iter().zip(&vectors) {
        assert!(embed(&encoder, &[text])[0] == *vector, "{text:?}");
    }
    let many: Vec<&str> = texts.iter().cycle().take(20_000).copied().collect();
    let begun = Instant::now();
    let embedded = encoder.embed(&many, &mut Vec::new(), || true).unwrap();
    let tokens: usize = embedded.iter().map(|text| text.tokens).sum();
    let seconds = begun.elapsed().as_secs_f64();
    println!("{}: {:.0} tokens/s, tokenising included", encoder.place(), tokens as f64 / seconds);
}
