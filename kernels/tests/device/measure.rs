//! What is measured is all there, and takes time.

use pith_kernels::Pool;
use pith_kernels::device::measure::{Amount, Dimensions, Extent, ceilings, works};
use pith_kernels::device::{DeviceError, host};

use crate::devices;

/// Small enough for fibers.
const SIZES: Dimensions =
    Dimensions { hidden: 64, feed_forward: 96, heads: 4, kv_heads: 2, head_dim: 16, vocab: 70 };

fn extent() -> Extent {
    Extent {
        copy_bytes: 4096,
        product_side: 64,
        rotated_bytes: 30_000,
        sample_seconds: 0.0,
        samples: 1,
        few_rows: vec![1, 3],
        many_rows: vec![9],
        decode_rows: vec![1, 2],
        decode_keys: vec![40],
        prefill_rows: vec![20],
        step_rows: vec![2],
    }
}

#[test]
fn every_kernel_has_its_rate() {
    let ([device, _], pool, extent) = (devices(), Pool::new(1), extent());
    let ceilings = ceilings(&device, &pool, &extent).unwrap();
    assert!(ceilings.copy.rate() > 0.0);
    for work in works(device.limits(), &SIZES, &extent) {
        let cells = work.measure(&device, &pool, &SIZES, &extent).unwrap();
        assert_eq!(cells.iter().map(|cell| cell.rows).collect::<Vec<_>>(), work.rows);
        for cell in cells {
            match cell.measured {
                Ok(measured) => {
                    let share = ceilings.share(&measured);
                    let known = match measured.amount {
                        Amount::Bytes(_) => true,
                        Amount::Operations(_) => ceilings.product.is_ok(),
                    };
                    assert!(measured.rate() > 0.0 && measured.rate().is_finite(), "{work:?}");
                    assert_eq!(share.is_some_and(|share| share > 0.0), known, "{work:?}");
                }
                // The host has no library of the vendor's; where a card has none, that is told.
                Err(DeviceError::Missing(_)) => {
                    assert!(work.name.starts_with("cublaslt") && ceilings.product.is_err());
                }
                Err(error) => panic!("{work:?}: {error}"),
            }
        }
    }
}

#[test]
fn a_path_that_falls_back_is_no_line_of_its_own() {
    let names = |head_dim| {
        let sizes = Dimensions { head_dim, ..SIZES };
        let limits = host::device(2).limits().clone();
        let works = works(&limits, &sizes, &extent());
        works.into_iter().map(|work| work.name).collect::<Vec<_>>()
    };
    assert!(names(64).iter().any(|name| name == "prefill attention wgmma"));
    assert!(!names(16).iter().any(|name| name == "prefill attention wgmma"));
}
