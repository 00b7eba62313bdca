//! NVIDIA's cards.
//!
//! Nothing of the vendor's is linked: driver, compiler and product library are looked for when they are first needed, so that
//! one binary runs everywhere (`library`). Kernels come as machine code from within the binary, or are compiled on the spot from the
//! sources within it (`modules`, `compile`, `cache`). Without the product library, [`super::Driver::product`] says
//! so, and kernels of our own take over.

use std::sync::Arc;

use super::{Device, DeviceError, DeviceLimits};

mod cache;
mod card;
mod compile;
mod downloads;
mod driver;
mod embedded;
mod handles;
mod library;
mod modules;
mod product;
mod staging;
mod status;
#[cfg(test)]
mod tests;

pub use embedded::embedded_architectures;

use cache::Cache;
use compile::Compiler;
use driver::CudaDevice;

/// Major and minor version of what a card can compute.
type Capability = (u32, u32);

/// Opens the card of that number. Kernels that must be compiled first are kept in `$PITH_HOME/kernels` (by default
/// `~/.cache/pith/kernels`).
///
/// # Errors
/// [`DeviceError::Missing`] says what is not here.
pub fn device(ordinal: u32) -> Result<Device, DeviceError> {
    let card = card::card(ordinal)?;
    Ok(Device::new(Arc::new(CudaDevice::open(&card, Cache::from_env())?)))
}

/// How many cards there are.
///
/// # Errors
/// [`DeviceError::Missing`]: there is no driver, or it does not work.
pub fn count() -> Result<u32, DeviceError> {
    card::count()
}

/// What is known of the card of that number, which is not opened for it.
///
/// # Errors
/// [`DeviceError::Missing`] says what is not here.
pub fn limits(ordinal: u32) -> Result<DeviceLimits, DeviceError> {
    Ok(card::card(ordinal)?.limits)
}

/// Something that computing on a card needs, or is faster with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub kind: PartKind,
    /// What was found, as text, or why it was not.
    pub found: Result<String, DeviceError>,
}

/// Parts that are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartKind {
    /// The card's driver: without it there is nothing.
    Driver,
    /// The card of that number.
    Card(u32),
    /// Machine code within this binary: without it, or without that of the card, NVRTC is needed.
    Cubins,
    /// What compiles kernels on the spot.
    Nvrtc,
    /// The library for products: without it kernels of our own are used, which are slower.
    Cublaslt,
}

/// Looks for everything.
#[must_use]
pub fn presence() -> Vec<Part> {
    let driver = card::driver_version().map(|version| format!("CUDA {version}"));
    let mut parts = vec![Part { kind: PartKind::Driver, found: driver }];
    if let Ok(count) = count() {
        let cards = (0..count).map(|ordinal| Part {
            kind: PartKind::Card(ordinal),
            found: limits(ordinal).map(|limits| describe(&limits)),
        });
        parts.extend(cards);
    }
    let cubins = match embedded_architectures() {
        none if none.is_empty() => {
            let why = "this binary was built without a CUDA toolkit: kernels are compiled when they are first needed";
            Err(DeviceError::Missing(why.to_owned()))
        }
        some => Ok(some.join(", ")),
    };
    parts.push(Part { kind: PartKind::Cubins, found: cubins });
    let nvrtc = Compiler::open(None).map(|compiler| compiler.version().to_owned());
    parts.push(Part { kind: PartKind::Nvrtc, found: nvrtc });
    parts.push(Part { kind: PartKind::Cublaslt, found: product::version() });
    parts
}

fn describe(limits: &DeviceLimits) -> String {
    let DeviceLimits { name, capability: (major, minor), multiprocessors, memory_bytes, .. } =
        limits;
    let gib = *memory_bytes as f64 / f64::from(1 << 30);
    format!("{name}, {gib:.0} GiB, {multiprocessors} multiprocessors, sm_{major}{minor}")
}
