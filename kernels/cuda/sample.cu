// Choosing the next token of each row: bias, penalties and bans, then temperature, top-k, top-p and min-p, and one uniform
// number that picks among what is left in order of id. The CPU's rules, in the CPU's order.
//
// A weight, exp((logit - top) / temperature), is kept as a whole number of 2^-40: sums of whole numbers are the same in any
// order, so what is drawn does not depend on how threads share the row out, and no rounding decides at the end of a sum.
//
// Nothing sorts. Where a few thousand of the likeliest tokens hold all that top-k and top-p may keep, these are listed in
// shared memory first; thresholds are found by counting into 256 bins, again into 256 of the bin that has it, and so on.
#include "threshold.cuh"

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

// Depths below the top, in logits times the temperature if that is above 1, at which a list may end.
static const u32 FLOORS = 4;
DEVICE float floor_depth(u32 at) { return at == 0 ? 3.0f : at == 1 ? 6.0f : at == 2 ? 10.0f : 16.0f; }

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
