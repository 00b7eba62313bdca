//! Every kernel of the device against its oracle, on the host in the device's place: random shapes, guard pages,
//! poisoned memory, threads in both orders.

#![expect(clippy::unwrap_used, reason = "a test")]

mod device {
    mod copy;
    mod host;
    mod matrix;
    mod matrix_multiply;
    mod kv;
}

use pith_kernels::device::{Device, host};

/// A device whose threads run forwards and one whose run backwards.
fn devices() -> [Device; 2] {
    [host::device(3), host::backwards_device(3)]
}
