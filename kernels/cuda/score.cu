// Likelihoods of given tokens.
#include "logits.cuh"

// out[i] = ln-probability of token targets[i] in row target_rows[i], a block for each. NaN where there is no such row or
// token, and where the row has a logit that is NaN or +infinity, or none above -infinity.
KERNEL(BOUNDS(1024, 1) likelihoods)(const float* __restrict__ logits, u32 rows, u32 vocab, const u32* __restrict__ targets,
                                    const u32* __restrict__ target_rows, u32 wide, float* __restrict__ out) {
    SHARED(u64, scratch);
    u32 target = targets[blockIdx.x], row = target_rows[blockIdx.x];
    if (row >= rows || target >= vocab) {
        if (threadIdx.x == 0) out[blockIdx.x] = bits_float(0x7fc00000u);
        return;
    }
    const float* values = logits + (u64)row * vocab;
    Spread spread = spread_of(values, vocab, wide, scratch);
    bool none = spread.bad || spread.order <= NOTHING;
    if (threadIdx.x == 0) {
        out[blockIdx.x] =
            none ? bits_float(0x7fc00000u) : (values[target] - logit_of(spread.order)) - spread.log_sum;
    }
}
REGISTER(likelihoods)

// logits = cap * tanh(logits / cap), a thread for each group of eight.
KERNEL(softcap)(float* __restrict__ logits, u32 count, float cap, u32 wide) {
    u32 at = 8 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= count) return;
    float x[8];
    load8(x, logits + at, count - at, wide);
    UNROLL for (u32 i = 0; i < 8; i++) x[i] = cap * tanhf(x[i] / cap);
    store8(logits + at, x, count - at, wide);
}
REGISTER(softcap)
