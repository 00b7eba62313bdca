// A matrix times few rows: as fast as the weights can be read, which is once.
//
// The tensor cores do the sums, though they are mostly idle: sixteen outputs by eight rows of input take no more instructions
// than by one, and fewer than as many plain products. A warp has sixteen outputs (rows of the matrix) and a share of the
// inputs; the warps of a block share the same outputs' inputs out, and their sums are added in the order of the inputs.
// Codes are multiplied as they are, exact in bfloat16; scales and offsets follow in f32, group by group.
//
// Which inputs a warp has, and the order of all sums, do not depend on the number of rows: a row has the same bits alone or
// in company.
//
// With g = lane / 4 and q = lane % 4, a lane holds of a chunk 16 bytes of outputs g and g + 8, and of the input's row g what
// they are multiplied with. Which weights a tensor core counts as which column is free, if only both operands agree: so
// both are loaded as they lie, and nothing is shuffled.
#include "matrix.cuh"

// Outputs of a block.
static const u32 OUTPUTS = 16;

// This lane's rows of the input, one of each tile: where they begin and how long they are. One that is not there has no
// numbers; what is read beyond the end is 0.
template <u32 TILES>
struct Input {
    const u16* row[TILES];
    u32 len[TILES];
};

template <u32 TILES>
DEVICE u32x4 eight_inputs(const Input<TILES>& x, u32 tile, u32 k) {
    return k < x.len[tile] ? load16(x.row[tile] + k) : u32x4{};
}

template <u32 TILES>
DEVICE u32x2 four_inputs(const Input<TILES>& x, u32 tile, u32 k) {
    return k < x.len[tile] ? load8(x.row[tile] + k) : u32x2{};
}

// d += a b, where `low` and `high` are what this lane has of outputs g and g + 8: four weights each.
DEVICE void multiply(float (&d)[4], u32 low0, u32 low1, u32 high0, u32 high1, u32 b0, u32 b1) {
    u32 a[4] = {low0, high0, low1, high1};
    u32 b[2] = {b0, b1};
    mma_bf16(d, a, b);
}

// Adds the inputs themselves to every row of `d`.
DEVICE void add_inputs(float (&d)[4], u32 b0, u32 b1) {
    const u32 ONES = 0x3f803f80u;
    multiply(d, ONES, ONES, ONES, ONES, b0, b1);
}

// How each format is streamed: where rows lie, what a lane loads of a chunk, and how it is multiplied.
struct Bf16Stream {
    static const u32 CHUNK = 32;
    // Nothing lies beside the weights.
    struct Scales {};

    DEVICE u64 row_bytes(u32 inputs) { return 2 * (u64)inputs; }
    DEVICE u64 scale_bytes(u32) { return 0; }
    DEVICE u32x4 codes(const u8* row, u32 chunk, u32 q, u32 inputs, bool valid) {
        valid = valid && chunk * CHUNK + 8 * q < inputs;
        return load16_once(row + (u64)chunk * CHUNK_BYTES + 16 * q, valid);
    }
    DEVICE Scales scales(const u8*, u32, u32, bool) { return Scales{}; }

    template <u32 TILES>
    DEVICE void add(float (&sums)[TILES][4], const u32x4& low, const u32x4& high, const Scales&, const Scales&,
                    const Input<TILES>& input, u32 chunk, u32 q) {
        UNROLL for (u32 tile = 0; tile < TILES; tile++) {
            u32x4 x = eight_inputs(input, tile, chunk * CHUNK + 8 * q);
            multiply(sums[tile], low.at[0], low.at[1], high.at[0], high.at[1], x.at[0], x.at[1]);
            multiply(sums[tile], low.at[2], low.at[3], high.at[2], high.at[3], x.at[2], x.at[3]);
        }
    }
};

struct Q4Stream {
    static const u32 CHUNK = Q4::CHUNK;
    // That of group q; the lanes show each other theirs.
    typedef u32 Scales;

    DEVICE u64 row_bytes(u32 inputs) { return (u64)row_chunks<Q4>(inputs) * CHUNK_BYTES; }
    DEVICE u64 scale_bytes(u32 inputs) { return (u64)row_chunks<Q4>(inputs) * Q4::SCALE_BYTES; }
    DEVICE u32x4 codes(const u8* row, u32 chunk, u32 q, u32, bool valid) {
        return load16_once(row + (u64)chunk * CHUNK_BYTES + 16 * q, valid);
    }
    DEVICE Scales scales(const u8* row, u32 chunk, u32 q, bool valid) {
        return valid ? reinterpret_cast<const u32*>(row)[4 * (u64)chunk + q] : 0;
    }

    template <u32 TILES>
    DEVICE void add(float (&sums)[TILES][4], const u32x4& low, const u32x4& high, const Scales& low_scales,
                    const Scales& high_scales, const Input<TILES>& input, u32 chunk, u32 q) {
        u32 fellows = threadIdx.x % WARP - q;
        u32x4 low_words = low, high_words = high;
        // Group after group, as there are no registers for the inputs and sums of all at once.
        UNROLL_BY(TILES == 4 ? 1 : 2) for (u32 j = 0; j < 4; j++) {
            u32 low_pair = __shfl_sync(0xffffffffu, low_scales, fellows + j);
            u32 high_pair = __shfl_sync(0xffffffffu, high_scales, fellows + j);
            float low_scale = low_f16(low_pair), high_scale = low_f16(high_pair);
            float low_offset = high_f16(low_pair) - NIBBLE_BIAS * low_scale;
            float high_offset = high_f16(high_pair) - NIBBLE_BIAS * high_scale;
            u32 lows[4], highs[4];
            UNROLL for (u32 p = 0; p < 4; p++) {
                lows[p] = nibbles(low_words.at[0], p);
                highs[p] = nibbles(high_words.at[0], p);
            }
            UNROLL for (u32 p = 0; p < 3; p++) {
                low_words.at[p] = low_words.at[p + 1];
                high_words.at[p] = high_words.at[p + 1];
            }
            UNROLL for (u32 tile = 0; tile < TILES; tile++) {
                u32x4 x = eight_inputs(input, tile, chunk * CHUNK + 32 * j + 8 * q);
                float part[4] = {0.0f, 0.0f, 0.0f, 0.0f}, all[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                multiply(part, lows[0], lows[1], highs[0], highs[1], x.at[0], x.at[1]);
                add_inputs(all, x.at[0], x.at[1]);
                multiply(part, lows[2], lows[3], highs[2], highs[3], x.at[2], x.at[3]);
                add_inputs(all, x.at[2], x.at[3]);
                UNROLL for (u32 c = 0; c < 2; c++) {
                    sums[tile][c] += low_scale * part[c];
                    sums[tile][2 + c] += high_scale * part[2 + c];
                    sums[tile][c] += low_offset * all[c];
                    sums[tile][2 + c] += high_offset * all[c];
                }
            }
        }
    }
};

template <u32 GROUP, bool OFFSETS>
struct EightBitStream {
    typedef EightBit<GROUP, OFFSETS> Format;
    static const u32 CHUNK = Format::CHUNK;
    // All of the chunk's: one or two words.
    typedef u32x2 Scales;

    DEVICE u64 row_bytes(u32 inputs) { return (u64)row_chunks<Format>(inputs) * CHUNK_BYTES; }
    DEVICE u64 scale_bytes(u32 inputs) { return (u64)row_chunks<Format>(inputs) * Format::SCALE_BYTES; }
    DEVICE u32x4 codes(const u8* row, u32 chunk, u32 q, u32, bool valid) {
        return load16_once(row + (u64)chunk * CHUNK_BYTES + 16 * q, valid);
    }
    DEVICE Scales scales(const u8* row, u32 chunk, u32, bool valid) {
        const u8* at = row + (u64)chunk * Format::SCALE_BYTES;
        if (!valid) return u32x2{};
        return Format::SCALE_BYTES == 8 ? load8(at) : u32x2{{*reinterpret_cast<const u32*>(at), 0}};
    }

    template <u32 TILES>
    DEVICE void add(float (&sums)[TILES][4], const u32x4& low, const u32x4& high, const Scales& low_scales,
                    const Scales& high_scales, const Input<TILES>& input, u32 chunk, u32 q) {
        // Two groups of 32 inputs, of two words each.
        UNROLL for (u32 half = 0; half < 2; half++) {
            u32 lows[4], highs[4];
            UNROLL for (u32 p = 0; p < 4; p++) {
                lows[p] = signed_bytes(low.at[2 * half + p / 2], p % 2);
                highs[p] = signed_bytes(high.at[2 * half + p / 2], p % 2);
            }
            // Scale and offset, or the scales of both sixteens, or one of two scales.
            bool pair = Format::SCALE_BYTES == 8;
            u32 low_word = pair ? low_scales.at[half] : low_scales.at[0] >> (16 * half);
            u32 high_word = pair ? high_scales.at[half] : high_scales.at[0] >> (16 * half);
            UNROLL for (u32 tile = 0; tile < TILES; tile++) {
                u32 k = chunk * CHUNK + 32 * half + 4 * q;
                u32x2 x = four_inputs(input, tile, k), y = four_inputs(input, tile, k + 16);
                float first[4] = {0.0f, 0.0f, 0.0f, 0.0f}, second[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                multiply(first, lows[0], lows[1], highs[0], highs[1], x.at[0], x.at[1]);
                if (GROUP == 16) {
                    multiply(second, lows[2], lows[3], highs[2], highs[3], y.at[0], y.at[1]);
                } else {
                    multiply(first, lows[2], lows[3], highs[2], highs[3], y.at[0], y.at[1]);
                }
                if (OFFSETS) {
                    add_inputs(second, x.at[0], x.at[1]);
                    add_inputs(second, y.at[0], y.at[1]);
                }
                UNROLL for (u32 c = 0; c < 2; c++) {
                    sums[tile][c] += low_f16(low_word) * first[c];
                    sums[tile][2 + c] += low_f16(high_word) * first[2 + c];
                    if (GROUP == 16 || OFFSETS) {
                        sums[tile][c] += high_f16(low_word) * second[c];
                        sums[tile][2 + c] += high_f16(high_word) * second[2 + c];
                    }
                }
            }
        }
    }
};

// out[m][n] (+)= the sum of input[m][k] times weight n, k, for at most 8 * TILES rows m; `stride` numbers lie from a row of
// `out` to the next. A block has sixteen outputs, and shared memory for its warps' sums: 512 bytes times TILES each.
template <class STREAM, u32 TILES>
DEVICE void gemv(const u8* codes, const u8* scales, const u16* input, void* out, u32 rows, u32 outputs, u32 inputs,
                 u32 stride, u32 kind) {
    // As many chunks of both outputs are asked for before the first is used: for few rows 128 bytes a lane, so that sixteen
    // warps keep 64 KiB on their way to a multiprocessor. More rows want the registers.
    const u32 AHEAD = TILES == 1 ? 4 : 2;
    u32 warp = threadIdx.x / WARP, warps = blockDim.x / WARP, lane = threadIdx.x % WARP;
    u32 g = lane / 4, q = lane % 4;
    u32 chunks = (inputs + STREAM::CHUNK - 1) / STREAM::CHUNK, share = (chunks + warps - 1) / warps;
    u32 begin = min(warp * share, chunks), end = min(begin + share, chunks);
    // Outputs beyond the last are computed as the last, and not stored.
    u32 low = min(blockIdx.x * OUTPUTS + g, outputs - 1), high = min(blockIdx.x * OUTPUTS + 8 + g, outputs - 1);
    const u8 *low_row = codes + low * STREAM::row_bytes(inputs), *high_row = codes + high * STREAM::row_bytes(inputs);
    const u8 *low_beside = scales + low * STREAM::scale_bytes(inputs), *high_beside = scales + high * STREAM::scale_bytes(inputs);
    Input<TILES> x;
    float sums[TILES][4];
    UNROLL for (u32 tile = 0; tile < TILES; tile++) {
        u32 row = 8 * tile + g;
        x.row[tile] = input + (u64)row * inputs;
        x.len[tile] = row < rows ? inputs : 0;
        UNROLL for (u32 at = 0; at < 4; at++) sums[tile][at] = 0.0f;
    }
    for (u32 from = begin; from < end; from += AHEAD) {
        u32x4 lows[AHEAD], highs[AHEAD];
        typename STREAM::Scales low_scales[AHEAD], high_scales[AHEAD];
        UNROLL for (u32 at = 0; at < AHEAD; at++) {
            bool there = from + at < end;
            lows[at] = STREAM::codes(low_row, from + at, q, inputs, there);
            highs[at] = STREAM::codes(high_row, from + at, q, inputs, there);
            low_scales[at] = STREAM::scales(low_beside, from + at, q, there);
            high_scales[at] = STREAM::scales(high_beside, from + at, q, there);
        }
        // Chunks that are not there add nothing: asking would keep the loads of inputs apart.
        UNROLL for (u32 at = 0; at < AHEAD; at++) {
            STREAM::add(sums, lows[at], highs[at], low_scales[at], high_scales[at], x, from + at, q);
        }
    }
    // [warp][tile][which of a lane's sums][lane]
    SHARED(float, partial);
    UNROLL for (u32 tile = 0; tile < TILES; tile++) {
        UNROLL for (u32 at = 0; at < 4; at++) partial[((warp * TILES + tile) * 4 + at) * WARP + lane] = sums[tile][at];
    }
    __syncthreads();
    for (u32 at = threadIdx.x; at < TILES * 8 * OUTPUTS; at += blockDim.x) {
        u32 output = at % OUTPUTS, row = at / OUTPUTS, column = row % 8;
        if (row >= rows || blockIdx.x * OUTPUTS + output >= outputs) continue;
        u32 holder = output % 8 * 4 + column / 2, which = output / 8 * 2 + column % 2;
        float sum = 0.0f;
        for (u32 from = 0; from < warps; from++) sum += partial[((from * TILES + row / 8) * 4 + which) * WARP + holder];
        store_product(out, (u64)row * stride + blockIdx.x * OUTPUTS + output, sum, kind);
    }
}

// gemv_FORMAT_ROWS: at most ROWS rows.
#define GEMV(name, stream, tiles)                                                                                          \
    KERNEL(BOUNDS(512, 1) name)(const u8* __restrict__ codes, const u8* __restrict__ scales,                               \
                                const u16* __restrict__ input, void* __restrict__ out, u32 rows, u32 outputs, u32 inputs, \
                                u32 stride, u32 kind) {                                                                    \
        gemv<stream, tiles>(codes, scales, input, out, rows, outputs, inputs, stride, kind);                               \
    }                                                                                                                      \
    REGISTER(name)

typedef EightBitStream<32, false> Q8Stream;
typedef EightBitStream<16, false> Q8FineStream;
typedef EightBitStream<32, true> Q8OffsetStream;

GEMV(gemv_bf16_8, Bf16Stream, 1)
GEMV(gemv_bf16_16, Bf16Stream, 2)
GEMV(gemv_bf16_32, Bf16Stream, 4)
GEMV(gemv_q4_8, Q4Stream, 1)
GEMV(gemv_q4_16, Q4Stream, 2)
GEMV(gemv_q4_32, Q4Stream, 4)
GEMV(gemv_q8_8, Q8Stream, 1)
GEMV(gemv_q8_16, Q8Stream, 2)
GEMV(gemv_q8_32, Q8Stream, 4)
GEMV(gemv_q8_fine_8, Q8FineStream, 1)
GEMV(gemv_q8_fine_16, Q8FineStream, 2)
GEMV(gemv_q8_fine_32, Q8FineStream, 4)
GEMV(gemv_q8_offset_8, Q8OffsetStream, 1)
GEMV(gemv_q8_offset_16, Q8OffsetStream, 2)
GEMV(gemv_q8_offset_32, Q8OffsetStream, 4)

// The same for Bf16 matrices whose rows do not begin at whole sixteen bytes (`inputs` no multiple of 8) and any number of
// rows, slowly: a warp has an output, of row blockIdx.y of the input.
KERNEL(gemv_odd)(const u16* __restrict__ weights, const u16* __restrict__ input, void* __restrict__ out, u32 outputs,
                 u32 inputs, u32 stride, u32 kind) {
    u32 output = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (output >= outputs) return;
    const u16 *row = weights + (u64)output * inputs, *x = input + (u64)blockIdx.y * inputs;
    float sum = 0.0f;
    for (u32 k = threadIdx.x % WARP; k < inputs; k += WARP) sum += to_float(bf16{row[k]}) * to_float(bf16{x[k]});
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) store_product(out, (u64)blockIdx.y * stride + output, sum, kind);
}
REGISTER(gemv_odd)
