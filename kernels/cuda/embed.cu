// Tokens to rows of the residual stream.
#include "device.cuh"

// The tokens of a step: what is not negative is a token, -1 - i is what was drawn at `drawn[i]`, so that a step can be
// launched before the host knows what the one before it chose. Tokens beyond the vocabulary become its last.
KERNEL(resolve_tokens)(const i32* __restrict__ tokens, const u32* __restrict__ drawn, u32 rows, u32 drawn_count,
                       u32 vocab, u32* __restrict__ out) {
    u32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    i32 token = tokens[row];
    u32 id = (u32)token;
    if (token < 0) {
        u32 which = ~(u32)token;
        id = which < drawn_count ? drawn[which] : 0;
    }
    out[row] = id < vocab ? id : vocab - 1;
}
REGISTER(resolve_tokens)

// stream[row] = table[tokens[row]] * scale; blockIdx.x is the row, blockIdx.y shares its groups of eight out.
KERNEL(embed_bf16)(const bf16* __restrict__ table, const u32* __restrict__ tokens, u32 vocab, u32 hidden, float scale,
                   u32 wide, float* __restrict__ stream) {
    u32 token = tokens[blockIdx.x];
    if (token >= vocab) token = vocab - 1;
    const bf16* from = table + (u64)token * hidden;
    float* to = stream + (u64)blockIdx.x * hidden;
    for (u32 at = 8 * (blockIdx.y * blockDim.x + threadIdx.x); at < hidden; at += 8 * gridDim.y * blockDim.x) {
        float values[8];
        load8(values, from + at, hidden - at, wide);
        UNROLL for (u32 i = 0; i < 8; i++) values[i] *= scale;
        store8(to + at, values, hidden - at, wide);
    }
}
REGISTER(embed_bf16)
