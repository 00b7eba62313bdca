// What sampling and scoring share: a block has a row of logits, whose threads take fours, the first four by the first thread
// and so on, whether the row is aligned or not. Thus a thread sees its tokens in order of id, and sums have the same bits
// wherever a row lies.
#pragma once

#include "device.cuh"

// By its bits: NVRTC, which has no headers, knows no constant of that value.
#define MINUS_INFINITY bits_float(0xff800000u)

// Four logits from `id` on, -infinity beyond the vocabulary and where a bit of `allowed`, unless it is null, is 0.
DEVICE void load_logits(float (&to)[4], const float* row, const u32* allowed, u32 vocab, u32 id, bool wide) {
    if (wide && id + 4 <= vocab) {
        u32x4 four = load16(row + id);
        UNROLL for (u32 at = 0; at < 4; at++) to[at] = bits_float(four.at[at]);
    } else {
        UNROLL for (u32 at = 0; at < 4; at++) to[at] = id + at < vocab ? row[id + at] : MINUS_INFINITY;
    }
    if (allowed == nullptr || id >= vocab) return;
    u32 bits = allowed[id / 32] >> (id % 32);
    UNROLL for (u32 at = 0; at < 4; at++) {
        if (((bits >> at) & 1) == 0) to[at] = MINUS_INFINITY;
    }
}

// Calls `visit(id, logit)` for those of the row's tokens that are this thread's.
template <class Visit>
DEVICE void each_logit(const float* row, const u32* allowed, u32 vocab, bool wide, Visit visit) {
    u32 stride = 4 * blockDim.x;
    // Two loads under way at once.
    for (u32 id = 4 * threadIdx.x; id < vocab; id += 2 * stride) {
        float first[4], second[4];
        load_logits(first, row, allowed, vocab, id, wide);
        load_logits(second, row, allowed, vocab, id + stride, wide);
        UNROLL for (u32 at = 0; at < 4; at++) {
            if (id + at < vocab) visit(id + at, first[at]);
        }
        UNROLL for (u32 at = 0; at < 4; at++) {
            if (id + stride + at < vocab) visit(id + stride + at, second[at]);
        }
    }
}

// A logit as a number whose order is the same; zeros of both signs are equals. Not for NaN.
DEVICE u32 order_of(float logit) {
    u32 bits = float_bits(logit + 0.0f);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

DEVICE float logit_of(u32 order) {
    return bits_float((order & 0x80000000u) != 0 ? order & 0x7fffffffu : ~order);
}

// That of -infinity: what is above it may be chosen.
static const u32 NOTHING = 0x007fffffu;

// The largest of a warp's or block's numbers, as `block_max`; `scratch` has one for each warp.
DEVICE u64 block_max64(u64 value, u64* scratch) {
    UNROLL for (u32 step = WARP / 2; step > 0; step /= 2) {
        u64 other = __shfl_xor_sync(0xffffffffu, value, step);
        value = value > other ? value : other;
    }
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = value;
    __syncthreads();
    u64 most = scratch[0];
    for (u32 warp = 1; warp < blockDim.x / WARP; warp++) most = most > scratch[warp] ? most : scratch[warp];
    return most;
}

// What a row's likelihoods are measured by.
struct Spread {
    // The order of its largest logit, and its id, the lowest of equals.
    u32 order;
    u32 id;
    // ln(sum(exp(logit - largest)))
    float log_sum;
    // Some logit is NaN or +infinity; the rest is void.
    bool bad;
};

// Bytes of shared memory `spread_of` takes for each warp.
static const u32 SPREAD_BYTES = 16;

// Looks at a whole row once; the same in every thread.
DEVICE Spread spread_of(const float* row, u32 vocab, bool wide, u64* scratch) {
    float top = MINUS_INFINITY, sum = 0.0f;
    u32 id = 0;
    bool bad = false;
    each_logit(row, nullptr, vocab, wide, [&](u32 at, float logit) {
        // NaN is below nothing.
        bad = bad || !(logit < -MINUS_INFINITY);
        if (logit > top) {
            sum = sum * __expf(top - logit) + 1.0f;
            top = logit;
            id = at;
        } else if (logit > MINUS_INFINITY) {
            sum += __expf(logit - top);
        }
    });
    // A row that is bad is above all others.
    u64 mine = bad ? ~(u64)0 : ((u64)order_of(top) << 32) | (u32)~id;
    u64 most = block_max64(mine, scratch);
    Spread spread;
    spread.order = (u32)(most >> 32);
    spread.id = ~(u32)most;
    spread.bad = most == ~(u64)0;
    spread.log_sum = 0.0f;
    // Nothing but -infinity has no sum either.
    float largest = logit_of(spread.order);
    float part = !spread.bad && top > MINUS_INFINITY ? sum * __expf(top - largest) : 0.0f;
    float* sums = reinterpret_cast<float*>(scratch + blockDim.x / WARP);
    spread.log_sum = logf(block_sum(part, sums));
    return spread;
}
