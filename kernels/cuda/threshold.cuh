// Thresholds among a row's tokens: by weight or by number, in order of logit or of id, found by counting into bins.
#pragma once
#include "logits.cuh"

static const u32 BINS = 256;
// Tokens a list has room for.
static const u32 LIST = 4096;
static const u32 UNLISTED = 0xffffffffu;

// The last token kept; all before it, by logit and then by id, the lower first, are kept too.
struct Cut {
    u32 order;
    u32 id;
};

DEVICE bool keeps(Cut cut, u32 order, u32 id) { return order > cut.order || (order == cut.order && id <= cut.id); }

// A row being sampled, and the block's shared memory.
struct Row {
    const float* logits;
    const u32* allowed;
    u32 vocab;
    bool wide;
    float top;
    float inverse;
    // Tokens in `list`, as order << 32 | id; UNLISTED where the whole row is looked at.
    u32 listed;
    u64* scratch;
    u32* low;
    u32* high;
    u32* shared;
    u64* list;
};

DEVICE u64 weight_of(const Row& row, float logit) {
    return (u64)(expf((logit - row.top) * row.inverse) * 1099511627776.0f);
}

// Calls `visit(order, id)` for this thread's share of the tokens that may be chosen.
template <class Visit>
DEVICE void each_token(const Row& row, Visit visit) {
    if (row.listed != UNLISTED) {
        for (u32 at = threadIdx.x; at < row.listed; at += blockDim.x) {
            u64 token = row.list[at];
            visit((u32)(token >> 32), (u32)token);
        }
        return;
    }
    each_logit(row.logits, row.allowed, row.vocab, row.wide, [&](u32 id, float logit) {
        u32 order = order_of(logit);
        if (order > NOTHING) visit(order, id);
    });
}

// Bins are sums of 64 bits in two halves, for want of such atomics in shared memory.
DEVICE void add_to_bin(const Row& row, u32 bin, u64 amount) {
    u32 low = (u32)amount, high = (u32)(amount >> 32);
    u32 before = atomicAdd(&row.low[bin], low);
    high += before + low < before ? 1 : 0;
    if (high != 0) atomicAdd(&row.high[bin], high);
}

DEVICE u64 bin_of(const Row& row, u32 bin) { return (u64)row.high[bin] << 32 | row.low[bin]; }

// All threads have read the bins before, and find them empty after.
DEVICE void clear_bins(const Row& row) {
    __syncthreads();
    for (u32 bin = threadIdx.x; bin < BINS; bin += blockDim.x) row.low[bin] = row.high[bin] = 0;
    __syncthreads();
}

DEVICE u64 warp_sum64(u64 value) {
    UNROLL for (u32 step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

// Of the sums of lanes 0 to `lane`.
DEVICE u64 warp_prefix64(u64 value) {
    u32 lane = threadIdx.x % WARP;
    UNROLL for (u32 step = 1; step < WARP; step *= 2) {
        u64 before = __shfl_up_sync(0xffffffffu, value, step);
        if (lane >= step) value += before;
    }
    return value;
}

// The first lane whose `reached` is true, or the last of all.
DEVICE u32 first_lane(bool reached) {
    u32 lanes = __ballot_sync(0xffffffffu, reached);
    return lanes == 0 ? WARP - 1 : (u32)__ffs((int)lanes) - 1;
}

// How tokens are ordered and measured while a threshold is sought.
struct Search {
    // By falling logit, or else by rising id.
    bool by_id;
    // By weight, or else by number.
    bool weighed;
    // Only those of this order, unless it is 0.
    u32 tie;
};

struct Found {
    // Order or id of the last token needed.
    u32 value;
    // Measure of all before it, and of those that share its order.
    u64 before;
    u64 here;
};

// Where, going through the tokens that `cut` keeps, their measure reaches `need`, at least 1 and no more than there is.
DEVICE Found search(const Row& row, Cut cut, Search by, u32 first, u32 last, u64 need) {
    // Values fall from `high` on: ids turned round do so as well.
    u32 low = by.by_id ? ~last : last, high = by.by_id ? ~first : first;
    Found found = {0, 0, 0};
    for (;;) {
        u32 width = high - low, shift = width < BINS ? 0 : 24 - (u32)__clz((int)width);
        clear_bins(row);
        each_token(row, [&](u32 order, u32 id) {
            u32 value = by.by_id ? ~id : order;
            if (value < low || value > high || !keeps(cut, order, id)) return;
            if (by.tie != 0 && order != by.tie) return;
            u64 amount = by.weighed ? weight_of(row, logit_of(order)) : 1;
            add_to_bin(row, (value - low) >> shift, amount);
        });
        __syncthreads();
        // Every warp looks for the bin: eight to a lane, the highest first.
        u32 lane = threadIdx.x % WARP, top_bin = BINS - 1 - 8 * lane;
        u64 own = 0;
        for (u32 at = 0; at < 8; at++) own += bin_of(row, top_bin - at);
        u64 prefix = found.before + warp_prefix64(own);
        u32 from = first_lane(prefix >= need);
        u64 before = prefix - own, here = 0;
        u32 bin = top_bin;
        for (u32 at = 0; at < 8; at++) {
            bin = top_bin - at;
            here = bin_of(row, bin);
            if (before + here >= need) break;
            if (at < 7) before += here;
        }
        bin = __shfl_sync(0xffffffffu, bin, from);
        found.before = __shfl_sync(0xffffffffu, before, from);
        found.here = __shfl_sync(0xffffffffu, here, from);
        u32 begin = bin << shift, size = (1u << shift) - 1;
        if (begin > width) begin = width;
        low += begin;
        if (high - low > size) high = low + size;
        if (shift == 0) {
            found.value = by.by_id ? ~low : low;
            return found;
        }
    }
}

// The weight of what `cut` keeps.
DEVICE u64 weigh(const Row& row, Cut cut) {
    clear_bins(row);
    u64 sum = 0;
    each_token(row, [&](u32 order, u32 id) {
        if (keeps(cut, order, id)) sum += weight_of(row, logit_of(order));
    });
    sum = warp_sum64(sum);
    if (threadIdx.x % WARP == 0) add_to_bin(row, 0, sum);
    __syncthreads();
    return bin_of(row, 0);
}

// The least whole number that is `share` of `all`, and at least 1.
DEVICE u64 share_of(u64 all, float share) {
    u64 part = (u64)ceil((double)share * (double)all);
    return part < 1 ? 1 : part > all ? all : part;
}
