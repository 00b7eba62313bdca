//! Products as the library wants them described.

use super::super::library::cublaslt::{
    cublasComputeType_t, cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t,
    cublasLtMatmulDescCreate, cublasLtMatmulDescDestroy, cublasLtMatmulDescSetAttribute,
    cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
    cublasLtMatmulPreferenceCreate, cublasLtMatmulPreferenceDestroy,
    cublasLtMatmulPreferenceSetAttribute, cublasLtMatrixLayout_t, cublasLtMatrixLayoutCreate,
    cublasLtMatrixLayoutDestroy, cudaDataType,
};
use super::{WORKSPACE, accepted};
use crate::device::{DeviceError, Product, ProductOut};

/// Where parts of a product are summed up afterwards, that is done in f32
/// (`CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE`), never in the result's sixteen bits.
const SUMS_IN_F32: u32 = 2;
/// `CUBLAS_OP_T`.
static TRANSPOSED: i32 = 1;

/// What the library sees: it counts columns first. To it, `a` and `b` lie transposed, and so does the result, which thus is
/// `b a^T`: `b` to be transposed back, `a` as it lies.
#[derive(Debug)]
pub(super) struct Operation(pub(super) cublasLtMatmulDesc_t);

impl Operation {
    pub(super) fn new() -> Result<Self, DeviceError> {
        let mut raw = std::ptr::null_mut();
        let compute = cublasComputeType_t::CUBLAS_COMPUTE_32F;
        // SAFETY: the library is here.
        let status =
            unsafe { cublasLtMatmulDescCreate(&raw mut raw, compute, cudaDataType::CUDA_R_32F) };
        accepted("cublasLtMatmulDescCreate", status)?;
        let made = Self(raw);
        // SAFETY: alive; the attribute is one such value.
        let status = unsafe {
            cublasLtMatmulDescSetAttribute(
                made.0,
                cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const TRANSPOSED).cast(),
                size_of_val(&TRANSPOSED),
            )
        };
        accepted("cublasLtMatmulDescSetAttribute", status)?;
        Ok(made)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: made in `new`.
        unsafe { cublasLtMatmulDescDestroy(self.0) };
    }
}

/// How a matrix lies: `columns` numbers of a row one after the other.
#[derive(Debug)]
pub(super) struct Layout(pub(super) cublasLtMatrixLayout_t);

impl Layout {
    /// Rows of `columns` numbers that begin `stride` apart.
    pub(super) fn new(
        kind: cudaDataType,
        rows: usize,
        columns: usize,
        stride: usize,
    ) -> Result<Self, DeviceError> {
        let mut raw = std::ptr::null_mut();
        let distance = i64::try_from(stride).unwrap_or(i64::MAX);
        // SAFETY: the library is here.
        let status = unsafe {
            cublasLtMatrixLayoutCreate(&raw mut raw, kind, columns as u64, rows as u64, distance)
        };
        accepted("cublasLtMatrixLayoutCreate", status)?;
        Ok(Self(raw))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made in `new`.
        unsafe { cublasLtMatrixLayoutDestroy(self.0) };
    }
}

/// Those of a product's matrices.
#[derive(Debug)]
pub(super) struct Layouts {
    pub(super) a: Layout,
    pub(super) b: Layout,
    pub(super) out: Layout,
}

impl Layouts {
    pub(super) fn of(product: &Product) -> Result<Self, DeviceError> {
        let Product { rows, outputs, inputs, out_stride, kind, .. } = *product;
        let kind = match kind {
            ProductOut::Bf16 => cudaDataType::CUDA_R_16BF,
            ProductOut::F32 | ProductOut::AddF32 => cudaDataType::CUDA_R_32F,
        };
        Ok(Self {
            a: Layout::new(cudaDataType::CUDA_R_16BF, rows, inputs, inputs)?,
            b: Layout::new(cudaDataType::CUDA_R_16BF, outputs, inputs, inputs)?,
            out: Layout::new(kind, rows, outputs, out_stride)?,
        })
    }
}

/// What is asked of an algorithm.
pub(super) struct Preference(pub(super) cublasLtMatmulPreference_t);

impl Preference {
    pub(super) fn new(alignment: u64) -> Result<Self, DeviceError> {
        use cublasLtMatmulPreferenceAttributes_t as Attribute;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the library is here.
        let status = unsafe { cublasLtMatmulPreferenceCreate(&raw mut raw) };
        accepted("cublasLtMatmulPreferenceCreate", status)?;
        let made = Self(raw);
        made.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
        made.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &SUMS_IN_F32)?;
        let alignment = alignment as u32;
        for matrix in [
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            made.set(matrix, &alignment)?;
        }
        Ok(made)
    }

    /// `value` has the attribute's type: 64 bits for the workspace, 32 for all others.
    fn set<T>(
        &self,
        attribute: cublasLtMatmulPreferenceAttributes_t,
        value: &T,
    ) -> Result<(), DeviceError> {
        let from = std::ptr::from_ref(value).cast();
        // SAFETY: as many bytes are read as there are; a wrong number of them is refused.
        let status = unsafe {
            cublasLtMatmulPreferenceSetAttribute(self.0, attribute, from, size_of::<T>())
        };
        accepted("cublasLtMatmulPreferenceSetAttribute", status)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made in `new`.
        unsafe { cublasLtMatmulPreferenceDestroy(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::library::cublaslt::LIBRARY;
    use super::*;

    #[test]
    fn what_describes_a_product_needs_no_card() {
        if LIBRARY.probe().is_err() {
            return;
        }
        assert!(super::super::version().unwrap().split('.').count() == 3);
        Operation::new().unwrap();
        let (a, b, out) = (0x1000, 0x2000, 0x4000);
        let kind = ProductOut::Bf16;
        let product =
            Product { rows: 3, outputs: 64, inputs: 128, a, b, out, out_stride: 64, kind };
        Layouts::of(&product).unwrap();
        Preference::new(16).unwrap();
    }
}
