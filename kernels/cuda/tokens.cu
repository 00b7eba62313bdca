// The tokens of a step.
#include "device.cuh"

// What is not negative is a token, -1 - i is what was drawn at `drawn[i]`, so that a step can be
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
