// What an encoder of short texts needs beside norms and products: rows of texts lie one text after the other, text i from
// offsets[i] to offsets[i + 1].
#include "device.cuh"

// stream[row] = words[tokens[row]] + positions[places[row]]; blockIdx.x is the row, blockIdx.y shares its groups of eight
// out. Numbers beyond either table stand for its last row.
KERNEL(embed_texts)(const bf16* __restrict__ words, u32 vocab, const float* __restrict__ positions, u32 position_rows,
                    const u32* __restrict__ tokens, const u32* __restrict__ places, u32 hidden, u32 wide,
                    float* __restrict__ stream) {
    u32 token = min(tokens[blockIdx.x], vocab - 1), place = min(places[blockIdx.x], position_rows - 1);
    for (u32 at = 8 * (blockIdx.y * blockDim.x + threadIdx.x); at < hidden; at += 8 * gridDim.y * blockDim.x) {
        float x[8], y[8];
        load8(x, words + (u64)token * hidden + at, hidden - at, wide);
        load8(y, positions + (u64)place * hidden + at, hidden - at, wide);
        UNROLL for (u32 i = 0; i < 8; i++) x[i] += y[i];
        store8(stream + (u64)blockIdx.x * hidden + at, x, hidden - at, wide);
    }
}
REGISTER(embed_texts)

// The rows of a text: none where offsets leave the rows there are, or fall.
DEVICE void text_rows(const u32* offsets, u32 text, u32 rows, u32* first, u32* length) {
    u32 from = offsets[text], to = offsets[text + 1];
    *first = from;
    *length = from <= to && to <= rows ? to - from : 0;
}

// out[text] = the mean of its rows, zeros of none. A thread has a column; blockIdx.x is the text.
KERNEL(mean_rows)(const float* __restrict__ input, u32 rows, const u32* __restrict__ offsets, u32 width,
                  float* __restrict__ out) {
    u32 first, length, column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= width) return;
    text_rows(offsets, blockIdx.x, rows, &first, &length);
    float sum = 0.0f;
    for (u32 row = 0; row < length; row++) sum += input[(u64)(first + row) * width + column];
    out[(u64)blockIdx.x * width + column] = length > 0 ? sum / (float)length : 0.0f;
}
REGISTER(mean_rows)

// Rows of queries and of keys a block has at once: sixteen queries for each of its four warps.
static const u32 TILE = 64;

// Copies the vectors of rows `from` to `from + TILE` to a tile of rows `DIM + 8` apart, which keeps eight rows at the same
// dimensions in different banks. Zeros past the text's rows and the head's dimensions.
template <u32 DIM>
DEVICE void fetch_tile(bf16* tile, const bf16* vectors, u64 stride, u32 head_dim, u32 from, u32 length) {
    for (u32 at = threadIdx.x; at < TILE * DIM / 8; at += blockDim.x) {
        u32 row = at / (DIM / 8), dim = at % (DIM / 8) * 8;
        bool there = from + row < length && dim < head_dim;
        copy_async16(tile + row * (DIM + 8) + dim, there ? vectors + (from + row) * stride + dim : vectors, there);
    }
    copy_async_commit();
}

// Attention of one head of one text, every row of which sees every other. blockIdx.x is the tile of queries, of `tiles` for
// each text, blockIdx.y the head. Scores, running maxima and sums are in f32; weights are rounded to bfloat16.
template <u32 DIM>
DEVICE void attend(const bf16* qkv, const u32* offsets, u32 rows, u32 tiles, u32 heads, u32 head_dim, float scale,
                   bf16* out) {
    SHARED(bf16, keys);
    bf16* values = keys + TILE * (DIM + 8);
    u32 first, length, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    text_rows(offsets, blockIdx.x / tiles, rows, &first, &length);
    u32 from = blockIdx.x % tiles * TILE;
    if (from >= length) return;
    u32 width = heads * head_dim;
    u64 stride = 3 * (u64)width;
    const bf16* vectors = qkv + first * stride + blockIdx.y * head_dim;

    // Queries pass through the keys' place.
    fetch_tile<DIM>(keys, vectors, stride, head_dim, from, length);
    copy_async_wait<0>();
    __syncthreads();
    u32 query[DIM / 16][4];
    UNROLL for (u32 k = 0; k < DIM / 16; k++) {
        u32 row = 16 * warp + lane % 16, dim = 16 * k + lane / 16 * 8;
        load_matrices(query[k], keys + row * (DIM + 8) + dim);
    }

    // This lane's rows are lane / 4 and the eighth after it.
    float sum[2] = {0.0f, 0.0f}, top[2] = {bits_float(0xff800000u), bits_float(0xff800000u)};
    float result[DIM / 8][4] = {};
    for (u32 begin = 0; begin < length; begin += TILE) {
        __syncthreads();
        fetch_tile<DIM>(keys, vectors + width, stride, head_dim, begin, length);
        fetch_tile<DIM>(values, vectors + 2 * width, stride, head_dim, begin, length);
        copy_async_wait<0>();
        __syncthreads();

        float score[TILE / 8][4] = {};
        UNROLL for (u32 key = 0; key < TILE; key += 16) {
            UNROLL for (u32 k = 0; k < DIM / 16; k++) {
                u32 four[4];
                u32 row = key + lane / 16 * 8 + lane % 8, dim = 16 * k + lane / 8 % 2 * 8;
                load_matrices(four, keys + row * (DIM + 8) + dim);
                u32 left[2] = {four[0], four[1]}, right[2] = {four[2], four[3]};
                mma_bf16(score[key / 8], query[k], left);
                mma_bf16(score[key / 8 + 1], query[k], right);
            }
        }

        float most[2] = {top[0], top[1]};
        UNROLL for (u32 at = 0; at < TILE / 8; at++) {
            UNROLL for (u32 i = 0; i < 4; i++) {
                bool there = begin + 8 * at + 2 * (lane % 4) + i % 2 < length;
                score[at][i] = there ? score[at][i] * scale : bits_float(0xff800000u);
                most[i / 2] = fmaxf(most[i / 2], score[at][i]);
            }
        }
        UNROLL for (u32 half = 0; half < 2; half++) {
            most[half] = fmaxf(most[half], __shfl_xor_sync(0xffffffffu, most[half], 1));
            most[half] = fmaxf(most[half], __shfl_xor_sync(0xffffffffu, most[half], 2));
            // A tile has a key at least, so that its maximum is a number.
            float shrink = __expf(top[half] - most[half]);
            top[half] = most[half];
            sum[half] *= shrink;
            UNROLL for (u32 d = 0; d < DIM / 8; d++) {
                result[d][2 * half] *= shrink;
                result[d][2 * half + 1] *= shrink;
            }
        }
        UNROLL for (u32 at = 0; at < TILE / 8; at++) {
            UNROLL for (u32 i = 0; i < 4; i++) {
                score[at][i] = __expf(score[at][i] - top[i / 2]);
                sum[i / 2] += score[at][i];
            }
        }

        UNROLL for (u32 key = 0; key < TILE / 16; key++) {
            u32 weight[4];
            UNROLL for (u32 i = 0; i < 4; i++) {
                const float* pair = &score[2 * key + i / 2][i % 2 * 2];
                weight[i] = pack_bf16(pair[0], pair[1]);
            }
            UNROLL for (u32 d = 0; d < DIM; d += 16) {
                u32 four[4];
                u32 row = 16 * key + lane / 8 % 2 * 8 + lane % 8, dim = d + lane / 16 * 8;
                load_matrices_transposed(four, values + row * (DIM + 8) + dim);
                u32 left[2] = {four[0], four[1]}, right[2] = {four[2], four[3]};
                mma_bf16(result[d / 8], weight, left);
                mma_bf16(result[d / 8 + 1], weight, right);
            }
        }
    }
    UNROLL for (u32 half = 0; half < 2; half++) {
        sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
        sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
        u32 row = from + 16 * warp + lane / 4 + 8 * half;
        if (row >= length) continue;
        float share = 1.0f / sum[half];
        bf16* to = out + (u64)(first + row) * width + blockIdx.y * head_dim;
        UNROLL for (u32 d = 0; d < DIM / 8; d++) {
            u32 dim = 8 * d + 2 * (lane % 4);
            if (8 * d >= head_dim) continue;
            u32 pair = pack_bf16(result[d][2 * half] * share, result[d][2 * half + 1] * share);
            *reinterpret_cast<u32*>(to + dim) = pair;
        }
    }
}

#define ATTEND(name, dim)                                                                                          \
    KERNEL(BOUNDS(128, 1) name)(const bf16* __restrict__ qkv, const u32* __restrict__ offsets, u32 rows, u32 tiles, \
                                u32 heads, u32 head_dim, float scale, bf16* __restrict__ out) {                    \
        attend<dim>(qkv, offsets, rows, tiles, heads, head_dim, scale, out);                                       \
    }                                                                                                              \
    REGISTER(name)
// Heads of at most as many dimensions.
ATTEND(attend_texts_32, 32)
ATTEND(attend_texts_64, 64)
ATTEND(attend_texts_96, 96)
ATTEND(attend_texts_128, 128)
