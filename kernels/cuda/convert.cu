// Numbers of one width to another, a thread for each group of eight.
#include "device.cuh"

template <class From, class To>
DEVICE void convert(const From* from, To* to, u32 count, bool wide) {
    u32 at = 8 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= count) return;
    float values[8];
    load8(values, from + at, count - at, wide);
    store8(to + at, values, count - at, wide);
}

KERNEL(narrow)(const float* __restrict__ from, bf16* __restrict__ to, u32 count, u32 wide) {
    convert(from, to, count, wide);
}
REGISTER(narrow)

KERNEL(widen)(const bf16* __restrict__ from, float* __restrict__ to, u32 count, u32 wide) {
    convert(from, to, count, wide);
}
REGISTER(widen)
