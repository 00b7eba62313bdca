// Moving blocks of the KV cache.
#include "device.cuh"

// For pair `blockIdx.x` of (from, to) at `pairs`, copies `words` (sixteen bytes each) from the one block of `cache` to the
// other; blockIdx.y shares the words out. Pairs that name a block from `blocks` on are passed over.
KERNEL(copy_blocks)(u32x4* __restrict__ cache, const u32* __restrict__ pairs, u32 blocks, u32 words) {
    u32 from = pairs[2 * blockIdx.x], to = pairs[2 * blockIdx.x + 1];
    if (from >= blocks || to >= blocks) return;
    const u32x4* source = cache + (u64)from * words;
    u32x4* target = cache + (u64)to * words;
    for (u32 at = blockIdx.y * blockDim.x + threadIdx.x; at < words; at += gridDim.y * blockDim.x) {
        target[at] = source[at];
    }
}
REGISTER(copy_blocks)
