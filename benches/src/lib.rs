//! Criterion benches (`kernels/`): `cargo bench -p pith-benches`.
