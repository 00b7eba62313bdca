// What becomes of queries, keys and values between their product and attention: bias, norm, rotation, and the cache.
#include "device.cuh"

// Sine and cosine of position * frequency. The product of a whole number and a float, and how far it is from a whole number
// of quarter turns, are taken in f64, so that far positions lose nothing; the rest, at most an eighth of a turn, by
// polynomials (Taylor's, cut where the next term is below 3e-8). No function of the toolkit does as well without a slow
// path that spills.
DEVICE void turn(u32 position, float frequency, float* cosine, float* sine) {
    double turns = (double)position * (double)frequency * 0.15915494309189535;  // 1 / (2 pi)
    double quarters = rint(4.0 * turns);
    float x = (float)((turns - 0.25 * quarters) * 6.283185307179586);
    u32 quadrant = (u32)(long long)quarters & 3;
    float square = x * x;
    float s = x + x * square * (-1.0f / 6 + square * (1.0f / 120 + square * (-1.0f / 5040 + square * (1.0f / 362880))));
    float c = 1.0f + square * (-0.5f + square * (1.0f / 24 + square * (-1.0f / 720 + square * (1.0f / 40320))));
    if (quadrant & 1) {
        float swap = s;
        s = c;
        c = -swap;
    }
    *cosine = quadrant & 2 ? -c : c;
    *sine = quadrant & 2 ? -s : s;
}

// Writes eight elements, from `at` on, of vector `vector` of the cache; codes are of x * inverse.
DEVICE void keep(u8* elements, bool codes, u64 vector, u32 head_dim, u32 at, const float (&x)[8], float inverse) {
    u64 first = vector * head_dim + at;
    if (!codes) {
        store8(reinterpret_cast<bf16*>(elements) + first, x, 8, true);
        return;
    }
    u32 packed[2] = {0, 0};
    UNROLL for (u32 i = 0; i < 8; i++) packed[i / 4] |= (u32)to_f8(x[i] * inverse).bits << (8 * (i % 4));
    u32* to = reinterpret_cast<u32*>(elements + first);
    to[0] = packed[0];
    to[1] = packed[1];
}

// A block has row blockIdx.x and `each` of its heads (queries, then keys, then values) from blockIdx.y * each on, a warp for
// one after the other; head_dim is a multiple of 8. The block's angles are computed once and lie in shared memory, before a
// vector for each warp.
//
// `qkv_bias`, `query_norm` and `key_norm` may be null. The first 2 * pairs dimensions rotate: pair j is dimensions 2 j and
// 2 j + 1 where `adjacent`, j and j + pairs otherwise. A row whose slot is not below `slots` has no place in the cache.
KERNEL(BOUNDS(256, 4) heads)(const bf16* __restrict__ qkv, const float* __restrict__ qkv_bias,
                             const float* __restrict__ query_norm, const float* __restrict__ key_norm,
                             const float* __restrict__ inv_freq, const u32* __restrict__ positions,
                             const u32* __restrict__ slot_of, bf16* __restrict__ queries, u8* __restrict__ keys,
                             u8* __restrict__ values, float* __restrict__ key_scales, float* __restrict__ value_scales,
                             u32 query_heads, u32 kv_heads, u32 head_dim, u32 pairs, u32 adjacent, float magnitude,
                             float eps, u32 block_size, u32 slots, u32 codes, u32 each, u32 wide) {
    SHARED(float, angles);
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    // Vectors of sixteen bytes follow.
    float* mine = angles + (2 * pairs + 3) / 4 * 4 + warp * head_dim;
    u32 row = blockIdx.x, position = positions[row], slot = slot_of[row];
    for (u32 pair = threadIdx.x; pair < pairs; pair += blockDim.x) {
        float cosine, sine;
        turn(position, inv_freq[pair], &cosine, &sine);
        angles[2 * pair] = cosine * magnitude;
        angles[2 * pair + 1] = sine * magnitude;
    }
    __syncthreads();

    u32 all = query_heads + 2 * kv_heads;
    u32 end = min(all, (blockIdx.y + 1) * each);
    for (u32 head = blockIdx.y * each + warp; head < end; head += warps) {
        bool is_query = head < query_heads, is_value = head >= query_heads + kv_heads;
        if (!is_query && slot >= slots) continue;
        const bf16* from = qkv + ((u64)row * all + head) * head_dim;
        const float* bias = qkv_bias == nullptr ? nullptr : qkv_bias + (u64)head * head_dim;
        const float* norm = is_query ? query_norm : is_value ? nullptr : key_norm;

        float squares = 0.0f;
        for (u32 at = 8 * lane; at < head_dim; at += 8 * WARP) {
            float x[8], b[8];
            load8(x, from + at, 8, wide);
            if (bias != nullptr) {
                load8(b, bias + at, 8, wide);
                UNROLL for (u32 i = 0; i < 8; i++) x[i] += b[i];
            }
            UNROLL for (u32 i = 0; i < 8; i++) squares += x[i] * x[i];
            store8(mine + at, x, 8, true);
        }
        if (norm != nullptr) {
            float factor = 1.0f / sqrtf(warp_sum(squares) / (float)head_dim + eps);
            for (u32 at = 8 * lane; at < head_dim; at += 8 * WARP) {
                float x[8], w[8];
                load8(x, mine + at, 8, true);
                load8(w, norm + at, 8, wide);
                UNROLL for (u32 i = 0; i < 8; i++) x[i] = x[i] * factor * w[i];
                store8(mine + at, x, 8, true);
            }
        }
        __syncwarp();
        if (!is_value) {
            for (u32 pair = lane; pair < pairs; pair += WARP) {
                u32 first = adjacent ? 2 * pair : pair, second = adjacent ? first + 1 : first + pairs;
                float a = mine[first], b = mine[second], c = angles[2 * pair], s = angles[2 * pair + 1];
                mine[first] = a * c - b * s;
                mine[second] = a * s + b * c;
            }
            __syncwarp();
        }

        // A slot's vector: the cache is [block][kv_head][offset].
        u32 kv_head = is_query ? 0 : (head - query_heads) % kv_heads;
        u64 vector = ((u64)(slot / block_size) * kv_heads + kv_head) * block_size + slot % block_size;
        float inverse = 0.0f;
        if (!is_query && codes) {
            float largest = 0.0f;
            for (u32 at = 8 * lane; at < head_dim; at += 8 * WARP) {
                float x[8];
                load8(x, mine + at, 8, true);
                UNROLL for (u32 i = 0; i < 8; i++) largest = max(largest, fabsf(x[i]));
            }
            largest = warp_max(largest);
            // A vector too small for its quotient to be a float is one of zeros.
            float scale = largest / 448.0f;
            inverse = largest > 1e-30f ? 448.0f / largest : 0.0f;
            if (lane == 0) (is_value ? value_scales : key_scales)[vector] = scale;
        }
        for (u32 at = 8 * lane; at < head_dim; at += 8 * WARP) {
            float x[8];
            load8(x, mine + at, 8, true);
            if (is_query) store8(queries + ((u64)row * query_heads + head) * head_dim + at, x, 8, wide);
            else keep(is_value ? values : keys, codes, vector, head_dim, at, x, inverse);
        }
        // The next head's vector takes the place of this one.
        __syncwarp();
    }
}
REGISTER(heads)
