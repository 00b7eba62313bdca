// Attention of the rows of prompts, by products of a warp.
//
// A block has a tile of query rows and one kv head, and 64 rows of products, sixteen to a warp. Keys and values come in
// tiles that begin at fixed positions, the next on its way while one is worked on. Tiles of which the rows see nothing are
// passed over.
#include "prefill.cuh"

static const u32 WARPS = 4;

template <u32 DIM, u32 KEYS, bool F8, template <u32> class Left>
DEVICE void prefill(Left<DIM>& left, u8* ring, const Prompts& prompts, const Cache& cache, const Scoring& how) {
    const u32 THREADS = WARPS * WARP;
    Share share = share_of(prompts, cache, how, 16 * WARPS);
    if (share.rows == 0) return;
    u32 product = threadIdx.x / WARP * 16 + threadIdx.x % WARP / 4;
    Seen seen = seen_by(share, how, product);
    const bf16* low = prompts.queries + place_of(share, cache, product);
    const bf16* high = prompts.queries + place_of(share, cache, product + 8);
    load_queries(left, is_live(share, product) ? low : nullptr, is_live(share, product + 8) ? high : nullptr, cache.dim);
    Softmax state = no_softmax();
    float sums[DIM / 8][4];
    UNROLL for (u32 column = 0; column < DIM / 8; column++) {
        UNROLL for (u32 part = 0; part < 4; part++) sums[column][part] = 0.0f;
    }

    u32 key = first_seen(how, share.position) / KEYS * KEYS, stage = 0;
    auto copy = [&](u32 to, u32 first) {
        if (first >= share.limit) return;
        copy_tile<DIM, KEYS, F8>(ring, to, cache, share.table, share.kv_head, first, share.limit, threadIdx.x, THREADS);
    };
    copy(stage, key);
    copy_async_commit();
    for (; key < share.limit; key += KEYS) {
        copy_async_wait<0>();
        // The tile is there for all, and all are through with the one before, whose place the next takes.
        __syncthreads();
        copy(1 - stage, key + KEYS);
        copy_async_commit();
        if (F8) {
            unpack_tile<DIM, KEYS>(ring, stage, threadIdx.x, THREADS);
            __syncthreads();
        }
        bool whole = key >= share.whole_from && key + KEYS <= share.whole_to;
        Tile tile = tile_of<DIM, KEYS, F8>(ring, stage);
        attend_tile<DIM, KEYS, F8>(sums, state, left, tile, how, share.emphasis, seen, key, whole);
        stage = 1 - stage;
    }
    copy_async_wait<0>();
    store_rows<DIM>(prompts.out, sums, state, share, cache, product);
}

// Queries stay in registers, or lie behind the ring.
#define IN_REGISTERS(DIM, KEYS, F8) Queries<DIM> left;
#define IN_SHARED(DIM, KEYS, F8) \
    SharedQueries<DIM> left = {shared + ring_bytes<DIM, KEYS, F8>() + threadIdx.x / WARP * 16 * DIM * 2};

// Attention of the rows of `tiles` (TILE_WORDS each), a block for each tile and kv head, those of a tile side by side.
#define PREFILL_WARPS(name, DIM, KEYS, F8, LEFT, BLOCKS)           \
    KERNEL(BOUNDS(128, BLOCKS) name)(PREFILL_PARAMETERS) {         \
        PREFILL_ARGUMENTS;                                         \
        LEFT(DIM, KEYS, F8)                                        \
        prefill<DIM, KEYS, F8>(left, shared, prompts, cache, how); \
    }                                                              \
    REGISTER(name)

PREFILL_WARPS(attend_prefill_64, 64, 64, false, IN_REGISTERS, 3)
PREFILL_WARPS(attend_prefill_128, 128, 64, false, IN_REGISTERS, 2)
PREFILL_WARPS(attend_prefill_256, 256, 32, false, IN_SHARED, 2)
PREFILL_WARPS(attend_prefill_64_f8, 64, 64, true, IN_REGISTERS, 2)
PREFILL_WARPS(attend_prefill_128_f8, 128, 64, true, IN_REGISTERS, 2)
PREFILL_WARPS(attend_prefill_256_f8, 256, 32, true, IN_SHARED, 2)
