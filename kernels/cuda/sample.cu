// Choosing the next token of each row: bias, penalties and bans, then temperature, top-k, top-p and min-p, and one uniform
// number that picks among what is left in order of id. The CPU's rules, in the CPU's order.
//
// A weight, exp((logit - top) / temperature), is kept as a whole number of 2^-40: sums of whole numbers are the same in any
// order, so what is drawn does not depend on how threads share the row out, and no rounding decides at the end of a sum.
//
// Nothing sorts. Where a few thousand of the likeliest tokens hold all that top-k and top-p may keep, these are listed in
// shared memory first; thresholds are found by counting into 256 bins, again into 256 of the bin that has it, and so on.
#include "logits.cuh"

// Words of a row's settings and of an edit, as `SampleRows` lays them out.
static const u32 HEADER = 16;
static const u32 EDIT = 4;

static const u32 LIVE = 1;
static const u32 MASKED = 2;

// Bits of an edit's third word, above the count.
static const u32 BANNED = 1u << 31;
static const u32 SEEN = 1u << 30;
static const u32 BIASED = 1u << 29;

// Edited logits stay within this of 0.
static const float LARGEST_EDITED = 1e30f;

static const u32 NOT_FINITE = 1;
static const u32 NOTHING_LEFT = 2;

static const u32 BINS = 256;
// Tokens a list has room for.
static const u32 LIST = 4096;
static const u32 UNLISTED = 0xffffffffu;

// Depths below the top, in logits times the temperature if that is above 1, at which a list may end.
static const u32 FLOORS = 4;
DEVICE float floor_depth(u32 at) { return at == 0 ? 3.0f : at == 1 ? 6.0f : at == 2 ? 10.0f : 16.0f; }

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

// What top-k, of 0 for all, and top-p leave. Lists the likeliest tokens on the way if it can.
DEVICE Cut narrow(Row& row, u32 top_order, u32 top_k, float top_p, float temperature) {
    Cut cut = {0, 0xffffffffu};
    u32 floors[FLOORS], counts[FLOORS + 1] = {};
    u64 weights[FLOORS + 1] = {};
    UNROLL for (u32 at = 0; at < FLOORS; at++) {
        floors[at] = order_of(row.top - floor_depth(at) * max(temperature, 1.0f));
    }
    clear_bins(row);
    each_token(row, [&](u32 order, u32) {
        u64 weight = weight_of(row, logit_of(order));
        UNROLL for (u32 at = 0; at < FLOORS; at++) {
            if (order >= floors[at]) {
                counts[at]++;
                weights[at] += weight;
            }
        }
        counts[FLOORS]++;
        weights[FLOORS] += weight;
    });
    UNROLL for (u32 at = 0; at <= FLOORS; at++) {
        u64 weight = warp_sum64(weights[at]), count = warp_sum64(counts[at]);
        if (threadIdx.x % WARP == 0) {
            add_to_bin(row, 2 * at, weight);
            add_to_bin(row, 2 * at + 1, count);
        }
    }
    __syncthreads();
    u64 all = bin_of(row, 2 * FLOORS), live = bin_of(row, 2 * FLOORS + 1);
    u64 need = top_k > 0 ? min((u64)top_k, live) : share_of(all, top_p);
    u32 floor = NOTHING + 1;
    for (u32 at = 0; at < FLOORS; at++) {
        if (bin_of(row, 2 * at + (top_k > 0)) < need) continue;
        if (bin_of(row, 2 * at + 1) <= LIST) {
            floor = order_of(row.top - floor_depth(at) * max(temperature, 1.0f));
            row.listed = 0;
        }
        break;
    }
    if (row.listed == 0) {
        __syncthreads();
        if (threadIdx.x == 0) *row.shared = 0;
        __syncthreads();
        row.listed = UNLISTED;
        each_token(row, [&](u32 order, u32 id) {
            if (order < floor) return;
            u32 at = atomicAdd(row.shared, 1u);
            if (at < LIST) row.list[at] = (u64)order << 32 | id;
        });
        __syncthreads();
        row.listed = min(*row.shared, LIST);
    }

    for (u32 weighed = top_k > 0 ? 0 : 1; weighed < (top_p < 1.0f ? 2 : 1); weighed++) {
        if (weighed && top_k > 0) need = share_of(weigh(row, cut), top_p);
        Found found = search(row, cut, Search{false, weighed != 0, 0}, top_order, floor, need);
        Cut last = {found.value, cut.order == found.value ? cut.id : 0xffffffffu};
        if (found.before + found.here > need) {
            // Of equals that are too many, the lowest ids; all of them weigh the same.
            u64 left = need - found.before;
            if (weighed) {
                u64 each = weight_of(row, logit_of(found.value));
                left = (left + each - 1) / each;
            }
            last.id = search(row, cut, Search{true, false, found.value}, 0, row.vocab - 1, left).value;
        }
        cut = last;
    }
    return cut;
}

// The finaliser of SplitMix64, with Stafford's mix 13.
DEVICE u64 mix(u64 z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// A uniform number of 53 bits, in the high ones of 64: output `draw` of SplitMix64 begun at mix(seed + its increment).
DEVICE u64 uniform_bits(u64 seed, u64 draw) {
    const u64 golden = 0x9e3779b97f4a7c15ull;
    u64 start = mix(seed + golden);
    return mix(start + golden * (draw + 1)) >> 11 << 11;
}

// The weight of four tokens from `id` on that `cut` keeps, each to `to`.
DEVICE u64 weigh_four(const Row& row, Cut cut, u32 id, u64 (&to)[4]) {
    float four[4];
    load_logits(four, row.logits, row.allowed, row.vocab, id, row.wide);
    u64 sum = 0;
    UNROLL for (u32 at = 0; at < 4; at++) {
        to[at] = four[at] > MINUS_INFINITY && keeps(cut, order_of(four[at]), id + at) ? weight_of(row, four[at]) : 0;
        sum += to[at];
    }
    return sum;
}

// The first token, in order of id, at which the cumulative weight of what `cut` keeps exceeds `uniform` of all of it.
DEVICE u32 draw(const Row& row, Cut cut, u64 uniform) {
    if (row.listed != UNLISTED) {
        u64 need = __umul64hi(uniform, weigh(row, cut)) + 1;
        return search(row, cut, Search{true, true, 0}, 0, row.vocab - 1, need).value;
    }
    // A warp weighs a stretch of tokens, the first finds the stretch, then the lane, then the token.
    __syncthreads();
    u64* masses = reinterpret_cast<u64*>(row.low);
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 stretch = (row.vocab + BINS * 4 * WARP - 1) / (BINS * 4 * WARP) * 4 * WARP;
    for (u32 at = warp; at < BINS; at += blockDim.x / WARP) {
        u64 sum = 0, each[4];
        for (u32 id = at * stretch + 4 * lane; id < min((at + 1) * stretch, row.vocab); id += 4 * WARP) {
            sum += weigh_four(row, cut, id, each);
        }
        sum = warp_sum64(sum);
        if (lane == 0) masses[at] = sum;
    }
    __syncthreads();
    if (warp == 0) {
        u64 own = 0;
        for (u32 at = 0; at < BINS / WARP; at++) own += masses[lane * (BINS / WARP) + at];
        u64 prefix = warp_prefix64(own);
        u64 left = __umul64hi(uniform, __shfl_sync(0xffffffffu, prefix, WARP - 1));
        u32 from = first_lane(prefix > left), found = 0;
        u64 before = prefix - own;
        for (u32 at = 0; at < BINS / WARP; at++) {
            found = lane * (BINS / WARP) + at;
            if (before + masses[found] > left) break;
            before += masses[found];
        }
        found = __shfl_sync(0xffffffffu, found, from);
        left -= __shfl_sync(0xffffffffu, before, from);

        u32 run = stretch / WARP, first = found * stretch + lane * run;
        u64 each[4];
        own = 0;
        for (u32 at = 0; at < run; at += 4) own += weigh_four(row, cut, first + at, each);
        prefix = warp_prefix64(own);
        before = prefix - own;
        from = first_lane(prefix > left);
        u32 chosen = 0;
        for (u32 at = 0; lane == from && at < run; at += 4) {
            u64 sum = weigh_four(row, cut, first + at, each);
            if (before + sum <= left) {
                before += sum;
                continue;
            }
            chosen = first + at;
            for (u32 next = 0; next < 4; next++) {
                chosen = first + at + next;
                if (before + each[next] > left) break;
                before += each[next];
            }
            break;
        }
        if (lane == from) *row.shared = chosen;
    }
    __syncthreads();
    return *row.shared;
}

// Bias, penalties and bans; what they overwrite is kept in the edits. No two are of one token.
DEVICE void edit(float* logits, u32 vocab, u32* edits, u32 count, const u32* header) {
    float repetition = bits_float(header[5]), frequency = bits_float(header[6]), presence = bits_float(header[7]);
    for (u32 at = threadIdx.x; at < count; at += blockDim.x) {
        u32* entry = edits + EDIT * at;
        u32 token = entry[0], kind = entry[2];
        if (token >= vocab) continue;
        float logit = logits[token];
        entry[3] = float_bits(logit);
        if (logit > MINUS_INFINITY) {
            if (kind & BIASED) {
                logit += bits_float(entry[1]);
                logit = fminf(fmaxf(logit, -LARGEST_EDITED), LARGEST_EDITED);
            }
            if (kind & SEEN) {
                u32 times = kind & (BIASED - 1);
                float subtract = frequency * (float)times + (times > 0 ? presence : 0.0f);
                logit = (logit > 0.0f ? logit / repetition : logit * repetition) - subtract;
                // Two infinite edits can meet in NaN, which fmaxf drops.
                logit = fminf(fmaxf(logit, -LARGEST_EDITED), LARGEST_EDITED);
            }
        }
        logits[token] = kind & BANNED ? MINUS_INFINITY : logit;
    }
}

DEVICE void undo(float* logits, u32 vocab, const u32* edits, u32 count) {
    for (u32 at = threadIdx.x; at < count; at += blockDim.x) {
        const u32* entry = edits + EDIT * at;
        if (entry[0] < vocab) logits[entry[0]] = bits_float(entry[3]);
    }
}

// A block for each row. `packed` has a header for each, then room for `edit_room` edits; `allowed`, unless it is null, a bit
// for each token of each row. A row that is not live, or has no token to choose, gets token 0.
KERNEL(BOUNDS(1024, 1) sample)(float* logits, u32 vocab, u32* packed, u32 edit_room, const u32* allowed, u32 wide,
                               u32* __restrict__ out_tokens, float* __restrict__ out_logprobs,
                               u32* __restrict__ out_status) {
    SHARED(u64, shared);
    const u32* header = packed + HEADER * blockIdx.x;
    u32 warps = blockDim.x / WARP, flags = header[0];
    float* values = logits + (u64)blockIdx.x * vocab;
    u32 chosen = 0, status = 0;
    float logprob = 0.0f;
    if (flags & LIVE) {
        Spread spread = spread_of(values, vocab, wide, shared);
        Row row;
        row.logits = values;
        row.allowed = (flags & MASKED) && allowed != nullptr ? allowed + (u64)blockIdx.x * ((vocab + 31) / 32) : nullptr;
        row.vocab = vocab;
        row.wide = wide;
        row.listed = UNLISTED;
        row.scratch = shared;
        row.low = reinterpret_cast<u32*>(shared + SPREAD_BYTES / 8 * warps);
        row.high = row.low + BINS;
        row.shared = row.high + BINS;
        row.list = reinterpret_cast<u64*>(row.shared + 4);

        u32 first = min(header[12], edit_room), count = min(header[13], edit_room - first);
        u32* edits = packed + HEADER * gridDim.x + EDIT * first;
        status = spread.bad ? NOT_FINITE : spread.order <= NOTHING ? NOTHING_LEFT : 0;
        if (status == 0) {
            u32 top = spread.order;
            chosen = spread.id;
            if (count > 0 || row.allowed != nullptr) {
                __syncthreads();
                edit(values, vocab, edits, count, header);
                __syncthreads();
                u64 best = 0;
                each_token(row, [&](u32 order, u32 id) {
                    u64 mine = (u64)order << 32 | (u32)~id;
                    best = best > mine ? best : mine;
                });
                best = block_max64(best, row.scratch);
                top = (u32)(best >> 32);
                chosen = ~(u32)best;
            }
            float temperature = bits_float(header[1]), top_p = bits_float(header[3]), min_p = bits_float(header[4]);
            if (top <= NOTHING) {
                status = NOTHING_LEFT;
                chosen = 0;
            } else if (temperature >= 1e-5f) {
                row.top = logit_of(top);
                row.inverse = 1.0f / temperature;
                u32 top_k = header[2] < vocab ? header[2] : 0;
                Cut cut = {0, 0xffffffffu};
                if (top_k > 0 || top_p < 1.0f) cut = narrow(row, top, top_k, top_p, temperature);
                if (min_p > 0.0f) {
                    u32 floor = order_of(row.top + temperature * logf(min_p));
                    if (floor > cut.order) cut = Cut{floor, 0xffffffffu};
                }
                u64 seed = (u64)header[9] << 32 | header[8], index = (u64)header[11] << 32 | header[10];
                chosen = draw(row, cut, uniform_bits(seed, index));
            }
            __syncthreads();
            undo(values, vocab, edits, count);
            __syncthreads();
            if (status == 0) logprob = (values[chosen] - logit_of(spread.order)) - spread.log_sum;
        }
    }
    if (threadIdx.x == 0) {
        out_tokens[blockIdx.x] = chosen;
        out_logprobs[blockIdx.x] = logprob;
        out_status[blockIdx.x] = status;
    }
}
REGISTER(sample)
