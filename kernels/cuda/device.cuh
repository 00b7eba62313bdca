// What kernels are written in: CUDA C++ on a device, plain C++ on the host (host/host.h), where every block of threads is
// run by fibers, so that what a kernel does can be checked where there is no GPU.
//
// No header of the toolkit is included: the sources compile with nothing but nvcc or NVRTC.
//
//   KERNEL(name)(arguments) { ... } REGISTER(name)   a kernel; REGISTER tells the host of it
//   DEVICE                                          a function of kernels
//   SHARED(type, name)                              the block's shared memory, as many bytes as the launch asked for
//
// Only dynamic shared memory is used: on the host it is poisoned before each block and ends at a guard page.
#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;

#ifdef __CUDACC__
#define KERNEL(name) extern "C" __global__ void name
#define REGISTER(name)
#define DEVICE static __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define SHARED(type, name)                                  \
    extern __shared__ __align__(128) u8 pith_shared[];      \
    type* const name = reinterpret_cast<type*>(pith_shared)
// Blocks of at most `threads` threads, `blocks` of them at once on a multiprocessor.
#define BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#else
#include "host/host.h"
#endif

static const u32 WARP = 32;

// Storage of sixteen- and eight-bit floats; arithmetic is in f32.
struct bf16 {
    u16 bits;
};
struct f16 {
    u16 bits;
};
// e4m3: 1 sign, 4 exponent, 3 fraction bits; largest 448, no infinity.
struct f8 {
    u8 bits;
};

DEVICE u32 float_bits(float value) {
#ifdef __CUDACC__
    return __float_as_uint(value);
#else
    return host::bits_of(value);
#endif
}

DEVICE float bits_float(u32 bits) {
#ifdef __CUDACC__
    return __uint_as_float(bits);
#else
    return host::float_of(bits);
#endif
}

DEVICE float to_float(float value) { return value; }

DEVICE float to_float(bf16 value) { return bits_float((u32)value.bits << 16); }

// To the nearest, ties to even; NaN stays NaN.
DEVICE bf16 to_bf16(float value) {
    u32 bits = float_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16{(u16)((bits >> 16) | 0x40)};
    return bf16{(u16)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16)};
}

// Two values in one register, the first in the low half, as fragments of matrices hold them.
DEVICE u32 pack_bf16(float low, float high) {
#if defined(__CUDACC__) && __CUDA_ARCH__ >= 800
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#else
    return (u32)to_bf16(low).bits | ((u32)to_bf16(high).bits << 16);
#endif
}

DEVICE float low_bf16(u32 packed) { return bits_float(packed << 16); }
DEVICE float high_bf16(u32 packed) { return bits_float(packed & 0xffff0000u); }

DEVICE float to_float(f16 value) {
#ifdef __CUDACC__
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return wide;
#else
    return host::half_to_float(value.bits);
#endif
}

DEVICE f16 to_f16(float value) {
#ifdef __CUDACC__
    f16 narrow;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(value));
    return narrow;
#else
    return f16{host::float_to_half(value)};
#endif
}

// By arithmetic, on every architecture: e4m3 has hardware conversions from sm_89 on only.
DEVICE float to_float(f8 value) {
    u32 sign = (u32)(value.bits & 0x80) << 24;
    u32 rest = value.bits & 0x7f;
    if (rest == 0x7f) return bits_float(sign | 0x7fc00000u);
    // Exponent and fraction moved to a float's place, the exponent's bias mended by a product, which is exact for
    // numbers below the smallest normal one too.
    return bits_float(sign | (rest << 20)) * bits_float(0x7b800000u);  // 2^120
}

// To the nearest, ties to even, at most 448 either way; NaN stays NaN.
DEVICE f8 to_f8(float value) {
    u32 bits = float_bits(value);
    u8 sign = (u8)((bits >> 24) & 0x80);
    u32 size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return f8{0x7f};
    if (size >= 0x43e00000u) return f8{(u8)(sign | 0x7e)};  // 448 and more
    if (size < 0x3c800000u) {
        // Below 2^-6: adding 2^14 leaves steps of 2^-9, those of the smallest numbers.
        u32 steps = float_bits(bits_float(size) + 16384.0f) - 0x46800000u;
        return f8{(u8)(sign | steps)};
    }
    u32 rounded = size + 0x7ffffu + ((size >> 20) & 1);
    u32 code = (rounded >> 20) - (120u << 3);
    return f8{(u8)(sign | (code > 0x7e ? 0x7e : code))};
}

// The largest of a warp's values, the same in every lane.
DEVICE float warp_max(float value) {
    UNROLL for (u32 step = WARP / 2; step > 0; step /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, value, step);
        value = value > other ? value : other;
    }
    return value;
}

// The sum of a warp's values, the same bits in every lane.
DEVICE float warp_sum(float value) {
    UNROLL for (u32 step = WARP / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, step);
    }
    return value;
}

// The sum of a block's values, the same bits in every thread. `scratch` has room for a float per warp; it may be used again
// once all threads have returned and met another barrier.
DEVICE float block_sum(float value, float* scratch) {
    value = warp_sum(value);
    u32 warps = blockDim.x / WARP;
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = value;
    __syncthreads();
    float total = 0.0f;
    for (u32 warp = 0; warp < warps; warp++) total += scratch[warp];
    return total;
}

// The largest of a block's values; as `block_sum`.
DEVICE float block_max(float value, float* scratch) {
    value = warp_max(value);
    u32 warps = blockDim.x / WARP;
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = value;
    __syncthreads();
    float most = scratch[0];
    for (u32 warp = 1; warp < warps; warp++) most = most > scratch[warp] ? most : scratch[warp];
    return most;
}

// Sixteen bytes at once, aligned so.
struct alignas(16) u32x4 {
    u32 at[4];
};

DEVICE u32x4 load16(const void* from) { return *reinterpret_cast<const u32x4*>(from); }
DEVICE void store16(void* to, u32x4 value) { *reinterpret_cast<u32x4*>(to) = value; }

// Begins to copy sixteen bytes to shared memory; zeros where `valid` is false, whose address is not read.
DEVICE void copy_async16(void* shared, const void* from, bool valid) {
#ifdef __CUDACC__
    u32 to = (u32)__cvta_generic_to_shared(shared);
    u32 bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
#else
    host::copy_async(shared, from, valid);
#endif
}

// Ends a group of copies.
DEVICE void copy_async_commit() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    host::copy_async_commit();
#endif
}

// Waits until at most `LATER` groups of this thread are unfinished. Other threads see the copies after a barrier.
template <int LATER>
DEVICE void copy_async_wait() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
#else
    host::copy_async_wait(LATER);
#endif
}

// Four 8 by 8 matrices of sixteen-bit numbers from shared memory: lane `8 m + r` gives the address of row `r` of matrix `m`
// (sixteen bytes, aligned so); it gets of every matrix the pair of numbers at row `lane / 4`, columns `2 (lane % 4)`.
DEVICE void load_matrices(u32 (&to)[4], const void* shared) {
#ifdef __CUDACC__
    u32 from = (u32)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
#else
    host::load_matrices(to, shared, false);
#endif
}

// The same, each matrix transposed.
DEVICE void load_matrices_transposed(u32 (&to)[4], const void* shared) {
#ifdef __CUDACC__
    u32 from = (u32)__cvta_generic_to_shared(shared);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
#else
    host::load_matrices(to, shared, true);
#endif
}

// d += a b, `a` 16 by 16, `b` 16 by 8, bfloat16, sums in f32. With g = lane / 4 and t = 2 (lane % 4), a lane holds of `a`
// rows g, g + 8, g, g + 8 at columns t, t, t + 8, t + 8; of `b` rows t and t + 8 of column g; of `d` rows g, g, g + 8, g + 8
// at columns t, t + 1, t, t + 1. (PTX ISA, mma.m16n8k16.)
DEVICE void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef __CUDACC__
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    host::mma_bf16(d, a, b);
#endif
}

// Eight floats from `from`, of which the first `count` are there; the others become 0. `wide`: the address is aligned to
// sixteen bytes. What a lane gets is the same either way.
DEVICE void load8(float (&to)[8], const float* from, u32 count, bool wide) {
    if (wide && count >= 8) {
        u32x4 low = load16(from), high = load16(from + 4);
        UNROLL for (u32 at = 0; at < 4; at++) {
            to[at] = bits_float(low.at[at]);
            to[at + 4] = bits_float(high.at[at]);
        }
    } else {
        UNROLL for (u32 at = 0; at < 8; at++) to[at] = at < count ? from[at] : 0.0f;
    }
}

DEVICE void load8(float (&to)[8], const bf16* from, u32 count, bool wide) {
    if (wide && count >= 8) {
        u32x4 packed = load16(from);
        UNROLL for (u32 at = 0; at < 4; at++) {
            to[2 * at] = low_bf16(packed.at[at]);
            to[2 * at + 1] = high_bf16(packed.at[at]);
        }
    } else {
        UNROLL for (u32 at = 0; at < 8; at++) to[at] = at < count ? to_float(from[at]) : 0.0f;
    }
}

// The first `count` of eight floats to `to`; as `load8`.
DEVICE void store8(float* to, const float (&from)[8], u32 count, bool wide) {
    if (wide && count >= 8) {
        u32x4 low, high;
        UNROLL for (u32 at = 0; at < 4; at++) {
            low.at[at] = float_bits(from[at]);
            high.at[at] = float_bits(from[at + 4]);
        }
        store16(to, low);
        store16(to + 4, high);
    } else {
        UNROLL for (u32 at = 0; at < 8; at++) {
            if (at < count) to[at] = from[at];
        }
    }
}

DEVICE void store8(bf16* to, const float (&from)[8], u32 count, bool wide) {
    if (wide && count >= 8) {
        u32x4 packed;
        UNROLL for (u32 at = 0; at < 4; at++) packed.at[at] = pack_bf16(from[2 * at], from[2 * at + 1]);
        store16(to, packed);
    } else {
        UNROLL for (u32 at = 0; at < 8; at++) {
            if (at < count) to[at] = to_bf16(from[at]);
        }
    }
}
