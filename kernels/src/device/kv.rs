//! The paged KV cache of one layer, in a device's memory.
//!
//! Keys and values lie as `[block][kv_head][offset in the block][head_dim]`, so that what one head keeps of a block is one
//! stretch. A token's slot is `block * block_size + offset`.

use super::copy::copy_blocks;
use super::{Device, DeviceError, DeviceSlice, DeviceVec};

/// What the elements of keys and values are kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKvKind {
    /// bfloat16.
    Bf16,
    /// Eight-bit floats (e4m3) times one f32 for each token and head, the largest magnitude / 448.
    F8,
}

impl DeviceKvKind {
    /// What settings call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F8 => "fp8",
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F8 => 1,
        }
    }
}

/// Keys and values of one layer. What lies in slots that were not yet written is unknown, NaN too.
#[derive(Debug)]
pub struct DeviceKv {
    /// What the elements are.
    pub kind: DeviceKvKind,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Dimensions of a head, a multiple of 8.
    pub head_dim: usize,
    /// Tokens of a block: a power of two, at least 16.
    pub block_size: usize,
    /// Blocks.
    pub blocks: usize,
    /// The keys' elements.
    pub keys: DeviceVec<u8>,
    /// The values' elements.
    pub values: DeviceVec<u8>,
    /// `[block][kv_head][offset]`: what a key's elements are multiplied by, for [`DeviceKvKind::F8`].
    pub key_scales: Option<DeviceVec<f32>>,
    /// The same for values.
    pub value_scales: Option<DeviceVec<f32>>,
}

impl DeviceKv {
    /// Room for `blocks` blocks of `block_size` tokens.
    ///
    /// # Errors
    /// A size the kernels do not take, more slots than 32 bits can number, or no memory left.
    pub fn new(
        device: &Device,
        kind: DeviceKvKind,
        kv_heads: usize,
        head_dim: usize,
        block_size: usize,
        blocks: usize,
    ) -> Result<Self, DeviceError> {
        let wrong = |why: String| Err(DeviceError::Shape(why));
        if block_size < 16 || !block_size.is_power_of_two() {
            return wrong(format!("blocks of {block_size} tokens"));
        }
        if head_dim == 0 || !head_dim.is_multiple_of(8) {
            return wrong(format!("heads of {head_dim} dimensions"));
        }
        // The largest number is that of no slot.
        let slots = blocks.checked_mul(block_size).filter(|&slots| slots < u32::MAX as usize);
        let Some(vectors) = slots.and_then(|slots| slots.checked_mul(kv_heads)) else {
            return wrong(format!("{blocks} blocks of {block_size} tokens"));
        };
        let Some(bytes) = vectors.checked_mul(head_dim * kind.bytes()) else {
            return wrong(format!("{vectors} vectors of {head_dim} dimensions"));
        };
        let scales = || match kind {
            DeviceKvKind::Bf16 => Ok(None),
            DeviceKvKind::F8 => DeviceVec::new(device, vectors).map(Some),
        };
        Ok(Self {
            kind,
            kv_heads,
            head_dim,
            block_size,
            blocks,
            keys: DeviceVec::new(device, bytes)?,
            values: DeviceVec::new(device, bytes)?,
            key_scales: scales()?,
            value_scales: scales()?,
        })
    }

    /// Bytes of a block of one layer: keys, values and their scales.
    pub fn bytes_per_block(
        kind: DeviceKvKind,
        kv_heads: usize,
        head_dim: usize,
        block_size: usize,
    ) -> usize {
        let scale = match kind {
            DeviceKvKind::Bf16 => 0,
            DeviceKvKind::F8 => size_of::<f32>(),
        };
        2 * kv_heads * block_size * (head_dim * kind.bytes() + scale)
    }

    /// For each `(from, to)` of `pairs` (numbers of blocks, one after the other), copies block `from` over block `to`. No block is
    /// written twice, nor read and written.
    ///
    /// # Errors
    /// `pairs` are none, or the device failed.
    pub fn copy_blocks(
        &self,
        device: &Device,
        pairs: DeviceSlice<'_, u32>,
    ) -> Result<(), DeviceError> {
        self.check()?;
        let vectors = self.kv_heads * self.block_size;
        let elements = vectors * self.head_dim * self.kind.bytes();
        copy_blocks(device, self.keys.as_slice(), elements, pairs)?;
        copy_blocks(device, self.values.as_slice(), elements, pairs)?;
        for scales in self.key_scales.iter().chain(&self.value_scales) {
            copy_blocks(device, scales.as_slice().to_bytes(), vectors * size_of::<f32>(), pairs)?;
        }
        Ok(())
    }

    /// Tokens it has room for.
    pub fn slots(&self) -> usize {
        self.blocks * self.block_size
    }

    /// Refuses fields that were changed to what the memory does not hold.
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        let vectors = self.slots().saturating_mul(self.kv_heads);
        let bytes = vectors.saturating_mul(self.head_dim * self.kind.bytes());
        self.keys.as_slice().expect_room(bytes, "a cache's keys")?;
        self.values.as_slice().expect_room(bytes, "a cache's values")?;
        if self.kind == DeviceKvKind::F8 {
            for scales in [&self.key_scales, &self.value_scales] {
                let Some(scales) = scales else {
                    return Err(DeviceError::Shape("a cache of codes without scales".to_owned()));
                };
                scales.as_slice().expect_room(vectors, "a cache's scales")?;
            }
        }
        Ok(())
    }
}
