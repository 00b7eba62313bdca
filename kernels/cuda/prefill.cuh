// What both kernels of prompts share: a tile of query rows, and where a lane's two rows of products come from and go.
#pragma once
#include "attention.cuh"

static const u32 TILE_WORDS = 6;  // first query row, rows, position of the first, offset of the table, first bias span, spans

// What attention of prompts is launched with, beside the cache and how it scores.
struct Prompts {
    const bf16* queries;
    const u32* tiles;
    const u32* tables;
    const u32* biases;
    bf16* out;
    u32 heads, query_rows, tables_length, biases_length;
};

// A block's share: a tile of rows and a kv head. Its rows of products are the tile's rows times the `group` query heads that
// share the kv head, the heads of a row side by side.
struct Share {
    u32 kv_head, group, first_row, rows, position;
    Table table;
    Biases emphasis;
    u32 limit;                  // past the last key that any row sees
    u32 whole_from, whole_to;  // keys that every row sees
};

// The share of block `blockIdx.x`, as far as it fits into `products` rows. Without rows if there is none.
DEVICE Share share_of(const Prompts& prompts, const Cache& cache, const Scoring& how, u32 products) {
    Share share;
    const u32* tile = prompts.tiles + (u64)(blockIdx.x / cache.kv_heads) * TILE_WORDS;
    share.kv_head = blockIdx.x % cache.kv_heads;
    share.group = prompts.heads / cache.kv_heads;
    share.first_row = min(tile[0], prompts.query_rows);
    share.rows = min(min(tile[1], products / share.group), prompts.query_rows - share.first_row);
    share.position = tile[2];
    share.table = table_at(prompts.tables, prompts.tables_length, tile[3]);
    share.emphasis = biases_at(prompts.biases, prompts.biases_length, tile[4], tile[5]);
    share.limit = min(share.position + share.rows, table_end(share.table, cache.block_bits));
    share.whole_from = first_seen(how, share.position + share.rows - 1);
    share.whole_to = share.position + 1;
    return share;
}

// Whether a row of products is one of the tile's.
DEVICE bool is_live(const Share& share, u32 product) { return product / share.group < share.rows; }

// Where its query begins, and its result.
DEVICE u64 place_of(const Share& share, const Cache& cache, u32 product) {
    u64 row = share.first_row + product / share.group;
    return ((row * cache.kv_heads + share.kv_head) * share.group + product % share.group) * cache.dim;
}

// The keys that rows `product` and `product + 8` see; none, where there is no row.
DEVICE Seen seen_by(const Share& share, const Scoring& how, u32 product) {
    Seen seen;
    UNROLL for (u32 part = 0; part < 2; part++) {
        u32 position = share.position + (product + 8 * part) / share.group;
        bool live = is_live(share, product + 8 * part);
        seen.from[part] = live ? first_seen(how, position) : 0;
        seen.to[part] = live ? position + 1 : 0;
    }
    return seen;
}

// Writes what came of rows `product` and `product + 8`.
template <u32 DIM>
DEVICE void store_rows(bf16* out, const float (&sums)[DIM / 8][4], Softmax& state, const Share& share, const Cache& cache,
                       u32 product) {
    finish_sums(state);
    UNROLL for (u32 part = 0; part < 2; part++) {
        if (!is_live(share, product + 8 * part)) continue;
        bf16* to = out + place_of(share, cache, product + 8 * part);
        float share_of_one = state.sum[part] == 0.0f ? 0.0f : 1.0f / state.sum[part];
        UNROLL for (u32 column = 0; column < DIM / 8; column++) {
            u32 at = column * 8 + threadIdx.x % 4 * 2;
            if (at >= cache.dim) continue;
            u32 pair = pack_bf16(sums[column][2 * part] * share_of_one, sums[column][2 * part + 1] * share_of_one);
            *reinterpret_cast<u32*>(to + at) = pair;
        }
    }
}

// The parameters of a kernel of prompts, and what they make.
#define PREFILL_PARAMETERS                                                                                                \
    const bf16 *__restrict__ queries, const u8 *__restrict__ keys, const u8 *__restrict__ values,                         \
        const float *__restrict__ key_scales, const float *__restrict__ value_scales, const u32 *__restrict__ tiles,      \
        const u32 *__restrict__ tables, const u32 *__restrict__ biases, bf16 *__restrict__ out, u32 heads, u32 kv_heads,  \
        u32 dim, u32 block_bits, u32 blocks, float scale, float cap, u32 window, u32 query_rows, u32 tables_length,       \
        u32 biases_length
#define PREFILL_ARGUMENTS                                                                                                 \
    Cache cache = {keys, values, key_scales, value_scales, kv_heads, dim, block_bits, blocks};                            \
    Scoring how = {scale, cap, window};                                                                                   \
    Prompts prompts = {queries, tiles, tables, biases, out, heads, query_rows, tables_length, biases_length};             \
    SHARED(u8, shared)
