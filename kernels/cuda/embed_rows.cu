// Rows of an embedding table, as it lies for products, become the residual stream.
#include "matrix.cuh"

// stream[i] = scale * row tokens[i] of the table, in f32; tokens from `rows` on stand for the last. A block has a token.
template <class FORMAT>
DEVICE void embed(const u8* codes, const u8* scales, const u32* tokens, float* stream, u32 rows, u32 inputs, float scale) {
    u32 token = min(tokens[blockIdx.x], rows - 1), chunks = row_chunks<FORMAT>(inputs);
    float* out = stream + (u64)blockIdx.x * inputs;
    for (u32 unit = threadIdx.x; unit < 4 * chunks; unit += blockDim.x) {
        u32 chunk = unit / 4, q = unit % 4;
        u64 row_chunk = (u64)token * chunks + chunk;
        u32x4 words = load16_once(codes + row_chunk * CHUNK_BYTES + 16 * q, true);
        UNROLL for (u32 j = 0; j < 4; j++) {
            u32 input = chunk * FORMAT::CHUNK + FORMAT::CHUNK / 4 * j + FORMAT::WORD * q;
            if (input >= inputs) continue;
            float weights[FORMAT::WORD];
            FORMAT::weights(words.at[j], scales + row_chunk * FORMAT::SCALE_BYTES, j, weights);
            UNROLL for (u32 at = 0; at < FORMAT::WORD; at++) out[input + at] = scale * weights[at];
        }
    }
}

#define EMBED(name, format)                                                                                             \
    KERNEL(name)(const u8* __restrict__ codes, const u8* __restrict__ scales, const u32* __restrict__ tokens,          \
                 float* __restrict__ stream, u32 rows, u32 inputs, float scale) {                                       \
        embed<format>(codes, scales, tokens, stream, rows, inputs, scale);                                              \
    }                                                                                                                   \
    REGISTER(name)

EMBED(embed_q4, Q4)
EMBED(embed_q8, Q8)
EMBED(embed_q8_fine, Q8Fine)
EMBED(embed_q8_offset, Q8Offset)

// The same for a table of bfloat16; nothing lies beside it.
KERNEL(embed_plain)(const bf16* __restrict__ table, const u8* __restrict__, const u32* __restrict__ tokens,
                    float* __restrict__ stream, u32 rows, u32 inputs, float scale) {
    u32 token = min(tokens[blockIdx.x], rows - 1);
    float* out = stream + (u64)blockIdx.x * inputs;
    for (u32 at = threadIdx.x; at < inputs; at += blockDim.x) {
        out[at] = scale * to_float(table[(u64)token * inputs + at]);
    }
}
REGISTER(embed_plain)
