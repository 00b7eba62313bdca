//! The paged KV cache of one layer.

mod vectors;

pub(crate) use vectors::Vector;
use vectors::Vectors;

pub use vectors::KvType;

use crate::{Isa, Pool, PoolError};

/// Keys that lie side by side.
pub(crate) const LANES: usize = 16;

/// Keys and values of one layer, a slot being `block * block_size + offset`.
///
/// Values are `[kv_head][slot][head_dim]`. Keys are `[kv_head][slot / 16][head_dim][slot % 16]`: a dimension of sixteen
/// keys is one load, so sixteen scores are made side by side and nothing is added up across a register.
#[derive(Debug)]
pub struct KvLayer {
    kind: KvType,
    kv_heads: usize,
    head_dim: usize,
    slots: usize,
    keys: Vectors,
    values: Vectors,
}

impl KvLayer {
    /// Zeroed storage for `slots` tokens of `kv_heads` heads of `head_dim` (untouched pages
    /// stay unmapped until first written).
    pub fn new(kind: KvType, kv_heads: usize, head_dim: usize, slots: usize) -> Self {
        let vectors = |lanes: usize| {
            Vectors::new(kind, kv_heads * slots.next_multiple_of(lanes), head_dim, lanes)
        };
        let (keys, values) = (vectors(LANES), vectors(1));
        Self { kind, kv_heads, head_dim, slots, keys, values }
    }

    /// Bytes of keys and values for one token.
    pub fn bytes_per_token(kind: KvType, kv_heads: usize, head_dim: usize) -> usize {
        2 * kv_heads * kind.bytes(head_dim)
    }

    /// The type keys and values are kept in.
    pub fn kind(&self) -> KvType {
        self.kind
    }

    /// Tokens it has room for.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Key/value heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Dimensions of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Dimensions of the key of a slot and head.
    pub(crate) fn key(&self, head: usize, slot: usize) -> impl Iterator<Item = f64> {
        self.keys.iter(self.key_index(head, slot))
    }

    /// Dimensions of the value of a slot and head.
    pub(crate) fn value(&self, head: usize, slot: usize) -> impl Iterator<Item = f64> {
        self.values.iter(self.value_index(head, slot))
    }

    /// The value of a slot and head as it is kept.
    #[inline]
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn value_vector(&self, head: usize, slot: usize) -> Vector<'_> {
        self.values.group(self.value_index(head, slot))
    }

    /// The [`LANES`] keys around `slot`: `[head_dim][LANES]`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn key_group(&self, head: usize, slot: usize) -> Vector<'_> {
        self.keys.group(self.key_index(head, slot))
    }

    /// Where the elements, f16 or codes, of the [`LANES`] keys around `slot` begin: `[head_dim][LANES]`.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn key_elements(&self, head: usize, slot: usize) -> *const u8 {
        self.keys.elements(self.key_index(head, slot))
    }

    /// Where the elements of a value begin: f16 or codes.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn value_elements(&self, head: usize, slot: usize) -> *const u8 {
        self.values.elements(self.value_index(head, slot))
    }

    /// What the codes of a key are multiplied by; `None` for floats.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn key_scale(&self, head: usize, slot: usize) -> Option<f32> {
        self.keys.scale(self.key_index(head, slot))
    }

    /// What the codes of a value are multiplied by; `None` for floats.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn value_scale(&self, head: usize, slot: usize) -> Option<f32> {
        self.values.scale(self.value_index(head, slot))
    }

    fn key_index(&self, head: usize, slot: usize) -> usize {
        debug_assert!(head < self.kv_heads && slot < self.slots);
        head * self.slots.next_multiple_of(LANES) + slot
    }

    fn value_index(&self, head: usize, slot: usize) -> usize {
        debug_assert!(head < self.kv_heads && slot < self.slots);
        head * self.slots + slot
    }

    /// Writes row `i`'s key and value to `slots[i]`. Row `i` of `x` is `stride` long; its keys
    /// begin at `key_offset`, its values at `value_offset`, `kv_heads * head_dim` each.
    /// Numbers round to nearest even; beyond f16's range they become infinite there.
    /// # Panics
    /// If a slot or an offset is out of bounds.
    #[expect(clippy::too_many_arguments, reason = "plain slices and sizes, as every kernel takes")]
    pub fn write(
        &mut self,
        isa: Isa,
        pool: &Pool,
        x: &[f32],
        stride: usize,
        key_offset: usize,
        value_offset: usize,
        slots: &[u32],
    ) -> Result<(), PoolError> {
        let width = self.kv_heads * self.head_dim;
        assert!(x.len() >= slots.len() * stride, "a row of x is missing");
        assert!(key_offset + width <= stride && value_offset + width <= stride, "offset");
        assert!(slots.iter().all(|&slot| (slot as usize) < self.slots), "slot out of bounds");
        let dim = self.head_dim;
        let (key_slots, value_slots) = (self.slots.next_multiple_of(LANES), self.slots);
        let (keys, values) = (self.keys.shards(), self.values.shards());
        // One task per head: heads own disjoint storage, whatever the slots are. Rows of a head are
        // written in order, so that of two rows for one slot the later stays.
        let write_head = |head: usize| {
            for (row, &slot) in x.chunks_exact(stride).zip(slots) {
                let slot = slot as usize;
                // SAFETY: `slot < slots` and `head < kv_heads`; only this task touches this head.
                unsafe {
                    keys.write(
                        isa,
                        head * key_slots + slot,
                        &row[key_offset + head * dim..][..dim],
                    );
                    values.write(
                        isa,
                        head * value_slots + slot,
                        &row[value_offset + head * dim..][..dim],
                    );
                }
            }
        };
        if slots.len() * width < SMALL {
            pool.run(1, |_| (0..self.kv_heads).for_each(write_head))
        } else {
            pool.run(self.kv_heads, write_head)
        }
    }

    /// Copies `len` slots from `from` to `to` (a whole block: copy-on-write).
    /// # Panics
    /// If either range is out of bounds.
    pub fn copy(&mut self, from: u32, to: u32, len: u32) {
        let (from, to, len) = (from as usize, to as usize, len as usize);
        assert!(from + len <= self.slots && to + len <= self.slots, "slot out of bounds");
        for head in 0..self.kv_heads {
            let (key, value) = (self.key_index(head, 0), self.value_index(head, 0));
            self.keys.copy(key + from, key + to, len);
            self.values.copy(value + from, value + to, len);
        }
    }

    /// Fills everything with NaN (tests: a read of a slot never written shows).
    pub fn poison(&mut self) {
        self.keys.poison();
        self.values.poison();
    }
}

/// Elements below which waking another thread costs more than it saves.
const SMALL: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use half::f16;

    use super::{KvLayer, KvType};
    use crate::{Isa, Pool, eight_bit};

    /// What is kept of a vector.
    fn kept(kind: KvType, x: &[f32]) -> Vec<f64> {
        match kind {
            KvType::F16 => x.iter().map(|&x| f16::from_f32(x).to_f64()).collect(),
            KvType::Int8 => {
                let mut codes = vec![0; x.len()];
                let (scale, inverse) = eight_bit::scale(eight_bit::largest(x));
                eight_bit::codes(x, inverse, &mut codes);
                codes.iter().map(|&code| f64::from(code) * f64::from(scale)).collect()
            }
        }
    }

    #[test]
    fn rows_land_in_their_slots_and_blocks_are_copied() {
        let (kv_heads, dim, slots) = (2, 11, [5u32, 0, 7]);
        let width = kv_heads * dim;
        let stride = 2 * width + 4;
        let x: Vec<f32> = (0..3 * stride).map(|i| i as f32 * 0.37 - 20.0).collect();
        for (isa, kind) in Isa::available().flat_map(|isa| KvType::ALL.map(|kind| (isa, kind))) {
            let mut kv = KvLayer::new(kind, kv_heads, dim, 12);
            kv.poison();
            kv.write(isa, &Pool::new(2), &x, stride, 1, 1 + width, &slots).unwrap();
            kv.copy(4, 8, 4);
            for head in 0..kv_heads {
                for (row, &slot) in slots.iter().enumerate() {
                    let copied = (4..8).contains(&slot).then_some(slot as usize + 4);
                    for slot in [Some(slot as usize), copied].into_iter().flatten() {
                        let x = &x[row * stride + 1 + head * dim..];
                        let (key, value) = (kv.key(head, slot), kv.value(head, slot));
                        assert_eq!(key.collect::<Vec<_>>(), kept(kind, &x[..dim]));
                        assert_eq!(value.collect::<Vec<_>>(), kept(kind, &x[width..][..dim]));
                    }
                }
                for untouched in [1, 2, 3, 4, 6, 8, 10] {
                    assert!(kv.key(head, untouched).all(f64::is_nan));
                }
            }
        }
        assert_eq!(KvLayer::bytes_per_token(KvType::F16, 3, 64), 768);
        assert_eq!(KvLayer::bytes_per_token(KvType::Int8, 3, 64), 408);
    }

    #[test]
    fn codes_are_within_half_a_scale() {
        let x: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 - 31.0) * 0.11).collect();
        for (x, kept) in x.iter().zip(kept(KvType::Int8, &x)) {
            assert!((f64::from(*x) - kept).abs() <= 32.0 * 0.11 / 127.0 * 0.50001);
        }
        let mut spoilt = x;
        spoilt[3] = f32::NAN;
        assert!(kept(KvType::Int8, &spoilt).iter().all(|x| x.is_nan()));
    }
}
