//! Weight formats of GGUF (ggml block layouts) and their scalar dequantisation, the oracle.

/// A storage format of weights. Block layouts follow ggml (`ggml-common.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the format")]
#[allow(non_camel_case_types)]
pub enum Quant { F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K }

impl Quant {
    /// Weights per block (1, 32 or 256).
    pub fn block_len(self) -> usize { unimplemented!() }
    /// Bytes per block.
    pub fn block_bytes(self) -> usize { unimplemented!() }
    /// Bytes of a row of `cols` weights, `None` if `cols` is no multiple of the block or on overflow.
    pub fn row_bytes(self, cols: usize) -> Option<usize> { unimplemented!() }
    /// Dequantises one row: `bytes` of `row_bytes(out.len())` into `out`.
    /// # Panics
    /// If the lengths disagree.
    pub fn dequantize_row(self, bytes: &[u8], out: &mut [f32]) { unimplemented!() }
}
