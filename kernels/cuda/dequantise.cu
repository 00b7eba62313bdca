// Coded rows of a matrix as bfloat16, for products that take nothing else.
#include "matrix.cuh"

// out[row][input] for `rows` rows, without gaps. A thread has the sixteen bytes of a chunk that a lane would have.
template <class FORMAT>
DEVICE void dequantise(const u8* codes, const u8* scales, bf16* out, u32 rows, u32 inputs) {
    u32 chunks = row_chunks<FORMAT>(inputs);
    u64 index = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    u64 row_chunk = index / 4, row = row_chunk / chunks;
    u32 q = index % 4, chunk = row_chunk % chunks;
    if (row >= rows) return;
    u32x4 words = load16_once(codes + row_chunk * CHUNK_BYTES + 16 * q, true);
    const u8* beside = scales + row_chunk * FORMAT::SCALE_BYTES;
    UNROLL for (u32 j = 0; j < 4; j++) {
        u32 input = chunk * FORMAT::CHUNK + FORMAT::CHUNK / 4 * j + FORMAT::WORD * q;
        if (input >= inputs) continue;
        float weights[FORMAT::WORD];
        FORMAT::weights(words.at[j], beside, j, weights);
        bf16* to = out + row * inputs + input;
        UNROLL for (u32 at = 0; at < FORMAT::WORD; at += 4) {
            u32 left = pack_bf16(weights[at], weights[at + 1]), right = pack_bf16(weights[at + 2], weights[at + 3]);
            store8(to + at, u32x2{{left, right}});
        }
    }
}

#define DEQUANTISE(name, format)                                                                                       \
    KERNEL(name)(const u8* __restrict__ codes, const u8* __restrict__ scales, bf16* __restrict__ out, u32 rows,       \
                 u32 inputs) {                                                                                         \
        dequantise<format>(codes, scales, out, rows, inputs);                                                          \
    }                                                                                                                  \
    REGISTER(name)

DEQUANTISE(dequantise_q4, Q4)
DEQUANTISE(dequantise_q8, Q8)
DEQUANTISE(dequantise_q8_fine, Q8Fine)
DEQUANTISE(dequantise_q8_offset, Q8Offset)
