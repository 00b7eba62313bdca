// Attention of the rows of prompts, by products of four warps: for sm_90a alone.
//
// A block has a tile of query rows and one kv head, and 128 rows of products, 64 to each of two groups of four warps. Queries,
// keys and values lie in shared memory; scores, weights and sums in registers. While one group weighs, the other multiplies.
#include "prefill.cuh"
#include "warpgroup.cuh"

static const u32 PRODUCTS = 128;
static const u32 KEYS = 128;
static const u32 THREADS = 256;

// Begins to copy the queries of the block's rows of products; zeros where there is none.
template <u32 DIM>
DEVICE void copy_queries(u8* to, const Prompts& prompts, const Share& share, const Cache& cache) {
    for (u32 at = threadIdx.x; at < PRODUCTS * DIM / 8; at += THREADS) {
        u32 product = at / (DIM / 8), chunk = at % (DIM / 8);
        bool live = is_live(share, product);
        u64 from = live ? place_of(share, cache, product) + chunk * 8 : 0;
        copy_async16(to + panel_offset<PRODUCTS>(product, chunk), prompts.queries + from, live);
    }
}

// Begins to copy keys and values `first .. first + KEYS` to a stage of the ring; zeros from key `limit` on.
template <u32 DIM>
DEVICE void copy_panels(u8* keys, u8* values, const Share& share, const Cache& cache, u32 first) {
    const u32 CHUNKS = DIM / 8;
    UNROLL for (u32 group = 0; group < KEYS; group += 16) {
        u64 vector = 0;
        bool found = first + group < share.limit && find_vector(vector, cache, share.table, share.kv_head, first + group);
        for (u32 at = threadIdx.x; at < 16 * CHUNKS; at += THREADS) {
            u32 row = at / CHUNKS, chunk = at % CHUNKS;
            bool valid = found && first + group + row < share.limit;
            u64 from = valid ? ((vector + row) * CHUNKS + chunk) * 16 : 0;
            u32 to = panel_offset<KEYS>(group + row, chunk);
            copy_async16(keys + to, cache.keys + from, valid);
            copy_async16(values + to, cache.values + from, valid);
        }
    }
}

template <u32 DIM>
DEVICE void prefill(u8* shared, const Prompts& prompts, const Cache& cache, const Scoring& how) {
    const u32 TILE = KEYS * DIM * 2;
    Share share = share_of(prompts, cache, how, PRODUCTS);
    if (share.rows == 0) return;
    u8* queries = shared + (1024 - shared_address(shared) % 1024) % 1024;
    u8* ring = queries + PRODUCTS * DIM * 2;
    u32 first_product = threadIdx.x / 128 * 64;
    u32 product = threadIdx.x / WARP * 16 + threadIdx.x % WARP / 4;
    Seen seen = seen_by(share, how, product);
    Softmax state = no_softmax();
    float sums[DIM / 8][4];
    UNROLL for (u32 column = 0; column < DIM / 8; column++) {
        UNROLL for (u32 part = 0; part < 4; part++) sums[column][part] = 0.0f;
    }

    copy_queries<DIM>(queries, prompts, share, cache);
    u32 key = first_seen(how, share.position) / KEYS * KEYS, stage = 0;
    if (key < share.limit) copy_panels<DIM>(ring, ring + TILE, share, cache, key);
    copy_async_commit();
    for (; key < share.limit; key += KEYS) {
        copy_async_wait<0>();
        fence_shared();
        // The tile is there for all, and all are through with the one before, whose place the next takes.
        __syncthreads();
        if (key + KEYS < share.limit) {
            u8* next = ring + (1 - stage) * 2 * TILE;
            copy_panels<DIM>(next, next + TILE, share, cache, key + KEYS);
        }
        copy_async_commit();

        u32 keys = shared_address(ring + stage * 2 * TILE), values = keys + TILE;
        float scores[KEYS / 8][4], rescale[2];
        begin_products();
        UNROLL for (u32 step = 0; step < DIM / 16; step++) {
            begin_mma(scores, by_rows<PRODUCTS>(shared_address(queries), first_product, step),
                      by_rows<KEYS>(keys, 0, step), step > 0);
        }
        finish_products(scores);

        bool whole = key >= share.whole_from && key + KEYS <= share.whole_to;
        finish_scores<KEYS, false>(scores, how, share.emphasis, seen, key, nullptr, whole);
        weigh<KEYS>(scores, state, rescale);
        UNROLL for (u32 column = 0; column < DIM / 8; column++) {
            UNROLL for (u32 part = 0; part < 4; part++) sums[column][part] *= rescale[part / 2];
        }
        u32 weights[KEYS / 16][4];
        UNROLL for (u32 step = 0; step < KEYS / 16; step++) pack_weights(weights[step], scores[2 * step], scores[2 * step + 1]);
        begin_products();
        UNROLL for (u32 step = 0; step < KEYS / 16; step++) begin_mma(sums, weights[step], by_columns<KEYS>(values, step));
        finish_products(sums);
        stage = 1 - stage;
    }
    copy_async_wait<0>();
    store_rows<DIM>(prompts.out, sums, state, share, cache, product);
}

// As those of `attend_prefill`, for bfloat16 alone and heads of just these sizes.
#define PREFILL_GROUPS(name, DIM)                     \
    KERNEL(BOUNDS(256, 1) name)(PREFILL_PARAMETERS) { \
        PREFILL_ARGUMENTS;                            \
        prefill<DIM>(shared, prompts, cache, how);    \
    }                                                 \
    REGISTER(name)

PREFILL_GROUPS(attend_prefill_sm90_64, 64)
PREFILL_GROUPS(attend_prefill_sm90_128, 128)
