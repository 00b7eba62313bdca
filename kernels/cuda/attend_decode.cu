// Attention of single rows over long contexts: the keys of a row are split among blocks, and what these make of them is merged.
//
// The work is a list of items, one for each split of each row, in device memory, so that a recorded launch follows contexts
// that grow. A block takes items in turn, each for one kv head and at most sixteen of its query heads, which are the rows of
// the matrix products; each of its warps has keys and a ring of its own, and waits for nobody until it is through.
//
// How keys are split hangs on the row's own position and window alone, and so do the bits of its result.
#include "attention.cuh"

static const u32 HEADS = 16;         // query heads of an item: rows of a product
static const u32 WARP_KEYS = 16;     // keys a warp takes at a time
static const u32 SPLIT_KEYS = 256;   // keys of a split, at least
static const u32 SPLITS = 32;        // splits of a row, at most: the merging warp has a lane for each
static const u32 SPLIT_START = 64;   // splits begin at a multiple of as many keys
static const u32 ROW_WORDS = 5;      // query row, context, offset of the table, first bias span, spans

// The keys of a row and how they are split. `device/attention/plan.rs` reckons the same.
struct Splits {
    u32 from, to;  // keys it sees
    u32 start;     // where the first split begins
    u32 keys;      // of a split
    u32 count;
};

DEVICE Splits splits_of(u32 context, const Scoring& how) {
    Splits row;
    row.to = context;
    row.from = context == 0 ? 0 : first_seen(how, context - 1);
    row.start = row.from / SPLIT_START * SPLIT_START;
    u32 span = row.to - row.start;
    row.keys = SPLIT_KEYS;
    while (row.keys < 0x8000000u && (u64)row.keys * SPLITS < span) row.keys *= 2;
    row.count = (span + row.keys - 1) / row.keys;
    return row;
}

// Of what is kept of a split for the merge: a head's sums, its largest score and its sum of weights.
DEVICE u64 partial_at(u32 item, u32 head, u32 heads, u32 dim) { return ((u64)item * heads + head) * (dim + 2); }

template <u32 DIM, bool F8>
DEVICE void decode(const bf16* queries, const Cache& cache, const Scoring& how, const u32* rows, const u32* items,
                   const u32* tables, const u32* biases, float* partials, bf16* out, u32 heads, u32 query_rows,
                   u32 row_count, u32 capacity, u32 tables_length, u32 biases_length) {
    SHARED(u8, shared);
    const u32 RING = ring_bytes<DIM, WARP_KEYS, F8>();
    const u32 STRIDE = DIM + 8;  // of a warp's sums, which take the place of its ring: in different banks
    u32 warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u8* ring = shared + warp * RING;
    float* warp_sums = reinterpret_cast<float*>(ring);
    // For each warp and head, its largest score and sum of weights; then, what its sums are multiplied by.
    float* states = reinterpret_cast<float*>(shared + warps * RING);
    // For each head, what is to be kept.
    float* merged = states + warps * HEADS * 2;

    u32 group = heads / cache.kv_heads, parts = (group + HEADS - 1) / HEADS;
    u32 count = items[0] < capacity ? items[0] : capacity;
    u64 units = (u64)count * cache.kv_heads * parts;
    for (u64 unit = blockIdx.x; unit < units; unit += gridDim.x) {
        u32 item = (u32)(unit / (cache.kv_heads * parts)), rest = (u32)(unit % (cache.kv_heads * parts));
        u32 kv_head = rest / parts, first_head = rest % parts * HEADS;
        u32 item_heads = group - first_head < HEADS ? group - first_head : HEADS;
        first_head += kv_head * group;
        u32 code = items[1 + row_count + item];
        u32 split = code % SPLITS;
        if (code / SPLITS >= row_count) continue;
        const u32* row = rows + (u64)code / SPLITS * ROW_WORDS;
        u32 query = row[0];
        if (query >= query_rows) continue;
        Splits splits = splits_of(row[1], how);
        if (split >= splits.count) continue;
        Table table = table_at(tables, tables_length, row[2]);
        Biases emphasis = biases_at(biases, biases_length, row[3], row[4]);
        u32 limit = splits.to, end = table_end(table, cache.block_bits);
        if (limit > end) limit = end;
        u32 from = splits.start + split * splits.keys;
        u32 to = limit < from + splits.keys ? limit : from + splits.keys;

        const bf16* mine = queries + ((u64)query * heads + first_head) * cache.dim;
        u32 low = lane / 4, high = low + 8;
        Queries<DIM> left;
        load_queries(left, low < item_heads ? mine + low * cache.dim : nullptr,
                     high < item_heads ? mine + high * cache.dim : nullptr, cache.dim);
        Seen seen = {{splits.from, splits.from}, {splits.to, splits.to}};
        Softmax state = no_softmax();
        float sums[DIM / 8][4];
        UNROLL for (u32 column = 0; column < DIM / 8; column++) {
            UNROLL for (u32 part = 0; part < 4; part++) sums[column][part] = 0.0f;
        }

        u32 key = from + warp * WARP_KEYS, stage = 0;
        if (key < to) copy_tile<DIM, WARP_KEYS, F8>(ring, stage, cache, table, kv_head, key, limit, lane, WARP);
        copy_async_commit();
        for (; key < to; key += warps * WARP_KEYS) {
            u32 next = key + warps * WARP_KEYS;
            copy_async_wait<0>();
            __syncwarp();
            if (next < to) copy_tile<DIM, WARP_KEYS, F8>(ring, 1 - stage, cache, table, kv_head, next, limit, lane, WARP);
            copy_async_commit();
            if (F8) {
                unpack_tile<DIM, WARP_KEYS>(ring, stage, lane, WARP);
                __syncwarp();
            }
            attend_tile<DIM, WARP_KEYS, F8>(sums, state, left, tile_of<DIM, WARP_KEYS, F8>(ring, stage), how, emphasis,
                                            seen, key, false);
            stage = 1 - stage;
            // The next copy overwrites what other lanes may still read.
            __syncwarp();
        }
        copy_async_wait<0>();
        finish_sums(state);
        __syncwarp();

        // The warps' sums are merged, in their order.
        UNROLL for (u32 part = 0; part < 4; part++) {
            u32 head = part < 2 ? low : high;
            UNROLL for (u32 column = 0; column < DIM / 8; column++) {
                warp_sums[head * STRIDE + column * 8 + lane % 4 * 2 + part % 2] = sums[column][part];
            }
        }
        if (lane % 4 == 0) {
            UNROLL for (u32 part = 0; part < 2; part++) {
                states[(warp * HEADS + low + 8 * part) * 2] = state.most[part];
                states[(warp * HEADS + low + 8 * part) * 2 + 1] = state.sum[part];
            }
        }
        __syncthreads();
        if (threadIdx.x < HEADS) {
            float most = no_score(), sum = 0.0f;
            for (u32 at = 0; at < warps; at++) {
                float other = states[(at * HEADS + threadIdx.x) * 2];
                most = other > most ? other : most;
            }
            float zero = most == no_score() ? 0.0f : most;
            for (u32 at = 0; at < warps; at++) {
                float* one = states + (at * HEADS + threadIdx.x) * 2;
                float factor = power_of_two(one[0] - zero);
                sum += one[1] * factor;
                one[0] = factor;
            }
            merged[threadIdx.x * 2] = most;
            merged[threadIdx.x * 2 + 1] = sum;
        }
        __syncthreads();
        for (u32 at = threadIdx.x; at < item_heads * cache.dim; at += blockDim.x) {
            u32 head = at / cache.dim, column = at % cache.dim;
            float total = 0.0f;
            for (u32 other = 0; other < warps; other++) {
                const float* theirs = reinterpret_cast<const float*>(shared + other * RING);
                total += theirs[head * STRIDE + column] * states[(other * HEADS + head) * 2];
            }
            float most = merged[head * 2], sum = merged[head * 2 + 1];
            if (splits.count == 1) {
                float share = sum == 0.0f ? 0.0f : total / sum;
                out[((u64)query * heads + first_head + head) * cache.dim + column] = to_bf16(share);
            } else {
                float* partial = partials + partial_at(item, first_head + head, heads, cache.dim);
                partial[column] = total;
                if (column < 2) partial[cache.dim + column] = column == 0 ? most : sum;
            }
        }
        // The next item's copies overwrite the sums.
        __syncthreads();
    }
}

// Attention of the rows listed: `rows` (ROW_WORDS each, `row_count` of them) and `items`: how many there are, for each row the
// number of its first, then of each the row times SPLITS plus the split. Rows of a single split are done with here; of
// others, partial results go to `partials` for `attend_merge`.
#define DECODE(name, DIM, F8, BLOCKS)                                                                                       \
    KERNEL(BOUNDS(128, BLOCKS) name)(                                                                                       \
        const bf16* __restrict__ queries, const u8* __restrict__ keys, const u8* __restrict__ values,                       \
        const float* __restrict__ key_scales, const float* __restrict__ value_scales, const u32* __restrict__ rows,         \
        const u32* __restrict__ items, const u32* __restrict__ tables, const u32* __restrict__ biases,                      \
        float* __restrict__ partials, bf16* __restrict__ out, u32 heads, u32 kv_heads, u32 dim, u32 block_bits, u32 blocks, \
        float scale, float cap, u32 window, u32 query_rows, u32 row_count, u32 capacity, u32 tables_length,                 \
        u32 biases_length) {                                                                                                \
        Cache cache = {keys, values, key_scales, value_scales, kv_heads, dim, block_bits, blocks};                          \
        Scoring how = {scale, cap, window};                                                                                 \
        decode<DIM, F8>(queries, cache, how, rows, items, tables, biases, partials, out, heads, query_rows, row_count,      \
                        capacity, tables_length, biases_length);                                                            \
    }                                                                                                                       \
    REGISTER(name)

DECODE(attend_decode_64, 64, false, 4)
DECODE(attend_decode_128, 128, false, 3)
DECODE(attend_decode_256, 256, false, 1)
DECODE(attend_decode_64_f8, 64, true, 4)
DECODE(attend_decode_128_f8, 128, true, 3)
DECODE(attend_decode_256_f8, 256, true, 1)

// Merges the splits of each row, in their order, a warp for each row and head: blockIdx.x is the row, blockIdx.y heads. A row
// of context 0 comes out as zeros.
KERNEL(attend_merge)(const u32* __restrict__ rows, const u32* __restrict__ items, const float* __restrict__ partials,
                     bf16* __restrict__ out, u32 heads, u32 dim, u32 window, u32 query_rows, u32 capacity) {
    u32 lane = threadIdx.x % WARP, head = blockIdx.y * (blockDim.x / WARP) + threadIdx.x / WARP;
    const u32* row = rows + (u64)blockIdx.x * ROW_WORDS;
    if (head >= heads || row[0] >= query_rows) return;
    Scoring how = {1.0f, 0.0f, window};
    Splits splits = splits_of(row[1], how);
    if (splits.count == 1) return;
    u32 first = items[1 + blockIdx.x];
    u32 count = first < capacity && splits.count <= capacity - first ? splits.count : 0;
    bool mine = lane < count;
    const float* state = partials + partial_at(first + (mine ? lane : 0), head, heads, dim) + dim;
    float score = mine ? state[0] : no_score();
    float most = warp_max(score);
    float factor = mine ? power_of_two(score - (most == no_score() ? 0.0f : most)) : 0.0f;
    float sum = warp_sum(mine ? state[1] * factor : 0.0f);
    factor = sum == 0.0f ? 0.0f : factor / sum;
    bf16* to = out + ((u64)row[0] * heads + head) * dim;
    for (u32 start = 0; start < dim; start += WARP) {
        u32 column = start + lane;
        float total = 0.0f;
        for (u32 split = 0; split < count; split++) {
            float share = __shfl_sync(0xffffffffu, factor, split);
            if (column < dim) total += share * partials[partial_at(first + split, head, heads, dim) + column];
        }
        if (column < dim) to[column] = to_bf16(total);
    }
}
REGISTER(attend_merge)
