//! What the device can do at most.

use super::clock::seconds;
use super::{Amount, Extent, Measured, data};
use crate::device::matrix::MatmulPath;
use crate::device::{Device, DeviceError};
use crate::{Pool, Quant};

/// What kernels are read against.
#[derive(Debug, Clone, PartialEq)]
pub struct Ceilings {
    /// Copies within the device's memory; bytes read and written both count.
    pub copy: Measured,
    /// Products of large matrices of bfloat16 by the vendor's library, or why there are none.
    pub product: Result<Measured, DeviceError>,
}

impl Ceilings {
    /// The share of its ceiling that `measured` reaches, if that is known.
    #[must_use]
    pub fn share(&self, measured: &Measured) -> Option<f64> {
        let ceiling = match measured.amount {
            Amount::Bytes(_) => Some(&self.copy),
            Amount::Operations(_) => self.product.as_ref().ok(),
        };
        Some(measured.rate() / ceiling?.rate())
    }
}

/// Measures both.
///
/// # Errors
/// The device failed.
pub fn ceilings(device: &Device, pool: &Pool, extent: &Extent) -> Result<Ceilings, DeviceError> {
    let numbers = extent.copy_bytes / 2;
    let copy = {
        let (from, to) = (data::halves(device, numbers)?, data::halves(device, numbers)?);
        let copy = |_| from.as_slice().copy_to(to.as_slice());
        let amount = Amount::Bytes(2.0 * from.bytes() as f64);
        Measured { seconds: seconds(device, extent, copy)?, amount }
    };
    let (side, quant, path) = (extent.product_side, Quant::BF16, MatmulPath::Vendor);
    let shape = super::products::Shape { outputs: side, inputs: side, quant, path };
    let product = super::products::measure(device, pool, shape, &[side], extent).pop();
    let none = || Err(DeviceError::Missing("nothing was measured".to_owned()));
    match product.unwrap_or_else(none) {
        Err(error @ DeviceError::Lost(_)) => Err(error),
        product => Ok(Ceilings { copy, product }),
    }
}
