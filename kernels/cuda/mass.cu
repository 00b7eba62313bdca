// Where a row looks: the weights of its softmax, summed over spans of keys.
#include "attention.cuh"

// Query row, context, offset of the table, first head and heads, first span and spans.
static const u32 ASK_WORDS = 7;
static const u32 KEY_LANES = 8;  // lanes that share a key

// A key's score, times log2 e, the same in the lanes that share it. `query` is in shared memory.
DEVICE float score_of(const float* query, const Cache& cache, const Table& table, const Scoring& how, u32 head, u32 key,
                      bool there) {
    u64 vector = 0;
    float sum = 0.0f;
    bool found = there && find_vector(vector, cache, table, head, key);
    bool coded = cache.key_scales != nullptr;
    for (u32 column = threadIdx.x % KEY_LANES * 8; found && column < cache.dim; column += KEY_LANES * 8) {
        if (coded) {
            const f8* codes = reinterpret_cast<const f8*>(cache.keys) + vector * cache.dim + column;
            UNROLL for (u32 at = 0; at < 8; at++) sum += query[column + at] * to_float(codes[at]);
        } else {
            u32x4 eight = load16(cache.keys + (vector * cache.dim + column) * 2);
            UNROLL for (u32 at = 0; at < 4; at++) {
                sum += query[column + 2 * at] * low_bf16(eight.at[at]);
                sum += query[column + 2 * at + 1] * high_bf16(eight.at[at]);
            }
        }
    }
    UNROLL for (u32 step = 1; step < KEY_LANES; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (coded && found) sum *= cache.key_scales[vector];
    if (how.cap == 0.0f) return sum * (how.scale * LOG2_E);
    return tanh_of(sum * how.scale / how.cap) * (how.cap * LOG2_E);
}

// For ask `blockIdx.x` and the `blockIdx.y`-th of its heads: the weights of keys in each of the ask's spans (pairs of first and
// past the last), to row `blockIdx.y` of `masses`, which has a column for each span of all.
KERNEL(attention_mass)(const bf16* __restrict__ queries, const u8* __restrict__ keys, const float* __restrict__ key_scales,
                       const u32* __restrict__ asks, const u32* __restrict__ tables, const u32* __restrict__ asked_heads,
                       const u32* __restrict__ spans, float* __restrict__ masses, u32 heads, u32 kv_heads, u32 dim,
                       u32 block_bits, u32 blocks, float scale, float cap, u32 window, u32 query_rows, u32 tables_length,
                       u32 heads_length, u32 span_count) {
    SHARED(float, query);
    float* scratch = query + dim;
    const u32* ask = asks + (u64)blockIdx.x * ASK_WORDS;
    u32 row = ask[0], context = ask[1], which = ask[3] + blockIdx.y;
    if (row >= query_rows || context == 0 || blockIdx.y >= ask[4] || which >= heads_length) return;
    u32 head = asked_heads[which];
    if (head >= heads) return;
    Cache cache = {keys, nullptr, key_scales, nullptr, kv_heads, dim, block_bits, blocks};
    Scoring how = {scale, cap, window};
    Table table = table_at(tables, tables_length, ask[2]);
    for (u32 at = threadIdx.x; at < dim; at += blockDim.x) query[at] = to_float(queries[((u64)row * heads + head) * dim + at]);
    __syncthreads();

    u32 kv_head = head / (heads / kv_heads), warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    u32 seen_from = first_seen(how, context - 1), seen_to = min(context, table_end(table, block_bits));
    const u32 WARP_KEYS = WARP / KEY_LANES;
    u32 mine = threadIdx.x % WARP / KEY_LANES;
    float most = no_score(), sum = 0.0f;
    for (u32 start = seen_from + warp * WARP_KEYS; start < seen_to; start += warps * WARP_KEYS) {
        bool there = start + mine < seen_to;
        float score = score_of(query, cache, table, how, kv_head, start + mine, there);
        if (!there) continue;
        float larger = score > most ? score : most;
        sum = sum * power_of_two(most - larger) + power_of_two(score - larger);
        most = larger;
    }
    bool first_lane = threadIdx.x % KEY_LANES == 0;
    float top = block_max(most, scratch);
    float total = block_sum(first_lane && most != no_score() ? sum * power_of_two(most - top) : 0.0f, scratch + warps);

    for (u32 at = 0; at < ask[6]; at++) {
        u32 span = ask[5] + at;
        if (span >= span_count) break;
        u32 from = max(spans[2 * span], seen_from), to = min(spans[2 * span + 1], seen_to);
        float weight = 0.0f;
        for (u32 start = from + warp * WARP_KEYS; start < to; start += warps * WARP_KEYS) {
            bool there = start + mine < to;
            float score = score_of(query, cache, table, how, kv_head, start + mine, there);
            if (there && first_lane) weight += power_of_two(score - top);
        }
        float all = block_sum(weight, scratch + 2 * warps);
        if (threadIdx.x == 0) masses[(u64)blockIdx.y * span_count + span] = all / total;
        __syncthreads();
    }
}
REGISTER(attention_mass)

// Ask `blockIdx.x`: the mean over its heads of the mass of each of its spans, to `out`, which has a number for each span of all.
KERNEL(average_mass)(const u32* __restrict__ asks, const float* __restrict__ masses, float* __restrict__ out, u32 most_heads,
                     u32 span_count) {
    const u32* ask = asks + (u64)blockIdx.x * ASK_WORDS;
    u32 heads = min(ask[4], most_heads);
    for (u32 at = threadIdx.x; at < ask[6]; at += blockDim.x) {
        u32 span = ask[5] + at;
        if (span >= span_count) break;
        float sum = 0.0f;
        for (u32 head = 0; head < heads; head++) sum += masses[(u64)head * span_count + span];
        out[span] = heads == 0 ? 0.0f : sum / (float)heads;
    }
}
REGISTER(average_mass)
