// Attention of the rows of prompts, by products of a warp.
//
// A block has a tile of query rows and one kv head: its 64 rows of products are the tile's rows times the query heads that
// share the kv head, sixteen to a warp. Keys and values come in tiles that begin at fixed positions, the next on its way
// while one is worked on. Where the rows see none of a tile, it is passed over.
#include "attention.cuh"

static const u32 WARPS = 4;
static const u32 TILE_WORDS = 6;  // first query row, rows, position of the first, offset of the table, first bias span, spans

template <u32 DIM, u32 KEYS, bool F8, template <u32> class Left>
DEVICE void prefill(Left<DIM>& left, u8* ring, const bf16* queries, const Cache& cache, const Scoring& how, const u32* tiles, const u32* tables,
                    const u32* biases, bf16* out, u32 heads, u32 query_rows, u32 tables_length, u32 biases_length) {
    u32 lane = threadIdx.x % WARP, group = heads / cache.kv_heads;
    u32 kv_head = blockIdx.x % cache.kv_heads;
    const u32* tile = tiles + (u64)(blockIdx.x / cache.kv_heads) * TILE_WORDS;
    u32 first_row = tile[0], position = tile[2];
    if (first_row >= query_rows) return;
    u32 rows = min(min(tile[1], 16 * WARPS / group), query_rows - first_row);
    if (rows == 0) return;
    Table table = table_at(tables, tables_length, tile[3]);
    Biases emphasis = biases_at(biases, biases_length, tile[4], tile[5]);
    u32 limit = min(position + rows, table_end(table, cache.block_bits));

    // The lane's two rows; those beyond the tile's see nothing.
    Seen seen;
    u64 at[2];
    bool live[2];
    UNROLL for (u32 part = 0; part < 2; part++) {
        u32 packed = threadIdx.x / WARP * 16 + lane / 4 + 8 * part;
        u32 row = packed / group;
        live[part] = row < rows;
        at[part] = ((u64)(first_row + row) * heads + kv_head * group + packed % group) * cache.dim;
        seen.from[part] = live[part] ? first_seen(how, position + row) : 0;
        seen.to[part] = live[part] ? position + row + 1 : 0;
    }
    load_queries(left, live[0] ? queries + at[0] : nullptr, live[1] ? queries + at[1] : nullptr, cache.dim);
    Softmax state = no_softmax();
    float sums[DIM / 8][4];
    UNROLL for (u32 column = 0; column < DIM / 8; column++) {
        UNROLL for (u32 part = 0; part < 4; part++) sums[column][part] = 0.0f;
    }

    // Every row sees all of the tiles between these.
    u32 whole_from = first_seen(how, position + rows - 1), whole_to = position + 1;
    u32 key = first_seen(how, position) / KEYS * KEYS, stage = 0;
    if (key < limit) {
        copy_tile<DIM, KEYS, F8>(ring, stage, cache, table, kv_head, key, limit, threadIdx.x, WARPS * WARP);
    }
    copy_async_commit();
    for (; key < limit; key += KEYS) {
        copy_async_wait<0>();
        // The tile is there for all, and all are through with the one before, whose place the next takes.
        __syncthreads();
        if (key + KEYS < limit) {
            copy_tile<DIM, KEYS, F8>(ring, 1 - stage, cache, table, kv_head, key + KEYS, limit, threadIdx.x, WARPS * WARP);
        }
        copy_async_commit();
        if (F8) {
            unpack_tile<DIM, KEYS>(ring, stage, threadIdx.x, WARPS * WARP);
            __syncthreads();
        }
        bool whole = key >= whole_from && key + KEYS <= whole_to;
        attend_tile<DIM, KEYS, F8>(sums, state, left, tile_of<DIM, KEYS, F8>(ring, stage), how, emphasis, seen, key, whole);
        stage = 1 - stage;
    }
    copy_async_wait<0>();

    finish_sums(state);
    UNROLL for (u32 part = 0; part < 2; part++) {
        if (!live[part]) continue;
        float share = state.sum[part] == 0.0f ? 0.0f : 1.0f / state.sum[part];
        UNROLL for (u32 column = 0; column < DIM / 8; column++) {
            u32 to = column * 8 + lane % 4 * 2;
            if (to >= cache.dim) continue;
            u32 pair = pack_bf16(sums[column][2 * part] * share, sums[column][2 * part + 1] * share);
            *reinterpret_cast<u32*>(out + at[part] + to) = pair;
        }
    }
}

// Queries stay in registers, or lie behind the ring.
#define IN_REGISTERS(DIM, KEYS, F8) Queries<DIM> left;
#define IN_SHARED(DIM, KEYS, F8) \
    SharedQueries<DIM> left = {shared + ring_bytes<DIM, KEYS, F8>() + threadIdx.x / WARP * 16 * DIM * 2};

// Attention of the rows of `tiles` (TILE_WORDS each), a block for each tile and kv head, those of a tile side by side.
#define PREFILL(name, DIM, KEYS, F8, LEFT, BLOCKS)                                                                               \
    KERNEL(BOUNDS(128, BLOCKS) name)(                                                                                       \
        const bf16* __restrict__ queries, const u8* __restrict__ keys, const u8* __restrict__ values,                       \
        const float* __restrict__ key_scales, const float* __restrict__ value_scales, const u32* __restrict__ tiles,        \
        const u32* __restrict__ tables, const u32* __restrict__ biases, bf16* __restrict__ out, u32 heads, u32 kv_heads,    \
        u32 dim, u32 block_bits, u32 blocks, float scale, float cap, u32 window, u32 query_rows, u32 tables_length,         \
        u32 biases_length) {                                                                                                \
        Cache cache = {keys, values, key_scales, value_scales, kv_heads, dim, block_bits, blocks};                          \
        Scoring how = {scale, cap, window};                                                                                 \
        SHARED(u8, shared);                                                                                                 \
        LEFT(DIM, KEYS, F8)                                                                                                 \
        prefill<DIM, KEYS, F8>(left, shared, queries, cache, how, tiles, tables, biases, out, heads, query_rows, tables_length,           \
                               biases_length);                                                                              \
    }                                                                                                                       \
    REGISTER(name)

PREFILL(attend_prefill_64, 64, 64, false, IN_REGISTERS, 3)
PREFILL(attend_prefill_128, 128, 64, false, IN_REGISTERS, 2)
PREFILL(attend_prefill_256, 256, 32, false, IN_SHARED, 2)
PREFILL(attend_prefill_64_f8, 64, 64, true, IN_REGISTERS, 2)
PREFILL(attend_prefill_128_f8, 128, 64, true, IN_REGISTERS, 2)
PREFILL(attend_prefill_256_f8, 256, 32, true, IN_SHARED, 2)
