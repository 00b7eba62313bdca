// What the kernels of attention share: where a sequence's keys and values lie, and what one warp does with a tile of them.
//
// A warp has sixteen rows of queries as the left operand of `mma_bf16`, a lane the rows `lane / 4` and `lane / 4 + 8`. For a
// tile of keys it computes scores, makes them weights (a softmax that goes on from tile to tile, in powers of two) and adds the
// weighted values up. Weights are rounded to bfloat16 before they meet the values; their sum is of those not rounded.
//
// All of it is done row by row: nothing a row comes out as depends on the other rows of its warp, nor on tiles it sees no key
// of, to the bit.
#pragma once
#include "device.cuh"

static const float LOG2_E = 1.4426950408889634f;

// Minus infinity: of a key that is not seen.
DEVICE float no_score() { return bits_float(0xff800000u); }

// 2^x, to about 2^-22; 0 for minus infinity.
DEVICE float power_of_two(float x) {
#ifdef __CUDACC__
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
#else
    return exp2f(x);
#endif
}

// tanh x by way of e^2x, to about 1e-6.
DEVICE float tanh_of(float x) {
    float bound = x > 15.0f ? 15.0f : x < -15.0f ? -15.0f : x;
    return 1.0f - __fdividef(2.0f, power_of_two(bound * (2.0f * LOG2_E)) + 1.0f);
}

// Keys and values of a layer, both [block][kv head][offset in the block][dimension]: bfloat16, or e4m3 with a scale for each
// token and head. `dim` is a multiple of 16, and 1 << block_bits, the tokens of a block, is 16 or more.
struct Cache {
    const u8* keys;
    const u8* values;
    const float* key_scales;
    const float* value_scales;
    u32 kv_heads, dim, block_bits, blocks;
};

// The blocks of a sequence, in the order of its tokens.
struct Table {
    const u32* blocks;
    u32 count;
};

// The table that begins at `offset` of `tables`; where it ends is not known, so it goes on to the end of them all.
DEVICE Table table_at(const u32* tables, u32 length, u32 offset) {
    u32 from = offset < length ? offset : length;
    return Table{tables + from, length - from};
}

// Keys from here on have no block.
DEVICE u32 table_end(const Table& table, u32 block_bits) {
    u64 end = (u64)table.count << block_bits;
    return end < 0xffffff00u ? (u32)end : 0xffffff00u;
}

// Finds the vector of the key at position `key` of a head. False: its block is none of the cache's.
DEVICE bool find_vector(u64& vector, const Cache& cache, const Table& table, u32 head, u32 key) {
    u32 at = key >> cache.block_bits;
    if (at >= table.count) return false;
    u32 block = table.blocks[at];
    if (block >= cache.blocks) return false;
    vector = (((u64)block * cache.kv_heads + head) << cache.block_bits) + (key & ((1u << cache.block_bits) - 1));
    return true;
}

// Emphasis: `count` triples of first position, position past the last, and what is added to the scores between (bits of an
// f32), sorted and disjoint.
struct Biases {
    const u32* spans;
    u32 count;
};

// `count` spans from span `first` on, as far as there are as many in `length` numbers.
DEVICE Biases biases_at(const u32* biases, u32 length, u32 first, u32 count) {
    u32 all = length / 3;
    u32 from = first < all ? first : all;
    return Biases{biases + 3 * (u64)from, count < all - from ? count : all - from};
}

// How products of queries and keys become scores.
struct Scoring {
    float scale;
    float cap;   // scores s become cap tanh(s / cap); 0: they stay
    u32 window;  // keys a query sees, itself included; 0: all before it
};

// The first key that the query at `position` sees.
DEVICE u32 first_seen(const Scoring& how, u32 position) {
    return how.window == 0 || position < how.window ? 0 : position + 1 - how.window;
}

// Shared rows of DIM bfloat16 numbers: chunks of sixteen bytes lie crosswise, so that eight rows' chunks of one column lie in
// different banks. Returns an offset in bytes.
template <u32 DIM>
DEVICE u32 crosswise(u32 row, u32 chunk) {
    return row * (DIM * 2) + ((chunk ^ (row % 8)) * 16);
}

// Bytes of shared memory for a ring of two tiles of KEYS keys and values. Codes are kept as they are and unpacked one tile at
// a time, which takes as much, and their scales.
template <u32 DIM, u32 KEYS, bool F8>
DEVICE u32 ring_bytes() {
    return 4 * KEYS * DIM * 2 + (F8 ? 4 * KEYS * 4 : 0);
}

// Bytes of the keys or the values of a tile ready for products.
template <u32 DIM, u32 KEYS>
DEVICE u32 tile_bytes() {
    return KEYS * DIM * 2;
}

// Where codes of a stage begin: the keys', the values', the keys' scales, the values'.
template <u32 DIM, u32 KEYS>
DEVICE u8* codes_of(u8* ring, u32 stage) {
    return ring + 4 * KEYS * DIM + stage * (2 * KEYS * DIM + 2 * KEYS * 4);
}

// Begins to copy keys and values `first .. first + KEYS` of a head, `first` a multiple of 16, to a stage of a ring; zeros from
// key `limit` on. Threads `thread` of `threads` share the work. Ends no group.
template <u32 DIM, u32 KEYS, bool F8>
DEVICE void copy_tile(u8* ring, u32 stage, const Cache& cache, const Table& table, u32 head, u32 first, u32 limit,
                      u32 thread, u32 threads) {
    const u32 BYTES = F8 ? 1 : 2;
    const u32 CHUNKS = DIM * BYTES / 16;
    u32 used = cache.dim * BYTES / 16;
    u8* keys = F8 ? codes_of<DIM, KEYS>(ring, stage) : ring + stage * 2 * tile_bytes<DIM, KEYS>();
    u8* values = keys + KEYS * DIM * BYTES;
    UNROLL for (u32 group = 0; group < KEYS; group += 16) {
        // Sixteen keys never lie in two blocks.
        u64 vector = 0;
        bool found = first + group < limit && find_vector(vector, cache, table, head, first + group);
        for (u32 at = thread; at < 16 * CHUNKS; at += threads) {
            u32 row = at / CHUNKS, chunk = at % CHUNKS;
            bool valid = found && first + group + row < limit && chunk < used;
            u64 from = valid ? ((vector + row) * used + chunk) * 16 : 0;
            u32 to = F8 ? (group + row) * DIM + chunk * 16 : crosswise<DIM>(group + row, chunk);
            copy_async16(keys + to, cache.keys + from, valid);
            copy_async16(values + to, cache.values + from, valid);
        }
        if (F8) {
            u8* scales = values + KEYS * DIM;
            for (u32 at = thread; at < 8; at += threads) {
                // Four at once: up to three of them may be of keys from `limit` on, and anything.
                u32 four = at % 4 * 4;
                bool valid = found && first + group + four < limit;
                const float* from = at < 4 ? cache.key_scales : cache.value_scales;
                copy_async16(scales + (at / 4 * KEYS + group + four) * 4, from + (valid ? vector + four : 0), valid);
            }
        }
    }
}

// Two codes of e4m3, the bytes `shift` and `shift + 8` bits up, as a pair of bfloat16, exactly. The code of NaN becomes 480:
// a vector with a NaN in it has it in its scale.
DEVICE u32 unpack_codes(u32 codes, u32 shift) {
    u32 two = codes >> shift;
    u32 high = (two & 0xffu) << 8 | (two & 0xff00u) << 16;
    u32 moved = (high & 0x80008000u) | (high >> 4 & 0x07f007f0u);
    // Exponent and fraction in place; 2^120 mends the exponent's bias, exactly.
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 800
    u32 pair;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(moved), "r"(0x7b807b80u), "r"(0x80008000u));
    return pair;
#else
    return pack_bf16(low_bf16(moved) * bits_float(0x7b800000u), high_bf16(moved) * bits_float(0x7b800000u));
#endif
}

// Unpacks the codes of a stage to where tiles lie that are ready for products.
template <u32 DIM, u32 KEYS>
DEVICE void unpack_tile(u8* ring, u32 stage, u32 thread, u32 threads) {
    const u32 CHUNKS = DIM / 16;
    const u8* codes = codes_of<DIM, KEYS>(ring, stage);
    for (u32 at = thread; at < 2 * KEYS * CHUNKS; at += threads) {
        u32 row = at / CHUNKS % KEYS, chunk = at % CHUNKS, tile = at / (KEYS * CHUNKS);
        u32x4 sixteen = load16(codes + at * 16);
        u8* to = ring + tile * tile_bytes<DIM, KEYS>();
        UNROLL for (u32 half = 0; half < 2; half++) {
            u32 a = sixteen.at[2 * half], b = sixteen.at[2 * half + 1];
            u32x4 eight = {{unpack_codes(a, 0), unpack_codes(a, 16), unpack_codes(b, 0), unpack_codes(b, 16)}};
            store16(to + crosswise<DIM>(row, 2 * chunk + half), eight);
        }
    }
}

// A tile of a ring, ready.
struct Tile {
    const u8* keys;
    const u8* values;
    const float* key_scales;
    const float* value_scales;
};

template <u32 DIM, u32 KEYS, bool F8>
DEVICE Tile tile_of(u8* ring, u32 stage) {
    const u8* keys = F8 ? ring : ring + stage * 2 * tile_bytes<DIM, KEYS>();
    const float* scales = reinterpret_cast<const float*>(codes_of<DIM, KEYS>(ring, stage) + 2 * KEYS * DIM);
    return Tile{keys, keys + tile_bytes<DIM, KEYS>(), F8 ? scales : nullptr, F8 ? scales + KEYS : nullptr};
}

// A warp's queries as left operands, one for each sixteen dimensions.
template <u32 DIM>
struct Queries {
    u32 steps[DIM / 16][4];
};

// The same in shared memory, where registers are short: sixteen rows, crosswise.
template <u32 DIM>
struct SharedQueries {
    u8* rows;
};

template <u32 DIM>
DEVICE void set_step(Queries<DIM>& queries, u32 step, const u32 (&left)[4]) {
    UNROLL for (u32 part = 0; part < 4; part++) queries.steps[step][part] = left[part];
}

template <u32 DIM>
DEVICE void set_step(SharedQueries<DIM>& queries, u32 step, const u32 (&left)[4]) {
    u32 lane = threadIdx.x % WARP;
    UNROLL for (u32 part = 0; part < 4; part++) {
        u32 to = crosswise<DIM>(lane / 4 + part % 2 * 8, 2 * step + part / 2) + lane % 4 * 4;
        *reinterpret_cast<u32*>(queries.rows + to) = left[part];
    }
}

template <u32 DIM>
DEVICE void get_step(u32 (&left)[4], const Queries<DIM>& queries, u32 step) {
    UNROLL for (u32 part = 0; part < 4; part++) left[part] = queries.steps[step][part];
}

template <u32 DIM>
DEVICE void get_step(u32 (&left)[4], const SharedQueries<DIM>& queries, u32 step) {
    u32 lane = threadIdx.x % WARP, matrix = lane / 8;
    load_matrices(left, queries.rows + crosswise<DIM>(matrix % 2 * 8 + lane % 8, 2 * step + matrix / 2));
}

// The two rows of queries of a lane; null where there is no row. Ends with the warp's barrier.
template <u32 DIM, template <u32> class Left>
DEVICE void load_queries(Left<DIM>& queries, const bf16* low, const bf16* high, u32 dim) {
    u32 column = threadIdx.x % 4 * 2;
    UNROLL for (u32 step = 0; step < DIM / 16; step++) {
        u32 left[4];
        UNROLL for (u32 part = 0; part < 4; part++) {
            const bf16* row = part % 2 == 0 ? low : high;
            u32 at = step * 16 + part / 2 * 8 + column;
            left[part] = row != nullptr && at < dim ? *reinterpret_cast<const u32*>(row + at) : 0;
        }
        set_step(queries, step, left);
    }
    __syncwarp();
}

// Products of the warp's queries and a tile's keys: of block `n` of eight keys, a lane holds those of keys `8 n + 2 (lane % 4)`
// and the next, first for its low row, then for its high one.
template <u32 DIM, u32 KEYS, template <u32> class Left>
DEVICE void multiply_keys(float (&scores)[KEYS / 8][4], const Left<DIM>& queries, const u8* keys) {
    u32 lane = threadIdx.x % WARP, matrix = lane / 8;
    UNROLL for (u32 block = 0; block < KEYS / 8; block++) {
        UNROLL for (u32 part = 0; part < 4; part++) scores[block][part] = 0.0f;
    }
    UNROLL for (u32 step = 0; step < DIM / 16; step++) {
        u32 left[4];
        get_step(left, queries, step);
        UNROLL for (u32 block = 0; block < KEYS / 8; block += 2) {
            u32 four[4];
            u32 row = block * 8 + matrix / 2 * 8 + lane % 8;
            load_matrices(four, keys + crosswise<DIM>(row, 2 * step + matrix % 2));
            u32 first[2] = {four[0], four[1]}, second[2] = {four[2], four[3]};
            mma_bf16(scores[block], left, first);
            mma_bf16(scores[block + 1], left, second);
        }
    }
}

// Weights of two blocks of eight keys as a left operand.
DEVICE void pack_weights(u32 (&left)[4], const float (&first)[4], const float (&second)[4]) {
    left[0] = pack_bf16(first[0], first[1]);
    left[1] = pack_bf16(first[2], first[3]);
    left[2] = pack_bf16(second[0], second[1]);
    left[3] = pack_bf16(second[2], second[3]);
}

// sums += weights values.
template <u32 DIM, u32 KEYS>
DEVICE void add_values(float (&sums)[DIM / 8][4], const float (&weights)[KEYS / 8][4], const u8* values) {
    u32 lane = threadIdx.x % WARP, matrix = lane / 8;
    UNROLL for (u32 block = 0; block < KEYS / 8; block += 2) {
        u32 left[4];
        pack_weights(left, weights[block], weights[block + 1]);
        UNROLL for (u32 column = 0; column < DIM / 8; column += 2) {
            u32 four[4];
            u32 row = block * 8 + matrix % 2 * 8 + lane % 8;
            load_matrices_transposed(four, values + crosswise<DIM>(row, column + matrix / 2));
            u32 first[2] = {four[0], four[1]}, second[2] = {four[2], four[3]};
            mma_bf16(sums[column], left, first);
            mma_bf16(sums[column + 1], left, second);
        }
    }
}

// The keys that the two rows of a lane see: from <= key < to.
struct Seen {
    u32 from[2], to[2];
};

// Makes products scores, times log2 e; no score where the row does not see the key. `first` is the tile's first key. `whole`
// spares the looking where every row sees all of the tile.
template <u32 KEYS, bool F8>
DEVICE void finish_scores(float (&scores)[KEYS / 8][4], const Scoring& how, const Biases& biases, const Seen& seen,
                          u32 first, const float* key_scales, bool whole) {
    u32 lane_first = threadIdx.x % 4 * 2;
    float factor = how.scale * LOG2_E;
    UNROLL for (u32 block = 0; block < KEYS / 8; block++) {
        UNROLL for (u32 part = 0; part < 4; part++) {
            float score = scores[block][part];
            if (F8) score *= key_scales[block * 8 + lane_first + part % 2];
            if (how.cap == 0.0f) score *= factor;
            else score = tanh_of(score * how.scale / how.cap) * (how.cap * LOG2_E);
            scores[block][part] = score;
        }
    }
    for (u32 span = 0; span < biases.count; span++) {
        u32 from = biases.spans[3 * span], to = biases.spans[3 * span + 1];
        if (from >= first + KEYS) break;
        if (to <= first) continue;
        float bias = bits_float(biases.spans[3 * span + 2]) * LOG2_E;
        UNROLL for (u32 block = 0; block < KEYS / 8; block++) {
            UNROLL for (u32 part = 0; part < 4; part++) {
                u32 key = first + block * 8 + lane_first + part % 2;
                if (from <= key && key < to) scores[block][part] += bias;
            }
        }
    }
    if (whole) return;
    UNROLL for (u32 block = 0; block < KEYS / 8; block++) {
        UNROLL for (u32 part = 0; part < 4; part++) {
            u32 key = first + block * 8 + lane_first + part % 2;
            if (key < seen.from[part / 2] || key >= seen.to[part / 2]) scores[block][part] = no_score();
        }
    }
}

// How far the softmax of a lane's two rows has come: the largest score, and the lane's share of the sum of weights.
struct Softmax {
    float most[2], sum[2];
};

DEVICE Softmax no_softmax() { return Softmax{{no_score(), no_score()}, {0.0f, 0.0f}}; }

// Makes scores weights. What was summed before is to be multiplied by `rescale`.
template <u32 KEYS>
DEVICE void weigh(float (&scores)[KEYS / 8][4], Softmax& state, float (&rescale)[2]) {
    UNROLL for (u32 row = 0; row < 2; row++) {
        float most = state.most[row];
        UNROLL for (u32 block = 0; block < KEYS / 8; block++) {
            most = scores[block][2 * row] > most ? scores[block][2 * row] : most;
            most = scores[block][2 * row + 1] > most ? scores[block][2 * row + 1] : most;
        }
        UNROLL for (u32 step = 1; step < 4; step *= 2) {
            float other = __shfl_xor_sync(0xffffffffu, most, step);
            most = other > most ? other : most;
        }
        // A row that has seen no key yet.
        float zero = most == no_score() ? 0.0f : most;
        rescale[row] = power_of_two(state.most[row] - zero);
        state.most[row] = most;
        float sum = 0.0f;
        UNROLL for (u32 block = 0; block < KEYS / 8; block++) {
            UNROLL for (u32 part = 2 * row; part < 2 * row + 2; part++) {
                scores[block][part] = power_of_two(scores[block][part] - zero);
                sum += scores[block][part];
            }
        }
        state.sum[row] = state.sum[row] * rescale[row] + sum;
    }
}

// The whole sum of weights of a lane's two rows, the same in the four lanes that share them.
DEVICE void finish_sums(Softmax& state) {
    UNROLL for (u32 row = 0; row < 2; row++) {
        UNROLL for (u32 step = 1; step < 4; step *= 2) {
            state.sum[row] += __shfl_xor_sync(0xffffffffu, state.sum[row], step);
        }
    }
}

// A tile, from products to sums.
template <u32 DIM, u32 KEYS, bool F8, template <u32> class Left>
DEVICE void attend_tile(float (&sums)[DIM / 8][4], Softmax& state, const Left<DIM>& queries, const Tile& tile,
                        const Scoring& how, const Biases& biases, const Seen& seen, u32 first, bool whole) {
    float scores[KEYS / 8][4], rescale[2];
    multiply_keys<DIM, KEYS, Left>(scores, queries, tile.keys);
    finish_scores<KEYS, F8>(scores, how, biases, seen, first, tile.key_scales, whole);
    weigh<KEYS>(scores, state, rescale);
    UNROLL for (u32 column = 0; column < DIM / 8; column++) {
        UNROLL for (u32 part = 0; part < 4; part++) sums[column][part] *= rescale[part / 2];
    }
    if (F8) {
        UNROLL for (u32 block = 0; block < KEYS / 8; block++) {
            UNROLL for (u32 part = 0; part < 4; part++) {
                // The scale of a key that nobody sees may be anything.
                float scale = tile.value_scales[block * 8 + threadIdx.x % 4 * 2 + part % 2];
                scores[block][part] = scores[block][part] == 0.0f ? 0.0f : scores[block][part] * scale;
            }
        }
    }
    add_values<DIM, KEYS>(sums, scores, tile.values);
}
