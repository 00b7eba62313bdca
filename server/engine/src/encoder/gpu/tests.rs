use std::path::Path;
use std::sync::Arc;

use pith_kernels::device::host::HostDevice;

use super::*;

/// Token ids that no tokenizer makes: the last row of the table stands for them, and nothing is read beyond it.
#[test]
fn ids_beyond_the_vocabulary_stay_within_the_table() {
    for name in ["tiny", "odd"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoder");
        let file = EncoderFile::open(&folder.join(name)).unwrap();
        let pool = Pool::new(1);
        let open = || Ok(Device::new(Arc::new(HostDevice::new(3, false))));
        let encoder = GpuEncoder::load(&file, &pool, Box::new(open)).unwrap();
        let vocab = file.config().vocab as u32;
        let vector = |ids: &[u32]| {
            let encoding = Encoding { ids: ids.to_vec(), truncated: false };
            let mut out = Vec::new();
            encoder.run(&file, &pool, &[encoding], &mut out).unwrap();
            out
        };
        let last = vector(&[2, vocab - 1, 3]);
        assert!(last.iter().all(|number| number.is_finite()));
        for hostile in [vocab, vocab + 1, i32::MAX as u32, u32::MAX] {
            assert_eq!(vector(&[2, hostile, 3]), last, "{name}: {hostile}");
        }
        assert_ne!(vector(&[2, vocab - 2, 3]), last);
    }
}

#[test]
fn a_batch_beyond_the_work_space_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoder/tiny");
    let file = EncoderFile::open(&folder).unwrap();
    let pool = Pool::new(1);
    let open = || Ok(Device::new(Arc::new(HostDevice::new(3, false))));
    let encoder = GpuEncoder::load(&file, &pool, Box::new(open)).unwrap();
    let text = |tokens: usize| Encoding { ids: vec![1; tokens], truncated: false };
    let one_too_many = vec![text(0); TEXTS + 1];
    for batch in [&[text(ROWS + 1)][..], &one_too_many] {
        let mut out = vec![1.0];
        let refused = encoder.run(&file, &pool, batch, &mut out);
        assert!(matches!(refused, Err(EncoderError::Device(DeviceError::Shape(_)))), "{refused:?}");
        assert_eq!(out, [1.0]);
    }
    // A text of no tokens, which no tokenizer makes, is a vector of zeros; more rows than positions stay at the last.
    let mut out = Vec::new();
    encoder.run(&file, &pool, &[text(0), text(100)], &mut out).unwrap();
    let (none, some) = out.split_at(file.config().hidden);
    assert!(none.iter().all(|&number| number == 0.0) && some.iter().all(|x| x.is_finite()));
}
