//! The paged KV cache of one layer.

use half::f16;

use crate::pool::Shards;
use crate::{Isa, Pool, PoolError};

/// Keys and values of one layer in f16: `[kv_head][slot][head_dim]`, a slot being
/// `block * block_size + offset`.
#[derive(Debug)]
pub struct KvLayer {
    kv_heads: usize,
    head_dim: usize,
    slots: usize,
    keys: Vec<u16>,
    values: Vec<u16>,
}

impl KvLayer {
    /// Zeroed storage for `slots` tokens of `kv_heads` heads of `head_dim` (untouched pages
    /// stay unmapped until first written).
    pub fn new(kv_heads: usize, head_dim: usize, slots: usize) -> Self {
        let len = kv_heads * head_dim * slots;
        // `vec![0; n]` asks the allocator for zeroed memory: large ones are fresh, lazy pages.
        Self { kv_heads, head_dim, slots, keys: vec![0; len], values: vec![0; len] }
    }

    /// Bytes of keys and values for one token.
    pub fn bytes_per_token(kv_heads: usize, head_dim: usize) -> usize {
        2 * size_of::<u16>() * kv_heads * head_dim
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

    /// f16 bits of the keys of `len` consecutive slots of a head.
    pub(crate) fn keys(&self, head: usize, slot: usize, len: usize) -> &[u16] {
        let start = (head * self.slots + slot) * self.head_dim;
        &self.keys[start..start + len * self.head_dim]
    }

    /// f16 bits of the values of `len` consecutive slots of a head.
    pub(crate) fn values(&self, head: usize, slot: usize, len: usize) -> &[u16] {
        let start = (head * self.slots + slot) * self.head_dim;
        &self.values[start..start + len * self.head_dim]
    }

    /// Writes row `i`'s key and value to `slots[i]`. Row `i` of `x` is `stride` long; its keys
    /// begin at `key_offset`, its values at `value_offset`, `kv_heads * head_dim` each.
    /// Values round to nearest even; beyond f16's range they become infinite.
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
        let (dim, capacity) = (self.head_dim, self.slots);
        let keys = Shards::new(&mut self.keys);
        let values = Shards::new(&mut self.values);
        // One task per head: heads own disjoint storage, whatever the slots are. Rows of a head are
        // written in order, so that of two rows for one slot the later stays.
        let write_head = |head: usize| {
            for (row, &slot) in x.chunks_exact(stride).zip(slots) {
                let at = (head * capacity + slot as usize) * dim;
                // SAFETY: `slot < capacity` and `head < kv_heads` put `at..at + dim` inside the
                // storage; only this task touches this head.
                let (key, value) = unsafe { (keys.slice(at, dim), values.slice(at, dim)) };
                narrow(isa, &row[key_offset + head * dim..][..dim], key);
                narrow(isa, &row[value_offset + head * dim..][..dim], value);
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
            let at = |slot: usize| (head * self.slots + slot) * self.head_dim;
            let source = at(from)..at(from + len);
            self.keys.copy_within(source.clone(), at(to));
            self.values.copy_within(source, at(to));
        }
    }

    /// Fills everything with NaN (tests: a read of a slot never written shows).
    pub fn poison(&mut self) {
        self.keys.fill(f16::NAN.to_bits());
        self.values.fill(f16::NAN.to_bits());
    }
}

/// Elements below which waking another thread costs more than it saves.
const SMALL: usize = 16 * 1024;

/// f32 to the bits of f16, nearest even.
fn narrow(isa: Isa, x: &[f32], out: &mut [u16]) {
    #[cfg(target_arch = "x86_64")]
    if isa.avx2() {
        // SAFETY: the machine has F16C.
        unsafe { narrow_f16c(x, out) };
        return;
    }
    let _ = isa;
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f16::from_f32(x).to_bits();
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn narrow_f16c(x: &[f32], out: &mut [u16]) {
    use std::arch::x86_64::{
        _MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_cvtps_ph, _mm256_loadu_ps,
    };
    let (xs, x_tail) = x.as_chunks::<8>();
    let (outs, out_tail) = out.as_chunks_mut::<8>();
    for (out, x) in outs.iter_mut().zip(xs) {
        // SAFETY: `x` is 8 floats and `out` 16 bytes.
        unsafe {
            let bits = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(x.as_ptr()));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bits);
        }
    }
    for (out, &x) in out_tail.iter_mut().zip(x_tail) {
        *out = f16::from_f32(x).to_bits();
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::KvLayer;
    use crate::{Isa, Pool};

    #[test]
    fn rows_land_in_their_slots_and_blocks_are_copied() {
        let (kv_heads, dim, slots) = (2, 11, [5u32, 0, 7]);
        let width = kv_heads * dim;
        let stride = 2 * width + 4;
        let x: Vec<f32> = (0..3 * stride).map(|i| i as f32 * 0.37 - 20.0).collect();
        for isa in Isa::available() {
            let mut kv = KvLayer::new(kv_heads, dim, 12);
            kv.poison();
            kv.write(isa, &Pool::new(2), &x, stride, 1, 1 + width, &slots).unwrap();
            kv.copy(4, 8, 4);
            let half = |x: f32| f16::from_f32(x).to_bits();
            for head in 0..kv_heads {
                for (row, &slot) in slots.iter().enumerate() {
                    let copied = (4..8).contains(&slot).then_some(slot as usize + 4);
                    for slot in [Some(slot as usize), copied].into_iter().flatten() {
                        for d in 0..dim {
                            let at = row * stride + 1 + head * dim + d;
                            assert_eq!(kv.keys(head, slot, 1)[d], half(x[at]));
                            assert_eq!(kv.values(head, slot, 1)[d], half(x[at + width]));
                        }
                    }
                }
                for untouched in [1, 2, 3, 4, 6, 8, 10] {
                    assert!(
                        kv.keys(head, untouched, 1).iter().all(|&b| f16::from_bits(b).is_nan())
                    );
                }
            }
        }
        assert_eq!(KvLayer::bytes_per_token(3, 64), 768);
    }
}
